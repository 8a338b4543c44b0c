"""Searches for several objectives at once, one of them with a hard limit, against the whole space by brute force."""

import itertools
import json
import math
from types import MappingProxyType

import numpy as np
import pytest
import torch

from search.agents.base import Agent
from search.agents.nsga2 import NSGA2
from search.agents.random_search import RandomSearch
from search.agents.regularized_evolution import RegularizedEvolution
from search.evaluation import Evaluation, Objective
from search.recipes.catalogue import find_classes
from search.reports.pages import write_report
from search.results.comparison import compare_runs
from search.results.search import without_seconds
from search.runs.journal import Journal
from search.spaces.base import Decision, SearchSpace
from search.studies.experiment import Experiment
from search.tasks.base import OneByOne
from tests.search.agents.toy_agents import toy_options
from tests.search.stopper import Stopper

AGENTS = find_classes("search.agents", Agent)
LIMIT = 14.0


class Layers(SearchSpace):
    """Five layers of three kinds: 243 networks."""

    name = "layers"
    decisions = tuple(Decision(f"layer {t}", ("small", "wide", "slow")) for t in range(5))

    def build(self, architecture, head=None):
        raise NotImplementedError


def measured(architecture):
    """Whole numbers; what is good for one objective is bad for another."""
    weights = [sum((t + 1) * (choice == kind) for t, choice in enumerate(architecture)) for kind in (1, 2)]
    changes = sum(a != b for a, b in itertools.pairwise(architecture))
    wide, slow = weights
    return {
        "accuracy": 50.0 + 2 * wide + 3 * slow - changes,
        "latency": 5.0 + wide + 2 * slow,
        "size": 30.0 - slow + wide,
    }


class Toy(OneByOne):
    """Three objectives; the highest score is that of a network far beyond the limit."""

    instant = True
    score_name = "accuracy (%)"
    honours = frozenset({"epochs", "parent", "stop_below"})  # agents ask for these; they change nothing

    def __init__(self, space, limit=None, known=False, broken=False):
        self.space, self.known, self.broken = space, known, broken
        self.objectives = MappingProxyType(
            {"accuracy": "max", "latency": Objective("min", limit), "size": Objective("min")}
        )

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        if self.broken and architecture[:2] == (1, 1):
            return Evaluation.failed("out of memory")
        metrics = measured(architecture)
        return Evaluation(metrics["accuracy"], metrics, 1.0)

    def all_scores(self):
        if not self.known:
            return None
        return torch.where(
            self._all()[:, 1] <= (self.objectives["latency"].limit or math.inf), self._all()[:, 0], math.nan
        )

    def all_objectives(self):
        return self._all() if self.known else None

    def _all(self):
        return torch.tensor([list(measured(a).values()) for a in self.space.enumerate()], dtype=torch.float64)


def feasible(values, limit):
    return limit is None or values["latency"] <= limit


def dominates(a, b):
    pairs = [(a["accuracy"], b["accuracy"]), (b["latency"], a["latency"]), (b["size"], a["size"])]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def front_of(found, limit):
    """By the definition, of (architecture, values)."""
    kept = {arch: values for arch, values in found.items() if feasible(values, limit)}
    return {arch for arch, values in kept.items() if not any(dominates(other, values) for other in kept.values())}


def volume(found, worst):
    """By counting the unit cubes that some point dominates, down to ``worst``."""
    cubes = np.zeros((64, 64, 64), dtype=bool)
    for values in found:
        gains = (values["accuracy"] - worst["accuracy"], *(worst[name] - values[name] for name in ("latency", "size")))
        cubes[tuple(slice(0, max(0, int(each))) for each in gains)] = True
    return int(cubes.sum())


def run(folder, made, listeners=()):
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "journal.sqlite")
    try:
        return made.run(folder, journal, listeners)
    finally:
        journal.close()


def evaluated(folder, search, full=False):
    """(trial, architecture, metrics) of every evaluation that succeeded, or of every one in full that did."""
    journal = Journal(folder / "journal.sqlite", writable=False)
    try:
        records = [record for record in journal.records(search) if record.evaluation.status == "ok"]
    finally:
        journal.close()
    return [
        (record.trial, record.architecture, record.evaluation.metrics) for record in records if record.full or not full
    ]


@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize("known", [False, True])
def test_fronts_and_hypervolumes_equal_a_brute_force_computation(tmp_path, limit, known):
    agents = {"random": RandomSearch, "nsga2": NSGA2, "evolution": RegularizedEvolution}
    made = Experiment(Layers(), {"toy": lambda space: Toy(space, limit, known)}, agents, budget=40, trials=3)
    target = run(tmp_path / "run", made)["targets"]["toy"]
    found = {name: evaluated(tmp_path / "run", f"toy/{name}") for name in agents}
    everything = {arch: values for each in found.values() for _, arch, values in each}
    front = front_of(everything, limit)
    assert {tuple(entry["choices"]) for entry in target["front"]} == front and len(front) > 5
    assert len(target["front"]) == len(front)
    assert all(entry["objectives"] == measured(entry["choices"]) for entry in target["front"])
    accuracies = [entry["objectives"]["accuracy"] for entry in target["front"]]
    assert accuracies == sorted(accuracies, reverse=True)
    whole = {arch: measured(arch) for arch in Layers().enumerate()} if known else everything
    kept = [values for values in whole.values() if feasible(values, limit)]
    worst = {name: (min if name == "accuracy" else max)(values[name] for values in kept) for name in kept[0]}
    for name in agents:
        shares = [
            volume([v for at, _, v in found[name] if at == trial and feasible(v, limit)], worst) / volume(kept, worst)
            for trial in range(3)
        ]
        assert target["hypervolume"][name]["mean"] == pytest.approx(sum(shares) / 3, rel=1e-12)
    assert target["objectives"]["latency"] == {"direction": "min", "limit": limit}


