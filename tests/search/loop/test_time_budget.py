"""A limit of time, from the recipe to everything that is told of a run."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from search.cli import main
from search.errors import CatchmarkError
from search.loop.time_budget import within
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.results.comparison import compare_runs
from search.results.search import without_seconds
from search.runs.journal import Journal
from search.tables.table import write_table
from search.tasks.table import CostModel, Measurement
from tests.search.evaluating import evaluate, evaluate_many
from tests.search.listeners.wandb.test_searches import logged as wandb_runs

BUDGET, TRIALS, SECONDS = 12, 3, 100.0
COLUMN = {"table": "tiny.npz", "split": "val", "metric": "acc", "epochs": 12}
RECIPE = {
    "space": "NASBench201",
    "targets": {
        "a": {
            "class_path": "TableTask",
            "init_args": {
                **COLUMN,
                "dataset": "c",
                "cost_seconds": {"seconds": 20.0, "flops_share": 0.75},
                "also": [{"dataset": "c", "split": "test", "metric": "acc", "epochs": 200}],
            },
        },
        "b": {"class_path": "TableTask", "init_args": {**COLUMN, "dataset": "c", "cost_seconds": 10}},
    },
    "agents": {"random": "RandomSearch", "evolution": "RegularizedEvolution"},
    "budget": BUDGET,
    "budget_seconds": {"a": SECONDS, "b": 70},
    "trials": TRIALS,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a table and a recipe."""
    archs = np.array(list(itertools.product(range(5), repeat=6)))
    generator = np.random.default_rng(0)
    columns = {
        "c_val_acc_12ep": generator.uniform(0, 90, len(archs)),
        "c_test_acc_200ep": generator.uniform(0, 90, len(archs)),
        "flops_m": generator.uniform(10, 200, len(archs)),
    }
    write_table(tmp_path / "tiny.npz", archs, columns, "nasbench201", compressed=False)
    (tmp_path / "recipe.yaml").write_text(dump_yaml(RECIPE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


def run(*words, runs="runs"):
    assert main(["run", "recipe.yaml", "--quiet", "--runs", runs, *words]) == 0
    return Path(runs) / "recipe" / "latest"


def journalled(folder, search):
    journal = Journal(folder / "journal.sqlite", writable=False)
    try:
        return list(journal.records(search)), journal.progress(search)[0]
    finally:
        journal.close()


# ---- the recipe --------------------------------------------------------------------------------------------------


def test_what_a_recipe_may_say(folder):
    experiment, resolved = load_recipe("recipe.yaml")
    assert [experiment.seconds(target) for target in "ab"] == [100.0, 70.0]
    task = experiment.targets["a"]
    assert task.cost_seconds == 20.0 and list(evaluate(task, (0,) * 6, 0).metrics) == ["c_test_acc_200ep"]
    assert load_recipe("recipe.yaml", {"budget_seconds": "55"})[0].seconds("b") == 55
    assert load_recipe("recipe.yaml", {"budget_seconds.b": "8.5"})[0].seconds("b") == 8.5
    assert load_recipe("recipe.yaml", {"budget_seconds": "null"})[0].seconds("b") is None
    # The resolved recipe says the same again.
    Path("again.yaml").write_text(resolved)
    assert load_recipe("again.yaml")[1] == resolved
    arguments = yaml.safe_load(resolved)["targets"]["a"]["init_args"]
    assert CostModel(**arguments["cost_seconds"]) == CostModel(20.0, 0.75)
    assert [Measurement(**each) for each in arguments["also"]] == [Measurement("c", "test", "acc", 200)]


def test_costs_and_columns_can_be_replaced(folder):
    overrides = {"targets.a.cost_seconds.flops_share": "0", "targets.b.cost_seconds": "{seconds: 3, flops_share: 1}"}
    overrides["targets.a.also"] = "[]"
    experiment, _ = load_recipe("recipe.yaml", overrides)
    a, b = (experiment.targets[target] for target in "ab")
    archs = list(experiment.space.enumerate())[::50]
    assert {each.cost_seconds for each in evaluate_many(a, archs)} == {20.0}
    assert len({each.cost_seconds for each in evaluate_many(b, archs)}) == len(archs)
    assert evaluate(a, archs[0], 0).metrics == {}
    assert load_recipe("recipe.yaml", {"targets.a.cost_seconds": "7"})[0].targets["a"].cost_seconds == 7


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("budget_seconds", "0", "budget_seconds is 0.0, it must be a number above 0"),
        ("budget_seconds", "{a: 5, b: -1}", "budget_seconds.b is -1.0, it must be a number above 0"),
        ("budget_seconds", "{a: 5, c: 5}", "budget_seconds.c: there is no such target; targets: a, b"),
        ("budget_seconds", "{a: 5}", "budget_seconds: there is no number for b; give one to each target"),
        ("budget_seconds", "soon", "budget_seconds: a number or a mapping of names to values or null is needed"),
        ("budget_seconds.a", "soon", "budget_seconds.a: a number is needed"),
        ("targets.b.cost_seconds", "0", "an evaluation on 'b' is said to cost no time"),
        ("targets.a.cost_seconds", "-1", "targets.a: cost_seconds is -1"),
        ("targets.a.cost_seconds.flops_share", "2", "cost_seconds.flops_share is 2"),
        ("targets.a.cost_seconds.flop_share", "2", "flop_share: there is no such key; did you mean 'flops_share'?"),
        ("targets.a.also", "[{dataset: c}]", "also[0].split: this key is missing"),
        ("targets.b.also", "[{dataset: c, split: test, metric: acc, epochs: 20}]", "no column 'c_test_acc_20ep'"),
    ],
)
def test_mistakes(key, value, words, folder):
    with pytest.raises(CatchmarkError) as caught:
        load_recipe("recipe.yaml", {key: value})
    assert words in str(caught.value) and "\n" not in str(caught.value)


