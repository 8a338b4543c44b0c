"""Numbers that a path decides: a choice among some, and what is computed from choices."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning_modules.networks.supernet import Path, Selection


class ThreadSelection(Selection):
    """Where the choices of one supernet find the path of the pass under way, each thread its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def path(self) -> Path:
        """That of this thread; one without choices before the first pass."""
        return getattr(self._local, "path", Path(()))

    @path.setter
    def path(self, path: Path) -> None:
        self._local.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a pass never travels to another process, nor into a copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._local = threading.local()


class Value(ABC):
    """A number that a path decides.

    Modules may compute with it as with a number, in ``forward``: ``int(value)`` is that of the pass under way. In the
    stand-alone network an attribute that was a value is a plain number.
    """

    @property
    @abstractmethod
    def now(self) -> Any:
        """That of the pass under way; the largest outside of a supernet."""

    @abstractmethod
    def at(self, choices: Sequence[int]) -> Any:
        """That of an architecture."""

    @property
    @abstractmethod
    def largest(self) -> Any:
        """What weights are made for."""

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """What it depends on."""

    def __int__(self) -> int:
        return int(self.now)

    def __index__(self) -> int:
        return int(self.now)

    def __float__(self) -> float:
        return float(self.now)

    def __mul__(self, other: int | float | Value) -> Product:
        return Product(self, other)

    __rmul__ = __mul__


class Choice(Value):
    """One decision of a network: what it may be.

    The same object in several places is one decision: so widths that must agree do.

    Args:
        options: numbers, or the names of operations; all different.
        name: of the decision; empty for the path of the module where it is met first.
        largest: index of the option of the largest network; None for the largest number.
        smallest: likewise of the smallest.

    Raises:
        ValueError: there are no options, two are the same, or a name holds a sign that architectures' strings need.
    """

    def __init__(
        self, options: Sequence[Any], name: str = "", largest: int | None = None, smallest: int | None = None
    ) -> None:
        self.options, self.name = tuple(options), name
        self.labels = tuple(f"{each:g}" if isinstance(each, float) else str(each) for each in self.options)
        if not self.options or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"the options of a choice are {list(self.labels)}; one or more, all different, are needed")
        for text in (name, *self.labels):
            if set(text) & set("|="):
                raise ValueError(f"'{text}' names a choice or an option of one; '|' and '=' can't be in it")
        order = range(len(self.options))
        self.largest_index = max(order, key=self.options.__getitem__) if largest is None else largest
        self.smallest_index = min(order, key=self.options.__getitem__) if smallest is None else smallest
        self._place: int | None = None
        self.selection: Selection | None = None
        """Of its supernet."""

    @property
    def place(self) -> int:
        """Which decision of its network it is, from 0; `find_choices` says.

        Raises:
            ValueError: it has not said yet.
        """
        if self._place is None:
            raise ValueError(f"the choice '{self.name}' has no place yet: find_choices(network) gives it one")
        return self._place

    @place.setter
    def place(self, place: int) -> None:
        self._place = place

    @property
    def path(self) -> Path | None:
        """That of the pass under way; None outside of a supernet."""
        if self.selection is None:
            return None
        path = self.selection.path
        return None if path.choices == () else path

    @property
    def now(self) -> Any:
        """The option of the pass under way.

        Raises:
            ValueError: the path has weights, and no module is here that could add up options.
        """
        path = self.path
        if path is None:
            return self.largest
        if path.choices is None or path.weights is not None:
            raise ValueError(
                f"'{self.name}' is a number, which paths with weights can't decide: take a sampler of single paths, "
                "such as UniformSampler"
            )
        return self.at(path.choices)

    def at(self, choices: Sequence[int]) -> Any:
        """The option of an architecture."""
        return self.options[self.index_in(choices)]

    def index_in(self, choices: Sequence[int]) -> int:
        """The option's number in an architecture."""
        return choices[self.place]

    @property
    def largest(self) -> Any:
        """The option of the largest network."""
        return self.options[self.largest_index]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Itself."""
        return (self,)


class Product(Value):
    """A product of numbers, some of which a path decides, to the nearest whole number.

    Args:
        *factors: numbers and values.
    """

    def __init__(self, *factors: int | float | Value) -> None:
        self.factors = factors

    @property
    def now(self) -> int:
        """That of the pass under way."""
        return _product(each.now if isinstance(each, Value) else each for each in self.factors)

    def at(self, choices: Sequence[int]) -> int:
        """That of an architecture."""
        return _product(each.at(choices) if isinstance(each, Value) else each for each in self.factors)

    @property
    def largest(self) -> int:
        """That of the largest factors."""
        return _product(each.largest if isinstance(each, Value) else each for each in self.factors)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Those of its factors."""
        return tuple(choice for each in self.factors if isinstance(each, Value) for choice in each.choices)


def _product(factors: Any) -> int:
    return round(math.prod(factors))


Number = int | Value
"""A whole number, fixed or decided by a path."""


def now(number: Number) -> int:
    """A number in the pass under way."""
    return int(number)


def at(number: Number, choices: Sequence[int]) -> int:
    """A number in an architecture."""
    return int(number.at(choices)) if isinstance(number, Value) else number


def largest(number: Number) -> int:
    """The largest that a number may be."""
    return int(number.largest) if isinstance(number, Value) else number


def only_values(**numbers: Any) -> dict[str, Value]:
    """Those of some numbers that paths decide, by name."""
    return {name: each for name, each in numbers.items() if isinstance(each, Value)}
