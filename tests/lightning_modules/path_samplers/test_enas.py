import io
import math
from collections import Counter
from statistics import mean

import pytest
import torch
from torch import nn

from lightning_modules.path_samplers.enas import Controller, ENASSampler
from search.spaces.nasbench201 import NASBench201
from tests.search.spaces.masked_space import MaskedSpace

SPACE = NASBench201()
SECRET = (3, 1, 4, 0, 2, 3)
QUICK = {"steps": 3, "aggregate": 8, "candidates": 20}


def worth(archs):
    """How many decisions are the secret's, in %."""
    return [100 * sum(a == b for a, b in zip(choices, SECRET, strict=True)) / 6 for choices in archs]


def paths(sampler, steps, seed=0):
    return [sampler.path(seed, step).choices for step in range(steps)]


def test_learns_to_draw_the_secret():
    sampler = ENASSampler(SPACE, learning_rate=0.02, steps=50, aggregate=20)
    assert mean(worth(paths(sampler, 100))) < 30  # of chance: 20
    for epoch in range(2):
        sampler.epoch_ended(worth, 0, epoch, 2)
    assert mean(worth(paths(sampler, 100))) > 70
    chosen = sampler.choose(worth, 5, 0)
    assert chosen[0] == SECRET and worth(chosen) == sorted(worth(chosen), reverse=True) and len(set(chosen)) == 5


def test_learns_choices_that_depend_on_earlier_ones():
    """Worth is how many of the last five decisions repeat the first, and one more if all do."""

    def repeats(archs):
        return [float(choices[1:] == choices[:1] * 5) + sum(c == choices[0] for c in choices[1:]) for choices in archs]

    sampler = ENASSampler(SPACE, learning_rate=0.02, steps=100, aggregate=20, entropy_weight=0.01, reward_scale=1.0)
    for epoch in range(2):
        sampler.epoch_ended(repeats, 0, epoch, 2)
    assert mean(repeats(paths(sampler, 100))) > 4


def test_controller_probabilities_match_what_it_draws():
    controller = Controller((3, 2, 2), temperature=0.5, seed=1)
    archs = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2))
    blocks = controller.log_probs(archs)
    probability = sum(block.gather(1, archs[:, t : t + 1]) for t, block in enumerate(blocks)).exp().squeeze(1)
    assert float(probability.detach().sum()) == pytest.approx(1.0, abs=1e-5)
    assert probability.max() > 1.5 * probability.min()
    n = 20_000
    counts = Counter(map(tuple, controller.sample(n, torch.Generator().manual_seed(0)).tolist()))
    for choices, expected in zip(archs.tolist(), probability.tolist(), strict=True):
        assert abs(counts[tuple(choices)] / n - expected) < 5 * math.sqrt(expected / n)


def test_logits_stay_within_the_tanh_constant():
    controller = Controller((4, 4), temperature=1e-3, tanh_constant=2.5)
    with torch.no_grad():
        blocks = controller.log_probs(torch.zeros(1, 2, dtype=torch.long))
    spread = [float(block.max() - block.min()) for block in blocks]
    assert all(3 < each <= 5.0001 for each in spread)


