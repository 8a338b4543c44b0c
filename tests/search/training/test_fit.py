"""The one fit: stages, stops, and how it ends when the process is told to."""

import itertools

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import nn

from datamodules.digits import DigitsDataModule
from lightning_modules.classification import ClassificationModule
from search.evaluation import Proposal
from search.recipes.recipe import load_recipe
from search.recipes.trust import Trust, Untrusted
from search.recipes.yaml_text import dump_yaml
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD
from search.tasks.trained import TrainedTask
from search.training.fit import fit
from search.training.isolation import isolated
from search.training.plan import FitPlan, StageChange, StopRule, TrainingStage, shortened
from search.training.tensor_files import load_tensors

CPU = {"accelerator": "cpu", "limit_train_batches": 3}


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.2), nn.Linear(8, 10))


def train(stages, history=None, **plan):
    plan = FitPlan(stages, 3, CPU, {"check_val_every_n_epoch": 1}, threads=1, **plan)
    return fit(lambda: ClassificationModule(network()), DigitsDataModule(batch_size=100), plan, history)


class Freeze(StageChange):
    """Leave a layer as it is from here on."""

    def __init__(self, layer: int = 1):
        self.layer = layer

    def __call__(self, module):
        module.network[self.layer].requires_grad_(False)


class Weights(Callback):
    """The first layer's weights behind every epoch."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, module):
        self.seen.append(module.network[1].weight.detach().clone())


class Killed(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 3:
            raise KeyboardInterrupt


def test_a_stage_changes_what_it_says_from_its_first_epoch_on():
    weights = Weights()
    train([TrainingStage(2), TrainingStage(2, Freeze())], callbacks=[weights])
    moved = [not torch.equal(one, other) for one, other in itertools.pairwise(weights.seen)]
    assert moved == [True, False, False]


def test_stages_that_are_resumed_end_with_the_same_weights(tmp_path):
    stages = [TrainingStage(2), TrainingStage(3, Freeze())]
    whole = train(stages, keep=tmp_path / "whole.ckpt")
    with pytest.raises(KeyboardInterrupt):
        train(stages, keep=tmp_path / "last.ckpt", callbacks=[Killed()])
    history = []
    told = []
    resumed = train(
        stages,
        history,
        keep=tmp_path / "last.ckpt",
        resume=tmp_path / "last.ckpt",
        told=lambda logged, new: told.append((logged["epoch"], new)),
    )
    assert told == [(1, False), (2, False), (3, False), (4, True), (5, True)]
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4, 5]
    assert resumed.metrics == whole.metrics
    ours, theirs = resumed.module.state_dict(), whole.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_first_epochs_of_stages():
    stages = [TrainingStage(2), TrainingStage(3, Freeze())]
    assert [stage.epochs for stage in shortened(stages, 4)] == [2, 2]
    assert [stage.epochs for stage in shortened(stages, 1)] == [1]
    assert shortened(stages, 9) == shortened(stages, None) == stages
    with pytest.raises(ValueError, match="epochs is 0"):
        TrainingStage(0)


@pytest.mark.parametrize(("stage", "epochs"), [(0, 1), (1, 3)])
def test_a_low_score_ends_a_training_from_a_stage_on(stage, epochs):
    stages = [TrainingStage(2), TrainingStage(3)]
    history = []
    stopped = train(stages, history, stop=StopRule(score="val_accuracy", below=101.0, stage=stage))
    assert stopped.epochs == len(history) == epochs
    assert stopped.metrics["val_accuracy"] == history[-1]["val_accuracy"]
    assert train(stages, stop=StopRule(score="val_accuracy", below=0.0)).epochs == 5


class OneSpace(SearchSpace):
    name = "one"
    decisions = (Decision("nothing", ("at all", "whatever")),)

    def build(self, architecture, head=OWN_HEAD):
        return network()


def test_a_child_is_trained_for_fewer_epochs_or_stopped_below_a_score():
    task = TrainedTask(
        OneSpace(),
        DigitsDataModule(),
        trainer=CPU,
        threads=1,
        stages=[TrainingStage(1), TrainingStage(2)],
        stop_stage=1,
    )
    whole, first = task.evaluate_one(Proposal((0,), 5)), task.train((0,), 5, epochs=2)
    assert "epochs" not in whole.metrics and len(whole.history) == task.epochs == 3
    assert first.metrics["epochs"] == 2.0
    # A schedule of learning rates is that of as many epochs as there are.
    short = TrainedTask(OneSpace(), DigitsDataModule(), epochs=2, trainer=CPU, threads=1)
    short = short.evaluate_one(Proposal((0,), 5))
    assert first.score == short.score and first.history[-1] == short.history[-1]
    stopped = task.train((0,), 5, stop_below=whole.score + 100)
    assert stopped.status == "ok" and stopped.metrics["epochs"] == 2.0
    assert stopped.history == whole.history[:2] and stopped.score == whole.history[1]["val_accuracy"]
    assert task.train((0,), 5, stop_below=0.0).score == whole.score
    with pytest.raises(ValueError, match="stop_stage is 2, the stages are numbered from 0 to 1"):
        TrainedTask(OneSpace(), DigitsDataModule(), stages=[TrainingStage(1), TrainingStage(2)], stop_stage=2)


class Widths(SearchSpace):
    name = "widths"
    decisions = (Decision("width", ("4", "8")),)

    def build(self, architecture, head=OWN_HEAD):
        width = int(self.decisions[0].choices[architecture[0]])
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, width), nn.Linear(width, head.classes))


def test_a_child_begins_with_the_weights_of_its_parent_as_far_as_they_fit(tmp_path):
    task = TrainedTask(Widths(), DigitsDataModule(), epochs=2, trainer=CPU, threads=1)
    weights = tmp_path / "parent.pt"
    parent = task.train((0,), 5, leave=weights)
    left = load_tensors(weights)
    assert left.pop("catchmark.epochs") == 2
    assert parent.status == "ok" and set(left) == set(task.start((0,), 5).state_dict())
    with isolated():
        fresh, child = task.start((1,), 6), task.start((1,), 6, weights)
    for name, value in child.state_dict().items():
        fits = left[name].shape == value.shape
        assert fits == (name in ("network.1.weight", "network.1.bias", "network.3.bias"))
        assert torch.equal(value, left[name] if fits else fresh.state_dict()[name])
    alone, inherited = task.train((0,), 7), task.train((0,), 7, parent=weights)
    assert inherited.history[0]["train_loss"] < alone.history[0]["train_loss"]
    assert task.train((0,), 7, parent=tmp_path / "absent.pt").reason.startswith("FileNotFoundError")


def test_a_recipe_names_stages_and_a_stranger_must_not(tmp_path):
    change = {"class_path": "tests.search.training.test_fit.Freeze", "init_args": {"layer": 3}}
    arguments = {"data": "DigitsDataModule", "stages": [{"epochs": 1}, {"epochs": 2, "change": change}]}
    recipe = {
        "space": "tests.search.training.test_fit.OneSpace",
        "agents": {"random": "RandomSearch"},
        "targets": {"digits": {"class_path": "TrainedTask", "init_args": arguments}},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_yaml(recipe))
    study, resolved = load_recipe(path)
    task = study.targets["digits"]
    assert task.epochs == 3 and [stage.epochs for stage in task.stages()] == [1, 2]
    assert task.stages()[0].change is None and task.stages()[1].change.layer == 3
    path.write_text(resolved)
    assert load_recipe(path)[1] == resolved
    path.write_text(dump_yaml(recipe | {"space": "NASBench201"}))
    with pytest.raises(Untrusted, match=r"stages\[1\].change.class_path: .*test_fit.Freeze' is not catchmark's own"):
        load_recipe(path, trust=Trust())


class Told(Callback):
    """Ends the process as something else says."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_start(self, *_):
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (SIGTERMException(), KeyboardInterrupt), (SystemExit(3), SystemExit)],
)
def test_to_be_told_to_end_is_an_interruption_and_to_exit_is_not(error, kind):
    with pytest.raises(kind):
        train([TrainingStage(1)], callbacks=[Told(error)])
