"""What agents that try many architectures cheaply and few of them in full have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import Any

from torch import Tensor

from search.agents.base import Agent
from search.evaluation import Architecture, Evaluation, Proposal
from search.spaces.base import SearchSpace


@dataclass
class Entry:
    """An architecture on one rung.

    Attributes:
        architecture: what is evaluated at the rung's level.
        values: what its evaluation gave, higher is better, the reward or several objectives; None until it was told.
        violation: by how much limits are missed; without end where the evaluation failed.
        promoted: whether it was asked for one level up.
    """

    architecture: Architecture
    values: list[float] | None = None
    violation: float = 0.0
    promoted: bool = False

    @property
    def failed(self) -> bool:
        """Whether nothing of it can be gone on with."""
        return math.isinf(self.violation)


Rung = list[Entry]
"""What was asked for at one level, in order of asking."""


@dataclass
class Bracket:
    """Architectures on their way up.

    Attributes:
        first: the level, from 0, that they begin at.
        width: how many begin; 0 for as many as are asked for.
        rungs: one a level, from the first on.
    """

    first: int
    width: int
    rungs: list[Rung] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As a state keeps it."""
        rungs = [[[list(e.architecture), e.values, e.violation, e.promoted] for e in rung] for rung in self.rungs]
        return {"first": self.first, "width": self.width, "rungs": rungs}

    @classmethod
    def from_plain(cls, state: dict[str, Any]) -> Bracket:
        """What `plain` was made of."""
        rungs = [
            [Entry(tuple(arch), None if values is None else list(values), *more) for arch, values, *more in rung]
            for rung in state["rungs"]
        ]
        return cls(state["first"], state["width"], rungs)


