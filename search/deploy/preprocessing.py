"""What is done to a picture before a trained network sees it: what its data do, and what its own module does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule

from datamodules.preprocessing import Preprocessing, read_preprocessing
from lightning_modules.objectives.segmentation import SegmentationObjective
from search.errors import CatchmarkError


def preprocessing_of(data: Any, module: LightningModule) -> Preprocessing | None:
    """What makes a picture what the network takes; None where the data do not say.

    Args:
        data: the data module.
        module: around the network; where it normalises batches itself, as mmdet's and mmseg's models do, by its
            statistics and into its colour order.
    """
    known = getattr(data, "preprocessing", None)
    if not isinstance(known, Preprocessing) or known.mean is not None:
        return known if isinstance(known, Preprocessing) else None
    for objective in (getattr(module, "objective", None), getattr(module, "pictures", None)):
        if isinstance(objective, SegmentationObjective):
            return known.normalised_by(objective.mean.flatten().tolist(), objective.std.flatten().tolist(), 1.0, "RGB")
    own: Any = getattr(getattr(module, "model", None), "data_preprocessor", None)
    if getattr(own, "mean", None) is None or getattr(own, "std", None) is None:
        return known
    turned = {"BGR": "RGB", "RGB": "BGR"}.get(known.colours, known.colours)
    colours = turned if getattr(own, "_channel_conversion", False) else known.colours
    return known.normalised_by(own.mean.flatten().tolist(), own.std.flatten().tolist(), 1.0, colours)


def preprocessing_in(path: Path, about: Mapping[str, Any]) -> Preprocessing | None:
    """What a ``network.json`` says of it; None where it says nothing.

    Args:
        path: of that file, for messages.
        about: its content.

    Raises:
        CatchmarkError: it is damaged.
    """
    if (described := about.get("preprocessing")) is None:
        return None
    try:
        return read_preprocessing(described)
    except ValueError as error:
        raise CatchmarkError(f"{path} is damaged ({error}); train the network again") from error
