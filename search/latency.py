"""Measured latencies, looked up.

The file is a plain NumPy ``.npz``: ``latency_ms`` float32 ``[15625, devices]``, milliseconds, one row a cell of
NAS-Bench-201 in the order of the benchmark's index, and ``devices`` ``[devices]``, their names. HELP (Lee et al.,
NeurIPS 2021) published such measurements for 27 devices, among them those of HW-NAS-Bench (Li et al., ICLR 2021).
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.tables.table import find_table

MISSING_BELOW = 0.05
"""Values below this share of a device's median are no latencies: a failed measurement was stored as almost zero."""


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of every architecture of a space.

    Attributes:
        path: where they were read.
        archs: every architecture, int64 ``[size, decisions]``, in the order of `SearchSpace.enumerate`.
        devices: names.
        milliseconds: float64 ``[size, devices]``, rows in the order of ``archs``, NaN where not measured.
    """

    path: Path
    archs: Tensor
    devices: tuple[str, ...]
    milliseconds: Tensor

    def of(self, device: str) -> Tensor:
        """One device's latencies in milliseconds: float64 ``[size]``, NaN where not measured.

        Raises:
            ValueError: there is no such device; the nearest ones are named.
        """
        if device not in self.devices:
            near = difflib.get_close_matches(device, self.devices, n=3, cutoff=0.0)
            raise ValueError(f"{self.path}: no device '{device}'; the nearest are {', '.join(near) or 'none at all'}")
        return self.milliseconds[:, self.devices.index(device)]


def read_latency(table: str | os.PathLike[str], space: SearchSpace) -> LatencyTable:
    """The latency table of NAS-Bench-201's cells.

    Args:
        table: its path, looked for as `search.tables.table.find_table` does.
        space: the space that the latencies are needed for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another layout or is damaged, or the space is another one.
    """
    path = find_table(table)
    if not isinstance(space, NASBench201):
        raise ValueError(f"{path}: its latencies are of the space '{NASBench201.name}', the task's is '{space.name}'")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latency, devices = arrays["latency_ms"], tuple(str(device) for device in arrays["devices"])
    except Exception as error:  # zlib, zipfile and numpy each have their own way to say it
        raise ValueError(f"{path}: no readable latency_ms and devices in it ({error})") from error
    shape = (len(space.indices_by_code), len(devices))
    if latency.shape != shape or latency.dtype.kind != "f":
        raise ValueError(
            f"{path}: latency_ms is {latency.dtype} {list(latency.shape)}, float32 {list(shape)} is needed"
        )
    milliseconds = torch.from_numpy(latency).double()[space.indices_by_code]
    median = milliseconds.nanmedian(dim=0).values
    archs = torch.cartesian_prod(*(torch.arange(size) for size in space.sizes))
    return LatencyTable(
        path, archs, devices, milliseconds.masked_fill(~(milliseconds >= MISSING_BELOW * median), torch.nan)
    )
