"""The mean of several evaluations of one architecture, each with a seed of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from search.evaluation import Evaluation, Proposal
from search.randomness import derive_seed
from search.spaces.base import SearchSpace
from search.statistics.rank_correlation import kendall_tau
from search.tasks.base import Task

_SCORE = "score of seed {}"


class RepeatedTask(Task):
    """Another task's score, averaged over several evaluations: a training is a draw, and so is what it scores.

    Two draws of one ranking agree only so far, and nothing that predicts it can agree much better: beside the means
    stands the score of every seed, and `agreement_of_seeds` says how far these rank alike.

    Scores and metrics are means over the evaluations. One that fails is a failed evaluation of all. Nobody inherits
    from it, and no training is stopped: there is no single one. What was trained last stands in the history.

    Args:
        space: of the task.
        task: is evaluated; it is made with the same space.
        seeds: evaluations of an architecture.

    Raises:
        ValueError: there are fewer than two.
    """

    def __init__(self, space: SearchSpace, task: Callable[[SearchSpace], Task], seeds: int = 2):
        if seeds < 2:
            raise ValueError(f"seeds is {seeds}, at least 2 are needed; for a single one name the task itself")
        inner = task(space)
        self.space, self.task, self.seeds = inner.space, inner, seeds
        self.instant, self.objectives, self.score_metric = inner.instant, inner.objectives, inner.score_metric
        self.honours = inner.honours - {"parent", "stop_below"}
        self.score_name = f"{inner.score_name}, mean of {seeds} seeds"

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A table that ships, for `NASBench201`."""
        from search.tasks.table import TableTask

        return {"task": {"class_path": "TableTask", "init_args": TableTask.toy()}}

    def parts(self) -> dict[str, Task]:
        """The task that is evaluated."""
        return {"task": self.task}

    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """Every proposal once a seed, the mean of it as soon as it is there."""
        each = [replace(one, seed=derive_seed(one.seed, number)) for one in proposals for number in range(self.seeds)]
        found = iter(self.task.evaluate(each))
        for _ in proposals:
            yield _mean(list(itertools.islice(found, self.seeds)))


def _mean(found: Sequence[Evaluation]) -> Evaluation:
    seconds = sum(each.cost_seconds for each in found)
    for number, each in enumerate(found):
        if each.status != "ok":
            return Evaluation.failed(f"seed {number + 1}: {each.reason}", seconds, each.history)
    names = [name for name in found[0].metrics if all(name in each.metrics for each in found)]
    metrics = {name: fmean(each.metrics[name] for each in found) for name in names}
    metrics |= {_SCORE.format(number + 1): each.score for number, each in enumerate(found)}
    return Evaluation(fmean(each.score for each in found), metrics, seconds, history=found[-1].history)


def agreement_of_seeds(evaluations: Sequence[Evaluation]) -> float | None:
    """Kendall's tau-b between what two seeds say of the same architectures, averaged over all pairs of seeds.

    Args:
        evaluations: of a `RepeatedTask`, each of another architecture.

    Returns:
        None of another task, or where a tau is not defined.
    """
    columns = []
    for number in itertools.count(1):
        if not evaluations or not all(_SCORE.format(number) in each.metrics for each in evaluations):
            break
        columns.append([each.metrics[_SCORE.format(number)] for each in evaluations])
    taus = [kendall_tau(one, other) for one, other in itertools.combinations(columns, 2)]
    known = [tau for tau in taus if not math.isnan(tau)]
    return fmean(known) if known else None
