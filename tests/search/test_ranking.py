"""Rank correlations against literal implementations that share nothing with ours."""

import math

import numpy as np
import pytest

from search.ranking import kendall_tau, sparse_kendall_tau, sparse_ranks


def tau_b(x, y):
    """Kendall's tau-b, pair by pair."""
    concordant = discordant = only_x = only_y = 0
    for i in range(len(x)):
        for j in range(i):
            a, b = x[i] - x[j], y[i] - y[j]
            if a * b > 0:
                concordant += 1
            elif a * b < 0:
                discordant += 1
            elif a:
                only_x += 1
            elif b:
                only_y += 1
    pairs = concordant + discordant
    return (concordant - discordant) / math.sqrt((pairs + only_x) * (pairs + only_y))


def literal_ranks(accuracies, threshold):
    """Steps 1 and 2 of the published procedure: {place of an architecture: sparse rank}."""
    mean = sum(accuracies) / len(accuracies)
    scaled = [each / 100 for each in accuracies] if 1 < mean < 100 else list(accuracies)
    ranks, rank, previous = {}, -1, 0.0
    for place in sorted(range(len(scaled)), key=lambda k: scaled[k]):
        if math.floor(scaled[place] / threshold) > math.floor(previous / threshold):
            rank += 1
        ranks[place], previous = rank, scaled[place]
    return ranks


def literal(accuracies, predicted, threshold):
    """All four steps."""
    ranks = literal_ranks(accuracies, threshold)
    listed = [ranks[place] for place in sorted(range(len(predicted)), key=lambda k: predicted[k])]
    return tau_b(sorted(ranks.values()), listed)


def some(seed, count=70, scale=1.0, digits=4, noise=0.02):
    """Accuracies with ties, and predictions with other ties that follow them with noise."""
    rng = np.random.default_rng(seed)
    accuracies = rng.beta(12, 3, count)
    predicted = np.round(accuracies + noise * rng.normal(size=count), 2)
    return np.round(scale * np.round(accuracies, digits), 6), predicted


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["share", "percent"])
@pytest.mark.parametrize("threshold", [1e-4, 1e-3, 1e-2])
def test_sparse_tau_is_the_published_procedure(seed, scale, threshold):
    accuracies, predicted = some(seed, scale=scale, digits=3)
    assert len(set(accuracies)) < 70 and len(set(predicted)) < 70
    expected = literal(accuracies.tolist(), predicted.tolist(), threshold)
    assert sparse_kendall_tau(accuracies, predicted, threshold) == pytest.approx(expected, abs=1e-12)
    assert sparse_kendall_tau(accuracies.tolist(), predicted.tolist(), threshold) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_sparse_ranks_are_the_published_ones(scale):
    accuracies, _ = some(3, scale=scale)
    expected = literal_ranks(accuracies.tolist(), 1e-2)
    assert sparse_ranks(accuracies, 1e-2).tolist() == [expected[place] for place in range(len(accuracies))]


def test_known_ranks():
    # Bins of width 0.1: 0.05 lies in the first, which the value before all others, 0, lies in too.
    assert sparse_ranks([0.95, 0.05, 0.17, 0.12, 0.96, 0.5], 0.1).tolist() == [2, -1, 0, 0, 2, 1]
    assert sparse_ranks([95, 5, 17, 12, 96, 50], 0.1).tolist() == [2, -1, 0, 0, 2, 1]


def test_perfect_reversed_and_small_swaps():
    accuracies = np.linspace(0.9, 0.94, 21)
    assert sparse_kendall_tau(accuracies, accuracies**2) == pytest.approx(1)
    assert sparse_kendall_tau(accuracies, -accuracies) == pytest.approx(-1)
    close = [0.9301, 0.9302, 0.95]  # the first two are one bin: their order does not matter
    assert sparse_kendall_tau(close, [2.0, 1.0, 3.0]) == pytest.approx(1)
    assert kendall_tau(close, [2.0, 1.0, 3.0]) == pytest.approx(1 / 3)


def test_sparse_tau_is_near_but_not_tau_of_binned_accuracies():
    gaps = []
    for seed in range(20):
        accuracies, predicted = some(seed, count=200)
        binned = tau_b(sparse_ranks(accuracies).tolist(), predicted.tolist())
        gaps.append(abs(sparse_kendall_tau(accuracies, predicted) - binned))
    assert 0 < max(gaps) < 0.05


def test_everything_in_one_bin_has_no_correlation():
    assert math.isnan(sparse_kendall_tau([0.9001, 0.9002, 0.9003], [1, 2, 3]))
    assert math.isnan(kendall_tau([1.0, 1.0, 1.0], [1, 2, 3]))


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_tau_b(seed):
    accuracies, predicted = some(seed, digits=2)
    assert kendall_tau(accuracies, predicted) == pytest.approx(tau_b(accuracies.tolist(), predicted.tolist()))


def test_an_architecture_without_a_score_counts_as_the_worst():
    accuracies = [0.1, 0.2, 0.3, 0.4]
    assert sparse_kendall_tau(accuracies, [math.nan, 2, 3, 4]) == pytest.approx(1)
