"""Trials that share meta-trainings: what is independent are these."""

import numpy as np
import pytest
from scipy import stats

from search.statistics.clusters import (
    clustered_mean_interval,
    clustered_rank_test,
    clustered_share_interval,
    described_trials,
    independent_values,
)
from search.statistics.intervals import mean_interval, share_interval
from search.statistics.significance import rank_test

GENERATOR = np.random.default_rng(5)


def test_trials_that_agree_within_a_meta_training_count_once():
    own = GENERATOR.normal(size=20)
    values = np.tile(own, 25)  # trial k starts from meta-training k modulo 20
    assert independent_values(values, 20) == pytest.approx(own)
    interval = stats.ttest_1samp(own, 0).confidence_interval(0.95)
    assert clustered_mean_interval(values, 20) == pytest.approx([interval.low, interval.high])
    for hits in range(21):
        found = np.tile(np.arange(20) < hits, 25)
        assert clustered_share_interval(found, 20) == pytest.approx(share_interval(hits, 20))


@pytest.mark.parametrize("clusters", [None, 1, 30, 40])
def test_independent_trials_or_a_single_meta_training_count_each(clusters):
    values = GENERATOR.normal(size=30)
    values[4] = np.nan
    known = values[~np.isnan(values)]
    assert clustered_mean_interval(values, clusters) == mean_interval(known)
    assert clustered_share_interval(values > 0, clusters) == share_interval(int((values > 0).sum()), 30)
    assert clustered_rank_test(values, -values, (clusters, None)) == rank_test(known, -known)


def test_a_trial_without_a_value_is_left_out_of_its_mean():
    assert independent_values(np.array([1.0, np.nan, 3.0, np.nan, np.nan, 8.0]), 2) == pytest.approx([2.0, 8.0])
    assert independent_values(np.array([1.0, np.nan, 3.0, np.nan]), 2) == pytest.approx([2.0])


@pytest.mark.parametrize(("clusters", "each", "inside"), [(20, 25, 0.5), (100, 5, 2.0), (12, 4, 0.2)])
def test_shares_are_covered(clusters, each, inside):
    """Meta-trainings whose chances are beta-distributed, little or much apart: 95% intervals hold the share."""
    generator = np.random.default_rng(clusters)
    chances = generator.beta(0.7 * inside, 0.3 * inside, size=(800, clusters))
    hits = generator.random((800, each, clusters)) < chances[:, None]
    flat = hits.reshape(800, -1)  # trial k belongs to meta-training k modulo their number
    covered = [low <= 0.7 <= high for low, high in (clustered_share_interval(row, clusters) for row in flat)]
    assert np.mean(covered) > 0.93
    naive = [low <= 0.7 <= high for low, high in (share_interval(int(row.sum()), len(row)) for row in flat)]
    assert np.mean(naive) < 0.9


def test_the_rank_test_holds_its_level():
    """No difference, but the luck of ten meta-trainings: an agent with trials of its own beside one that shares."""
    generator = np.random.default_rng(2)
    shared = [(None, 10), (10, 10), (20, 10)]
    for clusters in shared:
        p_values, naive = [], []
        for _ in range(300):
            a, b = (
                generator.normal(size=k or 40)[np.arange(40) % (k or 40)] + 0.2 * generator.normal(size=40)
                for k in clusters
            )
            p_values.append(clustered_rank_test(a, b, clusters))
            naive.append(rank_test(a, b))
        assert np.mean(np.array(p_values) < 0.05) < 0.08
        assert np.mean(np.array(naive) < 0.05) > 0.1


def test_numbers_of_meta_trainings_that_do_not_fit_have_their_own_means():
    a, b = GENERATOR.normal(size=320), GENERATOR.normal(size=320)
    expected = rank_test(independent_values(a, 16), independent_values(b, 20))
    assert clustered_rank_test(a, b, (16, 20)) == expected


@pytest.mark.parametrize(
    ("trials", "clusters", "words"),
    [
        (500, None, "500 trials"),
        (4, 1, "4 trials"),
        (500, 20, "20 meta-trainings x 25 trials"),
        (6, 4, "4 meta-trainings x 1 to 2 trials"),
    ],
)
def test_in_words(trials, clusters, words):
    assert described_trials(trials, clusters) == words
