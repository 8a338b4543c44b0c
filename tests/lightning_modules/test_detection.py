import contextlib
import copy
import io
import json
import math

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

pytest.importorskip("mmdet", reason="mmdet is not installed")

from lightning_modules.detection import DETECTORS, DetectionModule
from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.networks.merging_cells import MergingCellFPN, PyramidNetwork
from lightning_modules.openmmlab import prepare, scope
from lightning_modules.openmmlab.config import load_model_config
from tests.lightning_modules.quiet_trainer import QUIET
from tests.lightning_modules.strided_network import StridedBackbone, StridedNetwork

CLASSES = ("square", "bar", "cross")
SIZE = 64
WIDTH = 16
BOX_HEAD = {"fc_out_channels": 32}
SMALL = {
    "faster_rcnn": {
        "neck": {"out_channels": WIDTH},
        "rpn_head": {"feat_channels": WIDTH},
        "roi_head": {"bbox_head": BOX_HEAD},
    },
    "retinanet": {
        "neck": {"out_channels": WIDTH},
        "bbox_head": {"feat_channels": WIDTH, "stacked_convs": 1},
        "test_cfg": {"score_thr": 0.0},
    },
}
SMALL["cascade_rcnn"] = SMALL["faster_rcnn"]
STRAIGHT = LearningRateSchedule("constant")


def make_module(detector="faster_rcnn", seed=0, **settings):
    torch.manual_seed(seed)
    settings.setdefault("overrides", SMALL.get(detector, {}) if isinstance(detector, str) else {})
    network = settings.pop("network", None) or StridedNetwork()
    return DetectionModule(network, detector, **settings)


class Shapes(torch.utils.data.Dataset):
    """Bright rectangles on a dark ground, their class by their form; the same ones at every call."""

    def __init__(self, images=2):
        rng = np.random.default_rng(0)
        self.images, self.boxes, self.labels = [], [], []
        for index in range(images):
            image = rng.integers(0, 40, (3, SIZE, SIZE), dtype=np.uint8)
            boxes = [[6, 8, 30, 32], [36, 20, 60, 32]] if index % 2 else [[4, 24, 40, 60], [32, 4, 56, 16]]
            for channel, (left, top, right, bottom) in enumerate(boxes):
                image[channel, top:bottom, left:right] = 220
            self.images.append(torch.from_numpy(image))
            self.boxes.append(torch.tensor(boxes, dtype=torch.float32))
            self.labels.append(torch.tensor([0, 1]))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        prepare()
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        shape = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo={"img_id": index, **shape})
        sample.gt_instances = InstanceData(bboxes=self.boxes[index].clone(), labels=self.labels[index].clone())
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        return self.images[index], sample

    def coco(self):
        """The annotations in COCO's format."""
        annotations = []
        for image, (boxes, labels) in enumerate(zip(self.boxes, self.labels, strict=True)):
            for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist(), strict=True):
                box = [left, top, right - left, bottom - top]
                annotation = {"image_id": image, "category_id": label + 1, "bbox": box, "area": box[2] * box[3]}
                annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **annotation})
        images = [{"id": k, "width": SIZE, "height": SIZE, "file_name": f"{k}.png"} for k in range(len(self))]
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
        return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def collate(pairs):
    images, samples = zip(*pairs, strict=True)
    return {"inputs": list(images), "data_samples": list(samples)}


class ShapesData(LightningDataModule):
    num_classes = len(CLASSES)

    def __init__(self, folder, images=2, batch_size=2):
        super().__init__()
        self.shapes, self.batch_size, self.file = Shapes(images), batch_size, folder / "annotations.json"
        self.file.write_text(json.dumps(self.shapes.coco()))

    def train_dataloader(self):
        return DataLoader(self.shapes, self.batch_size, collate_fn=collate)

    val_dataloader = test_dataloader = train_dataloader

    def val_metrics(self):
        prepare()
        from mmdet.evaluation import CocoMetric

        with contextlib.redirect_stdout(io.StringIO()):
            metric = CocoMetric(ann_file=str(self.file), metric="bbox")
        metric.dataset_meta = {"classes": CLASSES}
        return [metric]


