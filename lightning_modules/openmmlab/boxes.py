"""Overlap of boxes and non-maximum suppression in the signatures of mmcv's compiled operators.

Boxes are float ``[n, 4]`` as left, top, right, bottom in pixels. With ``offset`` 1 the right and bottom pixels belong
to the box, so that a side is ``right - left + 1`` long.
"""

from __future__ import annotations

import importlib
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.ops import nms as torchvision_nms


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: Literal[0, 1], aligned: bool, offset: Literal[0, 1]
) -> None:
    """Fill `ious` by mmcv's own formula in plain torch, which mmcv keeps for another framework.

    Args:
        bboxes1: ``[n, 4]``.
        bboxes2: ``[m, 4]``.
        ious: ``[n, m]``, or ``[n]`` for box by box.
        mode: 0 for the share of the union, 1 for that of the first box.
        aligned: whether to compare box by box, where ``m`` is ``n``.
        offset: 0 or 1.
    """
    in_torch = importlib.import_module("mmcv.ops.bbox")._bbox_overlaps_cpu
    ious.copy_(in_torch(bboxes1, bboxes2, mode=("iou", "iof")[mode], aligned=aligned, offset=offset))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: Literal[0, 1]) -> Tensor:
    """Which boxes no better one overlaps by more than the threshold.

    Args:
        boxes: ``[n, 4]``.
        scores: ``[n]``.
        iou_threshold: boxes of a larger intersection over union with a kept one are dropped.
        offset: 0 or 1.

    Returns:
        int64 ``[kept]``, the best score first.
    """
    # The kernels know neither half precision on CPUs nor boxes and scores of two types.
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    return torchvision_nms(_closed(boxes.to(dtype), offset), scores.to(dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: Literal[0, 1, 2],
    offset: Literal[0, 1],
) -> Tensor:
    """Lower the scores of boxes that overlap better ones (Soft-NMS, Bodla et al. 2017, sec. 3).

    Args:
        boxes: ``[n, 4]``.
        scores: ``[n]``.
        dets: ``[n, 5]``, whose first ``kept`` rows are filled with boxes and lowered scores.
        iou_threshold: where methods 0 and 1 start.
        sigma: of method 2.
        min_score: a box that falls below it is dropped.
        method: 0 drops, 1 multiplies by ``1 - IoU``, 2 by ``exp(-IoU**2 / sigma)``.
        offset: 0 or 1.

    Returns:
        int64 ``[kept]``, in the order of the rows of `dets`.
    """
    closed = _closed(boxes, offset)
    remaining = torch.arange(len(boxes), device=boxes.device)
    current = scores.clone()
    kept: list[Tensor] = []
    while len(remaining):
        best = int(current[remaining].argmax())
        index = remaining[best]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[index], current[index]
        kept.append(index)
        remaining = torch.cat([remaining[:best], remaining[best + 1 :]])
        # Two boxes without area overlap by 0 / 0.
        overlap = box_iou(closed[index, None], closed[remaining])[0].nan_to_num()
        if method == 2:
            factor = torch.exp(-(overlap**2) / sigma)
        else:
            lowered = 1 - overlap if method == 1 else torch.zeros_like(overlap)
            factor = torch.where(overlap >= iou_threshold, lowered, torch.ones_like(overlap))
        current[remaining] *= factor
        remaining = remaining[current[remaining] >= min_score]
    return torch.stack(kept) if kept else remaining


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Each kept box with the boxes that it suppresses, those of at least the threshold's overlap.

    Args:
        dets: ``[n, 5]``, boxes and scores.
        iou_threshold: intersection over union.

    Returns:
        Per kept box the indices of its group, the kept one first, then by falling score.
    """
    overlap = box_iou(dets[:, :4], dets[:, :4])
    remaining = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(remaining):
        best, others = remaining[0], remaining[1:]
        suppressed = overlap[best, others] >= iou_threshold
        groups.append([int(best), *others[suppressed].tolist()])
        remaining = others[~suppressed]
    return groups


def _closed(boxes: Tensor, offset: int) -> Tensor:
    """Boxes whose sides are plain differences."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
