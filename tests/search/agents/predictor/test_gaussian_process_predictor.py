"""The Gaussian process of blocks against formulas written out, and what fitting does."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from search.agents.predictor.base import Examples
from search.agents.predictor.gaussian_process import BlockKernel, GaussianProcess

BLOCKS, GROUPS = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 0, 1, 1, 2])


def examples(n=9, trials=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(trials, n, 5, generator=generator)
    targets = torch.randn(trials, n, generator=generator, dtype=torch.float64)
    return Examples(features, targets, BLOCKS, GROUPS, tuple(range(trials)))


def by_hand(parameters, a, b):
    """k(a, b) of one trial, from the docstring: two blocks, three groups."""
    _, constant, first, second, *weights = np.exp(parameters)
    matrix = np.zeros((len(a), len(b)))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            apart = [((x[:2] - y[:2]) ** 2).sum(), ((x[2:4] - y[2:4]) ** 2).sum(), (x[4] - y[4]) ** 2]
            near = first * math.exp(-weights[0] * apart[0] - weights[1] * apart[1])
            matrix[i, j] = constant + near + second * math.exp(-weights[2] * apart[2])
    return matrix


@pytest.fixture
def kernel():
    made = BlockKernel(examples())
    generator = torch.Generator().manual_seed(4)
    made.parameters = made.parameters + 0.5 * torch.randn(made.parameters.shape, generator=generator).double()
    return made


def test_covariance_and_surprise_are_the_formulas(kernel):
    known = examples()
    features = known.features.double()
    matrices = kernel.covariance(features, features[..., 0], features[:, :4], features[:, :4, 0])
    surprises = kernel.surprise(kernel.parameters, kernel.group_distances(features), known.targets)
    start = BlockKernel(known).parameters[0].numpy()
    for trial in range(2):
        points, parameters = features[trial].numpy(), kernel.parameters[trial].numpy()
        assert np.allclose(matrices[trial], by_hand(parameters, points, points[:4]), atol=1e-9)
        covariance = by_hand(parameters, points, points) + np.eye(9) * (np.exp(parameters[0]) + 1e-4)
        likelihood = multivariate_normal(np.zeros(9), covariance).logpdf(known.targets[trial].numpy())
        prior = norm(start, 1).logpdf(parameters).sum()
        constant = -0.5 * (9 + len(start)) * math.log(2 * math.pi)  # left out
        assert float(surprises[trial]) == pytest.approx(constant - likelihood - prior, abs=1e-8)


def test_prediction_is_the_conditional_distribution():
    known, asked = examples(), examples(4, seed=1).features
    model = GaussianProcess(steps=3).fit(known)
    means, deviations = model.predict(asked)
    for trial in range(2):
        parameters = model.kernel.parameters[trial].numpy()
        a, b = known.features[trial].double().numpy(), asked[trial].double().numpy()
        noisy = by_hand(parameters, a, a) + np.eye(9) * (np.exp(parameters[0]) + 1e-4)
        across = by_hand(parameters, a, b)
        mean = across.T @ np.linalg.solve(noisy, known.targets[trial].numpy())
        variance = np.diag(by_hand(parameters, b, b) - across.T @ np.linalg.solve(noisy, across))
        assert np.allclose(means[trial], mean, atol=1e-4)
        assert np.allclose(deviations[trial] ** 2, variance, atol=1e-4)
    shared, _ = model.predict(asked[:1])
    assert torch.equal(shared[0], means[0]) and not torch.equal(shared[1], means[1])


def test_fitting_finds_the_column_that_matters():
    """Targets depend on one group alone: its weight must come out on top, and others be predicted better for it."""
    generator = torch.Generator().manual_seed(2)
    features = 0.5 * torch.randn(3, 80, 5, generator=generator)
    truth = torch.sin(4 * features[..., 4]).double()
    known = Examples(features[:, :40], truth[:, :40], BLOCKS, GROUPS, (0, 1, 2))
    errors = {}
    for steps in (0, 40):
        model = GaussianProcess(steps=steps).fit(known)
        errors[steps] = (model.predict(features[:, 40:])[0] - truth[:, 40:]).square().mean(1)
    assert (errors[40] < errors[0]).all() and (errors[40] < 0.05).all()
    assert (model.kernel.parameters[:, 3] > model.kernel.parameters[:, 2]).all()  # the second block is higher


def test_an_evaluation_tells_at_once():
    """Conditioned on one more, without being fitted anew."""
    whole = examples(20)
    first = Examples(whole.features[:, :8], whole.targets[:, :8], BLOCKS, GROUPS, whole.seeds)
    model = GaussianProcess(steps=2).fit(first)
    before = model.predict(whole.features)[1]
    model.condition(whole)
    after = model.predict(whole.features)[1]
    assert (after[:, 8:] < 0.7 * before[:, 8:]).all()
