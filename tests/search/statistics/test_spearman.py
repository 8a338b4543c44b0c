import numpy as np
import pytest
from scipy.stats import spearmanr

from search.statistics.spearman import spearman_interval


def test_the_correlation_is_scipy_s_with_ties():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, 40), rng.normal(size=40)
    assert spearman_interval(one, other, draws=50)[0] == pytest.approx(spearmanr(one, other).statistic)
    assert spearman_interval(one, other) == spearman_interval(one, other)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    """Of two normal variables with correlation r, Spearman's is 6/pi asin(r/2); 200 samples of 40 pairs."""
    rng, truth, held = np.random.default_rng(1), 6 / np.pi * np.arcsin(0.6 / 2), 0
    for _ in range(200):
        one = rng.normal(size=40)
        other = 0.6 * one + 0.8 * rng.normal(size=40)
        _, low, high = spearman_interval(one, other, draws=200)
        held += low <= truth <= high
    assert 178 <= held <= 199


def test_a_list_without_an_order_has_no_correlation():
    assert np.isnan(spearman_interval([1, 1, 1, 1], [1, 2, 3, 4])).all()
    value, low, high = spearman_interval([1, 1, 1, 2], [1, 2, 3, 4], draws=100)  # many draws have no order either
    assert 0 < value < 1 and low <= value <= high
    with pytest.raises(ValueError, match="2 pairs"):
        spearman_interval([1, 2], [1, 2])
