"""Sequential model-based optimisation: architectures grow by a layer, and a surrogate says which ones are trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.agents.growth import Growth
from search.agents.sequence_surrogate import SequenceSurrogate
from search.evaluation import Proposal
from search.spaces.base import SearchSpace

PAPER_BUDGET = 197
"""Trainings of MFAS's search: all 32 first layers, and 11 steps of 15."""
_PAPER_STEPS = 12


class SequentialModelBased(Agent):
    """Progressive search as in MFAS (Perez-Rua et al., CVPR 2019), after PNAS (Liu et al., ECCV 2018).

    The search goes through the layers several times. In a step every kept architecture gets every setting of one layer,
    in the place of the layer or, where the architecture ends before it, behind its last one. A surrogate, fitted to all
    evaluations so far, predicts each; some are drawn, without replacement, with a probability proportional to
    ``prediction ^ (1 / temperature)``. They are evaluated and kept for the next step. At the very first step all
    architectures of one layer are evaluated. The temperature falls along ``(highest - lowest) exp(-(t + 1)^2 / 16) +
    lowest`` with ``t`` from 0 to 11 over the steps of the search (MFAS's code: ``t = 3 iteration + layer``, so that one
    value comes twice an iteration).

    Which decisions make a layer, a space says by `search.spaces.layered.Layered`. Of any other space each decision is
    a layer and all layers are always there: random architectures open the search, and in each step others are drawn in
    the same way, by their rewards, of all that were evaluated so far to be changed.

    The defaults of temperatures and surrogate are for rewards and spaces of any kind, chosen on small problems with
    60 evaluations; `experiments/mfas` has the paper's.

    What was evaluated is not asked again while there is something new to ask; MFAS's code may train it again. Where the
    rounds are over and evaluations are left, further ones follow.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        iterations: through all layers (3 in MFAS).
        keep: architectures that a step evaluates and keeps (15 in MFAS); None for as many as make the iterations fill
            the budget, which is 15 for its 197 trainings of its space.
        highest: temperature at the beginning (10 in MFAS, whose accuracies are not stretched over 0 to 1).
        lowest: temperature in the end (0.2 in MFAS).
        reward_range: rewards that stand for 0 and 1 in the surrogate, ``[0, 100]`` for accuracies in %; None for the
            lowest and the highest so far, which suits rewards of any kind.
        hidden: units of the surrogate (100 in MFAS).
        epochs: of each fit of the surrogate (50 in MFAS).
        learning_rate: of these (1e-3 in MFAS).
        raw: whether the surrogate reads the numbers of choices, as in MFAS, or else one-hot codes.
        inherit: begin each training with the weights of the architecture that it was grown from, where names and shapes
            are the same; for tasks that honour ``parent``. MFAS's weight sharing (optional there) keeps one store of
            layers for the whole search.

    Raises:
        ValueError: an argument is out of range.
    """

    batched = False  # surrogates are fitted one after another

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        iterations: int = 3,
        keep: int | None = None,
        highest: float = 1.0,
        lowest: float = 0.05,
        reward_range: tuple[float, float] | None = None,
        hidden: int = 16,
        epochs: int = 50,
        learning_rate: float = 0.02,
        raw: bool = False,
        inherit: bool = False,
    ):
        super().__init__(space, trials, seed)
        counts = {"iterations": iterations, "keep": 1 if keep is None else keep, "hidden": hidden, "epochs": epochs}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"SequentialModelBased: {name} is {count}, it must be at least 1")
        if not 0 < lowest <= highest:
            raise ValueError(f"SequentialModelBased: temperatures fall from {highest} to {lowest}; above 0 is needed")
        if reward_range is not None and not reward_range[0] < reward_range[1]:
            raise ValueError(f"SequentialModelBased: reward_range is {list(reward_range)}, it must rise")
        self.iterations, self.keep, self.highest, self.lowest = iterations, keep, highest, lowest
        self.reward_range, self.hidden, self.epochs, self.learning_rate = reward_range, hidden, epochs, learning_rate
        self.inherit = inherit
        if inherit:
            self.demands = frozenset({"parent"})
        self._growth = Growth(space, raw)
        self._budget = PAPER_BUDGET
        self._forget()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A small surrogate, few epochs."""
        return {"keep": 3, "lowest": 0.05, "hidden": 4, "epochs": 5, "learning_rate": 0.1}

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start with nothing known; the budget decides how fast the temperature falls."""
        super().begin_task(budget, adapting)
        self._budget = budget
        self._forget()

    def _forget(self) -> None:
        none = torch.zeros(self.trials, 0, len(self.space.decisions), dtype=torch.long)
        self._archs, self._rewards = none, torch.zeros(self.trials, 0, dtype=torch.float64)
        # What the present step evaluates, what each of it was grown from (-1: from nothing), and how much was asked.
        self._step, self._planned, self._parents, self._asked = -1, none, none, 0
        self._surrogate = SequenceSurrogate(self.rng, self._growth.columns, self.hidden)

    # ---- the plan --------------------------------------------------------------------------------------------------

    @property
    def opening(self) -> int:
        """Architectures of the first step."""
        return len(self._growth.single()) if self._growth.grows else self.kept

    @property
    def kept(self) -> int:
        """Architectures of each later step."""
        if self.keep is not None:
            return self.keep
        steps = self.iterations * self._growth.layers
        if self._growth.grows:
            return max(1, round((self._budget - len(self._growth.single())) / max(1, steps - 1)))
        return max(1, self._budget // (steps + 1))

    def temperature(self, step: int) -> float:
        """Of the draw at the end of a step, from 0."""
        opening, kept = self.opening, self.kept
        steps = 1 + max(1, math.ceil((self._budget - opening) / kept))
        t = step * max(1.0, _PAPER_STEPS / steps)
        return (self.highest - self.lowest) * math.exp(-((t + 1) ** 2) / 16) + self.lowest

    def layer(self, step: int) -> int:
        """The layer that a step changes; random architectures open the search where there is nothing to grow from."""
        return (step if self._growth.grows else step - 1) % self._growth.layers

    @property
    def step(self) -> int:
        """The present step, from 0; -1 before anything was asked."""
        return self._step

    @property
    def iteration(self) -> int:
        """How often the present step's search has gone through all layers, from 0."""
        return max(0, self._step - (not self._growth.grows)) // self._growth.layers

    # ---- asking ----------------------------------------------------------------------------------------------------

    def ask(self, n: int = 1) -> Tensor:
        """The rest of the present step, then the next ones: int64 ``[trials, n, decisions]``."""
        return self._take(n)[0]

    def propose(self, n: int = 1) -> list[list[Proposal]]:
        """As `ask`, with the architecture that each was grown from where weights are inherited."""
        archs, parents = self._take(n)
        return [
            [
                Proposal(tuple(arch), parent=tuple(parent) if self.inherit and parent[0] >= 0 else None)
                for arch, parent in zip(*row, strict=True)
            ]
            for row in zip(archs.tolist(), parents.tolist(), strict=True)
        ]

    def _take(self, n: int) -> tuple[Tensor, Tensor]:
        taken: list[tuple[Tensor, Tensor]] = []
        while n:
            if self._asked == self._planned.shape[1]:
                self._plan()
            part = slice(self._asked, self._asked + n)
            taken.append((self._planned[:, part], self._parents[:, part]))
            self._asked += taken[-1][0].shape[1]
            n -= taken[-1][0].shape[1]
        archs, parents = zip(*taken, strict=True)
        return torch.cat(archs, 1), torch.cat(parents, 1)

    def _plan(self) -> None:
        """Decide what the next step evaluates."""
        self._step, self._asked = self._step + 1, 0
        if self._step == 0:
            if self._growth.grows:
                self._planned = self._growth.single().expand(self.trials, -1, -1)
            else:
                self._planned = self.space.sample(self.rng, self.opening)
            self._parents = torch.full_like(self._planned, -1)
            return
        kept = self._planned
        if self._archs.shape[1]:
            archs, targets, first = self._data()
            rows = self._growth.rows(archs)
            self._surrogate.fit(*rows, targets, first, self.epochs, self.learning_rate)
        # What is grown from: the last step's, after the very first one a draw of them; without growth a draw of all.
        drawn_from = self._planned if self._growth.grows else self._archs
        if (self._step == 1 or not self._growth.grows) and drawn_from.shape[1] > self.kept:
            drawn = self._draw(drawn_from, self.predict(drawn_from), self.kept, new=False, room=drawn_from.shape[1])
            kept = _rows(drawn_from, drawn)
        grown = self._growth.extended(kept, self.layer(self._step))
        settings = grown.shape[2]
        candidates = grown.flatten(1, 2)
        room = kept.shape[1] * self._growth.most_settings
        drawn = self._draw(
            candidates, self.predict(candidates), min(self.kept, candidates.shape[1]), new=True, room=room
        )
        self._planned, self._parents = _rows(candidates, drawn), _rows(kept, drawn // settings)
        unknown = (
            (self._parents.unsqueeze(2) != self._archs.unsqueeze(1)).any(-1).all(-1)
        )  # its evaluation is under way
        self._parents = self._parents.masked_fill(unknown.unsqueeze(-1), -1)

    def _draw(self, archs: Tensor, worth: Tensor, n: int, new: bool, room: int) -> Tensor:
        """Indices of ``n`` architectures of each trial, drawn without replacement: int64 ``[trials, n]``.

        The largest of ``log(weight) + Gumbel noise`` are such a draw. Repetitions come after everything else, and
        where ``new`` ones are wanted what was evaluated before comes after what was not.

        Args:
            archs: int64 ``[trials, m, decisions]``.
            worth: ``[trials, m]``, above 0.
            n: at most m.
            new: see above.
            room: as many random numbers are drawn, at least m: the same in whatever company a trial is.
        """
        noise = -(-self.rng.uniform(room)[:, : archs.shape[1]].log()).log()
        keys = worth.clamp(min=1e-6).log() / self.temperature(self._step - 1) + noise
        codes = self.space.code(archs)
        order = torch.arange(archs.shape[1])
        repeated = ((codes.unsqueeze(2) == codes.unsqueeze(1)) & (order < order.unsqueeze(1))).any(2)
        known = (codes.unsqueeze(2) == self.space.code(self._archs).unsqueeze(1)).any(2) if new else repeated
        return (keys - 1e6 * known.double() - 1e9 * repeated.double()).topk(n, dim=1).indices

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Remember; the surrogate is fitted when the next step is planned."""
        self._archs, self._rewards = torch.cat([self._archs, archs], 1), torch.cat([self._rewards, rewards], 1)

    def predict(self, archs: Tensor) -> Tensor:
        """What the surrogate, as it was last fitted, holds of architectures; where one was evaluated, what that gave.

        Args:
            archs: int64 ``[trials, n, decisions]``.

        Returns:
            Float64 ``[trials, n]``, 0 to 1.
        """
        predicted = self._surrogate.predict(*self._growth.rows(archs))
        if not self._archs.shape[1]:
            return predicted
        known, targets, _ = self._data()
        same = self.space.code(archs).unsqueeze(2) == self.space.code(known).unsqueeze(1)
        return torch.where(same.any(2), targets.gather(1, same.long().argmax(2)), predicted)

    def _data(self) -> tuple[Tensor, Tensor, Tensor]:
        """What was evaluated, its best reward, from 0 to 1, and whether it is there for the first time."""
        codes = self.space.code(self._archs)
        same = codes.unsqueeze(2) == codes.unsqueeze(1)
        best = torch.where(same, self._rewards.unsqueeze(1), -torch.inf).amax(2)
        order = torch.arange(codes.shape[1])
        first = ~(same & (order < order.unsqueeze(1))).any(2)
        if self.reward_range is not None:
            low, high = (torch.tensor([[each]], dtype=torch.float64) for each in self.reward_range)
        else:
            low, high = best.amin(1, keepdim=True), best.amax(1, keepdim=True)
        share = ((best - low) / (high - low)).clamp(0, 1)
        return self._archs, torch.where(high > low, share, 0.5), first

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Evaluations, the present step, and the surrogates' weights."""
        tensors = {"archs": self._archs, "rewards": self._rewards, "planned": self._planned, "parents": self._parents}
        numbers = {"step": self._step, "asked": self._asked, "budget": self._budget}
        clones = {name: value.clone() for name, value in tensors.items()}
        weights = {name: value.clone() for name, value in self._surrogate.parameters.items()}
        return super().state_dict() | clones | numbers | {"surrogate": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._archs, self._rewards = state["archs"].clone(), state["rewards"].clone()
        self._planned, self._parents = state["planned"].clone(), state["parents"].clone()
        self._step, self._asked, self._budget = state["step"], state["asked"], state["budget"]
        self._surrogate.parameters = {name: value.clone() for name, value in state["surrogate"].items()}


def _rows(archs: Tensor, chosen: Tensor) -> Tensor:
    """Some of the architectures ``[trials, m, decisions]``, by places ``[trials, n]``."""
    return archs.gather(1, chosen.unsqueeze(-1).expand(-1, -1, archs.shape[-1]))
