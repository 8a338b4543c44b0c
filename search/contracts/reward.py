"""What every term of a reward promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from search.contracts.contract import Contract, Subject, ensure, random_state_stays, toy_factory
from search.contracts.task import CONTRACT as TASK_CONTRACT
from search.randomness import TrialRandom
from search.rewards.base import RewardTerm
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import Task
from search.tasks.trained import TrainedTask


class TermSubject(Subject):
    """A term beside a task that trains."""

    @cached_property
    def term(self) -> RewardTerm:
        """The term."""
        return self.make(self.space)

    @cached_property
    def archs(self) -> Tensor:
        """Four architectures."""
        return self.term.space.sample(TrialRandom(3), 4)[0]


def says_what_it_is(subject: TermSubject) -> None:
    """Says the name of its quantity, in words too, whether more or less of it is wanted, and how the score shows it."""
    for name in ("name", "quantity", "described"):
        said = getattr(subject.term, name, "")
        ensure(isinstance(said, str) and said, f"'{name}' is {said!r}", f"say it in the class: {name} = '...'")
    direction = subject.term.direction
    ensure(direction in ("max", "min"), f"its direction is '{direction}'", "say 'max' or 'min' in the class")


def values_are_numbers(subject: TermSubject) -> None:
    """Gives one quantity and one value for each architecture, float64, NaN where it can't say."""
    measured, values = subject.term.values(subject.archs)
    for what, found in (("measure", measured), ("weigh", values)):
        form = isinstance(found, Tensor) and found.dtype == torch.float64 and found.shape == (len(subject.archs),)
        ensure(form, f"{what} of {len(subject.archs)} architectures gives {found}", "float64 [n] is needed")
        ensure(not found.isinf().any(), f"{what} gives {found.tolist()}", "give NaN where it can't say")
    ensure(not values.isnan().all(), "it can say nothing of any architecture", "see whether it is for such spaces")
    none = subject.term.values(subject.archs[:0]).values
    ensure(none.shape == (0,), f"values of no architecture are {none}", "return float64 [n]")


def a_value_does_not_depend_on_others(subject: TermSubject) -> None:
    """Gives the same value to the last bit, alone, among others, and when it is asked again."""
    together = subject.term.values(subject.archs)
    cure = "let values weigh one after another, as RewardTerm does; derive what is random from the architecture"
    again = subject.make(subject.space).values(subject.archs.flip(0))
    for k in range(len(subject.archs)):
        alone = subject.term.values(subject.archs[k : k + 1])
        for other in (alone.values[0], again.values.flip(0)[k]):
            same = bool(other == together.values[k]) or bool(other.isnan() and together.values[k].isnan())
            ensure(same, f"the value {float(together.values[k])} is {float(other)} elsewhere", cure)


def what_is_wanted_is_worth_more(subject: TermSubject) -> None:
    """Makes more of a quantity that is nearer to what is wanted, or as much."""
    measured = subject.term.measure(subject.archs)
    scale = measured.nan_to_num().abs().max().clamp(min=1e-6)
    steps = torch.linspace(0.1, 3.0, 12, dtype=torch.float64) * scale
    values = torch.stack([subject.term.weigh(each) for each in steps])
    rises = (values.diff() * (1 if subject.term.direction == "max" else -1) >= 0).all()
    ensure(rises, f"quantities {steps.tolist()} give {values.tolist()}", "turn direction round, or the sign in weigh")


def random_states_stay(subject: TermSubject) -> None:
    """Leaves torch's random state as it was."""
    with random_state_stays("measure inside of search.training.isolation.isolated"):
        subject.term.values(subject.archs)


def subjects(found: type) -> list[TermSubject]:
    """A term beside two batches of digits."""
    space = NASBench201()
    (task,) = TASK_CONTRACT.subjects(TrainedTask)
    make = toy_factory(found, Callable[[Task], RewardTerm])
    return [TermSubject(found, space.name, lambda _: make(task.task), space)]


CONTRACT = Contract(
    "reward term",
    RewardTerm,
    subjects,
    checks=(
        says_what_it_is,
        values_are_numbers,
        a_value_does_not_depend_on_others,
        what_is_wanted_is_worth_more,
        random_states_stay,
    ),
)
