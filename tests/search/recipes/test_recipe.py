"""Recipes: every mistake is one clear line, and what is right is built and can be run again from its resolved form."""

import copy
import functools
import itertools
import operator
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from search.cli import main
from search.errors import CatchmarkError
from search.recipes.recipe import load_recipe, read_recipe
from search.recipes.yaml_text import dump_yaml, parse_yaml
from search.tables.table import write_table
from tests.forks import COMMAND_LINE

RECIPE = {
    "space": "NASBench201",
    "targets": {
        "images": {
            "class_path": "TableTask",
            "init_args": {"table": "tiny.npz", "dataset": "c", "split": "val", "metric": "acc", "epochs": 12},
        }
    },
    "agents": {
        "random": "RandomSearch",
        "catch": {"class_path": "CATCHer", "init_args": {"settings": {"candidates": 5}}},
        "evolution": {"class_path": "RegularizedEvolution", "init_args": {"population": 4}},
    },
    "budget": 3,
}
POOL = {
    "class_path": "TablePool",
    "init_args": {"tasks": [{"table": "tiny.npz", "dataset": "c", "split": "val", "metric": "acc", "epochs": 12}]},
}
TASK = "targets.images.init_args."
SETTINGS = "agents.catch.init_args.settings"
ABSENT = object()


@pytest.fixture(scope="module")
def table_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    archs = np.array(list(itertools.product(range(5), repeat=6)))
    values = np.random.default_rng(0).uniform(0, 90, len(archs))
    write_table(folder / "tiny.npz", archs, {"c_val_acc_12ep": values}, "nasbench201", compressed=False)
    return folder


