"""A graph network over the arrows of cells."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from search.agents.predictor.arrows import FLAGS, ArrowEncoding
from search.agents.predictor.base import Examples, Model, Predictor
from search.agents.predictor.encodings import Encoding
from search.agents.predictor.ensemble import AdamSteps, fit_side_by_side
from search.randomness import TrialRandom


class GraphNetwork(Predictor):
    """A few small graph networks, fitted to all evaluations from different initial weights.

    An arrow's state begins with its label; in each round it is renewed from itself, from the arrows that feed it and
    from those that it feeds, with weights of their own (a relational graph network, Schlichtkrull et al., 2018). A
    linear layer reads the sum of all states. What other encodings and attributes say is added linearly.

    Args:
        members: networks a trial (assumed).
        width: of a state (assumed).
        rounds: of messages; NAS-Bench-201's longest way has three arrows.
        steps: of Adam, on all examples (assumed).
        learning_rate: of these (assumed).
        weight_decay: of these, decoupled (assumed).
        refit: evaluations between two fits.
    """

    def __init__(
        self,
        members: int = 3,
        width: int = 16,
        rounds: int = 2,
        steps: int = 100,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        refit: int = 10,
    ):
        if min(members, width, rounds, refit) < 1:
            raise ValueError(
                f"GraphNetwork: members is {members}, width {width}, rounds {rounds}, refit {refit}; each must be at "
                "least 1"
            )
        self.members, self.width, self.rounds, self.refit = members, width, rounds, refit
        self.steps, self.learning_rate, self.weight_decay = steps, learning_rate, weight_decay

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small networks, few steps."""
        return {"members": 2, "width": 4, "rounds": 1, "steps": 5}

    def encodings(self) -> list[Encoding]:
        """Arrows."""
        return [ArrowEncoding()]

    def fit(self, examples: Examples) -> Model:
        """All networks of all trials together."""
        networks = [
            ArrowNetwork(TrialRandom(seed, self.members), examples, self.width, self.rounds) for seed in examples.seeds
        ]
        adam = AdamSteps(self.steps, self.learning_rate, self.weight_decay)
        return fit_side_by_side(networks, self.members, examples, Tensor.square, adam)


class ArrowNetwork(nn.Module):
    """Networks side by side, each with weights of its own.

    Args:
        rng: where the initial weights come from; a stream a network.
        examples: say which columns there are; the first block is of an `ArrowEncoding`.
        width: of a state.
        rounds: of messages.
    """

    def __init__(self, rng: TrialRandom, examples: Examples, width: int, rounds: int):
        super().__init__()
        self._of_arrows = examples.blocks == 0
        groups = examples.groups[self._of_arrows]
        self._slots = int(groups.max()) + 1
        self._own = len(groups) // self._slots - self._slots
        if self._own <= FLAGS or len(groups) % self._slots:
            raise ValueError("GraphNetwork: its first encoding must be an ArrowEncoding")

        def matrix(inputs: int, outputs: int, scale: float = 1.0) -> nn.Parameter:
            bound = scale / math.sqrt(inputs)
            return nn.Parameter(((2 * rng.uniform(inputs, outputs) - 1) * bound).float())

        self.first = matrix(self._own, width, math.sqrt(3))
        self.stay = nn.ParameterList(matrix(width, width) for _ in range(rounds))
        self.fed = nn.ParameterList(matrix(width, width) for _ in range(rounds))
        self.feeds = nn.ParameterList(matrix(width, width) for _ in range(rounds))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(rng.trials, 1, width)) for _ in range(rounds))
        self.read = matrix(width, 1)
        self.level = nn.Parameter(torch.zeros(rng.trials, 1, 1))
        self.others = nn.Parameter(torch.zeros(rng.trials, max(1, int((~self._of_arrows).sum())), 1))

    def forward(self, features: Tensor) -> Tensor:
        """``[networks, m, columns]`` to ``[networks, m, 1]``."""
        count, m, _ = features.shape
        code = (features[..., self._of_arrows] != 0).float().view(count, m, self._slots, -1)  # columns were scaled
        own, feeding = code[..., : self._own], code[..., self._own :]
        there = own.any(-1, keepdim=True)
        feeding = feeding.reshape(count * m, self._slots, self._slots)

        def apply(states: Tensor, weight: Tensor) -> Tensor:
            return torch.bmm(states.reshape(count, m * self._slots, -1), weight).view(count * m, self._slots, -1)

        states = apply(own, self.first).relu()
        for stay, fed, feeds, bias in zip(self.stay, self.fed, self.feeds, self.bias, strict=True):
            received = apply(torch.bmm(feeding, states), fed) + apply(torch.bmm(feeding.transpose(1, 2), states), feeds)
            renewed = (apply(states, stay) + received).view(count, m * self._slots, -1) + bias
            states = (renewed.relu().view(count, m, self._slots, -1) * there).view(count * m, self._slots, -1)
        pooled = states.view(count, m, self._slots, -1).sum(2)
        answer = torch.baddbmm(self.level, pooled, self.read)
        if self._of_arrows.all():
            return answer
        return answer + torch.bmm(features[..., ~self._of_arrows], self.others)
