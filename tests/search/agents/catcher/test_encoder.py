import torch
from torch.distributions import Normal, kl_divergence

from search.agents.catcher.encoder import ContextEncoder, kl_to_standard_normal, product_of_gaussians
from search.agents.catcher.settings import CatcherSettings
from search.randomness import TrialRandom


def random_factors(n=6):
    rng = TrialRandom(0, trials=3)
    return rng.normal(n, 4), rng.uniform(n, 4) * 2 + 0.05


def test_product_of_gaussians_is_the_normalised_product_of_densities():
    """Against torch.distributions: the product of densities, normalised on a grid, has the density of the result."""
    means, variances = random_factors()
    mean, variance = product_of_gaussians(means, variances)
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    for count in (1, 3, 6):
        log_product = sum(Normal(means[1, k, 2], variances[1, k, 2].sqrt()).log_prob(grid) for k in range(count))
        density = (log_product - log_product.max()).exp()
        density = density / torch.trapezoid(density, grid)
        expected = Normal(mean[1, count - 1, 2], variance[1, count - 1, 2].sqrt()).log_prob(grid).exp()
        assert torch.allclose(density, expected, atol=1e-8)


def test_every_prefix_is_the_product_of_its_factors():
    means, variances = random_factors()
    mean, variance = product_of_gaussians(means, variances)
    for count in range(1, 7):
        precision = (1 / variances[:, :count]).sum(1)
        assert torch.allclose(variance[:, count - 1], 1 / precision)
        assert torch.allclose(mean[:, count - 1], (means[:, :count] / variances[:, :count]).sum(1) / precision)


def test_order_of_the_contexts_does_not_matter():
    means, variances = random_factors()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    ours, shuffled = product_of_gaussians(means, variances), product_of_gaussians(means[:, order], variances[:, order])
    assert all(torch.allclose(a[:, -1], b[:, -1]) for a, b in zip(ours, shuffled, strict=True))


def test_kl_against_torch_distributions():
    means, variances = random_factors()
    expected = kl_divergence(Normal(means, variances.sqrt()), Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(kl_to_standard_normal(means, variances), expected)
    assert kl_to_standard_normal(torch.zeros(10), torch.ones(10)) == 0


def test_vanishing_variance_stays_finite():
    mean, variance = product_of_gaussians(torch.ones(1, 2, 1), torch.zeros(1, 2, 1))
    assert torch.isfinite(mean).all() and (variance > 0).all()


def test_encoder_maps_contexts_to_prefix_posteriors():
    encoder = ContextEncoder(TrialRandom(0, 2), 30, CatcherSettings(), torch.float64)
    codes, rewards = torch.rand(2, 7, 30, dtype=torch.float64), torch.randn(2, 7, dtype=torch.float64)
    mean, variance = encoder(codes, rewards)
    assert mean.shape == variance.shape == (2, 7, 10)
    assert (variance[:, 1:] < variance[:, :-1]).all()  # each further pair can only add precision
    shorter, _ = encoder(codes[:, :4], rewards[:, :4])
    assert torch.allclose(shorter[:, 3], mean[:, 3])
