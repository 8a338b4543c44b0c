"""What somebody meant."""

import subprocess
import sys
from pathlib import Path

from lightning_modules.spelling import nearest, spelled_alike


def test_the_nearest_spelling_whatever_its_case():
    assert nearest("randomsearch", ["RandomSearch", "CATCHer"]) == "; did you mean 'RandomSearch'?"
    assert nearest("xyz", ["RandomSearch", "CATCHer"]) == "; allowed: RandomSearch, CATCHer"
    assert nearest("xyz", ["RandomSearch"], "known") == "; known: RandomSearch"
    assert nearest("xyz", ["RandomSearch"], "") == nearest("xyz", []) == ""
    assert nearest("xyz", ["RandomSearch"], cutoff=0.0) == "; did you mean 'RandomSearch'?"
    assert nearest(12, [10, 120]) == "; did you mean '120'?"
    assert nearest("x", map(str, range(100, 200))).endswith("128, 129, ...")


def test_several_spellings_the_nearest_first():
    assert spelled_alike("val_acc_21", ["val_acc_12", "test", "val_acc_200"], 2, 0.0)[0] == "val_acc_12"


def test_there_is_one_way_to_look_for_it():
    packages = [Path(__file__).parents[2] / name for name in ("search", "lightning_modules", "datamodules")]
    users = [path.name for package in packages for path in package.rglob("*.py") if "difflib" in path.read_text()]
    assert users == ["spelling.py"]


def test_nothing_heavy_is_loaded():
    code = "import sys, lightning_modules.spelling; assert not {'torch', 'pytorch_lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
