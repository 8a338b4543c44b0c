"""Segmentation data from folders: pictures that say in every pixel where it is, and CamVid."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from PIL import Image

from datamodules.segmentation_folder import CamVidDataModule, SegmentationFolderDataModule

CLASSES = ["near", "middle", "far"]
HEIGHT, WIDTH = 40, 48


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def label_of(row, column):
    """Stripes across both; the fourth label counts as none, as does 255."""
    return np.where((row + column) % 11 == 0, 255, (row // 3 + 2 * column) % 4)


def make(root, images=6, suffix=".png", sizes=((HEIGHT, WIDTH),)):
    """Red is the row, green the column and blue the picture."""
    for split in ("train", "val"):
        for k in range(images):
            rows, columns = np.mgrid[: sizes[k % len(sizes)][0], : sizes[k % len(sizes)][1]]
            picture = np.stack([rows, columns, np.full_like(rows, 10 * k)], axis=-1)
            save(root / "images" / split / f"{k}{suffix}", picture)
            save(root / "labels" / split / f"{k}.png", label_of(rows, columns))
    return str(root)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("folder"))


PLAIN = {"resolution": (WIDTH, HEIGHT), "crop": (24, 32), "scale_range": (1.0, 1.0), "photometric": False}


def load(root, **settings):
    return SegmentationFolderDataModule(root, CLASSES, **{"ignored_labels": [3], "batch_size": 1} | PLAIN | settings)


def epoch_of(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {
        sample.img_path: (image, sample.gt_sem_seg.data)
        for batch in loader
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    }


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(a, b) for k in one for a, b in zip(one[k], other[k], strict=True)
    )


def test_labels_stay_on_their_pixels_through_crop_and_flip(root):
    data, flips, corners = load(root), set(), set()
    assert (data.num_classes, data.in_channels) == (3, 3) and data.metainfo["classes"] == tuple(CLASSES)
    assert len(data.metainfo["palette"]) == 3
    for epoch in range(8):
        for path, (image, labels) in epoch_of(data, epoch).items():
            assert image.shape == (3, 24, 32) and image.dtype == torch.uint8
            assert labels.shape == (1, 24, 32) and labels.dtype == torch.int64
            blue, column, row = image.long().numpy()
            assert (blue == 10 * int(Path(path).stem)).all()
            expected = label_of(row, column)
            np.testing.assert_array_equal(labels[0], np.where(expected == 3, 255, expected))
            flips.add(bool(column[0, 0] > column[0, -1]))
            corners.add((int(row.min()), int(column.min())))
    assert flips == {False, True} and len(corners) > 20


def test_scales_are_drawn_from_their_range(root):
    data = load(root, scale_range=(0.5, 1.5), crop=(400, 400), flip=0.0)
    heights = [image.shape[1] for epoch in range(15) for image, _ in epoch_of(data, epoch).values()]
    assert 20 <= min(heights) < 24 and 56 < max(heights) <= 60
    for image, labels in epoch_of(data).values():
        assert labels.shape[1:] == image.shape[1:]


def test_photometric_changes_colours_and_no_labels(root):
    plain, changed = epoch_of(load(root, flip=0.0)), epoch_of(load(root, flip=0.0, photometric=True))
    assert all(torch.equal(plain[k][1], changed[k][1]) for k in plain)
    assert any(not torch.equal(plain[k][0], changed[k][0]) for k in plain)


def test_a_sample_is_a_function_of_seed_epoch_and_index_alone(root):
    settings = {"scale_range": (0.5, 2.0), "photometric": True}
    one = epoch_of(load(root, batch_size=2, **settings))
    assert len(one) == 6
    np.random.seed(5)  # noqa: NPY002 - the state that the transforms draw from
    assert same(one, epoch_of(load(root, batch_size=3, num_workers=2, **settings)))
    data = load(root, cache_megabytes=0, **settings)
    assert same(one, epoch_of(data))
    assert not same(one, epoch_of(data, 1))
    data.reseed(1)
    assert not same(one, epoch_of(data))
    data.reseed(0)
    assert same(one, epoch_of(data))


def evaluate(data, predict):
    evaluator = Evaluator(data.val_metrics())
    for batch in data.val_dataloader():
        for sample in batch["data_samples"]:
            sample.pred_sem_seg = PixelData(data=predict(sample))
        evaluator.process(data_samples=batch["data_samples"], data_batch=batch)
    return evaluator.evaluate(len(data.validation_set()))


def truth(sample):
    """Read from the file, on which 3 and 255 do not count: whatever is predicted there is as good."""
    return torch.from_numpy(np.array(Image.open(sample.seg_map_path)).astype(np.int64) % 3)[None]


@pytest.mark.parametrize("resolution", [(WIDTH, HEIGHT), (96, 96)])
def test_a_perfect_segmentation_has_a_mean_intersection_over_union_of_100(root, resolution):
    """Whatever the size that pictures are scaled to, labels are compared in the picture's own pixels."""
    data = load(root, resolution=resolution, batch_size=4)
    shapes = {tuple(image.shape) for batch in data.val_dataloader() for image in batch["inputs"]}
    assert shapes == ({(3, HEIGHT, WIDTH)} if resolution == (WIDTH, HEIGHT) else {(3, 80, 96)})
    assert evaluate(data, truth) == {"aAcc": 100, "mIoU": 100, "mAcc": 100}
    worse = evaluate(data, lambda sample: (truth(sample) == 2).long() * 2)  # class 1 taken for class 0
    assert 30 < worse["mIoU"] < 60


