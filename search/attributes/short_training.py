"""A short training: what a network has learned after some steps, the proxy that does not cost nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_modules.learning_rate_schedule import half_cosine
from search.attributes.probe import Probe, labelled
from search.attributes.proxy import Proxy
from search.spaces.base import SearchSpace

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


class ShortTraining(Proxy):
    """Minus the cross-entropy on images that were not trained on, after a short training of the network by itself.

    What reduced training ranks (Zhou et al., "EcoNAS", CVPR 2020) is a ceiling too: a supernet that imitated networks
    of its own size perfectly would rank as these do. SGD with Nesterov's momentum, the learning rate falls to 0 by a
    cosine over the steps; batches are always the same, and normalisation has the statistics of each, as in a supernet.

    All batches are kept in memory: so many images at the data's resolution.

    Args:
        space: as for `Proxy`.
        build: likewise.
        seed: likewise.
        device: likewise.
        data: likewise.
        batches: different ones to train on, at most an epoch's less those held out.
        passes: how often each is trained on.
        held_out: batches to evaluate on, those of the epoch behind the ones to train on.
        learning_rate: at the start.
        momentum: of SGD.
        weight_decay: of SGD.
    """

    name = "short training"

    def __init__(
        self,
        space: SearchSpace,
        build: dict[str, Any] | None = None,
        seed: int = 0,
        device: str | None = None,
        data: LightningDataModule | None = None,
        batches: int = 300,
        passes: int = 1,
        held_out: int = 8,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ):
        super().__init__(space, build, seed, device, data)
        if batches < 1 or passes < 1 or held_out < 1:
            raise ValueError(f"batches is {batches}, passes {passes} and held_out {held_out}, all must be at least 1")
        if learning_rate <= 0 or not 0 < momentum < 1:
            raise ValueError(f"learning_rate is {learning_rate} and momentum {momentum}, must be above 0 and below 1")
        self.batches, self.passes, self.held_out = batches, passes, held_out
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Three steps."""
        return super().toy() | {"batches": 3, "held_out": 1}

    def score(self, probe: Probe) -> float:
        """The value of a network."""
        probe.batch(self.batches + self.held_out - 1)  # the last first, so that the epoch is read once
        network = probe.copy()
        with torch.enable_grad():
            self._train(network, probe)
        with torch.no_grad():
            held_out = range(self.batches, self.batches + self.held_out)
            losses = torch.stack([_loss(network, probe.batch(number)) for number in held_out])
        return -float(losses.mean())

    def _train(self, network: nn.Module, probe: Probe) -> None:
        optimizer = torch.optim.SGD(
            network.parameters(),
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
        )
        steps = self.batches * self.passes
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * half_cosine(step, steps)
            loss = _loss(network, probe.batch(step % self.batches))
            optimizer.zero_grad()
            if loss.requires_grad:
                loss.backward()
                optimizer.step()


def _loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The cross-entropy of a batch."""
    images, labels = batch
    logits = network(images)
    return labelled(cross_entropy(logits, labels) if logits.dim() == 2 else None)
