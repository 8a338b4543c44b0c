"""Folders as torchvision leaves them: made here byte by byte, read without executing a pickle."""

import bz2
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

from datamodules.npz import load_npz
from search.cli import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def convert(name, *words):
    assert main(["data", "torchvision", "root", "--name", name, "--out", "x.npz", *words]) == 0
    return load_npz("x.npz")


def images_of(count, shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 10


def write_idx(path, values):
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_plain_bytes(name, tmp_path, capsys):
    parts = {"train": images_of(20, (28, 28)), "t10k": images_of(10, (28, 28), 1)}
    for part, (images, labels) in parts.items():
        write_idx(tmp_path / "root" / name / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / "root" / name / "raw" / f"{part}-labels-idx1-ubyte", labels)
    arrays = convert(name)
    np.testing.assert_array_equal(arrays.train_images[..., 0], parts["train"][0])
    np.testing.assert_array_equal(arrays.val_images[..., 0], parts["t10k"][0])
    np.testing.assert_array_equal(arrays.val_labels, parts["t10k"][1])
    assert arrays.num_classes == 10
    said = capsys.readouterr().out
    assert "20 images to train on and 10 for validation, 28x28 pixels, grey" in said
    assert "class_path: ArrayDataModule, init_args: {arrays: x.npz, batch_size: 8}" in said


def cifar(name, count, labels, seed=0):
    """A file as CIFAR's authors pickled it: Python 2's text in the place of bytes, and rows of 3,072 values."""
    images, numbers = images_of(count, (3, 32, 32), seed)
    content = {"data": images.reshape(count, -1), labels: (numbers % 5).tolist(), "filenames": ["a.png"] * count}
    return images, (numbers % 5), pickle.dumps(content, protocol=2)


def test_cifar_is_read_as_data(tmp_path):
    folder = tmp_path / "root/cifar-100-python"
    folder.mkdir(parents=True)
    train, labels, raw = cifar("train", 12, "fine_labels")
    (folder / "train").write_bytes(raw)
    test, test_labels, raw = cifar("test", 6, "fine_labels", 1)
    (folder / "test").write_bytes(raw)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list("abcde")}, protocol=2))
    arrays = convert("CIFAR100", "--resolution", "32")
    np.testing.assert_array_equal(arrays.train_images, train.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(arrays.val_images, test.transpose(0, 2, 3, 1))
    assert arrays.train_labels.tolist() == labels.tolist() and arrays.val_labels.tolist() == test_labels.tolist()
    assert arrays.classes == tuple("abcde")


def test_cifar10_is_in_five_files(tmp_path):
    folder = tmp_path / "root/cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = [cifar(f"{k}", 4, "labels", k) for k in range(6)]
    for (*_, raw), file in zip(parts, [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], strict=True):
        (folder / file).write_bytes(raw)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcde")}, protocol=2))
    arrays = convert("CIFAR10")
    assert arrays.train_images.shape == (20, 32, 32, 3) and arrays.val_images.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(arrays.train_images[16:], parts[4][0].transpose(0, 2, 3, 1))


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_pickle_that_does_something_is_refused(tmp_path, capsys):
    folder = tmp_path / "root/cifar-100-python"
    folder.mkdir(parents=True)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": Harm()}, protocol=2))
    for name in ("train", "test"):
        (folder / name).write_bytes(cifar(name, 4, "fine_labels")[2])
    assert main(["data", "torchvision", "root", "--name", "CIFAR100"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "mkdir" in said and not (tmp_path / "harm").exists()
    assert any(opcode.name == "GLOBAL" for opcode, *_ in pickletools.genops((folder / "meta").read_bytes()))


def test_channels_first_become_last(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    parts = {"train": images_of(20, (32, 32, 3)), "test": images_of(10, (32, 32, 3), 1)}
    for split, (images, labels) in parts.items():
        savemat(tmp_path / f"root/{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None] % 10})
    known = {split: [url, file, None] for split, (url, file, _) in datasets.SVHN.split_list.items()}
    monkeypatch.setattr(datasets.SVHN, "split_list", known)  # the checksums are those of the real files
    arrays = convert("SVHN", "--resolution", "16")
    assert arrays.train_images.shape == (20, 16, 16, 3)
    arrays = convert("SVHN")
    np.testing.assert_array_equal(arrays.train_images, parts["train"][0])
    np.testing.assert_array_equal(arrays.val_labels, parts["test"][1])


def test_text_of_numbers(tmp_path):
    (tmp_path / "root").mkdir()
    for file, count in (("usps.bz2", 10), ("usps.t.bz2", 10)):
        lines = [f"{k % 10 + 1} " + " ".join(f"{i}:{(k - 5) / 5}" for i in range(1, 257)) for k in range(count)]
        (tmp_path / "root" / file).write_bytes(bz2.compress("\n".join(lines).encode()))
    for split, entry in datasets.USPS.split_list.items():
        assert entry[1] == {"train": "usps.bz2", "test": "usps.t.bz2"}[split]
    arrays = convert("USPS")
    assert arrays.train_images.shape == (10, 16, 16, 1) and arrays.train_labels.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--name is missing, known are CIFAR10"),
        (["--name", "Cifar100"], "did you mean 'CIFAR100'"),
        (["--name", "MNIST"], "root holds no MNIST"),
        (["--name", "CIFAR10"], "root has no 'cifar-10-batches-py/batches.meta'"),
        (["--name", "SVHN"], "root holds no SVHN"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(words, said, tmp_path, capsys):
    (tmp_path / "root").mkdir()
    assert main(["data", "torchvision", "root", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert main(["data", "torchvision", "nowhere", "--name", "MNIST"]) == 2
    assert "no folder 'nowhere'" in capsys.readouterr().err
