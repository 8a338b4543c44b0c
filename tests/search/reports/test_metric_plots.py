"""Metrics against the score, as pictures and in a table."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation
from search.reports.pages import write_report
from search.results.metrics import correlate_metrics
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from search.tasks.base import OneByOne
from tests.search.agents.toy_spaces import Grid
from tests.search.reports.reading import Page, assert_needs_nothing_but_itself


class Measured(OneByOne):
    """A metric that follows the score, one that is against it, one that never changes; some evaluations fail."""

    score_name = "accuracy (%)"

    def __init__(self, space, metrics=True):
        self.space, self.metrics = space, metrics

    def evaluate_one(self, proposal):
        rng = np.random.default_rng(proposal.architecture)
        score = float(rng.normal())
        if score < -1.5:
            return Evaluation.failed("too low")
        noise = float(rng.normal())
        metrics = {"follows": score + noise, "against": -score, "constant": 1.0}
        return Evaluation(score, metrics if self.metrics else {}, cost_seconds=1.0)


def ran(folder, task=Measured, budget=40):
    experiment = Experiment(Grid(), {"digits": task}, {"random": RandomSearch}, budget=budget, most_failures=99)
    journal = Journal(folder / "journal.sqlite")
    experiment.run(folder, journal)
    records = list(journal.records("digits/random"))
    journal.close()
    return records, write_report(folder, experiment).read_text()


def test_each_metric_is_correlated_over_what_succeeded(tmp_path):
    records, page = ran(tmp_path)
    good = [record.evaluation for record in records if record.evaluation.status == "ok"]
    assert len(good) < len(records)
    found = {each.name: each for each in correlate_metrics(records)}
    assert list(found) == ["follows", "against"]
    expected = spearmanr([each.metrics["follows"] for each in good], [each.score for each in good]).statistic
    assert found["follows"].correlation == pytest.approx(expected) and found["against"].correlation == pytest.approx(-1)
    low, high = found["follows"].interval
    assert low < expected < high
    in_part = [replace(each, proposal=replace(each.proposal, fidelity={"epochs": 1})) for each in records]
    assert correlate_metrics([*records, *in_part]) == correlate_metrics(records) and not correlate_metrics(in_part)
    assert_needs_nothing_but_itself(page)
    text = Page(page).text.replace("\N{MINUS SIGN}", "-")
    assert f"follows {expected:.2f} {low:.2f} to {high:.2f} {len(good)}" in text
    (figure,) = re.findall(r'<svg[^>]*aria-label="accuracy \(%\) against: follows, against".*?</svg>', page, re.DOTALL)
    assert figure.count('class="dots"') == 2 and figure.count("<use ") >= 2 * len(good)


def test_an_architecture_counts_once(tmp_path):
    records, _ = ran(tmp_path)
    once, twice = correlate_metrics(records), correlate_metrics(records * 2)
    assert [(each.correlation, each.interval) for each in once] == [(each.correlation, each.interval) for each in twice]


@pytest.mark.parametrize(("task", "budget"), [(lambda space: Measured(space, metrics=False), 40), (Measured, 5)])
def test_without_metrics_or_with_few_architectures_nothing_is_said(tmp_path, task, budget):
    _, page = ran(tmp_path, task, budget)
    assert "The metrics against the score" not in page
