"""Means over seeds, and how far these agree."""

from itertools import pairwise
from statistics import fmean

import pytest

from search.evaluation import Evaluation, Proposal
from search.randomness import derive_seed
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import OneByOne
from search.tasks.repeated import RepeatedTask, agreement_of_seeds
from tests.search.evaluating import answer

SPACE = NASBench201()
ARCHITECTURES = [SPACE.draw(number) for number in range(12)]


class Noisy(OneByOne):
    """A score that is the proposal's seed, in millionths; fails where that is odd, if it is told to."""

    score_name, instant = "noise", True
    honours = frozenset({"epochs", "parent", "stop_below"})

    def __init__(self, space, fails=False):
        self.space, self.fails = space, fails

    def evaluate_one(self, proposal):
        value = proposal.seed % 10**6
        if self.fails and value % 2:
            return Evaluation.failed("odd", 3.0)
        return Evaluation(value / 10**6, {"seed": float(value), f"only {value}": 1.0}, 3.0, history=[{"loss": value}])


def seeds_of(proposal, count):
    return [derive_seed(proposal.seed, number) % 10**6 for number in range(count)]


def test_the_mean_of_the_seeds_stands_beside_each_of_them():
    task = RepeatedTask(SPACE, Noisy, seeds=3)
    proposals = [Proposal(arch, 5 + number) for number, arch in enumerate(ARCHITECTURES)]
    for proposal, found in zip(proposals, task.evaluate(proposals), strict=True):
        values = seeds_of(proposal, 3)
        assert len({*values}) == 3
        assert found.score == pytest.approx(fmean(values) / 10**6)
        assert found.metrics == {
            "seed": pytest.approx(fmean(values)),
            **{f"score of seed {number}": value / 10**6 for number, value in enumerate(values, 1)},
        }
        assert (found.cost_seconds, found.history) == (9.0, [{"loss": values[-1]}])


def test_one_seed_that_fails_is_the_failure_of_all():
    task = RepeatedTask(SPACE, lambda space: Noisy(space, fails=True))
    for number in range(20):
        proposal = Proposal(ARCHITECTURES[0], number)
        odd = [place for place, value in enumerate(seeds_of(proposal, 2), 1) if value % 2]
        found = answer(task, proposal)
        assert found.status == ("failed" if odd else "ok")
        assert found.cost_seconds == 6.0
        if odd:
            assert found.reason == f"seed {odd[0]}: odd"


def test_nobody_inherits_from_a_mean():
    assert RepeatedTask(SPACE, Noisy).honours == {"epochs"}


def test_a_single_seed_is_no_mean():
    with pytest.raises(ValueError, match="seeds is 1, at least 2"):
        RepeatedTask(SPACE, Noisy, seeds=1)


def scored(*columns):
    return [
        Evaluation(0.0, {f"score of seed {number}": value for number, value in enumerate(row, 1)})
        for row in zip(*columns, strict=True)
    ]


def test_agreement_is_the_mean_over_pairs_of_seeds():
    one, other, third = [1, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1]

    def tau(a, b):  # no ties: pairs in one order less pairs in the other
        signs = [(a[j] - a[i]) * (b[j] - b[i]) > 0 for j in range(4) for i in range(j)]
        return (2 * sum(signs) - 6) / 6

    assert agreement_of_seeds(scored(one, other)) == pytest.approx(tau(one, other))
    expected = fmean([tau(one, other), tau(one, third), tau(other, third)])
    assert agreement_of_seeds(scored(one, other, third)) == pytest.approx(expected)


@pytest.mark.parametrize("evaluations", [[], [Evaluation(1.0), Evaluation(2.0)], scored([1, 2])], ids=len)
def test_a_single_column_agrees_with_nothing(evaluations):
    assert agreement_of_seeds(evaluations) is None


def test_equal_scores_have_no_order():
    assert agreement_of_seeds(scored([1, 1], [1, 2])) is None


def test_noise_does_not_agree_with_itself():
    task = RepeatedTask(SPACE, Noisy, seeds=4)
    found = list(task.evaluate([Proposal(arch, 17 * number) for number, arch in enumerate(ARCHITECTURES)]))
    assert all(a.score != b.score for a, b in pairwise(found))
    assert abs(agreement_of_seeds(found)) < 0.35
