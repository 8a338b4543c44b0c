"""Supernets under a real Trainer: against a plain loop, resumed, and in two processes.

Run as a script this file is what the test of two processes starts.
"""

import copy
import math
import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from datamodules.digits import DigitsDataModule
from datamodules.three_parts import ThreePartsDataModule
from lightning_modules.landmark_regularizer import LandmarkRegularizer, LandmarkSettings
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.supernet import Path
from lightning_modules.objectives.classification import ClassificationObjective
from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.enas import ENASSampler
from lightning_modules.path_samplers.gumbel import GumbelSampler
from lightning_modules.path_samplers.uniform import UniformSampler
from lightning_modules.supernet import SupernetModule, average_gradients, evaluate_paths
from lightning_modules.supernet_settings import SupernetSettings
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201
from tests.forks import ROOT
from tests.processes import PATIENCE, kept_port

SPACE = NASBench201()
HEAD = {"num_classes": 10, "channels": 4, "cells": 1, "in_channels": 1}
SAMPLERS = {"uniform": UniformSampler, "gumbel": lambda space: GumbelSampler(space, learning_rate=0.05)}
LANDMARKS = [(3, 1, 3, 2, 4, 3), (1, 4, 2, 0, 3, 1), (2, 2, 3, 1, 1, 4), (4, 3, 0, 2, 3, 2)]
WORTH = [93.0, 90.0, 92.0, 91.0]
EPOCHS = 5


class Remembering(ClassificationObjective):
    """Remembers every loss that was computed."""

    def __init__(self):
        self.losses = []

    def loss_of(self, outputs, targets):
        loss = super().loss_of(outputs, targets)
        self.losses.append(loss.detach().clone())
        return loss


