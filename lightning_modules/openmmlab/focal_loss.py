"""Focal losses in the signatures of mmcv's compiled operators (Focal Loss, Lin et al. 2017, eq. 5).

The operators fill the buffer they are given. Logits are ``[n, classes]``, targets int64 ``[n]``; for the sigmoid loss
the target ``classes`` is the background. An empty weight means none.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The kernels' lower bound of probabilities under a logarithm: the smallest normal float32.
SMALLEST = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `output` ``[n, classes]`` with the loss of one yes-or-no question per class.

    Args:
        input: logits.
        target: classes.
        weight: ``[classes]``, by the class of the target.
        output: the buffer.
        gamma: how much easy examples count less.
        alpha: share of the positive answers.
    """
    positive, probability = _one_hot(target, input), input.sigmoid()
    yes = alpha * (1 - probability) ** gamma * _log(probability)
    no = (1 - alpha) * probability**gamma * _log(1 - probability)
    output.copy_(-torch.where(positive, yes, no) * _weight_of(target, weight, input)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `grad_input` with the derivative of each loss by its logit; arguments as for the forward operator."""
    positive, probability = _one_hot(target, input), input.sigmoid()
    other = 1 - probability
    yes = alpha * other**gamma * (other - gamma * probability * _log(probability))
    no = (1 - alpha) * probability**gamma * (gamma * other * _log(other) - probability)
    grad_input.copy_(-torch.where(positive, yes, no) * _weight_of(target, weight, input)[:, None])


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `output` ``[n]`` with the loss of one question among all classes.

    Args:
        input: probabilities, after the softmax.
        target: classes; a negative one is ignored.
        weight: ``[classes]``, by the class of the target.
        output: the buffer.
        gamma: how much easy examples count less.
        alpha: factor of all.
    """
    probability = _probability_of(target, input)
    loss = -alpha * (1 - probability) ** gamma * _log(probability) * _weight_of(target, weight, input)
    output.copy_(loss.masked_fill(target < 0, 0))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `grad_input` ``[n, classes]`` with the derivative by the logits; arguments as for the forward operator.

    `buff` ``[n]`` takes the derivative by the logit's own probability, times that probability.
    """
    probability = _probability_of(target, input)
    other = 1 - probability
    # A power below zero of no doubt at all is infinite, times a logarithm of zero.
    slope = gamma * other.clamp(min=SMALLEST) ** (gamma - 1) * probability * _log(probability)
    buff.copy_((alpha * (slope - other**gamma) * _weight_of(target, weight, input)).masked_fill(target < 0, 0))
    grad_input.copy_(buff[:, None] * (_one_hot(target, input).to(input.dtype) - input))


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=SMALLEST).log()


def _one_hot(target: Tensor, values: Tensor) -> Tensor:
    return target[:, None] == torch.arange(values.shape[1], device=target.device)


def _probability_of(target: Tensor, probabilities: Tensor) -> Tensor:
    return probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]


def _weight_of(target: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """The weight of each target's class, 1 for the background, which the kernels read past the end of the weights."""
    if not weight.numel():
        return values.new_ones(len(target))
    return torch.cat([weight, weight.new_ones(1)])[target]
