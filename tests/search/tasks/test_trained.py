import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from pytorch_lightning import Callback, LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from datamodules.arrays import ArrayDataModule
from datamodules.digits import DigitsDataModule
from lightning_modules.classification import ClassificationModule
from search.errors import CatchmarkError, RunError
from search.evaluation import Proposal
from search.executors.inline import evaluate_one
from search.spaces.base import Decision, SearchSpace
from search.spaces.head import OWN_HEAD, Head
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import Task
from search.tasks.trained import TrainedTask
from search.training.fit import epochs_of
from search.training.plan import FitPlan, StopRule, TrainingStage
from search.training.watch import Watch

CPU = {"accelerator": "cpu"}


class Broken(nn.Module):
    """A network that fails in its forward pass in a chosen way."""

    def __init__(self, num_classes: int, fault: Callable[[], None]):
        super().__init__()
        self.linear, self.fault = nn.Linear(64, num_classes), fault

    def forward(self, images):
        self.fault()
        return self.linear(images.flatten(1))


def _raise(error: BaseException) -> None:
    raise error


class Faults(SearchSpace):
    """One decision: how the network behaves."""

    name = "faults"
    decisions = (
        Decision("fault", ("none", "crash", "memory", "cuda", "allocator", "interrupt", "exit", "slow", "build")),
    )

    def build(self, architecture, head=OWN_HEAD):
        fault = self.decisions[0].choices[architecture[0]]
        if fault == "build":
            raise RuntimeError("no such network")
        action = {
            "none": lambda: None,
            "crash": lambda: _raise(IndexError("in\n the network")),
            "memory": lambda: _raise(MemoryError()),
            "cuda": lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
            # a real refusal of the CPU's allocator: 2^60 bytes
            "allocator": lambda: torch.empty(2**58).zero_(),
            "interrupt": lambda: _raise(KeyboardInterrupt()),
            "exit": lambda: _raise(SystemExit(3)),
            "slow": lambda: time.sleep(0.05),
        }[fault]
        return Broken(head.classes, action)


class Dropping(SearchSpace):
    """A network that draws from the global random state while it trains."""

    name = "dropping"
    decisions = (Decision("width", ("8", "16")),)

    def build(self, architecture, head=OWN_HEAD):
        width = int(self.decisions[0].choices[architecture[0]])
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Dropout(0.3), nn.Linear(width, head.classes))


def choice(name):
    return (Faults.decisions[0].choices.index(name),)


def digits(**arguments):
    return DigitsDataModule(**({"batch_size": 200} | arguments))


def test_a_child_learns_and_reports_itself():
    space = NASBench201()
    arch = space.parse("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|")
    build = {"channels": 4, "cells": 1}
    task = TrainedTask(space, digits(batch_size=64), epochs=3, build=build, trainer=CPU)
    start = time.monotonic()
    evaluation = task.evaluate_one(Proposal(arch))
    assert evaluation.status == "ok" and evaluation.score > 50  # of ten classes, so chance is 10
    network = space.build(arch, Head(10, 1), **build)
    assert evaluation.metrics["parameters"] == sum(p.numel() for p in network.parameters())
    assert set(evaluation.metrics) == {"train_loss", "val_loss", "val_accuracy_top5", "parameters"}
    assert 0 < evaluation.cost_seconds <= time.monotonic() - start
    assert task.score_name == "validation accuracy (%)"
    # Validated in the last epoch alone.
    assert [sorted(epoch) for epoch in evaluation.history] == [["train_loss"]] * 2 + [
        ["train_loss", "val_accuracy", "val_accuracy_top5", "val_loss"]
    ]
    first, *_, last = evaluation.history
    assert last["train_loss"] < first["train_loss"] and last["train_loss"] == evaluation.metrics["train_loss"]
    assert last["val_accuracy"] == evaluation.score
    # A cell of no operations has a constant output, the same for every image.
    nothing = task.evaluate_one(Proposal((0,) * 6))
    assert nothing.status == "ok" and nothing.score < 25


