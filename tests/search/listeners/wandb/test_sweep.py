"""A recipe under a W&B sweep: real runs of the command line, started by W&B's own agent, and as it starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from search.errors import CatchmarkError
from search.evaluation import Evaluation
from search.listeners.wandb.sweep import numbers, take_sweep
from search.recipes.recipe import RECIPES, load_recipe
from search.tasks.base import OneByOne
from tests import forks
from tests.processes import PATIENCE
from tests.search.listeners.wandb.server import Server
from tests.search.listeners.wandb.test_searches import logged

pytestmark = pytest.mark.data

ROOT = Path(__file__).parents[4]
SWEEPS = sorted(RECIPES.glob("**/*.sweep.yml"))
RECIPE = """
space: tests.search.agents.toy_spaces.Grid
targets:
  sum: tests.search.listeners.wandb.test_sweep.Sum
agents:
  evolution: {class_path: RegularizedEvolution, init_args: {population: 3}}
  random: RandomSearch
budget: 6
"""
POPULATION = "agents.evolution.init_args.population"
METRIC = "targets/sum/agents/evolution/best_score_mean"


class Sum(OneByOne):
    """Of the choices."""

    instant = True

    def __init__(self, space: object):
        self.space = space

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        return Evaluation(float(sum(architecture)))


@pytest.fixture
def place(tmp_path):
    """A folder with the recipe, and the environment of a user who has nothing but W&B's address."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "home").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    inherited |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    return tmp_path, inherited


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_a_sweeps_agent_gets_one_run_for_the_recipe(place):
    folder, environment = place
    (folder / "server").mkdir()
    server = Server(folder / "server")
    command = ["${env}", sys.executable, "-m", "search.cli", "run", "recipe.yaml", "--quiet", "${args}"]
    asked = {"type": "run", "run_id": "asked", "program": "catchmark", "args": {POPULATION: {"value": 4}}}
    try:
        server.post("/sweep", {"config": yaml.safe_dump({"command": command}), "runs": [asked]})
        agent = subprocess.run(
            [sys.executable, "-m", "wandb", "agent", "me/catchmark/abc", "--count", "1"],
            cwd=folder,
            env=environment | server.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        runs = server.state.runs
    finally:
        server.end()
    assert agent.returncode == 0, agent.stderr
    run = folder / "runs/recipe/latest"
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert resolved["agents"]["evolution"]["init_args"]["population"] == 4
    whole = runs.pop("asked")
    assert (whole["sweep"], whole["groupName"], whole["jobType"], whole["exitcode"]) == ("abc", "recipe", "sweep", 0)
    assert json.loads(whole["config"])[POPULATION]["value"] == 4
    (row,) = whole["history"].values()
    found = numbers(summary_of(run))
    assert {name: row[name] for name in found} == found and METRIC in found
    # Beside it the recipe's two searches, which are no runs of the sweep.
    assert {each["displayName"] for each in runs.values()} == {"recipe/sum/evolution", "recipe/sum/random"}
    assert all(not each.get("sweep") and each["exitcode"] == 0 for each in runs.values())


def under_a_sweep(place, *words, **more):
    """The command line as an agent starts it, offline."""
    folder, environment = place
    parameters = folder / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, POPULATION: {"desc": None, "value": 4}}))
    environment |= {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "asked", "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    words = ["run", "recipe.yaml", "--quiet", f"--{POPULATION}=4", *words]
    environment |= {"WANDB_MODE": "offline"} | more
    return forks.server().run(forks.COMMAND_LINE, words, folder=folder, environment=environment)


def test_offline_the_run_that_was_asked_for_lies_beside_the_searches(place):
    assert under_a_sweep(place).returncode == 0
    run = (place[0] / "runs/recipe/latest").resolve()
    found = {each.run.run_id: each for each in logged(run)}
    whole = found.pop("asked")
    assert whole.run.sweep_id == "abc" and whole.config[POPULATION] == 4 and whole.exits[0].exit_code == 0
    assert whole.points == [numbers(summary_of(run))]
    assert len(found) == 2 and not any(each.run.sweep_id for each in found.values())


def test_a_run_that_fails_has_failed_for_the_sweep(place):
    finished = under_a_sweep(
        place, "--targets.sum=tests.search.listeners.wandb.test_sweep.Nothing", "--most_failures=3"
    )
    assert finished.returncode != 0 and "evaluations in a row failed" in finished.stderr
    (whole,) = [each for each in logged((place[0] / "runs/recipe/latest").resolve()) if each.run.run_id == "asked"]
    assert whole.points == [] and whole.exits[0].exit_code == 1


class Nothing(Sum):
    """Works."""

    def evaluate_one(self, proposal):
        raise ValueError("never")


def test_what_the_agent_left_is_taken_once(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("wandb_version: 1\nbudget: {desc: null, value: 3}\n")
    environment = {
        "WANDB_SWEEP_ID": "s",
        "WANDB_RUN_ID": "r",
        "WANDB_SWEEP_PARAM_PATH": str(file),
        "WANDB_PROJECT": "p",
    }
    sweep = take_sweep(environment)
    assert (sweep.name, sweep.run, sweep.values) == ("s", "r", {"budget": 3})
    assert environment == {"WANDB_PROJECT": "p"} and take_sweep(environment) is None
    assert take_sweep(alone := {"WANDB_RUN_ID": "r"}) is None and alone == {"WANDB_RUN_ID": "r"}


def test_numbers_of_a_summary():
    assert numbers({"a": {"b": 1, "c": {"d": 2.5, "e": [3], "f": "4"}}, "g": None, "h": True, "i": 0}) == {
        "a/b": 1,
        "a/c/d": 2.5,
        "i": 0,
    }


# ---- the sweeps that ship ------------------------------------------------------------------------------------------


def values_of(parameter):
    """What a sweep can choose: every value of a list, or both ends of a range."""
    if "values" in parameter:
        return parameter["values"]
    return [parameter["value"]] if "value" in parameter else [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_value_of_a_sweep_is_one_of_its_recipe(file):
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] in ("grid", "random", "bayes") and sweep["metric"]["goal"] in ("minimize", "maximize")
    *_, program, run, recipe, quiet, arguments = sweep["command"]
    assert (program, run, quiet, arguments) == ("catchmark", "run", "--quiet", "${args}") and sweep["name"]
    choices = {key: values_of(parameter) for key, parameter in sweep["parameters"].items()}
    for k in range(max(map(len, choices.values()))):
        chosen = {key: values[k % len(values)] for key, values in choices.items()}
        try:
            _, resolved = load_recipe(ROOT / recipe, {key: str(value) for key, value in chosen.items()})
        except CatchmarkError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                pytest.skip(str(error))
            raise
        for key, value in chosen.items():
            place = yaml.safe_load(resolved)
            for name in key.split("."):
                place = place[name]
            assert place == value
