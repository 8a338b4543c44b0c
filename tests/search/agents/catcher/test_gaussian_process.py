"""The Gaussian process against textbook formulas written out with loops and inverses."""

import itertools
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch

from search.agents.catcher.codes import Codes
from search.agents.catcher.gaussian_process import ArchitectureKernel, log_expected_improvement, posterior
from search.randomness import TrialRandom
from search.spaces.nasbench201 import NASBench201
from search.spaces.transnasbench101 import TransNASBench101Micro
from tests.search.agents.toy_spaces import Staircase


def random_kernel(space, trials=3):
    kernel = ArchitectureKernel(Codes(space), trials, torch.float64)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter += 0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return kernel, generator


def by_loops(kernel, trial, archs, means, others, other_means):
    """k between single architectures, from the formula of the docstring."""
    constant, transfer, local = (
        float(getattr(kernel, f"log_{name}")[trial].detach().exp()) for name in ("constant", "transfer", "local")
    )
    weights = kernel.log_weights[trial].exp().tolist()
    matrix = np.zeros((len(archs), len(others)))
    for i, a in enumerate(archs.tolist()):
        for j, b in enumerate(others.tolist()):
            distance = sum(w for w, x, y in zip(weights, a, b, strict=True) if x != y)
            matrix[i, j] = constant + transfer * float(means[i] * other_means[j]) + local * np.exp(-distance)
    return matrix


@pytest.mark.parametrize("space", [NASBench201(), TransNASBench101Micro(), Staircase()], ids=lambda space: space.name)
def test_posterior_is_the_textbook_formula(space):
    kernel, generator = random_kernel(space)
    archs, others = (torch.tensor([space.sample(np_rng, n)[0].tolist() for np_rng in streams()]) for n in (12, 7))
    means, rewards, other_means = (torch.randn(3, n, generator=generator, dtype=torch.float64) for n in (12, 12, 7))
    codes, asked = space.one_hot(archs).double(), space.one_hot(others).double()
    mean, variance = posterior(kernel, codes, means, rewards, asked, other_means)
    for trial in range(3):
        noise = float(kernel.noise()[trial].detach())
        inverse = np.linalg.inv(
            by_loops(kernel, trial, archs[trial], means[trial], archs[trial], means[trial]) + noise * np.eye(12)
        )
        across = by_loops(kernel, trial, archs[trial], means[trial], others[trial], other_means[trial])
        prior = by_loops(kernel, trial, others[trial], other_means[trial], others[trial], other_means[trial])
        expected = other_means[trial].numpy() + across.T @ inverse @ (rewards[trial] - means[trial]).numpy()
        covariance = prior - across.T @ inverse @ across
        assert np.allclose(mean[trial].detach(), expected, atol=1e-8)
        assert np.allclose(variance[trial].detach(), np.diag(covariance), atol=1e-8)


def streams():
    return [TrialRandom(seed) for seed in (1, 2, 3)]


MANY = ((TrialRandom(1), 5), (TrialRandom(2), 7))


