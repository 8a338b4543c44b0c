"""What evaluations of source tasks say of any architecture: a Gaussian process a task, fitted by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from search.agents.catcher.agent import normalise
from search.agents.catcher.gaussian_process import Columns
from search.agents.predictor.base import Examples
from search.agents.predictor.gaussian_process import BlockKernel, GaussianProcess

_STEPS = 60
"""Of the kernels' fit (assumed: more change little)."""
_TOGETHER = 16
"""Trials fitted together: the distances of 250 networks take half a megabyte a trial and decision."""
_PART = 4096
"""Architectures asked about together."""


class Reader(Columns, Protocol):
    """What reads architectures: `Codes`, or a `search.agents.predictor.candidates.Pool`."""

    def features(self, archs: Tensor) -> Tensor:
        """Int64 ``[trials, n, decisions]`` to float32 ``[trials, n, columns]``."""


def random_part(budget: int, active: float) -> int:
    """How many of a source task's evaluations are random where a share of them, the last ones, is not: two or more."""
    return max(2, round((1 - active) * budget))


@dataclass(frozen=True)
class Source:
    """One task's process, in each of the meta-trained trials.

    Attributes:
        archs: evaluated ones, int64 ``[trials, n, decisions]``.
        targets: normal quantiles of their rewards, float64 ``[trials, n]``.
        parameters: of the kernel, float64 ``[trials, parameters]``.
    """

    archs: Tensor
    targets: Tensor
    parameters: Tensor


class SourceProcesses:
    """The processes of all source tasks so far.

    The kernel is that of `GaussianProcess`, with a length scale for each group of columns.

    Args:
        reader: what is read of an architecture, in columns as `Examples` wants them.
    """

    def __init__(self, reader: Reader):
        self.reader = reader
        self.sources: list[Source] = []
        self._solved: dict[int, list[tuple[BlockKernel, Tensor, Tensor]]] = {}

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Fit a process to one more task: int64 ``[trials, n, decisions]`` and float64 ``[trials, n]``."""
        targets, parameters = normalise(rewards, "rank").double(), []
        for rows in torch.arange(len(archs)).split(_TOGETHER):
            process = GaussianProcess(steps=_STEPS).fit(self._examples(archs[rows], targets[rows]))
            parameters.append(process.kernel.parameters)
        self.sources.append(Source(archs, targets, torch.cat(parameters)))

    def and_one_more(self, archs: Tensor, rewards: Tensor) -> SourceProcesses:
        """These and one more task; they themselves stay as they are. Arguments as for `learn`."""
        more = SourceProcesses(self.reader)
        more.sources, more._solved = list(self.sources), dict(self._solved)
        more.learn(archs, rewards)
        return more

    def _examples(self, archs: Tensor, targets: Tensor) -> Examples:
        reader, seeds = self.reader, (0,) * len(targets)  # nothing is random
        return Examples(reader.features(archs), targets, reader.blocks, reader.groups, seeds)

    def expected(self, archs: Tensor, trials: Sequence[int], without: int | None = None) -> Tensor:
        """The mean over tasks of what their processes expect; 0 where there is none.

        Args:
            archs: int64 ``[trials, n, decisions]``, or ``[1, n, decisions]`` for all.
            trials: which of the meta-trained trials is asked in each place.
            without: a task that is left out.

        Returns:
            Float64 ``[trials, n]``, normal quantiles.
        """
        return self._of_trials(archs, trials, without, lambda means: means.mean(0))

    def opinions(self, archs: Tensor, trials: Sequence[int], without: int | None = None) -> Tensor:
        """The same, and behind it how far each task's process is from it: float32 ``[trials, n, 1 + tasks]``."""

        def told_apart(means: Tensor) -> Tensor:
            mean = means.mean(0, keepdim=True)
            return torch.cat([mean, means - mean]).T.float()

        return self._of_trials(archs, trials, without, told_apart)

    def _of_trials(
        self, archs: Tensor, trials: Sequence[int], without: int | None, made: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """What is made of the means ``[tasks, n]`` of all processes, one trial after another."""
        places = [place for place in range(len(self.sources)) if place != without]
        features = self.reader.features(archs)
        found: dict[int, Tensor] = {}  # of architectures that all trials share, once a meta-trained trial
        rows = []
        for row, trial in enumerate(trials):
            if len(archs) > 1 or trial not in found:
                asked = features[row % len(archs)]
                none = torch.zeros(1, len(asked), dtype=torch.float64)
                means = torch.stack([self._mean(place, trial, asked) for place in places]) if places else none
                found[trial] = made(means)
            rows.append(found[trial])
        return torch.stack(rows)

    def _mean(self, place: int, trial: int, asked: Tensor) -> Tensor:
        """Of one process in one trial: float32 ``[n, columns]`` to float64 ``[n]``."""
        kernel, known, weights = self._solutions(place)[trial]
        none = known.new_zeros(1, 0)
        parts = [(kernel.covariance(part[None], none, known, none)[0] @ weights) for part in asked.split(_PART)]
        return torch.cat(parts).double()

    def _solutions(self, place: int) -> list[tuple[BlockKernel, Tensor, Tensor]]:
        """Kernel, features and weights of the mean, of each trial of a task; solved once."""
        if place not in self._solved:
            source, solutions = self.sources[place], []
            examples = self._examples(source.archs, source.targets)
            whole = BlockKernel(examples)
            whole.parameters = source.parameters
            for trial in range(len(source.archs)):
                kernel, known = whole.of_trial(trial), examples.features[trial : trial + 1]
                exact = known.double()
                none = exact.new_zeros(1, 0)
                between = kernel.covariance(exact, none, exact, none)[0] + kernel.noise() * torch.eye(exact.shape[1])
                weights = torch.cholesky_solve(source.targets[trial, :, None], torch.linalg.cholesky(between))[:, 0]
                solutions.append((kernel, known, weights.float()))
            self._solved[place] = solutions
        return self._solved[place]

    def state_dict(self) -> list[dict[str, Tensor]]:
        """All that was fitted."""
        return [dict(vars(source)) for source in self.sources]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Continue where ``state`` was taken."""
        self.sources, self._solved = [Source(**each) for each in state], {}