def test_one_step_is_that_of_the_policy_gradient():
    """The change of the parameters, against a separate computation with plain gradient descent in Adam's place."""
    sampler = ENASSampler(
        SPACE, steps=1, aggregate=6, reward_scale=0.5, baseline_decay=0.8, entropy_weight=0.05, gradient_clip=1e9
    )
    sampler._optimizer = torch.optim.SGD(sampler.controller.parameters(), lr=1.0)
    reference = ENASSampler(SPACE).controller
    asked = []

    def evaluate(archs):
        asked.extend(archs)
        return [0.6 + 0.2 * choices[0] for choices in archs]

    sampler.epoch_ended(evaluate, 0, 0, 1)
    assert len(asked) == 6  # all different, so that the order of drawing is the order of asking
    baseline, loss = None, 0.0
    for choices in asked:
        log_prob, entropy = 0.0, 0.0
        for t, choice in enumerate(choices):
            policy = torch.distributions.Categorical(logits=reference.log_probs(torch.tensor([choices[:t]]).long())[-1])
            log_prob = log_prob + policy.log_prob(torch.tensor(choice))
            entropy = entropy + float(policy.entropy())
        reward = 0.3 + 0.1 * choices[0] + 0.05 * entropy
        baseline = reward if baseline is None else 0.8 * baseline + 0.2 * reward
        loss = loss - log_prob.sum() * (reward - baseline) / 6
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    assert float(sampler.baseline) == pytest.approx(baseline, rel=1e-5)
    with torch.no_grad():
        for old, gradient in zip(reference.parameters(), gradients, strict=True):
            old -= gradient
    torch.testing.assert_close(
        nn.utils.parameters_to_vector(sampler.controller.parameters()),
        nn.utils.parameters_to_vector(reference.parameters()),
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_path_is_a_function_of_seed_step_and_index():
    sampler = ENASSampler(SPACE)
    assert paths(sampler, 30) == paths(sampler, 30) == paths(ENASSampler(SPACE), 30)
    assert len({tuple(paths(sampler, 20, seed)) for seed in range(3)}) == 3
    assert len({tuple(sampler.path(0, step, index).choices for step in range(20)) for index in range(3)}) == 3


def test_nothing_is_evaluated_twice_in_an_epoch():
    asked = []

    def evaluate(archs):
        asked.extend(archs)
        return [1.0] * len(archs)

    space = MaskedSpace()
    sampler = ENASSampler(space, steps=30, aggregate=20)
    sampler.epoch_ended(evaluate, 0, 0, 2)
    assert len(asked) == len(set(asked)) < 600
    assert bool(space.is_valid(torch.tensor(asked)).all())
    everything = len(asked)
    sampler.epoch_ended(evaluate, 0, 1, 2)
    assert len(asked) > everything


def test_stays_within_a_space_that_rules_choices_out():
    space = MaskedSpace()
    drawn = torch.tensor([ENASSampler(space).path(0, step).choices for step in range(100)])
    assert bool(space.is_valid(drawn).all())


def test_says_so_when_nothing_that_it_draws_is_valid():
    class Empty(MaskedSpace):
        def is_valid(self, archs):
            return torch.zeros(archs.shape[:-1], dtype=torch.bool)

    with pytest.raises(RuntimeError, match="100 draws gave 0 valid architectures"):
        ENASSampler(Empty()).path(0, 0)


def test_architectures_that_diverged_are_left_out():
    sampler = ENASSampler(SPACE, **QUICK)
    start = nn.utils.parameters_to_vector(sampler.controller.parameters()).detach().clone()
    sampler.epoch_ended(lambda archs: [math.nan] * len(archs), 0, 0, 2)
    assert torch.equal(nn.utils.parameters_to_vector(sampler.controller.parameters()), start)
    sampler.epoch_ended(lambda archs: [math.nan if choices[0] else 50.0 for choices in archs], 0, 0, 2)
    assert float(sampler.baseline) == pytest.approx(0.5, abs=1e-2)
    assert bool(nn.utils.parameters_to_vector(sampler.controller.parameters()).isfinite().all())


def test_continues_from_a_checkpoint_exactly():
    def ended(sampler, epochs):
        for epoch in epochs:
            sampler.epoch_ended(worth, 0, epoch, 10)
        return sampler

    whole = ended(ENASSampler(SPACE, **QUICK), range(5))
    half = ended(ENASSampler(SPACE, **QUICK), range(3))
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = ENASSampler(SPACE, **QUICK)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    ended(resumed, range(3, 5))
    assert torch.equal(
        nn.utils.parameters_to_vector(resumed.controller.parameters()),
        nn.utils.parameters_to_vector(whole.controller.parameters()),
    )
    assert torch.equal(resumed.baseline, whole.baseline)
    assert resumed.choose(worth, 5, 0) == whole.choose(worth, 5, 0)


def test_leaves_the_global_random_state_alone_and_works_under_inference_mode():
    drawn = []
    for seed, mode in enumerate((torch.enable_grad, torch.inference_mode)):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        sampler = ENASSampler(SPACE, **QUICK)
        with mode():
            sampler.epoch_ended(worth, 0, 0, 2)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(paths(sampler, 20))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(("name", "value"), [("aggregate", 0), ("candidates", 0), ("baseline_decay", 1.0)])
def test_refuses_numbers_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ENASSampler(SPACE, **{name: value})
