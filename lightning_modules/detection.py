"""Training one network to detect objects: the COCO recipe of mmdet around a backbone of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.openmmlab.config import (
    Config,
    SelectedMaps,
    build_model,
    building,
    each_dict,
    forget_downloads,
    load_model_config,
    merge,
    set_num_classes,
    split_network,
)
from lightning_modules.openmmlab.module import Batch, OpenMMLabModule, inference_of

DETECTORS = MappingProxyType(
    {
        "faster_rcnn": "_base_/models/faster-rcnn_r50_fpn.py",
        "retinanet": "_base_/models/retinanet_r50_fpn.py",
        "cascade_rcnn": "_base_/models/cascade-rcnn_r50_fpn.py",
        "nas_fpn": "nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py",
    }
)
"""Stock models of mmdet by short name, below its ``configs`` folder."""

_FINEST_SCALE = 14
"""RoIs up to twice this many cells of the finest map are read from it: mmdet's 56 pixels at stride 4."""


class DetectionModule(OpenMMLabModule):
    """Object detection with a detector of mmdet, SGD and a learning rate that falls in steps.

    Neck, heads, losses, and prediction are the stock model's; the backbone is the network's own, with the weights that
    it brings. What follows from the backbone is set in the config: the neck's input channels, the strides of anchors
    and RoIs (a finer stem makes finer anchors), the number of classes. Nothing is frozen, and batch normalisation
    learns, for nothing is pretrained unless the caller has loaded it.

    The defaults are those of mmdet's schedule of 12 epochs: SGD, a warm-up of 500 iterations, a tenth after 8 and 11
    of 12 epochs. Its learning rate is for 16 images a step and goes with their number. A limit on gradients is the
    Trainer's ``gradient_clip_val``; batch size, scaling and flipping belong to the data module.

    Logged at the end of an epoch, over all images of all ranks: ``train_loss``; and from COCO's evaluation, in %,
    ``val_map`` (the mean over the IoU thresholds 0.5 to 0.95), ``val_map_50``, ``val_map_75``, and by size of the
    objects ``val_map_small``, ``val_map_medium`` and ``val_map_large``, each where there are such objects. Lightning's
    ``test`` logs the same as ``test_...``.

    Args:
        network: has ``backbone`` and ``num_classes``, and perhaps a ``neck`` that takes the place of the detector's, as
            `MergingCellFPN` does; the rest of it is left aside.
        detector: ``faster_rcnn``, ``retinanet``, ``cascade_rcnn``, ``nas_fpn``; the path of a config of mmdet, from
            here or from its own ``configs`` folder; or a model config. It needs a neck. A model of fewer feature maps
            than the backbone has is given the deepest ones.
        overrides: merged into the model config, for instance ``{"neck": {"out_channels": 64}}``; the heads' input
            channels follow the neck's. Merged into a list of heads, a dict changes every one of them.
        learning_rate: of SGD, at the schedule's highest.
        momentum: of SGD.
        weight_decay: on all parameters, those of normalisation included.
        schedule: of the learning rate; None for the above.

    Raises:
        ValueError: there is no such detector, the config does not fit, or the network lacks what is needed of it.
    """

    library, config_argument, stock = "mmdet", "detector", DETECTORS
    metric_names = MappingProxyType(
        {
            "bbox_mAP": ("map", 100.0),
            "bbox_mAP_50": ("map_50", 100.0),
            "bbox_mAP_75": ("map_75", 100.0),
            "bbox_mAP_s": ("map_small", 100.0),
            "bbox_mAP_m": ("map_medium", 100.0),
            "bbox_mAP_l": ("map_large", 100.0),
        }
    )

    def __init__(
        self,
        network: nn.Module,
        detector: str | dict[str, Any] = "faster_rcnn",
        overrides: dict[str, Any] | None = None,
        learning_rate: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        schedule: LearningRateSchedule | None = None,
    ):
        self.detector, self.overrides = detector, overrides or {}
        super().__init__(
            network, learning_rate, momentum, weight_decay, schedule or LearningRateSchedule("steps", warmup=500)
        )

    def configure_models(self, network: nn.Module) -> None:
        """Build the detector around the network's backbone."""
        backbone, self.num_classes = split_network(network, type(self).__name__)
        config = load_model_config("mmdet", "detector", self.detector, DETECTORS)
        if "backbone" in self.overrides:
            raise ValueError("overrides: the 'backbone' is the network's own and cannot be overridden")
        stock_width = _neck(config).get("out_channels")
        neck = getattr(network, "neck", None)
        if neck is not None:
            if "neck" in self.overrides:
                raise ValueError("overrides: the 'neck' is the network's own and cannot be overridden")
            config["neck"] = _described(neck)
        merge(config, self.overrides)
        forget_downloads(config)
        channels, strides = tuple(backbone.channels), tuple(backbone.strides)  # type: ignore[arg-type]
        # A stock neck of all four stages takes every map of ours, the fifth too; one of fewer leaves the finest out.
        wanted = len(_neck(config)["in_channels"])
        first = max(0, len(channels) - wanted) if wanted < 4 else 0
        fit_to_backbone(config, channels[first:], strides[first:], self.num_classes, stock_width)
        body = SelectedMaps(backbone, range(first, len(channels))) if first else backbone
        config["backbone"] = building(body)
        if neck is not None:
            config["neck"] = building(neck)
        self.model = build_model("mmdet", "detector", config, body)

    def predict(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Objects in images.

        Args:
            images: uint8 ``[3, height, width]`` each, channels in the order of the data module's; OpenCV's blue, green,
                red in the stock configs.

        Returns:
            For each image, best first: ``boxes`` float32 ``[n, 4]``, the pixels left, top, right and bottom; ``scores``
            float32 ``[n]``; ``labels`` int64 ``[n]``.
        """
        from mmdet.structures import DetDataSample

        samples = []
        for image in images:
            size = tuple(image.shape[-2:])
            samples.append(DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)}))
        with inference_of(self):
            found = [s.pred_instances for s in self.predict_samples({"inputs": list(images), "data_samples": samples})]
        return [{"boxes": each.bboxes, "scores": each.scores, "labels": each.labels} for each in found]

    def predict_samples(self, batch: Batch, testing: bool = False) -> list[Any]:
        """The batch's samples with the detected objects in them."""
        samples = super().predict_samples(batch, testing)
        for sample in samples:
            found = sample.pred_instances
            # In mixed precision they may be bfloat16, which COCO's evaluation cannot read.
            found.bboxes, found.scores = found.bboxes.float(), found.scores.float()
        return samples

    def read_results(self, results: Mapping[str, float]) -> dict[str, float]:
        """Our names for COCO's results.

        COCO says -1 where there are no objects to find; that is no precision and is left out. mmdet says nothing at all
        where no image has a single detection, as in a first epoch: a precision of 0.
        """
        ours = super().read_results(results or {"bbox_mAP": 0.0, "bbox_mAP_50": 0.0, "bbox_mAP_75": 0.0})
        return {name: value for name, value in ours.items() if value >= 0}


def fit_to_backbone(
    config: Config,
    channels: Sequence[int],
    strides: Sequence[int],
    num_classes: int,
    stock_width: int | None,
) -> None:
    """Set in a detector's config, in place, what follows from the backbone and the number of classes.

    Args:
        config: of the model, with a neck.
        channels: of the feature maps that the neck gets.
        strides: in pixels, one a map.
        num_classes: without background.
        stock_width: the neck's ``out_channels`` before any override; heads that took so many take the new number.

    Raises:
        ValueError: the neck begins behind the last map, or no head states its number of classes.
    """
    neck = _neck(config)
    start, end = neck.get("start_level", 0), neck.get("end_level", -1)
    if start >= len(channels):
        raise ValueError(f"detector: its neck starts at map {start} (from 0), and the backbone has {len(channels)}")
    levels = [int(stride) for stride in (strides[start:] if end == -1 else strides[start : end + 1])]
    neck["in_channels"] = [int(channel) for channel in channels]
    if "num_outs" in neck:
        neck["num_outs"] = max(int(neck["num_outs"]), len(levels))
        while len(levels) < neck["num_outs"]:
            levels.append(2 * levels[-1])

    parts = {
        name: part
        for name, part in config.items()
        if name not in ("backbone", "data_preprocessor", "train_cfg", "test_cfg") and isinstance(part, (dict, list))
    }
    heads = {name: part for name, part in parts.items() if name != "neck"}
    later_necks = config["neck"][1:] if isinstance(config["neck"], list) else []
    width = neck.get("out_channels")
    for part in each_dict([list(heads.values()), later_necks]):
        if width is not None and part.get("in_channels") == stock_width:
            part["in_channels"] = width
        if "featmap_strides" in part:
            part["featmap_strides"] = levels[: len(part["featmap_strides"])]
            part["out_channels"] = width
            if part.get("type") == "SingleRoIExtractor":
                part.setdefault("finest_scale", _FINEST_SCALE * levels[0])
        if isinstance(part.get("strides"), (list, tuple)):
            part["strides"] = levels
        if "num_ins" in part:
            part["num_ins"] = len(levels)
    # The region proposal network tells objects from background, whatever the data's classes.
    set_num_classes({name: part for name, part in heads.items() if name != "rpn_head"}, num_classes, "detector")


def _described(neck: nn.Module) -> Config:
    """What a network's own neck says of itself, for what follows from it in the heads."""
    said = ("in_channels", "out_channels", "num_outs", "start_level")
    if missing := [name for name in said if not hasattr(neck, name)]:
        raise ValueError(f"detector: the network's neck {type(neck).__name__} does not say its {', '.join(missing)}")
    return {name: getattr(neck, name) for name in said}


def _neck(config: Config) -> Config:
    """The part of a config that takes the backbone's maps."""
    neck = config.get("neck")
    neck = neck[0] if isinstance(neck, list) and neck else neck
    if not isinstance(neck, dict) or not isinstance(neck.get("in_channels"), (list, tuple)):
        raise ValueError(
            f"detector: {config['type']} has no neck with a list of 'in_channels' (as FPN has) to take the backbone's "
            "feature maps; choose a config with one"
        )
    return neck