@pytest.mark.parametrize("name", AGENTS)
def test_a_hard_limit_is_kept_by_every_agent(tmp_path, name):
    """No infeasible network is called the best, though it scores more, wherever a feasible one was seen."""

    def agent(space, trials, seed, **more):
        return AGENTS[name](space, trials, seed, **toy_options(AGENTS[name]), **more)

    made = Experiment(Layers(), {"toy": lambda space: Toy(space, LIMIT, True, True)}, {name: agent}, 20, 4, seed=3)
    summary = run(tmp_path / "run", made)
    target = summary["targets"]["toy"]
    entry, found = target["agents"][name], evaluated(tmp_path / "run", f"toy/{name}")
    best = {}
    for trial, _, values in evaluated(tmp_path / "run", f"toy/{name}", full=True):
        if feasible(values, LIMIT):
            best[trial] = max(best.get(trial, -math.inf), values["accuracy"])
    highest = max(values["accuracy"] for _, _, values in found)
    assert best and highest > max(best.values())  # what breaks the limit would have won
    assert entry["best"]["score"] == max(best.values()) and entry["best"]["metrics"]["latency"] <= LIMIT
    assert entry["best_score_mean"] == pytest.approx(sum(best.values()) / len(best))
    assert entry["at_best"]["latency"]["mean"] <= LIMIT
    assert entry["infeasible"] == sum(not feasible(values, LIMIT) for _, _, values in found) > 0
    allowed = [measured(a)["accuracy"] for a in Layers().enumerate() if feasible(measured(a), LIMIT)]
    assert entry["best_possible"] == max(allowed)


def test_an_agent_that_sees_every_objective_is_resumed_exactly(tmp_path):
    """It is given the target's objectives, as the recipe says nothing of them."""

    def made():
        targets = {"toy": lambda space: Toy(space, LIMIT, broken=True)}
        return Experiment(Layers(), targets, {"nsga2": NSGA2}, budget=36, trials=2, batch=3)

    assert set(made().agent("nsga2", task=Toy(Layers(), LIMIT)).objectives) == {"accuracy", "latency", "size"}
    assert not made().agent("nsga2").objectives
    whole = run(tmp_path / "whole", made())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", made(), [Stopper(45)])
    again = run(tmp_path / "stopped", made())
    assert without_seconds(again) == without_seconds(whole)
    assert evaluated(tmp_path / "stopped", "toy/nsga2") == evaluated(tmp_path / "whole", "toy/nsga2")


def test_it_finds_more_of_the_front_than_random_search(tmp_path):
    targets = {"toy": lambda space: Toy(space, LIMIT, known=True)}
    made = Experiment(Layers(), targets, {"nsga2": NSGA2, "random": RandomSearch}, budget=60, trials=12)
    found = run(tmp_path / "run", made)["targets"]["toy"]["hypervolume"]
    print(found)
    assert found["nsga2"]["interval"][0] > found["random"]["interval"][1]


def test_where_nothing_keeps_a_limit_nobody_has_won(tmp_path):
    made = Experiment(Layers(), {"toy": lambda space: Toy(space, 1.0)}, {"random": RandomSearch}, budget=8, trials=2)
    folder = tmp_path / "run"
    summary = run(folder, made)
    target = summary["targets"]["toy"]
    entry = target["agents"]["random"]
    assert entry["best"] is None and entry["best_score_mean"] is None and entry["infeasible"] == 16
    assert target["front"] == [] and target["hypervolume"] == {"random": {"mean": None, "interval": None}}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "Limits: latency at most 1" in write_report(folder, made, summary).read_text()


def test_runs_are_compared_by_what_keeps_the_limit(tmp_path):
    for name, limit in (("free", None), ("limited", LIMIT)):
        made = Experiment(
            Layers(), {"toy": lambda space, limit=limit: Toy(space, limit)}, {"random": RandomSearch}, 12, 4
        )
        summary = run(tmp_path / name, made)
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        (tmp_path / name / "config.yaml").write_text(f"limit: {limit}")
    rows = {row.run: row for row in compare_runs([tmp_path / "free", tmp_path / "limited"]).rows}
    for row, limit in zip(rows.values(), (None, LIMIT), strict=True):
        for trial, best in enumerate(row.curves[:, -1]):
            scores = [
                v["accuracy"]
                for at, _, v in evaluated(tmp_path / "free", "toy/random")
                if at == trial and feasible(v, limit)
            ]
            assert best == max(scores, default=math.nan) or (math.isnan(best) and not scores)
    assert (rows["A"].curves[:, -1] > rows["B"].curves[:, -1]).any()


def test_summaries_of_one_or_two_objectives_without_limits_are_as_ever(tmp_path):
    class Two(Toy):
        def __init__(self, space):
            super().__init__(space)
            self.objectives = MappingProxyType({"accuracy": "max", "latency": "min"})

    class One(Toy):
        def __init__(self, space):
            super().__init__(space)
            self.objectives = MappingProxyType({})

    made = Experiment(Layers(), {"one": One, "two": Two}, {"random": RandomSearch}, budget=6, trials=2)
    for target in run(tmp_path / "run", made)["targets"].values():
        assert set(target) == {"score_name", "budget_seconds", "agents"}
        assert "infeasible" not in target["agents"]["random"]
