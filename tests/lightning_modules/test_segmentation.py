import copy
import os

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

pytest.importorskip("mmseg", reason="mmsegmentation is not installed")

from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.openmmlab import prepare, scope
from lightning_modules.segmentation import SegmentationModule
from search.training.rank_environment import OwnProcesses
from tests.lightning_modules.quiet_trainer import QUIET
from tests.lightning_modules.strided_network import StridedBackbone, StridedNetwork

CLASSES = ("ground", "block", "wall")
HEIGHT, WIDTH = 64, 96
SMALL = {
    "fcn": {"decode_head": {"channels": 16}, "auxiliary_head": {"channels": 8}},
    "deeplabv3plus": {"decode_head": {"channels": 16, "c1_channels": 8}, "auxiliary_head": {"channels": 8}},
    "bisenet": {
        "backbone": {"context_channels": [8], "spatial_channels": [8, 8, 8, 8], "out_channels": 16},
        "decode_head": {"channels": 16},
        "auxiliary_head": {"channels": 8},
    },
}


def make_module(head="fcn", seed=0, **settings):
    torch.manual_seed(seed)
    settings.setdefault("overrides", SMALL.get(head, {}))
    network = settings.pop("network", None) or StridedNetwork()
    return SegmentationModule(network, head, **settings)


class Blocks(torch.utils.data.Dataset):
    """Coloured blocks before a ground, their class their colour, some pixels unlabelled; the same at every call."""

    def __init__(self, images=2, sizes=((HEIGHT, WIDTH),)):
        rng = np.random.default_rng(0)
        self.images, self.labels = [], []
        for index in range(images):
            height, width = sizes[index % len(sizes)]
            image = rng.integers(0, 60, (3, height, width), dtype=np.uint8)
            labels = np.zeros((1, height, width), dtype=np.int64)
            for label in (1, 2):
                top, left = rng.integers(0, height - 32), rng.integers(0, width - 32)
                image[label, top : top + 32, left : left + 32] = 220
                labels[0, top : top + 32, left : left + 32] = label
            labels[0, :5] = 255
            self.images.append(torch.from_numpy(image))
            self.labels.append(torch.from_numpy(labels))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        prepare()
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        size = tuple(self.images[index].shape[-2:])
        metainfo = {"img_path": f"{index}.png", "img_shape": size, "ori_shape": size}
        return self.images[index], SegDataSample(
            metainfo=metainfo, gt_sem_seg=PixelData(data=self.labels[index].clone())
        )


def collate(pairs):
    images, samples = zip(*pairs, strict=True)
    return {"inputs": list(images), "data_samples": list(samples)}


class BlocksData(LightningDataModule):
    num_classes = len(CLASSES)

    def __init__(self, batch_size=2, **blocks):
        super().__init__()
        self.blocks, self.batch_size = Blocks(**blocks), batch_size

    def train_dataloader(self):
        return DataLoader(self.blocks, self.batch_size, collate_fn=collate)

    val_dataloader = test_dataloader = train_dataloader

    def val_metrics(self):
        prepare()
        from mmseg.evaluation import IoUMetric

        metric = IoUMetric()
        metric.dataset_meta = {"classes": CLASSES}
        return [metric]


def make_batch(**blocks):
    dataset = Blocks(**blocks)
    return collate([dataset[0], dataset[1]])


def stock_model(head):
    """The stock model of mmseg with small widths and our backbone's channels, every number put there by hand."""
    names = {"fcn": "fcn_r50-d8", "deeplabv3plus": "deeplabv3plus_r50-d8", "bisenet": "bisenetv1_r18-d32"}
    with scope("mmseg"):
        import mmseg
        from mmengine.config import Config
        from mmseg.registry import MODELS

        model = Config.fromfile(f"{mmseg.__path__[0]}/.mim/configs/_base_/models/{names[head]}.py").model
        model.pretrained = None
        model.data_preprocessor.size = (HEIGHT, WIDTH)
        plain = {"type": "BN"}
        if head == "bisenet":
            model.backbone.update(out_channels=16, context_channels=(8, 16, 20), spatial_channels=(8, 8, 8, 8))
            model.backbone.backbone_cfg = {"type": StridedBackbone}
            model.decode_head.update(in_channels=16, channels=16, num_classes=3, norm_cfg=plain)
            for auxiliary in model.auxiliary_head:
                auxiliary.update(in_channels=8, channels=8, num_classes=3, norm_cfg=plain)
        else:
            model.backbone = {"type": StridedBackbone}
            model.decode_head.update(in_channels=20, channels=16, num_classes=3, norm_cfg=plain)
            model.auxiliary_head.update(in_channels=16, channels=8, num_classes=3, norm_cfg=plain)
            if head == "deeplabv3plus":
                model.decode_head.update(c1_in_channels=8, c1_channels=8)
        return MODELS.build(model)


