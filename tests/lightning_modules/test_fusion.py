"""Training of fusion: warm restarts, the best epoch, several labels."""

import math

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import f1_score

from datamodules.pairs import PairsDataModule
from lightning_modules.fusion import FusionModule, MultiLabelFusionModule, place_in_period
from lightning_modules.networks.fusion import FeatureColumns, Fusion, FusionNetwork

from .quiet_trainer import QUIET


def table(path, several):
    """Pairs in which the label takes both modalities: the sum of a digit of each, or each of them by itself."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 200), ("val", 60), ("test", 40)):
        a, b = rng.integers(0, 2, (2, count))
        arrays[f"first_{split}"] = np.stack([a, rng.normal(size=count)], 1).astype(np.float32)
        arrays[f"second_{split}"] = np.stack([b, 1 - b, rng.normal(size=count)], 1).astype(np.float32)
        arrays[f"y_{split}"] = np.stack([a, b, a | b], 1) if several else a + 2 * b
    np.savez(path, **arrays)
    return PairsDataModule(str(path), batch_size=20)


def network(classes):
    torch.manual_seed(0)
    return FusionNetwork(FeatureColumns([2]), FeatureColumns([3]), [Fusion((0,), (0,))], classes, dropout=0.1)


def train(module, data, epochs):
    trainer = Trainer(max_epochs=epochs, **QUIET)
    trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_periods_double():
    spelled_out = [k / length for length in (3, 6, 12) for k in range(length)]
    assert [place_in_period(step, 3) for step in range(21)] == spelled_out


def test_learns_what_takes_both_modalities_and_says_how_good_its_best_epoch_was(tmp_path):
    class Noted(FusionModule):
        rates, scores = [], []

        def training_step(self, batch, batch_index):
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            return super().training_step(batch, batch_index)

        def validated(self):
            self.scores.append(float(super().validated()))
            return super().validated()

    data, module = table(tmp_path / "pairs.npz", several=False), Noted(network(4), learning_rate=0.05, test=True)
    metrics = train(module, data, 7)
    spelled_out = [
        1e-6 + (0.05 - 1e-6) * (1 + math.cos(math.pi * k / length)) / 2
        for length in (10, 20, 40)
        for k in range(length)
    ]
    assert module.rates == pytest.approx(spelled_out)
    assert metrics["val_best_accuracy"] == max(module.scores) > 95 and metrics["test_accuracy"] > 90
    assert metrics["val_accuracy"] == module.scores[-1]


def test_several_labels_are_scored_by_weighted_f1(tmp_path):
    data, module = table(tmp_path / "pairs.npz", several=True), MultiLabelFusionModule(network(3), 0.05, test=True)
    metrics = train(module, data, 7)
    module.eval()
    for split, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        ((pair, labels),) = batches
        found = (module(pair).sigmoid() > 0.5).int().numpy()
        wanted = 100 * f1_score(labels.int().numpy(), found, average="weighted")
        assert metrics[f"{split}_f1"] == pytest.approx(wanted, abs=1e-3) and wanted > 80
    assert metrics["val_best_f1"] >= metrics["val_f1"]


@pytest.mark.parametrize("wrong", [{"lowest": 0.0}, {"lowest": 1.0}, {"restart": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="the rate falls"):
        FusionModule(network(4), **wrong)
