"""NASWOT (Mellor et al., ICML 2021): do the rectified units tell images apart?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy
from search.spaces.base import SearchSpace

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


class Nwot(Proxy):
    """The log-determinant of the kernel that counts in how many rectified units each two images of a batch agree.

    Every rectification counts, also of values that another one rectifies too. Networks in whose units two images agree
    everywhere have no value.

    Args:
        space: as for `Proxy`.
        build: likewise.
        seed: likewise.
        device: likewise.
        data: likewise.
        unused: also count units of a cell's edges that do not reach its output, as NAS-Bench-Suite-Zero does; this
            takes a pass forward of its own.
    """

    name = "NASWOT"

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str | None = None,
        data: LightningDataModule | None = None,
        unused: bool = False,
    ):
        super().__init__(space, build, seed, device, data)
        self.unused, self.merges = unused, not unused

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        agreement = probe.agreement_of_all if self.unused else probe.agreement
        return float(torch.linalg.slogdet(agreement).logabsdet)
