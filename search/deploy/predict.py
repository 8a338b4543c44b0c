"""``catchmark predict``: what a trained network says of picture files, made ready as its validation images were."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn import functional

from datamodules.pictures import read_rgb
from datamodules.preprocessing import Preprocessing
from search.deploy import drawing
from search.deploy.network_folder import ABOUT, load_module, network_of, read_about, trained_folder
from search.deploy.preprocessing import preprocessing_in
from search.deploy.tested_words import named
from search.errors import CatchmarkError
from search.recipes.trust import check_links, trust_of

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN = 5
"""Classes of a picture whose probabilities are told."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """What a network says of a picture.

    Attributes:
        rows: as a table has it, by column: a class and its probability; the boxes; or the classes and their shares.
        drawn: the picture with that on it.
        mask: of a segmentation, the class of every pixel, uint8 ``[height, width]``; else None.
    """

    rows: list[Row]
    drawn: Image
    mask: np.ndarray | None = None


class Predictor(ABC):
    """A trained network that is asked about pictures, one after another.

    Args:
        module: with its weights, in evaluation mode.
        preprocessing: of the pictures.
        classes: the name of each; numbers, if nobody has named them.
    """

    def __init__(self, module: LightningModule, preprocessing: Preprocessing, classes: Sequence[str] | None):
        self.module: Any = module
        self.preprocessing, self._classes = preprocessing, list(classes) if classes else None

    def __call__(self, file: Path) -> Prediction:
        """Ask about a picture.

        Raises:
            ValueError: the file can't be read as a picture; names it.
        """
        picture = read_rgb(file, self.preprocessing.bits)
        with torch.inference_mode():
            return self.ask(file, picture)

    @abstractmethod
    def ask(self, file: Path, picture: Image) -> Prediction:
        """Ask about a picture file, which holds this picture."""

    def names(self, count: int) -> list[str]:
        """Of so many classes."""
        return named(self._classes, count)


class Classifier(Predictor):
    """The most probable classes, and how probable."""

    def ask(self, file: Path, picture: Image) -> Prediction:
        """Class by class, the most probable first."""
        images = self.preprocessing.normalised(self.preprocessing.read(file)[None])
        probabilities = network_of(self.module)(images)[0].softmax(0)
        names = self.names(len(probabilities))
        best = probabilities.topk(min(_SHOWN, len(names)))
        rows = [
            {"class": names[label], "probability": round(float(probability), 6)}
            for label, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return Prediction(rows, drawing.with_caption(picture, f"{rows[0]['class']} {rows[0]['probability']:.0%}"))


class Detector(Predictor):
    """Boxes of a detector of mmdet.

    Args:
        threshold: boxes of a lower score are left out.
        **others: as `Predictor`.
    """

    def __init__(self, threshold: float, **others: Any):
        super().__init__(**others)
        self.threshold = threshold

    def ask(self, file: Path, picture: Image) -> Prediction:
        """Boxes in the picture's own pixels, the highest score first."""
        sized = _for_openmmlab(self.preprocessing, picture)
        (found,) = self.module.predict([sized])
        across, down = picture.width / sized.shape[2], picture.height / sized.shape[1]
        names, rows = self.names(self.module.num_classes), []
        for box, score, label in zip(*(found[key].tolist() for key in ("boxes", "scores", "labels")), strict=True):
            if score >= self.threshold:
                edges = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
                sides = dict(zip(("left", "top", "right", "bottom"), (round(e, 2) for e in edges), strict=True))
                rows.append({"class": names[label], "score": round(score, 6), **sides})
        return Prediction(rows, drawing.with_boxes(picture, rows, names))


class Segmentor(Predictor):
    """The class of every pixel."""

    def ask(self, file: Path, picture: Image) -> Prediction:
        """Shares of the classes that there are, the largest first, and the mask in the picture's own pixels."""
        from PIL import Image

        found, count = self.labels(picture)
        mask = np.asarray(Image.fromarray(found.astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST))
        pixels, names = np.bincount(mask.ravel(), minlength=count), self.names(count)
        order = [int(label) for label in np.argsort(-pixels, kind="stable") if pixels[label]]
        rows = [{"class": names[label], "share": round(float(pixels[label] / mask.size), 6)} for label in order]
        return Prediction(rows, drawing.with_mask(picture, mask, count), mask)

    def labels(self, picture: Image) -> tuple[np.ndarray, int]:
        """Of every pixel of the sized picture, ``[height, width]``; and how many classes there are."""
        if hasattr(self.module, "predict"):
            (found,) = self.module.predict([_for_openmmlab(self.preprocessing, picture)])
            return found.cpu().numpy(), self.module.num_classes
        pixels = self.preprocessing.sized(picture)
        logits = self.module(self.preprocessing.normalised(pixels[None]))
        logits = functional.interpolate(logits, size=pixels.shape[:2], mode="bilinear", align_corners=False)
        return logits[0].argmax(0).cpu().numpy(), logits.shape[1]


def load_predictor(
    run: str | Path, target: str | None = None, trust: str | Iterable[str] = (), threshold: float = 0.3
) -> Predictor:
    """What is asked about pictures.

    Args:
        run: the run's folder, or that of the network itself.
        target: which of the run's targets; None for the only one that was trained.
        trust: as for `search.deploy.network_folder.load_network`.
        threshold: of a detector's boxes.

    Raises:
        CatchmarkError: nothing was trained, it does not answer about pictures, or nobody knows how these are made
            ready.
    """
    folder = trained_folder(Path(run), target)
    check_links(folder)
    about = read_about(folder)
    preprocessing = preprocessing_in(folder / ABOUT, about)
    module = load_module(folder, about, trust_of(trust))
    kind = _kind_of(module)
    if kind is None:
        raise CatchmarkError(
            f"{folder}: a {type(module).__name__} is none of those that predict asks about pictures: classification, "
            "detection, segmentation; use search.deploy.load_network"
        )
    if preprocessing is None:
        raise CatchmarkError(
            f"{folder} does not say how its pictures are made ready: its data module has no 'preprocessing', or an "
            "earlier version trained it; use search.deploy.load_network, or train it again"
        )
    others: dict[str, Any] = {"module": module, "preprocessing": preprocessing, "classes": about.get("classes")}
    return Detector(threshold, **others) if kind is Detector else kind(**others)


def _kind_of(module: LightningModule) -> type[Predictor] | None:
    from lightning_modules.classification import ClassificationModule
    from lightning_modules.detection import DetectionModule
    from lightning_modules.encoder_decoder import EncoderDecoderModule
    from lightning_modules.fusion import FusionModule
    from lightning_modules.pixel_classification import PixelClassificationModule
    from lightning_modules.segmentation import SegmentationModule

    if isinstance(module, FusionModule):  # of pairs
        return None
    for kinds, predictor in (
        ((ClassificationModule,), Classifier),
        ((DetectionModule,), Detector),
        ((SegmentationModule, PixelClassificationModule, EncoderDecoderModule), Segmentor),
    ):
        if isinstance(module, kinds):
            return predictor
    return None


def _for_openmmlab(preprocessing: Preprocessing, picture: Image) -> Tensor:
    """A sized picture as the libraries read one: uint8 ``[3, height, width]``, in the order blue, green, red."""
    plain = replace(preprocessing, colours="BGR", mean=None, std=None)
    return torch.from_numpy(np.array(plain.sized(picture).transpose(2, 0, 1)))
