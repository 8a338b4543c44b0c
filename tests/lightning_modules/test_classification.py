import copy
import math

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from datamodules.arrays import ArrayDataModule, ImageArrays
from lightning_modules.classification import ClassificationModule
from lightning_modules.networks.drop_path import DropPath
from search.training.rank_environment import OwnProcesses
from tests.lightning_modules.quiet_trainer import QUIET


def make_data(n=24, m=30, batch_size=10):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n + m, 4, 4, 1), dtype=np.uint8)
    labels = (images.mean((1, 2, 3)) > 127).astype(np.int64)
    arrays = ImageArrays(images[:n], labels[:n], images[n:], labels[n:], ("dark", "light"))
    return ArrayDataModule(arrays, batch_size=batch_size, padding=1, seed=3)


def make_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def test_training_is_the_written_out_recipe():
    """The same network trained by a plain loop, with SGD, Nesterov momentum and the cosine written out."""
    epochs, settings = 3, {"learning_rate": 0.2, "momentum": 0.8, "weight_decay": 0.01, "label_smoothing": 0.1}
    network, plain = make_network(), make_network()
    data = make_data()
    module = ClassificationModule(network, **settings)
    trainer = Trainer(max_epochs=epochs, **QUIET)
    trainer.fit(module, datamodule=data)

    loader = make_data().train_dataloader()
    velocity = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    iteration, total = 0, epochs * len(loader)
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        losses, count = 0.0, 0
        for images, labels in loader:
            log_probabilities = plain(images).log_softmax(1)
            smooth = functional.one_hot(labels, 2) * 0.9 + 0.1 / 2
            loss = -(smooth * log_probabilities).sum(1).mean()
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            rate = 0.2 * 0.5 * (1 + math.cos(math.pi * iteration / total))
            with torch.no_grad():
                for parameter, gradient, v in zip(plain.parameters(), gradients, velocity, strict=True):
                    gradient = gradient + 0.01 * parameter
                    v.mul_(0.8).add_(gradient)
                    parameter -= rate * (gradient + 0.8 * v)
            losses, count, iteration = losses + loss.item() * len(labels), count + len(labels), iteration + 1
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

    metrics = trainer.callback_metrics
    assert float(metrics["train_loss"]) == pytest.approx(losses / count, rel=1e-4)
    plain.eval()
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    logits = plain(images)
    assert float(metrics["val_accuracy"]) == pytest.approx(100 * float((logits.argmax(1) == labels).double().mean()))
    assert float(metrics["val_loss"]) == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-4)


def test_uneven_validation_batches_count_every_image_once():
    data = make_data(m=1013)  # the validation loader makes batches of 1000 and 13
    module = ClassificationModule(make_network())
    (result,) = Trainer(**QUIET).validate(module, datamodule=data, verbose=False)
    assert len(data.val_dataloader()) == 2
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    logits = module.network.eval()(images)
    assert result["val_accuracy"] == pytest.approx(100 * float((logits.argmax(1) == labels).double().mean()), rel=1e-6)
    assert result["val_loss"] == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)


def test_metrics_start_afresh_at_every_validation():
    data, module = make_data(), ClassificationModule(make_network())
    trainer = Trainer(**QUIET)
    first = trainer.validate(module, datamodule=data, verbose=False)
    assert trainer.validate(module, datamodule=data, verbose=False) == first


def test_learning_rate_ends_near_zero_and_defaults_are_the_published_ones():
    module = ClassificationModule(make_network())
    trainer = Trainer(max_epochs=4, **QUIET)
    trainer.fit(module, datamodule=make_data())
    (optimizer,) = trainer.optimizers
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 5e-4)
    assert group["initial_lr"] == 0.1 and group["lr"] == pytest.approx(0, abs=1e-12)


def test_a_schedule_without_end_is_refused():
    with pytest.raises(ValueError, match="set max_epochs or max_steps"):
        Trainer(max_epochs=-1, **QUIET).fit(ClassificationModule(make_network()), datamodule=make_data())


