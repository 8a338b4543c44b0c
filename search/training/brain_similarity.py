"""Callbacks that look, after each validation, at what a network makes of stimuli that people have looked at."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from datamodules.stimuli import DIGITS, HUMAN_IT, Stimuli, load_stimuli
from lightning_modules.averaging import WeightAverage
from lightning_modules.representations import represent
from lightning_modules.similarity import human_model_similarity, matching_accuracy
from search.errors import RunError
from search.training.isolation import isolated


class StimuliCallback(Callback):
    """Shows stimuli to the network of a module at the end of each validation, and logs what comes of it.

    Pictures get the size, channels and normalisation of the validation data. What is logged under a name that begins
    with ``val_`` can be monitored by Lightning's EarlyStopping and ModelCheckpoint like any other validated metric.
    Training goes on as if nobody had looked: random states are put back, and the network is as validation has it.

    Args:
        stimuli: an ``.npz`` file, or ``digits``, as `datamodules.stimuli.load_stimuli` takes them.
        layers: names of modules of the network whose outputs are compared; None as
            `lightning_modules.representations.represent` chooses.
        size: height and width of the pictures in pixels; None for those of the first validation batch.
        name: under which it is logged; None for the callback's own.
        every: look after every so many validations; others log nothing.
        mean: of each channel, on the scale of 0 to 1; None for what the data module normalises by, or 0.
        std: likewise; None for that, or 1.

    Raises:
        ValueError: an argument is out of range, or the stimuli are damaged.
        FileNotFoundError: there are no such stimuli.
    """

    metric: str

    def __init__(
        self,
        stimuli: str | PathLike[str] = HUMAN_IT,
        layers: list[str] | None = None,
        size: list[int] | None = None,
        name: str | None = None,
        every: int = 1,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ):
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"size is {size}, height and width in pixels are needed")
        if every < 1:
            raise ValueError(f"every is {every}, at least 1 is needed")
        self.stimuli, self.layers, self.size, self.every = str(stimuli), layers or [], size, every
        self.name, self.mean, self.std = name or self.metric, mean, std
        self._shape: tuple[int, int, int] | None = None
        self._validations = 0
        self.load()  # so that stimuli that are not there are noticed before a search has begun

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Stimuli that are always there."""
        return {"stimuli": DIGITS}

    def load(self) -> Stimuli:
        """The stimuli, read once a process."""
        return load_stimuli(self.stimuli)

    @abstractmethod
    def measure(self, network: nn.Module, stimuli: Stimuli, shown: Any) -> float:
        """What is logged.

        Args:
            network: as it is validated.
            stimuli: what is looked at.
            shown: makes float32 ``[n, channels, height, width]`` of stimuli, on the network's device.
        """

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        """Note the form of the images."""
        if self._shape is None:
            images = _images_in(batch)
            if images is None and self.size is None:
                raise RunError(f"{type(self).__name__}: the batches are no images, say 'size: [height, width]'")
            channels, height, width = (3, 0, 0) if images is None else (int(each) for each in images.shape[-3:])
            self._shape = (channels, *(self.size or (height, width)))

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Look and log."""
        if trainer.sanity_checking or self._shape is None:
            return
        self._validations += 1
        if self._validations % self.every:
            return
        average = getattr(module, "average", None)  # where one is kept, it is what is validated
        holder = average if isinstance(average, WeightAverage) else module
        network: nn.Module = getattr(holder, "network", module)
        channels, height, width = self._shape
        mean, std = self._normalisation(trainer)

        def shown(stimuli: Stimuli) -> Tensor:
            return stimuli.batch(height, width, channels, mean, std).to(module.device, _dtype_of(network))

        with isolated():
            value = self.measure(network, self.load(), shown)
        # Every rank has the same weights and looks at all stimuli; they must agree to the last bit on when to stop.
        module.log(self.name, torch.tensor(value, dtype=torch.float32, device=module.device), sync_dist=True)

    @property
    def state_key(self) -> str:
        """Tells several of one class apart in a checkpoint."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind them."""
        self._validations = state_dict["validations"]

    def _normalisation(self, trainer: Trainer) -> tuple[Sequence[float], Sequence[float]]:
        mean, std = getattr(getattr(trainer, "datamodule", None), "normalisation", ((), ()))
        return (mean if self.mean is None else self.mean), (std if self.std is None else self.std)


class HMSCallback(StimuliCallback):
    """Logs the human-model similarity, HMS (Blanchard et al., CVPR 2019), as ``val_hms`` unless it is named otherwise.

    It is in [-1, 1]; with human IT, other people reach about 0.4 (`docs/methods/hms.md`).

    Args:
        reference: the array of the stimuli's dissimilarities that the network's are compared with.
        **others: as `StimuliCallback`.
    """

    metric = "val_hms"

    def __init__(self, reference: str = "human_it_average", **others: Any):
        self.reference = reference
        super().__init__(**others)

    def load(self) -> Stimuli:
        """The stimuli, with the reference."""
        return load_stimuli(self.stimuli, self.reference)

    def measure(self, network: nn.Module, stimuli: Stimuli, shown: Any) -> float:
        """HMS."""
        return human_model_similarity(represent(network, shown(stimuli), self.layers), stimuli.reference)


class ObjectMatchingCallback(StimuliCallback):
    """Logs object matching as ``val_object_matching``: how often an object's other view looks most like its first.

    The views are assumed: the object once more, smaller, moved and darker (`datamodules.stimuli.Stimuli.other_views`).
    Likeness is the cosine of activations; of a PredNet, those of its highest layer.
    """

    metric = "val_object_matching"

    def measure(self, network: nn.Module, stimuli: Stimuli, shown: Any) -> float:
        """In %."""
        seen = network
        if not self.layers and callable(own := getattr(network, "highest_representation", None)):
            seen = _Calling(own)
        gallery, probes = (represent(seen, shown(each), self.layers) for each in (stimuli, stimuli.other_views()))
        return matching_accuracy(gallery, probes)


class _Calling(nn.Module):
    """A function of images as a network."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def _images_in(batch: Any) -> Tensor | None:
    """The first tensor of a batch that can be images or frames."""
    if isinstance(batch, Tensor):
        return batch if batch.ndim >= 4 else None
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return next((found for each in parts if (found := _images_in(each)) is not None), None)


def _dtype_of(network: nn.Module) -> torch.dtype:
    """Of its weights: with ``precision: bf16-true`` these are no float32."""
    return next((each.dtype for each in network.parameters() if each.is_floating_point()), torch.float32)
