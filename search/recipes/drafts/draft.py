"""What every drafted recipe has: what was found, what is amiss, and how it becomes comments and values of YAML."""

from __future__ import annotations

import json
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.examination import Examination

_MOST_CLASSES = 40
"""Of more than these only the most and the least frequent are listed."""
_MOST_NAMES = 5
"""Of files that are named in a sentence."""
_WIDTH = 116
"""Signs of a comment's line, behind its ``# ``."""
_UNEQUAL = 10
"""A class is said to be rare of which there is a tenth of the most frequent, or less."""


@dataclass(frozen=True)
class Draft:
    """A recipe in the making.

    Attributes:
        facts: what was found, a line each.
        amiss: what to look at before anything is trained, a line each.
        body: the YAML below the comments that say so.
    """

    facts: tuple[str, ...]
    amiss: tuple[str, ...]
    body: str

    def text(self, command: str, out: Path) -> str:
        """The whole recipe.

        Args:
            command: that wrote it.
            out: the file that it is written into.
        """
        lines = [f'Written by "{command}".', "To see within seconds whether it runs, and then to run it:"]
        lines += [f"  catchmark run {out} --tiny", f"  catchmark run {out}", "", "What was found:"]
        lines += [f"  {line}" for line in self.facts]
        if self.amiss:
            lines += ["", "To look at first:", *(f"  - {line}" for line in self.amiss)]
        lines = [each for line in lines for each in _wrapped(plain(line, spaces=True))]
        comments = "".join(f"# {line}".rstrip() + "\n" for line in lines)
        return comments + self.body


def _wrapped(line: str) -> list[str]:
    """A line of a comment as several, where it is long; those that follow stand under its words."""
    indent = " " * (len(line) - len(line.lstrip(" -")))
    return textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def plain(text: str, spaces: bool = False) -> str:
    """Text that stays in one line of a comment, whatever a file or a class is called."""
    return "".join(each if each.isprintable() else "?" for each in (text if spaces else " ".join(text.split())))


def quoted(value: Any) -> str:
    """Text, or a list of texts, as YAML has it in one line."""
    if isinstance(value, str):
        return value if re.fullmatch(r"[A-Za-z][\w./-]*", value) and not _read_otherwise(value) else json.dumps(value)
    return f"[{', '.join(map(quoted, value))}]"


def _read_otherwise(text: str) -> bool:
    """Whether YAML takes a word for something else than text."""
    return text.lower() in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")


def name_of(folder: Path) -> str:
    """What to call the target of a search on a folder's data."""
    name = re.sub(r"[^A-Za-z0-9_+-]+", "_", folder.resolve().name).strip("_+-")[:40]
    return name if name not in ("", "meta_training", "all", "exchange") else f"my_{name or 'data'}"


def table(columns: Mapping[str, Sequence[int]], names: Sequence[str]) -> list[str]:
    """Counts of each class in lines, the frequent ones first where there are many.

    Args:
        columns: one number a class, by what they count; the first column decides the order.
        names: of the classes.
    """
    order = list(range(len(names)))
    if len(order) > _MOST_CLASSES:
        first = next(iter(columns.values()))
        order.sort(key=lambda k: -first[k])
        half = _MOST_CLASSES // 2
        order = [*order[:half], -1, *order[-half:]]
    shown = [plain(name) for name in names]
    wide = min(40, max(len("class"), *(len(shown[k]) for k in order)))
    lines = [f"{'class':<{wide}}" + "".join(f"  {head:>10}" for head in columns)]
    for k in order:
        if k < 0:
            lines.append(f"... {len(names) - len(order) + 1} classes between ...")
        else:
            lines.append(f"{shown[k]:<{wide}}" + "".join(f"  {column[k]:>10,}" for column in columns.values()))
    return lines


def unequal(names: Sequence[str], counts: Sequence[int], what: str) -> Iterator[str]:
    """A line about classes that are much rarer than the most frequent one, where there are any."""
    most = max(range(len(counts)), key=counts.__getitem__)
    rare = sorted((k for k in range(len(counts)) if counts[k] * _UNEQUAL <= counts[most]), key=counts.__getitem__)
    if rare:
        some = ", ".join(f"'{plain(names[k])}' ({counts[k]:,})" for k in rare[:_MOST_NAMES])
        more = f" and {len(rare) - _MOST_NAMES} others" if len(rare) > _MOST_NAMES else ""
        yield (
            f"unequal classes: '{plain(names[most])}' has {counts[most]:,} {what}, {some}{more} a tenth of that or less"
        )


def leave_out(folder: Path, seen: Examination, skip_broken: bool) -> list[str]:
    """The paths below a folder of what cannot be read, to be left out.

    Raises:
        ValueError: there are such files, and they are not to be left out.
    """
    broken = [(file.relative_to(folder).as_posix(), why) for file, why in seen.broken.items()]
    if broken and not skip_broken:
        some = ", ".join(f"'{path}' ({why})" for path, why in broken[:_MOST_NAMES])
        more = f" and {len(broken) - _MOST_NAMES} others" if len(broken) > _MOST_NAMES else ""
        raise ValueError(
            f"{len(broken)} of {len(broken) + len(seen.sizes)} pictures in {folder} cannot be read: {some}{more}; mend "
            "them or take them away, or leave them out with --skip-broken"
        )
    return [path for path, _ in broken]


def left_out_lines(paths: Sequence[str], indent: int) -> str:
    """The value ``left_out`` of a data module as YAML; nothing where nothing is left out."""
    if not paths:
        return ""
    space = " " * indent
    return f"{space}left_out:  # they cannot be read\n" + "".join(f"{space}- {quoted(path)}\n" for path in paths)


def told(paths: Sequence[str]) -> list[str]:
    """A line about files that are left out, where there are any."""
    some = ", ".join(f"'{path}'" for path in paths[:_MOST_NAMES])
    more = f" and {len(paths) - _MOST_NAMES} others" if len(paths) > _MOST_NAMES else ""
    return [f"files that cannot be read are left out, {len(paths)} in all: {some}{more}"] if paths else []


def batch_size_for(images: int, most: int) -> int:
    """A power of two that makes 20 steps an epoch or more where there are enough images (assumed)."""
    size = most
    while size > 8 and images < 20 * size:
        size //= 2
    return min(size, max(1, images))


def epochs_for(images: int, batch_size: int, steps: int, least: int, most: int) -> int:
    """Epochs in which a network takes about so many steps, within bounds."""
    an_epoch = max(1, images // batch_size)
    return min(most, max(least, -(-steps // an_epoch)))


@contextmanager
def heard() -> Iterator[Callable[[], list[str]]]:
    """Collect what data modules warn of, each in a line, instead of showing it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: [str(each.message) for each in caught if each.category is UserWarning]
