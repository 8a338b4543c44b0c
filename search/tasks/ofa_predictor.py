"""A task whose evaluations Once-for-all's accuracy predictor answers (Cai et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from search.evaluation import Evaluation, Proposal
from search.spaces.base import SearchSpace
from search.spaces.ofa_mobilenetv3 import OFAMobileNetV3
from search.tables.ofa_mobilenetv3 import FILE, read_ofa_tables
from search.tasks.base import Task


class OFAPredictorTask(Task):
    """Predicted accuracy on ImageNet, in %, of a network that inherits the weights of Once-for-all's largest one.

    Every evaluation's ``note10_ms`` is the latency on a Samsung Note10, looked up layer by layer. `OFALatency` makes a
    reward of it. Predictions rank networks; they lie some points above the published accuracies.

    Args:
        space: `OFAMobileNetV3`.
        table: the file with predictor and latencies (format: `search.tables.ofa_mobilenetv3`).
        objectives: what is wanted of ``accuracy`` and ``note10_ms``, perhaps with hard limits.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or the space is another one.
    """

    instant = True
    score_metric = "accuracy"
    score_name = "ImageNet accuracy, predicted (%)"

    def __init__(self, space: SearchSpace, table: str = FILE, objectives: dict[str, Any] | None = None):
        self.space, self.tables = space, read_ofa_tables(table, space)
        for name in objectives or {}:
            if name not in ("accuracy", "note10_ms"):
                raise ValueError(f"objectives has '{name}', allowed: accuracy, note10_ms")
        self.objectives = objectives or {}

    @classmethod
    def toy(cls) -> dict[str, Any] | None:
        """Its file does not ship."""
        return None

    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """The predictions, all in one pass; seeds change nothing."""
        if not proposals:
            return
        for proposal in proposals:
            self.space.check(proposal.architecture)
        accuracy, latency = self.predict(torch.tensor([proposal.architecture for proposal in proposals]))
        for one, milliseconds in zip(accuracy.tolist(), latency.tolist(), strict=True):
            yield Evaluation(one, {"note10_ms": milliseconds})

    def predict(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """Accuracy in % and milliseconds: int64 ``[n, decisions]`` to float64 ``[n]`` each."""
        assert isinstance(self.space, OFAMobileNetV3)
        whole = self.space.unrolled(archs)
        return 100 * self.tables.accuracy(whole), self.tables.latency(whole)