# ---- the run -----------------------------------------------------------------------------------------------------


def test_a_run_with_limits_of_time(folder):
    made = run()
    summary = json.loads((made / "summary.json").read_text())
    assert summary["budget_seconds"] == RECIPE["budget_seconds"]
    ends = {}
    for target, agent in itertools.product("ab", RECIPE["agents"]):
        records, finished = journalled(made, f"{target}/{agent}")
        entry, limit = summary["targets"][target]["agents"][agent], RECIPE["budget_seconds"][target]
        assert finished and summary["targets"][target]["budget_seconds"] == limit
        counted = []
        for trial in range(TRIALS):
            spent = np.cumsum([each.evaluation.cost_seconds for each in records if each.trial == trial])
            assert spent[-1] >= limit
            counted.append(int((spent <= limit + 1e-6).sum()))
        assert entry["evaluations"] == max(counted) and entry["evaluations_mean"] == np.mean(counted)
        ends[target, agent] = len(records) // TRIALS
    assert ends["b", "random"] == 7 and all(ends["a", agent] < BUDGET for agent in RECIPE["agents"])
    for agent in RECIPE["agents"]:
        records, _ = journalled(made, f"a/{agent}")
        found = summary["targets"]["a"]["agents"][agent]["at_best"]["c_test_acc_200ep"]
        bests = []
        for trial in range(TRIALS):
            mine = [each.evaluation for each in within(records, SECONDS) if each.trial == trial]
            bests.append(max(mine, key=lambda each: each.score).metrics["c_test_acc_200ep"])
        assert found["mean"] == pytest.approx(np.mean(bests))
        assert summary["targets"]["b"]["agents"][agent]["at_best"] == {}


def test_the_ceiling_of_evaluations_holds(folder):
    summary = json.loads((run("--budget_seconds", "1e6") / "summary.json").read_text())
    for target in "ab":
        for entry in summary["targets"][target]["agents"].values():
            assert entry["evaluations"] == entry["evaluations_mean"] == BUDGET


def test_trials_with_a_limit_of_time_are_the_searches_of_their_own_seeds(folder):
    """What a trial does while it waits for the others does not reach its numbers."""
    together = run()
    alone = run("--trials", "1", "--seed", "2", runs="alone")
    for search in ("a/random", "a/evolution"):
        many = [each for each in within(journalled(together, search)[0], SECONDS) if each.trial == 2]
        one = within(journalled(alone, search)[0], SECONDS)
        assert [(each.architecture, each.seed, each.evaluation) for each in many] == [
            (each.architecture, each.seed, each.evaluation) for each in one
        ]


def test_runs_with_limits_of_time_are_compared_by_what_counts(folder):
    first, second = run().resolve(), run("--seed", "9", runs="others").resolve()
    for row in compare_runs([first, second]).rows:
        assert row.best().mean() == pytest.approx(row.summary["best_score_mean"])
        assert row.evaluations == row.summary["evaluations"]


def test_a_finished_search_is_logged_once(folder, monkeypatch):
    """It has fewer evaluations than its budget would allow; W&B must not take it for one that goes on."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ["--agents", "{random: RandomSearch}", "--seed", "1"]
    made = run(*words).resolve()
    logged = {each.name: each.stat().st_mtime_ns for each in (made / "wandb").glob("offline-run-*")}
    before = json.loads((made / "summary.json").read_text())
    run(*words, f"--resume={made}")
    assert {each.name: each.stat().st_mtime_ns for each in (made / "wandb").glob("offline-run-*")} == logged
    assert len(logged) == 2
    assert without_seconds(json.loads((made / "summary.json").read_text())) == without_seconds(before)
    # The best is of those that count, though a waiting trial has met a better one.
    everything = journalled(made, "a/random")[0]
    best_score = before["targets"]["a"]["agents"]["random"]["best"]["score"]
    assert max(each.evaluation.score for each in everything) > best_score
    for each in wandb_runs(made):
        best = before["targets"][each.config["target"]]["agents"]["random"]["best"]
        assert json.loads(each.summary["best_architecture"]) == best["architecture"]
