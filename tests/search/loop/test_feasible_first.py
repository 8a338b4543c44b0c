"""Hard limits: what misses one is never the best, and is told to be worse than all that keeps them."""

import math
import random
from itertools import pairwise
from types import MappingProxyType

import pytest
import torch

from search.agents.base import Agent
from search.evaluation import LARGEST, Evaluation, Objective, Proposal, read_objectives
from search.executors.inline import evaluate_one
from search.loop.feasible_first import FeasibleFirst
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.recipes.catalogue import find_classes
from search.results.search import best_so_far, summarise_search
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests.search.agents.toy_agents import toy_options
from tests.search.agents.toy_spaces import Grid, integer_reward

AGENTS = find_classes("search.agents", Agent)


class Limited(OneByOne):
    """The reward grows with what is limited, so that the best architectures are out of reach; some fail."""

    objectives = MappingProxyType({"worth": "max", "size": {"direction": "min", "limit": 12}})
    score_metric = "worth"
    honours = frozenset({"epochs", "parent", "stop_below"})  # agents ask for these; they change nothing

    def __init__(self, stop_at=None):
        self.space, self.stop_at = Grid(), stop_at

    def evaluate_one(self, proposal):
        if self.stop_at is not None:
            self.stop_at -= 1
            if self.stop_at < 0:
                raise KeyboardInterrupt
        size = sum(proposal.architecture)
        if size % 7 == 0:
            return Evaluation.failed("no luck")
        reward = float(integer_reward(self.space, torch.tensor(proposal.architecture)))
        return Evaluation(reward / 100 + size, {"size": size}, 1.0)


def key(evaluation):
    return (evaluation.violation == 0, evaluation.score if evaluation.violation == 0 else -evaluation.violation)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_holds_over_a_whole_trial(seed):
    draw = random.Random(seed)
    told, ranks = [], FeasibleFirst()
    scale = draw.choice([1e-6, 1.0, 1e9])
    for _ in range(120):
        score = draw.choice([draw.gauss(-3, 5), draw.gauss(50, 1), draw.randrange(3)]) * scale
        violation = draw.choice([0.0, 0.0, draw.random(), draw.randrange(3), LARGEST])
        evaluation = Evaluation(score, violation=violation)
        told.append((key(evaluation), ranks.reward(0, evaluation)))
        assert math.isfinite(told[-1][1])
    told.sort()
    for (lower, small), (higher, large) in pairwise(told):
        assert small < large or (lower == higher and small == large)


def test_what_keeps_the_limits_is_worth_its_score():
    ranks, draw = FeasibleFirst(), random.Random(0)
    for k in range(50):
        score = draw.gauss(0, 1)
        assert ranks.reward(k % 3, Evaluation(score)) == score
    assert math.isnan(ranks.reward(0, Evaluation.failed("x")))
    assert ranks.reward(7, Evaluation(5.0)) == 5.0, "trials know nothing of each other"


def attempt(path, kind, trials=2, batch=1, stop_at=None, budget=24):
    """A search, or a part of it; what its agent was told of each trial."""
    told = [[] for _ in range(trials)]

    class Spy(kind):
        def observe(self, proposals, evaluations, rewards):
            for row, values in zip(told if self is agent else (), rewards.tolist(), strict=False):
                row += values
            super().observe(proposals, evaluations, rewards)

    agent = Spy(Grid(), trials=trials, seed=4, **toy_options(kind))
    search = Search("t/a", agent, [Stage("limited", lambda: Limited(stop_at), budget, True)], 4, batch, 100)
    journal = Journal(path)
    try:
        run_search(search, journal)
    except KeyboardInterrupt:
        assert stop_at is not None
    finally:
        records = list(journal.records("t/a"))
        journal.close()
    return told, records


