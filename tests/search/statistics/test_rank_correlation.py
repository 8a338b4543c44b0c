"""Rank correlations against literal implementations that share nothing with ours."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from search.statistics.rank_correlation import kendall_tau, sparse_kendall_tau, sparse_ranks


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
    """Accuracies with ties, and predictions without that follow them with noise."""
    rng = np.random.default_rng(seed)
    accuracies = rng.beta(12, 3, count)
    predicted = accuracies + noise * rng.normal(size=count)
    return np.round(scale * np.round(accuracies, digits), 6), predicted


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["share", "percent"])
@pytest.mark.parametrize("threshold", [1e-4, 1e-3, 1e-2])
def test_sparse_tau_is_the_published_procedure(seed, scale, threshold):
    accuracies, predicted = some(seed, scale=scale, digits=3)
    assert len(set(accuracies)) < 70 == len(set(predicted))
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
        predicted = np.round(predicted, 2)
        binned = tau_b(sparse_ranks(accuracies).tolist(), predicted.tolist())
        gaps.append(abs(sparse_kendall_tau(accuracies, predicted) - binned))
    assert 0 < max(gaps) < 0.05


# ---- equal predictions ---------------------------------------------------------------------------------------------


def orders(predicted):
    """Every order of the architectures that the predictions allow, the lowest first."""
    groups = [[k for k, each in enumerate(predicted) if each == value] for value in sorted(set(predicted))]
    for arranged in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [k for group in arranged for k in group]


@pytest.mark.parametrize("seed", range(8))
def test_equal_predictions_count_as_the_mean_over_their_orders(seed):
    rng = np.random.default_rng(seed)
    accuracies, predicted = rng.integers(1, 6, 8) / 10 + 0.05, rng.integers(0, 4, 8) / 2
    ranks = sparse_ranks(accuracies, 0.1)
    taus = [kendalltau(np.sort(ranks), ranks[list(order)]).statistic for order in orders(predicted.tolist())]
    assert len(taus) > 1 and max(taus) > min(taus)
    assert sparse_kendall_tau(accuracies, predicted, 0.1) == pytest.approx(np.mean(taus), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("values", [1, 2, 10, 70])
def test_the_order_of_the_list_says_nothing(seed, values):
    rng = np.random.default_rng(seed)
    accuracies, _ = some(seed)
    predicted = rng.permutation(np.arange(70) % values) / values
    predicted[:3] = [math.nan, math.inf, -math.inf] if values > 1 else 0
    expected = [sparse_kendall_tau(accuracies, predicted), kendall_tau(accuracies, predicted)]
    assert all(abs(each) < 0.3 for each in expected)  # the predictions know nothing
    by_worth = accuracies.argsort()
    for order in (by_worth, by_worth[::-1], *(rng.permutation(70) for _ in range(5))):
        again = [tau(accuracies[order], predicted[order]) for tau in (sparse_kendall_tau, kendall_tau)]
        assert again == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("same", [0.1, 0.0, -math.inf, math.inf, math.nan])
def test_the_same_prediction_for_all_orders_nothing(same):
    for accuracies in (np.linspace(0.5, 0.9, 20), np.linspace(0.9, 0.5, 20), some(0)[0]):
        predicted = np.full(len(accuracies), same)
        assert sparse_kendall_tau(accuracies, predicted) == 0
        assert kendall_tau(accuracies, predicted) == 0


def test_predictions_that_tell_the_bins_apart_are_perfect():
    accuracies = some(1, count=300)[0]
    ranks = sparse_ranks(accuracies, 1e-2)
    assert len(set(ranks)) < 60
    assert sparse_kendall_tau(accuracies, ranks, 1e-2) == pytest.approx(1)
    # Only whether above or below the middle: better than nothing, not perfect, and exactly as bad turned round.
    half = sparse_kendall_tau(accuracies, accuracies > np.median(accuracies))
    assert 0.5 < half < 0.9 and sparse_kendall_tau(accuracies, accuracies <= np.median(accuracies)) < -0.5


def test_everything_in_one_bin_has_no_correlation():
    assert math.isnan(sparse_kendall_tau([0.9001, 0.9002, 0.9003], [1, 2, 3]))
    assert math.isnan(kendall_tau([1.0, 1.0, 1.0], [1, 2, 3]))


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_tau_b(seed):
    accuracies, predicted = some(seed, digits=2)
    predicted = np.round(predicted, 2)
    assert len(set(predicted)) < 70
    assert kendall_tau(accuracies, predicted) == pytest.approx(tau_b(accuracies.tolist(), predicted.tolist()))


def test_an_architecture_without_a_score_counts_as_the_worst():
    accuracies = [0.1, 0.2, 0.3, 0.4]
    for tau in (sparse_kendall_tau, kendall_tau):
        assert tau(accuracies, [math.nan, 2, 3, 4]) == pytest.approx(1)
        assert tau(accuracies, [1, 2, 3, math.nan]) == pytest.approx(0)