class _Ranked(ClassificationModule):
    """Also logs what each rank would have logged alone."""

    def on_validation_epoch_end(self):
        alone = copy.deepcopy(self.val_accuracy)
        alone._to_sync = False
        self.log(f"alone_{self.global_rank}", float(alone.compute()), rank_zero_only=False, sync_dist=False)
        super().on_validation_epoch_end()


# ---- the average of the weights --------------------------------------------------------------------------------------


class _Recorder(Callback):
    """Keeps the network's tensors after every step."""

    def __init__(self, network):
        self.states = [copy.deepcopy(network.state_dict())]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        self.states.append(copy.deepcopy(module.network.state_dict()))


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_is_a_weighted_sum_of_all_steps_and_is_what_is_validated(decay):
    module = ClassificationModule(make_network(), learning_rate=0.5, ema_decay=decay)
    recorder, data = _Recorder(module.network), make_data()
    trainer = Trainer(max_epochs=4, callbacks=[recorder], **QUIET)
    trainer.fit(module, datamodule=data)

    shares = [1.0]
    for step in range(len(recorder.states) - 1):
        keep = min(decay, (1 + step) / (10 + step))
        shares = [*(share * keep for share in shares), 1 - keep]
    assert len(shares) == 13 and sum(shares) == pytest.approx(1)
    expected = {}
    for name, last in recorder.states[-1].items():
        if last.is_floating_point():
            total = sum(share * state[name].double() for share, state in zip(shares, recorder.states, strict=True))
            expected[name] = total.float()
        else:
            expected[name] = last
    averaged = module.average.network.state_dict()
    assert averaged.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(averaged["1.running_mean"], recorder.states[-1]["1.running_mean"])

    reference = make_network()
    reference.load_state_dict(expected)
    reference.eval()
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    loss = float(functional.cross_entropy(reference(images), labels))
    raw = float(functional.cross_entropy(module.network.eval()(images), labels))
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(loss, rel=1e-4) != pytest.approx(raw, rel=1e-3)


