"""What a recipe built knows what described it, as long as it is there."""

import gc
import weakref
from collections.abc import Callable

import pytest

from search.errors import CatchmarkError
from search.recipes.build import build, description_of
from search.recipes.recipe import load_recipe
from search.recipes.trust import Trust, Untrusted
from search.recipes.yaml_text import dump_yaml, parse_yaml
from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import Task
from search.tasks.trained import TrainedTask
from tests.search.studies.test_supernet_study import recipe as supernets

TRAINED = {"class_path": "TrainedTask", "init_args": {"data": "DigitsDataModule", "epochs": 3}}
WEIGHED = {"class_path": "MeasuredLatencyTask", "init_args": {"task": TRAINED, "target_milliseconds": 1.0}}
MAKES_TASK = Callable[[SearchSpace], Task]


def test_a_part_is_described_with_every_default_and_can_be_built_again():
    space = build("NASBench201", SearchSpace, "space")
    task = build(TRAINED, MAKES_TASK, "targets.digits", given=[space])
    described = description_of(task)
    assert described["class_path"] == "search.tasks.trained.TrainedTask"
    assert described["init_args"]["epochs"] == 3 and "trainer" in described["init_args"]
    again = build(described, MAKES_TASK, "task", given=[space])
    assert description_of(again) == described and again is not task
    assert description_of(space)["class_path"] == "search.spaces.nasbench201.NASBench201"


def test_the_task_inside_of_a_task_is_described_too():
    task = build(WEIGHED, MAKES_TASK, "targets.digits", given=[NASBench201()])
    assert type(task.task) is TrainedTask
    assert description_of(task.task) == description_of(task)["init_args"]["task"]


def test_a_study_is_described_as_its_resolved_recipe_says(tmp_path):
    recipe = {"space": "NASBench201", "targets": {"digits": WEIGHED}, "agents": {"random": "RandomSearch"}}
    (tmp_path / "r.yaml").write_text(dump_yaml(recipe))
    study, resolved = load_recipe(tmp_path / "r.yaml")
    written = parse_yaml(resolved)
    assert study.recipe == written
    assert description_of(study.space) == written["space"]
    assert description_of(study.targets["digits"]) == written["targets"]["digits"]
    inner = study.targets["digits"].task
    assert description_of(inner) == written["targets"]["digits"]["init_args"]["task"]


def test_classes_are_written_as_they_always_were(tmp_path):
    """A run goes on with the recipe that it began with, which is compared as text."""
    adam = {"class_path": "torch.optim.adam.Adam", "init_args": {"lr": 0.1}}
    sampler = {"class_path": "GDASSampler", "init_args": {"optimizer": adam}}
    written = load_recipe(supernets(tmp_path, methods={"gdas": {"sampler": sampler}}))[0].recipe
    assert written["space"] == {"class_path": "search.spaces.nasbench201.NASBench201"}
    described = written["methods"]["gdas"]["sampler"]["init_args"]["optimizer"]
    assert described["class_path"] == "torch.optim.Adam" and described["init_args"]["lr"] == 0.1
    searches = {"space": "NASBench201", "targets": {"digits": TRAINED}, "agents": {"random": "RandomSearch"}}
    (tmp_path / "r.yaml").write_text(dump_yaml(searches))
    agents = load_recipe(tmp_path / "r.yaml")[0].recipe["agents"]
    assert agents == {"random": {"class_path": "search.agents.random_search.RandomSearch", "init_args": {}}}


def test_what_no_recipe_described_is_refused_and_what_is_gone_is_forgotten():
    with pytest.raises(CatchmarkError, match="this NASBench201 is not described by a recipe"):
        description_of(NASBench201())
    space = build("NASBench201", SearchSpace, "space")
    gone = weakref.ref(space)
    del space
    gc.collect()
    assert gone() is None  # knowing its description keeps nothing alive
    with pytest.raises(CatchmarkError, match="not described"):
        description_of(NASBench201())  # which may well lie where that one lay


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ("NASBench20", "space: there is no SearchSpace 'NASBench20'; did you mean 'NASBench201'?"),
        ({"class_path": "ResidualBackbone", "init_args": {"stages": [9, 1]}}, "space: "),
        ({"class_path": "NASBench201", "init_args": {"nodes": 1}}, "space.init_args.nodes: there is no such key"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(described, said):
    with pytest.raises(CatchmarkError) as refused:
        build(described, SearchSpace, "space")
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_what_may_be_named_is_checked_before_anything_is_imported():
    with pytest.raises(Untrusted, match=r"space\.class_path: 'nowhere\.Space' is not catchmark's own"):
        build({"class_path": "nowhere.Space"}, SearchSpace, "space", Trust())
