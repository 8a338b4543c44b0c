"""Training a network that labels every pixel: what is logged, what is learned, and what drop path is told."""

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.networks.drop_path import DropPath
from lightning_modules.objectives.segmentation import SegmentationObjective
from lightning_modules.pixel_classification import PixelClassificationModule
from tests.lightning_modules.quiet_trainer import QUIET


class Colours(LightningDataModule):
    """Each pixel's class is its brightest channel; some are unlabelled."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(12, 3, 8, 10, generator=generator)
        labels = images.argmax(1)
        labels[:, 0] = 255
        self.train, self.val = TensorDataset(images[:8], labels[:8]), TensorDataset(images[8:], labels[8:])

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=4)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=3)


def fitted(network, epochs=1, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, data = PixelClassificationModule(network, **settings), Colours()
        trainer = Trainer(**{**QUIET, "max_epochs": epochs})
        trainer.fit(module, datamodule=data)
    return module, data, {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_it_learns_and_logs_what_the_objective_scores():
    module, data, logged = fitted(nn.Conv2d(3, 3, 1), epochs=30, learning_rate=0.5)
    assert logged["val_miou"] > 90 and logged["val_pixel_accuracy"] > 95
    objective, whole = SegmentationObjective(), tuple(data.val.tensors)
    with torch.no_grad():
        judged = objective.score(module.network.eval(), [whole])
        right = (module.network(whole[0]).argmax(1) == whole[1])[whole[1] != 255].double().mean()
    assert logged["val_miou"] == pytest.approx(float(judged.score), rel=1e-5)
    assert logged["val_loss"] == pytest.approx(float(judged.loss), rel=1e-5)
    assert logged["val_pixel_accuracy"] == pytest.approx(100 * float(right), rel=1e-5)


def test_the_learning_rate_falls_by_the_power_of_what_is_left():
    rates = []

    class Watched(PixelClassificationModule):
        def on_train_batch_end(self, *_):
            rates.append(self.optimizers().param_groups[0]["lr"])

    module = Watched(nn.Conv2d(3, 3, 1), learning_rate=0.4)
    Trainer(**{**QUIET, "max_epochs": 2}).fit(module, datamodule=Colours())
    assert rates == pytest.approx([0.4 * (1 - step / 4) ** 0.9 for step in range(1, 5)])


def test_drop_path_grows_to_its_share():
    seen = []

    class Noted(DropPath):
        def forward(self, x):
            if self.training:
                seen.append(self.probability)
            return super().forward(x)

    fitted(nn.Sequential(nn.Conv2d(3, 3, 1), Noted(0.5)), epochs=2)
    assert seen == [0.0, 0.125, 0.25, 0.375]
