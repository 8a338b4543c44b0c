"""Text for language models: words or characters, in windows that follow one another.

Batches are a pure function of (seed, epoch, batch).
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.batches import EpochLoader, generator_of, whole
from datamodules.epochs import EpochDataModule
from datamodules.locations import locations, looked_in

PYTHON_TOPICS = "python_topics"
"""Stands for the text that comes with Python."""
UNKNOWN, LINE_END = "<unk>", "<eos>"
_PARTS = ("train", "valid")


def python_topics() -> str:
    """The help on topics that comes with Python, about half a million characters; other versions have others.

    Raises:
        ValueError: this Python has none.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise ValueError("this Python comes without its topics (pydoc_data); name a text file") from error
    return "\n".join(topics[key] for key in sorted(topics))


class TextWindows(Dataset):
    """Windows of a text, one behind the other, and the words that follow each.

    Args:
        words: int64 ``[n]``.
        length: words of a window.
        seed: of where the first window begins in each epoch.
        shifted: whether that changes from epoch to epoch, by less than a window; else it is the first word.
    """

    def __init__(self, words: Tensor, length: int, seed: int = 0, shifted: bool = False):
        self.words, self.length, self.seed, self.shifted = words, length, seed, shifted
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw where the first window of an epoch begins."""
        self._begin = 0
        if self.shifted:
            self._begin = int(torch.randint(self.length, (), generator=generator_of(self.seed, epoch, 1)))

    def __len__(self) -> int:
        # Of any epoch: the last words may be left out by one that begins later.
        return (len(self.words) - 1 - (self.length - 1 if self.shifted else 0)) // self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        words, following = self.__getitems__([index])
        return words[0], following[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch: words and the ones that follow them, int64 ``[batch, time]`` each."""
        first = self._begin + self.length * torch.tensor(indices)
        places = first[:, None] + torch.arange(self.length + 1)
        found = self.words[places]
        return found[:, :-1].contiguous(), found[:, 1:].contiguous()


class Streams(DistributedSampler):
    """An order in which every place of a batch reads a part of the text from its beginning to its end.

    With ``b`` windows a batch on each of ``n`` ranks the text is cut into ``b n`` streams; what is left over of the
    windows is left out. Rank ``r`` reads the streams from the ``b r``-th on.

    Args:
        source: of windows that follow one another.
        batch_size: of a rank.
        ranks: whether several ranks share the text; else each has all of it.
    """

    def __init__(self, source: TextWindows, batch_size: int, ranks: bool = True):
        together = ranks and dist.is_available() and dist.is_initialized()
        count, rank = (dist.get_world_size(), dist.get_rank()) if together else (1, 0)
        super().__init__(source, count, rank)
        self.batch_size, self.steps = batch_size, len(source) // (batch_size * count)
        if not self.steps:
            raise ValueError(
                f"batch_size is {batch_size}, and the text has {len(source)} windows of {source.length}: too few"
            )

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        streams = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        return iter([stream * self.steps + step for step in range(self.steps) for stream in streams])