@pytest.mark.parametrize(("agent_name", "batch"), [(name, (1, 3)[k % 2]) for k, name in enumerate(AGENTS)])
def test_every_agent_keeps_a_hard_limit(agent_name, batch, tmp_path):
    told, records = attempt(tmp_path / "whole.sqlite", AGENTS[agent_name], batch=batch)
    some = [record.evaluation for record in records if record.evaluation.violation > 0]
    assert some and all(each.metrics["size"] > 12 and each.score > 0 for each in some), "recorded as they are"
    for trial, rewards in enumerate(told):
        found = [record.evaluation for record in records if record.trial == trial]
        missed = [r for r, e in zip(rewards, found, strict=True) if e.violation > 0]
        kept = [r for r, e in zip(rewards, found, strict=True) if e.feasible]
        assert max(missed, default=-math.inf) < min(kept, default=math.inf)
    best = summarise_search(records, 2, Grid(), None, 0.0)["best"]
    if kept := [record.evaluation.score for record in records if record.can_be_best]:
        assert best["metrics"]["size"] <= 12 and best["score"] == max(kept)
    assert attempt(tmp_path / "part.sqlite", AGENTS[agent_name], batch=batch, stop_at=29)[1] != records
    _, resumed = attempt(tmp_path / "part.sqlite", AGENTS[agent_name], batch=batch)
    assert repr(resumed) == repr(records)


def test_nothing_that_misses_a_limit_is_the_best_of_anything(tmp_path):
    _, records = attempt(tmp_path / "journal.sqlite", AGENTS["RandomSearch"])
    summary = summarise_search(records, 2, Grid(), None, 0.0)
    assert summary["infeasible"] == sum(record.evaluation.violation > 0 for record in records) > 0
    assert (
        max(record.evaluation.score for record in records if record.evaluation.status == "ok")
        > summary["best"]["score"]
    )
    assert (
        best_so_far(records, 2).max(initial=-1, where=~torch.tensor(best_so_far(records, 2)).isnan().numpy())
        == (summary["best"]["score"])
    )
    only = [record for record in records if not record.evaluation.feasible and record.trial == 0]
    assert summarise_search(only, 1, Grid(), None, 0.0)["best"] is None


# ---- saying them -----------------------------------------------------------------------------------------------------


def test_objectives_may_be_said_in_words():
    said = read_objectives({"a": "max", "b": {"direction": "min", "limit": 5}, "c": Objective("min", 2.0)})
    assert said == {"a": Objective("max"), "b": Objective("min", 5), "c": Objective("min", 2.0)}
    assert Limited.objectives["size"] == Objective("min", 12)
    task = Limited()
    task.objectives = {"size": "min"}
    assert task.objectives == {"size": Objective("min")} and Limited.objectives["worth"] == Objective("max")


@pytest.mark.parametrize(
    "given, words",
    [
        ({"a": "least"}, "objectives.a: direction is 'least', allowed: max, min"),
        ({"a": {"direction": "min", "most": 3}}, "objectives.a: .*most.*its keys are direction and limit"),
        ({"a": {"direction": "min", "limit": "5 ms"}}, "objectives.a: limit is '5 ms', a number or null is needed"),
        ({"a": {"direction": "min", "limit": math.inf}}, "objectives.a: limit is inf, a number or null is needed"),
        ({"a": 3}, "objectives.a: direction is '3'"),
    ],
)
def test_objectives_that_are_none(given, words):
    with pytest.raises(ValueError, match=words):
        read_objectives(given)


@pytest.mark.parametrize(
    "objective, value, missed",
    [
        (Objective("min", 5.0), 5.0, 0.0),
        (Objective("min", 5.0), 6.0, 0.2),
        (Objective("max", 5.0), 4.0, 0.2),
        (Objective("max", 5.0), 7.0, 0.0),
        (Objective("min", 0.0), 3.0, 3.0),
        (Objective("min", -4.0), -2.0, 0.5),
        (Objective("min", 5.0), math.nan, LARGEST),
        (Objective("min"), 1e9, 0.0),
    ],
)
def test_how_far_a_limit_is_missed(objective, value, missed):
    assert objective.violation(value) == pytest.approx(missed)


def test_a_value_that_was_not_measured_keeps_no_limit():
    class Blind(Limited):
        def evaluate_one(self, proposal):
            return Evaluation(1.0)

    assert evaluate_one(Blind(), Proposal((1,) * 6)).violation == LARGEST
