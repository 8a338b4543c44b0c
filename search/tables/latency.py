"""Measured latencies, looked up.

The file is a plain NumPy ``.npz``: ``latency_ms`` float32 ``[15625, devices]``, milliseconds, one row a cell of
NAS-Bench-201 in the order of the benchmark's index, and ``devices`` ``[devices]``, their names. HELP (Lee et al.,
NeurIPS 2021) published such measurements for 27 devices, among them those of HW-NAS-Bench (Li et al., ICLR 2021).
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from search.errors import nearest
from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.tables.table import find_table

MISSING_BELOW = 0.05
"""Values below this share of a device's median are no latencies: a failed measurement was stored as almost zero."""
_SLOW = 0.95
"""The quantile of a device's values that is a latency, however many others are almost zero."""


@dataclass(frozen=True, eq=False)  # a table is itself: what was computed of one can be kept
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
            ValueError: there is no such device (the nearest spelling is named), or less than half was measured on it.
        """
        self.check_device(device)
        latencies = self.milliseconds[:, self.devices.index(device)]
        if 2 * (missing := int(latencies.isnan().sum())) > len(latencies):
            raise ValueError(
                f"{self.path}: {missing:,} of the {len(latencies):,} latencies of '{device}' were not measured (they "
                "are not finite, or not above 0, or almost 0); what is left of them says little, take another device"
            )
        return latencies

    def check_device(self, device: str) -> None:
        """Refuse a device that the table does not have.

        Raises:
            ValueError: there is no such device; the nearest spelling is named.
        """
        if device not in self.devices:
            raise ValueError(f"{self.path}: no device '{device}'{nearest(device, self.devices, 'it has')}")


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
    state = path.stat()
    return _read(path, space, state.st_ino, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, space: NASBench201, *state: int) -> LatencyTable:
    """One reading for all agents and targets of a recipe, as long as the file stays as it is."""
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
    usable = milliseconds.where(milliseconds.isfinite() & (milliseconds > 0), torch.nan)
    # The median of what is not almost zero, for that may be most of it.
    slow = usable.nanquantile(_SLOW, dim=0)
    median = usable.where(usable >= MISSING_BELOW * slow, torch.nan).nanmedian(dim=0).values
    archs = torch.cartesian_prod(*(torch.arange(size) for size in space.sizes))
    return LatencyTable(path, archs, devices, usable.where(usable >= MISSING_BELOW * median, torch.nan))