def make_batch():
    return collate([Shapes()[0], Shapes()[1]])


def stock_model(detector):
    """The stock model of mmdet with a small width and our backbone's channels, every number put there by hand."""
    names = {"faster_rcnn": "faster-rcnn", "retinanet": "retinanet", "cascade_rcnn": "cascade-rcnn"}
    with scope("mmdet"):
        import mmdet
        from mmdet.registry import MODELS
        from mmengine.config import Config

        folder = mmdet.__path__[0] + "/.mim/configs/_base_/models/"
        model = Config.fromfile(f"{folder}{names[detector]}_r50_fpn.py").model
        model.backbone = {"type": StridedBackbone}
        model.neck.in_channels, model.neck.out_channels = [8, 12, 16, 20], 16
        if detector == "retinanet":
            model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=3)
            model.test_cfg.score_thr = 0.0
        else:
            model.rpn_head.update(in_channels=16, feat_channels=16)
            model.roi_head.bbox_roi_extractor.out_channels = 16
            heads = model.roi_head.bbox_head
            for head in heads if isinstance(heads, list) else [heads]:
                head.update(in_channels=16, fc_out_channels=32, num_classes=3)
        return MODELS.build(model)


# ---- what the library would do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", ["faster_rcnn", "retinanet", "cascade_rcnn"])
def test_losses_and_predictions_are_those_of_mmdet(detector):
    module, stock = make_module(detector), stock_model(detector)
    stock.load_state_dict(module.model.state_dict())

    torch.manual_seed(1)
    data = stock.data_preprocessor(make_batch(), True)
    expected = stock.loss(data["inputs"], data["data_samples"])
    torch.manual_seed(1)
    losses = module.losses(make_batch())
    assert losses.keys() == expected.keys()
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    torch.manual_seed(1)
    total = sum(sum(value) if isinstance(value, list) else value for name, value in expected.items() if "loss" in name)
    torch.testing.assert_close(module.training_step(make_batch(), 0), total.reshape(()))

    stock.load_state_dict(module.model.state_dict())  # the running statistics have moved on
    stock.eval(), module.eval()
    with torch.no_grad():
        expected, found = stock.val_step(make_batch()), module.predict_samples(make_batch())
    assert sum(len(sample.pred_instances) for sample in expected) > 10
    for theirs, ours in zip(expected, found, strict=True):
        for name in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(ours.pred_instances[name], theirs.pred_instances[name], rtol=0, atol=0)
    for sample, plain in zip(expected, module.predict(make_batch()["inputs"]), strict=True):
        torch.testing.assert_close(plain["boxes"], sample.pred_instances.bboxes)
        torch.testing.assert_close(plain["scores"], sample.pred_instances.scores)


def test_heads_are_initialised_as_mmdet_does_and_the_backbone_stays():
    network = StridedNetwork()
    kept = copy.deepcopy(network.backbone.state_dict())
    module = make_module("retinanet", network=network)
    torch.testing.assert_close(module.model.backbone.state_dict(), kept, rtol=0, atol=0)
    # Focal Loss, sec. 4.1: every anchor begins as an object with probability 0.01.
    assert torch.allclose(module.model.bbox_head.retina_cls.bias, torch.tensor(-math.log(99.0)))
    assert module.model.bbox_head.retina_cls.weight.detach().std() == pytest.approx(0.01, rel=0.1)


