"""Pooling of regions of interest in the signatures of mmcv's compiled operators, which fill the buffers they get.

Features are ``[images, channels, height, width]``; regions are ``[regions, 5]`` as image index, left, top, right, and
bottom in pixels of the input image; pooled features are ``[regions, channels, pooled height, pooled width]``.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision  # noqa: F401  its kernels are under torch.ops once it is imported
from torch import Tensor


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: Literal[0, 1],
    aligned: bool,
) -> None:
    """Fill `output` with the mean of bilinear samples in each bin (Mask R-CNN, He et al. 2017, sec. 3).

    Args:
        input: features.
        rois: regions.
        output: pooled features.
        argmax_y: of the maximum only.
        argmax_x: of the maximum only.
        aligned_height: pooled height.
        aligned_width: pooled width.
        spatial_scale: feature cells per pixel.
        sampling_ratio: samples per side of a bin; 0 for one per feature cell.
        pool_mode: 1 for the mean.
        aligned: whether a pixel's centre is at half a pixel.

    Raises:
        NotImplementedError: the maximum of the samples is asked for.
    """
    _require_mean(pool_mode)
    features = _single(input)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features, rois.to(features), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: Literal[0, 1],
    aligned: bool,
) -> None:
    """Fill `grad_input`; arguments as for `roi_align_forward`.

    Raises:
        NotImplementedError: the maximum of the samples is asked for.
    """
    _require_mean(pool_mode)
    gradient = _single(grad_output)
    if torch.are_deterministic_algorithms_enabled():
        # A GPU's kernel adds up in any order, and torch refuses it then.
        gradient = gradient.cpu()
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            gradient,
            rois.to(gradient),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill `output` with the maximum of each bin, and `argmax` with its place (Fast R-CNN, Girshick 2015, sec. 2.1).

    torchvision's operator rounds a region to whole feature cells first; mmcv's, as here, keeps its fractions and rounds
    each bin outwards.

    Args:
        input: features.
        rois: regions; right and bottom pixels belong to them.
        output: pooled features, 0 for an empty bin.
        argmax: as pooled features, ``row * width + column`` in the feature map, -1 for an empty bin.
        pooled_height: bins per column.
        pooled_width: bins per row.
        spatial_scale: feature cells per pixel.
    """
    height, width = input.shape[-2:]
    for index, (image, left, top, right, bottom) in enumerate(_single(rois)):
        features = input[int(image)]
        columns = _bins(left * spatial_scale, (right + 1) * spatial_scale, pooled_width, width)
        rows = _bins(top * spatial_scale, (bottom + 1) * spatial_scale, pooled_height, height)
        # First along rows, then along columns: [bins across, channels, height], [bins down, bins across, channels].
        across, column = features.masked_fill(~columns[:, None, None, :], -torch.inf).max(dim=-1)
        pooled, row = across.masked_fill(~rows[:, None, None, :], -torch.inf).max(dim=-1)
        column = column.expand(pooled_height, *column.shape).gather(-1, row[..., None])[..., 0]
        empty = ~(rows.any(dim=1)[:, None] & columns.any(dim=1))[..., None]
        output[index] = pooled.masked_fill(empty, 0).permute(2, 0, 1)
        argmax[index] = (row * width + column).masked_fill(empty, -1).permute(2, 0, 1)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add to `grad_input` at the places of the maxima; arguments as for `roi_pool_forward`."""
    images, channels, height, width = grad_input.shape
    flat = torch.zeros(images, channels, height * width, dtype=grad_input.dtype, device=grad_input.device)
    places = argmax.flatten(2).long()
    gradient = grad_output.flatten(2).to(flat.dtype).masked_fill(places < 0, 0)
    image = rois[:, 0].long()[:, None, None].expand_as(places)
    channel = torch.arange(channels, device=places.device)[None, :, None].expand_as(places)
    flat.index_put_((image, channel, places.clamp(min=0)), gradient, accumulate=True)
    grad_input += flat.view_as(grad_input)


def _bins(start: Tensor, end: Tensor, bins: int, cells: int) -> Tensor:
    """Which of the cells along one axis each bin covers, bool ``[bins, cells]``; none where the region is empty."""
    edges = torch.arange(bins + 1, device=start.device) * ((end - start) / bins) + start
    cell = torch.arange(cells, device=start.device)
    inside = (cell >= edges[:-1, None].floor()) & (cell < edges[1:, None].ceil())
    return inside & (end > start)


def _require_mean(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "mmcv's RoIAlign with pool_mode='max' has no stand-in here: use pool_mode='avg', or install an mmcv "
            ">=2.0.0,<2.2.0 with operators compiled for this release of torch in place of mmcv-lite"
        )


def _single(values: Tensor) -> Tensor:
    """Values in at least single precision: the kernels lack half precision on CPUs, and bfloat16 anywhere."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