def module_of(sampler="uniform", landmarks=None, seed=0, space=SPACE, head=HEAD, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = space.build_supernet_from(lambda width: BatchStatistics(width, True), head)
    module = SupernetModule(
        supernet,
        SAMPLERS[sampler](space),
        None if landmarks is None else LandmarkRegularizer(LANDMARKS, WORTH, landmarks),
        Remembering(),
        SupernetSettings(**{"epochs": EPOCHS, "learning_rate": 0.05} | settings),
        seed=seed,
    )
    module.paths = []
    module.supernet.register_forward_hook(lambda net, *_: module.paths.append(net.selection.path.choices))
    return module


def data_of(batch_size=16, images=120):
    data = ThreePartsDataModule(DigitsDataModule(batch_size=batch_size, padding=1), evaluation_images=20, images=images)
    data.reseed(3)
    return data


def trainer_of(epochs=EPOCHS, **arguments):
    # A trainer that may keep something would do so in the current folder, unless something else does it.
    kept = any(isinstance(each, Checkpoint) for each in arguments.get("callbacks", []))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": kept}
    fixed = {"logger": False, "accelerator": "cpu", "devices": 1, "use_distributed_sampler": False}
    return Trainer(max_epochs=epochs, **quiet | fixed | arguments)


def weights_of(module):
    return nn.utils.parameters_to_vector(module.supernet.parameters()).detach().clone()


def fitted(module, epochs=EPOCHS, data=None, ckpt_path=None, **arguments):
    trainer = trainer_of(epochs, **arguments)
    trainer.fit(module, datamodule=data_of() if data is None else data, ckpt_path=ckpt_path, weights_only=True)
    return module


class Snapshots(Callback):
    """The weights behind each epoch."""

    def __init__(self):
        self.weights = []

    def on_train_epoch_end(self, trainer, module):
        self.weights.append(weights_of(module))


# ---- a training is what a plain loop gives ---------------------------------------------------------------------------


def plain_loop(module, data, epochs):
    """The same training by hand, step by step: weights behind each epoch."""
    module = copy.deepcopy(module)
    supernet, sampler, settings = module.supernet, module.sampler, module.settings
    regularizer, snapshots, step = module.regularizer, [], 0
    parameters = list(supernet.parameters())
    velocity = [torch.zeros_like(each) for each in parameters]

    def loss_of(path, batch):
        return nn.functional.cross_entropy(supernet(batch[0], path), batch[1])

    for epoch in range(epochs):
        turn = 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
        rate = settings.final_learning_rate + (settings.learning_rate - settings.final_learning_rate) * turn
        loader = data.train_dataloader()
        for stream in loader.flattened:
            stream.set_epoch(epoch)
        batches = [batch for batch, *_ in loader]
        for place, batch in enumerate(batches):
            total = loss_of(sampler.path(module.seed, step), batch["train"])
            if regularizer is not None and epoch >= regularizer.settings.warmup:
                # Half way through the step; the ramp is a 25th of the epochs behind the warm-up.
                passed = epoch + (place + 0.5) / len(batches) - regularizer.settings.warmup
                ramp = (settings.epochs - regularizer.settings.warmup) / 25
                weight = regularizer.settings.coefficient * min(1, passed / ramp)
                for better, worse in regularizer.pairs(module.seed, step):
                    pair = (loss_of(Path(regularizer.landmarks[k]), batch["held_out"]) for k in (better, worse))
                    one, other = pair
                    total = total + weight * (one - other).clamp(min=0) / regularizer.settings.pairs
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
            gradients = [
                torch.zeros_like(each) if gradient is None else gradient
                for each, gradient in zip(parameters, gradients, strict=True)
            ]
            norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            scale = min(1.0, float(settings.gradient_clip / (norm + 1e-6)))
            with torch.no_grad():
                for parameter, gradient, moving in zip(parameters, gradients, velocity, strict=True):
                    moving.mul_(settings.momentum).add_(scale * gradient + settings.weight_decay * parameter)
                    parameter.sub_(rate * moving)
            sampler.learn(
                ArchitectureStep(
                    supernet=supernet,
                    train_loss=lambda path, batch=batch: loss_of(path, batch["train"]),
                    held_out_loss=lambda path, batch=batch: loss_of(path, batch["held_out"]),
                    average=lambda parameters: None,
                    seed=module.seed,
                    step=step,
                    progress=(epoch + place / len(batches)) / settings.epochs,
                    learning_rate=rate,
                )
            )
            supernet.zero_grad(set_to_none=True)
            step += 1
        snapshots.append(weights_of(module))
    return snapshots, sampler


@pytest.mark.parametrize("clip", [0.05, 1000.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "landmarks", [None, LandmarkSettings(1.0, "constant", warmup=1, pairs=2)], ids=["plain", "landmarks"]
)
def test_a_training_is_that_of_a_plain_loop(sampler, landmarks, clip):
    module, snapshots = module_of(sampler, landmarks, gradient_clip=clip), Snapshots()
    expected, learned = plain_loop(module, data_of(), 3)
    fitted(module, 3, callbacks=[snapshots])
    for found, weights in zip(snapshots.weights, expected, strict=True):
        torch.testing.assert_close(found, weights, rtol=1e-3, atol=2e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    for found, logits in zip(module.sampler.parameters(), learned.parameters(), strict=True):
        torch.testing.assert_close(found, logits, rtol=1e-3, atol=1e-4)


def test_two_trainings_agree_bit_for_bit_whatever_the_global_random_state():
    modules = []
    for seed in range(2):
        torch.manual_seed(seed)
        modules.append(fitted(module_of("gumbel", LandmarkSettings(schedule="constant", warmup=1))))
    assert torch.equal(*map(weights_of, modules))
    assert torch.equal(torch.stack(modules[0].objective.losses), torch.stack(modules[1].objective.losses))
    assert modules[0].paths == modules[1].paths
    other = fitted(module_of("gumbel", seed=1))
    assert other.paths != modules[0].paths


def test_a_training_learns():
    module = fitted(module_of(epochs=8, learning_rate=0.1), 8, data_of(images=640))
    losses = torch.stack(module.objective.losses)
    assert losses[-20:].mean() < 0.93 * losses[:20].mean()


def test_paths_that_leave_weights_out_still_decay_and_carry_them_on():
    """Momentum and weight decay act on what no path used, as in the published searches."""
    module = module_of(epochs=1, weight_decay=0.1)
    module.sampler.path = lambda seed, step, index=0: Path((1,) * 6)
    before = module.supernet.network.body[0].operations[0][3][1].weight.detach().clone()
    fitted(module, 1)
    after = module.supernet.network.body[0].operations[0][3][1].weight.detach()
    share, velocity, value = module.settings.learning_rate, 0.0, 1.0
    for _ in range(40 // 16):  # two steps: 40 images are held out and not for evaluation
        velocity = 0.9 * velocity + 0.1 * value
        value -= share * velocity
    torch.testing.assert_close(after, value * before)


def test_what_is_frozen_stays_and_does_not_decay():
    module = module_of(weight_decay=0.1)
    frozen = module.supernet.network.stem.requires_grad_(False)
    before = {name: each.clone() for name, each in module.supernet.named_parameters()}
    assert len(list(frozen.parameters()))
    fitted(module, epochs=1)
    for name, each in module.supernet.named_parameters():
        if before[name].any():  # a bias that begins with 0 and is in no path does not decay either
            assert torch.equal(each, before[name]) == name.startswith("network.stem."), name


def test_the_moving_average_is_that_of_the_weights_and_evaluates():
    class Steps(Callback):
        def on_train_start(self, trainer, module):
            self.weights = [weights_of(module)]

        def on_train_batch_end(self, trainer, module, *_):
            self.weights.append(weights_of(module))

    steps, plain, module = Steps(), fitted(module_of(), 2), module_of(average=0.7)
    assert plain.evaluated is plain.supernet and plain.averaged is None
    fitted(module, 2, callbacks=[steps])
    expected, *later = steps.weights
    for step, weights in enumerate(later):
        keep = min(0.7, (1 + step) / (10 + step))  # a longer and longer memory, up to the one that was asked for
        expected = keep * expected + (1 - keep) * weights
    averaged = nn.utils.parameters_to_vector(module.averaged.parameters())
    torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(weights_of(module), weights_of(plain))  # the training is the same
    batches = data_of().evaluation_batches()
    nn.utils.vector_to_parameters(expected, plain.supernet.parameters())
    for one, other in zip(
        evaluate_paths(module, LANDMARKS, batches), evaluate_paths(plain, LANDMARKS, batches), strict=True
    ):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_the_optimiser_is_the_recipes_and_its_learning_rate_the_schedules():
    rates = []

    class Rates(Callback):
        def on_train_epoch_end(self, trainer, module):
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    module = module_of(optimizer=lambda parameters: torch.optim.Adam(parameters, betas=(0.5, 0.9)))
    fitted(module, 3, callbacks=[Rates()])
    optimizer = module.trainer.optimizers[0]
    assert type(optimizer) is torch.optim.Adam and optimizer.defaults["betas"] == (0.5, 0.9)
    assert rates == [[module.settings.learning_rate_at(epoch)] for epoch in range(3)]


def test_a_sampler_learns_after_its_warmup_every_so_many_steps():
    module, steps = module_of("gumbel"), []
    module.sampler.steps_every, module.sampler.warmup = 2, 1
    module.sampler.learn = lambda step: steps.append(step.step)
    fitted(module, 3)
    assert steps == [3, 5]  # of six steps, two an epoch


# ---- landmarks in time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine_increase"])
def test_landmarks_change_nothing_before_the_warmup_is_over(schedule):
    plain, regularised = Snapshots(), Snapshots()
    fitted(module_of(), callbacks=[plain])
    settings = LandmarkSettings(schedule=schedule, warmup=2, pairs=3)
    module = fitted(module_of(landmarks=settings), callbacks=[regularised])
    for epoch, (one, other) in enumerate(zip(plain.weights, regularised.weights, strict=True)):
        assert torch.equal(one, other) == (epoch < 2), epoch
    assert set(LANDMARKS) & set(module.paths)


def test_landmarks_put_the_supernet_in_their_order():
    """On the very images that they are compared on, the losses of landmarks follow their worth."""
    landmarks = LandmarkSettings(schedule="constant", warmup=0, pairs=0, coefficient=100.0)
    module = fitted(module_of(landmarks=landmarks, epochs=60), 60, data_of(20, 80))
    data = module.trainer.datamodule
    batch = data.data.training_set(augmented=False).__getitems__(data.held_out.tolist())
    with torch.no_grad():
        losses = [float(module.path_loss(Path(arch), batch)) for arch in module.regularizer.landmarks]
    assert losses == sorted(losses, reverse=True)


def test_only_every_so_many_steps_run_landmarks():
    module = module_of(landmarks=LandmarkSettings(schedule="constant", warmup=0, every=2))
    used = []
    original = module.regularizer.penalty
    module.regularizer.penalty = lambda *a: (used.append(module.global_step), original(*a))[1]
    fitted(module, 3)
    assert used == [0, 2, 4]  # of six steps


def test_a_share_of_the_batch_is_its_first_images():
    images, labels = torch.arange(12.0).view(12, 1), torch.arange(12)
    found = ClassificationObjective().first((images, [labels, images]), 3)
    assert torch.equal(found[0], images[:3]) and torch.equal(found[1][0], labels[:3])
    assert type(found) is tuple and type(found[1]) is list
    for share, count in ((0.5, 8), (0.01, 2), (1.0, 16)):  # normalisation needs more than one image
        settings = LandmarkSettings(schedule="constant", warmup=0, batch_share=share)
        module, sizes = module_of(landmarks=settings), set()
        module.supernet.register_forward_hook(
            lambda net, inputs, _, sizes=sizes: sizes.add((net.selection.path.choices in LANDMARKS, len(inputs[0])))
        )
        fitted(module, 1)
        assert sizes == {(True, count), (False, 16)}


# ---- resuming --------------------------------------------------------------------------------------------------------


class KeepThenStop(Checkpoint):
    """Keeps the state behind every epoch, and fails in the middle of the one that it is told."""

    def __init__(self, path, stop):
        self.path, self.stop = path, stop

    def on_train_epoch_end(self, trainer, module):
        trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        if trainer.current_epoch == self.stop and batch_index == 1:
            raise RuntimeError("power cut")


@pytest.mark.parametrize("done", [1, 4])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_resumed_training_is_one_that_was_never_stopped(sampler, done, tmp_path):
    landmarks, average = LandmarkSettings(schedule="constant", warmup=2), 0.9 * (sampler == "gumbel")
    whole = fitted(module_of(sampler, landmarks, average=average), data=data_of(8))
    path, stopped = tmp_path / "last.ckpt", module_of(sampler, landmarks, average=average)
    with pytest.raises(RuntimeError, match="power cut"):
        fitted(stopped, data=data_of(8), callbacks=[KeepThenStop(path, done)])
    assert torch.load(path, weights_only=True)["epoch"] == done - 1
    resumed = module_of(sampler, landmarks, average=average)
    with torch.no_grad():  # nothing of it may survive
        for parameter in resumed.parameters():
            parameter.add_(1)
    fitted(resumed, data=data_of(8), ckpt_path=path)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)  # the sampler's and the average's too
    count = len(resumed.paths)
    assert 0 < count < len(whole.paths)
    assert resumed.paths == whole.paths[-count:]
    assert torch.equal(torch.stack(resumed.objective.losses), torch.stack(whole.objective.losses[-count:]))


def test_going_on_with_landmarks_behind_a_shared_warmup_is_one_training(tmp_path):
    landmarks = LandmarkSettings(schedule="constant", warmup=3)
    whole, warmup = fitted(module_of("gumbel", landmarks)), module_of("gumbel")
    trainer = trainer_of(3)
    trainer.fit(warmup, datamodule=data_of())
    trainer.save_checkpoint(tmp_path / "warmup.ckpt")
    resumed = fitted(module_of("gumbel", landmarks), ckpt_path=tmp_path / "warmup.ckpt")
    assert torch.equal(weights_of(resumed), weights_of(whole))


# ---- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [SPACE, NASBench101()], ids=lambda space: space.name)
@pytest.mark.parametrize("calibrated", [False, True])
def test_architectures_are_evaluated_as_their_stand_alone_networks_are(space, calibrated):
    head = HEAD | {"channels": 6}
    module = fitted(module_of(space=space, head=head), 1)
    data = data_of()
    batches, calibration = data.evaluation_batches(8), data.calibration_batches(3, 12) if calibrated else []
    archs = [space.draw("evaluated", k) for k in range(3)]
    before = weights_of(module)
    found = evaluate_paths(module, archs, batches, calibration)
    assert torch.equal(weights_of(module), before)
    for arch, each in zip(archs, found, strict=True):
        network = space.build_from(arch, head)
        module.supernet.hand_down(arch, network)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = None  # the mean over batches
        with torch.no_grad():
            for images, _ in calibration:
                network(images)
            network.train(not calibrated)
            outputs = torch.cat([network(images) for images, _ in batches])
        labels = torch.cat([labels for _, labels in batches])
        assert len(labels) == 20  # 8, 8 and 4: images weigh alike, batches do not
        assert each.score == pytest.approx(100 * float((outputs.argmax(1) == labels).float().mean()), abs=1e-3)
        assert each.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, labels)), rel=1e-4)
    again = evaluate_paths(module, archs, batches, calibration)
    assert again == found and evaluate_paths(module, [], batches) == []


