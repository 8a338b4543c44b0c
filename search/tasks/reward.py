"""Tasks whose reward weighs another task's score by further terms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from search.errors import CatchmarkError, explain
from search.evaluation import Architecture, Evaluation, Objective, Proposal, read_objectives
from search.rewards.base import RewardTerm
from search.spaces.base import SearchSpace
from search.tasks.base import Task, keeps_limits
from search.tasks.table import TableTask
from search.tasks.trained import check_measured

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
        objectives: hard limits, for instance ``{latency_ms: {direction: min, limit: 5.0}}``, of ``quality``, what the
            terms measure, ``score``, the reward, and what the task logs; besides those that this task has itself.

    Raises:
        ValueError: there is no such way to combine, or no term, or two have one name.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Callable[[SearchSpace], Task],
        terms: Sequence[Callable[[Task], RewardTerm]],
        combine: Literal["product", "sum"] = "product",
        objectives: dict[str, Any] | None = None,
    ):
        inner = task(space)
        self._compose(inner, [term(inner) for term in terms], combine, objectives)

    def _compose(
        self,
        task: Task,
        terms: Sequence[RewardTerm],
        combine: str = "product",
        objectives: Mapping[str, Any] | None = None,
    ) -> None:
        if combine not in ("product", "sum"):
            raise ValueError(f"combine is '{combine}', allowed: product, sum")
        names = [term.name for term in terms]
        if not names or len({*names}) < len(names):
            raise ValueError(f"terms: at least one is needed, and of each name no more, these are {names}")
        self.space, self.task, self.terms, self.combine = task.space, task, tuple(terms), combine
        self.instant = task.instant and all(term.instant for term in terms)
        # A score under which training may stop is one of the reward, which nobody knows before the terms.
        self.honours, self.keeps_artifact = task.honours - {"stop_below"}, task.keeps_artifact
        own = {"quality": Objective("max"), **{term.name: Objective(term.direction) for term in terms}}
        inner = {"quality" if name == task.score_metric else name: each for name, each in task.objectives.items()}
        self.objectives = {**own, **inner, **read_objectives(objectives or {})}
        sign = " x " if combine == "product" else " + "
        self.score_name = sign.join([task.score_name, *(term.described for term in terms)])

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Columns of tables that ship, for `NASBench201`."""
        latency = {"latency_table": "nasbench201_latency.npz", "device": "pixel3"}
        return {
            "task": {"class_path": "TableTask", "init_args": TableTask.toy()},
            "terms": [{"class_path": "TableLatency", "init_args": latency}],
        }

    def parts(self) -> dict[str, Task]:
        """The task whose score is weighed."""
        return {"task": self.task}

    def open(self) -> None:
        """Refuse what that task refuses."""
        self.task.open()

    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """Ask the task, then weigh what it says, each as soon as it is there.

        Raises:
            CatchmarkError: the quality is below 0, and a factor would make more of it.
        """
        if not proposals:
            return
        # Look-ups are made together: they take less than the asking does.
        known = iter(self._weighed([each.architecture for each in proposals])) if self.instant else None
        for proposal, found in zip(proposals, self.task.evaluate(proposals), strict=True):
            rows = None if known is None else next(known)
            yield found if found.status != "ok" else self._reward(proposal.architecture, found, rows)

    def _weighed(self, architectures: Sequence[Architecture]) -> list[list[tuple[float, float]]]:
        """Quantity and value of each term for each architecture."""
        archs = torch.tensor(architectures, dtype=torch.long)
        if not bool((good := self.space.is_valid(archs)).all()):
            self.space.check(architectures[int((~good).nonzero()[0])])  # says what is wrong with it
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
        metrics = found.metrics | {"quality": found.score}
        metrics |= {term.name: measured for term, (measured, _) in zip(self.terms, rows, strict=True)}
        check_measured(self.objectives, [*metrics, self.score_metric])
        return Evaluation(score, metrics, seconds, history=found.history, artifact=found.artifact)

    def _combined(self, quality: _Number, values: Sequence[_Number]) -> _Number:
        for value in values:
            quality = quality * value if self.combine == "product" else quality + value
        return quality

    def all_scores(self) -> Tensor | None:
        """The reward of every architecture, float64 ``[size]``; None where it is not known.

        NaN where something was not measured, or misses a hard limit.
        """
        quality = self.task.all_scores()
        if quality is None or not self.instant:
            return None
        return self._rewards(quality, torch.tensor(list(self.space.enumerate())))

    def _rewards(self, quality: Tensor, archs: Tensor) -> Tensor:
        """The reward of every architecture, as far as it keeps hard limits."""
        values = self._everything(quality, archs)
        return torch.where(keeps_limits(self.objectives, values), values[self.score_metric], math.nan)

    def all_objectives(self) -> Tensor | None:
        """The `objectives` of every architecture, float64 ``[size, objectives]``; NaN where not measured.

        None where one of them is not known of the whole space.
        """
        quality = self.task.all_scores()
        if quality is None or not self.instant:
            return None
        values = self._everything(quality, torch.tensor(list(self.space.enumerate())))
        if not values.keys() >= self.objectives.keys():
            return None
        return torch.stack([values[name] for name in self.objectives], dim=1)

    def _everything(self, quality: Tensor, archs: Tensor) -> dict[str, Tensor]:
        """Reward, quality, quantities and the task's objectives of every architecture, float64 ``[size]`` each."""
        weighed = [term.values(archs) for term in self.terms]
        inner = self.task.all_objectives()
        values = {} if inner is None else dict(zip(self.task.objectives, inner.unbind(1), strict=True))
        values |= {term.name: each.measured for term, each in zip(self.terms, weighed, strict=True)}
        rewards = self._combined(quality, [each.values for each in weighed])
        return values | {"quality": quality, self.score_metric: rewards}

    def offered(self, seed: int) -> Tensor | None:
        """What the task offers."""
        return self.task.offered(seed)


def below_zero(name: str, quality: float, cure: str) -> str:
    """What to say of a quality below 0."""
    return f"the quality, '{name}', is {quality:.3g}; below 0 a slower network would be worth more: {cure}"
