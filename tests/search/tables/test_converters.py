"""The list of converters that the command line is built from."""

import importlib
import inspect
import subprocess
import sys

import numpy as np
import pytest

from search.errors import CatchmarkError
from search.tables import CONVERTERS
from search.tables.table import read_columns


@pytest.mark.parametrize("name", CONVERTERS)
def test_functions_exist_and_take_source_and_out(name):
    converter = CONVERTERS[name]
    module, function = converter.function.split(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert set(parameters) == {"source", "out"} | {option.name for option in converter.options}
    assert all(parameters[option.name].default == option.default for option in converter.options)
    assert (parameters["source"].default is inspect.Parameter.empty) == converter.source_required
    assert converter.example.startswith(f"catchmark data {name} ")
    assert converter.help and converter.source_help and "\n" not in converter.help + converter.source_help


def test_the_list_imports_nothing_heavy():
    code = "import sys, search.tables; print(sorted({'torch', 'numpy', 'tqdm'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_convert(tmp_path):
    source = tmp_path / "s.npz"
    np.savez(source, arch_str=["64-41414-1_02_333"], tasks=["jigsaw"], val_metric=[[50.0]])
    out = CONVERTERS["transnasbench101"].convert(source, tmp_path / "o.npz")
    assert read_columns(out, ["jigsaw_val_acc"]).columns["jigsaw_val_acc"].tolist() == [50.0]


def test_errors_are_one_line_for_the_user(tmp_path):
    with pytest.raises(CatchmarkError, match="'nasbench201' needs a source, for instance: catchmark data nasbench201"):
        CONVERTERS["nasbench201"].convert(None, tmp_path / "o.npz")
    with pytest.raises(CatchmarkError, match="no file or folder"):
        CONVERTERS["nasbench201"].convert(tmp_path / "absent", tmp_path / "o.npz")
    (tmp_path / "file").write_text("")
    np.savez(tmp_path / "s.npz", arch_str=["64-41414-1_02_333"], tasks=["jigsaw"], val_metric=[[50.0]])
    with pytest.raises(CatchmarkError, match="file"):  # the table cannot be written below a file
        CONVERTERS["transnasbench101"].convert(tmp_path / "s.npz", tmp_path / "file" / "o.npz")
