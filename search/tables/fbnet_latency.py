"""Latencies of FBNet's operators, layer by layer.

The file is a plain NumPy ``.npz``: ``devices`` ``[devices]``, their names; ``ops`` ``[9]``, those of the operations;
``all_skip_ms`` float ``[devices]``, milliseconds of the network whose layers are all skipped; and ``extra_ms`` float
``[devices, 22, 9]``, what each operation of each layer takes more than skipping it. ``heldout_r2`` ``[devices]`` is
only in tables that were fitted: how well they predict networks which were left out of the fit. The one that ships was
derived from HELP's and HW-NAS-Bench's latencies of whole networks, for pictures of 224 pixels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_modules.networks.fbnet import LAYERS, OPERATION_NAMES
from search.errors import nearest
from search.tables.table import find_table

LEAST_R2 = 0.8
"""A fit that predicts worse than this is none: those that ship are either above 0.89 or below 0.64."""


@dataclass(frozen=True)
class FBNetLatencies:
    """The operators' latencies on one device.

    Attributes:
        all_skip: milliseconds of the network whose layers are all skipped.
        extra: milliseconds that each operation of each layer takes more, float64 ``[22, 9]``, operations in the order
            of the space.
    """

    all_skip: float
    extra: Tensor


def read_fbnet_latencies(table: str | os.PathLike[str], device: str) -> FBNetLatencies:
    """The latencies on one device.

    Args:
        table: its path, looked for as `search.tables.table.find_table` does.
        device: one of the table's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another layout or is damaged, there is no such device (the nearest spelling is named),
            or its fit predicts nothing.
    """
    path = find_table(table)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            devices, operations = ([str(each) for each in arrays[name]] for name in ("devices", "ops"))
            all_skip, extra = (np.asarray(arrays[name], dtype=np.float64) for name in ("all_skip_ms", "extra_ms"))
            quality = arrays["heldout_r2"] if "heldout_r2" in arrays.files else None
    except Exception as error:  # zlib, zipfile and numpy each have their own way to say it
        raise ValueError(f"{path}: no readable devices, ops, all_skip_ms and extra_ms in it ({error})") from error
    _check(path, devices, operations, all_skip, extra)
    if device not in devices:
        raise ValueError(f"{path}: no device '{device}'{nearest(device, devices, 'it has')}")
    place = devices.index(device)
    if quality is not None and not quality[place] >= LEAST_R2:
        raise ValueError(
            f"{path}: the latencies on '{device}' are a fit that explains {100 * float(quality[place]):.0f}% of the "
            f"variance of other networks, at least {100 * LEAST_R2:.0f}% is needed; take another device"
        )
    order = [operations.index(name) for name in OPERATION_NAMES]
    return FBNetLatencies(float(all_skip[place]), torch.from_numpy(extra[place][:, order]))


def _check(path: Path, devices: list[str], operations: list[str], all_skip: np.ndarray, extra: np.ndarray) -> None:
    """Refuse what is not a table of FBNet's operators."""
    shape = (len(devices), sum(LAYERS), len(OPERATION_NAMES))
    if sorted(operations) != sorted(OPERATION_NAMES):
        raise ValueError(f"{path}: ops are {', '.join(operations)}, needed are {', '.join(OPERATION_NAMES)}")
    if all_skip.shape != shape[:1] or extra.shape != shape:
        raise ValueError(
            f"{path}: all_skip_ms is {list(all_skip.shape)} and extra_ms {list(extra.shape)}, {list(shape[:1])} and "
            f"{list(shape)} are needed"
        )
    if not (np.isfinite(all_skip).all() and np.isfinite(extra).all()):
        raise ValueError(f"{path}: not all of its latencies are finite")
