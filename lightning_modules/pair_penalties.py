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
from torch.nn.functional import logsigmoid, relu, softplus

PairPenalty = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(loss of the better landmark, of the worse one, truth of the better one, of the worse one) to the penalty."""


def _cross_entropy(better: Tensor, worse: Tensor) -> Tensor:
    return -logsigmoid(worse - better)


def _focal(better: Tensor, worse: Tensor) -> Tensor:
    difference = better - worse
    return -(difference.sigmoid() ** 5) * logsigmoid(-difference)


def _share_of_mean(better: Tensor, worse: Tensor) -> Tensor:
    difference = better - worse
    return difference / difference.abs().clamp_min(1e-12) * (better + worse) / 2


def _sigmoid_of_ratio(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    """One half less the sigmoid of how many times the difference of truths the losses differ."""
    return 0.5 - ((worse - better) / (truth_better - truth_worse).clamp_min(1e-12)).sigmoid()


def _worth_tanh(better: Tensor, worse: Tensor, truth_better: Tensor, truth_worse: Tensor) -> Tensor:
    return (better - worse).tanh() * (truth_better - truth_worse).tanh()


# ``b`` and ``w`` are the losses of the better and the worse landmark, ``tb`` and ``tw`` their truths.
PENALTIES: dict[str, PairPenalty] = {
    # By how much the better landmark's loss is the higher one (eq. 4), and the same of the opposite order.
    "hinge": lambda b, w, tb, tw: relu(b - w),
    "inverse_hinge": lambda b, w, tb, tw: relu(w - b),
    # 1 where the order is wrong; the same by way of the hyperbolic tangent; the hinge of a bounded difference.
    "sign_hinge": lambda b, w, tb, tw: relu((b - w).sign()),
    "sign_tanh_hinge": lambda b, w, tb, tw: relu((b - w).tanh().sign()),
    "tanh_hinge": lambda b, w, tb, tw: relu((b - w).tanh()),
    # Smooth hinges, ever sharper.
    "softplus": lambda b, w, tb, tw: softplus(b - w),
    "softplus_beta3": lambda b, w, tb, tw: softplus(b - w, 3),
    "softplus_beta5": lambda b, w, tb, tw: softplus(b - w, 5),
    "softplus_beta7": lambda b, w, tb, tw: softplus(b - w, 7),
    # Of the probability, a sigmoid of the difference, that the order is right.
    "cross_entropy": lambda b, w, tb, tw: _cross_entropy(b, w),
    # Cross-entropy of the opposite order that weighs wrong orders more (power 5).
    "focal": lambda b, w, tb, tw: _focal(b, w),
    # Focal where the order is right, cross-entropy where it is wrong.
    "mixed_focal": lambda b, w, tb, tw: torch.where(b < w, _focal(b, w), _cross_entropy(b, w)),
    # The mean of both losses where the order is wrong.
    "norm_hinge": lambda b, w, tb, tw: relu(_share_of_mean(b, w)),
    # The hinge times the difference of truths, and a smooth hinge of the same product.
    "worth_hinge": lambda b, w, tb, tw: relu((b - w) * (tb - tw)),
    "worth_softplus": lambda b, w, tb, tw: softplus((b - w) * (tb - tw), 5),
    # The hinge of a bounded ratio of the two differences, and a smooth hinge of the same ratio.
    "worth_sigmoid_hinge": lambda b, w, tb, tw: relu(_sigmoid_of_ratio(b, w, tb, tw)),
    "worth_sigmoid_softplus": lambda b, w, tb, tw: softplus(_sigmoid_of_ratio(b, w, tb, tw), 5),
    # By how much the losses fall short of a difference of 1.
    "margin_hinge": lambda b, w, tb, tw: relu(1 - (w - b) * (tb - tw).sign()),
    # The hinge of the product of both bounded differences, and that product: right orders are rewarded.
    "worth_tanh_hinge": lambda b, w, tb, tw: relu(_worth_tanh(b, w, tb, tw)),
    "worth_tanh": _worth_tanh,
    # By how much the losses differ otherwise than the truths, squared: a regression on what landmarks are worth, not
    # on their order alone. Over all pairs of a group it is the squared error of the centred losses. Not in the public
    # code.
    "squared": lambda b, w, tb, tw: ((w - b) - (tb - tw)) ** 2,
    # The hinge of the bounded difference of losses, where the truths differ.
    "worth_sign_tanh_hinge": lambda b, w, tb, tw: relu((b - w).tanh() * (tb - tw).sign()),
}
"""Penalties of a pair by name."""
