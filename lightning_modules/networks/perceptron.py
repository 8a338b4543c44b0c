"""A multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from torch import Tensor, nn

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh, "selu": nn.SELU}
)
NORMALISATIONS: Mapping[str, Callable[[int], nn.Module]] = MappingProxyType(
    {"none": lambda _: nn.Identity(), "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
)


class Perceptron(nn.Module):
    """Hidden layers, each a linear map, a normalisation, an activation and dropout, and a linear map behind them.

    Args:
        features: numbers a row.
        hidden: width of each hidden layer.
        outputs: numbers that come out.
        activation: one of `ACTIVATIONS`.
        normalisation: one of `NORMALISATIONS`.
        dropout: share of a hidden layer that is left out in training.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int],
        outputs: int,
        activation: str = "relu",
        normalisation: str = "none",
        dropout: float = 0.0,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for width, after in itertools.pairwise((features, *hidden)):
            layers += [nn.Linear(width, after), NORMALISATIONS[normalisation](after), ACTIVATIONS[activation]()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(hidden[-1], outputs)

    def forward(self, rows: Tensor) -> Tensor:
        """From float32 ``[batch, features]``, or images of so many channels, to ``[batch, outputs]``."""
        if rows.ndim > 2:
            rows = rows.flatten(2).mean(2)
        return self.output(self.hidden(rows))
