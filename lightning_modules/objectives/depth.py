"""Losses of inverse depth whose scale and shift are unknown (MiDaS: Ranftl et al., TPAMI 2020, sec. 5).

All images of a batch are computed at once and without waiting for the device. Prediction and inverse depth are
``[batch, 1, height, width]`` (or without the channel), the mask is a bool tensor of the same shape that is True where
the inverse depth is known, and a result is ``[batch]``, zero for an image without known pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_modules.objectives.base import ImageObjective

TRIM = 0.2
"""Share of the largest residuals that are left out (MiDaS, sec. 5)."""
GRADIENT_WEIGHT = 0.5
"""Of the gradient term beside the data term (MiDaS, sec. 5)."""
SCALES = 4
"""Of the gradient term, each of half the resolution of the one before (MiDaS, sec. 5)."""
SMALLEST_SCALE = 1e-6
"""A mean absolute deviation below it counts as this: a constant image has no scale."""


def trimmed_ssi(
    prediction: Tensor,
    inverse_depth: Tensor,
    mask: Tensor,
    trim: float = TRIM,
    gradient_weight: float = GRADIENT_WEIGHT,
    scales: int = SCALES,
) -> Tensor:
    """MiDaS' trimmed scale- and shift-invariant loss with its multi-scale gradient term.

    Prediction and inverse depth are each brought to median 0 and mean absolute deviation 1. The data term is the sum of
    all but the largest absolute residuals of an image, divided by twice the number of known pixels.

    Args:
        prediction: ``[batch, 1, height, width]``.
        inverse_depth: the same shape; values outside of the mask do not count, whatever they are.
        mask: bool, the same shape.
        trim: share of residuals left out, in [0, 1).
        gradient_weight: of the gradient term.
        scales: of the gradient term.

    Returns:
        ``[batch]``; of an image without known pixels 0.
    """
    prediction, inverse_depth, mask = _prepare(prediction, inverse_depth, mask)
    residual = _normalise(prediction, mask) - _normalise(inverse_depth, mask)
    loss = _trimmed_mean(residual, mask, trim)
    if gradient_weight:
        loss = loss + gradient_weight * gradient_term(residual, mask, scales)
    return loss


def least_squares_ssi(prediction: Tensor, inverse_depth: Tensor, mask: Tensor) -> Tensor:
    """Half the mean squared residual under the best scale and shift; arguments as for `trimmed_ssi`."""
    prediction, inverse_depth, mask = _prepare(prediction, inverse_depth, mask)
    residual = _align(prediction, inverse_depth, mask) - inverse_depth
    return _mean(residual.square(), mask) / 2


def disparity_rmse(prediction: Tensor, inverse_depth: Tensor, mask: Tensor) -> Tensor:
    """Root of the mean squared residual under the best scale and shift, in the unit of the inverse depth.

    A metric, not a loss: its gradient is infinite where the residual is zero. Arguments as for `trimmed_ssi`.
    """
    return (2 * least_squares_ssi(prediction, inverse_depth, mask)).sqrt()


def gradient_term(residual: Tensor, mask: Tensor, scales: int = SCALES) -> Tensor:
    """Sum of absolute differences of neighbouring residuals a known pixel, over several resolutions.

    Args:
        residual: ``[batch, height, width]``.
        mask: bool, the same shape; a difference counts where both neighbours are known.
        scales: each takes every second pixel of the one before.
    """
    total = residual.new_zeros(residual.shape[0])
    for scale in range(scales):
        step = 2**scale
        values, known = residual[:, ::step, ::step], mask[:, ::step, ::step]
        count = known.sum(dim=(1, 2)).clamp(min=1)
        for axis in (1, 2):
            length = values.shape[axis] - 1
            both = known.narrow(axis, 1, length) & known.narrow(axis, 0, length)
            total = total + (values.diff(dim=axis).abs() * both).sum(dim=(1, 2)) / count
    return total


class DepthLoss(nn.Module, ABC):
    """A loss of the form that a training step needs: the mean over the images of a batch that have known pixels."""

    @abstractmethod
    def per_image(self, prediction: Tensor, inverse_depth: Tensor, mask: Tensor) -> Tensor:
        """The loss of each image: ``[batch]``, zero for one without known pixels."""

    def forward(self, prediction: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """The mean loss.

        Args:
            prediction: ``[batch, 1, height, width]``.
            target: inverse depth and mask, of the same shape.

        Returns:
            A scalar; 0 where no image has a known pixel.
        """
        inverse_depth, mask = target
        losses = self.per_image(prediction, inverse_depth, mask)
        return losses.sum() / count_images(mask).clamp(min=1)


class TrimmedSSILoss(DepthLoss):
    """`trimmed_ssi` as a module.

    Args:
        trim: share of residuals left out, in [0, 1).
        gradient_weight: of the gradient term.
        scales: of the gradient term.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, trim: float = TRIM, gradient_weight: float = GRADIENT_WEIGHT, scales: int = SCALES):
        super().__init__()
        if not 0 <= trim < 1:
            raise ValueError(f"trim is {trim}, at least 0 and less than 1 is allowed")
        if gradient_weight < 0:
            raise ValueError(f"gradient_weight is {gradient_weight}, 0 or more is allowed")
        if scales < 1:
            raise ValueError(f"scales is {scales}, at least 1 is needed")
        self.trim, self.gradient_weight, self.scales = trim, gradient_weight, scales

    def per_image(self, prediction: Tensor, inverse_depth: Tensor, mask: Tensor) -> Tensor:
        """The loss of each image: ``[batch]``, zero for one without known pixels."""
        return trimmed_ssi(prediction, inverse_depth, mask, self.trim, self.gradient_weight, self.scales)


