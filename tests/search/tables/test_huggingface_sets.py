"""Image data sets of the Hugging Face Hub as they lie on disk."""

import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image

from datamodules.npz import load_npz
from search.cli import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def picture(grey):
    return Image.fromarray(np.full((6, 8, 3), grey, dtype=np.uint8))


def save(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(grey).save(path)


def convert(folder, *words):
    assert main(["data", "huggingface", str(folder), "--out", "x.npz", "--resolution", "4", *words]) == 0
    return load_npz("x.npz")


def greys(images):
    assert images.shape[1:] == (4, 4, 3)
    return images[:, 0, 0, 0].tolist()


def test_a_list_of_all_splits(tmp_path):
    lines = ["file_name,label"]
    for k in range(6):
        split = "train" if k < 4 else "test"
        save(tmp_path / f"in/{split}/{k}.png", 10 * k)
        lines.append(f"{split}/{k}.png,{'ab'[k % 2]}")
    (tmp_path / "in/metadata.csv").write_text("\n".join(lines))
    arrays = convert("in")
    assert greys(arrays.train_images) == [0, 10, 20, 30] and greys(arrays.val_images) == [40, 50]
    assert arrays.train_labels.tolist() == [0, 1, 0, 1] and arrays.classes == ("a", "b")


def test_a_list_in_each_split_with_numbers_in_a_column_of_another_name(tmp_path):
    for split, numbers in (("train", [10, 9, 10, 9]), ("validation", [9]), ("test", [10])):
        rows = []
        for k, number in enumerate(numbers):
            save(tmp_path / f"in/{split}/{k}.png", number + k)
            rows.append(json.dumps({"file_name": f"{k}.png", "digit": number, "writer": k}))
        (tmp_path / f"in/{split}/metadata.jsonl").write_text("\n".join(rows) + "\n")
    arrays = convert("in", "--label", "digit")
    assert arrays.classes == ("9", "10") and arrays.train_labels.tolist() == [1, 0, 1, 0]
    assert greys(arrays.val_images) == [9]  # of validation, not of test


def test_without_splits_every_fifth_of_each_class_is_held_out(tmp_path):
    rows = []
    for k in range(10):
        save(tmp_path / f"in/{k}.png", k)
        rows.append(json.dumps({"file_name": f"{k}.png", "label": "ab"[k % 2]}))
    (tmp_path / "in/metadata.jsonl").write_text("\n".join(rows))
    assert greys(convert("in").val_images) == [8, 9]


def test_sub_folders_of_classes(tmp_path):
    for k in range(12):
        save(tmp_path / f"in/{'train' if k < 8 else 'test'}/{'ab'[k % 2]}/{k}.png", k)
    assert greys(convert("in").train_images) == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("name,label\n0.png,a", (), "no column 'file_name' of images"),
        ("file_name,kind,writer\n0.png,a,b", (), "say with --label which of kind, writer"),
        ("file_name,label\n0.png,a", ("--label", "labl"), "no column 'labl' of classes; did you mean 'label'"),
        ("file_name,label\n0.png,\n", (), "picture 1: 'file_name' and 'label' are needed"),
        ("file_name,label\n9.png,a", (), "picture 1: there is no"),
        ("file_name,label\n0.png,a", (), "pictures of 1 classes"),
        ("file_name,label\n", (), "names no picture"),
        ("file_name,label\n0.png,a\nbroken.png,b", (), "fewer than 5 images"),
        ("file_name,label\n" + "0.png,a\nbroken.png,b\n" * 5, (), "broken.png cannot be read as an image"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(content, words, said, tmp_path, capsys):
    save(tmp_path / "in/0.png", 1)
    (tmp_path / "in/broken.png").write_bytes(b"no picture")
    (tmp_path / "in/metadata.csv").write_text(content)
    assert main(["data", "huggingface", "in", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1


def test_what_holds_no_data_set(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for folder, said in (("in", "in has no metadata.csv"), ("nowhere", "no folder 'nowhere'")):
        assert main(["data", "huggingface", folder]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_the_extra_is_named(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/train.parquet").write_bytes(b"PAR1")
    assert main(["data", "huggingface", "in"]) == 2
    assert "pip install 'catchmark[arrow]'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_arrow_and_parquet(kind, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'catchmark[arrow]'")
    from pyarrow import parquet

    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    (tmp_path / "in").mkdir()
    for split, labels in (("train", [1, 0, 1]), ("test", [0, 1])):
        values = []
        for k in range(len(labels)):
            content = io.BytesIO()
            picture(10 * k + len(labels)).save(content, "PNG")
            values.append({"bytes": content.getvalue(), "path": None})
        kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(values, kinds), "label": pa.array(labels, pa.int64())})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        if kind == "parquet":
            parquet.write_table(table, tmp_path / f"in/{split}-00000-of-00001.parquet")
            continue
        (tmp_path / "in" / split).mkdir()
        path = str(tmp_path / "in" / split / "data-00000-of-00001.arrow")
        make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with make(path, table.schema) as writer:
            writer.write_table(table)
    arrays = convert("in")
    assert arrays.classes == ("cat", "dog") and arrays.train_labels.tolist() == [1, 0, 1]
    assert greys(arrays.train_images) == [3, 13, 23] and greys(arrays.val_images) == [2, 12]