@pytest.fixture
def folder(table_folder, tmp_path, monkeypatch):
    """A current folder with the table."""
    (tmp_path / "tiny.npz").symlink_to(table_folder / "tiny.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CATCHMARK_DATA", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def changed(**changes):
    """The recipe with some values replaced, by dotted key ('__' for a dot), or removed."""
    recipe = copy.deepcopy(RECIPE)
    for key, value in changes.items():
        *parents, last = key.replace("__", ".").split(".")
        at = recipe
        for parent in parents:
            at = at[parent]
        if value is ABSENT:
            del at[last]
        else:
            at[last] = value
    return recipe


def line_of(capsys, *arguments, recipe=None):
    """Standard error of a recipe that must be refused: one line, exit code 2."""
    if recipe is not None:
        Path("r.yaml").write_text(recipe if isinstance(recipe, str) else dump_yaml(recipe))
    code = main(["run", "r.yaml", "--dry-run", *arguments])
    output = capsys.readouterr()
    assert code == 2 and output.out == ""
    assert output.err.startswith("catchmark: ") and output.err.count("\n") == 1 and output.err.endswith("\n")
    return output.err[len("catchmark: ") : -1]


def trained(**arguments):
    return {"targets.t": {"class_path": "TrainedTask", "init_args": {"data": "DigitsDataModule"} | arguments}}


def meta(**changes):
    return {"meta_training": {"pool": POOL, "agents": ["catch"]} | changes}


# Each: changes of the recipe, and what the line must say, in this order.
MALFORMED = {
    "misspelled key": ({"buget": 4}, ["buget", "no such key", "did you mean 'budget'?"]),
    "key far from any": ({"x": 4}, ["x:", "allowed: space, targets, agents, budget"]),
    "no space": ({"space": ABSENT}, ["space:", "missing"]),
    "no targets": ({"targets": ABSENT}, ["targets:", "missing"]),
    "no agents": ({"agents": ABSENT}, ["agents:", "missing"]),
    "empty agents": ({"agents": {}}, ["agents:", "at least one"]),
    "agents without a value": ({"agents": None}, ["agents:", "a mapping of names to values", "empty"]),
    "empty targets": ({"targets": {}}, ["targets:", "at least one"]),
    "unknown class": (
        {"space": "Foo"},
        [
            "space:",
            "'Foo'",
            "known: AutoDeepLab, AutoFormer, CASBackbone,",
            ", TransNASBench101Micro",
        ],
    ),
    "misspelled class": (
        {"agents.random": "RandomSerch"},
        ["agents.random:", "no Agent 'RandomSerch'", "did you mean 'RandomSearch'?"],
    ),
    "class of other case": ({"space": "nasbench201"}, ["space:", "did you mean 'NASBench201'?"]),
    "class path misspelled": (
        {"agents.catch.class_path": "CATCHr"},
        ["agents.catch.class_path:", "did you mean 'CATCHer'?"],
    ),
    "agent as a space": ({"space": "RandomSearch"}, ["space:", "'RandomSearch' is no SearchSpace", "NASBench201"]),
    "space as a task": ({"targets.images": "NASBench201"}, ["targets.images:", "is no Task", "TableTask"]),
    "wrong base by path": (
        {"space": "search.agents.random_search.RandomSearch"},
        ["space:", "is no SearchSpace", "known: AutoDeepLab"],
    ),
    "no such module": (
        {"space": "nowhere.module.NASBench"},
        ["space:", "can't import 'nowhere.module'", "NASBench201"],
    ),
    "no such class in the module": (
        {"space": "search.spaces.nasbench201.NASBench202"},
        ["space:", "'search.spaces.nasbench201' has no class 'NASBench202'", "did you mean 'NASBench201'?"],
    ),
    "function as a class": ({"space": "os.system"}, ["space:", "'os' has no class 'system'"]),
    "number as a name of an argument": (trained(trainer={1: 2}), ["targets.t.init_args.trainer:", "1 is not text"]),
    "abstract class": ({"space": "search.spaces.base.SearchSpace"}, ["space:", "abstract", "build"]),
    "relative import": ({"space": ".nasbench201.NASBench201"}, ["space:", ".nasbench201"]),
    "class without a name": ({"space": {"init_args": {}}}, ["space.class_path:", "missing"]),
    "class path is a number": ({"space": {"class_path": 3}}, ["space.class_path:", "name of a class", "3"]),
    "stray key beside class_path": ({"agents.catch.context": "zero"}, ["agents.catch.context:", "'init_args'"]),
    "init_args is a list": ({"agents.catch.init_args": [3]}, ["agents.catch.init_args:", "a mapping", "a list"]),
    "argument of a class that has none": (
        {"agents.random": {"class_path": "RandomSearch", "init_args": {"x": 1}}},
        ["agents.random.init_args.x:", "RandomSearch has no arguments"],
    ),
    "text for int": ({"budget": "many"}, ["budget:", "a whole number is needed, this is 'many'"]),
    "fraction for int": ({"budget": 2.5}, ["budget:", "a whole number", "2.5"]),
    "bool for int": ({"budget": True}, ["budget:", "a whole number", "true"]),
    "null for int": ({"budget": None}, ["budget:", "a whole number", "empty"]),
    "nan for int": ({"budget": float("nan")}, ["budget:", "a whole number", "nan"]),
    "text for optional int": ({TASK + "epochs": "x"}, [TASK + "epochs:", "a whole number or null", "'x'"]),
    "text for float": ({SETTINGS + ".clip": "big"}, [SETTINGS + ".clip:", "a number is needed", "'big'"]),
    "quoted number for float": ({SETTINGS + ".clip": "0.2"}, [SETTINGS + ".clip:", "a number is needed", "'0.2'"]),
    "nan for float": ({SETTINGS + ".clip": float("nan")}, [SETTINGS + ".clip:", "a finite number", "nan"]),
    "inf for float": ({SETTINGS + ".clip": float("inf")}, [SETTINGS + ".clip:", "a finite number", "inf"]),
    "huge int for float": ({SETTINGS + ".clip": 10**400}, [SETTINGS + ".clip:", "a finite number", "000..."]),
    "text for bool": ({SETTINGS + ".double": "maybe"}, [SETTINGS + ".double:", "true or false", "'maybe'"]),
    "number for text": ({"name": 3}, ["name:", "text is needed, this is 3; put it in quotes"]),
    "list for a mapping": ({"agents": ["a"]}, ["agents:", "a mapping", "a list"]),
    "number for a list": (meta(agents=3), ["meta_training.agents:", "a list", "3"]),
    "number for settings": ({SETTINGS: 3}, [SETTINGS + ":", "a mapping of settings", "3"]),
    "settings with class_path": ({SETTINGS: {"class_path": "CatcherSettings"}}, [SETTINGS + ".class_path:", "below"]),
    "not one of the choices": (
        {"agents.catch.init_args.context": "posteriour"},
        ["agents.catch.init_args.context:", "'posteriour' is not one of: posterior, zero, random", "'posterior'?"],
    ),
    "misspelled setting": (
        {SETTINGS + ".candidate": 3},
        [SETTINGS + ".candidate:", "no such key", "did you mean 'candidates'?"],
    ),
    "candidates 0": ({SETTINGS + ".candidates": 0}, [SETTINGS + ":", "candidates is 0", "at least 1"]),
    "epsilon 2": ({SETTINGS + ".epsilon_start": 2}, [SETTINGS + ":", "epsilon_start is 2.0", "[0, 1]"]),
    "budget 0": ({"budget": 0}, ["budget is 0", "at least 1"]),
    "trials -1": ({"trials": -1}, ["trials is -1", "at least 1"]),
    "population 0": ({"agents.evolution.init_args.population": 0}, ["agents.evolution:", "population is 0"]),
    "no such table": ({TASK + "table": "nope.npz"}, ["targets.images:", "nope.npz", "catchmark data"]),
    "folder as a table": ({TASK + "table": "."}, ["targets.images:", "no table '.'"]),
    "no such column": ({TASK + "dataset": "b"}, ["targets.images:", "'b_val_acc_12ep'", "nearest", "c_val_acc_12ep"]),
    "missing argument": ({TASK + "dataset": ABSENT}, [TASK + "dataset:", "missing", "TableTask needs it"]),
    "missing data": (
        {"targets.t": {"class_path": "TrainedTask", "init_args": {}}},
        ["targets.t.init_args.data:", "missing", "TrainedTask needs it"],
    ),
    "misspelled data": (trained(data="DigitDataModule"), ["targets.t.init_args.data:", "'DigitsDataModule'?"]),
    "misspelled argument of the data": (
        trained(data={"class_path": "DigitsDataModule", "init_args": {"resolutin": 8}}),
        ["targets.t.init_args.data.init_args.resolutin:", "did you mean 'resolution'?"],
    ),
    "misspelled argument of the Trainer": (trained(trainer={"precison": 16}), ["targets.t", "'precision'?"]),
    "a class where plain values belong": (
        trained(trainer={"callbacks": [{"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}]}),
        ["targets.t.init_args.trainer.callbacks[0].class_path:", "no class"],
    ),
    "meta-training without a pool": ({"meta_training": {"agents": ["catch"]}}, ["meta_training.pool:", "missing"]),
    "meta-training is text": ({"meta_training": "yes"}, ["meta_training:", "settings or null", "'yes'"]),
    "pool of no tasks": (
        meta(pool={"class_path": "TablePool", "init_args": {"tasks": []}}),
        ["meta_training.pool:", "'tasks' is empty"],
    ),
    "misspelled key in a list": (
        meta(pool={"class_path": "TablePool", "init_args": {"tasks": [{"tabel": "tiny.npz"}]}}),
        ["meta_training.pool.init_args.tasks[0].tabel:", "did you mean 'table'?"],
    ),
    "unknown agent to meta-train": (meta(agents=["cach"]), ["meta_training.agents:", "'cach'", "random, catch"]),
    "agent that can't be meta-trained": (
        meta(agents=["random"]),
        ["meta_training.agents:", "'random'", "meta-trained"],
    ),
    "slash in an agent's name": ({"agents": {"a/b": "RandomSearch"}}, ["agents:", "'a/b' can't be a name", "slashes"]),
    "dot in an agent's name": ({"agents": {"a.b": "RandomSearch"}}, ["agents:", "'a.b' can't be a name", "no dots"]),
    "empty agent's name": ({"agents": {"": "RandomSearch"}}, ["agents:", "'' can't be a name"]),
    "line break in an agent's name": ({"agents": {"a\nb": "RandomSearch"}}, ["agents:", r"'a\nb' can't be a name"]),
    "number as an agent's name": ({"agents": {3: "RandomSearch"}}, ["agents:", "the name 3 is not text", "quotes"]),
    "bool as an agent's name": ({"agents": {False: "RandomSearch"}}, ["agents:", "false is not text", "quotes"]),
    "slash in a target's name": ({"targets": {"a/b": RECIPE["targets"]["images"]}}, ["targets:", "'a/b'", "slashes"]),
    "empty target's name": ({"targets": {"": RECIPE["targets"]["images"]}}, ["targets:", "'' can't be a name"]),
    "taken target's name": ({"targets": {"meta_training": RECIPE["targets"]["images"]}}, ["targets:", "taken"]),
    "name that leaves the folder": ({"name": "../x"}, ["name:", "'../x' can't be a name"]),
    "name that is the link": ({"name": "latest"}, ["name:", "'latest'", "taken"]),
    "no weights file": ({"agents.catch.init_args.init": "w.pt"}, ["agents.catch:", "'w.pt'", "No such file"]),
    "folder as a weights file": ({"agents.catch.init_args.init": "."}, ["agents.catch:", "'.'", "directory"]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_recipe(name, folder, capsys):
    changes, words = MALFORMED[name]
    line = line_of(capsys, recipe=changed(**changes))
    position = 0
    for word in words:
        assert word in line[position:], line
        position = line.index(word, position)
    assert not (folder / "ran").exists()


def places(node, path=()):
    """The path of every value of a recipe."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


def test_any_value_anywhere_is_taken_or_refused_in_one_line(folder, capsys):
    """No value at any place of a recipe ends in a traceback, however wrong it is."""
    recipe = changed(**meta(epochs=2)) | {"name": "x", "description": "d", "seed": 1}
    strange = [None, -1, 0, 1e308, "", "x", "a/b", [], {}, [[]], {"a": 1}, {1: 2}, True, float("nan"), 10**30]
    strange += [{"class_path": "os.system"}, [None], "RandomSearch"]
    refused = 0
    for path, value in random.Random(0).sample(list(itertools.product(places(recipe), strange)), 100):
        wrong = copy.deepcopy(recipe)
        functools.reduce(operator.getitem, path[:-1], wrong)[path[-1]] = value
        Path("r.yaml").write_text(dump_yaml(wrong))
        code = main(["run", "r.yaml", "--dry-run"])
        errors = capsys.readouterr().err
        assert (code, errors.count("\n")) in ((0, 0), (2, 1)), (path, value, errors)
        refused += code == 2
    assert refused > 50


TEXTS = {
    "not YAML": ("space: NASBench201\nagents: [a, b\n", ["r.yaml: line 3, column 1", "expected ',' or ']'"]),
    "tab": ("space: NASBench201\n\ttargets: 3\n", ["r.yaml: line 2, column 1", "\\t"]),
    "colon twice": ("space: NASBench201\nbudget: 3: 4\n", ["line 2, column 10", "mapping values are not allowed"]),
    "python object": ("space: !!python/object/apply:os.system ['touch ran']\n", ["line 1, column 8", "os.system"]),
    "control character": ("space: \x00\n", ["r.yaml:", "#x0000"]),
    "two documents": ("space: A\n---\nspace: B\n", ["line 2, column 1", "single document"]),
    "undefined alias": ("space: *x\n", ["line 1, column 8", "undefined alias 'x'"]),
    "alias of itself": ("agents: &a {x: *a}\n", ["r.yaml:", "alias that holds itself"]),
    "aliases that multiply": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 10)}]\n" for k in range(9)),
        ["r.yaml:", "100,000 entries"],
    ),
    "nested too deeply": ("[" * 1000, ["r.yaml:", "too deeply"]),
    "duplicate key": ("budget: 3\nspace: A\nbudget: 4\n", ["line 3, column 1", "'budget' stands twice", "line 1"]),
    "duplicate nested key": ("agents: {a: A, b: B, a: C}\n", ["line 1, column 22", "'a' stands twice"]),
    "empty": ("", ["r.yaml:", "a recipe is a mapping", "empty"]),
    "only comments": ("# nothing\n", ["r.yaml:", "a recipe is a mapping", "empty"]),
    "key that is a number": ("7: 4\n", ["7: there is no such key; allowed: space, targets"]),
    "a list": ("- a\n", ["r.yaml:", "a recipe is a mapping", "a list"]),
    "a word": ("hello", ["r.yaml:", "a recipe is a mapping", "'hello'"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_malformed_text(name, folder, capsys):
    text, words = TEXTS[name]
    line = line_of(capsys, recipe=text)
    assert all(word in line for word in words), line
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_not_utf8(encoding, folder, capsys):
    (folder / "r.yaml").write_bytes("description: café\n".encode(encoding))
    line = line_of(capsys)
    assert line.startswith("r.yaml: a recipe is UTF-8 text")


def test_file_not_found(folder, capsys):
    assert main(["run", "experiments/quickstrt.yaml"]) == 2
    line = capsys.readouterr().err
    assert "'experiments/quickstrt.yaml' is not a file" in line and "experiments/quickstart.yaml'?" in line
    assert line.count("\n") == 1
    assert main(["run", "zzzzzz"]) == 2
    assert "catchmark list" in capsys.readouterr().err


def test_folder_instead_of_file(folder, capsys):
    (folder / "a").mkdir()
    (folder / "a/one.yaml").touch()
    assert main(["run", "a"]) == 2
    assert capsys.readouterr().err == "catchmark: recipe 'a' is a folder, a .yaml file is needed; in it: a/one.yaml\n"


# ---- overrides -----------------------------------------------------------------------------------------------------

OVERRIDES = {
    "misspelled": (["--buget", "3"], ["buget:", "did you mean 'budget'?"]),
    "misspelled below": (["--agents.catch.settings.candidate", "3"], [SETTINGS + ".candidate:", "'candidates'?"]),
    "misspelled name": (["--agents.cach.context", "zero"], ["--agents.cach.context:", "did you mean 'catch'?"]),
    "no value": (["--budget"], ["--budget needs a value"]),
    "option as a value": (["--budget", "--trials", "3"], ["--budget needs a value"]),
    "stray word": (["stray"], ["'stray' stands alone"]),
    "stray word after a pair": (["--budget", "3", "4"], ["'4' stands alone"]),
    "single dash": (["-x", "3"], ["'-x' stands alone"]),
    "bare dashes": (["--", "3"], ["'--' stands alone"]),
    "no key": (["--=3"], ["'--=3' stands alone"]),
    "empty part": (["--agents..x", "3"], ["--agents..x:", "single dots"]),
    "bad YAML": (["--budget", "[3"], ["--budget:", "'[3'", "not valid YAML", "column 3"]),
    "duplicate key": (["--agents", "{a: RandomSearch, a: RandomSearch}"], ["--agents:", "stands twice"]),
    "wrong type": (["--budget", "x"], ["budget:", "a whole number", "'x'"]),
    "below a number": (["--budget.x", "3"], ["--budget.x:", "'budget' is 3"]),
    "not finite": (["--agents.catch.settings.clip", ".nan"], [SETTINGS + ".clip:", "a finite number"]),
    "below init_args of null": (["--agents.none.x", "3"], ["--agents.none.x:", "'agents.none.init_args' is empty"]),
    "misspelled option": (["--dryrun"], ["--dryrun", "did you mean '--dry-run'?"]),
    "misspelled option with a value": (["--run", "here"], ["--run is not an option", "did you mean '--runs'?"]),
    "option without its value": (["--runs"], ["--runs needs a value"]),
    "flag with a value": (["--quiet=3"], ["--quiet takes no value"]),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_malformed_override(name, folder, capsys):
    arguments, words = OVERRIDES[name]
    recipe = changed(**{"agents.none": {"class_path": "RandomSearch", "init_args": None}})
    line = line_of(capsys, *arguments, recipe=recipe)
    assert all(word in line for word in words), line


def resolved(capsys, *arguments, recipe=RECIPE):
    Path("r.yaml").write_text(dump_yaml(recipe))
    assert main(["run", "r.yaml", "--dry-run", *arguments]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_overrides(folder, capsys):
    got = resolved(
        capsys,
        *("--budget", "7"),
        "--seed=-3",
        *("--trials", "2"),
        *("--agents.catch.settings.candidates", "9"),
        *("--agents.catch.init_args.settings.clip", "1e-3"),
        "--agents.catch.context=zero",
        *("--agents.random.class_path", "RegularizedEvolution"),
        *("--agents.random.population", "6"),
        *("--agents.more", "RandomSearch"),
        *("--targets.images.cost_seconds", "2.5e+2"),
        *("--description", "a=b --c"),
    )
    assert (got["budget"], got["seed"], got["trials"]) == (7, -3, 2)
    catch = got["agents"]["catch"]["init_args"]
    assert (catch["settings"]["candidates"], catch["settings"]["clip"], catch["context"]) == (9, 0.001, "zero")
    evolution = "search.agents.regularized_evolution.RegularizedEvolution"
    assert got["agents"]["random"] == {"class_path": evolution, "init_args": {"population": 6, "tournament": 3}}
    assert got["agents"]["more"]["class_path"] == "search.agents.random_search.RandomSearch"
    assert got["targets"]["images"]["init_args"]["cost_seconds"] == 250.0
    assert got["description"] == "a=b --c"


def test_overrides_of_lists_mappings_and_null(folder, capsys):
    recipe = changed(**meta())
    got = resolved(capsys, "--meta_training.agents", "[catch]", "--meta_training.epochs", "4", recipe=recipe)
    assert (got["meta_training"]["agents"], got["meta_training"]["epochs"]) == (["catch"], 4)
    got = resolved(capsys, "--meta_training", "null", "--agents", "{only: RandomSearch}", recipe=recipe)
    assert got["meta_training"] is None and list(got["agents"]) == ["only"]
    two = {"one": "RandomSearch", "two": "LocalSearch"}
    assert list(resolved(capsys, "--agents.two", "null", recipe=changed(agents=two))["agents"]) == ["one"]


def test_options_stand_anywhere(folder, capsys):
    Path("r.yaml").write_text(dump_yaml(RECIPE))
    assert main(["run", "--budget", "7", "--dry-run", "r.yaml", "--quiet", "--seed", "2"]) == 0
    got = yaml.safe_load(capsys.readouterr().out)
    assert (got["budget"], got["seed"]) == (7, 2)


# ---- what is right -------------------------------------------------------------------------------------------------


def test_short_names_and_defaults_are_spelled_out(folder, capsys):
    got = resolved(capsys)
    assert got["name"] == "r" and got["trials"] == 1
    assert got["space"]["class_path"] == "search.spaces.nasbench201.NASBench201"
    assert got["agents"]["catch"]["class_path"] == "search.agents.catcher.agent.CATCHer"
    assert got["agents"]["catch"]["init_args"]["settings"]["latent"] == 10
    assert got["targets"]["images"]["init_args"]["epochs"] == 12


@pytest.mark.parametrize(
    ("file", "name"), [("my recipe (2).v1.yaml", "my recipe (2).v1"), ("a,b.yaml", "a_b"), (".hidden.yaml", "hidden")]
)
def test_name_from_the_file(file, name, folder):
    Path(file).write_text(dump_yaml(RECIPE))
    assert load_recipe(file)[0].name == name


ROUND_TRIPS = {
    "plain": {},
    "null for a required argument": {TASK + "table": "flops.npz", TASK + "epochs": None},
    "meta-training": meta(),
    "trained": trained(
        module={"class_path": "ClassificationModule", "init_args": {"learning_rate": 1e-5}},
        build={"channels": 4, "cells": 1},
        trainer={"precision": "32", "gradient_clip_val": 1e-3, "limit_train_batches": None},
    ),
    **{
        f"description {text!r}": {"description": text}
        for text in ("null", "1e3", "yes", "010", "1:30", "2024-01-01", "{a: 1}", "~", "a: b", "#x", "é\n b", "r.yaml")
    },
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_resolved_recipe_is_a_recipe(name, folder, table_folder):
    archs = np.array(list(itertools.product(range(5), repeat=6)))
    if "flops" in str(ROUND_TRIPS[name]):
        write_table("flops.npz", archs, {"c_val_acc": np.arange(len(archs))}, "nasbench201", compressed=False)
    recipe = changed(**ROUND_TRIPS[name])
    Path("r.yaml").write_text(dump_yaml(recipe))
    _, first = load_recipe("r.yaml")
    Path("again.yaml").write_text(first)
    _, second = load_recipe("again.yaml")
    assert first == second
    assert yaml.safe_load(first) == parse_yaml(first), "other readers of YAML must read the same"
    assert parse_yaml(first).get("description", "") == recipe.get("description", "")


def test_resolved_recipe_runs_the_same(folder, monkeypatch):
    from search.results.search import without_seconds

    monkeypatch.setenv("WANDB_MODE", "disabled")
    Path("r.yaml").write_text(dump_yaml(RECIPE))
    assert main(["run", "r.yaml", "--quiet", "--runs", "first"]) == 0
    assert main(["run", "first/r/latest/config.yaml", "--quiet", "--runs", "second"]) == 0
    first, second = (yaml.safe_load(Path(f"{each}/r/latest/summary.json").read_text()) for each in ("first", "second"))
    assert without_seconds(first) == without_seconds(second)
    assert first["targets"]["images"]["agents"]["random"]["evaluations"] == 3


# ---- classes of the user -------------------------------------------------------------------------------------------

MY_CLASSES = '''
from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation
from search.spaces.base import Decision, SearchSpace
from search.tasks.base import OneByOne


class Ladder(SearchSpace):
    """A few rungs."""

    def __init__(self, rungs: int = 3):
        if rungs < 1:
            raise ValueError(f"rungs is {rungs}, at least 1 is needed")
        self.name = "ladder"
        self.decisions = tuple(Decision(f"rung{k}", ("left", "right")) for k in range(rungs))

    def build(self, architecture, **head):
        raise NotImplementedError


class Height(OneByOne):
    instant = True

    def __init__(self, space: SearchSpace, scale: float = 1.0):
        self.space, self.scale = space, scale

    def evaluate_one(self, proposal):
        return Evaluation(self.scale * sum(proposal.architecture))


class ScaledHeight(Height):
    def __init__(self, space, **kwargs):
        super().__init__(space, **kwargs)


class Broken(Height):
    def __init__(self, space: SearchSpace):
        {}["heights"]


class Luck(RandomSearch):
    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0, charm: str = "clover"):
        super().__init__(space, trials, seed)
'''

BROKEN = MY_CLASSES[: MY_CLASSES.index('{}["heights"]')].count("\n") + 1


@pytest.fixture
def mine(folder):
    (folder / "my_classes.py").write_text(MY_CLASSES)
    return {
        "space": {"class_path": "my_classes.Ladder", "init_args": {"rungs": 4}},
        "targets": {"height": {"class_path": "my_classes.ScaledHeight", "init_args": {"scale": 2}}},
        "agents": {"luck": {"class_path": "my_classes.Luck", "init_args": {"charm": "shoe"}}},
        "budget": 30,
    }


def test_classes_from_the_current_folder(mine, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Path("r.yaml").write_text(dump_yaml(mine))
    assert main(["run", "r.yaml", "--quiet"]) == 0
    summary = yaml.safe_load(Path("runs/r/latest/summary.json").read_text())
    # Random search draws all-right (4 x 2) with probability 1/16 a time: 30 draws of seed 0 contain it.
    assert summary["targets"]["height"]["agents"]["luck"]["best"]["score"] == 8.0


def test_the_current_folder_hides_no_installed_module(mine, capsys):
    Path("yaml.py").write_text("raise SystemExit('the wrong yaml')")
    Path("r.yaml").write_text(dump_yaml(mine))
    script = "import sys; from search.cli import main; sys.exit(main(['run', 'r.yaml', '--dry-run']))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", f"import sys; sys.path = [p for p in sys.path if p]; {script}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_the_command_line_looks_in_the_current_folder(mine):
    Path("r.yaml").write_text(dump_yaml(mine))
    with pytest.raises(CatchmarkError, match="can't import 'my_classes'"):
        load_recipe("r.yaml")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("space.class_path", "my_classes.Laddr", ["'my_classes' has no class 'Laddr'", "did you mean 'Ladder'?"]),
        ("space.class_path", "my_clases.Ladder", ["can't import 'my_clases'"]),
        ("space.init_args.rungs", 0, ["space:", "rungs is 0, at least 1 is needed"]),
        ("targets.height.init_args.scal", 1, ["targets.height.init_args.scal:", "did you mean 'scale'?"]),
        ("targets.height.init_args.scale", "x", ["targets.height.init_args.scale:", "a number is needed"]),
        (
            "targets.height",
            "my_classes.Broken",
            ["targets.height:", f"KeyError: 'heights' (my_classes.py, line {BROKEN})"],
        ),
        ("agents.luck", "my_classes.Height", ["'my_classes.Height' is no Agent", "RandomSearch"]),
        ("agents.luck", "broken.Luck", ["agents.luck:", "importing 'broken' fails with", "ZeroDivisionError"]),
        ("agents.luck", "quits.Luck", ["agents.luck:", "importing 'quits' fails with", "SystemExit"]),
        ("agents.luck", "bad_syntax.Luck", ["importing 'bad_syntax' fails with SyntaxError", "line 1"]),
    ],
)
def test_mistakes_with_own_classes(key, value, words, mine, capsys):
    Path("broken.py").write_text("1 / 0\n")
    Path("quits.py").write_text("import sys\nsys.exit(0)\n")
    Path("bad_syntax.py").write_text("class Luck(:\n")
    *parents, last = key.split(".")
    at = mine
    for parent in parents:
        at = at[parent]
    at[last] = value
    line = line_of(capsys, recipe=mine)
    assert all(word in line for word in words), line


# ---- weights files -------------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("kind", ["text", "pickle", "torch file with code", "truncated"])
def test_weights_that_are_none(kind, folder, capsys):
    if kind == "text":
        Path("w.pt").write_text("hello")
    elif kind == "pickle":
        Path("w.pt").write_bytes(pickle.dumps(Malicious()))
    elif kind == "torch file with code":
        torch.save({"space": Malicious()}, "w.pt")
    else:
        torch.save({"space": torch.zeros(1000)}, "w.pt")
        Path("w.pt").write_bytes(Path("w.pt").read_bytes()[:2000])
    line = line_of(capsys, recipe=changed(**{"agents.catch.init_args.init": "w.pt"}))
    assert line.startswith("agents.catch: ") and "tensors and plain values" in line
    assert "weights_only" not in line, "torch's advice to execute the file must not be passed on"
    assert not (folder / "ran").exists()


def test_weights_of_something_else(folder, capsys):
    torch.save({"a": 1}, "w.pt")
    line = line_of(capsys, recipe=changed(**{"agents.catch.init_args.init": "w.pt"}))
    assert line.startswith("agents.catch: ")


# ---- the command itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fresh", "changes", "arguments", "words"),
    [
        (True, {"agents.random": "RandomSerch"}, [], ["agents.random:", "did you mean 'RandomSearch'?"]),
        (False, {TASK + "table": "nope.npz"}, [], ["targets.images:", "nope.npz"]),
        (False, {}, ["--agents.catch.settings.candidates", "0"], [SETTINGS, "candidates is 0"]),
    ],
)
def test_as_a_process(fresh, changes, arguments, words, server, folder):
    """Nothing else is said, one time with all imports under way."""
    Path("r.yaml").write_text(dump_yaml(changed(**changes)))
    arguments = ["run", "r.yaml", *arguments]
    if fresh:
        command = [Path(sys.executable).parent / "catchmark", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    else:
        done = server.run(COMMAND_LINE, arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words)
    assert not Path("runs").exists(), "a wrong recipe leaves no run behind"


# ---- reading YAML --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", "017"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'1e3'", "1e3"),
        ("3.", 3.0),
        ("-.inf", float("-inf")),
        ("[1, [a]]", [1, ["a"]]),
        ("{b: &x {a: 1, c: 2}, d: {<<: *x, c: 3}}", {"b": {"a": 1, "c": 2}, "d": {"a": 1, "c": 3}}),
    ],
)
def test_yaml_values(text, value):
    got = parse_yaml(text)
    assert got == value and type(got) is type(value)


def test_a_recipe_laid_over_others(tmp_path):
    (tmp_path / "low.yaml").write_text(
        "space: A\nagents: {one: X, two: {class_path: Y, init_args: {a: 1, b: 2}}, three: {c: 3}}\n"
    )
    (tmp_path / "middle").mkdir()
    (tmp_path / "middle/mid.yaml").write_text(
        "base: ../low.yaml\nagents: {two: {init_args: {b: 5}}, three: null}\nbudget: 7\n"
    )
    (tmp_path / "top.yaml").write_text("base: middle/mid.yaml\nagents: {one: {class_path: Z}}\nbudget: 9\n")
    assert read_recipe(tmp_path / "top.yaml") == {
        "space": "A",
        "agents": {"one": {"class_path": "Z"}, "two": {"class_path": "Y", "init_args": {"a": 1, "b": 5}}},
        "budget": 9,
    }


def test_another_class_does_not_take_over_the_arguments_of_the_one_below(tmp_path):
    (tmp_path / "low.yaml").write_text(
        "truth: {class_path: Y, init_args: {a: 1, inner: {class_path: P, init_args: {b: 2}}}}\n"
    )
    (tmp_path / "same.yaml").write_text("base: low.yaml\ntruth: {class_path: Y, init_args: {inner: {class_path: Q}}}\n")
    (tmp_path / "other.yaml").write_text("base: same.yaml\ntruth: {class_path: Z, init_args: {c: 3}}\n")
    kept = {"class_path": "Y", "init_args": {"a": 1, "inner": {"class_path": "Q"}}}
    assert read_recipe(tmp_path / "same.yaml") == {"truth": kept}
    assert read_recipe(tmp_path / "other.yaml") == {"truth": {"class_path": "Z", "init_args": {"c": 3}}}


def test_what_is_taken_out_does_not_come_back_from_below(tmp_path):
    (tmp_path / "a.yaml").write_text("agents: {one: {x: 1}, two: {x: 2}, three: Named}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nagents: {one: {y: 3}}\n")
    (tmp_path / "c.yaml").write_text("base: b.yaml\nagents: {one: null, three: null}\n")
    assert read_recipe(tmp_path / "c.yaml") == {"agents": {"two": {"x": 2}}}


LEARNED = """
agents: {one: X, two: X, three: X}
meta_training: {pool: P, agents: [one]}
meta_training_for:
  a: [{pool: P, agents: [two]}, {pool: Q, agents: &some [two, three]}]
  b: [{pool: Q, agents: *some}]
"""


def test_an_agent_that_is_taken_out_is_not_meta_trained(tmp_path):
    (tmp_path / "low.yaml").write_text(LEARNED)
    (tmp_path / "top.yaml").write_text("base: low.yaml\nagents: {one: null, two: null}\n")
    third = {"pool": "Q", "agents": ["three"]}
    assert read_recipe(tmp_path / "top.yaml") == {
        "agents": {"three": "X"},
        "meta_training_for": {"a": [third], "b": [third]},
    }


def test_an_agent_that_the_command_line_takes_out_is_not_meta_trained(folder, capsys):
    agents = {"one": "NaiveTransfer", "two": "NaiveTransfer"}
    training = {"pool": POOL, "agents": ["one", "two"], "epochs": 1, "networks": 2, "trials": 1}
    recipe = changed(agents=agents, meta_training=training)
    got = resolved(capsys, "--agents.two", "null", recipe=recipe)
    assert got["meta_training"]["agents"] == ["one"] and list(got["agents"]) == ["one"]


def test_bases_that_can_not_be_followed(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(CatchmarkError, match=r"a\.yaml: base: 'a\.yaml' leads back"):
        read_recipe(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("base: 3\n")
    with pytest.raises(CatchmarkError, match=r"base: the path of a recipe is needed, this is 3"):
        read_recipe(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text("base: nowhere.yaml\n")
    with pytest.raises(CatchmarkError, match=r"nowhere\.yaml"):
        read_recipe(tmp_path / "d.yaml")
