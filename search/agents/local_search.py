"""Local search: climb to the first better neighbour, restart at the top."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.spaces.base import SearchSpace


class LocalSearch(Agent):
    """Hill climbing with restarts (White et al., "Local Search is State of the Art for NAS Benchmarks", 2020).

    A climb starts at a random architecture. The neighbours (one decision changed) of the best architecture of the climb
    are evaluated in random order, and the first better one takes its place: White et al.'s variant that does not wait
    for the whole neighbourhood. When every neighbour has been tried, a new climb starts. An architecture that has been
    asked or told is not asked again while the climb has untried neighbours.

    A batch asks several neighbours at once and moves to the best of them; where fewer than ``n`` untried ones are left,
    random architectures fill it up. The first batch is all random and the climb starts at its best.

    With several evaluations under way, a climb whose neighbours have all been asked hands out random starts while the
    last neighbours are still evaluated. One of these that is better takes the climb up again; the others change
    nothing, and the next climb begins at a start.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        start_tries: random architectures drawn in search of a start that was not evaluated before (assumed: the chance
            that none of 10 is new is below a thousandth until half of the space has been seen).
    """

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0, start_tries: int = 10):
        super().__init__(space, trials, seed)
        if start_tries < 1:
            raise ValueError(f"LocalSearch: start_tries is {start_tries}, it must be at least 1")
        self.start_tries = start_tries
        self._forget()

    def _forget(self) -> None:
        self._climbing = torch.zeros(self.trials, dtype=torch.bool)
        # Without meaning until a climb is on; valid, because the space is asked for its neighbours all the same.
        self._top = self.space.sample(self.rng, 1)[:, 0]
        self._top_reward = torch.zeros(self.trials, dtype=torch.float64)
        self._seen = torch.zeros(self.trials, 0, len(self.space.decisions), dtype=torch.long)
        self._is_step = torch.zeros(self.trials, 0, dtype=torch.bool)  # of each one seen: asked as a neighbour

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start a first climb with nothing seen."""
        super().begin_task(budget, adapting)
        self._forget()

    def ask(self, n: int = 1) -> Tensor:
        """Untried neighbours of the climb's best, or random starts: int64 ``[trials, n, decisions]``."""
        neighbours, valid = self.space.neighbours(self._top)
        untried = valid & ~self._is_seen(neighbours) & self._climbing[:, None]
        self._climbing = untried.any(1)
        asked = []
        for _ in range(n):
            # Every trial draws a neighbour and a start, whichever it needs: all streams advance alike.
            step_up = untried.any(1, keepdim=True)
            step = _pick(neighbours, self.rng.categorical(untried | ~step_up))
            starts = self.space.sample(self.rng, self.start_tries)
            start = _pick(starts, (~self._is_seen(starts)).long().argmax(1))
            chosen = torch.where(step_up, step, start)
            untried = untried & (neighbours != chosen[:, None]).any(-1)
            self._seen = torch.cat([self._seen, chosen[:, None]], dim=1)
            self._is_step = torch.cat([self._is_step, step_up], dim=1)
            asked.append(chosen)
        return torch.stack(asked, dim=1)

    def _is_seen(self, archs: Tensor) -> Tensor:
        """Which architectures were asked or told before: int64 ``[trials, m, decisions]`` to bool ``[trials, m]``."""
        return self._same(archs).any(-1)

    def _same(self, archs: Tensor) -> Tensor:
        """Which of those seen each architecture is: int64 ``[trials, m, decisions]`` to bool ``[trials, m, seen]``."""
        # Two architectures of one network are one evaluation.
        archs, seen = self.space.canonical(archs), self.space.canonical(self._seen)
        same = torch.ones(*archs.shape[:2], seen.shape[1], dtype=torch.bool)
        for t in range(archs.shape[-1]):
            same &= archs[:, :, None, t] == seen[:, None, :, t]
        return same

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Move to the best told architecture where it beats the climb's best, or where no climb is on."""
        reward, index = rewards.max(1)
        best = _pick(archs, index)
        # A neighbour of a climb that has ended comes late; only as an improvement it says where to go on.
        same = self._same(best[:, None])[:, 0]
        late = (same & self._is_step).any(1) & ~(same & ~self._is_step).any(1)
        move = (~self._climbing & ~late) | (reward > self._top_reward)
        self._top = torch.where(move[:, None], best, self._top)
        self._top_reward = torch.where(move, reward, self._top_reward)
        self._climbing = self._climbing | move
        # What was asked is remembered already; columns with anything else in them are added.
        foreign = ~self._is_seen(archs).all(0)
        self._seen = torch.cat([self._seen, archs[:, foreign]], dim=1)
        self._is_step = torch.cat([self._is_step, torch.zeros(self.trials, int(foreign.sum()), dtype=torch.bool)], 1)

    def state_dict(self) -> dict[str, Any]:
        """The climb and everything seen, which grows by one architecture an evaluation."""
        return super().state_dict() | {
            "climbing": self._climbing.clone(),
            "top": self._top.clone(),
            "top_reward": self._top_reward.clone(),
            "seen": self._seen.clone(),
            "is_step": self._is_step.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._climbing, self._top = state["climbing"].clone(), state["top"].clone()
        self._top_reward = state["top_reward"].clone()
        self._seen, self._is_step = state["seen"].clone(), state["is_step"].clone()


def _pick(archs: Tensor, index: Tensor) -> Tensor:
    """One architecture a trial: int64 ``[trials, m, decisions]`` and ``[trials]`` to ``[trials, decisions]``."""
    return archs[torch.arange(len(archs)), index]
