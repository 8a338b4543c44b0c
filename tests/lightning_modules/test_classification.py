import copy
import math

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.nn import functional

from datamodules.arrays import ArrayDataModule, ImageArrays
from lightning_modules.classification import ClassificationModule

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


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


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_metrics_are_reduced_over_ranks():
    data, module = make_data(), _Ranked(make_network())
    trainer = Trainer(strategy="ddp_fork", devices=2, max_epochs=1, **QUIET)
    trainer.fit(module, datamodule=data)
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    hits = (module.network.eval()(images).argmax(1) == labels).double()
    # 30 images, two ranks: rank 0 sees the even ones, and must not report them for the whole.
    assert float(trainer.callback_metrics["alone_0"]) == pytest.approx(100 * float(hits[0::2].mean()))
    assert float(hits[0::2].mean()) != float(hits.mean())
    assert float(trainer.callback_metrics["val_accuracy"]) == pytest.approx(100 * float(hits.mean()))
