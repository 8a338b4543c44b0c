"""NAS-Bench-101's cells as a table."""

import numpy as np
import pytest
import torch

from search.spaces.nasbench101 import NASBench101
from search.tables.nasbench101 import convert_nasbench101
from search.tables.table import list_columns, read_columns

SPACE = NASBench101()
EMPTY = "conv3x3-bn-relu()|" * 5 + "output(0)"
POOLED = "maxpool3x3(0)|" + "conv3x3-bn-relu()|" * 4 + "output(0,1)"


def two_cells():
    """A cell of an edge, and one with a pool beside it; in the layout of the source."""
    adjacency = np.zeros((2, 7, 7), np.uint8)
    adjacency[0, 0, 1] = 1
    adjacency[1, 0, 1] = adjacency[1, 1, 2] = adjacency[1, 0, 2] = 1
    ops = np.full((2, 7), -3, np.int8)
    ops[0, :2] = -1, -2
    ops[1, :3] = -1, 2, -2
    digests = [bytes.fromhex(SPACE.spec_hash(SPACE.parse(text))) for text in (EMPTY, POOLED)]
    return {
        "adjacency": adjacency,
        "ops": ops,
        "hash": np.frombuffer(b"".join(digests), np.uint8).reshape(2, 16).copy(),
        "val_acc_12ep": np.array([0.25, 0.5]),
        "test_acc_108ep": np.array([0.75, np.nan]),
        "trainable_parameters": np.array([2_694_282, 2_000_000]),
    }


def convert(arrays, folder):
    np.savez(folder / "s.npz", **arrays)
    return convert_nasbench101(folder / "s.npz", folder / "o.npz")


def test_cells_and_columns(tmp_path):
    out = convert(two_cells(), tmp_path)
    assert set(list_columns(out)) == {"cifar10_val_acc_12ep", "cifar10_test_acc_108ep", "params_m"}
    table = read_columns(out, list_columns(out))
    assert [SPACE.format(arch) for arch in table.arch.tolist()] == [EMPTY, POOLED]
    assert table.columns["cifar10_val_acc_12ep"].tolist() == [25, 50]
    assert table.columns["cifar10_test_acc_108ep"].tolist() == pytest.approx([75, np.nan], nan_ok=True)
    assert table.columns["params_m"].tolist() == pytest.approx([2.694282, 2.0])
    assert table.space == "nasbench101" and table.provenance["source"] == "s.npz"


def backwards(arrays):
    arrays["adjacency"][1, 2, 1] = 1


def beyond_the_output(arrays):
    arrays["adjacency"][1, 0, 5] = 1


def unlabelled(arrays):
    arrays["ops"][1, 1] = -3


def unknown_operation(arrays):
    arrays["ops"][1, 1] = 3


def without_a_path(arrays):
    arrays["adjacency"][1] = 0


def of_another_hash(arrays):
    arrays["hash"][1, 0] ^= 1


def twice(arrays):
    for array in arrays.values():
        array[1] = array[0]


def in_percent(arrays):
    arrays["val_acc_12ep"] *= 100


def short(arrays):
    arrays["val_acc_12ep"] = arrays["val_acc_12ep"][:1]


def without_accuracies(arrays):
    del arrays["val_acc_12ep"], arrays["test_acc_108ep"]


def without_hashes(arrays):
    del arrays["hash"]


def of_another_shape(arrays):
    arrays["ops"] = arrays["ops"][:, :5]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (backwards, r"row 1 is no cell of nasbench101: ops \[-1, 2, -2"),
        (beyond_the_output, "row 1 is no cell"),
        (unlabelled, "row 1 is no cell"),
        (unknown_operation, "row 1 is no cell"),
        (without_a_path, "row 1 is no cell"),
        (of_another_hash, "row 1 says its hash is .*, that of its cell is "),
        (twice, "the cell of row 1, [0-9a-f]{32}, comes twice"),
        (in_percent, r"accuracies must lie in \[0, 1\], those for 'cifar10_val_acc_12ep' reach 50"),
        (short, r"'cifar10_val_acc_12ep' would have \[1\] values for 2 cells"),
        (without_accuracies, "no accuracies in it"),
        (without_hashes, "no readable adjacency, ops and hash"),
        (of_another_shape, r"'ops' is int8 \[2, 5\], integers \[2, 7\] needed"),
    ],
)
def test_damaged_sources(damage, message, tmp_path):
    arrays = two_cells()
    damage(arrays)
    with pytest.raises(ValueError, match=message):
        convert(arrays, tmp_path)
    assert not (tmp_path / "o.npz").exists()


def test_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        convert_nasbench101(tmp_path / "absent.npz", tmp_path / "o.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="no readable adjacency"):
        convert_nasbench101(tmp_path / "text.npz", tmp_path / "o.npz")


def test_the_real_file(tmp_path, real_data):
    source = real_data("nasbench101_sample.npz")
    out = convert_nasbench101(source, tmp_path / "o.npz")
    accuracies = [f"cifar10_val_acc_{epochs}ep" for epochs in (4, 12, 36, 108)]
    assert set(list_columns(out)) == {*accuracies, "cifar10_train_seconds_108ep", "params_m"}
    table = read_columns(out, accuracies)
    archs = torch.from_numpy(table.arch).long()
    assert archs.shape == (30_001, 26) and torch.equal(SPACE.canonical(archs), archs)
    with np.load(source, allow_pickle=False) as arrays:
        hashes, expected = arrays["hash"], arrays["val_acc_108ep"]
    assert table.columns["cifar10_val_acc_108ep"] == pytest.approx(expected * 100)
    for row in range(0, 30_001, 3000):
        assert SPACE.spec_hash(archs[row].tolist()) == hashes[row].tobytes().hex()
    assert 94 < table.columns["cifar10_val_acc_108ep"].max() < 96
