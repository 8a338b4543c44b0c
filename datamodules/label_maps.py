"""Label maps: which one belongs to which picture, what its pixels say, and whether the two lie on each other."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from datamodules.class_folders import FOLD
from datamodules.openmmlab_data import Record, listed, say
from datamodules.picture_sizes import Size, is_drawn_upright
from datamodules.pictures import SUFFIXES, opened

IGNORED = 255
"""The label of pixels that neither train nor count."""
_MOST_PAIRS = 2000
"""Of more pairs than this only so many, evenly spaced, have their sizes compared before training."""
_MOST_PIXELS = 2**26
"""Of label maps of more pixels only some, evenly spaced, are looked at before training (assumed: a second or two)."""
_FEWER_BITS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies grey of 2 and 4 bits with, so that it reaches 255."""

Pair = tuple[Path, Path]
"""A picture and its label map."""


class LabelledPictures:
    """Pairs as mmseg describes a sample.

    Args:
        pairs: pictures with their label maps.
    """

    def __init__(self, pairs: Sequence[Pair]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def get_data_info(self, idx: int) -> Record:
        """The paths of one pair."""
        picture, label_map = self.pairs[idx]
        paths = {"img_path": str(picture), "seg_map_path": str(label_map)}
        return paths | {"seg_fields": [], "reduce_zero_label": False, "sample_idx": idx}


def find_pairs(
    pictures: Path,
    labels: Path,
    picture_suffix: str | None,
    label_suffix: str,
    most: int | None,
    cure: str,
    shared: bool = False,
    without: Collection[Path] = (),
    held_out: bool | None = None,
) -> list[Pair]:
    """Pictures and their label maps, which have the same name but for its end, in the order of the pictures' paths.

    Suffixes in capital letters are as good.

    Args:
        pictures: the folder, with those below it.
        labels: likewise; may be the same.
        picture_suffix: how the names of pictures end; None for any that is known.
        label_suffix: how the names of label maps end.
        most: only the first so many; None for all.
        cure: closes the message where there are none.
        shared: whether the label maps are those of other pictures too; otherwise they are told of.
        without: pictures and label maps that are passed over, each with its counterpart.
        held_out: only every fifth pair, or only the four others; None for all.

    Raises:
        FileNotFoundError: a picture has no label map.
        ValueError: there are no pictures, or one would be left out.
    """
    endings = SUFFIXES if picture_suffix is None else (picture_suffix,)
    maps = {_less(path, (label_suffix,)): path for path in _files(labels, besides=pictures, ending=(label_suffix,))}
    own_maps = set(maps.values()) if pictures == labels else set()
    found: dict[str, str] = {}
    for path in sorted(_files(pictures, besides=labels, ending=endings)):
        if path in own_maps:
            continue
        name = _less(path, endings)
        if name in found:
            raise ValueError(
                f"'{pictures}' has two pictures for one label map, '{found[name]}' and '{path}'; leave one of them, or "
                "say in picture_suffix which"
            )
        found[name] = path
    if not found:
        shown = f"*{picture_suffix}" if picture_suffix else f"({', '.join(SUFFIXES)})"
        raise ValueError(f"'{pictures}' has no pictures {shown}; {cure}")
    lone = {name: path for name, path in maps.items() if name not in found}
    others = (path for path in _files(pictures, besides=labels) if path not in own_maps) if lone else ()
    left_out = [path for path in others if os.path.splitext(path)[0] in lone]
    if left_out:
        raise ValueError(
            f"{len(left_out)} files in '{pictures}' that have a label map would be left out, for instance "
            f"'{min(left_out)}'; names of pictures end in {', '.join(endings)}"
        )
    if lone and not shared:
        say(
            f"{len(lone)} label maps in '{labels}' have no picture in '{pictures}', for instance '{min(lone.values())}'"
        )
    kept = [
        (name, path)
        for name, path in found.items()
        if pictures / path not in without and (name not in maps or labels / maps[name] not in without)
    ]
    if held_out is not None:
        kept = [pair for k, pair in enumerate(kept) if (k % FOLD == FOLD - 1) == held_out]
    if not kept:
        raise ValueError(f"'{pictures}' has too few pictures: {len(found)}, of which none is left to be used here")
    chosen = kept[:most]
    missing = [labels / f"{name}{label_suffix}" for name, _ in chosen if name not in maps]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(chosen)} pictures in '{pictures}' have no label map, for instance '{missing[0]}' "
            f"is not there; {cure}"
        )
    return [(pictures / path, labels / maps[name]) for name, path in chosen]


