"""The recurrent controller: its update spelled out, and what it learns."""

import pytest
import torch

from search.agents.recurrent.controller import RecurrentController
from search.agents.recurrent.policy_gradient import MovingBaseline
from search.randomness import TrialRandom

from ..toy_spaces import Grid, Staircase, integer_reward


def test_the_baseline_is_a_bias_corrected_average_in_order():
    baseline = MovingBaseline(2, momentum=0.9)
    rewards = torch.tensor([[50.0, 60.0], [1.0, 1.0]], dtype=torch.float64)
    baseline.add(rewards)
    assert baseline.value.tolist() == pytest.approx([(0.9 * 0.1 * 50 + 0.1 * 60) / 0.19, 1.0])
    advantages = baseline.advantages(rewards)
    assert advantages[0].tolist() == pytest.approx([(50 - 55.26315789) / 5, (60 - 55.26315789) / 5])
    assert advantages[1].abs().max() < 1e-6  # nothing differs, so nothing is learned


def copied(agent, trial):
    """One trial's weights as plain parameters, by name."""
    return {
        name: each[trial].clone().requires_grad_() for name, each in agent.state_dict()["policy"]["weights"].items()
    }


def log_probs(space, weights, arch):
    """Log-probability of each choice and entropy of each decision, written for one architecture and one layer."""
    hidden = weights["embedding"].shape[1]
    output = cell = torch.zeros(hidden, dtype=torch.float64)
    token, taken, entropies = space.offsets[-1], [], []
    for t, choice in enumerate(arch):
        gates = weights["embedding"][token] @ weights["lstm.read.0"] + output @ weights["lstm.recur.0"]
        i, f, g, o = (gates + weights["lstm.bias.0"][0]).split(hidden)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        output = o.sigmoid() * cell.tanh()
        logits = (output @ weights["heads"] + weights["head_bias"][0])[space.offsets[t] : space.offsets[t + 1]]
        valid = space.valid_choices(torch.tensor(arch[:t], dtype=torch.long))
        policy = torch.distributions.Categorical(logits=logits[valid])
        taken.append(policy.log_prob(valid[:choice].sum()))
        entropies.append(policy.entropy())
        token = space.offsets[t] + choice
    return torch.stack(taken), torch.stack(entropies)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_updates_are_those_of_plain_torch(algorithm):
    """Two batches of three through a buffer of five, spelled out for one trial of two."""
    space, batch, buffer, updates = Staircase(), 3, 5, 4
    agent = RecurrentController(
        space, 2, 3, algorithm, hidden=4, batch=batch, buffer=buffer, updates=updates, learning_rate=0.05, entropy=0.3
    )
    weights = copied(agent, 1)
    rng = TrialRandom(9, 2)
    archs = space.sample(rng, 2 * batch)
    rewards = integer_reward(space, archs) / 7
    for k in range(2 * batch):  # one at a time, or three, is the same
        agent.tell(archs[:, k : k + 1], rewards[:, k : k + 1])
    adam = torch.optim.Adam(weights.values(), lr=0.05)
    baseline, kept = MovingBaseline(1, 0.95), []
    for first in (0, batch):
        new = [(tuple(archs[1, k].tolist()), float(rewards[1, k])) for k in range(first, first + batch)]
        baseline.add(torch.tensor([[reward for _, reward in new]], dtype=torch.float64))
        with torch.no_grad():
            kept += [(arch, reward, log_probs(space, weights, arch)[0]) for arch, reward in new]
        kept = kept[-buffer:]
        advantages = baseline.advantages(torch.tensor([[reward for _, reward, _ in kept]], dtype=torch.float64))[0]
        used = kept if algorithm == "ppo" else kept[-batch:]
        for _ in range(updates if algorithm == "ppo" else 1):
            losses = []
            for (arch, _, before), advantage in zip(used, advantages[-len(used) :], strict=True):
                now, entropies = log_probs(space, weights, arch)
                if algorithm == "ppo":
                    ratio = (now - before).exp()
                    gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
                else:
                    gain = (now * advantage).mean()
                losses.append(-gain - 0.3 * entropies.mean())
            adam.zero_grad()
            torch.stack(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
            adam.step()
    ours = copied(agent, 1)
    for name, expected in weights.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_it_learns_that_a_choice_must_equal_the_one_before_it(algorithm):
    """The reward counts decisions that repeat their predecessor; drawn at random a third of them do."""
    space = Grid(4, 3)
    agent = RecurrentController(
        space, 4, 0, algorithm, hidden=8, batch=10, buffer=10, updates=4, learning_rate=0.03, entropy=0.02
    )
    agent.begin_task(300, adapting=True)
    for _ in range(30):
        archs = agent.ask(10)
        agent.tell(archs, (archs[..., 1:] == archs[..., :-1]).sum(-1).double())
    archs = agent.ask(50)
    repeats = (archs[..., 1:] == archs[..., :-1]).double().mean((1, 2))
    print(algorithm, repeats.tolist())
    assert repeats.min() > 0.45 and repeats.mean() > 0.7


@pytest.mark.parametrize(
    "arguments",
    [{"algorithm": "sarsa"}, {"hidden": 0}, {"batch": 5, "buffer": 4}, {"learning_rate": 0.0}, {"momentum": 1.0}],
    ids=str,
)
def test_it_refuses_what_makes_no_sense(arguments):
    with pytest.raises(ValueError, match=rf"RecurrentController: .*{next(iter(arguments))}"):
        RecurrentController(Grid(), **arguments)
