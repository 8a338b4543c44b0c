import numpy as np
import pytest

from datamodules.arrays import ArrayDataModule
from datamodules.image_arrays import ImageArrays
from datamodules.npz import find_npz, load_npz, write_npz


def make_arrays(n=50, m=20, channels=3, classes=("a", "b", "c", "d")):
    rng = np.random.default_rng(3)

    def images(count):
        return rng.integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)

    return ImageArrays(images(n), np.arange(n) % 4, images(m), np.arange(m) % 4, classes)


def test_npz_is_read_with_either_name_of_the_validation_split(tmp_path):
    arrays = make_arrays()
    parts = {"x_train": arrays.train_images, "y_train": arrays.train_labels.astype(np.int32)[:, None]}
    np.savez(tmp_path / "a.npz", **parts, x_test=arrays.val_images, y_test=arrays.val_labels)
    loaded = load_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.train_labels, arrays.train_labels)
    np.testing.assert_array_equal(loaded.val_images, arrays.val_images)
    assert (loaded.classes, loaded.name) == (("0", "1", "2", "3"), "a")
    np.savez(
        tmp_path / "b.npz",
        **parts,
        x_val=arrays.val_images[:10],
        y_val=arrays.val_labels[:10],
        x_test=arrays.val_images,
        y_test=arrays.val_labels,
        classes=np.array(arrays.classes),
    )
    data = ArrayDataModule(str(tmp_path / "b.npz"))
    assert len(data.arrays.val_images) == 10 and data.arrays.classes == ("a", "b", "c", "d")
    assert data.num_classes == 4


def test_npz_of_grey_images_gets_its_channel(tmp_path):
    arrays = make_arrays(channels=1)
    np.savez(
        tmp_path / "grey.npz",
        x_train=arrays.train_images[..., 0],
        y_train=arrays.train_labels,
        x_val=arrays.val_images[..., 0],
        y_val=arrays.val_labels,
    )
    np.testing.assert_array_equal(load_npz(tmp_path / "grey.npz").train_images, arrays.train_images)


def test_bad_npz_files_say_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no images '.*absent\.npz'; make it from a folder"):
        load_npz(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ValueError, match=r"not a NumPy \.npz archive"):
        load_npz(tmp_path / "text.npz")
    np.savez(tmp_path / "name.npz", x_trian=np.zeros(3))
    with pytest.raises(ValueError, match="no array 'x_train', only x_trian; did you mean 'x_trian'"):
        load_npz(tmp_path / "name.npz")
    arrays = make_arrays()
    good = {"x_train": arrays.train_images, "y_train": arrays.train_labels, "x_val": arrays.val_images}
    np.savez(tmp_path / "pickle.npz", **good, y_val=np.array([{}] * 20, dtype=object))
    with pytest.raises(ValueError, match=r"'y_val' .* holds Python objects"):
        load_npz(tmp_path / "pickle.npz")
    np.savez(tmp_path / "float.npz", **good, y_val=np.zeros(20))
    with pytest.raises(ValueError, match=r"'y_val' .* is float64, whole numbers"):
        load_npz(tmp_path / "float.npz")
    np.savez(tmp_path / "one_hot.npz", **good, y_val=np.eye(20, 4, dtype=np.int64))
    with pytest.raises(ValueError, match=r"val labels are int64 \[20, 4\]"):
        load_npz(tmp_path / "one_hot.npz")


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_what_is_written_is_read_again(tmp_path, held_out):
    arrays = make_arrays()
    out = write_npz(arrays, tmp_path / "new folder" / "images.npz", held_out)
    with np.load(out) as archive:
        assert sorted(archive.files) == sorted(["classes", "x_train", "y_train", f"x_{held_out}", f"y_{held_out}"])
    loaded = load_npz(out)
    for name in ("train_images", "train_labels", "val_images", "val_labels"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(arrays, name))
    assert (loaded.classes, loaded.name) == (arrays.classes, "images")
    assert [path.name for path in out.parent.iterdir()] == ["images.npz"], "no temporary file is left"


def test_relative_paths_are_looked_for_here_and_then_in_the_data_folder(tmp_path, monkeypatch):
    here, data = tmp_path / "here", tmp_path / "data"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("CATCHMARK_DATA", str(data))
    write_npz(make_arrays(n=40), data / "images.npz")
    assert find_npz("images.npz") == data / "images.npz"
    assert len(ArrayDataModule("images.npz").arrays.train_images) == 40
    write_npz(make_arrays(n=50), here / "images.npz")
    assert len(load_npz("images.npz").train_images) == 50


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("cifar10.npz", "cifar-10-binary.tar.gz .* 'catchmark data cifar10 cifar-10-batches-bin --out cifar10.npz'"),
        (
            "tiny_imagenet16_120.npz",
            "tiny-imagenet-200.zip, .* 'catchmark data image_folder tiny-imagenet-200/train --out "
            "tiny_imagenet16_120.npz --resolution 16 --classes 120'",
        ),
        ("flowers.npz", "'catchmark data image_folder FOLDER --out flowers.npz --resolution 16'"),
    ],
)
def test_an_absent_file_is_refused_with_how_to_make_it(tmp_path, monkeypatch, name, cure):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CATCHMARK_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=f"no images '{name}' in .* \\(not set\\); .*{cure}") as error:
        load_npz(name)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_named(tmp_path):
    write_npz(make_arrays(), path := tmp_path / "images.npz")
    whole, said = path.read_bytes(), set()
    for place in range(200, len(whole), len(whole) // 60):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        try:
            load_npz(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            said.add(str(error).rpartition(";")[2])
    assert " get or make the file again" in said
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"images.npz' is not a NumPy .npz archive"):
        load_npz(path)
