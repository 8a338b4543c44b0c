"""What the contracts of all kinds have in common: a promise, a way to say that it is broken, and how to mend it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch

from search.errors import CatchmarkError, explain
from search.loop.state_check import known_to_differ
from search.recipes.build import build
from search.runs.journal import from_bytes, to_bytes
from search.spaces.base import SearchSpace

_MORE_BY_PLACE, _MORE_BY_NAME = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


class Broken(Exception):
    """A promise that is not kept.

    Args:
        what: was seen, in one line.
        cure: what to do about it, in one line.
    """

    def __init__(self, what: str, cure: str):
        super().__init__(f"{what} ({cure})")
        self.what, self.cure = what, cure


def ensure(kept: Any, what: str, cure: str) -> None:
    """Raise `Broken` unless a promise is kept."""
    if not kept:
        raise Broken(what, cure)


@dataclass(frozen=True)
class Subject:
    """One plugin in the surroundings that a check needs.

    Attributes:
        found: its class.
        on: the surroundings in a word or two, for messages.
        make: builds one; what it takes is up to the kind.
        space: that it works on; None for a space itself.
    """

    found: type
    on: str
    make: Callable[..., Any]
    space: Any = None


Check = Callable[[Any], None]
"""Looks at a `Subject`; its docstring's first line is the promise. Raises `Broken`."""


@dataclass(frozen=True)
class Contract:
    """What one kind of plugin promises.

    Attributes:
        kind: in words.
        base: the class that plugins of this kind are derived from.
        subjects: a class in all the surroundings to check it in.
        checks: for all of these.
        once: for the first of them alone: what does not depend on the surroundings.
    """

    kind: str
    base: type
    subjects: Callable[[type], Sequence[Any]]
    checks: Sequence[Check]
    once: Sequence[Check] = ()

    def examine(self, found: type) -> Iterator[tuple[str, str, Broken | None]]:
        """Run every check; yields the promise, where it was looked at (of a broken one: where it broke), and how."""
        try:
            subjects = self.subjects(found)
        except CatchmarkError as error:
            cure = "a recipe must be able to build it from what toy() says; annotate the constructor's arguments"
            yield "can be made", "", Broken(str(error), cure)
            return
        yield "can be made", "", None
        for check in (*self.checks, *self.once):
            broken, on = None, ", ".join(each.on for each in subjects)
            for subject in subjects[:1] if check in self.once else subjects:
                broken = attempt(check, subject)
                if broken is not None:
                    on = subject.on
                    break
            yield promise(check), on, broken


def promise(check: Check) -> str:
    """What a check looks at, in words."""
    return (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")


def attempt(check: Check, subject: Any) -> Broken | None:
    """Run a check; an exception of the plugin's own is a promise that is not kept either."""
    try:
        check(subject)
    except Broken as broken:
        return broken
    except Exception as error:
        return Broken(explain(error), "see the line that is named; nothing that the contract does may raise")
    return None


def toy_factory(found: Any, annotation: Any, space: SearchSpace | None = None) -> Callable[..., Any]:
    """What makes objects of a class out of its toy arguments, by the rules of recipes.

    Args:
        found: the class.
        annotation: as recipes ask for it, for instance ``Callable[[SearchSpace], Task]``.
        space: whose networks it builds, if it takes arguments of those.

    Raises:
        CatchmarkError: it can't be made in a recipe.
    """
    parameters = inspect.signature(found).parameters
    for name, parameter in parameters.items():
        if parameter.annotation is parameter.empty and parameter.kind not in (_MORE_BY_PLACE, _MORE_BY_NAME):
            raise CatchmarkError(f"the argument '{name}' of {found.__name__} has no type, by which a recipe is checked")
    toy = _plain(found.toy() or {})
    if space is not None and "build" in parameters:
        toy = {"build": space.toy_build()} | toy
    return build({"class_path": f"{found.__module__}.{found.__qualname__}", "init_args": toy}, annotation, "toy")


def _plain(value: Any) -> Any:
    """A value as a recipe would say it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def through_a_file(state: Any) -> Any:
    """A state as another process reads it.

    Raises:
        Broken: it can't be written, or not be read without executing anything.
    """
    try:
        return from_bytes(to_bytes(state))
    except Exception as error:
        raise Broken(
            f"the state can't be read back: {explain(error)}",
            "a state is tensors, numbers, strings, lists and dicts of them, nothing else",
        ) from error


def not_restored(one: Any, other: Any) -> str:
    """The end of a message: in which attributes two objects of a class differ, where that can be told."""
    # What was never set in the other is there all the same where the class has it.
    known = [(name, value) for name, value in vars(one).items() if hasattr(other, name)]
    unlike = [f"'{name}'" for name, value in known if known_to_differ(value, getattr(other, name))]
    return f"; not restored: {', '.join(unlike)}" if unlike else ""


def refused(call: Callable[[], Any], what: str, cure: str, *words: str) -> None:
    """See that a call is refused with a ValueError that says some words."""
    try:
        call()
    except ValueError as error:
        missing = [word for word in words if word not in str(error)]
        ensure(not missing, f"{what} is refused without naming '{', '.join(missing)}': {error}", cure)
        return
    raise Broken(f"{what} is taken", cure)


@contextmanager
def random_state_stays(cure: str) -> Iterator[None]:
    """See that what is inside leaves torch's random state alone."""
    before = torch.get_rng_state()
    yield
    ensure(torch.equal(torch.get_rng_state(), before), "torch's random state is another after it", cure)
