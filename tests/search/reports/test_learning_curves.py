"""How children learned, as a picture: one line a child, of what it logged."""

import math
import re

import numpy as np
import pytest

from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation
from search.reports.learning_curves import LearningCurves
from search.reports.pages import write_report
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from search.tasks.base import OneByOne
from tests.search.agents.toy_spaces import Grid


class Trained(OneByOne):
    """Children of three epochs; every third one diverges in its second."""

    def __init__(self, space, score="val_accuracy", validated=(1, 2, 3)):
        self.space, self.score, self.validated, self.made = space, score, validated, 0

    def evaluate_one(self, proposal):
        self.made += 1
        history = [
            {"train_loss": 3.0 - epoch + self.made}
            | ({"val_accuracy": 10.0 * epoch + self.made} if epoch in self.validated else {})
            for epoch in (1, 2, 3)
        ]
        if self.made % 3 == 0:
            return Evaluation.failed("diverged: train_loss is nan after epoch 2", 1.0, [history[0], {}])
        return Evaluation(history[-1]["val_accuracy"], cost_seconds=1.0, history=history)


def drawn(folder, task):
    """The picture of a search of nine children by each of two agents."""
    experiment = Experiment(
        Grid(), {"digits": task}, {"one": RandomSearch, "two": RandomSearch}, budget=9, most_failures=99
    )
    journal = Journal(folder / "journal.sqlite")
    experiment.run(folder, journal)
    curves = LearningCurves(experiment)
    for search in experiment.planned():
        curves.read(search, list(journal.records(search)))
    journal.close()
    page = write_report(folder, experiment).read_text()
    return curves.drawing("digits", {"one": 0, "two": 1}), page


def lines(svg, kind):
    """The heights of the points of each line, in the picture's own unit: downwards."""
    paths = re.findall(rf'<g class="{kind}">\s*<path d="([^"]*)"', svg)
    return [[float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)] for path in paths]


def test_a_line_a_child_and_the_best_of_each_agent(tmp_path):
    svg, page = drawn(tmp_path, Trained)
    assert "How the networks learned" in page and ">val_accuracy<" in svg
    children = lines(svg, "faint")
    assert sorted(map(len, children)) == [1] * 6 + [3] * 12
    assert all(line == sorted(line, reverse=True) for line in children)  # it rises
    assert svg.count('<g class="failed">') == 6
    # The task counts on: the eighth child is the first agent's last one that succeeds, the seventeenth the second's.
    best = lines(svg, "curve")
    whole = [line for line in children if len(line) == 3]
    assert best == [whole[5], whole[11]]
    heights = np.array([line[-1] for line in whole])
    numbers = np.array([30 + made for made in range(1, 19) if made % 3])
    slope, offset = np.polyfit(numbers, heights, 1)
    assert slope < 0 and np.abs(heights - slope * numbers - offset).max() < 1e-3


def test_the_loss_where_the_score_is_logged_once(tmp_path):
    svg, _ = drawn(tmp_path, lambda space: Trained(space, validated=(3,)))
    assert ">train_loss<" in svg and all(line == sorted(line) for line in lines(svg, "faint"))


def test_a_loss_that_explodes_does_not_hide_the_others(tmp_path):
    class Exploding(Trained):
        def evaluate_one(self, proposal):
            found = super().evaluate_one(proposal)
            if found.status == "failed" and self.made == 3:
                return Evaluation.failed("diverged", 1.0, [{"train_loss": 1.0}, {"train_loss": 1e30}])
            return found

    svg, _ = drawn(tmp_path, lambda space: Exploding(space, validated=(3,)))
    spans = [max(line) - min(line) for line in lines(svg, "curve")]
    assert min(spans) > 15  # of some 200 points


@pytest.mark.parametrize("history", [[], [{"train_loss": 1.0}], [{}, {"val_accuracy": 3.0}]])
def test_nothing_to_draw(history, tmp_path):
    class Brief(Trained):
        def evaluate_one(self, proposal):
            return Evaluation(1.0, cost_seconds=1.0, history=history)

    svg, page = drawn(tmp_path, Brief)
    assert svg == "" and "How the networks learned" not in page


def test_all_failed(tmp_path):
    class Hopeless(Trained):
        def evaluate_one(self, proposal):
            return Evaluation.failed("diverged", 1.0, [{"train_loss": 1.0}, {"train_loss": 2.0}])

    svg, _ = drawn(tmp_path, Hopeless)
    assert svg.count('<g class="failed">') == 18 and not lines(svg, "curve")
    assert math.isfinite(sum(map(sum, lines(svg, "faint"))))
