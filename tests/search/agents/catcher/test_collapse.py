"""When a context is worth its nats: the KL's weight beside the number of rewards that it helps to predict."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from search.agents.catcher.agent import CATCHer
from search.agents.catcher.encoder import product_of_gaussians
from search.agents.catcher.evaluator import huber
from search.agents.catcher.settings import CatcherSettings
from search.randomness import TrialRandom
from tests.search.agents.toy_spaces import Grid

SPACE = Grid(decisions=3, choices=4)
PREDICTED = 64
BOUND = {"kl_weight": 1.0, "kl_per_reward": True, "kl_prefixes": "all", "prior_factor": True}


def tasks(correlation):
    """Scores of variance 1 of all 64 networks on two tasks, sums over decisions: ``[2, 64]``."""
    codes = SPACE.one_hot(torch.tensor(list(SPACE.enumerate()))).double()
    parts = (codes @ TrialRandom(4).normal(12, 2)[0]).T
    parts = parts - parts.mean(1, keepdim=True)
    first = parts[0] / parts[0].norm()
    other = parts[1] - (parts[1] @ first) * first
    second = correlation * first + (1 - correlation**2) ** 0.5 * other / other.norm()
    return 8 * torch.stack([first, second])


def trained(correlation, steps=600, **settings):
    """An agent whose encoder and evaluator have practised on two tasks in turn, with contexts of 3 to 50 networks."""
    agent = CATCHer(SPACE, 1, 0, CatcherSettings(hidden=24, latent=4, layers=1, **settings))
    everything, scores = torch.tensor(list(SPACE.enumerate())), tasks(correlation)
    codes = SPACE.one_hot(everything).to(agent.dtype)
    rng = TrialRandom(7)
    optimizer = torch.optim.Adam(agent.networks.parameters(), lr=3e-3)
    for step in range(steps):
        rewards = scores[step % 2].to(agent.dtype)
        context = rng.integers(64, 3 + step * 7919 % 48)
        mean, variance = agent._posterior(codes[context], rewards[context])
        z = agent._draw_context(mean[:, -1:], variance[:, -1:]).expand(-1, PREDICTED, -1)
        loss = huber(agent.evaluator(codes[None], z) - rewards, 1.0).mean(1)
        loss = loss + agent._kl_penalty(mean, variance, PREDICTED, 3)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return agent


@torch.no_grad()
def probe_accuracy(agent, correlation):
    """How many of 100 new contexts of 40 networks a linear probe, fitted to 100 others, assigns to their task."""
    codes = SPACE.one_hot(torch.tensor(list(SPACE.enumerate()))).to(agent.dtype)
    rng, means = TrialRandom(8), []
    for k in range(200):
        context = rng.integers(64, 40)
        mean, _ = agent._posterior(codes[context], tasks(correlation)[k % 2].to(agent.dtype)[context])
        means.append(mean[0, -1].double())
    points = torch.stack(means)
    points = torch.cat([(points - points.mean(0)) / points.std(0), torch.ones(200, 1).double()], 1)
    labels = torch.tensor([1.0, -1.0] * 100, dtype=torch.float64)
    fit, rest = slice(0, 100), slice(100, None)
    weights = torch.linalg.lstsq(points[fit], labels[fit, None]).solution[:, 0]
    return float(((points[rest] @ weights).sign() == labels[rest]).double().mean())


@torch.no_grad()
def told_apart(agent, correlation):
    """How far apart two tasks' mean contexts are, in standard deviations of a draw from the posterior."""
    codes = SPACE.one_hot(torch.tensor(list(SPACE.enumerate()))).to(agent.dtype)
    ends = [agent._posterior(codes[None, :50], row[None, :50].to(agent.dtype)) for row in tasks(correlation)]
    (one, variance), (other, _) = ends
    return float(((one - other)[0, -1].square() / variance[0, -1]).sum().sqrt())


def test_contexts_of_two_reversed_tasks_are_told_apart_by_a_linear_probe():
    assert probe_accuracy(trained(-1.0, **BOUND), -1.0) == 1


def test_a_context_is_used_where_its_nats_are_weighed_against_every_reward():
    """Of two unrelated tasks the paper's weight, a tenth of the mean of 64 losses, leaves contexts that overlap."""
    assert told_apart(trained(0.0), 0.0) < 1
    assert told_apart(trained(0.0, **BOUND), 0.0) > 4


def test_the_penalty_by_hand():
    mean, variance = TrialRandom(1).normal(6, 3).float(), TrialRandom(2).uniform(6, 3).float()
    kl = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).sum(-1)[0]
    for settings, expected in (
        ({"kl_weight": 0.3}, 0.3 * kl[-1]),
        ({"kl_weight": 0.3, "kl_per_reward": True}, 0.3 * kl[-1] / 7),
        ({"kl_weight": 0.3, "kl_prefixes": "all"}, 0.3 * kl[1:].mean()),
    ):
        agent = CATCHer(SPACE, 1, 0, CatcherSettings(hidden=8, latent=3, **settings))
        assert torch.allclose(agent._kl_penalty(mean, variance, 7, 2)[0], expected)


def test_the_prior_is_one_of_the_factors():
    means, variances = TrialRandom(3).normal(5, 2), TrialRandom(5).uniform(5, 2) + 0.1
    with_prior = product_of_gaussians(means, variances, prior=True)
    first = [torch.cat([each(1, 1, 2), given], 1) for each, given in ((torch.zeros, means), (torch.ones, variances))]
    expected = product_of_gaussians(*first)
    for ours, theirs in zip(with_prior, expected, strict=True):
        assert torch.allclose(ours, theirs[:, 1:])
    none = product_of_gaussians(means, torch.full_like(variances, 1e9), prior=True)
    assert torch.allclose(none[1], torch.ones(5, 2, dtype=torch.float64), atol=1e-6)  # no evidence: the prior


def test_weights_of_another_kind_of_posterior_are_refused():
    weights = CATCHer(SPACE, 1, 0).weights()
    with pytest.raises(ValueError, match="prior_factor=False, this agent has prior_factor=True"):
        CATCHer(SPACE, 1, 0, CatcherSettings(prior_factor=True)).load_weights(weights)
    del weights["settings"]["prior_factor"]  # of an earlier version, which had no such setting
    CATCHer(SPACE, 1, 0).load_weights(weights)
