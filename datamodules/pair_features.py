"""Features of two networks, each trained on its modality alone, computed once for all trainings of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.batches import generator_of
from datamodules.pairs import Pairs, PairsDataModule
from datamodules.spoken_written import SpokenWrittenDigits
from lightning_modules.networks.fusion import ConvolutionStages, UnimodalClassifier, pooled

STAGES = (5, 3)
"""Feature maps of the first and the second modality, as on AV-MNIST; also where something stands in for recordings: it
is the recipe's space that says how many there are."""


@dataclass(frozen=True)
class UnimodalTraining:
    """How the network of each modality is trained before the search.

    Attributes:
        channels: of the first feature map of `ConvolutionStages`.
        epochs: of Adam, at most: the epoch of the highest validation accuracy counts.
        batch_size: examples a step.
        learning_rate: of Adam, which falls to zero along a cosine.
        shift: examples are shifted by up to so many places each way.
    """

    channels: int = 8
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-3
    shift: int = 1


class DigitFeaturesDataModule(PairsDataModule):
    """Spoken and written digits as features of two networks, each trained on its modality and then frozen.

    The networks are trained, and their features computed, on first use; afterwards a training on these is one of small
    linear layers. ``sizes`` says how many numbers each feature has.

    Args:
        digits: how the pairs are made.
        unimodal: how the two networks are trained.
        batch_size: pairs a step.
        seed: of the order; that of the networks is the digits'.
    """

    def __init__(
        self,
        digits: SpokenWrittenDigits = SpokenWrittenDigits(),  # noqa: B008 - frozen
        unimodal: UnimodalTraining = UnimodalTraining(),
        batch_size: int = 20,
        seed: int = 0,
    ):
        super().__init__("digits", batch_size, seed=seed)
        self.digits, self.unimodal = digits, unimodal

    @classmethod
    def toy(cls) -> dict[str, object]:
        """Few pairs, networks of a moment."""
        return {"digits": {"counts": [40, 20, 20]}, "unimodal": {"epochs": 1, "batch_size": 512}}

    @cached_property
    def _trained(self) -> tuple[dict[str, Pairs], tuple[UnimodalClassifier, UnimodalClassifier], str]:
        splits, told = self.digits.load()
        both = [_examples(splits, side) for side in range(2)]
        first, second = (
            train_unimodal(data, stage, self.unimodal, generator_of(self.digits.seed, 5 + side))
            for side, (data, stage) in enumerate(zip(both, STAGES, strict=True))
        )
        return splits, (first, second), told

    @property
    def networks(self) -> tuple[UnimodalClassifier, UnimodalClassifier]:
        """The trained network of each modality."""
        return self._trained[1]

    @property
    def modalities(self) -> str:
        """In words what the modalities are."""
        return self._trained[2]

    def load(self) -> Mapping[str, Pairs]:
        """The splits, features in the place of what they were computed from."""
        splits, (first, second), _ = self._trained
        return {
            name: replace(
                split, first=features_of(first.features, split.first), second=features_of(second.features, split.second)
            )
            for name, split in splits.items()
        }


def features_of(network: nn.Module, inputs: np.ndarray) -> np.ndarray:
    """Every feature of a network, averaged over all places, side by side: float32 ``[n, sum of the sizes]``."""
    network.eval()
    rows = []
    with torch.no_grad():
        for part in torch.from_numpy(inputs).split(500):
            rows.append(torch.cat([pooled(each) for each in network(part)], dim=1))
    return torch.cat(rows).numpy()


def train_unimodal(
    data: Mapping[str, tuple[np.ndarray, np.ndarray]],
    stages: int,
    training: UnimodalTraining,
    generator: torch.Generator,
) -> UnimodalClassifier:
    """Train the network of one modality; a pure function of its arguments on one machine.

    Args:
        data: by split the examples ``[n, channels, height, width]`` and their labels.
        stages: feature maps.
        training: how.
        generator: of initial weights, order and shifts.
    """
    inputs, labels = (torch.from_numpy(each) for each in data["train"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        features = ConvolutionStages(inputs.shape[1], training.channels, stages)
        network = UnimodalClassifier(features, 1 + int(labels.max()))
    steps = -(-len(labels) // training.batch_size) * training.epochs
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, kept = -1.0, network.state_dict()
    for _ in range(training.epochs):
        network.train()
        for part in torch.randperm(len(labels), generator=generator).split(training.batch_size):
            if len(part) > 1:
                shifted = _shifted(inputs[part], training.shift, generator)
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(shifted), labels[part]).backward()
                optimizer.step()
            schedule.step()
        if (right := _accuracy(network, *data["val"])) > best:
            best, kept = right, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    return network.eval()


def _examples(splits: Mapping[str, Pairs], side: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What is in the pairs of one modality, each once, with its label."""
    examples = {}
    for name, split in splits.items():
        places, where = np.unique(split.pairs[:, side], return_index=True)
        examples[name] = ((split.first, split.second)[side][places], split.labels[where])
    return examples


def _shifted(inputs: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """All examples of a batch moved by the same random step."""
    steps = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return torch.roll(inputs, steps, dims=(2, 3))


def _accuracy(network: nn.Module, inputs: np.ndarray, labels: np.ndarray) -> float:
    network.eval()
    with torch.no_grad():
        return float((network(torch.from_numpy(inputs)).argmax(1) == torch.from_numpy(labels)).double().mean())
