"""TransNAS-Bench-101's two plain layouts."""

import numpy as np
import pytest

from search.spaces.transnasbench101 import TransNASBench101Micro
from search.tables.table import list_columns, read_columns
from search.tables.transnasbench101 import convert_transnasbench101

TEXTS = ["64-41414-1_02_333", "64-41414-0_00_000"]


def test_npz(tmp_path):
    values = np.array([[50.0, -0.6], [10.0, -0.7]])
    np.savez(tmp_path / "s.npz", arch_str=TEXTS, tasks=["jigsaw", "room_layout"], val_metric=values)
    out = convert_transnasbench101(tmp_path / "s.npz", tmp_path / "o.npz")
    table = read_columns(out, ["jigsaw_val_acc", "room_layout_val_neg_loss"])
    assert table.arch.tolist() == [[1, 0, 2, 3, 3, 3], [0] * 6]
    assert np.stack(list(table.columns.values()), axis=1) == pytest.approx(values)
    assert table.space == "transnasbench101_micro"


def test_csv(tmp_path):
    (tmp_path / "s.csv").write_text(f"arch_str,class_scene,normal\n{TEXTS[0]},54.9,0.58\n{TEXTS[1]},7.5,\n")
    out = convert_transnasbench101(tmp_path / "s.csv", tmp_path / "o.npz")
    table = read_columns(out, ["class_scene_val_acc", "normal_val_ssim"])
    assert table.columns["class_scene_val_acc"] == pytest.approx([54.9, 7.5])
    assert np.isnan(table.columns["normal_val_ssim"][1])


def test_wrong_sources(tmp_path):
    out = tmp_path / "o.npz"
    (tmp_path / "s.csv").write_text(f"arch_str,depth\n{TEXTS[0]},54.9\n")
    with pytest.raises(ValueError, match="task 'depth' is none of class_scene, class_object"):
        convert_transnasbench101(tmp_path / "s.csv", out)
    np.savez(tmp_path / "s.npz", arch_str=TEXTS, tasks=["jigsaw"], val_metric=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="val_metric is"):
        convert_transnasbench101(tmp_path / "s.npz", out)
    np.savez(tmp_path / "s.npz", arch_str=TEXTS)
    with pytest.raises(ValueError, match="no readable arch_str, tasks and val_metric"):
        convert_transnasbench101(tmp_path / "s.npz", out)
    with pytest.raises(FileNotFoundError, match="absent"):
        convert_transnasbench101(tmp_path / "absent.npz", out)
    assert not out.exists()


def test_the_real_table_comes_out_of_its_own_layout(tmp_path, real_data):
    table = read_columns(path := real_data("transnasbench101.npz"), list_columns(path))
    columns = {name.partition("_val_")[0]: column for name, column in table.columns.items()}
    texts = [TransNASBench101Micro().format(arch) for arch in table.arch.tolist()]
    values = np.stack(list(columns.values()), axis=1)
    np.savez(tmp_path / "s.npz", arch_str=texts, tasks=list(columns), val_metric=values)
    made = read_columns(convert_transnasbench101(tmp_path / "s.npz", tmp_path / "o.npz"), list(table.columns))
    assert np.array_equal(made.arch, table.arch)
    assert made.provenance["columns_sha256"] == table.provenance["columns_sha256"]


def test_real_values(real_data):
    path = real_data("transnasbench101.npz")
    assert len(list_columns(path)) == 7
    table = read_columns(path, ["class_scene_val_acc", "segmentsemantic_val_acc"])
    assert table.arch.shape == (4096, 6)
    # The empty cell can only guess one of some 50 scenes; the best cells recognise more than half.
    scene = table.columns["class_scene_val_acc"]
    assert scene[(table.arch == 0).all(axis=1)] < 10 and 50 < scene.max() < 60