# ---- what follows from the backbone ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "channels, strides, levels, finest_scale",
    [
        ((8, 12, 16, 20), (4, 8, 16, 32), [4, 8, 16, 32, 64], 56),
        ((8, 12, 16, 20, 24), (4, 8, 16, 32, 64), [4, 8, 16, 32, 64], 56),
        ((8, 12, 16, 20), (2, 4, 8, 16), [2, 4, 8, 16, 32], 28),
        ((8, 12, 16, 20), (1, 2, 4, 8), [1, 2, 4, 8, 16], 14),
    ],
)
def test_anchors_and_regions_follow_the_strides(channels, strides, levels, finest_scale):
    for detector in ("faster_rcnn", "cascade_rcnn"):
        model = make_module(detector, network=StridedNetwork(channels=channels, strides=strides)).model
        assert model.rpn_head.prior_generator.strides == [(level, level) for level in levels]
        assert (
            model.rpn_head.prior_generator.base_anchors[0][1].tolist() == [-4.0 * levels[0]] * 2 + [4.0 * levels[0]] * 2
        )
        extractors = model.roi_head.bbox_roi_extractor
        for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
            assert extractor.featmap_strides == levels[:4] and extractor.finest_scale == finest_scale
    model = make_module("retinanet", network=StridedNetwork(channels=channels, strides=strides)).model
    assert model.bbox_head.prior_generator.strides == [(2 * level, 2 * level) for level in levels]
    # Maps and anchors agree: each cell of each level has its anchors, at the true distance.
    maps = model.extract_feat(torch.rand(1, 3, 128, 96))
    for feature, level in zip(maps, levels, strict=True):
        assert feature.shape[-2:] == (math.ceil(128 / (2 * level)), math.ceil(96 / (2 * level)))


def test_classes_reach_every_head_but_the_proposals():
    model = make_module("cascade_rcnn", network=StridedNetwork(num_classes=7)).model
    assert [head.num_classes for head in model.roi_head.bbox_head] == [7, 7, 7]
    assert model.rpn_head.num_classes == 1


def test_nas_fpn_trains_and_predicts_at_small_sizes():
    overrides = {
        "neck": {"out_channels": 8, "stack_times": 1},
        "bbox_head": {"stacked_convs": 1, "feat_channels": 8},
        "data_preprocessor": {"batch_augments": None},
    }
    network = StridedNetwork(channels=(4, 6, 8, 10, 12), strides=(4, 8, 16, 32, 64))
    module = make_module("nas_fpn", network=network, overrides=overrides)
    assert module.model.bbox_head.num_ins == 5
    assert torch.isfinite(module.training_step(make_batch(), 0))
    assert module.predict(make_batch()["inputs"])[0]["boxes"].shape[-1] == 4


def test_a_model_of_three_maps_gets_the_deepest_ones():
    overrides = {"neck": {"out_channels": 16, "num_csp_blocks": 1}, "bbox_head": {"feat_channels": 16}}
    preprocessor = {"data_preprocessor": {"batch_augments": None}}
    module = make_module("yolox/yolox_tiny_8xb8-300e_coco.py", overrides=overrides | preprocessor)
    assert module.model.neck.in_channels == [12, 16, 20]
    assert [stride[0] for stride in module.model.bbox_head.prior_generator.strides] == [8, 16, 32]
    assert torch.isfinite(module.training_step(make_batch(), 0))


# ---- configs ---------------------------------------------------------------------------------------------------------


def test_a_config_may_be_a_name_a_path_or_a_dict(tmp_path):
    with scope("mmdet"):
        import mmdet
        from mmengine.config import Config

        folder = mmdet.__path__[0] + "/.mim/configs/"
        full = Config.fromfile(folder + "retinanet/retinanet_r50_fpn_1x_coco.py")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(full.model.to_dict()))))
    expected = make_module("retinanet").state_dict()
    for detector in (
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        folder + "_base_/models/retinanet_r50_fpn.py",
        str(tmp_path / "model.yaml"),
        {"model": full.model.to_dict()},
    ):
        found = make_module(detector, overrides=SMALL["retinanet"]).state_dict()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_overrides_leave_what_they_are_given_as_it_was():
    config, overrides = {"type": "FCOS", "neck": {"type": "FPN", "in_channels": [1]}}, copy.deepcopy(SMALL["retinanet"])
    with pytest.raises(ValueError, match="no head of the config states its 'num_classes'"):
        make_module(config, overrides={"neck": {"num_outs": 5}})
    make_module("retinanet", overrides=overrides)
    assert config["neck"] == {"type": "FPN", "in_channels": [1]} and overrides == SMALL["retinanet"]