def read_label_map(file: Path, num_classes: int, ignored: Collection[int] = ()) -> np.ndarray:
    """The class of every pixel.

    Args:
        file: a picture of one channel, whose values may have any number of bits.
        num_classes: values from 0 to below it are classes.
        ignored: values that do not count, besides `IGNORED`.

    Returns:
        Uint8 ``[height, width]``, `IGNORED` for pixels that do not count.

    Raises:
        ValueError: it cannot be read, has several channels, or a value that is neither; names file and value.
    """
    with opened(file) as picture:
        channels = len(picture.getbands())
        tiles = getattr(picture, "tile", None)
        factor = _FEWER_BITS.get(str(tiles[0][3]), 1) if tiles else 1
        values = np.asarray(picture)
    if channels > 1:
        raise ValueError(f"{file} has {channels} channels, a label map has one: grey, or indices of a palette")
    values = values.astype(np.uint8) if values.dtype == bool else values // factor if factor > 1 else values
    present = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    unknown = [
        value for value in present.tolist() if value not in range(num_classes) and value not in (*ignored, IGNORED)
    ]
    if unknown:
        shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in unknown]
        shown = shown if len(shown) < 6 else [*shown[:4], "...", shown[-1]]
        raise ValueError(
            f"{file} has label{'s' if len(unknown) > 1 else ''} {', '.join(shown)}, with {num_classes} classes 0 to "
            f"{num_classes - 1} and {IGNORED} are allowed; name others in ignored_labels"
        )
    labels = values.astype(np.uint8)
    for value in set(ignored).intersection(present.tolist()):
        labels[values == value] = IGNORED
    return labels


def check_sizes(pairs: Sequence[Pair]) -> bool:
    """Compare the sizes of pictures and label maps, of which only the headers are read.

    Returns:
        Whether label maps are drawn on upright pictures, as far as sizes tell; otherwise on the pixels as they are
        stored.

    Raises:
        ValueError: a label map has another size than its picture; names both.
    """
    some = pairs[:: -(-len(pairs) // _MOST_PAIRS) or 1]
    return {is_drawn_upright(picture, *size_of(label_map)) for picture, label_map in some} - {None} == {True}


def size_of(label_map: str | Path) -> tuple[Size, str]:
    """Width and height of a label map, and what to call it in a message about its picture."""
    with opened(Path(label_map)) as picture:
        return picture.size, f"its label map {label_map}"


def check_classes(files: Sequence[Path], classes: Sequence[str], ignored: Collection[int], split: str) -> None:
    """Look at label maps before they are trained on, at all of them where they are small, and tell of absent classes.

    Args:
        files: the label maps of a split.
        classes: the name of each class, in the order of the labels.
        ignored: values that do not count, besides `IGNORED`.
        split: what to call it, for instance ``training``.

    Raises:
        ValueError: nothing in them counts, or all that does is one class; or one is as `read_label_map` refuses it.
    """
    pixels = np.zeros(256, dtype=np.int64)
    with opened(files[0]) as first:
        each = first.size[0] * first.size[1]
    stride = -(-len(files) * each // _MOST_PIXELS) or 1
    # The rest only where these look as if there were nothing to learn, which is not said of a part.
    rest = (file for index, file in enumerate(files) if index % stride)
    looked = 0
    for file in (*files[::stride], *rest):
        if looked >= len(files[::stride]) and np.count_nonzero(pixels[: len(classes)]) > 1:
            break
        pixels += np.bincount(read_label_map(file, len(classes), ignored).ravel(), minlength=256)
        looked += 1
    present = [name for name, count in zip(classes, pixels, strict=False) if count]
    where = f"'{files[0].parent}'"
    if len(present) < 2:
        alone = f"only class '{present[0]}'" if present else "no class at all"
        cure = f"; {IGNORED} means 'does not count': masks of 0 and 255 need the values 0 and 1" if pixels[-1] else ""
        raise ValueError(f"the {looked} {split} label maps in {where} show {alone}, nothing to tell apart{cure}")
    absent = [name for name in classes if name not in present]
    if absent:
        part = "" if looked == len(files) else f" that were looked at, of {len(files)}"
        say(f"no pixel of {listed(absent)} in the {looked} {split} label maps{part} ({where})")


def _files(folder: Path, besides: Path, ending: tuple[str, ...] = ("",)) -> Iterator[str]:
    """Paths of files below a folder, relative to it, but not those of the other folder, where that is within it."""
    ending = tuple(each.lower() for each in ending)
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name) != besides]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(ending):
                yield os.path.relpath(os.path.join(place, name), folder)


def _less(path: str, endings: Sequence[str]) -> str:
    """A path without its ending, the longest of those that it has."""
    return path[: -max(len(each) for each in endings if path.lower().endswith(each.lower()))]