def test_the_average_changes_nothing_about_training():
    plain, averaged = ClassificationModule(make_network()), ClassificationModule(make_network(), ema_decay=0.9)
    metrics = []
    for module in (plain, averaged):
        trainer = Trainer(max_epochs=2, **QUIET)
        trainer.fit(module, datamodule=make_data())
        metrics.append(trainer.callback_metrics)
        assert len(trainer.optimizers[0].param_groups[0]["params"]) == len(list(module.network.parameters()))
    for ours, theirs in zip(plain.network.state_dict().values(), averaged.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(metrics[0]["train_loss"], metrics[1]["train_loss"])
    assert plain.average is None and not any(name.startswith("average") for name in plain.state_dict())


def test_the_average_follows_once_an_optimisers_step():
    """With gradients gathered over all three batches of an epoch there is one step, and one update."""
    module = ClassificationModule(make_network(), ema_decay=0.05)
    before = copy.deepcopy(module.network.state_dict())
    Trainer(max_epochs=1, accumulate_grad_batches=3, **QUIET).fit(module, datamodule=make_data())
    after, averaged = module.network.state_dict(), module.average.network.state_dict()
    for name in ("0.weight", "4.bias"):
        torch.testing.assert_close(averaged[name], 0.05 * before[name] + 0.95 * after[name])
        assert not torch.equal(before[name], after[name])


def test_a_resumed_average_is_that_of_an_uninterrupted_run(tmp_path):
    def fit(module, checkpoint=None):
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        quiet = QUIET | {"enable_checkpointing": True}
        trainer = Trainer(max_epochs=4, callbacks=[saver], **quiet)
        # The same batches in every epoch: what is tested is the average.
        batches = [list(loader) for loader in (make_data().train_dataloader(), make_data().val_dataloader())]
        trainer.fit(module, *(DataLoader(each, batch_size=None) for each in batches), ckpt_path=checkpoint)
        return trainer.callback_metrics

    whole = ClassificationModule(make_network(), ema_decay=0.95)
    metrics = fit(whole)
    resumed = ClassificationModule(nn.Sequential(*make_network()), ema_decay=0.95)
    nn.init.zeros_(resumed.average.network[4].weight)
    assert torch.equal(fit(resumed, str(tmp_path / "epoch=2.ckpt"))["val_loss"], metrics["val_loss"])
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_shared_weights_are_averaged_once():
    layer = nn.Linear(2, 2)
    module = ClassificationModule(nn.Sequential(layer, layer), ema_decay=0.05)
    old = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    module.average.update(module.network, step=1000)
    torch.testing.assert_close(module.average.network[1].weight, 0.05 * old + 0.95 * (old + 1))


# ---- top-5 and warm-up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [5, 6, 12])
def test_top5_accuracy_is_logged_where_there_are_more_than_five_classes(classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (140, 4, 4, 1), dtype=np.uint8)
    labels = np.arange(140) % classes
    names = tuple(str(k) for k in range(classes))
    data = ArrayDataModule(ImageArrays(images[:20], labels[:20], images[20:], labels[20:], names), batch_size=10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    (metrics,) = Trainer(**QUIET).validate(ClassificationModule(network), datamodule=data, verbose=False)
    if classes == 5:
        assert "val_accuracy_top5" not in metrics
        return
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    hits = 0
    for logits, label in zip(network(images).tolist(), labels.tolist(), strict=True):
        hits += sum(other > logits[label] for other in logits) < 5
    assert metrics["val_accuracy_top5"] == pytest.approx(100 * hits / 120)
    assert metrics["val_accuracy"] < metrics["val_accuracy_top5"] < 100


class _Rates(Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_learning_rate_warms_up_and_then_follows_the_whole_cosine():
    rates = _Rates()
    module = ClassificationModule(make_network(), learning_rate=0.6, warmup_epochs=2)
    Trainer(max_epochs=5, callbacks=[rates], **QUIET).fit(module, datamodule=make_data())
    climb = [0.6 * k / 7 for k in range(1, 7)]  # two epochs of three iterations; the next one has 0.6
    fall = [0.3 * (1 + math.cos(math.pi * k / 9)) for k in range(9)]
    assert rates.rates == pytest.approx(climb + fall)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"ema_decay": 1.0}, r"ema_decay is 1\.0, allowed: 0 \(no average\) up to, not including, 1"),
        ({"ema_decay": -0.1}, r"ema_decay is -0\.1"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1, 0 or more"),
    ],
)
def test_wrong_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassificationModule(make_network(), **arguments)


def test_a_warmup_as_long_as_the_run_is_refused():
    module = ClassificationModule(make_network(), warmup_epochs=3)
    with pytest.raises(ValueError, match="warmup_epochs is 3, the whole run has 3 epochs; it must have more"):
        Trainer(max_epochs=3, **QUIET).fit(module, datamodule=make_data())


class _Gathered(ClassificationModule):
    """Also logs how far the ranks' averages lie apart, and how far the average lies from the network."""

    def on_validation_epoch_end(self):
        averages = self.all_gather(self.average.network[0].weight)
        self.log("ranks", float(len(averages)))
        self.log("apart", float((averages[0] - averages[1]).abs().max()))
        self.log("behind", float((self.average.network[0].weight - self.network[0].weight).abs().max()))
        super().on_validation_epoch_end()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_ranks_keep_the_same_average():
    trainer = Trainer(strategy="ddp_fork", devices=2, plugins=[OwnProcesses()], max_epochs=2, **QUIET)
    trainer.fit(_Gathered(make_network(), learning_rate=0.5, ema_decay=0.9), datamodule=make_data())
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["ranks"] == 2 and metrics["apart"] == 0 < metrics["behind"]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_metrics_are_reduced_over_ranks():
    data, module = make_data(), _Ranked(make_network())
    trainer = Trainer(strategy="ddp_fork", devices=2, plugins=[OwnProcesses()], max_epochs=1, **QUIET)
    trainer.fit(module, datamodule=data)
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    hits = (module.network.eval()(images).argmax(1) == labels).double()
    # 30 images, two ranks: rank 0 sees the even ones, and must not report them for the whole.
    assert float(trainer.callback_metrics["alone_0"]) == pytest.approx(100 * float(hits[0::2].mean()))
    assert float(hits[0::2].mean()) != float(hits.mean())
    assert float(trainer.callback_metrics["val_accuracy"]) == pytest.approx(100 * float(hits.mean()))