@pytest.mark.parametrize(
    "detector, overrides, message",
    [
        ("faster_rccn", {}, "detector is 'faster_rccn'; did you mean 'faster_rcnn'"),
        ("retinanet/retinanet_r50_fpn_1x_coc.py", {}, "did you mean 'retinanet/retinanet_r50_fpn_1x_coco.py'"),
        ({"neck": {}}, {}, "describes no model of mmdet"),
        ("retinanet", {"backbone": {"depth": 18}}, "the network's own"),
        ("retinanet", {"box_head": {}}, "mmdet cannot build its RetinaNet: .*'box_head'"),
        ("_base_/models/faster-rcnn_r50-caffe-c4.py", {}, "FasterRCNN has no neck"),
        ("retinanet", {"neck": {"start_level": 4}}, "starts at map 4 .* has 4"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(detector, overrides, message):
    with pytest.raises(ValueError, match=message):
        make_module(detector, overrides=overrides)


def test_a_network_without_what_is_needed_is_refused():
    with pytest.raises(ValueError, match="needs a network with a 'backbone', and Linear has none"):
        DetectionModule(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="num_classes of StridedNetwork is 0, at least 1"):
        DetectionModule(StridedNetwork(num_classes=0))
    for name, value, message in [
        ("channels", None, "does not say its 'channels'"),
        ("strides", (4,), "one each a map"),
        ("in_channels", 1, "in_channels 1, 3 is needed"),
    ]:
        network = StridedNetwork()
        if value is None:
            delattr(network.backbone, name)
        else:
            setattr(network.backbone, name, value)
        with pytest.raises(ValueError, match=message):
            DetectionModule(network)


# ---- under the Trainer -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A detector that has learned two images by heart, its data, its metrics, and the loss of every epoch."""
    data = ShapesData(tmp_path_factory.mktemp("shapes"))
    losses = []

    class Recorded(DetectionModule):
        def on_train_epoch_end(self):
            losses.append(float(self.train_loss.compute()))
            super().on_train_epoch_end()

    torch.manual_seed(0)
    settings = {"rpn_head": {"anchor_generator": {"scales": [4]}, "feat_channels": WIDTH}}
    few = {"rpn_proposal": {"max_per_img": 50}, "rcnn": {"sampler": {"num": 32}}}
    overrides = SMALL["faster_rcnn"] | settings | {"train_cfg": few, "test_cfg": {"rpn": {"max_per_img": 50}}}
    schedule = LearningRateSchedule("cosine", warmup=5)
    module = Recorded(StridedNetwork(), overrides=overrides, learning_rate=0.03, schedule=schedule)
    epochs = 90
    trainer = Trainer(max_epochs=epochs, check_val_every_n_epoch=epochs, gradient_clip_val=5.0, **QUIET)
    trainer.fit(module, datamodule=data)
    return module, data, {name: float(value) for name, value in trainer.callback_metrics.items()}, losses


def test_two_images_are_learned_by_heart(learned):
    _, _, metrics, losses = learned
    assert len(losses) == 90 and losses[-1] < losses[0] / 5
    assert metrics["train_loss"] == pytest.approx(losses[-1])
    assert metrics["val_map_50"] > 90


def test_average_precision_is_that_of_pycocotools(learned):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    module, data, metrics, _ = learned
    predictions = []
    for image, found in enumerate(module.predict(data.shapes.images)):
        for box, score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True):
            left, top, right, bottom = box.tolist()
            box = [left, top, right - left, bottom - top]
            predictions.append({"image_id": image, "category_id": int(label) + 1, "bbox": box, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data.file))
        evaluation = COCOeval(truth, truth.loadRes(predictions), "bbox")
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    names = ("val_map", "val_map_50", "val_map_75", "val_map_small", "val_map_medium")
    for name, expected in zip(names, evaluation.stats, strict=False):
        # The library rounds to a tenth of a point.
        assert metrics[name] == pytest.approx(100 * expected, abs=0.0501)
    assert 30 < metrics["val_map"] < 100
    # There is no object of more than 96^2 pixels, for which COCO says -1.
    assert evaluation.stats[5] == -1 and "val_map_large" not in metrics


def test_testing_logs_the_same_as_validation(learned):
    module, data, metrics, _ = learned
    trainer = Trainer(**QUIET)
    trainer.test(module, datamodule=data, verbose=False)
    assert {name: float(value) for name, value in trainer.callback_metrics.items()} == {
        name.replace("val_", "test_"): value for name, value in metrics.items() if name.startswith("val_")
    }


def test_prediction_leaves_the_module_as_it_was():
    module = make_module("retinanet").train()
    module.model.backbone.stages[0].eval()
    before = copy.deepcopy(module.state_dict())
    module.predict(make_batch()["inputs"])
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert module.training and not module.model.backbone.stages[0].training and module.model.neck.training


def test_no_detections_at_all_are_a_precision_of_zero(tmp_path, capsys):
    module = make_module("retinanet", overrides=SMALL["retinanet"] | {"test_cfg": {"score_thr": 0.99}})
    trainer = Trainer(**QUIET)
    trainer.validate(module, datamodule=ShapesData(tmp_path), verbose=False)
    assert {name: float(value) for name, value in trainer.callback_metrics.items()} == {
        "val_map": 0.0,
        "val_map_50": 0.0,
        "val_map_75": 0.0,
    }
    assert "empty" not in capsys.readouterr().out


def test_a_batch_follows_the_module_to_its_device():
    # Lightning moves a module without mmengine's knowledge, whose preprocessors know a device of their own.
    module = make_module().to("meta")
    data = module.preprocess(make_batch(), training=True)
    assert data["inputs"].device.type == "meta" and data["inputs"].dtype == torch.float32


def test_one_seed_gives_one_run_and_its_state_can_be_loaded(tmp_path):
    def run():
        torch.manual_seed(3)
        module = make_module("faster_rcnn", seed=3, schedule=STRAIGHT, learning_rate=0.01)
        Trainer(max_epochs=2, limit_val_batches=0, **QUIET).fit(module, datamodule=ShapesData(tmp_path))
        return module

    first, second, other = run(), run(), make_module("faster_rcnn", seed=9)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert not torch.equal(first.model.neck.fpn_convs[0].conv.weight, other.model.neck.fpn_convs[0].conv.weight)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for ours, theirs in zip(*(each.predict(make_batch()["inputs"]) for each in (first, other)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("detector", ["faster_rcnn", "retinanet"])
def test_mixed_precision_trains_and_is_evaluated(tmp_path, detector):
    module = make_module(detector, schedule=STRAIGHT, learning_rate=0.001)
    trainer = Trainer(max_epochs=1, precision="bf16-mixed", **QUIET)
    trainer.fit(module, datamodule=ShapesData(tmp_path))
    assert torch.isfinite(trainer.callback_metrics["train_loss"]) and "val_map" in trainer.callback_metrics
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_the_optimiser_is_sgd_with_mmdets_numbers(tmp_path):
    module = make_module("retinanet", schedule=LearningRateSchedule("steps", warmup=0, milestones=(1,)))
    trainer = Trainer(max_epochs=2, limit_val_batches=0, **QUIET)
    trainer.fit(module, datamodule=ShapesData(tmp_path))
    group = trainer.optimizers[0].param_groups[0]
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.9, 1e-4)
    assert group["lr"] == pytest.approx(0.002)
    assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in module.model.parameters())


def test_a_run_shorter_than_the_warm_up_is_refused(tmp_path):
    with pytest.raises(ValueError, match="warmup of 500 iterations is longer than the run of 1"):
        Trainer(max_epochs=1, **QUIET).fit(make_module("retinanet"), datamodule=ShapesData(tmp_path))


def test_data_of_other_classes_are_refused(tmp_path):
    module = make_module("retinanet", network=StridedNetwork(num_classes=2))
    with pytest.raises(ValueError, match="the data have 3 classes and the network 2"):
        Trainer(max_epochs=1, **QUIET).fit(module, datamodule=ShapesData(tmp_path))


def test_data_without_metrics_are_refused(tmp_path):
    data = ShapesData(tmp_path)
    with pytest.raises(ValueError, match=r"asks its data module for 'val_metrics\(\)', and NoneType has none"):
        Trainer(**QUIET).validate(make_module("retinanet"), data.val_dataloader(), verbose=False)


def test_a_lone_image_pooled_to_one_pixel_says_what_to_do():
    network = StridedNetwork(channels=(4, 6, 8, 10, 12), strides=(4, 8, 16, 32, 64))
    module = make_module("retinanet", network=network)
    with pytest.raises(ValueError, match="batch_size of at least 2 and drop_last"):
        module.training_step(collate([Shapes()[0]]), 0)
    assert torch.isfinite(module.training_step(make_batch(), 0))


# ---- a neck of the network's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn", "nas_fpn"])
def test_a_networks_own_neck_takes_the_place_of_the_stock_one(detector):
    torch.manual_seed(0)
    backbone = StridedBackbone()
    network = PyramidNetwork(backbone, MergingCellFPN(list(backbone.channels), WIDTH, stack_times=1), 3)
    weights = copy.deepcopy(network.neck.state_dict())
    small = SMALL.get(detector, {"bbox_head": {"feat_channels": WIDTH, "stacked_convs": 1}})
    overrides = {name: part for name, part in small.items() if name != "neck"}
    module = make_module(detector, network=network, overrides=overrides)
    assert module.model.neck is network.neck
    assert all(torch.equal(value, weights[name]) for name, value in network.neck.state_dict().items())
    loss, _ = module.model.parse_losses(module.losses(make_batch()))
    loss.backward()
    assert all(each.weight.grad.abs().sum() > 0 for each in network.neck.modules() if isinstance(each, nn.Conv2d))
    first = module.model.rpn_head if detector == "faster_rcnn" else module.model.bbox_head
    strides = [stride for stride, _ in first.prior_generator.strides]
    assert strides == [backbone.strides[1] * 2**k for k in range(5)]
    with pytest.raises(ValueError, match="the 'neck' is the network's own"):
        make_module(detector, network=network, overrides={"neck": {"out_channels": 8}})


def test_mmdet_knows_the_neck_by_name():
    overrides = {"neck": {"_delete_": True, "type": "MergingCellFPN", "in_channels": [1] * 4, "out_channels": WIDTH}}
    overrides["bbox_head"] = {"in_channels": WIDTH, "feat_channels": WIDTH, "stacked_convs": 1}
    overrides["neck"] |= {"stack_times": 2, "start_level": 1, "num_outs": 5, "form": "mmdet"}
    module = make_module("retinanet", overrides=overrides)
    assert type(module.model.neck) is MergingCellFPN and module.model.neck.form == "mmdet"
    assert module.model.neck.in_channels == list(StridedBackbone().channels)
    assert len(module.predict([torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)])) == 1


def test_a_stock_config_that_somebody_has_changed_is_as_it_was_for_the_next():
    first, second = (load_model_config("mmdet", "detector", "retinanet", DETECTORS) for _ in range(2))
    assert first == second and first["bbox_head"]["num_classes"] == 80
    first["bbox_head"]["num_classes"] = 3
    assert load_model_config("mmdet", "detector", "retinanet", DETECTORS) == second
