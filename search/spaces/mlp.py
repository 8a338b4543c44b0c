"""Multilayer perceptrons: for tables, whose columns have no neighbours that a convolution could look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.networks.perceptron import ACTIVATIONS, NORMALISATIONS, Perceptron
from search.errors import nearest
from search.evaluation import Architecture
from search.spaces.base import Decision, Edge, SearchSpace
from search.spaces.head import OWN_HEAD, Head


class MLP(SearchSpace):
    """How many hidden layers, how wide each, which activation, normalisation and dropout.

    What is decided about a layer that is not there is fixed on the first choice. The space of the defaults has
    28,080 architectures.

    A row of a table is float32 ``[batch, in_channels]``, a number each column; of images each channel's mean over the
    pixels is taken, for which an image of one pixel is a row.

    Args:
        depths: numbers of hidden layers to choose from.
        widths: of a hidden layer, to choose from.
        activations: to choose from; `lightning_modules.networks.perceptron.ACTIVATIONS` has all that there are.
        normalisations: ``none``, ``batch`` and ``layer``, before the activation.
        dropouts: shares of a hidden layer that are left out in training.

    Raises:
        ValueError: an argument is empty, has a value twice, or one out of range.
    """

    name = "mlp"

    def __init__(
        self,
        depths: Sequence[int] = (1, 2, 3, 4),
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        activations: Sequence[str] = ("relu", "silu", "tanh", "selu"),
        normalisations: Sequence[str] = ("none", "batch", "layer"),
        dropouts: Sequence[float] = (0.0, 0.1, 0.3),
    ):
        for key, values in (
            ("depths", depths),
            ("widths", widths),
            ("activations", activations),
            ("normalisations", normalisations),
            ("dropouts", dropouts),
        ):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{self.name}: {key} is {list(values)}, allowed: different ones, at least one")
        for key, names, known in (
            ("activations", activations, ACTIVATIONS),
            ("normalisations", normalisations, NORMALISATIONS),
        ):
            for each in names:
                if each not in known:
                    raise ValueError(f"{self.name}: {key}: there is no '{each}'{nearest(each, known)}")
        if min(depths) < 1 or min(widths) < 1:
            raise ValueError(f"{self.name}: depths are {list(depths)}, widths {list(widths)}, at least 1 is needed")
        if not all(0 <= share < 1 for share in dropouts):
            raise ValueError(f"{self.name}: dropouts are {list(dropouts)}, allowed: 0 up to, not including, 1")
        self.depths, self.widths, self.dropouts = tuple(sorted(depths)), tuple(sorted(widths)), tuple(sorted(dropouts))
        self.activations, self.normalisations = tuple(activations), tuple(normalisations)
        self.decisions = (
            Decision("depth", tuple(map(str, self.depths))),
            Decision("activation", self.activations),
            Decision("normalisation", self.normalisations),
            Decision("dropout", tuple(f"{share:g}" for share in self.dropouts)),
            *(
                Decision(f"width of layer {layer}", tuple(map(str, self.widths)))
                for layer in range(1, self.depths[-1] + 1)
            ),
        )
        self._first_width = len(self.decisions) - self.depths[-1]

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Arguments that make it cheap, as a recipe gives them."""
        return {"depths": [1, 2], "widths": [4, 8], "activations": ["relu", "tanh"]}

    def example_input(self, head: Head = OWN_HEAD) -> Tensor:
        """Four rows, as images of one pixel: float32 ``[4, in_channels, 1, 1]``, of zeros."""
        return torch.zeros(4, head.in_channels, 1, 1)

    def valid_choices(self, prefix: Tensor) -> Tensor:
        """Every width of a layer that is there, the first one of any other."""
        valid, layer = super().valid_choices(prefix), prefix.shape[-1] - self._first_width
        if layer < 0:
            return valid
        there = torch.tensor(self.depths, device=prefix.device)[prefix[..., 0]] > layer
        first = torch.arange(len(self.widths), device=prefix.device) == 0
        return there.unsqueeze(-1) | first.expand_as(valid)

    def hidden(self, architecture: Architecture) -> tuple[int, ...]:
        """The widths of the hidden layers, from the first to the last."""
        architecture = self.check(architecture)
        depth = self.depths[architecture[0]]
        return tuple(self.widths[choice] for choice in architecture[self._first_width :][:depth])

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The hidden layers in their order."""
        _, activation, normalisation, dropout, *_ = (
            decision.choices[choice] for decision, choice in zip(self.decisions, architecture, strict=True)
        )
        after = [activation, *([] if normalisation == "none" else [f"{normalisation} norm"])]
        after += [] if dropout == "0" else [f"dropout {dropout}"]
        widths = self.hidden(architecture)
        names = ["in", *(f"{layer}" for layer in range(1, len(widths) + 1)), "out"]
        labels = [f"linear {width}, {', '.join(after)}" for width in widths]
        return [Edge(a, b, label) for a, b, label in zip(names, names[1:], [*labels, "linear"], strict=False)]

    def build(self, architecture: Architecture, head: Head = OWN_HEAD) -> Perceptron:
        """The network of that architecture, initialised from torch's random state.

        Args:
            architecture: of this space.
            head: numbers a row, and classes: 1 for a regression.

        Raises:
            ValueError: not an architecture of this space.
        """
        widths = self.hidden(architecture)
        return Perceptron(
            head.in_channels,
            widths,
            head.classes_or(10),
            self.activations[architecture[1]],
            self.normalisations[architecture[2]],
            self.dropouts[architecture[3]],
        )
