"""Hyper-parameters of PredNet: layers, widths, filters, and how it is trained (Blanchard et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.networks.prednet import STILL_STEPS, Filters, PredNet
from search.evaluation import Architecture
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head
from search.spaces.hyperparameters import Hyperparameters

_TRAINING = ("epochs", "batch size", "training sequences", "validation sequences", "learning rate")


class PredNetSpace(SearchSpace):
    """Which PredNet, and how to train it.

    The choices are those of the paper's public code: 2 to 6 layers (its released file fixes 4), channels 3, n, 2 n,
    4 n, ... (n fixed at 48), filters of 1 to 8 pixels for target, prediction and representation of each layer, 10 to
    390 epochs, batches of 2 to 8, 100 to 1,900 sequences an epoch and as many to validate on, learning rates of 1e-1
    to 1e-5, of which powers of ten are assumed. Filters of layers that are not there are fixed on the first choice.

    How an architecture is trained is `training`'s; `search.tasks.hyperparameters.HyperparameterTask` follows it.

    Args:
        layers: numbers of layers to choose from.
        channels: widths n of the second layer to choose from; every layer above has twice as many as the one below it.
        filters: sides of filters to choose from, in pixels.
        epochs: to choose from.
        batch_sizes: sequences a step, to choose from.
        train_sequences: of an epoch, to choose from.
        val_sequences: to validate on, to choose from.
        learning_rates: of Adam, to choose from.

    Raises:
        ValueError: there is nothing to choose from, something twice, or a number is out of range.
    """

    name = "prednet"
    classifies = False

    def __init__(
        self,
        layers: Sequence[int] = (2, 3, 4, 5, 6),
        channels: Sequence[int] = (48,),
        filters: Sequence[int] = tuple(range(1, 9)),
        epochs: Sequence[int] = tuple(range(10, 400, 10)),
        batch_sizes: Sequence[int] = (2, 4, 6, 8),
        train_sequences: Sequence[int] = tuple(range(100, 2000, 100)),
        val_sequences: Sequence[int] = tuple(range(100, 2000, 100)),
        learning_rates: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
    ):
        self.layers, self.channels, self.filters = (
            _checked(name, values)
            for name, values in (("layers", layers), ("channels", channels), ("filters", filters))
        )
        self._most = max(self.layers)
        self._training = [
            _checked(name, values)
            for name, values in zip(
                _TRAINING, (epochs, batch_sizes, train_sequences, val_sequences, learning_rates), strict=True
            )
        ]
        sides = tuple(map(str, self.filters))
        # The layer that each filter belongs to, from 1, in the order of the decisions.
        self._owners = [*range(2, self._most + 1), *range(1, self._most + 1), *range(1, self._most + 1)]
        kinds = ["target"] * (self._most - 1) + ["prediction"] * self._most + ["representation"] * self._most
        self.decisions = (
            Decision("layers", tuple(map(str, self.layers))),
            Decision("channels", tuple(map(str, self.channels))),
            *(Decision(f"{kind} filter {layer}", sides) for kind, layer in zip(kinds, self._owners, strict=True)),
            *(
                Decision(name, tuple(f"{value:g}" for value in values))
                for name, values in zip(_TRAINING, self._training, strict=True)
            ),
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small networks, trained for a moment."""
        return {
            "layers": [2, 3],
            "channels": [4],
            "filters": [1, 2, 3],
            "epochs": [1, 2],
            "batch_sizes": [2, 4],
            "train_sequences": [4],
            "val_sequences": [2],
            "learning_rates": [1e-2, 1e-3],
        }

    @classmethod
    def toy_build(cls) -> dict[str, Any]:
        """Arguments of `build` for a network of a moment."""
        return {"width": 0.1, "still_steps": 2}

    def example_input(self, head: Head = OWN_HEAD) -> Tensor:
        """Four still images of 32 x 40 pixels, a quarter of KITTI's frames in the paper."""
        return torch.zeros(4, head.in_channels, 32, 40)

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Every filter of a layer that is there, the first one of any other."""
        valid, place = super().valid_choices(prefix), prefix.shape[-1] - 2
        if not 0 <= place < len(self._owners):
            return valid
        layers = torch.tensor(self.layers, device=prefix.device)[prefix[..., 0]]
        first = torch.arange(len(self.filters), device=prefix.device) == 0
        return valid & ((self._owners[place] <= layers).unsqueeze(-1) | first)

    @property
    def most_epochs(self) -> int:
        """The largest number of epochs that an architecture can want."""
        return int(max(self._training[0]))

    def training(self, architecture: Architecture) -> Hyperparameters:
        """How an architecture wants to be trained; its learning rate goes with its network.

        Raises:
            ValueError: not an architecture of this space.
        """
        epochs, batch_size, train_sequences, val_sequences, _ = self._training_of(self.check(architecture))
        settings = {"batch_size": batch_size, "train_sequences": train_sequences, "val_sequences": val_sequences}
        return Hyperparameters(int(epochs), {name: int(value) for name, value in settings.items()})

    def _training_of(self, architecture: Architecture) -> list[float]:
        """The values of the decisions about the training, in their order."""
        chosen = architecture[-len(_TRAINING) :]
        return [float(values[choice]) for values, choice in zip(self._training, chosen, strict=True)]

    def build(
        self, architecture: Architecture, head: Head = OWN_HEAD, width: float = 1.0, still_steps: int = STILL_STEPS
    ) -> PredNet:
        """The network of that architecture, initialised from torch's random state; it knows its ``learning_rate``.

        Args:
            architecture: of this space.
            head: whose ``in_channels`` frames have; its classes say nothing here.
            width: channels of every layer but the lowest are multiplied by this and rounded.
            still_steps: so often a still image is shown.

        Raises:
            ValueError: not an architecture of this space.
        """
        architecture = self.check(architecture)
        count, base = int(self.layers[architecture[0]]), self.channels[architecture[1]] * width
        sides = [int(self.filters[choice]) for choice in architecture[2 : 2 + len(self._owners)]]
        there = [[], [], []]  # type: ignore[var-annotated]
        for place, (owner, side) in enumerate(zip(self._owners, sides, strict=True)):
            if owner <= count:
                there[(place >= self._most - 1) + (place >= 2 * self._most - 1)].append(side)
        channels = (head.in_channels, *(max(1, round(base * 2**level)) for level in range(count - 1)))
        learning_rate = self._training_of(architecture)[-1]
        return PredNet(channels, Filters(*map(tuple, there)), still_steps, learning_rate)


def _checked(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    given = tuple(values)
    if not given or len(set(given)) < len(given) or min(given) <= 0:
        raise ValueError(f"prednet: {name} is {list(given)}, allowed: different numbers above 0, at least one")
    return given
