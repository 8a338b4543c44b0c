"""What a supernet pays for the order of two landmarks.

A penalty is a function of two losses, that of the better landmark and that of the worse one, and of their truths: how
good both are after stand-alone training, scaled to [0, 1]. `hinge` is Landmark Regularization, eq. 4; the others are
the alternatives of its public code, where ``mae_relu`` is `hinge`, ``mae_X_relu`` is ``X_hinge``, ``*_infinite`` is
``worth_*`` or `margin_hinge`. Signs have no gradient, and of equally good landmarks no order is asked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import logsigmoid, relu

PairPenalty = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(loss of the better landmark, of the worse one, truth of the better one, of the worse one) to the penalty."""

PENALTIES: dict[str, PairPenalty] = {}
"""Penalties of a pair by name."""


def _of_losses(penalty: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """List a penalty that looks at losses alone."""
    PENALTIES[penalty.__name__] = lambda better, worse, truth_better, truth_worse: penalty(better, worse)
    return penalty


def _of_losses_and_truths(penalty: PairPenalty) -> PairPenalty:
    """List a penalty."""
    PENALTIES[penalty.__name__] = penalty
    return penalty


@_of_losses
def hinge(better: Tensor, worse: Tensor) -> Tensor:
    """By how much the better landmark's loss is the higher one (eq. 4)."""
    return relu(better - worse)


@_of_losses
def inverse_hinge(better: Tensor, worse: Tensor) -> Tensor:
    """The same of the opposite order."""
    return relu(worse - better)


@_of_losses
def sign_hinge(better: Tensor, worse: Tensor) -> Tensor:
    """1 where the order is wrong."""
    return relu((better - worse).sign())


@_of_losses
def sign_tanh_hinge(better: Tensor, worse: Tensor) -> Tensor:
    """The same, by way of the hyperbolic tangent."""
    return relu((better - worse).tanh().sign())


@_of_losses
def tanh_hinge(better: Tensor, worse: Tensor) -> Tensor:
    """The hinge of a bounded difference."""
    return relu((better - worse).tanh())


@_of_losses
def softplus(better: Tensor, worse: Tensor) -> Tensor:
    """A smooth hinge."""
    return functional.softplus(better - worse)


@_of_losses
def softplus_beta3(better: Tensor, worse: Tensor) -> Tensor:
    """A sharper one."""
    return functional.softplus(better - worse, 3)


@_of_losses
def softplus_beta5(better: Tensor, worse: Tensor) -> Tensor:
    """A sharper one."""
    return functional.softplus(better - worse, 5)


@_of_losses
def softplus_beta7(better: Tensor, worse: Tensor) -> Tensor:
    """The sharpest one."""
    return functional.softplus(better - worse, 7)


@_of_losses
def cross_entropy(better: Tensor, worse: Tensor) -> Tensor:
    """Of the probability, a sigmoid of the difference, that the order is right."""
    return -logsigmoid(worse - better)


@_of_losses
def focal(better: Tensor, worse: Tensor) -> Tensor:
    """Cross-entropy of the opposite order that weighs wrong orders more (power 5)."""
    difference = better - worse
    return -(difference.sigmoid() ** 5) * logsigmoid(-difference)


@_of_losses
def mixed_focal(better: Tensor, worse: Tensor) -> Tensor:
    """Focal where the order is right, cross-entropy where it is wrong."""
    return torch.where(better < worse, focal(better, worse), cross_entropy(better, worse))


@_of_losses
def norm_hinge(better: Tensor, worse: Tensor) -> Tensor:
    """The mean of both losses where the order is wrong."""
    difference = better - worse
    return relu(difference / difference.abs().clamp_min(1e-12) * (better + worse) / 2)


@_of_losses_and_truths
def worth_hinge(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """The hinge times the difference of truths."""
    return relu((better - worse) * (truth_better - truth_worse))


@_of_losses_and_truths
def worth_softplus(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """A smooth hinge of the same product."""
    return functional.softplus((better - worse) * (truth_better - truth_worse), 5)


def _sigmoid_of_ratio(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """One half less the sigmoid of how many times the difference of truths the losses differ."""
    return 0.5 - ((worse - better) / (truth_better - truth_worse).clamp_min(1e-12)).sigmoid()


@_of_losses_and_truths
def worth_sigmoid_hinge(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """The hinge of a bounded ratio of the two differences."""
    return relu(_sigmoid_of_ratio(better, worse, truth_better, truth_worse))


@_of_losses_and_truths
def worth_sigmoid_softplus(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """A smooth hinge of the same ratio."""
    return functional.softplus(_sigmoid_of_ratio(better, worse, truth_better, truth_worse), 5)


@_of_losses_and_truths
def margin_hinge(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """By how much the losses fall short of a difference of 1."""
    return relu(1 - (worse - better) * (truth_better - truth_worse).sign())


@_of_losses_and_truths
def worth_tanh_hinge(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """The hinge of the product of both bounded differences."""
    return relu(worth_tanh(better, worse, truth_better, truth_worse))


@_of_losses_and_truths
def worth_tanh(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """The product of both bounded differences: right orders are rewarded."""
    return (better - worse).tanh() * (truth_better - truth_worse).tanh()


@_of_losses_and_truths
def worth_sign_tanh_hinge(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """The hinge of the bounded difference of losses, where the truths differ."""
    return relu((better - worse).tanh() * (truth_better - truth_worse).sign())
