"""Self-attention whose width and heads a path may decide."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.networks.choices.elastic import ElasticLinear
from lightning_modules.networks.choices.value import Number


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, of the first heads.

    Queries, keys and values of a head have a fixed number of features: what a path decides is how many heads there
    are. So the scale of the products stays the same (AutoFormer, sec. 3.2).

    Args:
        features: of the sequence.
        heads: that look at it.
        head_features: of a head's queries, keys and values.
    """

    def __init__(self, features: Number, heads: Number, head_features: int):
        super().__init__()
        self.heads, self.head_features = heads, head_features
        inner = heads * head_features
        self.query, self.key, self.value = (ElasticLinear(features, inner) for _ in range(3))
        self.out = ElasticLinear(inner, features)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, time, features]`` to the same shape."""
        form = (*x.shape[:2], int(self.heads), self.head_features)
        query, key, value = (part(x).view(form).transpose(1, 2) for part in (self.query, self.key, self.value))
        # Written out: torch's own has no second derivative, which proxies such as GraSP take.
        weights = (query @ key.transpose(-2, -1) * self.head_features**-0.5).softmax(-1)
        return self.out(torch.flatten((weights @ value).transpose(1, 2), 2))
