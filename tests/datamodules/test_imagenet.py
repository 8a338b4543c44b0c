"""Pictures from disk."""

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.imagenet import IMAGENET_MEAN as MEAN
from datamodules.imagenet import IMAGENET_STD as STD
from datamodules.imagenet import ImageFolderDataModule

CLASSES = ("n01440764", "n01443537", "n01484850")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes, each of its own colour, of pictures of several sizes."""
    folder = tmp_path_factory.mktemp("imagenet")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for k in range(count):
                height, width = generator.integers(40, 200, 2)
                pixels = generator.integers(0, 60, (height, width, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(folder / split / name / f"{k}.{'png' if k % 2 else 'jpeg'}")
    return folder


def data(root, **arguments):
    return ImageFolderDataModule(str(root), **({"resolution": 32, "batch_size": 4} | arguments))


def epoch_of(module, epoch):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def colours(images):
    """Mean red, green and blue of images on the scale of 0 to 1."""
    return (images * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)).mean((2, 3))


def test_images_carry_the_label_of_their_folder(root):
    module = data(root)
    assert module.num_classes == 3 and module.class_names == list(CLASSES)
    for loader, images in ((module.train_dataloader(), 18), (module.val_dataloader(), 6)):
        seen = 0
        for batch, labels in loader:
            assert batch.shape[1:] == (3, 32, 32) and batch.dtype == torch.float32
            assert torch.equal(colours(batch).argmax(1), labels)
            seen += len(labels)
        assert seen == images


def test_batches_do_not_depend_on_threads_workers_or_place(root):
    first = epoch_of(data(root, color_jitter=0.4), 1)
    for other in (data(root, color_jitter=0.4, threads=3), data(root, color_jitter=0.4, num_workers=2)):
        for (a, labels), (b, same) in zip(first, epoch_of(other, 1), strict=True):
            assert torch.equal(a, b) and torch.equal(labels, same)
    pictures = data(root).training_set()
    assert torch.equal(pictures[3][0], pictures.__getitems__([5, 3])[0][1])


def test_epochs_and_seeds_change_order_and_augmentation(root):
    pictures = data(root).training_set()
    before = pictures[0][0]
    pictures.set_epoch(1)
    assert not torch.equal(before, pictures[0][0])
    orders = {
        tuple(torch.cat([labels for _, labels in epoch_of(data(root, seed=seed), 0)]).tolist()) for seed in (0, 1)
    }
    assert len(orders) == 2


def test_the_centre_is_what_pillow_cuts_out(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for name in CLASSES[:2]:
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    image = data(tmp_path, resolution=56).validation_set()[0][0]
    centre = torch.from_numpy(pixels[4:60, 20:76].astype(np.float32) / 255).permute(2, 0, 1)
    expected = (centre - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    torch.testing.assert_close(image, expected)


def test_a_large_jpeg_decoded_small_shows_the_same(tmp_path):
    rows, columns = np.mgrid[:512, :512]
    pixels = np.stack([rows / 2, columns / 2, (rows + columns) / 4], -1).astype(np.uint8)
    images = []
    for suffix in ("jpg", "png"):
        for split in ("train", "val"):
            for name in CLASSES[:2]:
                (tmp_path / suffix / split / name).mkdir(parents=True)
                Image.fromarray(pixels).save(tmp_path / suffix / split / name / f"0.{suffix}")
        images.append(data(tmp_path / suffix, resolution=32).validation_set()[0][0])
    # A JPEG is read at a quarter or an eighth of its size; a smooth picture looks the same to about two grey levels.
    assert (images[0] - images[1]).abs().max() < 0.06


def test_absent_and_damaged_data_name_the_cure(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder 'nowhere' with train and val.*ILSVRC2012"):
        _ = data("nowhere").num_classes
    for split in ("train", "val"):
        for name in CLASSES[:2]:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"0\.jpg cannot be read as an image"):
        data(tmp_path).training_set()[0]
    (tmp_path / "val" / CLASSES[0] / "0.jpg").unlink()
    with pytest.raises(ValueError, match=f"{CLASSES[0]} has no images"):
        data(tmp_path).validation_set()
    for arguments, message in (({"threads": 0}, "threads is 0"), ({"color_jitter": 2.0}, "color_jitter is 2.0")):
        with pytest.raises(ValueError, match=message):
            data(root, **arguments)