def test_a_sampler_is_told_of_every_epoch_and_may_evaluate():
    module, told = module_of(), []

    def epoch_ended(evaluate, seed, epoch, epochs):
        told.append((seed, epoch, epochs, evaluate(LANDMARKS), evaluate([])))

    module.sampler.epoch_ended = epoch_ended
    fitted(module, 2)
    assert [each[:3] for each in told] == [(0, 0, EPOCHS), (0, 1, EPOCHS)] and told[0][4] == []
    assert all(0 <= score <= 100 for each in told for score in each[3])
    expected = evaluate_paths(module, LANDMARKS, data_of().evaluation_batches())
    assert told[1][3] == [each.score for each in expected]


# ---- two processes ---------------------------------------------------------------------------------------------------

CASES = {
    f"{sampler} {name}": (sampler, landmarks)
    for sampler in SAMPLERS
    for name, landmarks in {
        "plain": None,
        "hinge": LandmarkSettings(schedule="constant", warmup=0, pairs=2),
        "softplus": LandmarkSettings(schedule="constant", warmup=1, penalty="softplus_beta5", batch_share=0.5),
    }.items()
}
RANKS = 2


def joint_data():
    return data_of(16, 160)


def scores_of(module):
    return [[each.score, each.loss] for each in evaluate_paths(module, LANDMARKS, joint_data().evaluation_batches())]


