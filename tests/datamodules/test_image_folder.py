import numpy as np
from PIL import Image

from datamodules.arrays import ArrayDataModule
from datamodules.image_folder import read_image_folder
from datamodules.npz import load_npz
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
    assert capsys.readouterr().out.strip() == f"images: {out}"
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
