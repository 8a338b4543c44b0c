"""Experiments with attributes: records keep them, agents get them, and reports rank by them."""

import json
import math

import pytest
import torch
import yaml
from scipy.stats import kendalltau

from search.agents.base import Agent
from search.agents.random_search import RandomSearch
from search.attributes.base import Attribute
from search.attributes.flops import Flops
from search.attributes.latency_table import TableLatency
from search.attributes.parameters import Parameters
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation
from search.recipes.recipe import load_recipe
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.studies.experiment import Experiment
from search.tasks.base import OneByOne
from tests.search.reports.test_experiment import run as run_and_report
from tests.search.reports.test_experiment import section


class Convolutions(Attribute):
    """How many edges are convolutions; counts what it was asked, and has no value of an all-zero cell."""

    name = "convolutions"
    unit = "edges"
    asked = 0

    def measure(self, architectures):
        Convolutions.asked += len(architectures)
        return [sum(choice in (2, 3) for choice in each) if any(each) else math.nan for each in architectures]


class Skips(Convolutions):
    """How many edges are skips: the fewer the better."""

    direction = "min"

    def measure(self, architectures):
        return [float(sum(choice == 1 for choice in each)) for each in architectures]


class Toy(OneByOne):
    """Convolutions are good, and so is a little of everything."""

    instant = True

    def __init__(self, space):
        self.space = space

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        if architecture[0] == 4:
            return Evaluation.failed("pooled too early")
        return Evaluation(3.0 * sum(choice in (2, 3) for choice in architecture) + len(set(architecture)))


class RankByAttribute(Agent):
    """Of many random architectures, asks for those with the most of everything that is known of them.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        attributes: what is known of architectures, by name; None for those of the experiment.
        drawn: random architectures for each one asked.
    """

    def __init__(self, space, trials=1, seed=0, attributes=None, drawn=20):
        super().__init__(space, trials, seed)
        self.attributes, self.drawn = attributes, drawn

    def ask(self, n=1):
        """The best by the mean rank over the attributes: int64 ``[trials, n, decisions]``."""
        archs = self.space.sample(self.rng, self.drawn * n)
        ranks = torch.zeros(archs.shape[:2])
        for attribute in (self.attributes or {}).values():
            sign = 1 if attribute.direction == "max" else -1
            ranks += (sign * attribute.values(archs)).nan_to_num(nan=-math.inf).argsort(-1).argsort(-1)
        best = ranks.argsort(-1, descending=True)[:, :n]
        return archs.gather(1, best[..., None].expand(-1, -1, archs.shape[-1]))


def experiment(agents=None, **more):
    attributes = {"convolutions": Convolutions, "skips": Skips}
    agents = agents or {"random": RandomSearch, "ranked": RankByAttribute}
    return Experiment(
        NASBench201(), {"toy": Toy}, agents, **{"budget": 15, "trials": 2, "attributes": attributes} | more
    )


def run(folder, made):
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "journal.sqlite")
    try:
        return made.run(folder, journal), [r for name in journal.searches() for r in journal.records(name)]
    finally:
        journal.close()


def test_records_keep_attributes_and_the_summary_ranks_by_them(tmp_path):
    summary, records = run(tmp_path, experiment())
    for record in records:  # of failed ones too
        found = record.evaluation.attributes
        assert found["skips"] == sum(choice == 1 for choice in record.architecture)
    assert any(record.evaluation.status == "failed" for record in records)
    good = {r.architecture: r.evaluation.score for r in records if r.evaluation.status == "ok" and any(r.architecture)}
    found = summary["targets"]["toy"]["attributes"]
    for name, sign, count in (("convolutions", 1, lambda c: c in (2, 3)), ("skips", -1, lambda c: c == 1)):
        values = [sign * sum(map(count, arch)) for arch in good]
        assert found[name]["kendall_tau"] == pytest.approx(kendalltau(list(good.values()), values).statistic)
        assert found[name]["architectures"] == len(good) > 20
    assert found["convolutions"]["kendall_tau"] > 0.7 and found["convolutions"]["unit"] == "edges"
    assert found["skips"]["direction"] == "min"


