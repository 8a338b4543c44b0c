"""Networks that fuse features of two networks layer by layer (MFAS, Perez-Rua et al., CVPR 2019).

How data walks: each modality's network gives several feature maps, which are averaged over all places. The first fusion
layer reads some of them, each later one some of them and what the layer before it gave; a linear classifier reads the
last one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

NONLINEARITIES = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leaky_relu": nn.LeakyReLU}
"""By name; the paper searches the first two."""

Pair = tuple[Tensor, Tensor]
"""What a network of two modalities takes: a batch of one, and of the other."""


@dataclass(frozen=True)
class Fusion:
    """What one fusion layer reads, and its nonlinearity.

    Attributes:
        first: features of the first modality, from 0; one in MFAS.
        second: of the second modality.
        nonlinearity: a name of `NONLINEARITIES`.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    nonlinearity: str = "relu"


class FeatureColumns(nn.Module):
    """In the place of a network whose features were computed before: cuts them out of a table's row.

    Args:
        sizes: numbers of each feature, in the order of the columns.
    """

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.sizes = tuple(sizes)

    def forward(self, columns: Tensor) -> list[Tensor]:
        """``[batch, sum of the sizes]`` to ``[batch, size]`` each.

        Raises:
            ValueError: there are other columns.
        """
        if columns.shape[1:] != (sum(self.sizes),):
            given = list(columns.shape[1:])
            raise ValueError(f"features are {given}, their sizes {list(self.sizes)} add up to [{sum(self.sizes)}]")
        return list(columns.split(self.sizes, dim=1))


class ConvolutionStages(nn.Module):
    """A plain network whose stages halve the resolution and double the channels, as AV-MNIST's two are.

    A stage is a convolution (5x5 in the first stage, then 3x3), normalisation, ReLU and max-pooling; each gives a
    feature map.

    Args:
        in_channels: of what it reads.
        channels: of the first feature map.
        stages: feature maps: three for AV-MNIST's images, five for its spectrograms.
    """

    def __init__(self, in_channels: int, channels: int, stages: int):
        super().__init__()
        self.sizes = tuple(channels * 2**stage for stage in range(stages))
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 5 if stage == 0 else 3, padding=2 if stage == 0 else 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            )
            for stage, (before, after) in enumerate(zip((in_channels, *self.sizes[:-1]), self.sizes, strict=True))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """``[batch, in_channels, height, width]`` to a feature map a stage."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


class Frozen(nn.Module):
    """A network that is not trained: its weights and the statistics of its normalisation stay as they are."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Channels of each feature map."""
        return cast(Any, self.network).sizes

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Its feature maps."""
        return self.network(inputs)


class UnimodalClassifier(nn.Module):
    """A modality's network with a linear classifier on its last feature.

    Args:
        features: gives feature maps, of ``sizes`` channels.
        classes: that it tells apart.
    """

    def __init__(self, features: nn.Module, classes: int):
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(cast(Any, features).sizes[-1], classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[batch, classes]``."""
        return self.classifier(pooled(self.features(inputs)[-1]))


class FusionNetwork(nn.Module):
    """Fusion layers over the features of two networks, and a classifier.

    A layer's parameters are named after its place and its nonlinearity. So a network that begins with the weights of
    another one, wherever name and shape are the same, shares layers as the paper does.

    Args:
        first: network of the first modality: a tensor to feature maps, of ``sizes`` channels.
        second: of the second modality, likewise.
        layers: what each fusion layer reads, the first one first.
        classes: of the logits.
        width: units of a fusion layer: 16 in the paper's searches, 128 for the best network found.
        dropout: behind each fusion layer: 0.5 in the paper's searches, 0.4 for the best network found.
        norm: whether each fusion layer is normalised over the batch.
        alphas: whether each fusion layer weighs its modalities, by ``sigmoid(alpha)`` and ``1 - sigmoid(alpha)``.

    Raises:
        ValueError: there is no layer, or one reads what is not there.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        layers: Sequence[Fusion],
        classes: int,
        width: int = 16,
        dropout: float = 0.5,
        norm: bool = False,
        alphas: bool = False,
    ):
        super().__init__()
        if not layers or width < 1:
            raise ValueError(f"there are {len(layers)} fusion layers of width {width}, at least 1 of each is needed")
        self.first, self.second, self.plan = first, second, tuple(layers)
        sizes = cast(Any, first).sizes, cast(Any, second).sizes
        self.layers, before = nn.ModuleDict(), 0
        for place, layer in enumerate(self.plan):
            try:
                inputs = sum(sizes[0][k] for k in layer.first) + sum(sizes[1][k] for k in layer.second) + before
                nonlinearity = NONLINEARITIES[layer.nonlinearity]()
            except (IndexError, KeyError) as error:
                raise ValueError(f"fusion layer {place}: there is no {error.args[0]!r} for {layer}") from error
            parts = [nn.Linear(inputs, width), nonlinearity]
            parts += [nn.BatchNorm1d(width)] if norm else []
            self.layers[f"{place}_{layer.nonlinearity}"] = nn.Sequential(*parts, nn.Dropout(dropout))
            before = width
        self.alphas = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in self.plan) if alphas else None
        self.classifier = nn.Linear(width, classes)

    def forward(self, inputs: Tensor | Pair) -> Tensor:
        """Logits ``[batch, classes]`` of a pair ``(first, second)``, or of one tensor that both networks read."""
        one, other = (inputs, inputs) if isinstance(inputs, Tensor) else inputs
        first, second = [pooled(each) for each in self.first(one)], [pooled(each) for each in self.second(other)]
        before: list[Tensor] = []
        for place, (layer, fuse) in enumerate(zip(self.plan, self.layers.values(), strict=True)):
            mine, theirs = [first[k] for k in layer.first], [second[k] for k in layer.second]
            if self.alphas is not None:
                share = self.alphas[place].sigmoid()
                mine, theirs = [share * each for each in mine], [(1 - share) * each for each in theirs]
            before = [fuse(torch.cat([*mine, *theirs, *before], dim=1))]
        return self.classifier(before[0])


class LateFusion(nn.Module):
    """The mean of what two networks hold probable, each trained alone.

    Args:
        one: a pair to logits.
        other: likewise.
        exclusive: whether one class excludes the others: softmax, or else a sigmoid for each class.
    """

    def __init__(self, one: nn.Module, other: nn.Module, exclusive: bool = True):
        super().__init__()
        self.one, self.other, self.exclusive = one, other, exclusive

    def forward(self, inputs: Pair) -> Tensor:
        """Logits of the mean probabilities: ``[batch, classes]``."""
        both = torch.stack([self.one(inputs), self.other(inputs)])
        yes = _log_mean(both.log_softmax(-1) if self.exclusive else nn.functional.logsigmoid(both))
        return yes if self.exclusive else yes - _log_mean(nn.functional.logsigmoid(-both))


def pooled(feature: Tensor) -> Tensor:
    """The mean over all places: ``[batch, channels, ...]`` to ``[batch, channels]``."""
    return feature.flatten(2).mean(2) if feature.ndim > 2 else feature


def _log_mean(logarithms: Tensor) -> Tensor:
    return logarithms.logsumexp(0) - math.log(len(logarithms))
