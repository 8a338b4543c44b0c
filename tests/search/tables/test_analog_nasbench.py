"""AnalogNAS-Bench: a synthetic file in its layout, and the real one where it is at hand."""

import importlib.metadata
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from search.spaces.nasbench201 import NASBench201
from search.tables.analog_nasbench import METRICS, convert_analog_nasbench
from search.tables.table import list_columns, read_columns

SPACE = NASBench201()


@pytest.fixture
def content(monkeypatch):
    """Bytes of a data file with two networks, pickled as instances of the package's classes."""
    module = types.ModuleType("analognasbench.data")

    class DriftMeasurement:
        def __init__(self, value):
            self.value, self.uncertainty = value, 0.1

    class Architecture:
        def __init__(self, codes, first):
            self.architecture = codes
            for k, condition in enumerate(METRICS):
                setattr(self, condition, DriftMeasurement(first + k) if "drift" in condition else first + k)

    for kind in (DriftMeasurement, Architecture):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    package = types.ModuleType("analognasbench")
    package.data = module
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "analognasbench", package)
        patch.setitem(sys.modules, "analognasbench.data", module)
        return pickle.dumps(
            {(0, 1, 2, 3, 4, 0): Architecture((0, 1, 2, 3, 4, 0), 10.0), (1,) * 6: Architecture((1,) * 6, 50.0)}
        )


def test_values(content, tmp_path):
    (tmp_path / "data.anb").write_bytes(content)
    out = convert_analog_nasbench(tmp_path / "o.npz", tmp_path / "data.anb")
    table = read_columns(out, list_columns(out))
    # Edges by source node: 1<-0 skip, 2<-0 none, 3<-0 3x3, 2<-1 1x1, 3<-1 pool, 3<-2 skip.
    assert [SPACE.format(tuple(row)) for row in table.arch.tolist()] == [
        "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|skip_connect~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ]
    assert list(table.columns) == [f"cifar10_test_{metric}_200ep" for metric in METRICS.values()]
    assert np.array_equal(np.stack(list(table.columns.values())), np.arange(13)[:, None] + [10, 50])


def test_wheel(content, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as wheel:
        wheel.writestr("analognasbench/data.anb", content)
    out = convert_analog_nasbench(tmp_path / "o.npz", tmp_path / "p.whl")
    assert read_columns(out, []).arch.shape == (2, 6)
    with zipfile.ZipFile(tmp_path / "q.whl", "w") as wheel:
        wheel.writestr("other.txt", "")
    with pytest.raises(ValueError, match=r"q\.whl: no 'analognasbench/data\.anb' in it"):
        convert_analog_nasbench(tmp_path / "o.npz", tmp_path / "q.whl")


def test_installed_package_is_found_and_not_imported(content, tmp_path, monkeypatch):
    (tmp_path / "analognasbench").mkdir()
    (tmp_path / "analognasbench" / "data.anb").write_bytes(content)
    (tmp_path / "analognasbench" / "__init__.py").write_text("raise SystemExit('imported')")
    info = tmp_path / "analog_nasbench-0.1.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: analog-nasbench\nVersion: 0.1.3\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    out = convert_analog_nasbench(tmp_path / "o.npz")
    assert len(read_columns(out, []).arch) == 2 and "analognasbench" not in sys.modules


def test_absent_package_and_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps analog-nasbench==0\.1\.3"):
        convert_analog_nasbench(tmp_path / "o.npz", tmp_path / "absent.whl")
    if not _installed():
        with pytest.raises(
            FileNotFoundError, match=r"not installed; run 'pip install --no-deps analog-nasbench==0\.1\.3'"
        ):
            convert_analog_nasbench(tmp_path / "o.npz")


def test_other_pickles_are_refused(tmp_path):
    (tmp_path / "data.anb").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"not the data of analog-nasbench 0\.1\.3"):
        convert_analog_nasbench(tmp_path / "o.npz", tmp_path / "data.anb")
    (tmp_path / "data.anb").write_bytes(pickle.dumps({"a": os.system}))
    with pytest.raises(ValueError, match=r"names 'posix\.system'"):
        convert_analog_nasbench(tmp_path / "o.npz", tmp_path / "data.anb")


def _installed() -> bool:
    try:
        importlib.metadata.distribution("analog-nasbench")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def real(tmp_path_factory, real_data):
    wheel = None if _installed() else real_data("analog_nasbench-0.1.3-py3-none-any.whl")
    return convert_analog_nasbench(tmp_path_factory.mktemp("analog") / "o.npz", wheel)


def _by_code(archs, *columns):
    order = SPACE.code(torch.from_numpy(archs).long()).argsort().numpy()
    return [column[order] for column in columns]


def test_real_file_agrees_with_another_copy(real, real_data):
    table = read_columns(real, list_columns(real))
    with np.load(real_data("nasbench201_analog.npz")) as arrays, np.load(real_data("nasbench201.npz")) as benchmark:
        (want,) = _by_code(benchmark["arch"], arrays["accuracy"])
    (got,) = _by_code(table.arch, np.stack(list(table.columns.values()), axis=1))
    assert got.shape == (15625, 13) and np.array_equal(got, want)


def test_real_file_ranks_like_nasbench201(real, real_data):
    """The edges and operations are decoded right only if the networks rank as in another benchmark's training."""
    digital = read_columns(real, ["cifar10_test_acc_digital_200ep"])
    benchmark = read_columns(real_data("nasbench201.npz"), ["cifar10_test_acc_200ep"])
    (a,) = _by_code(digital.arch, *digital.columns.values())
    (b,) = _by_code(benchmark.arch, *benchmark.columns.values())
    assert np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1] > 0.98
