"""Recipes and runs of the version before classes moved into rooms.

``earlier_runs/`` holds two runs that it wrote and that were killed: a search with 14 of 24 evaluations, and a study of
supernets with one of its two trained.
"""

import importlib
import shutil
from pathlib import Path

import pytest
import yaml
from pytorch_lightning import LightningDataModule

from search.cli import main
from search.errors import CatchmarkError
from search.recipes.classes import find_class
from search.recipes.moved import CLASSES, MOVED, path_today, paths_today
from search.runs.journal import Journal

RUNS = Path(__file__).parent / "earlier_runs"


@pytest.fixture(params=["search", "supernets"])
def run(request, tmp_path, monkeypatch):
    """A copy of an earlier run."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(RUNS / request.param, tmp_path / "runs" / f"earlier_{request.param}" / "20261129-012827")


def evaluations(run):
    """Every evaluation of a run, by search."""
    journal = Journal(run / "journal.sqlite", writable=False)
    try:
        # repr: not a number is not equal to itself
        return {name: [repr(record) for record in journal.records(name)] for name in journal.searches()}
    finally:
        journal.close()


@pytest.mark.parametrize("old", sorted(MOVED))
def test_where_a_module_moved_there_is_one(old):
    importlib.import_module(MOVED[old])
    assert path_today(f"{old}.Some") == f"{MOVED[old]}.Some"


@pytest.mark.parametrize("old", sorted(CLASSES))
def test_where_a_class_moved_there_is_one(old):
    module, _, name = path_today(old).rpartition(".")
    assert getattr(importlib.import_module(module), name).__module__ == module
    assert path_today(path_today(old)) == path_today(old) != old


def test_paths_are_renamed_wherever_they_stand():
    old = {"class_path": "search.supernets.study.SupernetStudy", "init_args": {"of": [{"class_path": "a.B"}], "n": 1}}
    new = {"class_path": "search.studies.supernet_study.SupernetStudy", "init_args": old["init_args"]}
    assert paths_today(old) == new and paths_today(new) == new


def test_an_old_path_in_a_recipe_is_answered_with_the_new_one(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"class_path": "search.supernets.study.SupernetStudy", "init_args": {}}))
    assert main(["run", str(path), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "it is 'search.studies.supernet_study.SupernetStudy' now" in said


def test_an_old_name_in_a_recipe_is_answered_with_the_new_one():
    with pytest.raises(CatchmarkError, match=r"^data: 'HalvesDataModule' is called 'ThreePartsDataModule' now$"):
        find_class("HalvesDataModule", LightningDataModule, "data")


def test_an_earlier_run_is_reported_and_compared(run, capsys):
    before = evaluations(run)
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file() and (run / "summary.json").is_file()
    assert evaluations(run) == before
    if "search" in run.parent.name:
        again = shutil.copytree(run, run.parent / "again")
        capsys.readouterr()
        assert main(["compare", str(run), str(again)]) == 0
        assert "evolution" in capsys.readouterr().out


def test_an_earlier_run_goes_on_to_its_end(run):
    before = evaluations(run)
    assert main(["run", "--resume", str(run), "--quiet"]) == 0
    after = evaluations(run)
    for name, records in before.items():
        assert after[name][: len(records)] == records, "what was evaluated is kept"
    assert sum(map(len, after.values())) > sum(map(len, before.values()))
    assert (run / "report.html").is_file()
