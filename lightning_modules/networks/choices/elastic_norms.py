"""Normalisation of as many channels as a path says."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.choices.choice_module import ChoiceModule
from lightning_modules.networks.choices.value import Number, Value, at, largest, now, only_values


class ElasticBatchNorm2d(ChoiceModule):
    """Batch normalisation of the first channels.

    A supernet puts a normalisation by the statistics of each batch in the place of ``norm``, for running statistics
    of one width are wrong for another. Outside of one the first running statistics go with the first channels.

    Args:
        channels: of the feature map.
        norm: of the largest number of channels; None for a fresh one.
    """

    def __init__(self, channels: Number, norm: nn.BatchNorm2d | None = None):
        super().__init__()
        self._channels = channels
        self.norm: nn.Module = nn.BatchNorm2d(largest(channels)) if norm is None else norm

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` to the same shape."""
        norm, channels = self.norm, now(self._channels)
        if isinstance(norm, nn.BatchNorm2d) and channels < norm.num_features:
            mean, variance, weight, bias = (
                None if each is None else each[:channels]
                for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            )
            # Without a momentum torch takes the mean of all batches, which no width has seen.
            momentum = 0.1 if norm.momentum is None else norm.momentum
            of_batch = norm.training or mean is None
            return functional.batch_norm(x, mean, variance, weight, bias, of_batch, momentum, norm.eps)
        if not isinstance(norm, (nn.BatchNorm2d, BatchStatistics)) and channels < largest(self._channels):
            raise ValueError(f"{type(norm).__name__} can't normalise {channels} of its channels")
        return norm(x)

    def values(self) -> dict[str, Value]:
        """Channels."""
        return only_values(channels=self._channels)

    def plain(self, choices: Sequence[int]) -> nn.Module:
        """The same kind of normalisation: with running statistics, or, out of a supernet, by those of the batch."""
        norm, channels = self.norm, at(self._channels, choices)
        if isinstance(norm, nn.BatchNorm2d):
            return nn.BatchNorm2d(channels, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        if isinstance(norm, BatchStatistics):
            return BatchStatistics(channels, norm.weight is not None, norm.eps)
        return copy.deepcopy(norm)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """Scale, shift and running statistics of the first channels, where it has them."""
        channels = at(self._channels, choices)
        return {name: tensor[:channels] if tensor.ndim else tensor for name, tensor in self.norm.state_dict().items()}


class ElasticLayerNorm(nn.LayerNorm, ChoiceModule):
    """Layer normalisation of the first features, over the last dimension.

    Args:
        features: of the input.
        eps: added to the variance.
    """

    def __init__(self, features: Number, eps: float = 1e-5):
        super().__init__(largest(features), eps)
        self._features = features

    def forward(self, x: Tensor) -> Tensor:
        """``[..., features]`` to the same shape."""
        features = now(self._features)
        return functional.layer_norm(x, (features,), self.weight[:features], self.bias[:features], self.eps)

    def values(self) -> dict[str, Value]:
        """Features."""
        return only_values(features=self._features)

    def plain(self, choices: Sequence[int]) -> nn.Module:
        """Layer normalisation."""
        return nn.LayerNorm(at(self._features, choices), self.eps)

    def standalone_state(self, choices: Sequence[int]) -> dict[str, Tensor]:
        """Scale and shift of the first features."""
        features = at(self._features, choices)
        return {"weight": self.weight.detach()[:features], "bias": self.bias.detach()[:features]}
