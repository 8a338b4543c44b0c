"""Multi-layer perceptrons of many trials, evaluated as one batched matrix product."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from search.randomness import TrialRandom


class StackedMLP(nn.Module):
    """One multi-layer perceptron a trial, weights stacked along the first dimension.

    Args:
        rng: where the initial weights come from: uniform within 1/sqrt(fan-in), PyTorch's default for linear layers.
        sizes: units of each layer, input first.
        dtype: of weights and results.
        last_scale: factor on the last layer's initial weights; small for a policy that starts near uniform.
    """

    def __init__(self, rng: TrialRandom, sizes: list[int], dtype: torch.dtype, last_scale: float = 1.0):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            scale = (last_scale if layer == len(sizes) - 2 else 1.0) / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(((2 * rng.uniform(fan_in, fan_out) - 1) * scale).to(dtype)))
            self.biases.append(nn.Parameter(((2 * rng.uniform(1, fan_out) - 1) * scale).to(dtype)))

    def forward(self, inputs: Tensor, rows: slice = slice(None)) -> Tensor:
        """``[trials, batch, in]`` to ``[trials, batch, out]``; ReLU between layers, of all trials or some ``rows``."""
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            inputs = torch.baddbmm(bias[rows], inputs if layer == 0 else inputs.relu(), weight[rows])
        return inputs


@torch.no_grad()
def clip_gradients_per_trial(parameters: list[nn.Parameter], largest_norm: float) -> None:
    """Scale each trial's gradient down to a norm of at most ``largest_norm``, whatever the other trials' are.

    Args:
        parameters: stacked parameters ``[trials, ...]``; those without a gradient are skipped.
        largest_norm: as in `torch.nn.utils.clip_grad_norm_`, over all parameters of a trial together.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
    factor = (largest_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient *= factor.view(-1, *[1] * (gradient.dim() - 1))
