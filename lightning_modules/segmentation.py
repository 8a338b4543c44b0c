"""Training one network to label every pixel: the Cityscapes recipe of mmseg around a backbone of ours."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.openmmlab.config import (
    Config,
    SelectedMaps,
    build_model,
    building,
    each_dict,
    forget_downloads,
    keeps_backbone,
    load_model_config,
    merge,
    set_num_classes,
    split_network,
)
from lightning_modules.openmmlab.module import Batch, OpenMMLabModule, inference_of

HEADS = MappingProxyType(
    {
        "fcn": "_base_/models/fcn_r50-d8.py",
        "deeplabv3plus": "_base_/models/deeplabv3plus_r50-d8.py",
        "bisenet": "_base_/models/bisenetv1_r18-d32.py",
    }
)
"""Stock models of mmseg by short name, below its ``configs`` folder."""

_STAGES = 4
"""The feature maps of the stock backbones, which the heads of stock configs count from 0."""


class SegmentationModule(OpenMMLabModule):
    """Semantic segmentation with a model of mmseg, SGD and a polynomial learning rate.

    Decode head, auxiliary head, losses and prediction are the stock model's; the backbone is the network's own, with
    the weights that it brings. The decode head reads the deepest map, the auxiliary head the one before it, and the
    decoder of DeepLabV3+ the finest. The stock configs called ``d8`` expect a backbone dilated to stride 8; ours are
    plain, so that these heads work at the stride of the deepest map, 32 or 64, and are cheaper and coarser than in
    mmseg's tables.

    Synchronised batch normalisation of the stock configs becomes the plain one, and the Trainer's
    ``sync_batchnorm: true`` makes all of them synchronised, the backbone's too. DeepLabV3+ and BiSeNet pool images to
    one pixel and so need at least two of them in every step of a device.

    The defaults are those of mmseg's schedules for Cityscapes. Batch size, crops and colours belong to the data module;
    pixels labelled 255 are ignored.

    Logged at the end of an epoch, over all images of all ranks: ``train_loss``, that of the auxiliary heads included;
    and from mmseg's evaluation, in %, ``val_miou``, ``val_pixel_accuracy`` and ``val_class_accuracy`` (the mean over
    the classes). Lightning's ``test`` logs the same as ``test_...``, with ``test_scales`` and ``test_flip``.

    Args:
        network: has ``backbone`` and ``num_classes``; the rest of it is left aside.
        head: ``fcn``, ``deeplabv3plus``, ``bisenet``; the path of a config of mmseg, from here or from its own
            ``configs`` folder; or a model config.
        overrides: merged into the model config, for instance ``{"decode_head": {"channels": 64}}``. Merged into a list
            of heads, a dict changes every one of them.
        learning_rate: of SGD, at the schedule's highest.
        momentum: of SGD.
        weight_decay: on all parameters, those of normalisation included.
        schedule: of the learning rate; None for mmseg's, the power 0.9 of the fraction that is left, down to 1e-4.
        test_scales: in testing and `predict`, images are read at each of these scales, and the class probabilities
            averaged, as mmseg's ``SegTTAModel`` does it.
        test_flip: also read every scale mirrored.

    Raises:
        ValueError: there is no such head, the config does not fit, or the network lacks what is needed of it.
    """

    library, config_argument, stock = "mmseg", "head", HEADS
    metric_names = MappingProxyType(
        {"mIoU": ("miou", 1.0), "aAcc": ("pixel_accuracy", 1.0), "mAcc": ("class_accuracy", 1.0)}
    )

    def __init__(
        self,
        network: nn.Module,
        head: str | dict[str, Any] = "fcn",
        overrides: dict[str, Any] | None = None,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: LearningRateSchedule | None = None,
        test_scales: Sequence[float] = (1.0,),
        test_flip: bool = False,
    ):
        if not test_scales or min(test_scales) <= 0:
            raise ValueError(f"test_scales is {list(test_scales)}, at least one number above 0 is needed")
        self.head, self.overrides = head, overrides or {}
        self.test_scales, self.test_flip = tuple(test_scales), test_flip
        super().__init__(
            network, learning_rate, momentum, weight_decay, schedule or LearningRateSchedule("poly", minimum=1e-4)
        )

    def configure_models(self, network: nn.Module) -> None:
        """Build the segmentation model around the network's backbone."""
        backbone, self.num_classes = split_network(network, type(self).__name__)
        config = load_model_config("mmseg", "head", self.head, HEADS)
        two_paths = keeps_backbone(config)
        if "backbone" in self.overrides and not two_paths:
            raise ValueError("overrides: the 'backbone' is the network's own and cannot be overridden")
        merge(config, self.overrides)
        forget_downloads(config)
        for part in each_dict(config):
            if part.get("type") in ("SyncBN", "MMSyncBN"):
                part["type"] = "BN"
        _pad_in_training(config)
        channels, strides = tuple(backbone.channels), tuple(backbone.strides)  # type: ignore[arg-type]
        if two_paths:
            maps = _maps_of_context_path(strides)
            if maps != list(range(len(channels))):
                backbone = SelectedMaps(backbone, maps)
            fit_bisenet(config, backbone, [channels[index] for index in maps])
        else:
            fit_to_backbone(config, channels, strides)
            config["backbone"] = building(backbone)
        heads = [config.get("decode_head"), config.get("auxiliary_head")]
        set_num_classes(heads, self.num_classes, "head")
        self.model = build_model("mmseg", "head", config, backbone)

    def predict(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The class of every pixel, with ``test_scales`` and ``test_flip``.

        Args:
            images: uint8 ``[3, height, width]`` each, channels in the order of the data module's; OpenCV's blue, green,
                red in the stock configs.

        Returns:
            Int64 ``[height, width]`` for each image.
        """
        from mmseg.structures import SegDataSample

        samples = [
            SegDataSample(metainfo={"img_shape": tuple(i.shape[-2:]), "ori_shape": tuple(i.shape[-2:])}) for i in images
        ]
        with inference_of(self):
            found = self.predict_samples({"inputs": list(images), "data_samples": samples}, testing=True)
        return [sample.pred_sem_seg.data.squeeze(0) for sample in found]

    def predict_samples(self, batch: Batch, testing: bool = False) -> list[Any]:
        """The batch's samples with the predicted classes in them, at the size of their labels.

        Args:
            batch: images, of any sizes, and samples.
            testing: whether to read images at ``test_scales`` and mirrored.
        """
        images, samples = batch["inputs"], batch["data_samples"]
        if testing and (self.test_scales != (1.0,) or self.test_flip):
            return [self._predict_augmented(image, sample) for image, sample in zip(images, samples, strict=True)]
        if len({image.shape for image in images}) == 1:
            found = super().predict_samples(batch)
        else:  # mmseg predicts for images of one size only
            pairs = zip(images, samples, strict=True)
            found = [super(SegmentationModule, self).predict_samples(_single(*pair))[0] for pair in pairs]
        for sample in found:
            del sample.seg_logits  # classes times the size of an image
        return found

    def _predict_augmented(self, image: Tensor, sample: Any) -> Any:
        """Average class probabilities over scales and mirror images."""
        from mmcv.transforms import Resize
        from mmengine.structures import PixelData

        # With OpenCV, as mmseg's pipelines resize: rounded to uint8 before the model normalises.
        pixels = image.permute(1, 2, 0).cpu().numpy()
        scaled_images = [
            Resize(scale_factor=scale, keep_ratio=True)({"img": pixels})["img"] for scale in self.test_scales
        ]
        total: Tensor | None = None
        for scaled in scaled_images:
            for flip in (False, True) if self.test_flip else (False,):
                view = torch.from_numpy(scaled).permute(2, 0, 1)
                variant = sample.new()
                shape = {"img_shape": tuple(view.shape[-2:]), "pad_shape": tuple(view.shape[-2:])}
                variant.set_metainfo(shape | {"flip": flip, "flip_direction": "horizontal" if flip else None})
                predicted = super().predict_samples(_single(view.flip(-1) if flip else view, variant))[0]
                logits = predicted.seg_logits.data
                probabilities = logits.softmax(0) if len(logits) > 1 else logits  # one channel: a sigmoid, taken
                total = probabilities if total is None else total + probabilities
        assert total is not None
        mean = total / (len(scaled_images) * (2 if self.test_flip else 1))
        decode_head: Any = self.model.decode_head
        classes = mean.argmax(0, keepdim=True) if len(mean) > 1 else (mean > decode_head.threshold).long()
        sample.set_data({"pred_sem_seg": PixelData(data=classes)})
        return sample


def fit_to_backbone(config: Config, channels: Sequence[int], strides: Sequence[int]) -> None:
    """Set in a segmentation model's config, in place, what follows from the backbone.

    Heads count the stock backbone's maps from the finest. The backbone may have one more or one less, and what a head
    reads is counted from the deepest.

    Args:
        config: of the model. With a neck, that takes the maps, and heads read what it gives.
        channels: of the feature maps.
        strides: in pixels, one a map.

    Raises:
        ValueError: the backbone has too few maps.
    """
    if config.get("neck"):
        config["neck"]["in_channels"] = list(channels)
        return
    stages = len(config.get("backbone", {}).get("out_indices", range(_STAGES)))
    for head in each_dict([config.get("decode_head"), config.get("auxiliary_head")]):
        if "in_channels" not in head:
            continue
        index = head.get("in_index", -1)
        if isinstance(index, (list, tuple)):
            everything = len(index) == stages
            head["in_index"] = list(range(len(channels))) if everything else [_map(i, stages, channels) for i in index]
            head["in_channels"] = [channels[i] for i in head["in_index"]]
        else:
            head["in_index"] = _map(index, stages, channels)
            head["in_channels"] = channels[head["in_index"]]
        if "c1_in_channels" in head:
            head["c1_in_channels"] = channels[0]
        if "feature_strides" in head:
            head["feature_strides"] = [strides[i] for i in head["in_index"]]


def fit_bisenet(config: Config, backbone: nn.Module, channels: Sequence[int]) -> None:
    """Put a backbone into the context path of BiSeNet (Yu et al. 2018), in place.

    Args:
        config: of the model, its ``backbone`` a BiSeNetV1. Of its ``context_channels`` only the first is free, the
            width of the path; the others are the backbone's.
        backbone: gives four maps.
        channels: of those.
    """
    paths = config["backbone"]
    width, spatial = paths["context_channels"][0], paths["spatial_channels"][-1]
    paths["context_channels"] = (width, *channels[-2:])
    paths["backbone_cfg"] = building(backbone)

    def build_paths(**arguments: Any) -> nn.Module:
        from mmseg.models.backbones.bisenetv1 import BiSeNetV1, FeatureFusionModule

        both = BiSeNetV1(**arguments)
        if channels[-2] != width + spatial:
            # mmseg takes the fusion's input for as wide as the map at stride 16, as it happens to be in ResNet-18.
            both.ffm = FeatureFusionModule(width + spatial, arguments.get("out_channels", 256))
        return both

    config["backbone"] = {**paths, "type": build_paths}
    for head in each_dict([config.get("decode_head"), config.get("auxiliary_head")]):
        if "in_channels" in head:
            head["in_channels"] = paths.get("out_channels", 256) if head.get("in_index", 0) == 0 else width


def _maps_of_context_path(strides: Sequence[int]) -> list[int]:
    """The four maps that BiSeNet reads: any, that of stride 8 where the paths meet, and the two deepest."""
    if 8 not in strides or len(strides) - tuple(strides).index(8) < 3:
        raise ValueError(
            f"head: bisenet reads a map of stride 8 and two deeper ones, and the backbone's strides are "
            f"{tuple(strides)}; use a coarser stem, or fcn or deeplabv3plus"
        )
    return [0, tuple(strides).index(8), len(strides) - 2, len(strides) - 1]


def _map(index: int, stages: int, channels: Sequence[int]) -> int:
    """A map of the stock backbone, counted from the deepest, as an index of ours."""
    ours = len(channels) + (index if index < 0 else index - stages)
    if not 0 <= ours < len(channels):
        raise ValueError(f"head: it reads map {index} of {stages}, and the backbone has {len(channels)} maps only")
    return ours


def _pad_in_training(config: Config) -> None:
    """Pad the images of a batch to the largest, for mmseg's stock models do not say how to put them together."""
    preprocessor = config.setdefault("data_preprocessor", {"type": "SegDataPreProcessor"})
    if preprocessor.get("size") is None and preprocessor.get("size_divisor") is None:
        preprocessor["size_divisor"] = 1


def _single(image: Tensor, sample: Any) -> Batch:
    return {"inputs": [image], "data_samples": [sample]}
