"""Scenes of digits, recomputed from what they were composed of, and the four data modules over them."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from torch.nn import functional

from datamodules.digit_scenes import (
    DigitScenesClassification,
    DigitScenesDepth,
    DigitScenesDetection,
    DigitScenesSegmentation,
)
from datamodules.digits import load_digits_arrays
from datamodules.image_arrays import ImageArrays
from datamodules.scenes import CLASSES, INK, compose_scenes, digit_scenes
from search.spaces.nasbench201 import NASBench201
from search.tasks.subtask_pool import SubtaskPool

FEW = {"scenes": 24, "val_scenes": 12}
MODULES = (DigitScenesClassification, DigitScenesDetection, DigitScenesSegmentation, DigitScenesDepth)


@pytest.fixture(scope="module")
def scenes():
    return digit_scenes("train", 60, 64, 4, 3)


def ink_of(placement, digits):
    card = torch.from_numpy(digits[placement.digit] / 255)[None, None]
    return functional.interpolate(card, size=(placement.side,) * 2, mode="bilinear")[0, 0].numpy()


def test_all_that_is_known_of_a_scene_follows_from_its_placements(scenes):
    digits = load_digits_arrays().train_images[..., 0]
    labels = load_digits_arrays().train_labels
    for k, placements in enumerate(scenes.placements):
        owner = np.full((64, 64), -1)
        # Pixel by pixel the nearest digit with ink there, found without the order in which they were drawn.
        nearest = np.zeros((64, 64))
        for number, each in enumerate(placements):
            assert each.label == labels[each.digit]
            for row, column in zip(*np.nonzero(ink_of(each, digits) >= INK), strict=True):
                place = each.top + row, each.left + column
                if each.inverse_depth > nearest[place]:
                    nearest[place], owner[place] = each.inverse_depth, number
        np.testing.assert_array_equal(scenes.instance_map[k], owner + 1)
        names = np.array([0, *(each.label + 1 for each in placements)])
        np.testing.assert_array_equal(scenes.class_map[k], names[owner + 1])
        corner, per_column, per_row = scenes.plane[k]
        plane = np.array([[corner + per_column * x + per_row * y for x in range(64)] for y in range(64)])
        np.testing.assert_allclose(scenes.inverse_depth[k], np.where(owner >= 0, nearest, plane), rtol=1e-6)
        assert len(scenes.boxes[k]) == len(placements)
        for number, box in enumerate(scenes.boxes[k]):
            ys, xs = np.nonzero(owner == number)
            np.testing.assert_array_equal(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert scenes.labels[k].tolist() == [each.label for each in placements]


def test_digits_are_nearer_than_the_plane_and_larger_the_nearer_they_are(scenes):
    digit = scenes.instance_map > 0
    assert 0.12 <= scenes.inverse_depth[~digit].min() and scenes.inverse_depth[~digit].max() <= 0.3 + 1e-6
    placements = [each for placed in scenes.placements for each in placed]
    distance, side = (np.array(values) for values in zip(*((p.inverse_depth, p.side) for p in placements), strict=True))
    assert distance.min() >= 0.4 and distance.max() <= 1
    assert np.corrcoef(distance, side)[0, 1] > 0.9


def test_every_digit_can_be_seen_and_the_nearest_wholly(scenes):
    digits, hidden = load_digits_arrays().train_images[..., 0], 0
    for k, placements in enumerate(scenes.placements):
        assert placements == sorted(placements, key=lambda each: each.inverse_depth)
        for number, each in enumerate(placements):
            whole, seen = (ink_of(each, digits) >= INK).sum(), (scenes.instance_map[k] == number + 1).sum()
            assert seen >= 0.6 * whole
            hidden += seen < whole
        assert seen == whole
    assert hidden > 5  # there is occlusion at all


def test_pixels_of_a_digit_have_its_colour(scenes):
    digits, errors = load_digits_arrays().train_images[..., 0], []
    for image, placements in zip(scenes.images, scenes.placements, strict=True):
        nearest = placements[-1]
        rows, columns = np.nonzero((ink := ink_of(nearest, digits)) > INK + 0.21)
        expected = np.outer(0.7 + 0.3 * ink[rows, columns], nearest.colour)
        errors.append(image[nearest.top + rows, nearest.left + columns] - expected)
    errors = np.concatenate(errors)
    assert np.abs(errors.mean(axis=0)).max() < 0.5 and np.abs(errors).max() < 25  # noise of 3 levels


def test_scenes_are_a_function_of_the_seed_however_many_there_are(scenes):
    arrays = load_digits_arrays()
    again = compose_scenes(arrays.train_images[..., 0], arrays.train_labels, 20, 3)
    np.testing.assert_array_equal(again.images, scenes.images[:20])
    assert again.placements == scenes.placements[:20]
    other = compose_scenes(arrays.train_images[..., 0], arrays.train_labels, 20, 4)
    assert (other.images != again.images).any(axis=(1, 2, 3)).all()
    assert digit_scenes("train", 60, 64, 4, 3) is scenes
    counts = np.bincount([len(each) for each in digit_scenes("train", 400, 64, 4, 0).labels], minlength=5)
    assert counts[0] == 0 and (counts[1:] > 60).all()  # 1 to 4 digits, about as often each
    assert (np.bincount(digit_scenes("train", 400, 64, 4, 0).nearest, minlength=10) > 15).all()


def test_validation_scenes_are_of_other_digits():
    arrays, val = load_digits_arrays(), digit_scenes("val", 12, 64, 4, 0)
    for each in (each for placed in val.placements for each in placed):
        assert each.label == arrays.val_labels[each.digit]
    used = {bytes(arrays.val_images[each.digit]) for placed in val.placements for each in placed}
    assert not used & {bytes(image) for image in arrays.train_images}


def test_every_task_shows_the_same_scenes():
    scenes = digit_scenes("train", 24, 64, 4, 0)
    arrays = DigitScenesClassification(**FEW).arrays
    np.testing.assert_array_equal(arrays.train_images, scenes.images)
    assert arrays.train_labels.tolist() == [placed[-1].label for placed in scenes.placements]
    for module in (DigitScenesDetection, DigitScenesSegmentation):
        batch = module(**FEW).training_set(augmented=False).__getitems__([5, 0])
        for k, image in zip([5, 0], batch["inputs"], strict=True):
            assert image.dtype == torch.uint8
            # Blue, green, red, as the libraries read files.
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy()[..., ::-1], scenes.images[k])
    picture, depth = DigitScenesDepth(**FEW).train_pictures[5]
    np.testing.assert_array_equal(picture, scenes.images[5])
    np.testing.assert_array_equal(depth, scenes.inverse_depth[5])


def test_classification_serves_a_pool_of_subtasks():
    data = DigitScenesClassification(**FEW | {"scenes": 300, "val_scenes": 100}, batch_size=32)
    assert (data.num_classes, data.in_channels) == (10, 3) and not data.training_set().flip
    pool = SubtaskPool(NASBench201(), data, classes=[3], resolutions=[16], epochs=1, build={"channels": 4, "cells": 1})
    task = pool.draw(0, seed=1)
    assert isinstance(task.data.arrays, ImageArrays) and task.data.arrays.train_images.shape[1:] == (16, 16, 3)
    assert task.data.num_classes == 3 and not task.data.training_set().flip
    assert "digit scenes at 16x16" in pool.describe(0, seed=1)
    images, labels = next(iter(DigitScenesClassification(**FEW, resolution=32).train_dataloader()))
    assert images.shape == (24, 3, 32, 32) and labels.max() < 10


def test_detection_hands_out_the_boxes():
    data, scenes = DigitScenesDetection(**FEW, batch_size=10), digit_scenes("train", 24, 64, 4, 0)
    assert data.num_classes == 10 and len(data.metainfo["palette"]) == 10
    seen = []
    for batch in data.train_dataloader():
        assert len(batch["inputs"]) == 10  # an incomplete batch is left out
        for sample in batch["data_samples"]:
            seen.append(sample.img_id)
            np.testing.assert_array_equal(sample.gt_instances.bboxes.numpy(), scenes.boxes[sample.img_id])
            np.testing.assert_array_equal(sample.gt_instances.labels, scenes.labels[sample.img_id])
            assert sample.img_shape == sample.ori_shape == (64, 64) and sample.scale_factor == (1.0, 1.0)
    assert len(set(seen)) == 20 and seen != sorted(seen)


def evaluate(data, predict):
    evaluator = Evaluator(data.val_metrics())
    for batch in data.val_dataloader():
        for sample in batch["data_samples"]:
            predict(sample)
        evaluator.process(data_samples=batch["data_samples"], data_batch=batch)
    return evaluator.evaluate(len(data.validation_set()))


def with_boxes(shift):
    from mmengine.structures import InstanceData

    def predict(sample):
        truth = sample.gt_instances
        boxes = truth.bboxes.tensor + shift
        sample.pred_instances = InstanceData(bboxes=boxes, labels=truth.labels, scores=torch.ones(len(boxes)))

    return predict


@pytest.mark.parametrize("split", ["val", "train"])
def test_a_perfect_detector_has_a_mean_average_precision_of_1(split):
    data = DigitScenesDetection(**FEW, batch_size=5, val_split=split)
    assert len(data.validation_set()) == {"val": 12, "train": 24}[split]
    assert evaluate(data, with_boxes(0.0))["coco/bbox_mAP"] == 1
    # 2 pixels off, small boxes overlap by less than nine tenths.
    assert 0.2 < evaluate(data, with_boxes(2.0))["coco/bbox_mAP"] < 0.8


def test_a_perfect_segmentation_has_a_mean_intersection_over_union_of_100():
    from mmengine.structures import PixelData

    data, scenes = DigitScenesSegmentation(**FEW, batch_size=5), digit_scenes("val", 12, 64, 4, 0)
    assert data.num_classes == 11 == len(data.metainfo["palette"]) and data.metainfo["classes"] == CLASSES
    for k, sample in enumerate(data.validation_set().__getitems__(range(12))["data_samples"]):
        np.testing.assert_array_equal(sample.gt_sem_seg.data[0].numpy(), scenes.class_map[k])

    def perfect(sample):
        sample.pred_sem_seg = PixelData(data=sample.gt_sem_seg.data)

    def background(sample):
        sample.pred_sem_seg = PixelData(data=torch.zeros_like(sample.gt_sem_seg.data))

    assert evaluate(data, perfect) == {"aAcc": 100, "mIoU": 100, "mAcc": 100}
    share = (scenes.class_map == 0).mean()
    present = len(np.unique(scenes.class_map))
    assert evaluate(data, background)["mIoU"] == pytest.approx(100 * share / present, abs=0.01)


def test_depth_is_that_of_the_scenes():
    data, scenes = DigitScenesDepth(**FEW), digit_scenes("train", 24, 64, 4, 0)
    assert (data.num_classes, data.in_channels) == (0, 3)
    batches = data.training_set()
    turned = set()
    for epoch in range(4):
        batches.set_epoch(epoch)
        images, (inverse_depth, mask) = batches.__getitems__([7, 3])
        assert images.shape == (2, 3, 64, 64) and mask.all()
        for k, shown in zip([7, 3], inverse_depth[:, 0].numpy(), strict=True):
            flip = not np.array_equal(shown, scenes.inverse_depth[k])
            np.testing.assert_array_equal(shown, scenes.inverse_depth[k][:, :: -1 if flip else 1])
            turned.add(flip)
    assert turned == {False, True}
    assert len(next(iter(data.val_dataloader()))[0]) == 12


def epoch_of(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {
        sample.img_id: (image, sample.gt_instances.bboxes.tensor)
        for batch in loader
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    }


def test_workers_and_batches_change_no_sample_and_epochs_do():
    one = epoch_of(DigitScenesDetection(**FEW, batch_size=24, flip=0.5))
    other = epoch_of(DigitScenesDetection(**FEW, batch_size=4, flip=0.5, num_workers=2))
    later = epoch_of(DigitScenesDetection(**FEW, batch_size=24, flip=0.5), epoch=1)
    assert one.keys() == other.keys() == later.keys()
    assert all(torch.equal(a, b) for k in one for a, b in zip(one[k], other[k], strict=True))
    changed = [k for k in one if not torch.equal(one[k][0], later[k][0])]
    assert 4 < len(changed) < 20
    for k in changed:  # a flip mirrors boxes along with the image
        torch.testing.assert_close(one[k][0], later[k][0].flip(-1))
        left, top, right, bottom = later[k][1].unbind(1)
        torch.testing.assert_close(one[k][1], torch.stack([64 - right, top, 64 - left, bottom], dim=1))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("key", ["scenes", "val_scenes", "digits", "size", "scene_seed", "batch_size", "seed"])
def test_numbers_out_of_range_are_refused(module, key):
    with pytest.raises(ValueError, match=f"^{key} is -1, "):
        module(**{key: -1})
