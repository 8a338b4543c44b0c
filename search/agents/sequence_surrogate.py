"""Recurrent networks that predict what sequences of layers are worth, however many layers there are."""

from __future__ import annotations

import torch
from torch import Tensor

from search.randomness import TrialRandom

_FIRST_DECAY, _SECOND_DECAY, _EPSILON = 0.9, 0.999, 1e-8
"""Adam's (PyTorch's defaults)."""


class SequenceSurrogate:
    """A linear layer and a sigmoid a row, an LSTM over rows, a linear layer and a sigmoid on the last step.

    Initial weights and training are those of MFAS's code: biases of 1.8, weights uniform within 0.1; squared error, and
    in every epoch a step of Adam for each length. Weights are kept from one fit to the next, Adam's moments are not
    (assumed). Networks of all trials stand side by side, weights stacked along the first dimension.

    Args:
        rng: where initial weights come from; a stream a trial.
        inputs: numbers of a row.
        hidden: units of both layers.
    """

    def __init__(self, rng: TrialRandom, inputs: int, hidden: int):
        def weights(rows: int, columns: int) -> Tensor:
            return (0.2 * rng.uniform(rows, columns) - 0.1).float()

        def biases(columns: int) -> Tensor:
            return torch.full((rng.trials, 1, columns), 1.8)

        self.parameters = {
            "encode": weights(inputs, hidden),
            "encode_bias": biases(hidden),
            "read": weights(hidden, 4 * hidden),  # of input, forget and output gates and of the new content
            "recur": weights(hidden, 4 * hidden),
            "read_bias": biases(4 * hidden),
            "recur_bias": biases(4 * hidden),  # two that are added, as in PyTorch's LSTM: both are trained
            "decode": weights(hidden, 1),
            "decode_bias": biases(1),
        }

    def values(self, rows: Tensor) -> Tensor:
        """Sequences of one length, ``[trials, n, length, inputs]``, to values in 0 to 1: ``[trials, n]``."""
        p, (trials, n, length, inputs) = self.parameters, rows.shape
        hidden = p["recur"].shape[1]
        encoded = torch.baddbmm(p["encode_bias"], rows.reshape(trials, n * length, inputs), p["encode"]).sigmoid()
        read = torch.baddbmm(p["read_bias"] + p["recur_bias"], encoded, p["read"]).view(trials, n, length, 4 * hidden)
        state = cell = rows.new_zeros(trials, n, hidden)
        for step in range(length):
            gates = torch.baddbmm(read[:, :, step], state, p["recur"])
            take, keep, give = gates[..., : 3 * hidden].sigmoid().chunk(3, -1)
            cell = keep * cell + take * gates[..., 3 * hidden :].tanh()
            state = give * cell.tanh()
        return torch.baddbmm(p["decode_bias"], state, p["decode"]).sigmoid().squeeze(-1)

    def fit(
        self, rows: Tensor, lengths: Tensor, targets: Tensor, counts: Tensor, epochs: int, learning_rate: float
    ) -> None:
        """Learn from examples.

        Args:
            rows: ``[trials, n, most, inputs]``, of which the first ``lengths`` count.
            lengths: int64 ``[trials, n]``, at least 1.
            targets: ``[trials, n]``, in 0 to 1.
            counts: bool ``[trials, n]``: which examples there are.
            epochs: each has a step for every length.
            learning_rate: of Adam.
        """
        groups = []
        for length in sorted(set(lengths[counts].tolist())):
            mine = counts & (lengths == length)
            some = mine.any(0)  # no column that no trial has
            share = mine[:, some].float() / mine.sum(1, keepdim=True).clamp(min=1)
            groups.append((rows[:, some, :length], targets[:, some].float(), share))
        adam = _Adam(list(self.parameters.values()), learning_rate)
        with torch.enable_grad():
            for parameter in self.parameters.values():
                parameter.requires_grad_()
            for _ in range(epochs):
                for inputs, wanted, share in groups:
                    loss = ((self.values(inputs) - wanted).square() * share).sum()
                    adam.step(torch.autograd.grad(loss, adam.parameters), share.any(1))
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def predict(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """What sequences are worth, float64 ``[trials, n]``; arguments as for `fit`."""
        values = torch.zeros(rows.shape[:2], dtype=torch.float64)
        for length in sorted(set(lengths.flatten().tolist())):
            some = (lengths == length).any(0)
            found = self.values(rows[:, some, :length]).double()
            values[:, some] = torch.where(lengths[:, some] == length, found, values[:, some])
        return values


class _Adam:
    """Adam (Kingma and Ba, 2015) whose steps leave out the trials that have nothing to learn from."""

    def __init__(self, parameters: list[Tensor], learning_rate: float):
        self.parameters, self._rate = parameters, learning_rate
        self._first = [torch.zeros_like(each) for each in parameters]
        self._second = [torch.zeros_like(each) for each in parameters]
        self._steps = torch.zeros(len(parameters[0]), 1, 1)

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], active: Tensor) -> None:
        active = active.view(-1, 1, 1).float()
        self._steps += active
        steps = self._steps.clamp(min=1)
        rate = self._rate / (1 - _FIRST_DECAY**steps) * active
        largest = (1 - _SECOND_DECAY**steps).sqrt()
        for parameter, gradient, first, second in zip(
            self.parameters, gradients, self._first, self._second, strict=True
        ):
            first += (1 - _FIRST_DECAY) * active * (gradient - first)
            second += (1 - _SECOND_DECAY) * active * (gradient.square() - second)
            parameter -= rate * first / (second.sqrt() / largest + _EPSILON)
