"""Cityscapes' own layout, on pictures made here."""

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from PIL import Image

from datamodules.cityscapes import CityscapesDataModule


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("cityscapes"), np.random.default_rng(0)
    for split, names in (("train", ["aachen_000000", "aachen_000001", "bonn_000000"]), ("val", ["ulm_000000"])):
        for name in names:
            town = name.split("_")[0]
            labels = np.kron(rng.permutation(32).reshape(4, 8), np.ones((16, 16))).astype(np.uint8)
            labels[labels > 18] = 255
            # The picture shows its labels in red.
            picture = np.stack([labels, np.zeros_like(labels), np.zeros_like(labels)], axis=-1)
            for kind, ending, pixels in (
                ("leftImg8bit", "_000019_leftImg8bit.png", picture),
                ("gtFine", "_000019_gtFine_labelTrainIds.png", labels),
                ("gtFine", "_000019_gtFine_labelIds.png", labels + 1),
            ):
                folder = root / kind / split / town
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{name}{ending}")
    return root


def load(root, **settings):
    return CityscapesDataModule(str(root), **{"resolution": (128, 64), "crop": (32, 64), "batch_size": 1} | settings)


def test_classes_are_those_of_mmseg(root):
    data = load(root)
    data.training_set()
    from mmseg.datasets import CityscapesDataset

    assert data.metainfo["classes"] == CityscapesDataset.METAINFO["classes"] and data.num_classes == 19
    assert [list(colour) for colour in data.metainfo["palette"]] == CityscapesDataset.METAINFO["palette"]


def test_records_are_those_of_mmseg(root):
    data = load(root)
    records = data.train_records
    from mmseg.datasets import CityscapesDataset

    theirs = CityscapesDataset(
        data_root=str(root), data_prefix={"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    )
    assert len(records) == len(theirs) == 3
    for index in range(3):
        for key in ("img_path", "seg_map_path"):
            assert records.get_data_info(index)[key] == theirs.get_data_info(index)[key]


def test_batches_show_pictures_with_their_labels(root):
    data = load(root, scale_range=(1.0, 1.0), photometric=False)
    for batch in data.train_dataloader():
        (image,), (sample,) = batch["inputs"], batch["data_samples"]
        assert image.shape == (3, 32, 64)
        np.testing.assert_array_equal(image[2].numpy(), sample.gt_sem_seg.data[0].numpy())  # red comes last


def test_a_perfect_segmentation_has_a_mean_intersection_over_union_of_100(root):
    data = load(root)
    evaluator = Evaluator(data.val_metrics())
    for batch in data.val_dataloader():
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            sample.pred_sem_seg = PixelData(data=image[2:].long())
        evaluator.process(data_samples=batch["data_samples"], data_batch=batch)
    assert evaluator.evaluate(1)["mIoU"] == 100


def test_missing_data_are_named_with_the_cure(root, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"'cityscapes/x'.*gtFine_trainvaltest\.zip from cityscapes-dataset\.com"
    ):
        _ = load("cityscapes/x").num_classes
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind).symlink_to(root / kind)
    assert len(load(tmp_path).training_set()) == 3
    labels = next((root / "gtFine" / "val").rglob("*_labelTrainIds.png"))
    labels.rename(labels.with_suffix(".away"))
    try:
        with pytest.raises(FileNotFoundError, match=r"1 of 1 pictures .* have no label map.*csCreateTrainIdLabelImgs"):
            load(root).validation_set()
    finally:
        labels.with_suffix(".away").rename(labels)
