"""The table format: what is written is read, and nothing damaged is."""

import json

import numpy as np
import pytest

from search.tables.table import column_name, find_table, list_columns, read_columns, write_table

ARCH = np.array([[0, 1], [2, 0], [1, 1]], dtype=np.int8)
COLUMNS = {"a_val_acc_12ep": np.array([50.0, 60.5, np.nan]), "a_test_acc_12ep": np.array([1.0, 2.0, 3.0])}


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "deep" / "t.npz", ARCH, COLUMNS, "toy", {"source": "t.csv"}, compressed=False)


def test_round_trip(table):
    assert list_columns(table) == ["a_val_acc_12ep", "a_test_acc_12ep"]
    content = read_columns(table, ["a_val_acc_12ep"])
    assert content.arch.dtype == np.int8 and np.array_equal(content.arch, ARCH)
    assert list(content.columns) == ["a_val_acc_12ep"]
    column = content.columns["a_val_acc_12ep"]
    assert column.dtype == np.float32 and np.array_equal(column, COLUMNS["a_val_acc_12ep"].astype("f4"), equal_nan=True)
    assert content.space == "toy" and content.provenance["source"] == "t.csv"
    with np.load(table, allow_pickle=False) as arrays:  # a plain .npz, for any other program
        assert json.loads(str(arrays["provenance"]))["columns_sha256"].keys() == COLUMNS.keys()


def test_column_name():
    assert column_name("cifar10_valid", "val", "acc", 200) == "cifar10_valid_val_acc_200ep"
    assert column_name("normal", "val", "ssim", None) == "normal_val_ssim"


def test_nothing_else_is_in_the_folder(table):
    assert [path.name for path in table.parent.iterdir()] == ["t.npz"]


def test_a_failed_write_leaves_the_old_table(table):
    before = table.read_bytes()
    with pytest.raises(ValueError, match="'b' must hold 3 values"):
        write_table(table, ARCH, {"b": np.zeros(2)})
    with pytest.raises(ValueError, match="without a row twice"):
        write_table(table, ARCH[[0, 1, 0]], COLUMNS)
    with pytest.raises(ValueError, match="int8"):
        write_table(table, ARCH.astype(int) + 200, COLUMNS)
    assert table.read_bytes() == before and len(list(table.parent.iterdir())) == 1


def test_wrong_column_names_the_nearest(table):
    with pytest.raises(ValueError, match=r"t\.npz: no column 'a_val_acc_21ep'; the nearest are a_val_acc_12ep,"):
        read_columns(table, ["a_val_acc_21ep"])


@pytest.mark.parametrize("compressed", [True, False])
def test_every_flipped_byte_of_a_column_is_noticed(tmp_path, compressed):
    path = write_table(tmp_path / "t.npz", ARCH, COLUMNS, compressed=compressed)
    whole = path.read_bytes()
    want = read_columns(path, list(COLUMNS)).columns
    noticed = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            got = read_columns(path, list(COLUMNS)).columns
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            noticed += 1
        else:  # time stamps and the like may change, a number may not
            assert all(np.array_equal(got[name], want[name], equal_nan=True) for name in want)
    assert noticed > len(whole) / 3


def test_every_truncation_is_noticed(table):
    whole = table.read_bytes()
    for length in range(0, len(whole), 7):
        table.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"t\.npz: the table is damaged .* make it again"):
            read_columns(table, list(COLUMNS))


def test_a_changed_column_does_not_match_its_digest(table):
    with np.load(table, allow_pickle=False) as arrays:
        content = dict(arrays)
    content["a_test_acc_12ep"] = content["a_test_acc_12ep"] + 1
    np.savez(table, **content)
    assert read_columns(table, ["a_val_acc_12ep"]).columns  # its own digest still holds
    with pytest.raises(ValueError, match="'a_test_acc_12ep' does not match its SHA-256"):
        read_columns(table, ["a_test_acc_12ep"])


def test_pickles_inside_are_refused(tmp_path):
    np.savez(tmp_path / "t.npz", arch=ARCH, a=np.array([{}, {}, {}], dtype=object))
    with pytest.raises(ValueError, match=r"damaged .*allow_pickle=False"):
        read_columns(tmp_path / "t.npz", ["a"])


def test_other_files_are_not_tables(tmp_path):
    np.savez(tmp_path / "t.npz", accuracy=np.zeros(3))
    with pytest.raises(ValueError, match="no array 'arch'"):
        read_columns(tmp_path / "t.npz", [])
    with pytest.raises(ValueError, match="no array 'arch'"):
        list_columns(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", arch=ARCH, text=np.array(["x", "y", "z"]))
    assert list_columns(tmp_path / "t.npz") == []
    with pytest.raises(ValueError, match="'text' is <U1"):
        read_columns(tmp_path / "t.npz", ["text"])


def test_find_table(table, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("CATCHMARK_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"no table 't\.npz' in .*elsewhere or in \$CATCHMARK_DATA \(not set\)"):
        find_table("t.npz")
    monkeypatch.setenv("CATCHMARK_DATA", str(table.parent))
    assert find_table("t.npz") == table
    (elsewhere / "t.npz").write_bytes(b"")
    assert find_table("t.npz").resolve() == elsewhere / "t.npz"  # the current folder comes first
    assert find_table(table) == table


def test_a_table_without_provenance_opens(real_data):
    path = real_data("nasbench201.npz")
    names = list_columns(path)
    assert "cifar10_test_acc_200ep" in names and "flops_m" in names and "arch_str" not in names
    content = read_columns(path, ["cifar10_test_acc_200ep"])
    assert content.arch.shape == (15625, 6) and content.provenance == {} and content.space is None
    # The benchmark's best network on CIFAR-10's test images.
    best = content.columns["cifar10_test_acc_200ep"].argmax()
    assert best == 6111 and content.columns["cifar10_test_acc_200ep"][best] == pytest.approx(94.3733, abs=1e-4)
