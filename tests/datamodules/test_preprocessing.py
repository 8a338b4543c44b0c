"""A picture from anywhere is made ready as the validation images were, to the last bit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.arrays import ArrayDataModule
from datamodules.digit_scenes import DigitScenesDepth
from datamodules.image_folder import convert_image_folder
from datamodules.imagenet import ImageFolderDataModule
from datamodules.preprocessing import Preprocessing, class_names, read_preprocessing


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of pictures of many sizes, in three splits."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (*rng.integers(40, 90, 2), 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{k}.{'png' if k else 'jpeg'}")
    return folder


def files(root, split):
    return sorted((root / split).rglob("*.*"))


def test_pictures_of_folders(root):
    data = ImageFolderDataModule(str(root), resolution=16)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        ((images, labels),) = loader
        pixels = np.stack([data.preprocessing.read(file) for file in files(root, split)])
        assert labels.tolist() == [0, 0, 1, 1] and pixels.shape == (4, 16, 16, 3)
        assert torch.equal(data.preprocessing.normalised(pixels), images)
    assert data.has_test and class_names(data) == ["cat", "dog"]


def test_pictures_that_became_an_archive(root, tmp_path):
    data = ArrayDataModule(convert_image_folder(root, tmp_path / "small.npz", 8))
    ((images, _),) = data.test_dataloader()
    pixels = np.stack([data.preprocessing.read(file) for file in files(root, "test")])
    torch.testing.assert_close(data.preprocessing.normalised(pixels), images, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(np.stack([data.preprocessing.pictured(image) for image in images]), pixels)
    assert class_names(data) == ["cat", "dog"]
    smaller = ArrayDataModule(tmp_path / "small.npz", resolution=4)
    ((images, _),) = smaller.test_dataloader()
    shrunk = smaller.preprocessing.sized(Image.fromarray(pixels[0])).astype(int)
    assert np.abs(shrunk - smaller.preprocessing.pictured(images[0])).max() <= 1 and shrunk.std() > 1


def test_it_survives_a_file_and_damage_is_refused():
    plain = Preprocessing("BGR", "fit", (20, 10), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 2.0))
    described = json.loads(json.dumps(plain.described()))
    assert read_preprocessing(described) == plain
    picture = Image.new("RGB", (40, 10), (250, 100, 0))
    assert plain.sized(picture).shape == (5, 20, 3) and plain.sized(picture)[0, 0].tolist() == [0, 100, 250]
    for change, words in [
        ({"colours": "CMYK"}, "colours is 'CMYK', allowed: RGB, BGR, L"),
        ({"size": [0, 10]}, "two sides"),
        ({"std": [1.0, 1.0, 0.0]}, "more than 0"),
        ({"mean": [0.1]}, "3 numbers"),
        ({"mean": None}, "or neither"),
        ({"crop": 2}, "out of range"),
        ({"command": "rm"}, "damaged"),
    ]:
        with pytest.raises(ValueError, match=words):
            read_preprocessing(described | change)


def test_scenes_of_depth_are_taken_as_they_are():
    data = DigitScenesDepth(scenes=2, val_scenes=2, size=32)
    images, _ = next(iter(data.val_dataloader()))
    pixels = np.stack([data.preprocessing.sized(Image.fromarray(picture)) for picture, _ in data.val_pictures])
    torch.testing.assert_close(data.preprocessing.normalised(pixels), images, rtol=0, atol=1e-6)