def test_same_architecture_and_seed_give_the_same_score_to_the_last_bit():
    space = NASBench201()
    task = TrainedTask(space, digits(), epochs=1, build={"channels": 4, "cells": 1}, trainer=CPU)
    first = task.evaluate_one(Proposal((3, 1, 2, 4, 0, 3), seed=5))
    task.evaluate_one(Proposal((2,) * 6, seed=8))
    torch.rand(17), np.random.rand(3), random.random()  # noqa: NPY002
    again = task.evaluate_one(Proposal((3, 1, 2, 4, 0, 3), seed=5))
    fresh = TrainedTask(space, digits(), epochs=1, build={"channels": 4, "cells": 1}, trainer=CPU)
    assert first.score == again.score == fresh.evaluate_one(Proposal((3, 1, 2, 4, 0, 3), seed=5)).score
    assert first.metrics == again.metrics
    assert first.metrics["val_loss"] != task.evaluate_one(Proposal((3, 1, 2, 4, 0, 3), seed=6)).metrics["val_loss"]


def test_channels_last_changes_the_layout_and_nothing_else():
    space, arch = NASBench201(), (3, 1, 2, 4, 0, 3)
    networks = []

    def wrap(network):
        networks.append(network)
        return ClassificationModule(network)

    step = CPU | {"limit_train_batches": 1}  # every further one would multiply how the two round
    evaluations = [
        TrainedTask(
            space, digits(), wrap, 1, {"channels": 8, "cells": 1}, trainer=step, threads=1, channels_last=channels_last
        ).evaluate_one(Proposal(arch, seed=5))
        for channels_last in (False, True)
    ]
    # Of a 3x3 kernel [out, in, height, width], the input channels lie next to each other.
    strides = [network.body[0].operations[0][1].weight.stride() for network in networks]
    assert strides == [(72, 9, 3, 1), (72, 1, 24, 8)]
    first, second = evaluations
    assert second.metrics["train_loss"] == pytest.approx(first.metrics["train_loss"], rel=1e-5)
    assert second.metrics["val_loss"] == pytest.approx(first.metrics["val_loss"], rel=1e-3)


def test_data_that_are_not_there_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no images '.*absent\.npz'; make it from a folder"):
        TrainedTask(NASBench201(), ArrayDataModule(tmp_path / "absent.npz"))


class GlobalData(LightningDataModule):
    """A data module of someone else: no reseed, order and noise from the global states."""

    num_classes, in_channels = 2, 1

    def train_dataloader(self):
        x = torch.linspace(-1, 1, 60 * 64).reshape(60, 1, 8, 8) + 0.1 * np.random.rand() + 0.1 * random.random()  # noqa: NPY002
        return DataLoader(TensorDataset(x, torch.arange(60) % 2), batch_size=8, shuffle=True)

    val_dataloader = train_dataloader


def test_global_random_draws_are_seeded_too():
    def loss(seed):
        return (
            TrainedTask(Dropping(), GlobalData(), epochs=2, trainer=CPU)
            .evaluate_one(Proposal((1,), seed))
            .metrics["train_loss"]
        )

    assert loss(3) == loss(3) != loss(4)


def test_nothing_is_left_behind():
    logger = logging.getLogger("pytorch_lightning")
    filters = list(warnings.filters)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002

    def state():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(),
            logger.level,
            signal.getsignal(signal.SIGTERM),
            signal.getsignal(signal.SIGINT),
        )

    class Meddling(Callback):
        def on_train_start(self, trainer, module):
            torch.set_num_threads(torch.get_num_threads() + 1)
            torch.set_default_dtype(torch.float64)

    before = state()
    meddling = TrainedTask(
        Dropping(), digits(), epochs=1, trainer=CPU | {"deterministic": True, "callbacks": Meddling()}
    )
    with torch.no_grad():  # a caller's mode must not stop training
        assert meddling.evaluate_one(Proposal((0,))).metrics["train_loss"] > 0
    assert state() == before
    TrainedTask(Faults(), digits(), epochs=1, trainer=CPU).evaluate_one(Proposal(choice("crash")))
    assert state() == before and warnings.filters == filters


def test_a_run_says_nothing(capfd, caplog, recwarn):
    task = TrainedTask(Dropping(), digits(), epochs=1)  # on whatever device is found, which Lightning likes to announce
    assert task.evaluate_one(Proposal((0,))).status == "ok"
    assert capfd.readouterr() == ("", "") and not caplog.records and not recwarn.list


def test_importing_the_tasks_does_not_import_lightning():
    script = "import sys, search.tasks.trained, search.tasks.subtask_pool; print('pytorch_lightning' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "False", "")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("crash", "IndexError: in the network"),
        ("memory", "out of memory: MemoryError"),
        ("cuda", "out of memory: CUDA out of memory. Tried to allocate 2 GiB"),
        ("build", "RuntimeError: no such network"),
    ],
)
def test_a_failing_child_is_a_failed_evaluation(fault, reason):
    task = TrainedTask(Faults(), digits(), epochs=1, trainer=CPU)
    evaluation = task.evaluate_one(Proposal(choice(fault)))
    assert (evaluation.status, evaluation.reason) == ("failed", reason)
    assert np.isnan(evaluation.score) and evaluation.cost_seconds > 0
    assert task.evaluate_one(Proposal(choice("none"))).status == "ok", "the next child is not affected"


