"""NASWOT (Mellor et al., ICML 2021): do the rectified units tell images apart?"""

from __future__ import annotations

import torch

from search.attributes.probe import Probe
from search.attributes.proxy import Proxy


class Nwot(Proxy):
    """The log-determinant of the kernel that counts in how many rectified units each two images of a batch agree.

    Every rectification counts, also of values that another one rectifies too. Networks in whose units two images agree
    everywhere have no value.
    """

    name = "NASWOT"

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        return float(torch.linalg.slogdet(probe.agreement).logabsdet)