class LeastSquaresSSILoss(DepthLoss):
    """`least_squares_ssi` as a module."""

    def per_image(self, prediction: Tensor, inverse_depth: Tensor, mask: Tensor) -> Tensor:
        """The loss of each image: ``[batch]``, zero for one without known pixels."""
        return least_squares_ssi(prediction, inverse_depth, mask)


class DepthObjective(ImageObjective):
    """A scale- and shift-invariant loss to learn by, its negative to rank by.

    Args:
        kind: ``trimmed``, MiDaS' trimmed loss with its gradient term, or ``least_squares``.
    """

    score_name = "negative scale- and shift-invariant loss"

    def __init__(self, kind: Literal["trimmed", "least_squares"] = "trimmed"):
        self._loss = TrimmedSSILoss() if kind == "trimmed" else LeastSquaresSSILoss()

    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """The loss of inverse depth ``[batch, 1, height, width]`` and (inverse depth, mask) of the same shape."""
        return self._loss(outputs, targets)

    def score_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """Its negative."""
        return -self._loss(outputs, targets)


def count_images(mask: Tensor) -> Tensor:
    """How many images of a batch have a known pixel: an int64 scalar on the mask's device."""
    return mask.flatten(1).any(dim=1).sum()


def _prepare(prediction: Tensor, inverse_depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three as ``[batch, height, width]``, at least float32, inverse depth 0 where it is not known."""
    if not prediction.shape == inverse_depth.shape == mask.shape:
        shapes = ", ".join(str(list(x.shape)) for x in (prediction, inverse_depth, mask))
        raise ValueError(f"prediction, inverse depth and mask have the shapes {shapes}; they must be one")
    if prediction.ndim == 4:
        prediction, inverse_depth, mask = prediction.squeeze(1), inverse_depth.squeeze(1), mask.squeeze(1)
    # Sums over all pixels of an image overflow in half precision.
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    # Unknown values may be infinite or not a number, and a product with zero would keep that.
    return prediction.to(dtype), inverse_depth.to(dtype).where(mask, 0), mask


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the known pixels of each image: ``[batch, height, width]`` to ``[batch]``."""
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)


def _normalise(values: Tensor, mask: Tensor) -> Tensor:
    """Each image with median 0 and mean absolute deviation 1 over its known pixels."""
    count = mask.sum(dim=(1, 2))
    ordered = values.where(mask, torch.inf).flatten(1).sort(dim=1).values
    # Of an even number of pixels the lower one of the two in the middle, as torch.median has it.
    middle = ((count - 1) // 2).clamp(min=0)
    median = ordered.gather(1, middle[:, None]).squeeze(1).where(count > 0, 0)
    centred = values - median[:, None, None]
    deviation = _mean(centred.abs(), mask).clamp(min=SMALLEST_SCALE)
    return centred / deviation[:, None, None]


def _trimmed_mean(residual: Tensor, mask: Tensor, trim: float) -> Tensor:
    """Sum of all but the largest absolute residuals of each image by twice its known pixels."""
    count = mask.sum(dim=(1, 2))
    # In whole numbers, for a product of floats may fall short of a whole one.
    kept = count * round((1 - trim) * 10_000) // 10_000
    ordered = residual.abs().where(mask, torch.inf).flatten(1).sort(dim=1).values
    position = torch.arange(ordered.shape[1], device=ordered.device)
    return ordered.where(position < kept[:, None], 0).sum(dim=1) / (2 * count.clamp(min=1))


def _align(prediction: Tensor, inverse_depth: Tensor, mask: Tensor) -> Tensor:
    """Each prediction under the scale and shift that bring it nearest to the inverse depth.

    The two normal equations solved around the means, which cancels less than their determinant does.
    """
    mean, target_mean = (_mean(values, mask)[:, None, None] for values in (prediction, inverse_depth))
    centred = prediction - mean
    variance = _mean(centred.square(), mask)
    covariance = _mean(centred * (inverse_depth - target_mean), mask)
    # A constant prediction has no scale; what is left of its variance is rounding, relative to its mean.
    smallest = (4 * torch.finfo(prediction.dtype).eps * mean.flatten()).square()
    varies = variance > smallest
    scale = torch.where(varies, covariance / variance.where(varies, 1), 0)
    return scale[:, None, None] * centred + target_mean