def test_a_real_refusal_of_memory_is_recognised():
    evaluation = TrainedTask(Faults(), digits(), epochs=1, trainer=CPU).evaluate_one(Proposal(choice("allocator")))
    assert evaluation.status == "failed" and evaluation.reason.startswith("out of memory: ")


def test_divergence_is_a_failed_evaluation_and_ends_early():
    class Counting(Callback):
        epochs = 0

        def on_train_epoch_end(self, trainer, module):
            Counting.epochs += 1

    task = TrainedTask(
        Faults(),
        digits(),
        module=lambda network: ClassificationModule(network, learning_rate=1e30, weight_decay=0.5),
        epochs=20,
        trainer=CPU | {"callbacks": [Counting()]},
    )
    evaluation = task.evaluate_one(Proposal(choice("none")))
    assert evaluation.status == "failed" and np.isnan(evaluation.score)
    assert evaluation.reason.startswith("diverged: train_loss is ") and "after epoch" in evaluation.reason
    assert Counting.epochs < 20
    # What was logged up to there is kept, less what is no number.
    assert len(evaluation.history) == Counting.epochs and "train_loss" not in evaluation.history[-1]


def test_divergence_in_the_last_epoch_is_seen_too():
    task = TrainedTask(
        Faults(),
        digits(),
        module=lambda network: ClassificationModule(network, learning_rate=1e30, weight_decay=0.5),
        epochs=1,
        trainer=CPU,
    )
    evaluation = task.evaluate_one(Proposal(choice("none")))
    assert evaluation.status == "failed" and evaluation.reason.startswith("diverged: ")


def test_time_limit():
    task = TrainedTask(Faults(), digits(batch_size=50), epochs=50, trainer=CPU, time_limit_seconds=0.5)
    evaluation = task.evaluate_one(Proposal(choice("slow")))
    assert evaluation.status == "failed" and evaluation.reason.startswith("time limit reached in epoch 1, batch ")
    assert evaluation.cost_seconds >= 0.5
    in_time = TrainedTask(Faults(), digits(), epochs=1, trainer=CPU, time_limit_seconds=1000)
    assert in_time.evaluate_one(Proposal(choice("slow"))).status == "ok"


def test_what_stops_a_child_reaches_processes_that_are_spawned():
    watch = pickle.loads(pickle.dumps(Watch(FitPlan([TrainingStage(1)], 0, stop=StopRule(deadline=0.0)))))
    assert watch.history == []
    with pytest.raises(Exception, match="time limit reached in epoch 1, batch 1"):
        watch.on_train_batch_start(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))


def test_ctrl_c_and_exit_are_no_failed_evaluations():
    task = TrainedTask(Faults(), digits(), epochs=1, trainer=CPU)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        task.evaluate_one(Proposal(choice("interrupt")))
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(SystemExit, match="3"):
        task.evaluate_one(Proposal(choice("exit")))


def test_a_proposal_may_ask_for_fewer_epochs():
    task = TrainedTask(Faults(), digits(), epochs=3, trainer=CPU)
    short = evaluate_one(task, Proposal((0,), 4, {"epochs": 1}))
    once = TrainedTask(Faults(), digits(), epochs=1, trainer=CPU)
    assert (short.score, short.metrics, len(short.history)) == (
        (whole := once.evaluate_one(Proposal((0,), 4))).score,
        whole.metrics | {"epochs": 1.0},  # said where it may be fewer than the task's
        1,
    )
    assert len(task.evaluate_one(Proposal((0,), 4)).history) == 3
    for epochs in (0, 1.5):
        with pytest.raises(RunError, match=f"asks for {epochs:g} epochs, a whole number of at least 1 is needed"):
            evaluate_one(task, Proposal((0,), 4, {"epochs": epochs}))
    with pytest.raises(RunError, match="asks for parent, which TrainedTask does not honour"):
        evaluate_one(task, Proposal((0,), parent=(0,)))


