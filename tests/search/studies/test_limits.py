"""Hard limits that a recipe says, from the recipe to what a run calls the best."""

import json

import pytest
import yaml

from search.cli import main
from search.runs.journal import Journal

RECIPE = """
space: NASBench201
targets:
  reward:
    class_path: LatencyRewardTask
    init_args:
      quality: {table: nasbench201.npz, dataset: cifar10_valid, split: val, metric: acc, epochs: 200}
      latency_table: nasbench201_latency.npz
      device: 1080ti_32
      exponent: -0.07
      objectives:
        latency_ms: {direction: min, limit: 9.0}
        quality: {direction: max, limit: 85}
  table:
    class_path: TableTask
    init_args:
      {table: nasbench201.npz, dataset: cifar10_valid, split: val, metric: acc, epochs: 200,
       also: [{dataset: cifar100, split: test, metric: acc, epochs: 200}],
       objectives: {cifar10_valid_val_acc_200ep: max, cifar100_test_acc_200ep: {direction: min, limit: 60}}}
agents: {random: RandomSearch, evolution: RegularizedEvolution}
budget: 15
trials: 3
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def write(text):
        (tmp_path / "limits.yaml").write_text(text)
        return str(tmp_path / "limits.yaml")

    return write


def test_no_winner_misses_a_limit(recipe, tmp_path):
    assert main(["run", recipe(RECIPE), "--quiet"]) == 0
    run = tmp_path / "runs" / "limits" / "latest"
    summary = json.loads((run / "summary.json").read_text())
    journal = Journal(run / "journal.sqlite", writable=False)
    for target, metric, limit in (("reward", "latency_ms", 9.0), ("table", "cifar100_test_acc_200ep", 60.0)):
        for agent, about in summary["targets"][target]["agents"].items():
            found = [record.evaluation for record in journal.records(f"{target}/{agent}")]
            kept = [each.score for each in found if each.violation == 0]
            assert kept and about["best"]["score"] == max(kept) and about["best"]["metrics"][metric] <= limit
            assert about["infeasible"] == len(found) - len(kept) > 0 and about["failed"] == 0
            assert about["best_possible"] >= max(kept), "the best that keeps the limits, not the best of all"
            assert all((each.violation > 0) == (each.metrics[metric] > limit) for each in found if target == "table")
    journal.close()
    assert "over a limit" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    "objectives, words",
    [
        ({"latency_ms": {"direction": "least"}}, "objectives.latency_ms: direction is 'least', allowed: max, min"),
        ({"latency": "min"}, "objectives has 'latency', allowed: quality, latency_ms, score"),
        ({"latency_ms": {"direction": "min", "most": 5}}, "most"),
    ],
)
def test_objectives_that_are_none_are_refused_in_one_line(objectives, words, recipe, capsys):
    described = yaml.safe_load(RECIPE)
    described["targets"]["reward"]["init_args"]["objectives"] = objectives
    assert main(["run", recipe(yaml.safe_dump(described)), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said and "targets.reward" in said
