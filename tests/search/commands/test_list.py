"""``catchmark list`` and ``catchmark schema``: what a recipe can say, for people and for editors."""

import contextlib
import io
import json
import re

import jsonschema
import pytest
import yaml

from search import __version__
from search.cli import main
from search.recipes.recipe import RECIPES


def test_everything_has_a_line(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for line in ("recipes", "spaces", "data modules", "executors", "reward terms", "tables"):
        assert f"\n{line}\n" in f"\n{said}"
    for name in ("NASBench201", "TrainedTask", "DigitsDataModule", "RayExecutor", "TableLatency", "Experiment"):
        assert re.search(rf"^  {name} +\S", said, re.M)


def test_a_class_is_described_with_its_arguments(capsys):
    assert main(["list", "RegularizedEvolution"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("agents: search.agents.regularized_evolution.RegularizedEvolution\n")
    assert re.search(r"^  population = 10  \(whole number\)\n      \S", said, re.M)
    assert "trials" not in said  # a recipe does not give it there
    assert main(["list", "TableTask"]) == 0
    assert re.search(r"^  table  \(text\)$", capsys.readouterr().out, re.M)  # required: no default
    assert main(["list", "GaussianProcess"]) == 0
    assert capsys.readouterr().out.startswith("search.agents.predictor.")


def test_a_wrong_name_is_corrected(capsys):
    assert main(["list", "TraindTask"]) == 2
    assert "did you mean 'TrainedTask'" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.strip() == f"catchmark {__version__}"


@pytest.fixture(scope="module")
def schema():
    """As the command prints it."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["schema"]) == 0
    found = json.loads(said.getvalue())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_every_recipe_that_ships_fits_the_schema(schema):
    paths = sorted(RECIPES.glob("**/*.yaml"))
    wrong = {
        str(path): [error.message for error in schema.iter_errors(yaml.safe_load(path.read_text()))] for path in paths
    }
    assert len(paths) > 50 and {path: errors for path, errors in wrong.items() if errors} == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("budgte", 3),
        ("budget", "many"),
        ("space", "NASBench202"),
        ("space", {"class_path": "NASBench201", "init_args": {"cells": 3}}),
        ("targets", {"one": {"class_path": "TableTask", "init_args": {"table": "t.npz"}}}),
        ("agents", {"one": {"class_path": "RegularizedEvolution", "init_args": {"population": "ten"}}}),
    ],
)
def test_mistakes_do_not_fit(key, value, schema):
    recipe = {"space": "NASBench201", "targets": {}, "agents": {"one": "RandomSearch", "mine": "my_agents.Mine"}}
    assert schema.is_valid(recipe)
    assert not schema.is_valid({**recipe, key: value})


def test_the_command_prints_the_schema(schema):
    assert schema.schema["title"] == "A recipe of catchmark"
