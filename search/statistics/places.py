"""Where values stand among others."""

from __future__ import annotations

import torch
from torch import Tensor


def places(values: Tensor, others: Tensor) -> Tensor:
    """How many of ``others`` each value exceeds, an equal one counting half: float64 ``[trials, m]``.

    Args:
        values: ``[trials, m]``.
        others: ``[trials, n]``.
    """
    ordered, values = others.sort(1).values, values.contiguous()
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + up_to).double() / 2