def test_limits_and_splits(root):
    assert len(load(root, images=2).training_set()) == 2 and len(load(root, val_images=4).validation_set()) == 4
    data = load(root, val_split="train", images=3)
    paths = [sample.img_path for sample in data.validation_set().__getitems__(range(3))["data_samples"]]
    assert [Path(path).parent.name for path in paths] == ["train"] * 3
    assert [sample.img_path for batch in data.test_dataloader() for sample in batch["data_samples"]] == paths


def test_pictures_of_several_sizes_are_validated_one_at_a_time(tmp_path):
    """For mmseg stacks the pictures of a validation batch as they are."""
    root = make(tmp_path, suffix=".jpg", sizes=((40, 48), (48, 40)))
    data = load(root, batch_size=3)
    assert [len(batch["inputs"]) for batch in data.val_dataloader()] == [1] * 6
    assert [len(batch["inputs"]) for batch in data.train_dataloader()] == [3, 3]


def test_missing_data_are_named_with_the_cure(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no pictures with label maps 'images/x' in .*; put pictures and label"
    ):
        _ = load("images/x").num_classes
    with pytest.raises(FileNotFoundError, match=r"'nowhere'.*download the folder CamVid of github\.com/alexgkendall"):
        _ = CamVidDataModule("nowhere").num_classes
    root = make(tmp_path, images=2)
    (tmp_path / "labels" / "val" / "1.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 2 pictures in .*val' have no label map, for instance '.*1\.png'"
    ):
        load(root).validation_set()
    with pytest.raises(ValueError, match=r"train' has no pictures \*\.gif; "):
        load(root, picture_suffix=".gif").validation_set()


def test_labels_without_a_class_are_refused(tmp_path):
    root = make(tmp_path, images=2)
    with pytest.raises(ValueError, match=r"0\.png has label 3, with 3 classes 0 to 2 and 255 are allowed"):
        load(root, ignored_labels=None).training_set()
    save(tmp_path / "labels" / "train" / "0.png", np.zeros((HEIGHT, WIDTH, 3)))
    with pytest.raises(ValueError, match=r"0\.png has 3 channels, a label map has one"):
        load(root).training_set()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resolution": (8, 512)}, r"resolution is \[8, 512\]"),
        ({"crop": (8, 512)}, r"crop is \[8, 512\]"),
        ({"scale_range": (2.0, 0.5)}, r"scale_range is \[2\.0, 0\.5\]"),
        ({"flip": -0.1}, "flip is -0.1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"val_split": "test"}, "val_split is 'test'"),
    ],
)
def test_bad_arguments(root, settings, words):
    with pytest.raises(ValueError, match=words):
        load(root, **settings)


def test_classes_must_differ(root):
    with pytest.raises(ValueError, match="2 to 255 different names are needed"):
        SegmentationFolderDataModule(root, ["a", "a"])


def test_camvid_has_the_frequencies_of_street_scenes(real_data):
    data = CamVidDataModule(str(real_data("images/camvid")))
    assert data.num_classes == 11 == len(data.metainfo["palette"])
    counts = np.zeros(256, dtype=int)
    samples = data.training_set(augmented=False)
    assert (len(samples), len(data.validation_set())) == (180, 60)
    for index in range(0, 180, 3):
        sample = samples[index]
        assert sample["inputs"].shape == (3, 360, 480)
        counts += np.bincount(sample["data_samples"].gt_sem_seg.data.numpy().ravel(), minlength=256)
    share = dict(zip(data.metainfo["classes"], counts[:11] / counts[:11].sum(), strict=True))
    assert 0 < counts[255] < 0.1 * counts.sum() and not counts[11:255].any()
    assert min(share["road"], share["building"]) > 0.15 and min(share["sky"], share["tree"]) > 0.05
    assert max(share[name] for name in ("pole", "sign", "pedestrian", "bicyclist")) < 0.03
    # Up is sky, down is road.
    label = samples[0]["data_samples"].gt_sem_seg.data[0]
    assert (label[:60] == 0).float().mean() > 0.3 > 0.05 > (label[300:] == 0).float().mean()
    assert (label[300:] == 3).float().mean() > 0.3
