"""A task whose reward weighs another task's score by further terms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from search.errors import CatchmarkError
from search.recipes.words import explain
from search.rewards.base import RewardTerm
from search.spaces.base import Architecture, SearchSpace
from search.tasks.base import Evaluation, Task

_Number = TypeVar("_Number", float, Tensor)


class RewardTask(Task):
    """Another task's score, its quality, and some terms, multiplied or added up.

    The metrics of an evaluation are that task's, ``quality``, and what the terms measured, by their names. Where it
    fails, so does this one, for the same reason; an architecture that a term can't measure is a failed evaluation too.

    Args:
        space: of the task.
        task: gives the quality; it is made with the same space.
        terms: each is made with the task.
        combine: ``product`` of quality and terms, for which the quality must not be below 0; or their ``sum``.

    Raises:
        ValueError: there is no such way to combine, or no term, or two have one name.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Callable[[SearchSpace], Task],
        terms: Sequence[Callable[[Task], RewardTerm]],
        combine: Literal["product", "sum"] = "product",
    ):
        inner = task(space)
        self._compose(inner, [term(inner) for term in terms], combine)

    def _compose(self, task: Task, terms: Sequence[RewardTerm], combine: str = "product") -> None:
        if combine not in ("product", "sum"):
            raise ValueError(f"combine is '{combine}', allowed: product, sum")
        names = [term.name for term in terms]
        if not names or len({*names}) < len(names):
            raise ValueError(f"terms: at least one is needed, and of each name no more, these are {names}")
        self.space, self.task, self.terms, self.combine = task.space, task, tuple(terms), combine
        self.instant = task.instant and all(term.instant for term in terms)
        self.objectives = {"quality": "max", **{term.name: term.direction for term in terms}}
        sign = " x " if combine == "product" else " + "
        self.score_name = sign.join([task.score_name, *(term.described for term in terms)])

    def parts(self) -> dict[str, Task]:
        """The task whose score is weighed."""
        return {"task": self.task}

    def open(self) -> None:
        """Refuse what that task refuses."""
        self.task.open()

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """Ask the task, then weigh; arguments as for that task."""
        return next(self.evaluate_many([architecture], [seed]))

    def evaluate_many(self, architectures: Sequence[Architecture], seeds: Sequence[int]) -> Iterator[Evaluation]:
        """Ask the task, then weigh what it says, each as soon as it is there.

        Raises:
            CatchmarkError: the quality is below 0, and a factor would make more of it.
        """
        if not architectures:
            return
        # Look-ups are made together: they take less than the asking does.
        known = iter(self._weighed(architectures)) if self.instant else None
        for architecture, found in zip(architectures, self.task.evaluate_many(architectures, seeds), strict=True):
            rows = None if known is None else next(known)
            yield found if found.status != "ok" else self._reward(architecture, found, rows)

    def _weighed(self, architectures: Sequence[Architecture]) -> list[list[tuple[float, float]]]:
        """Quantity and value of each term for each architecture."""
        archs = torch.tensor(architectures, dtype=torch.long)
        columns = [term.values(archs) for term in self.terms]
        pairs = [list(zip(each.measured.tolist(), each.values.tolist(), strict=True)) for each in columns]
        return [list(row) for row in zip(*pairs, strict=True)]

    def _reward(
        self, architecture: Architecture, found: Evaluation, rows: list[tuple[float, float]] | None
    ) -> Evaluation:
        """What an evaluation of the task becomes."""
        if found.score < 0 and self.combine == "product":
            cure = "let 'score' of the task that trains name a metric that is never negative"
            raise CatchmarkError(below_zero(self.task.score_name, found.score, cure))
        began, seconds = time.monotonic(), found.cost_seconds
        if rows is None:
            try:
                (rows,) = self._weighed([architecture])
            except CatchmarkError:
                raise
            except Exception as error:
                names = " or ".join(term.quantity for term in self.terms)
                seconds += time.monotonic() - began
                return Evaluation.failed(f"no {names}: {explain(error)}", seconds, found.history)
            seconds += time.monotonic() - began
        for term, (_, value) in zip(self.terms, rows, strict=True):
            if math.isnan(value):
                reason = f"no {term.quantity} was measured of {self.space.format(architecture)}"
                return Evaluation.failed(reason, seconds, found.history)
        score = self._combined(found.score, [value for _, value in rows])
        metrics = {term.name: measured for term, (measured, _) in zip(self.terms, rows, strict=True)}
        return Evaluation(score, found.metrics | {"quality": found.score} | metrics, seconds, history=found.history)

    def _combined(self, quality: _Number, values: Sequence[_Number]) -> _Number:
        for value in values:
            quality = quality * value if self.combine == "product" else quality + value
        return quality

    def all_scores(self) -> Tensor | None:
        """The reward of every architecture, float64 ``[size]``, NaN where not measured; None where it is not known."""
        quality = self.task.all_scores()
        if quality is None or not self.instant:
            return None
        archs = torch.tensor(list(self.space.enumerate()))
        return self._combined(quality, [term.values(archs).values for term in self.terms])

    def all_objectives(self) -> Tensor | None:
        """Quality and quantities of every architecture, float64 ``[size, objectives]``; NaN where not measured."""
        quality = self.task.all_scores()
        if quality is None or not self.instant:
            return None
        archs = torch.tensor(list(self.space.enumerate()))
        return torch.stack([quality, *(term.values(archs).measured for term in self.terms)], dim=1)

    def offered(self, seed: int) -> Tensor | None:
        """What the task offers."""
        return self.task.offered(seed)


def below_zero(name: str, quality: float, cure: str) -> str:
    """What to say of a quality below 0."""
    return f"the quality, '{name}', is {quality:.3g}; below 0 a slower network would be worth more: {cure}"
