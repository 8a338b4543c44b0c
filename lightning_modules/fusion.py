"""Training one network that fuses two modalities: the MFAS recipe."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor, nn
from torchmetrics.functional.classification import multilabel_f1_score

from lightning_modules.classification import ClassificationModule
from lightning_modules.learning_rate_schedule import ScheduleError


class FusionModule(ClassificationModule):
    """Classification of pairs with Adam and warm restarts (MFAS's code: ``main_searchable_ntu.py``).

    The learning rate falls along a cosine, iteration by iteration, over periods each of which is twice as long as the
    one before it. A batch is ``((first, second), labels)``.

    Logged as by `ClassificationModule`, and ``val_best_accuracy``, the highest accuracy of an epoch so far, which is
    the score of MFAS's searches.

    Args:
        network: from a pair to logits ``[batch, classes]``.
        learning_rate: where each period begins.
        lowest: where it ends.
        restart: epochs of the first period (1 in searches, 5 for the final training).
        weight_decay: of Adam.
        test: also measure the data's test pairs after every validation, as ``test_accuracy``: no agent sees it.

    Raises:
        ValueError: a number is out of range.
    """

    exclusive = True
    """Whether one class excludes the others."""
    quality = "accuracy"
    """What is validated, by name."""

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 1e-3,
        lowest: float = 1e-6,
        restart: int = 1,
        weight_decay: float = 1e-4,
        test: bool = False,
    ):
        if not 0 < lowest <= learning_rate or restart < 1:
            raise ValueError(
                f"learning_rate is {learning_rate}, lowest {lowest}, restart {restart}: the rate falls to above 0, and "
                "a period has at least 1 epoch"
            )
        super().__init__(network, learning_rate=learning_rate, weight_decay=weight_decay)
        self.lowest, self.restart, self.test = lowest, restart, test
        self._best = -math.inf

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"restart": 1}

    def configure_optimizers(self) -> Any:
        """Adam, and cosines that restart."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # Asked first, it makes the loaders, and only then they can be counted.
        if math.isinf(self.trainer.estimated_stepping_batches) or math.isinf(self.trainer.num_training_batches):
            raise ScheduleError("warm restarts count in epochs, and an epoch of these data has no end")
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        first = self.restart * int(self.trainer.num_training_batches)

        def factor(step: int) -> float:
            floor = self.lowest / self.learning_rate
            return floor + (1 - floor) * (1 + math.cos(math.pi * place_in_period(step, first))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def forward(self, pair: Any) -> Tensor:
        """Logits of pairs."""
        return self.network(pair)

    def score_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The quality of many pairs together, in %."""
        return 100.0 * (logits.argmax(dim=1) == labels).double().mean()

    def validated(self) -> Tensor:
        """The quality of the validation pairs, in %."""
        return self.val_accuracy.compute()

    def on_validation_epoch_end(self) -> None:
        """Log the epoch, the best one so far, and perhaps the test."""
        super().on_validation_epoch_end()
        self._best = max(self._best, float(self.validated()))
        self.log(f"val_best_{self.quality}", self._best)
        if self.test:
            self.log(f"test_{self.quality}", self.score_of(*self._tested()).float())

    @torch.no_grad()
    def _tested(self) -> tuple[Tensor, Tensor]:
        """Logits and labels of all test pairs."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        batches = [move_data_to_device(batch, self.device) for batch in data.test_dataloader()]
        return torch.cat([self(pair) for pair, _ in batches]), torch.cat([labels for _, labels in batches])


class MultiLabelFusionModule(FusionModule):
    """Fusion where a pair may have several labels, as the genres of MM-IMDB.

    The loss is the binary cross-entropy of each label. Logged: ``train_loss``, ``val_loss``, ``val_f1``, the F1 score
    of each label at a probability of one half, averaged by how often it occurs, in %, and ``val_best_f1``;
    ``test_f1`` with ``test``.
    """

    exclusive = False
    quality = "f1"

    def configure_losses(self) -> None:
        """Binary cross-entropy, summed up over labels as their mean."""
        self.criterion = nn.BCEWithLogitsLoss()  # type: ignore[assignment]
        self.val_criterion = nn.BCEWithLogitsLoss()  # type: ignore[assignment]

    def configure_metrics(self) -> None:
        """Besides the losses, all validation logits and labels of an epoch: the score is no mean over pairs."""
        super().configure_metrics()
        self._seen: list[tuple[Tensor, Tensor]] = []

    def on_validation_epoch_start(self) -> None:
        """Forget the epoch before."""
        self._seen.clear()

    def validation_step(self, batch: tuple[Any, Tensor], batch_index: int) -> None:
        """The loss of one batch; its logits are kept."""
        pair, labels = batch
        logits = self(pair)
        self.val_loss.update(self.val_criterion(logits, labels) * len(labels), len(labels))
        self._seen.append((logits, labels))

    def score_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted F1 score, in %."""
        found = multilabel_f1_score(logits.sigmoid(), labels.long(), labels.shape[1], average="weighted")
        return 100.0 * found

    def validated(self) -> Tensor:
        """That of all ranks' validation pairs."""
        logits, labels = (torch.cat(each) for each in zip(*self._seen, strict=True))
        if self.trainer.world_size > 1:
            gathered = [cast(Tensor, self.all_gather(each)) for each in (logits, labels)]
            logits, labels = (each.flatten(0, 1) for each in gathered)
        return self.score_of(logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch, the best one so far, and perhaps the test."""
        self.log("val_loss", self.val_loss)
        self.log("val_f1", found := self.validated().float())
        self._best = max(self._best, float(found))
        self.log("val_best_f1", self._best)
        if self.test:
            self.log("test_f1", self.score_of(*self._tested()).float())


def place_in_period(step: int, first: int) -> float:
    """How far a step is through its period, 0 to below 1, where each period is twice as long as the one before.

    Args:
        step: from 0.
        first: steps of the first period.
    """
    length = first
    while step >= length:
        step -= length
        length *= 2
    return step / length
