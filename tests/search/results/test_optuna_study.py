"""A run as Optuna studies."""

import json
import math

import optuna
import pytest

import search
from search.cli import main
from search.recipes.yaml_text import dump_yaml
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
    about = study.user_attrs
    assert (about["space"], about["score"], about["agent"]) == ("NASBench201", "threes", "agent, RandomSearch")
    for trial, record in zip(study.trials, found.records, strict=True):
        assert trial.duration.total_seconds() == pytest.approx(record.evaluation.cost_seconds, abs=2e-6)
    followed = zip(study.trials, study.trials[1:], strict=False)
    assert all(earlier.datetime_complete == later.datetime_start for earlier, later in followed)


def exported(tmp_path, agent, arguments):
    """The study and the summary of a search on a table."""
    table = {"table": "nasbench201.npz", "dataset": "cifar10_valid", "split": "val", "metric": "acc", "epochs": 200}
    task = {"class_path": "TableTask", "init_args": table | arguments}
    recipe = {"space": "NASBench201", "targets": {"t": task}, "agents": {"a": agent}, "budget": 24}
    (tmp_path / "r.yaml").write_text(dump_yaml(recipe))
    assert main(["run", str(tmp_path / "r.yaml"), "--runs", str(tmp_path), "--quiet"]) == 0
    run, file = tmp_path / "r" / "latest", tmp_path / "study.db"
    assert main(["report", str(run), "--optuna", str(file)]) == 0
    study = optuna.load_study(study_name="t/a", storage=f"sqlite:///{file}")
    return study, json.loads((run / "summary.json").read_text())["targets"]["t"]["agents"]["a"]


def test_missed_limits_are_constraints(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    other = {"dataset": "cifar100", "split": "test", "metric": "acc", "epochs": 200}
    wanted = {"cifar10_valid_val_acc_200ep": "max", "cifar100_test_acc_200ep": {"direction": "min", "limit": 60}}
    study, summary = exported(tmp_path, "RandomSearch", {"also": [other], "objectives": wanted})
    missed = [trial.values[1] > 60 for trial in study.trials]
    assert missed == [trial.constraints["limits"] > 0 for trial in study.trials]
    assert 0 < sum(missed) == summary["infeasible"] < 24
    best = max(trial.values[0] for trial in study.best_trials)  # which Optuna finds among those that keep the limit
    assert best == pytest.approx(summary["best_score_mean"])


def test_what_was_less_than_a_full_evaluation_is_pruned(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    halving = {"class_path": "SuccessiveHalving", "init_args": {"levels": [12, 200], "eta": 3, "inherit": False}}
    study, summary = exported(tmp_path, halving, {"dataset": "cifar10", "split": "test", "fidelities": [12]})
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert 0 < len(pruned) == summary["partial"] < 24
    assert all(trial.user_attrs["fidelity"] == {"epochs": 12} and trial.values is None for trial in pruned)
    assert all(50 < trial.user_attrs["score"] < 100 or trial.user_attrs["score"] == 10 for trial in pruned)
    assert study.best_value == pytest.approx(summary["best_score_mean"])


def test_a_file_that_can_not_be_written(tmp_path, capsys):
    run = tmp_path / "run"
    search.find("NASBench201", evaluate, 12, "LocalSearch", folder=run, quiet=True)
    assert main(["report", str(run), "--optuna", str(tmp_path / "nowhere" / "study.db")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("catchmark: --optuna: ") and "name another file" in said and said.count("\n") == 1