def test_a_proposal_may_stop_a_training_and_hand_weights_on(tmp_path):
    task = TrainedTask(Faults(), digits(), epochs=3, trainer=CPU, keep_weights=True)
    stopped = evaluate_one(task, Proposal((0,), 4, stop_below=101.0))
    assert stopped.status == "ok" and stopped.metrics["epochs"] == 1.0 and stopped.artifact is None
    place = str(tmp_path / "weights")
    parent = evaluate_one(task, Proposal((0,), 4, leave=place))
    child = evaluate_one(task, Proposal((0,), 4, {"epochs": 1}, parent=(0,), inherit=place))
    assert parent.artifact == place and Path(place).exists()
    assert child.history[0]["val_loss"] < parent.history[-1]["val_loss"], "it goes on where its parent stopped"


def test_a_training_goes_on_where_the_same_architecture_was_left(tmp_path):
    """As many epochs as are missing, from those weights: what the same epochs give by hand."""
    task = TrainedTask(Faults(), digits(), epochs=3, trainer=CPU, keep_weights=True)
    first, second, last = (str(tmp_path / name) for name in ("first", "second", "last"))
    low = evaluate_one(task, Proposal((0,), 4, {"epochs": 1}, leave=first))
    middle = evaluate_one(task, Proposal((0,), 5, {"epochs": 2}, parent=(0,), inherit=first, leave=second))
    full = evaluate_one(task, Proposal((0,), 6, parent=(0,), inherit=second, leave=last))
    assert [len(each.history) for each in (low, middle, full)] == [1, 1, 1]
    assert [each.metrics["epochs"] for each in (low, middle, full)] == [1.0, 1.0, 1.0]
    assert [epochs_of(Path(place)) for place in (first, second, last)] == [1, 2, 3]
    by_hand = task.train((0,), 6, 1, None, Path(second))
    assert (full.score, full.history) == (by_hand.score, by_hand.history)
    assert full.history[0]["val_loss"] < middle.history[0]["val_loss"] < low.history[0]["val_loss"]
    # Another architecture's weights, and those of a longer training, are a beginning like any other.
    other = evaluate_one(task, Proposal((0,), 6, {"epochs": 2}, parent=(7,), inherit=first))
    longer = evaluate_one(task, Proposal((0,), 6, {"epochs": 2}, parent=(0,), inherit=last))
    assert len(other.history) == len(longer.history) == 2
    stages = TrainedTask(
        Faults(), digits(), stages=[TrainingStage(1), TrainingStage(1)], trainer=CPU, keep_weights=True
    )
    assert len(evaluate_one(stages, Proposal((0,), 6, parent=(0,), inherit=first)).history) == 2


def test_a_limit_of_parameters():
    limit = {"parameters": {"direction": "min", "limit": 100}, "val_accuracy": "max"}
    task = TrainedTask(Faults(), digits(), epochs=1, trainer=CPU, objectives=limit)
    found = evaluate_one(task, Proposal((0,)))
    assert found.violation == pytest.approx(found.metrics["parameters"] / 100 - 1) and found.violation > 0
    assert found.status == "ok" and task.value(found, "val_accuracy") == found.score
    unknown = TrainedTask(Faults(), digits(), epochs=1, trainer=CPU, objectives={"parametres": "min"})
    with pytest.raises(RunError, match="objectives: 'parametres' is not logged; did you mean 'parameters'"):
        evaluate_one(unknown, Proposal((0,)))


def test_errors_of_the_recipe_are_raised():
    space, data = Faults(), digits()
    with pytest.raises(ValueError, match="no argument 'acelerator'; did you mean 'accelerator'"):
        TrainedTask(space, data, trainer={"acelerator": "cpu"})
    with pytest.raises(ValueError, match="'max_epochs' is the task's own 'epochs'"):
        TrainedTask(space, data, trainer={"max_epochs": 3})
    with pytest.raises(ValueError, match="epochs is 0"):
        TrainedTask(space, data, epochs=0)
    with pytest.raises(ValueError, match="time_limit_seconds is 0"):
        TrainedTask(space, data, time_limit_seconds=0)
    with pytest.raises(CatchmarkError, match="'val_acuracy' is not logged; did you mean 'val_accuracy'"):
        TrainedTask(space, data, epochs=1, score="val_acuracy", trainer=CPU).evaluate_one(Proposal(choice("none")))
    with pytest.raises(CatchmarkError, match="LightningDataModule does not say 'num_classes'"):
        TrainedTask(space, LightningDataModule(), epochs=1, trainer=CPU).evaluate_one(Proposal(choice("none")))
    with pytest.raises(ValueError, match="decision 'fault'"):
        TrainedTask(space, data, epochs=1).evaluate_one(Proposal((99,)))


