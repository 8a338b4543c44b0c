import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from datamodules.digits import DigitsDataModule
from datamodules.stimuli import load_stimuli
from lightning_modules.classification import ClassificationModule
from lightning_modules.representations import represent
from lightning_modules.similarity import human_model_similarity, matching_accuracy
from search.training.brain_similarity import HMSCallback, ObjectMatchingCallback
from search.training.isolation import quiet_lightning

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 1,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
}


def module(**arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10)
        )
    return ClassificationModule(network, **{"learning_rate": 1.0, **arguments})


class Logged(Callback):
    """What was logged, epoch by epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, module):
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fitted(callbacks, epochs=3, watched=None, **arguments):
    watched = watched or module()
    torch.manual_seed(5)
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=epochs, callbacks=callbacks, **{"enable_checkpointing": False, **QUIET, **arguments}
        )
        trainer.fit(watched, datamodule=DigitsDataModule())
    return watched, trainer


def by_hand(trained, network=None):
    """HMS of a trained classifier of digits, in plain steps."""
    stimuli, (mean, std) = load_stimuli("digits"), DigitsDataModule().normalisation
    images = stimuli.batch(8, 8, 1, mean, std)
    trained.eval()
    return human_model_similarity(represent(network or trained.network, images), stimuli.reference)


def test_every_epoch_logs_the_similarity_of_the_network_as_it_is():
    logged = Logged()
    trained, _ = fitted([HMSCallback(stimuli="digits"), ObjectMatchingCallback(stimuli="digits"), logged])
    values = [epoch["val_hms"] for epoch in logged.epochs]
    assert len(set(values)) == 3 and values[-1] == pytest.approx(by_hand(trained), abs=1e-6)
    stimuli, (mean, std) = load_stimuli("digits"), DigitsDataModule().normalisation
    views = [represent(trained.network, each.batch(8, 8, 1, mean, std)) for each in (stimuli, stimuli.other_views())]
    assert logged.epochs[-1]["val_object_matching"] == pytest.approx(matching_accuracy(*views))


def test_training_goes_on_as_if_nobody_looked():
    one, _ = fitted([HMSCallback(stimuli="digits")])
    other, _ = fitted([])
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_where_an_average_is_validated_the_average_looks():
    watched = module(ema_decay=0.999)
    trained, trainer = fitted([HMSCallback(stimuli="digits")], watched=watched)
    value = float(trainer.callback_metrics["val_hms"])
    assert value == pytest.approx(by_hand(trained, trained.average.network), abs=1e-6)
    assert abs(value - by_hand(trained)) > 1e-3


def test_some_validations_and_some_layers_are_enough():
    logged = Logged()
    look = HMSCallback(stimuli="digits", every=2, name="val_seen", layers=["0"], mean=[0.0], std=[1.0])
    fitted([look, logged])
    assert ["val_seen" in epoch for epoch in logged.epochs] == [False, True, True]
    assert logged.epochs[1]["val_seen"] == logged.epochs[2]["val_seen"]  # Lightning remembers the last one


def test_training_may_stop_by_it_and_keep_the_best_by_it(tmp_path):
    """A threshold that the untrained network already passes ends the training after its first epoch."""
    stop = EarlyStopping("val_hms", mode="max", stopping_threshold=-1.0)
    keep = ModelCheckpoint(tmp_path, "{epoch}", monitor="val_hms", mode="max")
    _, trainer = fitted([HMSCallback(stimuli="digits"), stop, keep], epochs=4, enable_checkpointing=True)
    assert trainer.current_epoch == 1 and keep.best_model_score == trainer.callback_metrics["val_hms"]
    logged, keep = Logged(), ModelCheckpoint(tmp_path, "{epoch}", monitor="val_hms", mode="max")
    fitted([HMSCallback(stimuli="digits"), keep, logged], epochs=4, enable_checkpointing=True)
    values = [epoch["val_hms"] for epoch in logged.epochs]
    assert f"epoch={values.index(max(values))}" in keep.best_model_path


def test_several_references_have_their_own_names_in_a_checkpoint(tmp_path):
    callbacks = [HMSCallback(stimuli="digits"), HMSCallback(stimuli="digits", name="val_other")]
    _, trainer = fitted(callbacks, epochs=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    states = torch.load(tmp_path / "a.ckpt", weights_only=False)["callbacks"]
    assert sum("HMSCallback" in key for key in states) == 2
    fresh = HMSCallback(stimuli="digits")
    fresh.load_state_dict(states[fresh.state_key])
    assert fresh._validations == 2


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"size is \[3\]"):
        HMSCallback(stimuli="digits", size=[3])
    with pytest.raises(ValueError, match="every is 0"):
        ObjectMatchingCallback(stimuli="digits", every=0)
    with pytest.raises(FileNotFoundError, match=r"no stimuli 'nowhere.npz'"):
        HMSCallback(stimuli="nowhere.npz")
