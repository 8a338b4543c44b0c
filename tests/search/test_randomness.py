import numpy as np
import pytest
import torch
from scipy import stats

from search.randomness import TrialRandom, derive_seed


def test_first_numbers_are_splitmix64_by_plain_integer_arithmetic():
    """An independent computation with Python's big integers."""
    mask = 2**64 - 1

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    start = mix(mix((7 + golden) & mask))
    expected = [((mix((start + k * golden) & mask) >> 12) + 0.5) / 2**52 for k in range(1, 6)]
    assert TrialRandom(7).uniform(5)[0].tolist() == expected


def test_a_trial_is_the_run_of_its_own_seed():
    together = TrialRandom(40, trials=3)
    draws = [together.uniform(4), together.normal(2, 3), together.permutation(9)]
    for trial in range(3):
        alone = TrialRandom(40 + trial)
        for drawn, again in zip(draws, [alone.uniform(4), alone.normal(2, 3), alone.permutation(9)], strict=True):
            assert torch.equal(drawn[trial], again[0])


def test_state_continues_exactly():
    rng = TrialRandom(3, trials=2)
    rng.uniform(11)
    other = TrialRandom(99)
    other.load_state_dict(rng.state_dict())
    assert torch.equal(rng.normal(50), other.normal(50))


def test_distributions():
    rng = TrialRandom(0, trials=4)
    uniform, normal = rng.uniform(50_000), rng.normal(50_000)
    for trial in range(4):
        assert stats.kstest(uniform[trial].numpy(), "uniform").pvalue > 1e-3
        assert stats.kstest(normal[trial].numpy(), "norm").pvalue > 1e-3
    # Trials with adjacent seeds, and successive numbers of one trial, are uncorrelated (standard error 0.0045).
    assert abs(np.corrcoef(uniform.numpy()) - np.eye(4)).max() < 0.02
    assert abs(np.corrcoef(uniform[0, :-1].numpy(), uniform[0, 1:].numpy())[0, 1]) < 0.02
    assert 0 < uniform.min() and uniform.max() < 1


def test_categorical_follows_the_weights_and_never_draws_a_zero():
    rng = TrialRandom(1, trials=2)
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0]).expand(2, 100_000, 5)
    drawn = rng.categorical(weights)
    counts = torch.bincount(drawn.flatten(), minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert counts[3] / counts.sum() == pytest.approx(0.75, abs=0.005)


def test_permutation_is_uniform_over_orders():
    drawn = TrialRandom(5, trials=6000).permutation(3)
    codes = (drawn * torch.tensor([9, 3, 1])).sum(-1).bincount()
    counts = codes[codes > 0]
    assert len(counts) == 6
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_derived_seeds_tell_their_parts_apart():
    seeds = {derive_seed(*parts) for parts in [(0, "a"), (0, "b"), (1, "a"), ("a", 0), (0, "ab", "c"), (0, "a", "bc")]}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(0, "a") == derive_seed(0, "a")
