"""Recurrent networks of many trials, evaluated as batched matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.randomness import TrialRandom

State = list[tuple[Tensor, Tensor]]
"""Of each layer the output and the cell, ``[trials, n, hidden]`` each."""


class Stacked(nn.Module):
    """A module whose parameters have a leading dimension of trials.

    Args:
        rng: where the initial weights come from, one stream a trial.
        scale: initial weights are uniform in [-scale, scale].
        dtype: of weights and results.
    """

    def __init__(self, rng: TrialRandom, scale: float, dtype: torch.dtype = torch.float64):
        super().__init__()
        self._rng, self._scale, self.dtype = rng, scale, dtype

    def weight(self, *shape: int) -> nn.Parameter:
        """A fresh parameter ``[trials, *shape]``."""
        return nn.Parameter(((2 * self._rng.uniform(*shape) - 1) * self._scale).to(self.dtype))


class StackedLSTM(Stacked):
    """A long short-term memory network a trial (Hochreiter and Schmidhuber, 1997; with forget gates, as PyTorch's).

    Args:
        rng: initial weights.
        inputs: numbers that a step reads.
        hidden: units of each layer.
        layers: one above the other.
        scale: initial weights and biases are uniform in [-scale, scale].
        dtype: of the computation.
    """

    def __init__(
        self,
        rng: TrialRandom,
        inputs: int,
        hidden: int,
        layers: int = 1,
        scale: float = 0.1,
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__(rng, scale, dtype)
        self.hidden, self.layers = hidden, layers
        widths = [inputs, *[hidden] * (layers - 1)]
        # Four blocks of columns: input gate, forget gate, candidate, output gate.
        self.read = nn.ParameterList(self.weight(width, 4 * hidden) for width in widths)
        self.recur = nn.ParameterList(self.weight(hidden, 4 * hidden) for _ in widths)
        self.bias = nn.ParameterList(self.weight(1, 4 * hidden) for _ in widths)

    def start(self, trials: int, n: int) -> State:
        """The state before the first step: zeros."""
        zero = torch.zeros(trials, n, self.hidden, dtype=self.dtype)
        return [(zero, zero)] * self.layers

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[trials, n, inputs]`` and the state to the last layer's output ``[trials, n, hidden]``."""
        after: State = []
        for layer, (output, cell) in enumerate(state):
            read = torch.baddbmm(self.bias[layer], inputs, self.read[layer])
            inputs, cell = _gated(torch.baddbmm(read, output, self.recur[layer]), cell)
            after.append((inputs, cell))
        return inputs, after

    def forward(self, inputs: Tensor) -> Tensor:
        """Whole sequences: ``[trials, n, steps, inputs]`` to the last layer's outputs ``[trials, n, steps, hidden]``.

        All steps' inputs are multiplied at once; only what depends on the step before is done step by step.
        """
        trials, n, steps, _ = inputs.shape
        for layer, state in enumerate(self.start(trials, n)):
            flat = inputs.reshape(trials, n * steps, -1)
            read = torch.baddbmm(self.bias[layer], flat, self.read[layer]).reshape(trials, n, steps, -1)
            (output, cell), outputs = state, []
            for one in read.unbind(2):
                output, cell = _gated(torch.baddbmm(one, output, self.recur[layer]), cell)
                outputs.append(output)
            inputs = torch.stack(outputs, dim=2)
        return inputs


def _gated(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Output and cell after a step, of the gates' inputs ``[trials, n, 4 * hidden]`` and the cell before it."""
    write, keep, candidate, show = gates.chunk(4, dim=-1)
    cell = keep.sigmoid() * cell + write.sigmoid() * candidate.tanh()
    return show.sigmoid() * cell.tanh(), cell


def rows(table: Tensor, places: Tensor) -> Tensor:
    """Rows of each trial's table: ``[trials, rows, width]``, int64 ``[trials, ...]`` to ``[trials, ..., width]``."""
    trials, _, width = table.shape
    flat = places.reshape(trials, -1, 1).expand(-1, -1, width)
    return table.gather(1, flat).reshape(*places.shape, width)
