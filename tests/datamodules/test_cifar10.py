import numpy as np
import pytest

from datamodules.cifar10 import read_cifar10
from datamodules.npz import load_npz
from search.cli import main

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pixel(image, channel, row, column):
    """A value that differs between neighbours in every direction, worked out by hand for each place."""
    return (37 * image + 101 * channel + 7 * row + column) % 256


@pytest.fixture
def folder(tmp_path):
    """Three records a file, written byte by byte as the data set's page describes them."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    for file, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        content = bytearray()
        for k in range(3):
            image = 3 * file + k
            content.append(image % 10)
            for channel in range(3):
                for row in range(32):
                    content += bytes(pixel(image, channel, row, column) for column in range(32))
        assert len(content) == 3 * 3073
        (folder / name).write_bytes(content)
    return folder


def test_the_command_makes_a_file_that_the_data_module_reads(folder, tmp_path, capsys):
    out = tmp_path / "cifar10.npz"
    assert main(["data", "cifar10", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"images: {out}" and "15 images to train on and 3 for validation" in said[1]
    arrays = load_npz(out)
    assert arrays.train_images.shape == (15, 32, 32, 3) and arrays.val_images.shape == (3, 32, 32, 3)
    assert list(arrays.classes) == NAMES and arrays.name == "cifar10"
    images = np.concatenate([arrays.train_images, arrays.val_images])
    assert [*arrays.train_labels, *arrays.val_labels] == [image % 10 for image in range(18)]
    for image, channel, row, column in [(0, 0, 0, 1), (0, 1, 2, 3), (7, 2, 31, 0), (14, 0, 5, 30), (17, 2, 17, 19)]:
        assert images[image, row, column, channel] == pixel(image, channel, row, column)


def test_a_missing_file_is_named_with_its_source(folder):
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no 'data_batch_4\.bin'; fetch cifar-10-binary\.tar\.gz from https"):
        read_cifar10(folder)


def test_the_python_version_is_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}")
    with pytest.raises(FileNotFoundError, match="Python version, whose pickles are never loaded"):
        read_cifar10(tmp_path)


def test_damaged_files_are_refused(folder, capsys, tmp_path):
    whole = (folder / "data_batch_2.bin").read_bytes()
    (folder / "data_batch_2.bin").write_bytes(whole[:-5])
    assert main(["data", "cifar10", str(folder), "--out", str(tmp_path / "out.npz")]) == 2
    assert "data_batch_2.bin has 9214 bytes, no multiple of 3073: it is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
    (folder / "data_batch_2.bin").write_bytes(bytes([10]) + whole[1:])
    with pytest.raises(ValueError, match="a label 10, 0 to 9 are known"):
        read_cifar10(folder)