# ---- what the library would do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["fcn", "deeplabv3plus", "bisenet"])
def test_losses_and_predictions_are_those_of_mmseg(head):
    module, stock = make_module(head), stock_model(head)
    stock.load_state_dict(module.model.state_dict())

    torch.manual_seed(1)
    data = stock.data_preprocessor(make_batch(), True)
    expected = stock.loss(data["inputs"], data["data_samples"])
    torch.manual_seed(1)
    losses = module.losses(make_batch())
    assert losses.keys() == expected.keys() and len(losses) == (6 if head == "bisenet" else 4)
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    torch.manual_seed(1)
    total = sum(value for name, value in expected.items() if "loss" in name)
    torch.testing.assert_close(module.training_step(make_batch(), 0), total)

    stock.load_state_dict(module.model.state_dict())  # the running statistics have moved on
    stock.eval(), module.eval()
    with torch.no_grad():
        expected, found = stock.val_step(make_batch()), module.predict_samples(make_batch())
    for theirs, ours in zip(expected, found, strict=True):
        assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
    for theirs, ours in zip(expected, module.predict(make_batch()["inputs"]), strict=True):
        assert torch.equal(ours, theirs.pred_sem_seg.data[0])


@pytest.mark.parametrize("scales, flip", [((0.5, 1.0, 1.75), True), ((1.0,), True), ((0.75,), False)])
def test_scales_and_mirrors_are_averaged_as_mmseg_does_it(learned, monkeypatch, scales, flip):
    module = learned[0].eval()
    monkeypatch.setattr(module, "test_scales", scales)
    monkeypatch.setattr(module, "test_flip", flip)
    with scope("mmseg"):
        from mmcv.transforms import RandomFlip, Resize
        from mmseg.datasets.transforms import PackSegInputs
        from mmseg.registry import MODELS

        merger = MODELS.build({"type": "SegTTAModel", "module": module.model})
    for image, truth in Blocks():
        variants = []
        for scale in scales:
            for probability in (0.0, 1.0) if flip else (0.0,):
                pixels = image.permute(1, 2, 0).numpy()
                found = {
                    "img": pixels,
                    "img_path": "0.png",
                    "ori_shape": pixels.shape[:2],
                    "img_shape": pixels.shape[:2],
                }
                for step in (Resize(scale_factor=scale, keep_ratio=True), RandomFlip(probability), PackSegInputs()):
                    found = step(found)
                variants.append(found)
        names = ("inputs", "data_samples")
        with torch.no_grad():
            expected = merger.test_step({name: [[variant[name]] for variant in variants] for name in names})[0]
            ours = module.predict_samples(collate([(image, truth)]), testing=True)[0]
            once = module.predict_samples(collate([(image, truth.clone())]))[0].pred_sem_seg.data
        classes = expected.pred_sem_seg.data
        assert torch.equal(ours.pred_sem_seg.data, classes) and torch.equal(module.predict([image])[0], classes[0])
        assert len(classes.unique()) > 1 and not torch.equal(classes, once)
        assert torch.equal(ours.gt_sem_seg.data, truth.gt_sem_seg.data)


def test_the_backbone_keeps_its_weights():
    network = StridedNetwork()
    kept = copy.deepcopy(network.backbone.state_dict())
    for head in SMALL:
        module = make_module(head, network=network)
        backbone = module.model.backbone.context_path.backbone if head == "bisenet" else module.model.backbone
        torch.testing.assert_close(backbone.state_dict(), kept, rtol=0, atol=0)
    # mmseg draws the classifying layer's weights with a standard deviation of 0.01.
    assert module.model.decode_head.conv_seg.weight.detach().std() == pytest.approx(0.01, rel=0.5)


# ---- what follows from the backbone ----------------------------------------------------------------------------------

PYRAMIDS = [
    ((8, 12, 16, 20), (4, 8, 16, 32)),
    ((8, 12, 16, 20, 24), (4, 8, 16, 32, 64)),
    ((8, 12, 16, 20), (2, 4, 8, 16)),
    ((8, 12, 16), (4, 8, 16)),
]


@pytest.mark.parametrize("channels, strides", PYRAMIDS)
def test_heads_count_maps_from_the_deepest(channels, strides):
    network = StridedNetwork(num_classes=7, channels=channels, strides=strides)
    model = make_module("deeplabv3plus", network=network).model
    assert (model.decode_head.in_channels, model.decode_head.in_index) == (channels[-1], len(channels) - 1)
    assert (model.auxiliary_head.in_channels, model.auxiliary_head.in_index) == (channels[-2], len(channels) - 2)
    assert model.decode_head.c1_bottleneck.conv.in_channels == channels[0]
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 7
    upernet = make_module("_base_/models/upernet_r50.py", overrides={"decode_head": {"channels": 8}}, network=network)
    assert upernet.model.decode_head.in_channels == list(channels)
    assert upernet.predict([torch.zeros(3, 64, 96, dtype=torch.uint8)])[0].shape == (64, 96)


