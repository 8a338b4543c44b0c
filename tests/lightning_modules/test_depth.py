import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from datamodules.depth_folder import DepthFolderDataModule
from lightning_modules.depth import DepthModule
from lightning_modules.objectives.depth import disparity_rmse, least_squares_ssi, trimmed_ssi
from search.evaluation import Proposal
from search.spaces.depth_fusion import DepthFusion
from search.spaces.head import Head
from search.spaces.residual_backbone import ResidualBackbone
from search.tasks.trained import TrainedTask
from tests.lightning_modules.quiet_trainer import QUIET

SMALL = {"channels": 8, "width": 4}


class Tiny(nn.Module):
    """A network with a part called backbone."""

    def __init__(self):
        super().__init__()
        # No bias in the head: the losses do not see a shift, and Adam would blow the rounding of its gradient up.
        self.backbone, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1, bias=False)

    def forward(self, images):
        return self.head(self.backbone(images).relu())


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def batches(n=7, batch_size=3, empty=()):
    generator = torch.Generator().manual_seed(0)
    items = []
    for k in range(n):
        image, depth = torch.rand(3, 16, 16, generator=generator), torch.rand(1, 16, 16, generator=generator)
        items.append((image, (depth, torch.full((1, 16, 16), k not in empty))))
    return DataLoader(items, batch_size=batch_size)


def test_training_is_the_written_out_recipe():
    """The same network trained by a plain loop, with Adam and the steps of its two learning rates written out."""
    network, plain = seeded(Tiny), seeded(Tiny)
    module = DepthModule(network, learning_rate=0.02, backbone_learning_rate=0.002, step_epochs=2, gamma=0.5)
    trainer = Trainer(max_epochs=5, **QUIET)
    trainer.fit(module, train_dataloaders=batches(), val_dataloaders=batches(4, 2))

    parameters = list(plain.parameters())
    rates = [0.002, 0.002, 0.02]
    first, second, step = [0.0] * 3, [0.0] * 3, 0
    for epoch in range(5):
        losses = []
        for images, (depth, mask) in batches():
            step += 1
            loss = trimmed_ssi(plain(images), depth, mask)
            losses += loss.tolist()
            gradients = torch.autograd.grad(loss.mean(), parameters)
            with torch.no_grad():
                for k, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                    first[k] = 0.9 * first[k] + 0.1 * gradient
                    second[k] = 0.999 * second[k] + 0.001 * gradient.square()
                    mean, square = first[k] / (1 - 0.9**step), second[k] / (1 - 0.999**step)
                    parameter -= rates[k] * 0.5 ** (epoch // 2) * mean / (square.sqrt() + 1e-8)
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert float(trainer.callback_metrics["train_loss"]) == pytest.approx(np.mean(losses), rel=1e-3)


@pytest.mark.parametrize("loss, formula", [("trimmed", trimmed_ssi), ("least_squares", least_squares_ssi)])
def test_validation_is_the_mean_over_images_with_known_pixels(loss, formula):
    network = seeded(Tiny)
    (metrics,) = Trainer(**QUIET).validate(
        DepthModule(network, loss=loss), batches(7, 3, empty=(1, 3, 4, 5)), verbose=False
    )
    images, (depth, mask) = next(iter(batches(7, 7)))
    with torch.no_grad():
        losses, errors = (f(network(images), depth, mask)[[0, 2, 6]] for f in (formula, disparity_rmse))
    assert metrics["val_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert metrics["val_score"] == -metrics["val_loss"]
    assert metrics["val_disparity_rmse"] == pytest.approx(float(errors.mean()), rel=1e-5)


def test_the_defaults_are_the_papers():
    network = DepthFusion().build((0, 2, 1, 0, 3), **SMALL)
    configured = DepthModule(network).configure_optimizers()
    new, old = configured["optimizer"].param_groups
    assert (new["lr"], old["lr"]) == (1e-4, 1e-5) and new["betas"] == old["betas"] == (0.9, 0.999)
    assert new["weight_decay"] == 0
    assert {id(p) for p in old["params"]} == {id(p) for p in network.backbone.parameters()}
    assert len(new["params"]) + len(old["params"]) == len(list(network.parameters()))
    scheduler = configured["lr_scheduler"]
    (factor, _) = scheduler["scheduler"].lr_lambdas
    assert scheduler["interval"] == "epoch" and [factor(epoch) for epoch in (0, 99, 100, 199)] == [1, 1, 0.1, 0.1]
    supernet = DepthFusion(2).build_supernet(nn.BatchNorm2d, **SMALL)
    old = DepthModule(supernet).configure_optimizers()["optimizer"].param_groups[1]
    assert {id(p) for p in old["params"]} == {id(p) for p in supernet.network.backbone.parameters()}
    alone = DepthModule(nn.Conv2d(3, 1, 1)).configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in alone] == [1e-4]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="loss is 'trimed', allowed: trimmed, least_squares"):
        DepthModule(Tiny(), loss="trimed")
    with pytest.raises(ValueError, match="step_epochs is 0"):
        DepthModule(Tiny(), step_epochs=0)


# ---- a decoder on a classifier's backbone ----------------------------------------------------------------------------

RESIDUAL = ResidualBackbone(
    block_types=("basicblock",), base_channels=(8,), depths=(4, 6), blocks_per_stage=(1, 2), stem="small", stem_stride=2
)


