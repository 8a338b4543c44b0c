"""Predictions from a few measurements, against the same formulas written another way."""

import numpy as np
import pytest
import torch
from scipy.linalg import null_space

from search.statistics.few_shot import most_informative, predict_from_few

NOISES = (0.001, 0.01, 0.1, 1.0)


def problem(seed, items=40, k=6, n=9, noise=0.1):
    random = np.random.default_rng(seed)
    features = random.normal(size=(items, k))
    measured = random.permutation(items)[:n]
    values = 5 + features[measured] @ random.normal(size=k) + noise * random.normal(size=n)
    return torch.from_numpy(features), torch.from_numpy(measured), torch.from_numpy(values)


def by_weights(features, measured, values, noise):
    """Ridge regression in the space of the weights, the constant free of any penalty."""
    rows = np.column_stack([np.ones(len(measured)), features[measured]])
    penalty = noise * np.diag([0.0, *np.ones(features.shape[1])])
    solved = np.linalg.solve(rows.T @ rows + penalty, rows.T @ values.numpy())
    return solved[0] + features.numpy() @ solved[1:]


def log_evidence(features, measured, values, noise):
    """Of contrasts, which no constant moves: a normal density with Jeffreys' prior of its scale integrated out."""
    contrasts = null_space(np.ones((1, len(measured)))).T
    rows = contrasts @ features[measured].numpy()
    covariance = rows @ rows.T + noise * np.eye(len(rows))
    seen = contrasts @ values.numpy()
    spread = seen @ np.linalg.inv(covariance) @ seen
    return -0.5 * np.linalg.slogdet(covariance)[1] - len(rows) / 2 * np.log(spread)


@pytest.mark.parametrize("noise", NOISES)
def test_predicts_as_ridge_regression_does(noise):
    given = problem(0)
    assert np.allclose(predict_from_few(*given, [noise]).numpy(), by_weights(*given, noise), atol=1e-9)


def test_takes_the_likeliest_noise():
    taken = set()
    for seed in range(12):
        given = problem(seed, noise=0.003 if seed % 2 else 2.0)
        best = max(NOISES, key=lambda noise, given=given: log_evidence(*given, noise))
        assert torch.equal(predict_from_few(*given, NOISES), predict_from_few(*given, [best]))
        taken.add(best)
    assert {min(NOISES), max(NOISES)} <= taken


def test_the_unit_and_the_zero_of_the_values_do_not_matter():
    features, measured, values = problem(3)
    expected = 100 + 7 * predict_from_few(features, measured, values, NOISES)
    assert torch.allclose(predict_from_few(features, measured, 100 + 7 * values, NOISES), expected)


def test_equal_measurements_say_that_all_are_equal():
    features, measured, _ = problem(4)
    predicted = predict_from_few(features, measured, torch.full((9,), 2.5, dtype=torch.float64), NOISES)
    assert torch.allclose(predicted, torch.tensor(2.5, dtype=torch.float64))


def test_each_choice_leaves_the_least_variance():
    """Against the variance after each candidate, computed anew by inverting the precision."""
    features, candidates, noise = problem(5)[0], torch.arange(3, 33), 0.2
    rows = np.column_stack([features.numpy(), np.ones(len(features))])
    prior = np.diag([*np.ones(features.shape[1]), 1e-4])
    chosen = []
    for choice in most_informative(features, 6, candidates, noise).tolist():
        left = {}
        for each in set(candidates.tolist()) - set(chosen):
            seen = rows[[*chosen, each]]
            left[each] = np.trace(rows @ np.linalg.inv(prior + seen.T @ seen / noise) @ rows.T)
        assert left[choice] <= min(left.values()) * (1 + 1e-6)
        chosen.append(choice)
    assert len(set(chosen)) == 6


def test_measures_better_than_at_random():
    """Known weights, many draws: the chosen measurements leave a smaller error."""
    errors = {"chosen": [], "random": []}
    for seed in range(40):
        random = np.random.default_rng(seed)
        features = torch.from_numpy(random.normal(size=(300, 5)) * random.gamma(0.5, size=(300, 1)))
        truth = 1 + features @ torch.from_numpy(random.normal(size=5))
        noisy = truth + 0.3 * torch.from_numpy(random.normal(size=300))
        order = torch.from_numpy(random.permutation(300))
        for name, measured in (("chosen", most_informative(features, 8, order, 0.1)), ("random", order[:8])):
            predicted = predict_from_few(features, measured, noisy[measured], [0.1])
            errors[name].append(float((predicted - truth).square().mean()))
    assert np.mean(errors["chosen"]) < 0.5 * np.mean(errors["random"])


def test_refuses_more_measurements_than_candidates():
    with pytest.raises(ValueError, match="5 items are to be chosen of 4"):
        most_informative(problem(0)[0], 5, torch.arange(4), 0.1)
