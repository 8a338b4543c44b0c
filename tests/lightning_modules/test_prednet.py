import copy

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn

from datamodules.frames import FramesDataModule
from lightning_modules.networks.prednet import PredNet
from lightning_modules.prednet import PredNetModule
from search.training.isolation import quiet_lightning
from tests.lightning_modules.quiet_trainer import QUIET


def small(channels=(3, 6), seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PredNet(channels)


def squares(**arguments):
    return FramesDataModule("moving_squares", length=6, **arguments)


def fitted(module, data, epochs):
    with quiet_lightning():
        trainer = Trainer(max_epochs=epochs, **QUIET)
        trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_training_is_the_written_out_recipe():
    """Half the mean absolute difference but for the first frame; Adam, in the second half at a tenth of its rate."""
    module, plain, data = PredNetModule(small(), learning_rate=0.01), small(), squares(batch_size=8, train_step=4)
    logged = fitted(module, data, 2)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    loader = data.train_dataloader()
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = (0.01, 0.001)[epoch]
        loader.sampler.set_epoch(epoch)
        for frames in loader:
            loss = (plain(frames) - frames)[:, 1:].abs().mean() / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for mine, theirs in zip(module.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        frames = torch.cat(list(data.val_dataloader()))
        mse = (module(frames) - frames)[:, 1:].square().mean()
    previous = (frames[:, 1:] - frames[:, :-1]).square().mean()
    assert logged["val_mse"] == pytest.approx(float(mse), rel=1e-4)
    assert logged["val_previous_mse"] == pytest.approx(float(previous), rel=1e-4)
    assert logged["val_skill"] == pytest.approx(100 * float(1 - mse / previous), abs=0.01)


def test_it_learns_to_see_squares_fly():
    """The next frame follows from the last two: better than the frame before, on frames that it never saw."""
    logged = fitted(PredNetModule(small((3, 8)), learning_rate=0.01), squares(batch_size=4), 6)
    assert logged["val_skill"] > 10 and logged["val_mse"] < 0.9 * logged["val_previous_mse"]


def test_the_learning_rate_is_the_network_s_unless_it_is_given():
    decided = PredNet((3, 4), learning_rate=0.25)
    assert PredNetModule(decided).learning_rate == 0.25
    assert PredNetModule(decided, 0.5).learning_rate == 0.5
    assert PredNetModule(small()).learning_rate == 0.001
    for wrong, words in (({"learning_rate": 0.0}, "learning_rate is 0.0"), ({"drop_after": 2.0}, "drop_after is 2.0")):
        with pytest.raises(ValueError, match=words):
            PredNetModule(small(), **wrong)


class Again(nn.Module):
    """Predicts the frame before, a little darker than it learns to."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, frames):
        return self.scale * torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], 1)


def test_any_network_of_frames_can_be_trained():
    network = Again()
    logged = fitted(PredNetModule(copy.deepcopy(network), 0.1, drop_after=1), squares(batch_size=8), 4)
    assert -15 < logged["val_skill"] < 15
    assert fitted(PredNetModule(network, 1e-9), squares(batch_size=8), 1)["val_skill"] < -15
