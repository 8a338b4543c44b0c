"""Stop what is worse than usual half-way: FastDenseNAS' rule, around any agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.evaluation import Evaluation, Proposal
from search.spaces.base import SearchSpace

_FALLS = {100: 0.9, 200: 0.8, 300: 0.7, 400: 0.6}
"""At which counts the tolerance is multiplied by what (DrSleep/nas-segm-pytorch, src/helpers/utils.py)."""


class RunningMeanStop(Agent):
    """Another agent's proposals, each with a score below which it need not be trained to the end.

    FastDenseNAS (Nekrasov et al., CVPR 2019; the numbers are its code's) trains a candidate in two stages and goes on
    behind the first where its score ``r`` there is above ``m (1 - u)``: ``m`` is the running mean of such scores, and
    ``u`` is uniform between 0 and a tolerance. The tolerance falls as scores are counted; one above the mean counts
    twice. Here the bound is drawn when a candidate is proposed, by the mean that is known then, and goes with the
    proposal as `Proposal.stop_below`: so the task need not know of other candidates.

    Scores must be positive where good, as accuracies are. A failed evaluation is not counted.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        agent: whose proposals they are. What it learns on other tasks is not kept: it begins each task afresh.
        metric: of an evaluation: its score where it might have been stopped (`TwoStageTask`).
        decay: of the running mean.
        start: of the running mean; in the score's unit, %, where the code has 0.01 of 1.
        tolerance: at the beginning.

    Raises:
        ValueError: a number is out of range.
    """

    demands = frozenset({"stop_below"})

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        agent: Callable[[SearchSpace, int, int], Agent] | None = None,
        metric: str = "first_stage",
        decay: float = 0.99,
        start: float = 1.0,
        tolerance: float = 0.9,
    ):
        super().__init__(space, trials, seed)
        if not 0 <= decay < 1:
            raise ValueError(f"{type(self).__name__}: decay is {decay}, 0 or more and less than 1 is needed")
        if not 0 <= tolerance <= 1:
            raise ValueError(f"{type(self).__name__}: tolerance is {tolerance}, 0 to 1 is needed")
        if agent is None:
            from search.agents.regularized_evolution import RegularizedEvolution

            agent = RegularizedEvolution
        self.agent = agent(space, trials, seed)
        self.learns, self.batched = self.agent.learns, self.agent.batched
        self.demands = self.demands | self.agent.demands
        self.metric, self.decay, self.start, self.tolerance = metric, decay, start, tolerance
        self._forget()

    def _forget(self) -> None:
        self._mean = torch.full((self.trials,), self.start, dtype=torch.float64)
        self._tolerance = torch.full((self.trials,), self.tolerance, dtype=torch.float64)
        self._counted = torch.zeros(self.trials, dtype=torch.long)

    def begin_task(self, budget: int, adapting: bool) -> None:
        """A new task has scores of its own."""
        super().begin_task(budget, adapting)
        self.agent.begin_task(budget, adapting)
        self._forget()

    def ask(self, n: int = 1) -> Tensor:
        """What the agent inside asks for."""
        return self.agent.ask(n)

    def propose(self, n: int = 1) -> list[list[Proposal]]:
        """The agent's proposals, with a bound on each that has none."""
        proposals = self.agent.propose(n)
        drawn = self.rng.uniform(n).double()
        bounds = self._mean[:, None] * (1 - drawn * self._tolerance[:, None])
        return [
            [
                each if each.stop_below is not None else replace(each, stop_below=bound)
                for each, bound in zip(row, row_bounds, strict=True)
            ]
            for row, row_bounds in zip(proposals, bounds.tolist(), strict=True)
        ]

    def observe(
        self, proposals: Sequence[Sequence[Proposal]], evaluations: Sequence[Sequence[Evaluation]], rewards: Tensor
    ) -> None:
        """Count the scores half-way, and hand everything on."""
        for trial, row in enumerate(evaluations):
            for evaluation in row:
                if evaluation.status == "ok" and self.metric in evaluation.metrics:
                    self._count(trial, evaluation.metrics[self.metric])
        self.agent.observe(proposals, evaluations, rewards)

    def tell(self, archs: Tensor, rewards: Tensor) -> None:
        """Rewards alone say nothing of scores half-way."""
        self.agent.tell(archs, rewards)

    def _count(self, trial: int, score: float) -> None:
        """In the code's order: tolerance, mean, and whether the score is above that."""
        self._tolerance[trial] *= _FALLS.get(int(self._counted[trial]), 1.0)
        self._mean[trial] = self.decay * self._mean[trial] + (1 - self.decay) * score
        self._counted[trial] += 1 + int(score > self._mean[trial])

    def state_dict(self) -> dict[str, Any]:
        """The agent's state, and what was counted."""
        counted = {"mean": self._mean.clone(), "tolerance": self._tolerance.clone(), "counted": self._counted.clone()}
        return super().state_dict() | counted | {"agent": self.agent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._mean, self._tolerance = state["mean"].clone(), state["tolerance"].clone()
        self._counted = state["counted"].clone()
        self.agent.load_state_dict(state["agent"])
