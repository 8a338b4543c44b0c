"""What mmdet's and mmseg's own functions ask of a model: how it reads a picture, and what its classes are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from search.deploy.drawing import colour_of
from search.deploy.preprocessing import preprocessing_in

_PACKS = {"mmdet": "mmdet.PackDetInputs", "mmseg": "mmseg.PackSegInputs"}


def describe_for_openmmlab(network: nn.Module, library: str, path: Path, about: Mapping[str, Any]) -> None:
    """Give a model ``cfg`` and ``dataset_meta``, for ``inference_detector``, ``inference_model`` and the visualisers.

    Where nobody knows how pictures are sized, they stay as large as they are.

    Args:
        network: of mmdet or mmseg.
        library: which of them.
        path: of the ``network.json`` of the trained network.
        about: its content.

    Raises:
        CatchmarkError: what is done to a picture is damaged there.
    """
    from mmengine import Config

    known, classes = preprocessing_in(path, about), about.get("classes")
    sized = [] if known is None else [{"type": "mmcv.Resize", "scale": tuple(known.size), "keep_ratio": True}]
    pipeline = [{"type": "mmcv.LoadImageFromFile"}, *sized, {"type": _PACKS[library]}]
    described: Any = network  # two attributes more
    described.cfg = Config({"test_pipeline": pipeline, "test_dataloader": {"dataset": {"pipeline": pipeline}}})
    if classes:
        described.dataset_meta = {
            "classes": tuple(classes),
            "palette": [colour_of(label) for label in range(len(classes))],
        }
