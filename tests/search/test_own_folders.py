"""Classes that a user keeps in folders named as ours are: found beside ours, never in their place."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

SPACE = """
from torch import nn

from search.evaluation import Evaluation
from search.spaces.base import Decision, SearchSpace


class Narrow(SearchSpace):
    name = "narrow"
    decisions = (Decision("width", ("one", "two")),)

    def build(self, architecture, head):
        width = 1 + architecture[0]
        features = head.in_channels * width**2
        return nn.Sequential(nn.AdaptiveAvgPool2d(width), nn.Flatten(), nn.Linear(features, head.classes))
"""

AGENT = """
from search.agents.random_search import RandomSearch


class Mine(RandomSearch):
    pass
"""

TASK = """
import multiprocessing

from search.evaluation import Evaluation
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne
from search.told import told


class InAnotherProcess(OneByOne):
    def __init__(self, space: SearchSpace):
        self.space = space

    def evaluate_one(self, proposal):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(told) == "my data, mine, one line"
        return Evaluation(float(proposal.architecture[0]))
"""

TOLD = """
def told():  # imports nothing that is heavy, for it is another process that does so
    from datamodules.light import NAME as data
    from lightning_modules.path_samplers.mine import NAME as sampler
    from search.errors import one_line

    return f"{data}, {sampler}, {one_line(Exception('one line'))}"
"""

DATA = """
from datamodules.digits import DigitsDataModule


class Few(DigitsDataModule):
    pass
"""

MODULE = """
from lightning_modules.classification import ClassificationModule


class Plain(ClassificationModule):
    pass
"""

WRONG = "raise SystemExit('this is not ours')\n"


@pytest.fixture
def folder(tmp_path):
    """A user's folder: modules that a recipe names, and others that must not be imported."""
    files = {
        "experiments/my_space.py": SPACE,
        "search/my_agent.py": AGENT,
        "search/tasks/elsewhere.py": TASK,
        "search/told.py": TOLD,
        "datamodules/my_data.py": DATA,
        "datamodules/light.py": "NAME = 'my data'\n",
        "lightning_modules/my_module.py": MODULE,
        "lightning_modules/path_samplers/mine.py": "NAME = 'mine'\n",
        **{
            f"{path}.py": WRONG
            for path in (
                "yaml", "search/errors", "search/tasks/trained", "search/agents/theirs", "search/script",
                "datamodules/digits", "datamodules/theirs", "lightning_modules/classification",
            )
        },
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    recipe = {
        "space": "experiments.my_space.Narrow",
        "targets": {
            "trained": {
                "class_path": "TrainedTask",
                "init_args": {
                    "data": "datamodules.my_data.Few",
                    "module": {"class_path": "lightning_modules.my_module.Plain"},
                    "epochs": 1,
                    "threads": 1,
                },
            },
            "elsewhere": {"class_path": "search.tasks.elsewhere.InAnotherProcess"},
        },
        "agents": {"mine": {"class_path": "search.my_agent.Mine"}},
        "budget": 1,
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


SCRIPT = """
import sys
from search.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
EDITABLE = f"""
import sys
from importlib.machinery import PathFinder

class Editable:  # as setuptools makes it for `pip install --editable`: asked after all of the path
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in ("search", "datamodules", "lightning_modules"):
            return PathFinder.find_spec(name, [{str(ROOT)!r}])

# Another editable install, as that of these tests, would come before it.
sys.meta_path[:] = [*(each for each in sys.meta_path if getattr(each, "__name__", "") != "_EditableFinder"), Editable]
"""


@pytest.mark.parametrize(
    ("started", "packages"),
    [("module", WRONG), ("editable", ""), ("editable", WRONG)],
    ids=["module", "folders", "packages"],
)
def test_what_a_recipe_names_is_found_beside_ours(folder, tmp_path_factory, started, packages):
    """However the command is started, and whether or not the user's folders are packages that Python would prefer."""
    if packages:
        for name in ("datamodules", "lightning_modules", "lightning_modules/path_samplers", "search/tasks"):
            (folder / name / "__init__.py").write_text(packages)
    command = ["-m", "search.cli"]
    if started != "module":  # else Python takes their `search` before it runs a line of ours
        (folder / "search" / "__init__.py").write_text(packages)
        script = tmp_path_factory.mktemp("bin") / "catchmark"
        script.write_text(EDITABLE + SCRIPT)
        command = [str(script)]
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if started == "editable":
        del environment["PYTHONPATH"]
    command = [sys.executable, *command, "run", "r.yaml", "--quiet"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "runs/r/latest/summary.json").read_text())
    failed = {name: target["agents"]["mine"]["failed"] for name, target in summary["targets"].items()}
    assert failed == {"trained": 0, "elsewhere": 0}


@pytest.mark.parametrize("name", ["search.nowhere", "search.agents.nowhere", "datamodules.nowhere.at_all", "nowhere"])
def test_a_module_that_nobody_has_is_not_found(name):
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name.removesuffix('.at_all')}'"):
        importlib.import_module(name)


def test_the_recipes_that_ship_are_found_without_a_package():
    from search.recipes.recipe import RECIPES

    assert (RECIPES / "quickstart.yaml").is_file() and not (RECIPES / "__init__.py").exists()