@pytest.mark.parametrize("channels, strides, maps", [(*PYRAMIDS[0], [0, 1, 2, 3]), (*PYRAMIDS[1], [0, 1, 3, 4])])
@pytest.mark.parametrize("overrides", [{}, SMALL["bisenet"]])
def test_bisenet_takes_the_map_at_stride_8_and_the_deepest_two(channels, strides, maps, overrides):
    network = StridedNetwork(channels=channels, strides=strides)
    module = make_module("bisenet", network=network, overrides=overrides)
    context = module.model.backbone.context_path
    assert context.arm16.conv_layer.conv.in_channels == channels[-2]
    assert context.arm32.conv_layer.conv.in_channels == channels[-1]
    assert getattr(context.backbone, "indices", (0, 1, 2, 3)) == tuple(maps)
    losses = module.losses(make_batch())
    sum(value for name, value in losses.items() if "loss" in name).backward()
    # Every stage of the backbone learns.
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())


@pytest.mark.parametrize("strides", [(2, 4, 8, 16), (1, 2, 4, 8)])
def test_bisenet_says_which_strides_it_needs(strides):
    with pytest.raises(ValueError, match=r"bisenet reads a map of stride 8 and two deeper ones"):
        make_module("bisenet", network=StridedNetwork(strides=strides))


def test_normalisation_is_plain_until_the_trainer_says_otherwise():
    for head in SMALL:
        kinds = {type(layer) for layer in make_module(head).modules()}
        assert nn.BatchNorm2d in kinds and nn.SyncBatchNorm not in kinds


@pytest.mark.parametrize("head", ["deeplabv3plus", "bisenet"])
def test_a_lone_image_pooled_to_one_pixel_says_what_to_do(head):
    module = make_module(head)
    with pytest.raises(ValueError, match="batch_size of at least 2 and drop_last"):
        module.training_step(collate([Blocks()[0]]), 0)
    assert torch.isfinite(module.training_step(make_batch(), 0))
    assert make_module("fcn").training_step(collate([Blocks()[0]]), 0) > 0


@pytest.mark.parametrize(
    "head, settings, message",
    [
        ("deeplabv3", {}, "head is 'deeplabv3'; did you mean 'deeplabv3plus'"),
        ("fcn/fcn.py", {}, "no config file 'fcn/fcn.py', neither here nor among those of mmseg"),
        ("fcn", {"overrides": {"backbone": {"depth": 18}}}, "the network's own"),
        ("fcn", {"overrides": {"head": {}}}, "mmseg cannot build its EncoderDecoder: .*'head'"),
        ("fcn", {"test_scales": ()}, "test_scales is .*, at least one"),
        ("fcn", {"test_scales": (0.0,)}, "at least one number above 0"),
        ("fcn", {"learning_rate": 0.0}, "learning_rate is 0.0"),
        ("fcn", {"network": StridedNetwork(num_classes=0)}, "num_classes of StridedNetwork is 0"),
        ("fcn", {"network": StridedNetwork(channels=(8,), strides=(4,))}, "reads map 2 of 4, and the backbone has 1"),
        ("fcn", {"network": nn.Linear(1, 1)}, "SegmentationModule needs a network with a 'backbone'"),
    ],
)
def test_what_does_not_fit_is_refused(head, settings, message):
    with pytest.raises(ValueError, match=message):
        make_module(head, **{"overrides": {}} | settings)


# ---- under the Trainer -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned():
    """A network that has learned two images by heart, its data, its metrics, and the loss of every epoch."""
    data, losses = BlocksData(), []

    class Recorded(SegmentationModule):
        def on_train_epoch_end(self):
            losses.append(float(self.train_loss.compute()))
            super().on_train_epoch_end()

    torch.manual_seed(0)
    network = StridedNetwork(channels=(16, 24, 32, 40))
    module = Recorded(network, "deeplabv3plus", SMALL["deeplabv3plus"], 0.05, test_scales=(0.5, 1.0), test_flip=True)
    trainer = Trainer(max_epochs=80, check_val_every_n_epoch=80, **QUIET)
    trainer.fit(module, datamodule=data)
    return module, data, {name: float(value) for name, value in trainer.callback_metrics.items()}, losses


def scores(predictions, labels):
    """Mean IoU, pixel accuracy and mean class accuracy in %, from a confusion matrix."""
    confusion = np.zeros((3, 3))
    for prediction, label in zip(predictions, labels, strict=True):
        known = label[0].numpy() != 255
        np.add.at(confusion, (label[0].numpy()[known], prediction.numpy()[known]), 1)
    hits, truth, found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return 100 * np.array([(hits / (truth + found - hits)).mean(), hits.sum() / confusion.sum(), (hits / truth).mean()])