def test_sources_that_mislead_are_found_out():
    """With rewards opposite to the mean function, a few evaluations turn the prediction round; with equal ones, not."""
    space = NASBench201()
    kernel = ArchitectureKernel(Codes(space), 1, torch.float64)
    archs = space.sample(streams()[0], 30)
    expected = torch.randn(1, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = space.one_hot(archs).double()
    for sign in (1.0, -1.0):
        mean, _ = posterior(
            kernel, codes[:, :15], expected[:, :15], sign * expected[:, :15], codes[:, 15:], expected[:, 15:]
        )
        assert torch.corrcoef(torch.stack([mean[0].detach(), sign * expected[0, 15:]]))[0, 1] > 0.9


def test_a_term_of_what_sources_differ_in_is_the_mean_of_their_products():
    """Against loops; without differences the kernel is the one without the term."""
    space, sources = NASBench201(), 4
    plain = ArchitectureKernel(Codes(space), 2, torch.float64)
    kernel = ArchitectureKernel(Codes(space), 2, torch.float64, weighs=True)
    generator = torch.Generator().manual_seed(3)
    kernel.log_differences.data += torch.randn(2, 1, generator=generator, dtype=torch.float64)
    codes, asked = (space.one_hot(space.sample(stream, 2 * n).reshape(2, n, -1)).double() for stream, n in MANY)
    f, g = (torch.randn(2, n, 1 + sources, generator=generator, dtype=torch.float64) for _, n in MANY)
    with torch.no_grad():
        total = kernel.covariance(codes, f, asked, g)
        without = plain.covariance(codes, f[..., 0], asked, g[..., 0])
        heights = kernel.log_differences.exp()
        for t, i, j in itertools.product(range(2), range(5), range(7)):
            term = heights[t, 0] * sum(f[t, i, s] * g[t, j, s] for s in range(1, 1 + sources)) / sources
            assert total[t, i, j] == pytest.approx(float(without[t, i, j] + term))
        variance = kernel.covariance(codes, f, codes, f).diagonal(dim1=1, dim2=2)
        assert torch.allclose(kernel.variance(f), variance)
        assert torch.equal(kernel.covariance(codes, f[..., :1], asked, g[..., :1]), without)


def test_the_source_that_a_target_is_like_is_found():
    """Of five sources the target is the third: 15 evaluations tell, where their mean alone would not."""
    space = NASBench201()
    archs = space.sample(streams()[0], 200)
    each = torch.randn(1, 200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, codes, target = each.mean(2, keepdim=True), space.one_hot(archs).double(), each[..., 2]
    agreement = []
    for opinions in (torch.cat([mean, each - mean], 2), mean):
        kernel = ArchitectureKernel(Codes(space), 1, torch.float64, weighs=True)
        known, asked = opinions[:, :15], opinions[:, 15:]
        predicted, _ = posterior(kernel, codes[:, :15], known, target[:, :15], codes[:, 15:], asked)
        agreement.append(float(torch.corrcoef(torch.stack([predicted[0].detach(), target[0, 15:]]))[0, 1]))
    assert agreement[0] > 0.9 and agreement[1] < 0.6, agreement


def test_an_evaluated_architecture_is_known_up_to_noise():
    space = NASBench201()
    kernel = ArchitectureKernel(Codes(space), 1, torch.float64)
    archs = space.sample(streams()[0], 20)
    codes, zero = space.one_hot(archs).double(), torch.zeros(1, 20, dtype=torch.float64)
    rewards = torch.randn(1, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, variance = posterior(kernel, codes, zero, rewards, codes, zero)
    assert (variance < kernel.noise()).all()
    far = space.one_hot((archs + 1) % 5).double()
    _, elsewhere = posterior(kernel, codes, zero, rewards, far, zero)
    assert elsewhere.mean() > 5 * variance.mean()


@pytest.mark.parametrize("u", [3.0, 0.0, -0.99, -1.01, -8.0, -40.0, -300.0, -2e4])
def test_log_expected_improvement_against_many_digits(u):
    mpmath.mp.dps = 40
    deviation, best = 0.3, 1.2
    mean = best + u * deviation
    # By quadrature of x phi(u - x) over x > 0, with the largest factor taken out.
    scale = mpmath.mpf(-u * u / 2 if u < 0 else 0)
    shape = mpmath.quad(lambda x: x * mpmath.exp(-((x - u) ** 2) / 2 - scale), [0, 1 / max(1, -u), 40 / max(1, -u), 60])
    exact = mpmath.mpf(deviation) * shape * mpmath.exp(scale) / mpmath.sqrt(2 * mpmath.pi)
    got = log_expected_improvement(*(torch.tensor([[x]], dtype=torch.float64) for x in (mean, deviation**2, best)))
    assert float(got) == pytest.approx(float(mpmath.log(exact)), rel=1e-9)


def test_log_expected_improvement_grows_with_mean_and_uncertainty():
    means = torch.linspace(-40, 3, 2000, dtype=torch.float64)[None]
    best = torch.zeros(1, 1, dtype=torch.float64)
    assert (log_expected_improvement(means, torch.ones_like(means), best).diff() > 0).all()
    variances = torch.linspace(0.01, 4, 2000, dtype=torch.float64)[None]
    assert (log_expected_improvement(torch.full_like(variances, -1.0), variances, best).diff() > 0).all()


def test_blocks_add_up_and_their_groups_multiply():
    """Any columns: two blocks of two and one groups; the second set shared by all trials."""
    columns = SimpleNamespace(blocks=torch.tensor([0, 0, 0, 1]), groups=torch.tensor([0, 0, 1, 2]))
    kernel = ArchitectureKernel(columns, 2, torch.float64)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 4), (1, 5, 4)))
    f, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3), (2, 5)))
    with torch.no_grad():
        found, alone = kernel.covariance(a, f, b, g), kernel.of_trials(slice(1, 2)).covariance(a[1:], f[1:], b, g[1:])
        heights, weights = kernel.log_local.exp(), kernel.log_weights.exp()
        for t, i, j in itertools.product(range(2), range(3), range(5)):
            square = (a[t, i] - b[0, j]) ** 2 / 2
            first = heights[t, 0] * (-weights[t, 0] * (square[0] + square[1]) - weights[t, 1] * square[2]).exp()
            second = heights[t, 1] * (-weights[t, 2] * square[3]).exp()
            slope = kernel.log_transfer[t, 0].exp() * f[t, i] * g[t, j]
            assert found[t, i, j] == pytest.approx(float(kernel.log_constant[t, 0].exp() + slope + first + second))
    assert torch.allclose(found[1:], alone)