def scenes(n, size=(48, 40)):
    """Bright balls on a dark wall that fades to the right: the brighter, the nearer; noise on the colours."""
    generator = torch.Generator().manual_seed(3)
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    items = []
    for _ in range(n):
        depth = 0.2 + 0.2 * columns / size[1]
        for _ in range(3):
            y, x, radius, near = torch.rand(4, generator=generator)
            ball = (rows - y * size[0]) ** 2 + (columns - x * size[1]) ** 2 < (4 + 8 * radius) ** 2
            depth = torch.where(ball, 0.5 + near, depth)
        image = depth.expand(3, *size) * torch.tensor([1.0, 0.5, 2.0]).view(3, 1, 1)
        image = image + 0.1 * torch.randn(image.shape, generator=generator)
        items.append((image.float(), (depth[None].float(), torch.ones(1, *size, dtype=torch.bool))))
    return items


def test_a_decoder_takes_the_backbone_of_a_classifier_and_learns_a_scene():
    classifier = seeded(lambda: RESIDUAL.build(RESIDUAL.draw(0), Head(7)))
    backbone = classifier.backbone
    module = seeded(
        lambda: DepthModule(
            classifier, decoder="fpn", decoder_channels=16, learning_rate=4e-3, backbone_learning_rate=3e-3
        )
    )
    assert module.network.backbone is backbone and not any("fc" in name for name in module.state_dict())
    images, (depth, _) = next(iter(DataLoader(scenes(8), batch_size=8)))
    assert module(images).shape == depth.shape
    unseen, (far, known) = next(iter(DataLoader(scenes(16)[8:], batch_size=8)))
    ignorant = float(disparity_rmse(torch.zeros_like(far), far, known).mean())
    Trainer(max_epochs=60, **QUIET).fit(module, train_dataloaders=DataLoader(scenes(8), batch_size=8))
    with torch.no_grad():
        error = float(disparity_rmse(module.eval()(unseen), far, known).mean())
    assert error < 0.5 * ignorant


def test_a_decoded_backbone_learns_slower_too():
    classifier = RESIDUAL.build(RESIDUAL.draw(0), Head(0))
    module = DepthModule(classifier, decoder="fpn")
    new, old = module.configure_optimizers()["optimizer"].param_groups
    assert (new["lr"], old["lr"]) == (1e-4, 1e-5)
    assert {id(p) for p in old["params"]} == {id(p) for p in classifier.backbone.parameters()}
    assert {id(p) for p in new["params"]} == {id(p) for p in module.network.decoder.parameters()}


def test_a_network_that_cannot_be_decoded_is_refused():
    for network in (Tiny(), nn.Conv2d(3, 1, 1)):
        with pytest.raises(ValueError, match=rf"decoder is 'fpn', but {type(network).__name__} has no 'backbone' that"):
            DepthModule(network, decoder="fpn")
    with pytest.raises(ValueError, match="decoder is 'fpm', allowed: network, fpn"):
        DepthModule(Tiny(), decoder="fpm")


def test_a_search_task_decodes_residual_backbones(tmp_path):
    write_pairs(tmp_path)
    task = TrainedTask(
        RESIDUAL,
        DepthFolderDataModule(str(tmp_path), resolution=32),
        lambda network: DepthModule(network, decoder="fpn", decoder_channels=4),
        epochs=1,
        score="val_score",
        trainer={"accelerator": "cpu"},
    )
    arch = RESIDUAL.draw(1)
    evaluation = task.evaluate_one(Proposal(arch, seed=4))
    assert evaluation.status == "ok", evaluation.reason
    assert (
        task.evaluate_one(Proposal(arch, seed=4)).score
        == evaluation.score
        != task.evaluate_one(Proposal(arch, seed=5)).score
    )


def write_pairs(folder):
    rng = np.random.default_rng(0)
    for name in ("Imgs", "RDs"):
        (folder / name).mkdir()
    for k in range(20):
        pixels = rng.integers(1, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "Imgs" / f"{k}.png")
        Image.fromarray(pixels[..., 0]).save(folder / "RDs" / f"{k}.png")


def test_a_search_task_trains_and_scores_depth_networks(tmp_path):
    write_pairs(tmp_path)
    task = TrainedTask(
        DepthFusion(2),
        DepthFolderDataModule(str(tmp_path), resolution=32),
        DepthModule,
        epochs=1,
        build=SMALL,
        score="val_score",
        trainer={"accelerator": "cpu"},
    )
    arch = (0, 2, 1, 0, 3, 3)
    evaluation = task.evaluate_one(Proposal(arch, seed=4))
    assert evaluation.status == "ok", evaluation.reason
    assert evaluation.score == -evaluation.metrics["val_loss"] < 0 < evaluation.metrics["val_disparity_rmse"]
    assert (
        task.evaluate_one(Proposal(arch, seed=4)).score
        == evaluation.score
        != task.evaluate_one(Proposal(arch, seed=5)).score
    )


def test_it_learns_real_depth(real_data):
    """Eight pictures of rooms: within a few seconds the loss halves."""
    data = DepthFolderDataModule(str(real_data("images/nyuv2")), resolution=64, images=8).training_set(augmented=False)
    loader = DataLoader(data, batch_size=8, collate_fn=lambda batch: batch)
    space = DepthFusion(2)
    network = seeded(lambda: space.build(space.draw(0), channels=16, width=8))
    module = DepthModule(network, learning_rate=3e-3, backbone_learning_rate=3e-3)
    images, (depth, mask) = next(iter(loader))
    with torch.no_grad():
        before = float(trimmed_ssi(network(images), depth, mask).mean())
        ignorant = float(disparity_rmse(torch.zeros_like(depth), depth, mask).mean())
    trainer = Trainer(max_epochs=40, **QUIET)
    trainer.fit(module, train_dataloaders=loader)
    assert float(trainer.callback_metrics["train_loss"]) < before / 2
    with torch.no_grad():
        known = float(disparity_rmse(network(images), depth, mask).mean())
    assert known < 0.7 * ignorant
