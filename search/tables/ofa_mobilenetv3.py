"""Once-for-all's accuracy predictor and its latencies on a phone, which a user brings as one file.

The file is a plain NumPy ``.npz``. Predictor: ``w0`` to ``w3`` and ``b0`` to ``b3``, float, layers of 128 inputs and
400, 400, 400 and 1 units with ReLU between them. Latencies on a Samsung Note10: ``note10_block_ms`` float
``[5 resolutions, 20 layers, 3 kernels, 3 expansions]`` and ``note10_fixed_ms`` ``[5]``, milliseconds. Both were
published with Once-for-all's tutorial (Cai et al., ICLR 2020; github.com/mit-han-lab/once-for-all) without a licence
beside them, so they do not ship.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.archives import find_archive
from search.spaces.ofa_mobilenetv3 import _FIRST, DEPTHS, LAYERS, OFAMobileNetV3

FILE = "ofa_mobilenetv3.npz"
_UNITS = (128, 400, 400, 400, 1)
_CHOICES = 3
"""Kernels, and expansions."""
_CURE = "set CATCHMARK_DATA to the folder that has it; docs/methods/mnasnet.md says what is in it"


@dataclass(frozen=True)
class OFATables:
    """What is known of every network of the space.

    Attributes:
        path: of the file.
        layers: weights and biases of the predictor, float64.
        block_ms: float64 ``[5, 20, 3, 3]``.
        fixed_ms: float64 ``[5]``.
    """

    path: Path
    layers: tuple[tuple[Tensor, Tensor], ...]
    block_ms: Tensor
    fixed_ms: Tensor

    def accuracy(self, archs: Tensor) -> Tensor:
        """Predicted ImageNet accuracy: int64 ``[n, 46]`` to float64 ``[n]``, in [0, 1].

        The scale is not that of ImageNet's validation images: predictions lie 3.5 to 8 points above what was
        published of 20 networks.
        """
        kernels, expansions, there = _layers(archs)
        code = torch.zeros(len(archs), _UNITS[0], dtype=torch.float64)
        for start, choices in ((0, kernels), (LAYERS * _CHOICES, expansions)):
            places = start + torch.arange(LAYERS) * _CHOICES + choices
            code.scatter_(1, places, there.double())
        code.scatter_(1, 2 * LAYERS * _CHOICES + 3 + archs[:, :1], 1.0)  # 160 is the fourth of eight resolutions
        # Row by row: a product of matrices rounds by the rows that it has.
        return torch.stack([self._predict(row) for row in code]) if len(code) else code[:, 0]

    def _predict(self, code: Tensor) -> Tensor:
        for k, (weight, bias) in enumerate(self.layers):
            code = torch.addmv(bias, weight, code if k == 0 else code.relu())
        return code[0]

    def latency(self, archs: Tensor) -> Tensor:
        """Milliseconds on a Samsung Note10: int64 ``[n, 46]`` to float64 ``[n]``."""
        kernels, expansions, there = _layers(archs)
        blocks = self.block_ms[archs[:, :1], torch.arange(LAYERS), kernels, expansions]
        return self.fixed_ms[archs[:, 0]] + (blocks * there).sum(1)


def _layers(archs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Kernels and expansions of all 20 layers, and whether they are there: each ``[n, 20]``."""
    depths = torch.tensor(DEPTHS)[archs[:, 1:_FIRST]]
    position = torch.arange(LAYERS) % (LAYERS // depths.shape[1])
    there = position < depths.repeat_interleave(LAYERS // depths.shape[1], dim=1)
    return archs[:, _FIRST::2], archs[:, _FIRST + 1 :: 2], there


def read_ofa_tables(table: str | os.PathLike[str], space: object) -> OFATables:
    """The predictor and the latencies.

    Args:
        table: the file's path, looked for below the current folder, then below ``$CATCHMARK_DATA``.
        space: the space that they are needed for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another layout or is damaged, or the space is another one.
    """
    path = find_archive(table, "no predictor", _CURE)
    if not isinstance(space, OFAMobileNetV3):
        raise ValueError(f"{path}: its networks are those of the space OFAMobileNetV3")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [f"{kind}{k}" for k in range(4) for kind in "wb"] + ["note10_block_ms", "note10_fixed_ms"]
            found = {name: torch.from_numpy(arrays[name]).double() for name in names}
    except Exception as error:  # zlib, zipfile and numpy each have their own way to say it
        raise ValueError(f"{path}: no readable predictor and latencies in it ({error})") from error
    shapes = {f"w{k}": (_UNITS[k + 1], _UNITS[k]) for k in range(4)} | {
        f"b{k}": _UNITS[k + 1 : k + 2] for k in range(4)
    }
    shapes |= {"note10_block_ms": (5, LAYERS, _CHOICES, _CHOICES), "note10_fixed_ms": (5,)}
    for name, shape in shapes.items():
        if tuple(found[name].shape) != shape:
            raise ValueError(f"{path}: {name} is {list(found[name].shape)}, {list(shape)} is needed")
    layers = tuple((found[f"w{k}"], found[f"b{k}"]) for k in range(4))
    return OFATables(path, layers, found["note10_block_ms"], found["note10_fixed_ms"])