def train_in_two_processes(folder):
    """What each of the two processes runs: every case, as a user's script would."""
    torch.set_num_threads(1)
    average_gradients(module_of().supernet.parameters())  # one rank alone: nothing to do
    for name, case in CASES.items():
        module = module_of(*case)
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=PATIENCE))
        fitted(module, 2, joint_data(), strategy=strategy, devices=RANKS)
        state = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
        found = {"state": state, "paths": module.paths, "scores": scores_of(module)}
        torch.save(found, folder / f"{name}-{module.trainer.global_rank}.pt")
    unused = module_of().supernet
    average_gradients(unused.parameters())  # as the logits of a path that carries nothing: none has a gradient
    (folder / f"over-{module.trainer.global_rank}").touch()


TRAIN = """
import sys
from pathlib import Path
from tests.lightning_modules.test_supernet import train_in_two_processes
train_in_two_processes(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def two_processes(server, tmp_path_factory):
    """The folder of what both ranks found, what they said, and how they ended."""
    folder = tmp_path_factory.mktemp("ranks")
    with kept_port() as port:
        # As Lightning starts the second itself, which would import everything anew.
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2"}
        ranks = [
            server.start(
                TRAIN,
                [folder],
                folder=ROOT,
                environment=os.environ | place | {"LOCAL_RANK": str(rank), "NODE_RANK": "0"},
                stdout=folder / "said",
            )
            for rank in range(RANKS)
        ]
        codes = [server.wait(rank) for rank in ranks]
    return folder, (folder / "said").read_text(), codes


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_as_one_process_with_the_joint_batch(name, two_processes):
    folder, output, _ = two_processes
    files = [folder / f"{name}-{rank}.pt" for rank in range(RANKS)]
    assert all(file.is_file() for file in files), output[-3000:]
    first, second = (torch.load(file, weights_only=True) for file in files)
    alone = fitted(module_of(*CASES[name]), 2, joint_data())
    assert first["paths"] == second["paths"] and first["scores"] == second["scores"]
    # A script that goes on behind the training evaluates on both ranks, on the very same images.
    assert first["paths"][: len(alone.paths)] == alone.paths
    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key])
        torch.testing.assert_close(value, alone.state_dict()[key], rtol=0, atol=1e-4)
    for ours, theirs in zip(first["scores"], scores_of(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    moved = module_of(*CASES[name]).state_dict()
    assert max(float((value - moved[key]).abs().max()) for key, value in first["state"].items()) > 1e-2


def test_ranks_without_a_gradient_have_nothing_to_average_and_all_ends_well(two_processes):
    folder, output, codes = two_processes
    assert all((folder / f"over-{rank}").is_file() for rank in range(RANKS)), output[-3000:]
    assert codes == [0, 0], output[-3000:]


def test_a_wrapper_accepts_a_sampler_that_stays_on_the_cpu():
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        # The meta device stands in for an accelerator. It has no values, which a wrapper notices once it has accepted
        # where everything lies; it would refuse parameters on two kinds of devices before that.
        with pytest.raises(RuntimeError, match="meta"):
            nn.parallel.DistributedDataParallel(module_of("gumbel").to("meta"))
    finally:
        dist.destroy_process_group()


def test_a_wrapper_leaves_everything_alone_that_a_sampler_keeps():
    module = SupernetModule(module_of().supernet, ENASSampler(SPACE))
    kept = {name for name, _ in [*module.named_parameters(), *module.named_buffers()] if name.startswith("sampler.")}
    assert "sampler.baseline" in kept and kept <= set(module._ddp_params_and_buffers_to_ignore)
