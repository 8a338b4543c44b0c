"""``catchmark sweep``: a W&B sweep's file, run here."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from search.cli import main
from search.recipes.outline import RECIPES
from search.recipes.sweep_file import read_sweep
from search.recipes.yaml_text import dump_yaml

RECIPE = {
    "space": "NASBench201",
    "targets": {"sums": {"class_path": "counting.Count", "init_args": {}}},
    "agents": {"evolution": {"class_path": "RegularizedEvolution", "init_args": {"population": 4, "tournament": 2}}},
    "budget": 4,
}
TASK = """
from pathlib import Path
from search.evaluation import Evaluation
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne

class Count(OneByOne):
    def __init__(self, space: SearchSpace, weight: float = 1.0, bonus: float = 0.0):
        self.space, self.weight, self.bonus = space, weight, bonus

    def evaluate_one(self, proposal):
        with open("log", "a") as log:
            log.write(f"{self.weight}\\n")
        if Path("stop").exists() and len(Path("log").read_text().splitlines()) == 6:
            raise KeyboardInterrupt
        return Evaluation(self.bonus - (self.weight - 3.0) ** 2)
"""
METRIC = "targets/sums/agents/evolution/best_score_mean"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "counting", raising=False)
    Path("counting.py").write_text(TASK)
    Path("count.yaml").write_text(dump_yaml(RECIPE))
    return tmp_path


def write(method, parameters, goal="maximize", metric=METRIC, recipe="count.yaml"):
    command = ["${env}", "catchmark", "run", recipe, "--quiet", "--targets.sums.bonus", "2", "${args}"]
    content = {"method": method, "metric": {"name": metric, "goal": goal}, "parameters": parameters}
    Path("mine.sweep.yml").write_text(dump_yaml({"program": "catchmark", "command": command, **content}))
    return "mine.sweep.yml"


def evaluations():
    return Path("log").read_text().split()


def test_a_grid_is_run_whole_and_goes_on_where_it_was_stopped(folder, capsys):
    file = write(
        "grid", {"targets.sums.weight": {"values": [1.0, 3.5]}, "agents.evolution.population": {"values": [3, 4]}}
    )
    Path("stop").touch()
    assert main(["sweep", file]) == 130
    Path("stop").unlink()
    assert main(["sweep", file, "--csv", "table.csv"]) == 0
    assert evaluations().count("1.0") == evaluations().count("3.5") + 1 == 9  # the one under way was asked again
    out = capsys.readouterr().out
    head, *rows = csv.reader(Path("table.csv").open())
    assert head == ["run", METRIC, "targets.sums.weight", "agents.evolution.population", "folder"]
    assert [row[:4] for row in rows] == [
        ["3", "1.75", "3.5", "3"],
        ["4", "1.75", "3.5", "4"],
        ["1", "-2", "1", "3"],
        ["2", "-2", "1", "4"],
    ]
    assert "best_score_mean  weight  population" in " ".join(out.split("\n")).replace("   ", "  ")
    assert "Recipes differ in:" in out and "agents.evolution.init_args.population" in out
    before = len(evaluations())
    assert main(["sweep", file]) == 0 and len(evaluations()) == before
    write("grid", {"targets.sums.weight": {"values": [1.0, 3.0]}, "agents.evolution.population": {"values": [3, 4]}})
    capsys.readouterr()
    assert main(["sweep", file]) == 2
    assert "has other values than the sweep wants" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_draws_follow_from_the_seed_and_what_is_known(method, folder, capsys):
    parameters = {
        "targets.sums.weight": {"distribution": "log_uniform_values", "min": 0.1, "max": 10},
        "agents.evolution.population": {"min": 3, "max": 5},
        "agents.evolution.tournament": {"value": 2},
    }
    file = write(method, parameters)
    sweep = read_sweep(Path(file))
    known = []
    for _ in range(40):
        point = sweep.draw(7, known)
        assert list(point) == list(parameters) and point["agents.evolution.tournament"] == 2
        assert 0.1 <= point["targets.sums.weight"] <= 10 and point["agents.evolution.population"] in (3, 4, 5)
        known.append((point, -((point["targets.sums.weight"] - 3.0) ** 2)))
    assert [sweep.draw(7, known[:k]) for k in (0, 5, 39)] == [known[k][0] for k in (0, 5, 39)]
    assert sweep.draw(8, []) != known[0][0]
    if method == "bayes":  # it has learned where the best lie
        far = [abs(point["targets.sums.weight"] - 3.0) for point, _ in known]
        assert np.median(far[-15:]) < 0.8 * np.median(far[:10])
    else:
        assert main(["sweep", file]) == 2 and "--count N is needed" in capsys.readouterr().err
        assert main(["sweep", file, "--count", "2"]) == 0
        first = [json.loads(Path(f"runs/mine.sweep/00{k}/values.json").read_text()) for k in range(2)]
        assert first[0] == sweep.draw(0, [])
        assert main(["sweep", file, "--count", "3"]) == 0 and len(evaluations()) == 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": METRIC.replace("mean", "men")}, f"did you mean '{METRIC}'"),
        ({"parameters": {"targets.sums.wieght": {"values": [1.0]}}}, "weight"),
        ({"recipe": "cuont.yaml"}, "recipe 'cuont.yaml' is not a file"),
        ({"method": "hyperband"}, "allowed"),
        ({"parameters": {"a": {"distribution": "normal", "mu": 1, "sigma": 2}}}, "'normal' can't be drawn here"),
        ({"parameters": {"a": {"min": 3, "max": 1}}}, "'min' below 'max'"),
        ({"parameters": {"a": {"min": 1.0, "max": 2.0}}}, "a grid needs 'values'"),
        ({"parameters": {}}, "at least one is needed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change, said, folder, capsys):
    words = {"method": "grid", "parameters": {"targets.sums.weight": {"values": [1.0]}}, **change}
    assert main(["sweep", write(**words)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_every_sweep_that_ships_is_read():
    files = sorted(RECIPES.glob("sweeps/*.sweep.yml"))
    assert len(files) >= 3
    for file in files:
        sweep = read_sweep(file)
        assert (RECIPES.parent / sweep.words[0]).is_file() and sweep.metric.count("/") >= 2
        point = next(sweep.grid()) if sweep.method == "grid" else sweep.draw(0, [])
        assert list(point) == list(sweep.parameters)
