"""Pictures from disk."""

import shutil

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
    assert module.num_classes == 3 and module.classes == list(CLASSES)
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


def test_splits_go_by_many_names_and_labels_by_those_of_classes(root, tmp_path):
    shutil.copytree(root / "train", tmp_path / "Training")
    for name in CLASSES[1:]:
        shutil.copytree(root / "val" / name, tmp_path / "valid" / name)
    shutil.copytree(root / "train", tmp_path / "test")
    module = data(tmp_path)
    assert module.classes == list(CLASSES) and len(module.training_set()) == 18
    ((images, labels),) = module.val_dataloader()
    assert labels.tolist() == [1, 1, 2, 2] and torch.equal(colours(images).argmax(1), labels)
    (tmp_path / "valid" / CLASSES[1]).rename(tmp_path / "valid" / "other")
    with pytest.raises(ValueError, match=r"valid has class 'other', which .*Training has not"):
        _ = data(tmp_path).num_classes
    shutil.rmtree(tmp_path / "valid")
    assert len(data(tmp_path).validation_set()) == 18  # of test
    shutil.rmtree(tmp_path / "test")
    assert len(data(tmp_path).validation_set()) == 3  # the fifth picture of each class


def save_everywhere(folder, picture, name="0.png", **options):
    for split in ("train", "val"):
        for label in CLASSES[:2]:
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            picture.save(folder / split / label / name, **options)


def shown(image):
    """Grey values 0 to 255 of a normalised image."""
    return ((image * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)) * 255)[0]


@pytest.mark.parametrize("factor", [16, 257])
def test_deep_grey_is_scaled(tmp_path, factor):
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16) * 2
    save_everywhere(tmp_path, Image.fromarray(ramp * factor))
    image = data(tmp_path, resolution=56).validation_set()[0][0]
    torch.testing.assert_close(shown(image), torch.from_numpy(ramp[4:60, 4:60].astype(np.float32)), atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [64, 1024])  # the larger one is decoded at a fraction of its size
def test_photographs_are_turned_as_their_exif_data_say(tmp_path, size):
    left_dark = np.zeros((size, 2 * size), dtype=np.uint8)
    left_dark[:, size:] = 250
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right: dark at the top
    save_everywhere(tmp_path, Image.fromarray(left_dark), "0.jpg", exif=exif)
    image = shown(data(tmp_path, resolution=32).validation_set()[0][0])
    assert image[:14].max() < 20 and image[18:].min() > 230
    pictures = data(tmp_path, resolution=32).training_set()
    for epoch in range(8):  # every crop has its darker rows above
        pictures.set_epoch(epoch)
        rows = shown(pictures[0][0]).mean(1)
        assert (rows.diff() > -20).all()


def test_what_is_drawn_in_the_alpha_channel_is_seen(tmp_path):
    alpha = np.zeros((64, 64), dtype=np.uint8)
    alpha[:, 32:] = 255
    save_everywhere(tmp_path, Image.merge("LA", [Image.new("L", (64, 64), 0), Image.fromarray(alpha)]))
    image = shown(data(tmp_path, resolution=32).validation_set()[0][0])
    assert image[:, :14].min() > 250 and image[:, 18:].max() < 5


def test_damaged_files_are_named_before_a_search(tmp_path):
    save_everywhere(tmp_path, Image.effect_noise((64, 64), 90), "0.jpg")
    whole = (tmp_path / "val" / CLASSES[0] / "0.jpg").read_bytes()
    for content in (b"", b"no picture", whole[:-200]):
        (tmp_path / "val" / CLASSES[1] / "0.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=rf"val/{CLASSES[1]}/0\.jpg cannot be read as an image"):
            _ = data(tmp_path).num_classes


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