class Halving(Agent):
    """Architectures that are good at a low fidelity are asked for at the next one.

    What belongs to every such agent: which levels there are, where new architectures come from (uniformly at random, no
    architecture twice in a trial while others are found), who is told what, and the state. What is asked next is the
    method's own (`choose`).

    The highest level is the task's own full evaluation and asks for no fidelity: so only such evaluations are ever the
    best of a search. One that failed is never promoted.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        levels: of the fidelity, rising; the last one is that of the task itself.
        eta: of so many on a level one goes on to the next (3 in Hyperband's paper, 4 in ASHA's).
        fidelity: what the levels are of: one of what the task honours.
        inherit: go on from what the evaluation one level below has left, where the task honours ``parent``, instead of
            starting again.
        tries: random architectures drawn in search of one that the trial has not asked for (assumed).

    Raises:
        ValueError: an argument is out of range.
    """

    batched = False

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        levels: Sequence[float] = (1, 3, 9),
        eta: float = 3.0,
        fidelity: str = "epochs",
        inherit: bool = True,
        tries: int = 4,
    ):
        super().__init__(space, trials, seed)
        name = type(self).__name__
        if len(levels) < 2 or any(b <= a for a, b in pairwise(levels)) or levels[0] <= 0:
            raise ValueError(f"{name}: levels is {list(levels)}, at least two rising numbers above 0 are needed")
        if not 1 < eta < math.inf:
            raise ValueError(f"{name}: eta is {eta}, it must be above 1")
        if tries < 1:
            raise ValueError(f"{name}: tries is {tries}, it must be at least 1")
        self.levels, self.eta, self.fidelity = [float(level) for level in levels], eta, fidelity
        self.inherit, self.tries = inherit, tries
        self.demands = frozenset({fidelity} | ({"parent"} if inherit else set()))
        self.budget = 0
        self._forget()

    def _forget(self) -> None:
        # By trial: brackets, of which those that are over are not kept; what was asked and not told, the longest asked
        # first; everything asked.
        self._brackets: list[list[Bracket]] = [[] for _ in range(self.trials)]
        self._flying: list[list[tuple[Entry, int]]] = [[] for _ in range(self.trials)]
        self._seen: list[set[int]] = [set() for _ in range(self.trials)]
        self._begun = [0] * self.trials

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start without anything on a rung."""
        super().begin_task(budget, adapting)
        self.budget = budget
        self._forget()

    # ---- asking ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def choose(self, trial: int) -> tuple[Bracket, int]:
        """Where the next architecture of a trial is asked for: the bracket, and the rung in it.

        On the first rung a new architecture is asked for, on a later one the best of the rung below that `promotable`
        names: there must be one.
        """

    def propose(self, n: int = 1) -> list[list[Proposal]]:
        """New architectures at low fidelities, good ones at higher ones."""
        # Every trial draws as many, whatever it needs: all streams advance alike.
        drawn = self.space.sample(self.rng, n * self.tries)
        codes = self.space.code(drawn).tolist()
        archs = drawn.tolist()
        return [
            [self._one(trial, archs[trial][k * self.tries :], codes[trial][k * self.tries :]) for k in range(n)]
            for trial in range(self.trials)
        ]

    def _one(self, trial: int, archs: list[list[int]], codes: list[int]) -> Proposal:
        bracket, place = self.choose(trial)
        while len(bracket.rungs) <= place:
            bracket.rungs.append([])
        level, parent = bracket.first + place, None
        if place:
            below = self.promotable(bracket, place - 1)
            below.promoted = True
            architecture = below.architecture
            parent = architecture if self.inherit else None
        else:
            new = next((k for k in range(self.tries) if codes[k] not in self._seen[trial]), 0)
            architecture = tuple(archs[new])
            self._seen[trial].add(codes[new])
        entry = Entry(architecture)
        bracket.rungs[place].append(entry)
        self._flying[trial].append((entry, level))
        full = level == len(self.levels) - 1
        return Proposal(architecture, fidelity={} if full else {self.fidelity: self.levels[level]}, parent=parent)

    def promotable(self, bracket: Bracket, place: int) -> Entry:
        """The best on a rung that has not gone up yet."""
        return next(entry for entry in self.ranked(bracket.rungs[place]) if not entry.promoted)

    def ranked(self, rung: Iterable[Entry]) -> list[Entry]:
        """What was told on a rung and did not fail, the best first, of equals what was asked first."""
        known = [entry for entry in rung if entry.values is not None and entry.violation < math.inf]
        return sorted(known, key=attrgetter("values"), reverse=True)

    # ---- learning --------------------------------------------------------------------------------------------------

    def observe(
        self, proposals: Sequence[Sequence[Proposal]], evaluations: Sequence[Sequence[Evaluation]], rewards: Tensor
    ) -> None:
        """Learn from evaluations, each at its level."""
        for trial, row in enumerate(proposals):
            for proposal, evaluation, reward in zip(row, evaluations[trial], rewards[trial].tolist(), strict=True):
                self._told(trial, proposal.architecture, self._level(proposal), *self.worth(evaluation, reward))

    def worth(self, evaluation: Evaluation, reward: float) -> tuple[list[float], float]:
        """The values that an entry is ranked by, and its violation."""
        return [reward], math.inf if evaluation.status != "ok" else 0.0

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Learn from rewards alone: of whatever level the architecture was asked for first."""
        for trial, (rows, values) in enumerate(zip(archs.tolist(), rewards.tolist(), strict=True)):
            for arch, reward in zip(rows, values, strict=True):
                self._told(trial, tuple(arch), None, [reward], 0.0)

    def _level(self, proposal: Proposal) -> int | None:
        """Of the levels, from 0; -1 for another agent's."""
        if not proposal.fidelity:
            return len(self.levels) - 1
        asked = proposal.fidelity.get(self.fidelity)
        return self.levels.index(asked) if asked in self.levels else -1

    def _told(self, trial: int, arch: Architecture, level: int | None, values: list[float], violation: float) -> None:
        """What was never asked for stands on no rung and changes nothing."""
        for k, (entry, at) in enumerate(self._flying[trial]):
            if entry.architecture == arch and level in (None, at):
                entry.values, entry.violation = values, violation
                del self._flying[trial][k]
                return

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything on the rungs, and everything asked, which grows by a number an evaluation."""
        return super().state_dict() | {
            "budget": self.budget,
            "begun": list(self._begun),
            "brackets": [[bracket.plain() for bracket in brackets] for brackets in self._brackets],
            "flying": [[self._place(trial, *each) for each in flying] for trial, flying in enumerate(self._flying)],
            "seen": [sorted(seen) for seen in self._seen],
        }

    def _place(self, trial: int, wanted: Entry, level: int) -> list[int]:
        """Bracket, rung and place of an entry, and its level."""
        for b, bracket in enumerate(self._brackets[trial]):
            for r, rung in enumerate(bracket.rungs):
                for k, entry in enumerate(rung):
                    if entry is wanted:
                        return [b, r, k, level]
        raise AssertionError("what is under way stands on a rung")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self.budget, self._begun = state["budget"], list(state["begun"])
        self._brackets = [[Bracket.from_plain(each) for each in brackets] for brackets in state["brackets"]]
        self._flying = [
            [(self._brackets[trial][b].rungs[r][k], level) for b, r, k, level in flying]
            for trial, flying in enumerate(state["flying"])
        ]
        self._seen = [set(seen) for seen in state["seen"]]


def kept(count: int, eta: float, times: int = 1) -> int:
    """How many of so many are left after so many cuts to a part of ``1 / eta``, at least one."""
    return max(1, int(count / eta**times + 1e-9))