NAMES = ("miou", "pixel_accuracy", "class_accuracy")


def test_two_images_are_learned_by_heart(learned):
    _, _, metrics, losses = learned
    assert len(losses) == 80 and losses[-1] < losses[0] / 4
    assert metrics["train_loss"] == pytest.approx(losses[-1])
    assert metrics["val_miou"] > 85


def test_metrics_are_those_of_a_confusion_matrix(learned):
    module, data, metrics, _ = learned
    with torch.no_grad():
        module.eval()
        batch = collate([data.blocks[0], data.blocks[1]])
        predictions = [sample.pred_sem_seg.data[0] for sample in module.predict_samples(batch)]
    expected = scores(predictions, data.blocks.labels)
    assert expected.min() > 50 and expected.max() < 100
    for name, value in zip(NAMES, expected, strict=True):
        assert metrics[f"val_{name}"] == pytest.approx(value, abs=0.006)  # the library rounds to two decimals


def test_testing_uses_scales_and_mirrors(learned):
    module, data, metrics, _ = learned
    trainer = Trainer(**QUIET)
    trainer.test(module, datamodule=data, verbose=False)
    expected = scores(module.predict(data.blocks.images), data.blocks.labels)
    for name, value in zip(NAMES, expected, strict=True):
        assert float(trainer.callback_metrics[f"test_{name}"]) == pytest.approx(value, abs=0.006)
    assert float(trainer.callback_metrics["test_miou"]) != metrics["val_miou"]


def test_images_of_several_sizes_make_one_batch():
    sizes = ((64, 96), (80, 70))
    module, data = make_module("fcn"), BlocksData(images=2, sizes=sizes)
    assert torch.isfinite(module.training_step(make_batch(sizes=sizes), 0))
    trainer = Trainer(**QUIET)
    trainer.validate(module, datamodule=data, verbose=False)
    alone = [module.predict([image])[0] for image in data.blocks.images]
    assert [tuple(each.shape) for each in alone] == list(sizes)
    assert float(trainer.callback_metrics["val_pixel_accuracy"]) == pytest.approx(
        scores(alone, data.blocks.labels)[1], abs=0.006
    )


def test_a_batch_follows_the_module_to_its_device():
    # Lightning moves a module without mmengine's knowledge, whose preprocessors know a device of their own.
    module = make_module().to("meta")
    data = module.preprocess(make_batch(), training=True)
    assert data["inputs"].device.type == "meta" and data["inputs"].dtype == torch.float32


def test_one_seed_gives_one_run_and_its_state_can_be_loaded(tmp_path):
    def run():
        module = make_module("bisenet", seed=3)
        Trainer(max_epochs=2, limit_val_batches=0, **QUIET).fit(module, datamodule=BlocksData())
        return module

    first, second, other = run(), run(), make_module("bisenet", seed=9)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    image = Blocks().images[:1]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(first.predict(image)[0], other.predict(image)[0])


def test_the_optimiser_is_sgd_with_mmsegs_numbers():
    module = make_module("fcn")
    trainer = Trainer(max_epochs=4, limit_val_batches=0, **QUIET)
    trainer.fit(module, datamodule=BlocksData())
    group = trainer.optimizers[0].param_groups[0]
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 5e-4)
    assert group["lr"] == pytest.approx(1e-4)
    constant = make_module("fcn", schedule=LearningRateSchedule("constant"))
    trainer = Trainer(max_epochs=2, limit_val_batches=0, **QUIET)
    trainer.fit(constant, datamodule=BlocksData())
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.01


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_metrics_are_gathered_over_ranks(tmp_path, monkeypatch):
    # Three images on two ranks: Lightning repeats one, and it must not count twice.
    monkeypatch.chdir(tmp_path)
    data, module = BlocksData(images=3, batch_size=1), make_module("fcn", seed=1)
    trainer = Trainer(strategy="ddp_fork", devices=2, plugins=[OwnProcesses()], max_epochs=1, **QUIET)
    trainer.fit(module, datamodule=data)
    expected = scores(module.predict(data.blocks.images), data.blocks.labels)
    repeated = scores(
        module.predict([*data.blocks.images, data.blocks.images[0]]), [*data.blocks.labels, data.blocks.labels[0]]
    )
    assert abs(expected[1] - repeated[1]) > 0.02
    for name, value in zip(NAMES, expected, strict=True):
        assert float(trainer.callback_metrics[f"val_{name}"]) == pytest.approx(value, abs=0.006)
    assert os.listdir(tmp_path) == []
