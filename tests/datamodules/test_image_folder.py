import numpy as np
import pytest
from PIL import Image

from datamodules.arrays import ArrayDataModule
from datamodules.image_folder import read_image_folder
from datamodules.npz import load_npz, write_npz
from search.cli import main


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def flat(value, height=8, width=8):
    return np.full((height, width, 3), value)


def test_boxes_are_averaged_and_every_fifth_image_is_held_out(tmp_path, capsys):
    rng = np.random.default_rng(0)
    pictures = {f"{name}{k}": rng.integers(0, 256, (12, 8, 3)) for name in "ab" for k in range(10)}
    for name, pixels in pictures.items():
        save(tmp_path / "in" / name[0] / "images" / f"{name}.png", pixels)  # as in Tiny ImageNet, a folder further down
    out = tmp_path / "tiny.npz"
    assert main(["data", "image_folder", str(tmp_path / "in"), "--out", str(out), "--resolution", "4"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"images: {out}" and "16 images to train on and 4 for validation, 4x4 pixels" in said[1]
    assert [line.split() for line in said[3:5]] == [["a", "8", "2"], ["b", "8", "2"]]
    arrays = load_npz(out)
    assert arrays.classes == ("a", "b") and arrays.resolution == 4
    train = [f"{name}{k}" for name in "ab" for k in (0, 1, 2, 3, 5, 6, 7, 8)]
    val = [f"{name}{k}" for name in "ab" for k in (4, 9)]
    for names, images, labels in (
        (train, arrays.train_images, arrays.train_labels),
        (val, arrays.val_images, arrays.val_labels),
    ):
        assert labels.tolist() == ["ab".index(name[0]) for name in names]
        # A 12x8 picture becomes 4x4: every new pixel is the mean of a box of 3x2.
        expected = [pictures[name].reshape(4, 3, 4, 2, 3).mean((1, 3)) for name in names]
        np.testing.assert_allclose(images, expected, atol=1.01)  # rounded twice: over columns, then over rows
    assert ArrayDataModule(out).num_classes == 2


def test_a_folder_for_validation_is_used(tmp_path):
    for k, name in enumerate(("cat", "dog", "eel")):
        save(tmp_path / "train" / name / "1.png", flat(10 * k))
        save(tmp_path / "train" / name / "2.PNG", flat(10 * k + 1))
        save(tmp_path / "test" / name / "3.png", flat(10 * k + 2))
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no picture")
    arrays = read_image_folder(tmp_path, 4, classes=2)
    assert arrays.classes == ("cat", "dog")
    assert arrays.train_images[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    assert arrays.val_images[:, 0, 0, 0].tolist() == [2, 12]
    assert read_image_folder(tmp_path, 4).num_classes == 3


def fill(folder, *places, count=1):
    """A picture or some in each of these folders; its grey value says which folder it is."""
    for grey, place in enumerate(places):
        for k in range(count):
            save(folder / place / f"{k}.png", flat(grey))


@pytest.mark.parametrize(
    "train, val",
    [
        ("train", "valid"),
        ("train", "validation"),
        ("train", "dev"),
        ("Train", "Val"),
        ("TRAIN", "VALID"),
        ("training", "testing"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("trainset", "Validation Set"),
        ("seg_train", "seg_test"),
    ],
)
def test_splits_go_by_many_names(tmp_path, train, val):
    fill(tmp_path, f"{train}/cat", f"{train}/dog", f"{val}/cat", f"{val}/dog")
    arrays = read_image_folder(tmp_path, 4)
    assert arrays.classes == ("cat", "dog")
    assert arrays.train_images[:, 0, 0, 0].tolist() == [0, 1] and arrays.val_images[:, 0, 0, 0].tolist() == [2, 3]


def test_the_valid_split_validates_and_test_is_the_third_split(tmp_path, capsys):
    fill(tmp_path, "train/cat", "train/dog", "valid/cat", "valid/dog", "test/cat", "test/dog", "train_small/cat")
    arrays = read_image_folder(tmp_path, 4)
    assert arrays.val_images[:, 0, 0, 0].tolist() == [2, 3] and arrays.test_images[:, 0, 0, 0].tolist() == [4, 5]
    loaded = load_npz(write_npz(arrays, tmp_path / "all.npz"))
    assert loaded.test_images.tolist() == arrays.test_images.tolist() and loaded.test_labels.tolist() == [0, 1]
    assert capsys.readouterr().err == f"{tmp_path}/valid is for validation, {tmp_path}/test is for the report alone\n"


def test_test_pictures_without_classes_are_left_aside(tmp_path, capsys):
    fill(tmp_path, "train/cat", "train/dog", "valid/cat", "valid/dog", "test/unknown")
    assert read_image_folder(tmp_path, 4).test_images is None
    assert f"{tmp_path}/test is left aside: it has not the classes of training" in capsys.readouterr().err


def test_labels_go_by_the_names_of_classes(tmp_path):
    fill(tmp_path, "train/a", "train/b", "train/c", "val/b", "val/c")
    (tmp_path / "val" / "empty").mkdir()
    arrays = read_image_folder(tmp_path, 4)
    assert arrays.train_labels.tolist() == [0, 1, 2] and arrays.val_labels.tolist() == [1, 2]
    assert read_image_folder(tmp_path, 4, classes=2).val_labels.tolist() == [1]


def test_folders_that_programs_leave_behind_are_no_classes(tmp_path):
    fill(tmp_path, "cat", "dog", "__MACOSX/cat", ".ipynb_checkpoints", "dog/.ipynb_checkpoints", "@eaDir", count=5)
    fill(tmp_path / "cat" / "__MACOSX", ".", count=5)
    save(tmp_path / "dog" / "._0.png", flat(9))
    arrays = read_image_folder(tmp_path, 4)
    assert arrays.classes == ("cat", "dog")
    assert arrays.train_images[:, 0, 0, 0].tolist() == [0] * 4 + [1] * 4
    fill(
        tmp_path / "in",
        "train/cat",
        "train/dog",
        "val/cat",
        "val/dog",
        "train/__MACOSX",
        "val/.x",
        "__MACOSX/train/cat",
    )
    assert read_image_folder(tmp_path / "in", 4).classes == ("cat", "dog")


def test_a_train_can_be_a_class(tmp_path):
    fill(tmp_path, "bus", "car", "train", count=5)
    assert read_image_folder(tmp_path, 4).classes == ("bus", "car", "train")


def test_of_a_training_split_alone_every_fifth_image_is_held_out(tmp_path):
    fill(tmp_path, "Train/cat", "Train/dog", count=5)
    arrays = read_image_folder(tmp_path, 4)
    assert arrays.classes == ("cat", "dog") and len(arrays.train_labels) == 8 and len(arrays.val_labels) == 2


@pytest.mark.parametrize(
    "places, message",
    [
        (["valid/a", "valid/b", "test/a", "test/b"], "has 'test' and 'valid' but no 'train' to train on"),
        (["train/a", "train/b", "a", "b"], "has 'a' with pictures beside 'train', which look like splits of data"),
        (["train/a", "train/b", "valid/a", "bird"], "has 'bird' with pictures beside 'train' and 'valid'"),
        (["train/a", "train/b", "val/a", "valid/a"], "has 'val' and 'valid' for one split, move all but one"),
        (["train/dog", "train/cat", "val/dog", "val/Cat"], "val has class 'Cat', which .* has not; did you mean 'cat'"),
        (["train/a", "train/b", "val/x"], "val has class 'x', which .*train has not"),
        (["train/a", "val/a"], "train has 1 sub-folders, one for each of 2 classes is needed"),
        (["train", "val"], "train has 0 sub-folders, one for each of 2 classes is needed"),
        (["train/a", "train/b", "test"], "test has none of the classes of .*train, a sub-folder for each is needed"),
    ],
)
def test_splits_that_cannot_be_told_from_classes_are_refused(tmp_path, places, message):
    fill(tmp_path, *places)
    with pytest.raises(ValueError, match=message) as caught:
        read_image_folder(tmp_path, 4)
    assert "\n" not in str(caught.value)


def test_deep_grey_is_scaled_alike_in_both_splits(tmp_path):
    ramp = np.add.outer(np.arange(8), np.arange(8)).astype(np.uint16)
    for split, factor in (("train", 16), ("val", 272)):  # of the highest value, 3808, 12 bits are enough for all
        for k, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(ramp * factor + k * 16).save(tmp_path / split / name / "0.png")
    arrays = read_image_folder(tmp_path, 8)
    np.testing.assert_array_equal(arrays.train_images[..., 0], [ramp, ramp + 1])
    np.testing.assert_array_equal(arrays.val_images[..., 0], [ramp * 17, ramp * 17 + 1])


def test_photographs_are_turned_as_their_exif_data_say(tmp_path):
    left_dark = np.repeat(np.array([[0, 0, 250, 250]], dtype=np.uint8), 8, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right: dark at the top
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(left_dark).save(tmp_path / split / name / "0.png", exif=exif)
    image = read_image_folder(tmp_path, 4).train_images[0, ..., 0]
    assert image[0].max() < 50 and image[-1].min() > 200


def test_pictures_of_every_kind_become_rgb(tmp_path):
    for k in range(5):
        save(tmp_path / "grey" / f"{k}.png", np.full((8, 8), 40 + k))
        (tmp_path / "alpha").mkdir(exist_ok=True)
        Image.new("RGBA", (8, 8), (200, 100, k, 255)).save(tmp_path / "alpha" / f"{k}.webp", lossless=True)
    arrays = read_image_folder(tmp_path, 4)
    assert arrays.train_images[arrays.train_labels == 0][:, 0, 0].tolist() == [[200, 100, k] for k in range(4)]
    assert arrays.val_images[arrays.val_labels == 1][0, 0, 0].tolist() == [44, 44, 44]


def test_what_is_wrong_with_a_folder_is_said_in_one_line(tmp_path, capsys):
    def refused(*words):
        assert main(["data", "image_folder", *words, "--out", str(tmp_path / "out.npz")]) == 2
        assert not (tmp_path / "out.npz").exists()
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "no folder" in refused(str(tmp_path / "absent"))
    for name in "ab":
        for k in range(4):
            save(tmp_path / "few" / name / f"{k}.png", flat(k))
    assert "class 'a' has fewer than 5 images, none is left for validation" in refused(str(tmp_path / "few"))
    assert "has 2 sub-folders, one for each of 3 classes is needed" in refused(str(tmp_path / "few"), "--classes", "3")
    assert "classes is 1, at least 2" in refused(str(tmp_path / "few"), "--classes", "1")
    assert "resolution is 0" in refused(str(tmp_path / "few"), "--resolution", "0")
    (tmp_path / "few" / "c").mkdir()
    assert "c has no images (.bmp, " in refused(str(tmp_path / "few"))
    (tmp_path / "few" / "c").rmdir()
    for name in "ab":
        save(tmp_path / "few" / name / "4.png", flat(4))
    (tmp_path / "few" / "b" / "2.png").write_bytes(b"not a picture")
    assert "2.png cannot be read as an image" in refused(str(tmp_path / "few"))