# ---- auxiliary head and dropped paths --------------------------------------------------------------------------------


class WithAuxiliary(nn.Module):
    """A network whose auxiliary head is a layer of its own."""

    def __init__(self):
        super().__init__()
        self.main, self.auxiliary, self.drop = nn.Linear(16, 2), nn.Linear(16, 2), DropPath()

    def forward(self, images):
        return self.drop(self.main(images.flatten(1)))

    def with_auxiliary(self, images):
        return self(images), self.auxiliary(images.flatten(1))


def test_the_auxiliary_head_is_trained_by_its_share_and_not_validated():
    gradients = []
    for weight in (0.4, 0.8, 0.0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = WithAuxiliary()
        module = ClassificationModule(network, auxiliary_weight=weight)
        images, labels = next(iter(make_data().train_dataloader()))
        loss = module.training_step((images, labels), 0)
        main, auxiliary = (functional.cross_entropy(each, labels) for each in network.with_auxiliary(images))
        torch.testing.assert_close(loss, main + weight * auxiliary)
        gradients.append(torch.autograd.grad(loss, network.auxiliary.weight, allow_unused=True)[0])
    torch.testing.assert_close(2 * gradients[0], gradients[1])
    assert gradients[2] is None
    (result,) = Trainer(**QUIET).validate(module, datamodule=make_data(), verbose=False)
    images, labels = (torch.cat(parts) for parts in zip(*make_data().val_dataloader(), strict=True))
    assert result["val_loss"] == pytest.approx(float(functional.cross_entropy(network(images), labels)), rel=1e-5)


def test_paths_are_dropped_more_often_from_epoch_to_epoch():
    class Watch(Callback):
        seen: list[float]

        def on_train_batch_end(self, trainer, module, *_):
            self.seen.append(module.network.drop.probability)

    watch, module = Watch(), ClassificationModule(WithAuxiliary(), drop_path=0.2)
    watch.seen = []
    Trainer(max_epochs=4, callbacks=[watch], **QUIET).fit(module, datamodule=make_data())
    assert watch.seen == pytest.approx([value for value in (0.0, 0.05, 0.1, 0.15) for _ in range(3)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"drop_path": 1.0}, "drop_path is 1.0, allowed: 0"),
        ({"drop_path": 0.2}, "a Sequential has no paths to drop"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight is -1.0"),
    ],
)
def test_wrong_regularisation_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ClassificationModule(make_network(), **settings)


def test_another_optimiser_follows_the_same_cosine():
    """AdamW by hand, with the learning rate of every iteration; its own is not looked at."""
    epochs, data, plain = 2, make_data(), make_network()
    module = ClassificationModule(
        make_network(),
        learning_rate=0.01,
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=9.0, weight_decay=0.1),
    )
    Trainer(max_epochs=epochs, **QUIET).fit(module, datamodule=data)
    loader, optimizer = make_data().train_dataloader(), torch.optim.AdamW(plain.parameters(), weight_decay=0.1)
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for k, (images, labels) in enumerate(loader):
            done = (epoch * len(loader) + k) / (epochs * len(loader))
            optimizer.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + math.cos(math.pi * done))
            optimizer.zero_grad()
            functional.cross_entropy(plain(images), labels).backward()
            optimizer.step()
    for ours, theirs in zip(module.network.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
