"""Regression: what is logged, beside scikit-learn's own, and a line that must be found."""

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn

from datamodules.csv_table import CsvDataModule
from lightning_modules.networks.perceptron import Perceptron
from lightning_modules.regression import RegressionModule
from tests.lightning_modules.quiet_trainer import QUIET


@pytest.fixture
def line(tmp_path):
    """A plane with a little noise, far from zero."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 2, (2, 120))
    price = 1000 + 40 * a - 15 * b + rng.normal(0, 5, 120)
    path = tmp_path / "line.csv"
    path.write_text(
        "\n".join(["a,b,price", *(f"{x!r},{y!r},{z!r}" for x, y, z in np.stack([a, b, price], 1).tolist())])
    )
    return CsvDataModule(str(path), "price", "regression", batch_size=16)


def predicted(module, data):
    rows, targets = data.validation_set().__getitems__(list(range(len(data.validation_set()))))
    with torch.no_grad():
        return module.eval()(rows).double().numpy(), targets.double().numpy()


def test_what_is_logged_is_scikit_learns(line):
    torch.manual_seed(0)
    module = RegressionModule(Perceptron(2, (8,), 1))
    trainer = Trainer(**QUIET)
    metrics = trainer.validate(module, datamodule=line, verbose=False)[0]
    found, truth = (each * line.target_scale + line.target_mean for each in predicted(module, line))
    assert metrics["val_r2"] == pytest.approx(r2_score(truth, found), abs=1e-4)
    assert metrics["val_mae"] == pytest.approx(mean_absolute_error(truth, found), rel=1e-4)
    assert metrics["val_rmse"] == pytest.approx(root_mean_squared_error(truth, found), rel=1e-4)
    again = trainer.validate(module, datamodule=line, verbose=False)[0]
    assert again == metrics  # nothing is left of the epoch before


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_a_plane_is_learned(line, loss):
    torch.manual_seed(0)
    module = RegressionModule(Perceptron(2, (16,), 1), loss=loss, learning_rate=0.02)
    trainer = Trainer(max_epochs=20, **QUIET)
    trainer.fit(module, datamodule=line)
    assert float(trainer.callback_metrics["val_r2"]) > 0.95  # the noise leaves 0.99


def test_huber_is_linear_beyond_delta():
    module = RegressionModule(nn.Identity(), loss="huber", huber_delta=0.5)
    errors = torch.tensor([0.25, -3.0])
    assert module.criterion(errors, torch.zeros(2)) == pytest.approx((0.25**2 / 2 + 0.5 * (3 - 0.25)) / 2)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\[4, 3\], \[batch, 1\] is needed"):
        RegressionModule(nn.Linear(2, 3))(torch.zeros(4, 2))
    for arguments in ({"loss": "l1"}, {"huber_delta": 0.0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            RegressionModule(nn.Identity(), **arguments)
