"""What a context encoder makes of tasks: points, projections and their test."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from search.agents.catcher.agent import CATCHer
from search.agents.catcher.contexts import (
    average_ranks,
    encode_histories,
    mantel,
    project,
    ranking_dissimilarities,
)
from search.agents.catcher.settings import CatcherSettings
from search.spaces.nasbench201 import NASBench201


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("normalisation", ["rank", "zscore"])
def test_a_history_is_encoded_as_the_agent_itself_would(normalisation):
    settings = CatcherSettings(double=True, initial_networks=20, normalisation=normalisation)
    agent = CATCHer(NASBench201(), trials=2, seed=3, settings=settings)
    rewards = normal(4, 9)
    archs = torch.randint(0, 5, (4, 9, 6), generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in agent.encoder.state_dict().items()}
    mean, variance = encode_histories(agent, archs, rewards)
    assert mean.shape == variance.shape == (4, 10)
    for k in range(4):
        alone = CATCHer(NASBench201(), trials=1, seed=3, settings=settings)  # trial 0 has these very weights
        alone.tell(archs[k : k + 1], rewards[k : k + 1])
        with torch.no_grad():
            expected, spread = alone._posterior(*alone._history())
        assert torch.allclose(mean[k], expected[0, -1], atol=1e-12)
        assert torch.allclose(variance[k], spread[0, -1], atol=1e-12)
    assert all(torch.equal(before[name], value) for name, value in agent.encoder.state_dict().items())


def test_a_failed_evaluation_counts_as_the_worst():
    agent = CATCHer(NASBench201(), seed=0)
    archs = torch.randint(0, 5, (2, 5, 6), generator=torch.Generator().manual_seed(1))
    failed = torch.tensor([[3.0, math.nan, 5.0, 4.0, math.nan], [math.nan] * 5])
    stand_in = torch.tensor([[3.0, 3.0, 5.0, 4.0, 3.0], [0.0] * 5])
    assert torch.equal(encode_histories(agent, archs, failed)[0], encode_histories(agent, archs, stand_in)[0])
    assert encode_histories(agent, archs, failed)[0].isfinite().all()


def test_the_projection_is_that_of_the_covariances_eigenvectors():
    points = normal(50, 4) @ torch.diag(torch.tensor([3.0, 0.1, 1.0, 0.5], dtype=torch.float64)) + 7
    coordinates, explained = project(points)
    values, vectors = np.linalg.eigh(np.cov(points.numpy().T))
    assert explained.tolist() == pytest.approx((values[::-1][:2] / values.sum()).tolist())
    centred = points.numpy() - points.numpy().mean(0)
    for component in range(2):
        expected = centred @ vectors[:, -1 - component]
        aligned = expected if expected @ coordinates[:, component].numpy() > 0 else -expected
        assert np.allclose(coordinates[:, component].numpy(), aligned)
    assert torch.allclose(coordinates.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    # Mirrored points are mirrored, not drawn with another sign.
    assert torch.allclose(project(-points)[0], -coordinates)


def test_points_with_fewer_directions_than_two_can_be_projected():
    line = torch.arange(5.0).unsqueeze(1) * torch.tensor([3.0, 4.0, 0.0])
    coordinates, explained = project(line)
    assert explained.tolist() == pytest.approx([1.0, 0.0])
    assert coordinates.tolist() == [pytest.approx([5.0 * (k - 2), 0.0]) for k in range(5)]
    coordinates, explained = project(torch.full((3, 4), 0.1))
    assert not coordinates.any() and not explained.any()
    assert project(torch.tensor([[1.0], [3.0]]))[0].tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_equal_values_share_their_mean_rank():
    assert average_ranks(torch.tensor([5.0, 1.0, 5.0, 7.0, 5.0])).tolist() == [3.0, 1.0, 3.0, 5.0, 3.0]


def test_dissimilarities_are_one_less_spearmans_correlation():
    scores = (normal(4, 30, seed=2) * 3).round()  # with ties
    scores[1, 4] = scores[3, 7] = math.nan
    known = [k for k in range(30) if k not in (4, 7)]
    expected = 1 - spearmanr(scores[:, known].numpy(), axis=1).statistic
    assert np.allclose(ranking_dissimilarities(scores).numpy(), expected)
    opposite = torch.stack([torch.arange(9.0), torch.arange(9.0).exp(), -torch.arange(9.0)])
    assert ranking_dissimilarities(opposite)[0].tolist() == pytest.approx([0.0, 0.0, 2.0])


def symmetric(n, seed):
    matrix = normal(n, n, seed=seed).abs()
    return (matrix + matrix.T).fill_diagonal_(0)


def test_mantel_agrees_with_all_orders_counted_out():
    distances, dissimilarities = symmetric(5, 3), symmetric(5, 4) + 0.6 * symmetric(5, 3)
    upper = np.triu_indices(5, 1)

    def correlation(order):
        return spearmanr(distances.numpy()[upper], dissimilarities.numpy()[np.ix_(order, order)][upper]).statistic

    given = correlation(range(5))
    exact = np.mean([correlation(order) >= given - 1e-12 for order in itertools.permutations(range(5))])
    found, p = mantel(distances, dissimilarities, torch.Generator().manual_seed(0))
    assert found == pytest.approx(given)
    assert p == pytest.approx(exact, abs=0.02) and 0.02 < exact < 0.9


def test_mantel_finds_what_is_alike_and_nothing_where_nothing_is():
    places = normal(12, 2, seed=5)
    distances = torch.cdist(places, places)
    generator = torch.Generator().manual_seed(0)
    found, p = mantel(distances, distances.square(), generator, permutations=999)
    assert found == pytest.approx(1.0) and p == pytest.approx(1 / 1000)
    found, p = mantel(distances, -distances, generator, permutations=999)
    assert found == pytest.approx(-1.0) and p == 1.0
    # Of tasks without any relation, one in ten or so is below 0.1; a sound test is not below it often.
    p_values = [mantel(symmetric(8, 100 + k), symmetric(8, 500 + k), generator, permutations=199)[1] for k in range(60)]
    assert 1 <= sum(p <= 0.1 for p in p_values) <= 14
    assert mantel(distances, torch.ones(12, 12), generator) == (pytest.approx(math.nan, nan_ok=True), 1.0)


def test_mantel_is_the_same_for_the_same_generator_and_refuses_too_little():
    a, b = symmetric(6, 1), symmetric(6, 2)
    assert mantel(a, b, torch.Generator().manual_seed(7)) == mantel(a, b, torch.Generator().manual_seed(7))
    with pytest.raises(ValueError, match="n of at least 3"):
        mantel(torch.zeros(2, 2), torch.zeros(2, 2), torch.Generator())
