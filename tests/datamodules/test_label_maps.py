"""Label maps that do not go with their pictures or with the classes: refused in one line before anything is trained."""

import warnings

import numpy as np
import pytest
from PIL import Image

from datamodules import label_maps
from datamodules.label_maps import read_label_map
from datamodules.segmentation_folder import SegmentationFolderDataModule

HEIGHT, WIDTH = 24, 36
CLASSES = ["left", "right"]
LABELS = (np.arange(WIDTH) >= 20).astype(np.uint8)[None].repeat(HEIGHT, axis=0)


def save(pixels, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def make(root, count=4, names=lambda k: f"{k}.png", labels=lambda k: LABELS):
    """The left of a picture is dark, and its right is light."""
    for split in ("train", "val"):
        for k in range(count):
            picture = np.where(LABELS, 250, 5).astype(np.uint8)[..., None].repeat(3, axis=-1)
            save(picture, root / "images" / split / names(k))
            save(labels(k), root / "labels" / split / f"{k}.png")
    return root


def load(root, classes=CLASSES, **settings):
    plain = {"resolution": (WIDTH, HEIGHT), "crop": (16, 16), "scale_range": (1.0, 1.0), "photometric": False}
    return SegmentationFolderDataModule(str(root), classes, **{"batch_size": 1} | plain | settings)


def samples(data):
    """Pictures ``[height, width]`` and label maps of training and validation."""
    for name in ("training", "validation"):
        batch = (data.training_set(augmented=False) if name == "training" else data.validation_set()).__getitems__(
            range(len(data.train_records))
        )
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            yield image[0].numpy(), sample.gt_sem_seg.data[0].numpy()


def refusal(root, **settings):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(root, **settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(root, **settings)
    return [str(each.message) for each in caught if each.category is UserWarning]


# ---- what a map says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2, 256, 257, 512, 26_001, 65_535])
def test_values_are_named_as_they_stand_in_the_file(tmp_path, value):
    make(tmp_path, labels=lambda k: LABELS.astype(np.uint16) * (value if k == 3 else 1))
    assert f"train/3.png has label {value}, with 2 classes 0 to 1 and 255 are allowed" in refusal(tmp_path)


def test_many_unknown_values_are_named_from_the_least_to_the_greatest(tmp_path):
    make(tmp_path, labels=lambda k: (LABELS.astype(np.uint16) + 26_000 + np.arange(WIDTH)).astype(np.uint16))
    assert "0.png has labels 26000, 26001, 26002, 26003, ..., 26036, with 2 classes" in refusal(tmp_path)


@pytest.mark.parametrize(
    "kind", ["8 bits", "16 bits", "32 bits", "whole floats", "palette", "1 bit", "4 bits", "2 bits"]
)
def test_the_number_of_bits_is_nothing_to_the_classes(tmp_path, kind):
    file = tmp_path / "map.png"
    if kind == "whole floats":
        file = file.with_suffix(".tif")
        save(LABELS.astype(np.float32), file)
    elif kind == "palette":
        image = Image.fromarray(LABELS).convert("P")
        image.putdata(LABELS.ravel().tolist())
        image.putpalette([200, 0, 0, 0, 200, 0])
        image.save(file, bits=1)
    elif kind == "1 bit":
        save(LABELS.astype(bool), file)
    elif kind in ("4 bits", "2 bits"):
        import cv2  # Pillow writes none

        bits = int(kind[0])
        assert cv2.imwrite(str(file), LABELS)
        rewrite_as_grey_of(bits, file)
    else:
        save(LABELS.astype({"8 bits": np.uint8, "16 bits": np.uint16, "32 bits": np.int32}[kind]), file)
    read = read_label_map(file, 2)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, LABELS)


def rewrite_as_grey_of(bits, file):
    """A PNG file of so many bits a pixel, made by hand."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packed = LABELS.reshape(HEIGHT, -1, 8 // bits) << np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    rows = b"".join(b"\0" + row.sum(axis=-1).astype(np.uint8).tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_ignored_labels_may_be_of_16_bits(tmp_path):
    labels = LABELS.astype(np.uint16)
    labels[0], labels[1] = 65_535, 255
    make(tmp_path, labels=lambda k: labels)
    for _, found in samples(load(tmp_path, ignored_labels=[65_535])):
        assert (found[:2] == 255).all()
        np.testing.assert_array_equal(found[2:], LABELS[2:])


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_are_no_labels(tmp_path, channels):
    make(tmp_path, labels=lambda k: LABELS[..., None].repeat(channels, axis=-1) if k == 2 else LABELS)
    assert f"train/2.png has {channels} channels, a label map has one: grey" in refusal(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("foreground", [0, 255])
def test_masks_of_0_and_255_teach_nothing(tmp_path, split, foreground):
    make(tmp_path)
    for k in range(4):
        save(np.where(LABELS, foreground, 255 - foreground).astype(np.uint8), tmp_path / f"labels/{split}/{k}.png")
    words = refusal(tmp_path)
    assert f"the 4 {'training' if split == 'train' else 'validation'} label maps" in words
    assert (
        "show only class 'left', nothing to tell apart" in words
        and "masks of 0 and 255 need the values 0 and 1" in words
    )
    assert f"labels/{split}'" in words


def test_a_split_without_a_pixel_that_counts(tmp_path):
    make(tmp_path, labels=lambda k: np.full_like(LABELS, 255))
    assert "show no class at all" in refusal(tmp_path)


def test_a_class_alone_is_nothing_to_tell_apart(tmp_path):
    make(tmp_path, labels=lambda k: np.zeros_like(LABELS))
    assert "show only class 'left', nothing to tell apart" in refusal(tmp_path)


def test_an_absent_class_is_told_of(tmp_path):
    make(tmp_path, labels=lambda k: np.where(LABELS, 2, 0).astype(np.uint8))
    save(LABELS, tmp_path / "labels/train/2.png")
    lines = told(tmp_path, classes=["left", "middle", "right"])
    assert lines == [f"no pixel of 'middle' in the 4 validation label maps ('{tmp_path}/labels/val')"]
    assert not told(make(tmp_path / "whole"))


def test_of_many_label_maps_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(label_maps, "_MOST_PIXELS", 3 * LABELS.size)
    rare = {"classes": ["left", "right", "rare"]}
    make(tmp_path, count=9, labels=lambda k: np.where(LABELS & (k == 4), 2, LABELS).astype(np.uint8))
    lines = told(tmp_path, **rare)
    assert [line.split(" (")[0] for line in lines] == [
        f"no pixel of 'rare' in the 3 {split} label maps that were looked at, of 9"
        for split in ("training", "validation")
    ]
    # That there is nothing to learn is said of all only.
    other = make(tmp_path / "other", count=9, labels=lambda k: LABELS * (k == 4))
    assert not told(other)
    assert "the 9 training label maps" in refusal(make(tmp_path / "none", count=9, labels=lambda k: LABELS * 0))


# ---- whether it lies on its picture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(18, 12), (HEIGHT, WIDTH), (WIDTH, HEIGHT + 1)])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_map_of_another_size_is_named(tmp_path, split, size):
    make(tmp_path)
    Image.fromarray(LABELS).resize(size, Image.Resampling.NEAREST).save(tmp_path / f"labels/{split}/1.png")
    words = refusal(tmp_path)
    assert f"images/{split}/1.png has {WIDTH}x{HEIGHT} pixels and its label map" in words
    assert f"labels/{split}/1.png {size[0]}x{size[1]}; they must be the same" in words


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("drawn", ["as stored", "upright"])
def test_photos_agree_with_their_label_maps(tmp_path, suffix, drawn):
    """Whichever of the eight ways a photo is stored, and whichever way its label map was drawn."""
    for split in ("train", "val"):
        for orientation in range(1, 9):
            photo = Image.fromarray(np.where(LABELS, 250, 5).astype(np.uint8)).convert("RGB")
            exif = photo.getexif()
            exif[274] = orientation
            path = tmp_path / "images" / split / f"{orientation}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
            turned = Image.fromarray(LABELS)
            if drawn == "upright" or suffix == ".tif":  # no reader gives a TIFF file's pixels as they are stored
                turned.getexif()[274] = orientation
                from PIL import ImageOps

                turned = ImageOps.exif_transpose(turned)
            (tmp_path / "labels" / split).mkdir(parents=True, exist_ok=True)
            turned.save(tmp_path / "labels" / split / f"{orientation}.png", exif=b"")
    seen = 0
    for image, labels in samples(load(tmp_path)):
        seen += 1
        if labels.shape == image.shape:  # validation keeps labels in their own size
            np.testing.assert_array_equal(image > 128, labels == 1)
    assert seen == 16


def test_square_photos_are_read_as_they_are_stored(tmp_path):
    labels = LABELS[:, 2:26]
    for split in ("train", "val"):
        for k in range(2):
            photo = Image.fromarray(np.where(labels, 250, 5).astype(np.uint8)).convert("RGB")
            exif = photo.getexif()
            exif[274] = 6
            (tmp_path / "images" / split).mkdir(parents=True, exist_ok=True)
            photo.save(tmp_path / "images" / split / f"{k}.jpg", exif=exif, quality=100)
            save(labels, tmp_path / "labels" / split / f"{k}.png")
    for image, found in samples(load(tmp_path, resolution=(24, 24))):
        np.testing.assert_array_equal(image > 128, found == 1)


def test_turned_photos_are_validated_one_at_a_time(tmp_path):
    make(tmp_path, names=lambda k: f"{k}.jpg")
    photo = Image.open(tmp_path / "images/val/1.jpg")
    exif = photo.getexif()
    exif[274] = 6
    photo.save(tmp_path / "images/val/1.jpg", exif=exif)
    assert load(tmp_path, batch_size=4).val_batch_size == 4
    Image.fromarray(LABELS).rotate(-90, expand=True).save(tmp_path / "labels/val/1.png")
    assert load(tmp_path, batch_size=4).val_batch_size == 1


def test_a_file_that_is_no_picture_is_named(tmp_path):
    make(tmp_path)
    (tmp_path / "images/val/1.png").write_bytes(b"none")
    assert "images/val/1.png cannot be read as an image" in refusal(tmp_path)


# ---- which one belongs to which picture -----------------------------------------------------------------------------


def test_pictures_of_every_suffix_are_used(tmp_path):
    suffixes = (".jpg", ".png", ".JPG", ".jpeg", ".PNG", ".tif", ".bmp", ".webp", ".TIFF")
    data = load(make(tmp_path, count=len(suffixes), names=lambda k: f"{k}{suffixes[k]}"))
    for records in (data.train_records, data.val_records):
        assert [records.get_data_info(k)["img_path"].split("/")[-1] for k in range(len(records))] == [
            f"{k}{suffix}" for k, suffix in enumerate(suffixes)
        ]
    assert len(list(samples(data))) == 2 * len(suffixes)


def test_a_suffix_means_itself_in_capital_letters_too(tmp_path):
    make(tmp_path, names=lambda k: f"{k}.jpg" if k % 2 else f"{k}.JPG")
    (tmp_path / "labels/train/2.png").rename(tmp_path / "labels/train/2.PNG")
    assert len(load(tmp_path, picture_suffix=".jpg").train_records) == 4


@pytest.mark.parametrize(("suffix", "settings"), [(".png", {"picture_suffix": ".jpg"}), (".gif", {}), (".ppm", {})])
def test_no_picture_is_left_out_in_silence(tmp_path, suffix, settings):
    make(tmp_path, names=lambda k: f"{k}{suffix}" if k % 2 else f"{k}.jpg")
    words = refusal(tmp_path, **settings)
    assert "2 files in " in words and f"would be left out, for instance '1{suffix}'" in words


def test_two_pictures_of_one_name_are_refused(tmp_path):
    make(tmp_path)
    Image.open(tmp_path / "images/train/2.png").save(tmp_path / "images/train/2.jpg")
    assert "two pictures for one label map, '2.jpg' and '2.png'" in refusal(tmp_path)
    assert len(load(tmp_path, picture_suffix=".png").train_records) == 4


def test_label_maps_without_a_picture_are_told_of(tmp_path):
    make(tmp_path)
    (tmp_path / "images/val/1.png").unlink()
    assert told(tmp_path) == [
        f"1 label maps in '{tmp_path}/labels/val' have no picture in '{tmp_path}/images/val', for instance '1.png'"
    ]
    # Where both splits share a folder, a label map may be the other's.
    for file in (tmp_path / "labels/val").iterdir():
        file.rename(tmp_path / "labels/train" / f"val_{file.name}")
    for file in (tmp_path / "images/val").iterdir():
        file.rename(file.with_name(f"val_{file.name}"))
    assert not told(tmp_path, val_label_folder="labels/train")


@pytest.mark.parametrize("folder", ["images/{}", "images/{}/maps"])
def test_label_maps_among_their_pictures(tmp_path, folder):
    make(tmp_path, names=lambda k: f"{k}.jpg")
    for split in ("train", "val"):
        (tmp_path / folder.format(split)).mkdir(exist_ok=True)
        for file in (tmp_path / "labels" / split).iterdir():
            file.rename(tmp_path / folder.format(split) / file.name)
    data = load(tmp_path, train_label_folder=folder.format("train"), val_label_folder=folder.format("val"))
    assert (len(data.train_records), len(data.val_records)) == (4, 4)
