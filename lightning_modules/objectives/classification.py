"""Telling what an image shows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_modules.objectives.base import ImageObjective


class ClassificationObjective(ImageObjective):
    """Cross-entropy to learn by, accuracy in % to rank by."""

    score_name = "accuracy (%)"

    def loss_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """Cross-entropy of logits ``[batch, classes]`` and labels int64 ``[batch]``."""
        return nn.functional.cross_entropy(outputs, targets)

    def score_of(self, outputs: Tensor, targets: Any) -> Tensor:
        """Top-1 accuracy in %."""
        return 100.0 * (outputs.argmax(1) == targets).float().mean()
