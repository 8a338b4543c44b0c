"""Crops as a frozen encoder sees them: its feature maps, the labels, and what a teacher says, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn
from torch.nn import functional

from datamodules.epochs import EpochDataModule
from lightning_modules.objectives.segmentation import SegmentationObjective
from lightning_modules.openmmlab.module import inference_of


@dataclass(frozen=True)
class EncodedCrops:
    """Crops without their pixels.

    Attributes:
        features: the encoder's maps, float32 ``[crops, channels, height, width]`` each.
        labels: int64 ``[crops, height, width]`` at the size of the first map.
        teacher: logits float32 ``[crops, classes, height, width]`` at the same size; None without a teacher.
    """

    features: tuple[Tensor, ...]
    labels: Tensor
    teacher: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes from epoch to epoch."""

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """A batch as `EncoderDecoderModule` takes it."""
        chosen = torch.as_tensor(indices)
        batch: dict[str, Any] = {"features": [each[chosen] for each in self.features], "labels": self.labels[chosen]}
        return batch if self.teacher is None else batch | {"teacher": self.teacher[chosen]}


def encode_crops(
    data: LightningDataModule,
    encoder: nn.Module,
    crops: int,
    teacher: nn.Module | None = None,
    device: torch.device | str = "cpu",
    least: tuple[int, int] = (1, 1),
) -> EncodedCrops:
    """Look at training batches until there are so many crops; the networks stay as they are.

    Args:
        data: gives batches as `SegmentationObjective` reads them, of crops of one size.
        encoder: images to a tuple of feature maps.
        crops: how many.
        teacher: images to logits, of any size.
        device: where to compute.
        least: height and width that smaller crops are padded to, by the mean colour and by pixels that do not count.

    Raises:
        ValueError: crops differ in size.
    """
    reader, rows = SegmentationObjective(), list[list[Tensor]]()
    data.prepare_data()
    data.setup("fit")
    loader, done, epoch = data.train_dataloader(), 0, 0
    networks = nn.ModuleList([encoder, *([] if teacher is None else [teacher])]).to(device)
    with inference_of(networks):
        while done < crops:
            getattr(getattr(loader, "sampler", None), "set_epoch", lambda _: None)(epoch)
            for batch in loader:
                images, labels = reader.read(batch)
                missing = [max(0, side - there) for side, there in zip(least, images.shape[-2:], strict=True)]
                padding = (0, missing[1], 0, missing[0])
                images = functional.pad(images, padding).to(device)
                labels = functional.pad(labels, padding, value=reader.ignored).to(device)
                features = encoder(images)
                size = features[0].shape[-2:]
                row = [*features, functional.interpolate(labels[:, None].float(), size)[:, 0].long()]
                if teacher is not None:
                    row.append(functional.interpolate(teacher(images), size, mode="bilinear", align_corners=False))
                rows.append([each[: crops - done].cpu() for each in row])
                done += len(rows[-1][0])
                if done >= crops:
                    break
            epoch += 1
    networks.to("cpu")
    if len({tuple(part.shape[1:] for part in row) for row in rows}) > 1:
        raise ValueError("crops differ in size: choose a crop that fits into every scaled picture")
    columns = [torch.cat(column) for column in zip(*rows, strict=True)]
    count = len(features)
    return EncodedCrops(tuple(columns[:count]), columns[count], columns[count + 1] if teacher is not None else None)


class EncodedCropsDataModule(EpochDataModule):
    """Encoded crops to train on, pictures to validate on.

    Args:
        encoded: to train on, in an order of its own in each epoch.
        data: whose validation batches are taken as they are.
        batch_size: crops a step.
        num_workers: processes that make batches; none is needed, for all is there.
        seed: of the order; `reseed` changes it.
    """

    def __init__(
        self,
        encoded: EncodedCrops,
        data: LightningDataModule,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, num_workers, seed)
        self.encoded, self.data = encoded, data

    def prepare_data(self) -> None:
        """As the data that are validated on."""
        self.data.prepare_data()

    def setup(self, stage: str) -> None:
        """As the data that are validated on."""
        self.data.setup(stage)

    def training_set(self, augmented: bool = True) -> Any:
        """The encoded crops, in which nothing is random any more."""
        return self.encoded

    def validation_set(self) -> Any:
        """The pictures to validate on."""
        return self.data.validation_set()  # type: ignore[attr-defined]

    def val_dataloader(self) -> Any:
        """The batches to validate on."""
        return self.data.val_dataloader()