def test_another_score_and_trainer_arguments_reach_the_run():
    task = TrainedTask(
        Dropping(),
        digits(),
        epochs=2,
        score="train_loss",
        trainer=CPU | {"limit_train_batches": 1, "limit_val_batches": 0},
    )
    evaluation = task.evaluate_one(Proposal((0,)))
    assert task.score_name == "train_loss" and evaluation.status == "ok"
    assert set(evaluation.metrics) == {"parameters"}


def test_two_ranks_train_one_child_and_agree_when_to_stop():
    two = CPU | {"devices": 2, "strategy": "ddp_fork"}
    task = TrainedTask(Dropping(), digits(batch_size=20), epochs=2, trainer=two)
    evaluation = task.evaluate_one(Proposal((1,)))
    assert evaluation.status == "ok", evaluation.reason
    assert evaluation.score > 50
    assert task.evaluate_one(Proposal((1,))).score == evaluation.score
    late = TrainedTask(Faults(), digits(), epochs=50, trainer=two, time_limit_seconds=0.5).evaluate_one(
        Proposal(choice("slow"), 0)
    )
    assert late.status == "failed" and late.reason.startswith("time limit reached in epoch ")


def recipe_parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--task", type=Callable[[SearchSpace], Task])
    return parser


def test_a_recipe_names_the_task_its_data_and_its_module():
    parser = recipe_parser()
    config = parser.parse_object(
        {
            "task": {
                "class_path": "search.tasks.trained.TrainedTask",
                "init_args": {
                    "data": {"class_path": "datamodules.digits.DigitsDataModule", "init_args": {"resolution": 8}},
                    "module": {
                        "class_path": "lightning_modules.classification.ClassificationModule",
                        "init_args": {"learning_rate": 0.05},
                    },
                    "epochs": 2,
                    "build": {"channels": 4, "cells": 1},
                    "trainer": {"accelerator": "cpu", "limit_train_batches": 2},
                    "time_limit_seconds": 60,
                },
            }
        }
    )
    assert recipe_parser().parse_string(parser.dump(config)) == config, "a resolved recipe can be run again"
    make = parser.instantiate(config).task
    space = NASBench201()
    task = make(space)
    assert isinstance(task, TrainedTask) and task.space is space
    assert isinstance(task.data, DigitsDataModule) and task.epochs == 2
    assert task.module(nn.Linear(1, 1)).learning_rate == 0.05
    assert task.evaluate_one(Proposal((3,) * 6)).status == "ok"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 2}, "epoch"),
        ({"epochs": "many"}, "epochs"),
        ({"data": {"class_path": "datamodules.digits.DigitsDataModule", "init_args": {"resolutio": 8}}}, "resolutio"),
        ({"data": {"class_path": "search.spaces.nasbench201.NASBench201"}}, "NASBench201"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(change, message):
    arguments = {"data": {"class_path": "datamodules.digits.DigitsDataModule"}} | change
    with pytest.raises(ArgumentError, match=message):
        recipe_parser().parse_object(
            {"task": {"class_path": "search.tasks.trained.TrainedTask", "init_args": arguments}}
        )


def test_the_network_that_is_built_is_the_one_that_training_starts_from():
    started: list[dict[str, torch.Tensor]] = []

    class Starting(ClassificationModule):
        def on_fit_start(self):
            started.append({name: value.clone() for name, value in self.network.state_dict().items()})

    task = TrainedTask(Dropping(), digits(), Starting, epochs=1, trainer=CPU)
    task.evaluate_one(Proposal((1,), seed=4))
    random = torch.get_rng_state()
    built = task.build_network((1,), seed=4).state_dict()
    assert list(built) == list(started[0]) and all(torch.equal(built[name], started[0][name]) for name in built)
    assert torch.equal(torch.get_rng_state(), random)
    other = task.build_network((1,), seed=5).state_dict()
    assert not torch.equal(built["1.weight"], other["1.weight"])


def test_parameters_are_those_of_the_module_that_is_trained():
    class Shortened(ClassificationModule):
        """Takes the first layers of a network, as modules for detection take a backbone, and adds its own."""

        def __init__(self, network):
            super().__init__(nn.Sequential(network[:3], nn.Linear(16, 10, bias=False)))

    task = TrainedTask(Dropping(), digits(), Shortened, epochs=1, trainer=CPU)
    assert task.evaluate_one(Proposal((1,))).metrics["parameters"] == 64 * 16 + 16 + 16 * 10
