"""Winners tried on every target."""

import json
import math

import pytest
import torch

from search.agents.random_search import RandomSearch
from search.errors import CatchmarkError
from search.evaluation import Evaluation
from search.loop.search import Listener
from search.reports.pages import write_report
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from search.studies.transfer import exchange_table, find_winners
from search.tasks.base import OneByOne
from tests.search.agents.toy_spaces import Grid


class Noisy(OneByOne):
    """The sum of the choices, or its negative, and a little that depends on the seed alone."""

    instant = True

    def __init__(self, space, sign, fails=False):
        self.space, self.sign, self.fails = space, sign, fails

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        if self.fails:
            return Evaluation.failed("no luck")
        return Evaluation(self.sign * sum(architecture) + (seed % 1000) / 10_000, cost_seconds=1.0)


def experiment(signs, repeats=2, budget=20, failing=(), seconds=None):
    targets = {name: lambda space, n=name, s=sign: Noisy(space, s, n in failing) for name, sign in signs.items()}
    return Experiment(
        Grid(3, 3),
        targets,
        {"one": RandomSearch, "two": RandomSearch},
        budget=budget,
        budget_seconds=seconds,
        exchange=repeats,
        most_failures=99,
    )


def run(made, folder, listeners=()):
    journal = Journal(folder / "journal.sqlite")
    try:
        return made.run(folder, journal, listeners), {name: list(journal.records(name)) for name in made.planned()}
    finally:
        journal.close()


def test_winners_are_evaluated_anew_on_every_target(tmp_path):
    made = experiment({"up": 1, "down": -1})
    summary, records = run(made, tmp_path)
    exchange = summary["exchange"]
    best = {
        target: max(
            (r for name in ("one", "two") for r in records[f"{target}/{name}"]), key=lambda r: r.evaluation.score
        )
        for target in ("up", "down")
    }
    assert {t: tuple(w["choices"]) for t, w in exchange["winners"].items()} == {
        target: record.architecture for target, record in best.items()
    }
    searched = {record.seed for name, found in records.items() if "exchange" not in name for record in found}
    for target, sign in (("up", 1), ("down", -1)):
        tried = records[f"exchange/{target}"]
        assert [r.architecture for r in tried] == [best["up"].architecture, best["down"].architecture] * 2
        assert len({r.seed for r in tried}) == 4 and not searched & {r.seed for r in tried}
        for winner, scores in exchange["scores"][target].items():
            assert [math.floor(score + 0.5) for score in scores] == [sign * sum(best[winner].architecture)] * 2
    # The two targets order everything the other way round; noise only orders those with equal sums.
    (agreement,) = exchange["agreement"]
    common = {r.architecture for r in records["up/one"] + records["up/two"]}
    assert agreement["architectures"] == len(common) and agreement["kendall_tau"] < -0.7
    assert sum(made.planned().values()) == 2 * 2 * 20 + 2 * 4
    page = write_report(tmp_path, made).read_text()
    assert "Winners on every target" in page
    assert "On up, what its own search found is the best of the 2 winners." in page


def test_a_better_winner_from_elsewhere_is_said():
    summary = {
        "winners": {
            "a": {"architecture": "x", "choices": [0], "agent": "one"},
            "b": {"architecture": "y", "choices": [1], "agent": "one"},
        },
        "scores": {"a": {"a": [1.0, 2.0], "b": [3.0, None]}, "b": {"a": [None, None], "b": [1.0, 1.0]}},
        "agreement": [{"targets": ["a", "b"], "architectures": 3, "kendall_tau": None}],
    }
    table = exchange_table(summary)
    assert table["rows"] == [("a", "x", [(1.5, False), (None, False)]), ("b", "y", [(3.0, True), (1.0, True)])]
    assert table["words"] == [
        "On a, the winner of b does better than what its own search found.",
        "On b, what its own search found is the best of the 2 winners.",
    ]


def test_targets_that_agree_have_one_winner(tmp_path):
    summary, _ = run(experiment({"a": 1, "b": 1}), tmp_path)
    assert summary["exchange"]["agreement"][0]["kendall_tau"] > 0.9
    table = exchange_table(summary["exchange"])
    assert all("what its own search found is the best" in line for line in table["words"][:2])


def test_a_target_without_a_score_has_no_winner(tmp_path):
    summary, records = run(experiment({"good": 1, "bad": 1}, repeats=1, failing=("bad",)), tmp_path)
    assert list(summary["exchange"]["winners"]) == ["good"]
    assert summary["exchange"]["scores"]["bad"] == {"good": [None]}
    assert len(records["exchange/good"]) == 1


class Stop(Listener):
    """Ends the process's interest in the run at one evaluation of the exchange."""

    def evaluated(self, search, records):
        if search.name == "exchange/down":
            raise KeyboardInterrupt


def test_a_stopped_exchange_goes_on(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    expected, _ = run(experiment({"up": 1, "down": -1}), whole)
    with pytest.raises(KeyboardInterrupt):
        run(experiment({"up": 1, "down": -1}), stopped, [Stop()])
    found, records = run(experiment({"up": 1, "down": -1}), stopped)
    assert len(records["exchange/down"]) == 4
    assert json.dumps(found["exchange"]) == json.dumps(expected["exchange"])


def test_what_can_not_be_exchanged_is_refused():
    with pytest.raises(ValueError, match="exchange is -1"):
        experiment({"a": 1, "b": 1}, repeats=-1)
    with pytest.raises(ValueError, match="exchange is 1, but there is one target"):
        experiment({"a": 1}, repeats=1)
    for word in ("exchange", "meta_training"):
        with pytest.raises(CatchmarkError, match=f"can't be called '{word}'"):
            experiment({word: 1, "b": 1})


def test_the_first_of_equals_wins(tmp_path):
    made = experiment({"a": 0, "b": 0}, repeats=0)
    summary, records = run(made, tmp_path)
    (first, _) = find_winners(summary["targets"])
    found = [record for name in ("one", "two") for record in records[f"a/{name}"]]
    highest = max(record.evaluation.score for record in found)
    assert first.architecture == next(r.architecture for r in found if r.evaluation.score == highest)
    assert torch.tensor(first.architecture).shape == (3,)


def test_what_was_evaluated_after_the_time_was_over_wins_nothing(tmp_path):
    """Trials go on together until the last one's time is over; here the second trial evaluates what costs less."""

    class Slow(Noisy):
        def evaluate_one(self, proposal):
            architecture = proposal.architecture
            found = super().evaluate_one(proposal)
            return Evaluation(found.score, cost_seconds=1.0 + architecture[0])

    targets = {name: lambda space, s=sign: Slow(space, s) for name, sign in (("up", 1), ("down", -1))}
    made = Experiment(
        Grid(3, 3),
        targets,
        {"one": RandomSearch},
        budget=30,
        trials=8,
        budget_seconds=8.0,
        exchange=1,
        most_failures=99,
    )
    summary, records = run(made, tmp_path)
    late = 0
    for target, winner in summary["exchange"]["winners"].items():
        counted, left = [], dict.fromkeys(range(8), 8.0)
        for record in records[f"{target}/one"]:
            left[record.trial] -= record.evaluation.cost_seconds
            if left[record.trial] >= 0:
                counted.append(record)
        best = max(counted, key=lambda record: record.evaluation.score)
        late += max(r.evaluation.score for r in records[f"{target}/one"]) > best.evaluation.score
        assert tuple(winner["choices"]) == best.architecture
        assert next(r.architecture for r in records[f"exchange/{target}"]) == tuple(
            summary["exchange"]["winners"]["up"]["choices"]
        )
    assert late  # or this would show nothing
