"""Training one network to predict the next word: DARTS' recipe for recurrent cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Optional

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from lightning_modules.averaging import WeightAverage
from lightning_modules.classification import MeanOverImages
from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.networks.language_model import LanguageModel

_MOST = 1e6
"""The largest perplexity that is told: above it there is nothing to tell, and its exponential overflows."""


class LanguageModule(LightningModule):
    """Next-word prediction with SGD, states carried from batch to batch.

    A batch goes on where the last one ended (`TextDataModule`), and so do the states of the network, without a
    gradient to the batch before; an epoch begins with zeros, as the validation does. Clip gradients by the Trainer's
    ``gradient_clip_val`` (DARTS: 0.25).

    The four hooks of every task class: `configure_models`, `configure_losses`, `configure_metrics` and Lightning's
    `configure_optimizers`.

    Logged at the end of an epoch: ``train_loss`` and ``val_loss`` in nats a word, ``val_perplexity`` and, for searches
    that maximise, ``val_negative_perplexity``.

    Args:
        network: a language model.
        learning_rate: constant, or where a cosine to zero starts (DARTS' public code: 20, constant, in units of a mean
            over all words of a batch).
        schedule: ``constant`` or ``cosine``, epoch by epoch.
        weight_decay: on all weights (DARTS' public code: 8e-7, its search 5e-7).
        activation_penalty: on the mean square of the states that the classifier reads (DARTS' public code: 0).
        difference_penalty: on that of the difference between one state and the next (DARTS' public code: 1e-3).
        ema_decay: of an exponential moving average of the weights, which is then what is validated; 0 for none. DARTS
            takes the plain mean of all steps since the validation got no better for five epochs.
        optimizer: of the weights, in place of SGD.

    Raises:
        ValueError: a number is out of range, or the network is no language model.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 20.0,
        schedule: Literal["constant", "cosine"] = "constant",
        weight_decay: float = 8e-7,
        activation_penalty: float = 0.0,
        difference_penalty: float = 1e-3,
        ema_decay: float = 0.0,
        optimizer: Optional[Callable[[Iterable[nn.Parameter]], Optimizer]] = None,  # noqa: UP045 - Python 3.10
    ):
        super().__init__()
        if not isinstance(network, LanguageModel):
            raise ValueError(f"LanguageModule trains language models, a {type(network).__name__} is none")
        numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        numbers |= {"activation_penalty": activation_penalty, "difference_penalty": difference_penalty}
        for name, value in numbers.items():
            if value < 0:
                raise ValueError(f"{name} is {value}, 0 or more is needed")
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay is {ema_decay}, allowed: 0 (no average) up to, not including, 1")
        if schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule is '{schedule}', allowed: constant, cosine")
        self.learning_rate, self.schedule, self.weight_decay = learning_rate, schedule, weight_decay
        self.activation_penalty, self.difference_penalty = activation_penalty, difference_penalty
        self.ema_decay, self.optimizer = ema_decay, optimizer
        self._state: Tensor | None = None
        self._val_state: Tensor | None = None
        self.configure_models(network)
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self, network: LanguageModel) -> None:
        """Put the network in place, and the average of its weights where one is kept."""
        self.network = network
        self.average = WeightAverage(network, self.ema_decay) if self.ema_decay else None

    def configure_losses(self) -> None:
        """Nothing to set: the loss is the cross-entropy of the next word."""

    def configure_metrics(self) -> None:
        """Set the means over an epoch."""
        self.train_loss, self.val_loss = MeanOverImages(), MeanOverImages()

    def configure_optimizers(self) -> Any:
        """SGD without momentum, and the learning rate over epochs."""
        parameters = [each for each in self.parameters() if each.requires_grad]  # the average's do not
        optimizer = (
            torch.optim.SGD(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
            if self.optimizer is None
            else self.optimizer(parameters)
        )
        schedule = LearningRateSchedule(self.schedule)
        factor = schedule.factor(self.learning_rate, self.trainer.max_epochs or 1, self.trainer.max_epochs)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "epoch"}}

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, and let the average follow."""
        step = self.trainer.global_step
        super().optimizer_step(*arguments, **named)
        if self.average is not None:
            self.average.update(self.network, step)

    def forward(self, words: Tensor) -> Tensor:
        """Logits of the next words."""
        return self.network(words)

    def on_train_epoch_start(self) -> None:
        """Begin at the text's beginning, with a state of zeros."""
        self._state = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """The loss of one batch, with the penalties on its states."""
        words, following = batch
        reading = self.network.read(words, self._state)
        self._state = reading.states[:, -1].detach()
        loss = _cross_entropy(reading.logits, following)
        self.train_loss.update(loss.detach() * following.numel(), following.numel())
        if self.activation_penalty:
            loss = loss + self.activation_penalty * reading.dropped.square().mean()
        if self.difference_penalty:
            loss = loss + self.difference_penalty * (reading.states[:, 1:] - reading.states[:, :-1]).square().mean()
        return loss

    def on_train_epoch_end(self) -> None:
        """Log once an epoch what the steps summed up."""
        self.log("train_loss", self.train_loss)

    def on_validation_epoch_start(self) -> None:
        """Begin at the text's beginning, with a state of zeros."""
        self._val_state = None

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """The loss of one batch."""
        words, following = batch
        network: Any = self.network if self.average is None else self.average.network
        reading = network.read(words, self._val_state)
        self._val_state = reading.states[:, -1]
        self.val_loss.update(_cross_entropy(reading.logits, following) * following.numel(), following.numel())

    def on_validation_epoch_end(self) -> None:
        """Log loss and perplexity over all words."""
        perplexity = self.val_loss.compute().exp().clamp(max=_MOST)
        self.log("val_loss", self.val_loss)
        self.log("val_perplexity", perplexity)
        self.log("val_negative_perplexity", -perplexity)


def _cross_entropy(logits: Tensor, following: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), following.flatten())