class TextDataModule(EpochDataModule):
    """The next word of a text, or the next character.

    A training batch goes on where the batch before it ended, place by place: `LanguageModule` carries the states of a
    network over. A supernet, whose `ThreePartsDataModule` shuffles windows, begins each with a state of zeros.

    Args:
        text: a text file, the end of which is held out; or a folder with one text file whose name holds ``train`` and
            one whose name holds ``valid``, as the Penn Treebank has them. A relative path is looked for below the
            current folder, then below ``$CATCHMARK_DATA``. ``python_topics`` stands for the help that comes with
            Python.
        level: ``word``, parted at white space, with ``<eos>`` for the end of a line; or ``character``.
        length: words (or characters) of a window.
        batch_size: windows a step.
        held_out: share of a single text's end that is for validation.
        words: the most frequent so many of the training text make the vocabulary, besides ``<unk>``, which stands for
            all others; None for all.
        characters: of a single text, so many from its beginning; None for all.
        val_batch_size: streams of the validation; None for as many as in training.
        num_workers: processes that make batches.
        seed: of where windows begin.

    Raises:
        ValueError: a number is out of range, or there is no such text.
    """

    in_channels = 1

    def __init__(
        self,
        text: str | PathLike[str] = PYTHON_TOPICS,
        level: Literal["word", "character"] = "character",
        length: int = 35,
        batch_size: int = 64,
        held_out: float = 0.1,
        words: int | None = None,
        characters: int | None = None,
        val_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, num_workers, seed)
        numbers = {"length": length, "words": words, "characters": characters, "val_batch_size": val_batch_size}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, at least 1 is needed")
        if level not in ("word", "character"):
            raise ValueError(f"level is '{level}', allowed: word, character")
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is {held_out}, it must lie between 0 and 1")
        self.level, self.length, self.held_out = level, length, held_out
        self.words, self.characters, self._val_batch_size = words, characters, val_batch_size
        self.text = str(text)
        self._files = [] if self.text == PYTHON_TOPICS else _find(text)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"text": PYTHON_TOPICS, "length": 4, "characters": 1500, "words": 30, "val_batch_size": 4}

    @cached_property
    def _read(self) -> tuple[list[str], Tensor, Tensor]:
        """The vocabulary, and the training and the validation text as int64."""
        if len(self._files) == 2:
            train, held_out = (self._parted(path.read_text(encoding="utf-8")) for path in self._files)
        else:
            text = self._files[0].read_text(encoding="utf-8") if self._files else python_topics()
            everything = self._parted(text[: self.characters])
            cut = len(everything) - max(1, round(self.held_out * len(everything)))
            train, held_out = everything[:cut], everything[cut:]
        counts = Counter(train)
        counts.pop(UNKNOWN, None)
        # Of equally frequent ones the first in alphabetical order.
        kept = sorted(counts, key=lambda word: (-counts[word], word))[: self.words]
        vocabulary = [UNKNOWN, *kept]
        numbers = {word: number for number, word in enumerate(vocabulary)}
        first, second = (torch.tensor([numbers.get(word, 0) for word in part]) for part in (train, held_out))
        for part, name in ((first, "training"), (second, "validation")):
            if len(part) <= 2 * self.length:
                raise ValueError(f"{self.text}: the {name} text has {len(part)} {self.level}s, windows {self.length}")
        return vocabulary, first, second

    def _parted(self, text: str) -> list[str]:
        if self.level == "character":
            return list(text)
        return [word for line in text.splitlines() for word in (*line.split(), LINE_END)]

    @property
    def vocabulary(self) -> list[str]:
        """Words or characters by their number; the first stands for all that are not there."""
        return self._read[0]

    @property
    def num_classes(self) -> int:
        """How many of them there are."""
        return len(self.vocabulary)

    def leaves_out_rest(self, images: int) -> bool:
        """Nothing: language models take no statistics over a batch."""
        return False

    def training_set(self, augmented: bool = True) -> TextWindows:
        """The windows of the training text; ``augmented`` they begin elsewhere in each epoch."""
        return TextWindows(self._read[1], self.length, self.seed, augmented)

    def validation_set(self) -> TextWindows:
        """The windows of the validation text."""
        return TextWindows(self._read[2], self.length)

    @property
    def val_batch_size(self) -> int:
        """Streams of the validation; fewer where the text has fewer windows."""
        return min(self._val_batch_size or self.batch_size, len(self.validation_set()))

    def train_dataloader(self) -> EpochLoader:
        """Batches that go on where the last one ended, in another place of the text in each epoch."""
        samples = self.training_set()
        return EpochLoader(
            samples,
            batch_size=self.batch_size,
            sampler=Streams(samples, self.batch_size),
            num_workers=self.num_workers,
            collate_fn=whole,
            generator=generator_of(self.seed, 2),
        )

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation text that go on where the last one ended; every rank reads all of it."""
        samples = self.validation_set()
        return DataLoader(
            samples,
            batch_size=self.val_batch_size,
            sampler=Streams(samples, self.val_batch_size, ranks=False),
            num_workers=self.num_workers,
            collate_fn=whole,
            generator=generator_of(self.seed, 3),
        )


def _find(text: str | PathLike[str]) -> Sequence[Path]:
    """The text file, or both of a folder.

    Raises:
        ValueError: there is none, or a folder has no file or several for one part.
    """
    place = next((path for path in locations(text) if path.exists()), None)
    if place is None:
        raise ValueError(f"text: there is no '{text}'{looked_in(text)}")
    if place.is_file():
        return [place]
    found = []
    for part in _PARTS:
        files = sorted(path for path in place.glob("*.txt") if part in path.name)
        if len(files) != 1:
            raise ValueError(f"text: {place} has {len(files)} files '*{part}*.txt', one is needed")
        found += files
    return found