def test_an_agent_that_takes_attributes_gets_them_and_ranks_by_them(tmp_path):
    made = experiment()
    assert made.agent("ranked").attributes == made.attributes and set(made.attributes) == {"convolutions", "skips"}
    own = experiment({"own": lambda *a, **k: RankByAttribute(*a, **{"attributes": {"x": Skips(NASBench201())}} | k)})
    assert set(own.agent("own").attributes) == {"x"}  # what the recipe says goes first
    target = run(tmp_path, made)[0]["targets"]["toy"]["agents"]
    assert target["ranked"]["curve_mean"][0] > target["random"]["curve_mean"][0]


def test_too_few_networks_have_no_correlation(tmp_path):
    found = run(tmp_path, experiment(budget=4, trials=1, agents={"random": RandomSearch}))[0]["targets"]["toy"]
    assert found["attributes"]["skips"]["kendall_tau"] is None and found["attributes"]["skips"]["architectures"] <= 4


def test_without_attributes_nothing_is_said(tmp_path):
    summary, records = run(tmp_path, experiment({"random": RandomSearch}, attributes=None))
    assert "attributes" not in summary["targets"]["toy"] and not records[0].evaluation.attributes


def test_a_resumed_run_measures_nothing_twice(tmp_path):
    Convolutions.asked = 0
    _, records = run(tmp_path, experiment({"random": RandomSearch}))
    different = {record.architecture for record in records}
    assert Convolutions.asked == len(different)
    again = experiment({"random": RandomSearch})
    Convolutions.asked = 0
    _, records = run(tmp_path, again)
    again.attributes["convolutions"].values(torch.tensor([record.architecture for record in records]))
    assert Convolutions.asked == (tuple([0] * 6) in different)  # a value that there is not is asked for anew


def test_an_attribute_that_can_not_be_measured_ends_the_run(tmp_path):
    class Broken(Convolutions):
        def measure(self, architectures):
            raise MemoryError("no room")

    made = experiment({"random": RandomSearch}, attributes={"size": Broken})
    with pytest.raises(RunError, match=r"attributes\.size: it can't be measured of \|.*: no room"):
        run(tmp_path, made)


def test_the_report_has_a_row_for_each(tmp_path):
    page = run_and_report(tmp_path / "with", experiment())
    part = section(page, "<h3>The rankings that cost nothing</h3>")
    assert "convolutions (edges)" in part and part.count("<td>less</td>") == 1
    without = run_and_report(tmp_path / "without", experiment({"random": RandomSearch}, attributes=None))
    assert "cost nothing" not in without


def test_a_recipe_names_attributes(tmp_path):
    recipe = {
        "name": "toy",
        "space": "NASBench201",
        "targets": {
            "cifar": {
                "class_path": "TableTask",
                "init_args": {
                    "table": "nasbench201.npz",
                    "dataset": "cifar10_valid",
                    "split": "val",
                    "metric": "acc",
                    "epochs": 12,
                },
            }
        },
        "agents": {
            "nsga2": {
                "class_path": "NSGA2",
                "init_args": {"objectives": {"a": "max", "b": {"direction": "min", "limit": 3}}, "population": 4},
            }
        },
        "attributes": {
            "parameters": "Parameters",
            "flops": {"class_path": "Flops", "init_args": {"build": {"channels": 8}, "unused": True}},
            "phone": {"class_path": "TableLatency", "init_args": {"device": "pixel3"}},
        },
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(recipe))
    made, resolved = load_recipe(path)
    kinds = {name: type(each) for name, each in made.attributes.items()}
    assert kinds == {"parameters": Parameters, "flops": Flops, "phone": TableLatency}
    assert made.attributes["flops"].build == {"channels": 8}
    objectives = made.agent("nsga2").objectives
    assert (objectives["a"].direction, objectives["b"].direction, objectives["b"].limit) == ("max", "min", 3)
    path.write_text(resolved)  # and what a run keeps of it is the same again
    assert json.dumps(load_recipe(path)[0].recipe) == json.dumps(made.recipe)
    recipe["attributes"]["phone"]["init_args"]["device"] = "pixel33"
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(CatchmarkError, match=r"attributes\.phone: .*no device 'pixel33'.*pixel3"):
        load_recipe(path)
