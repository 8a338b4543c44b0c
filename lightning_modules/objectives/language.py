"""Telling which word comes next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.objectives.base import ImageObjective, Judgement, Network


class LanguageObjective(ImageObjective):
    """Cross-entropy of the next word to learn by, the perplexity to rank by: lower is better, so its negative.

    A batch is words and the ones that follow them, both int64 ``[batch, time]``; each sequence begins with a state of
    zeros.
    """

    score_name = "minus the perplexity"

    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """Cross-entropy in nats a word of logits ``[batch, time, words]`` and words ``[batch, time]``."""
        return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def score_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """The negative perplexity."""
        return -self.loss_of(outputs, targets).exp()

    def score(self, network: Network, batches: Iterable[Any]) -> Judgement:
        """Of all words together: the perplexity is that of their mean loss, and not a mean of perplexities."""
        total, words = torch.zeros(()), 0
        for inputs, targets in batches:
            loss = self.loss_of(network(inputs), targets)
            total = total.to(loss.device) + loss * targets.numel()
            words += targets.numel()
        mean = total / words
        return Judgement(-mean.exp(), mean)
