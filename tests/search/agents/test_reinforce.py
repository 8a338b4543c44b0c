import pytest
import torch
from scipy import stats

from search.agents.reinforce import Reinforce
from search.randomness import TrialRandom

from .toy_spaces import Grid, Staircase, integer_reward


def told_history(space, trials, steps, n):
    rng = TrialRandom(9, trials)
    return [(archs := space.sample(rng, n), integer_reward(space, archs) / 7) for _ in range(steps)]


@pytest.mark.parametrize("space", [Grid(2, 3), Staircase()], ids=lambda space: space.name)
@pytest.mark.parametrize("n", [1, 3])
def test_matches_autograd_and_torch_adam(space, n):
    """The same history through `torch.distributions`, autograd, and one `torch.optim.Adam` a trial."""
    agent = Reinforce(space, trials=2, seed=3, learning_rate=0.07)
    start = agent.state_dict()["logits"]
    history = told_history(space, 2, 12, n)
    for archs, rewards in history:
        agent.tell(archs, rewards)
    for trial in range(2):
        logits = [block.clone().requires_grad_() for block in start[trial].split(space.sizes)]
        optimizer = torch.optim.Adam(logits, lr=0.07)
        numerator = denominator = 0.0
        for archs, rewards in history:
            losses = []
            for arch, reward in zip(archs[trial], rewards[trial].tolist(), strict=True):
                numerator = 0.9 * numerator + 0.1 * reward
                denominator = 0.9 * denominator + 0.1
                log_probability = 0.0
                for t, choice in enumerate(arch):
                    valid = space.valid_choices(arch[:t])
                    policy = torch.distributions.Categorical(logits=logits[t][valid])
                    log_probability = log_probability + policy.log_prob(valid[:choice].sum())
                losses.append(-log_probability * (reward - numerator / denominator))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
        torch.testing.assert_close(agent.state_dict()["logits"][trial], torch.cat(logits).detach())


def test_first_steps_by_hand():
    """Two equal choices; rewards 50 and 60.

    First step: the baseline is the reward itself, nothing moves. Second: baseline = (.9*.1*50 + .1*60) / .19 = 55.263,
    the advantage is positive, the gradient of the chosen logit is g = -4.737 * .5 and that of the other -g. Adam's
    moments have seen one zero before: m = .1 g / .19 and v = .001 g^2 / .001999, a step of .74415 learning rates.
    """
    agent = Reinforce(Grid(1, 2), learning_rate=0.2, initial_scale=0.0)
    agent.tell(torch.tensor([[[1]]]), torch.tensor([[50.0]]))
    assert agent.state_dict()["logits"].tolist() == [[0.0, 0.0]]
    agent.tell(torch.tensor([[[1]]]), torch.tensor([[60.0]]))
    step = 0.2 * (0.1 / 0.19) / (0.001 / 0.001999) ** 0.5
    assert step == pytest.approx(0.2 * 0.74415, rel=1e-4)
    assert agent.state_dict()["logits"][0].tolist() == pytest.approx([-step, step], rel=1e-6)
    state = agent.state_dict()
    assert (state["average"] / state["weight"]).item() == pytest.approx((0.09 * 50 + 0.1 * 60) / 0.19)


def test_draws_from_the_masked_policy():
    """Two decisions of Staircase: the frequency of every pair is the product of renormalised softmaxes."""
    space = Staircase()
    agent = Reinforce(space, seed=1, initial_scale=1.0)
    first, second = agent.state_dict()["logits"][0].split(space.sizes)[:2]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for k in range(4):
        allowed = [j for j in range(4) if j >= k - 1]
        expected[k, allowed] = first.softmax(0)[k] * second[allowed].softmax(0)
    drawn = agent.ask(40_000)[0]
    counts = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16)
    possible = expected.flatten() > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible].numpy(), 40_000 * expected.flatten()[possible].numpy()).pvalue > 1e-3


def test_initial_logits_are_small_and_normal():
    logits = Reinforce(Grid(10, 10), trials=200).state_dict()["logits"]
    assert stats.kstest(logits.flatten().numpy() / 1e-3, "norm").pvalue > 1e-3


def test_refuses_impossible_settings():
    with pytest.raises(ValueError, match=r"momentum is 1\.0, it must be in \[0, 1\)"):
        Reinforce(Grid(), momentum=1.0)
    with pytest.raises(ValueError, match="learning_rate is 0"):
        Reinforce(Grid(), learning_rate=0)
