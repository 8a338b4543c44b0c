"""What an architecture of multimodal fusion may read of a modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn

from datamodules.archives import find_archive
from lightning_modules.networks.fusion import ConvolutionStages, FeatureColumns, Frozen


class Modality(ABC):
    """Where the features of a modality come from.

    Attributes:
        sizes: channels of each feature map that a fusion layer can read.
    """

    sizes: tuple[int, ...]

    @abstractmethod
    def build(self, in_channels: int) -> nn.Module:
        """A network from a tensor to its feature maps, each ``[batch, channels, ...]``; it knows their ``sizes``.

        Args:
            in_channels: of what it reads, where it has channels.
        """


class GivenFeatures(Modality):
    """Features that were computed before, side by side in one row: the data are tables.

    Args:
        sizes: numbers of each feature, in their order.

    Raises:
        ValueError: there is none, or one is empty.
    """

    def __init__(self, sizes: Sequence[int]):
        self.sizes = tuple(sizes)
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes is {list(sizes)}, at least one of at least 1 is needed")

    def build(self, in_channels: int) -> nn.Module:
        """Cuts rows into features."""
        return FeatureColumns(self.sizes)


class ConvolutionFeatures(Modality):
    """A plain network of AV-MNIST's kind, `ConvolutionStages`.

    Args:
        channels: of the first feature map; each later one has twice as many.
        stages: feature maps: 3 for AV-MNIST's images, 5 for its spectrograms.
        weights: a file with the state dict of a trained `ConvolutionStages` (``torch.save``), looked for below the
            current folder, then below ``$CATCHMARK_DATA``; the network is then frozen, as in the paper. Empty for
            random weights: there is nothing to keep, and they are trained with the fusion.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, channels: int = 8, stages: int = 3, weights: str = ""):
        if channels < 1 or stages < 1:
            raise ValueError(f"channels is {channels} and stages {stages}, both must be at least 1")
        self.channels, self.stages, self.weights = channels, stages, weights
        self.sizes = tuple(channels * 2**stage for stage in range(stages))

    def build(self, in_channels: int) -> nn.Module:
        """The network, frozen where there are weights for it.

        Raises:
            FileNotFoundError: there is no such file of weights.
            ValueError: it holds the weights of another network.
        """
        network = ConvolutionStages(in_channels, self.channels, self.stages)
        if not self.weights:
            return network
        from search.training.tensor_files import load_tensors

        path = find_archive(self.weights, "no weights of a modality", "train its network, and save its state dict")
        weights: dict[str, Any] = load_tensors(path)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"weights: '{path}' does not fit {self.stages} stages from {self.channels} channels"
            ) from error
        return Frozen(network)
