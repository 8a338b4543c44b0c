"""What every attribute promises, on every space that it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from search.attributes.base import Attribute
from search.contracts.contract import Contract, Subject, ensure, random_state_stays, toy_factory
from search.evaluation import Architecture
from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201

_PURE = "derive every random number from the seed and the architecture, keep nothing from one network to the next"


class AttributeSubject(Subject):
    """An attribute on a space. Values are kept, for a value may take a second."""

    def attribute(self) -> Attribute:
        """A fresh one, which knows nothing yet."""
        return self.make(self.space)

    @functools.cached_property
    def archs(self) -> Tensor:
        """Three architectures: int64 ``[3, decisions]``."""
        return torch.tensor([self.space.draw("attribute", k) for k in range(3)])

    @functools.cached_property
    def values(self) -> Tensor:
        """What they are worth."""
        return self.attribute().values(self.archs)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def says_what_it_is(subject: AttributeSubject) -> None:
    """Has a name, a unit, and a direction that is max or min."""
    found = subject.attribute()
    named = isinstance(getattr(found, "name", None), str) and found.name
    ensure(named, "it has no name", "say in words what it is: name = 'parameters'")
    ensure(isinstance(found.unit, str), f"its unit is {found.unit!r}", "a unit is text, empty where there is none")
    known = found.direction in ("max", "min")
    ensure(known, f"its direction is {found.direction!r}", "say which values presumably go with better networks")


def gives_a_value_for_each(subject: AttributeSubject) -> None:
    """Gives a float64 for each architecture, in whatever shape these come; NaN where there is none, never infinity."""
    values = subject.values
    given = f"{values.dtype} {list(values.shape)}"
    cure = "measure gives a number for each architecture; leave values as it is"
    ensure(values.dtype == torch.float64 and values.shape == (3,), f"of three it gives {given}", cure)
    ensure(not values.isinf().any(), f"of three it gives {values.tolist()}", "NaN says that there is no value")
    ensure(not values.isnan().all(), "none of three architectures has a value", "mend what measure can't do")
    shaped = subject.attribute().values(subject.archs.reshape(1, 3, -1))
    ensure(shaped.shape == (1, 3) and _same(shaped[0], values), f"[1, 3] of them give {list(shaped.shape)}", cure)
    empty = subject.attribute().values(subject.archs[:0])
    ensure(empty.shape == (0,), f"of no architecture it gives {list(empty.shape)}", cure)


def the_same_again(subject: AttributeSubject) -> None:
    """Gives the same again: a pure function of the architecture."""
    torch.manual_seed(torch.seed() % 2**31)  # whoever draws from the global state draws something new
    again = subject.attribute().values(subject.archs)
    ensure(_same(again, subject.values), f"{subject.values.tolist()}, and then {again.tolist()}", _PURE)


def company_makes_no_difference(subject: AttributeSubject) -> None:
    """Gives the same of an architecture alone, and in another order."""
    turned = subject.attribute().values(subject.archs.flip(0)).flip(0)
    ensure(_same(turned, subject.values), f"in another order {turned.tolist()}, not {subject.values.tolist()}", _PURE)
    alone = subject.attribute().values(subject.archs[-1])
    ensure(alone.shape == (), f"of a single architecture it gives {list(alone.shape)}", "leave values as it is")
    ensure(_same(alone, subject.values[-1]), f"alone {alone.item()}, not {subject.values[-1].item()}", _PURE)


def random_states_stay(subject: AttributeSubject) -> None:
    """Leaves torch's random state as it was."""
    with random_state_stays("derive it from NetworkAttribute, or measure inside of search.training.isolation.isolated"):
        subject.attribute().values(subject.archs[:1])


def a_network_is_measured_once(subject: AttributeSubject) -> None:
    """Remembers what it has measured, and takes what was measured before."""
    found, asked = subject.attribute(), list[int]()
    measure = found.measure

    def counted(architectures: Sequence[Architecture]) -> Iterable[float]:
        asked.append(len(architectures))
        return measure(architectures)

    vars(found)["measure"] = counted
    first = found.values(torch.cat([subject.archs[:1]] * 2))
    again = found.values(subject.archs[:1])
    once = sum(asked) == 1 and _same(first[:1], again)
    ensure(once, f"a network that is asked for three times is measured {sum(asked)} times", "leave values as it is")
    found.remember(tuple(subject.archs[1].tolist()), 7.5)
    kept = float(found.values(subject.archs[1])) == 7.5
    ensure(kept, "a value that a journal knows is measured again", "leave remember as it is")


def subjects(found: type, spaces: Mapping[str, SearchSpace] | None = None) -> list[AttributeSubject]:
    """An attribute on the space that it is for, NAS-Bench-201 where that may be any, or on others."""
    annotation = Callable[[SearchSpace], Attribute]
    own = found.toy_space() or NASBench201()  # type: ignore[attr-defined]
    return [
        AttributeSubject(found, name, toy_factory(found, annotation, space), space)
        for name, space in (spaces or {own.name: own}).items()
    ]


CONTRACT = Contract(
    "attribute",
    Attribute,
    subjects,
    checks=(
        says_what_it_is,
        gives_a_value_for_each,
        the_same_again,
        company_makes_no_difference,
        random_states_stay,
        a_network_is_measured_once,
    ),
)
