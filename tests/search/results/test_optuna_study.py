"""A run as Optuna studies."""

import math

import optuna
import pytest

import search
from search.cli import main
from search.spaces.nasbench201 import NASBench201


def evaluate(architecture):
    if architecture[0] == 0:
        raise RuntimeError("no such bridge")
    return {"score": architecture.count(3), "skips": architecture.count(1)}


@pytest.mark.parametrize("objectives", [None, {"score": {"direction": "max"}, "skips": {"direction": "min"}}])
def test_every_evaluation_is_a_trial(objectives, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "study.db"
    found = search.find(
        "NASBench201", evaluate, 20, "RandomSearch", folder=run, objectives=objectives, score_name="threes", quiet=True
    )
    for _ in range(2):  # the file is replaced
        assert main(["report", str(run), "--optuna", str(file)]) == 0
    assert f"optuna-dashboard sqlite:///{file}" in capsys.readouterr().out
    study = optuna.load_study(study_name="function/agent", storage=f"sqlite:///{file}")
    assert len(study.trials) == 20 and len(study.directions) == len(objectives or [1])
    assert study.metric_names == list(objectives or ["score"])
    space = NASBench201()
    for trial, record in zip(study.trials, found.records, strict=True):
        assert tuple(trial.params.values()) == tuple(
            each.choices[index] for each, index in zip(space.decisions, record.architecture, strict=True)
        )
        if record.architecture[0] == 0:
            assert trial.state.name == "FAIL" and trial.user_attrs["reason"].startswith("RuntimeError: no such bridge")
        else:
            wanted = [record.architecture.count(3), record.architecture.count(1)][: len(trial.values)]
            assert trial.values == wanted and trial.user_attrs["skips"] == record.architecture.count(1)
    assert math.isclose(max(trial.values[0] for trial in study.trials if trial.values), found.score)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_can_not_be_written(tmp_path, capsys):
    run = tmp_path / "run"
    search.find("NASBench201", evaluate, 12, "LocalSearch", folder=run, quiet=True)
    assert main(["report", str(run), "--optuna", str(tmp_path / "nowhere" / "study.db")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("catchmark: --optuna: ") and "name another file" in said and said.count("\n") == 1
