import io
import itertools
import math

import pytest
import torch
from torch import nn

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.darts import DARTSSampler, unrolled_gradient
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201
from tests.search.spaces.masked_space import MaskedSpace

SPACE = NASBench201()
SECRET = (3, 1, 4, 0, 2, 3)
FUNCTIONS = (torch.sin, torch.abs, torch.square, torch.sign, lambda x: torch.cos(3 * x))


class Sum(nn.Module):
    """A supernet whose decision ``t`` chooses the function, times a weight, of column ``t`` of the input."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((len(SPACE.sizes), len(FUNCTIONS)), 0.5))

    def forward(self, x, path):
        total = torch.zeros(len(x))
        for t, choices in enumerate(range(5) for _ in SPACE.sizes):
            for choice in choices if path.choices is None else [path.choices[t]]:
                weight = 1 if path.weights is None else path.weights[t][choice]
                total = total + weight * self.scale[t, choice] * FUNCTIONS[choice](x[:, t])
        return total


def batch(seed):
    x = torch.randn(64, len(SECRET), generator=torch.Generator().manual_seed(seed))
    return x, sum(FUNCTIONS[choice](x[:, t]) for t, choice in enumerate(SECRET))


def step_of(network, seed, averaged=None, learning_rate=0.05):
    def loss(x, y):
        return lambda path: nn.functional.mse_loss(network(x, path), y)

    return ArchitectureStep(
        supernet=network,
        train_loss=loss(*batch(2 * seed)),
        held_out_loss=loss(*batch(2 * seed + 1)),
        average=lambda parameters: (
            averaged.append([each.grad.clone() for each in parameters]) if averaged is not None else None
        ),
        seed=0,
        step=seed,
        progress=0.0,
        learning_rate=learning_rate,
    )


def trained(sampler, network, steps):
    """The weights learn from the sampler's paths, the sampler from held-out batches."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for seed in steps:
        step = step_of(network, seed)
        optimizer.zero_grad()
        step.train_loss(sampler.path(0, seed)).backward()
        optimizer.step()
        optimizer.zero_grad()
        sampler.learn(step)
    return sampler


def unneeded(archs):
    raise AssertionError("nothing is to be evaluated")


@pytest.mark.parametrize("order", [1, 2])
def test_finds_the_functions_that_made_the_data(order):
    sampler = trained(DARTSSampler(SPACE, order, learning_rate=0.05), Sum(), range(150))
    chosen = sampler.choose(unneeded, 3, 0)
    assert chosen[0] == SECRET and len(set(chosen)) == 3


@pytest.mark.parametrize("order", [1, 2])
def test_learns_without_touching_weights_or_their_gradients(order):
    network = Sum()
    before = network.scale.detach().clone()
    sampler = DARTSSampler(SPACE, order)
    start = torch.cat(list(sampler.logits)).detach().clone()
    sampler.learn(step_of(network, 0))
    assert torch.equal(network.scale, before) and network.scale.grad is None
    assert not torch.equal(torch.cat(list(sampler.logits)), start)


def expected_gradient(sampler, network, step, order):
    """By differentiating through the step ahead, with torch's own second derivatives."""
    logits = [each.detach().double().requires_grad_() for each in sampler.logits]
    scale = network.scale.detach().double().requires_grad_()
    path = Path(None, tuple(each.softmax(0) for each in logits))

    def loss(scale, x, y):
        terms = [
            path.weights[t][c] * scale[t, c] * FUNCTIONS[c](x[:, t]) for t, c in itertools.product(range(6), range(5))
        ]
        return (sum(terms) - y).square().mean()

    if order == 2:
        (gradient,) = torch.autograd.grad(loss(scale, *map(torch.Tensor.double, batch(0))), scale, create_graph=True)
        scale = scale - 0.5 * gradient
    return torch.autograd.grad(loss(scale, *map(torch.Tensor.double, batch(1))), logits)


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_is_that_of_the_exact_computation(order):
    network, averaged = Sum(), []
    sampler = DARTSSampler(SPACE, order)
    step = step_of(network, 0, averaged, learning_rate=0.5)
    expected = expected_gradient(sampler, network, step, order)
    sampler.learn(step)
    torch.testing.assert_close(torch.cat(averaged[0]).double(), torch.cat(expected), rtol=2e-2, atol=1e-3)
    other = expected_gradient(DARTSSampler(SPACE, order), network, step, 3 - order)
    assert (torch.cat(other) - torch.cat(expected)).norm() > 0.1 * torch.cat(expected).norm()


def test_unrolled_gradient_of_a_quadratic_problem():
    """train = w'Aw/2 + w'Ba and held-out = |w - c|^2/2 + d'a^2: with w' = w - xi (Aw + Ba) the gradient is known.

    It is 2 d * a - xi B'(w' - c); the finite difference is exact, train being linear in w for the logits' gradient.
    """
    generator = torch.Generator().manual_seed(0)
    root, b, c, d, w, a = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in [(4, 4), (4, 3), (4,), (3,), (4,), (3,)]
    )
    matrix, xi = root @ root.T, 0.3
    w.requires_grad_()
    a.requires_grad_()
    before = w.detach().clone()
    (found,) = unrolled_gradient(
        [a],
        [w],
        train_loss=lambda: w @ matrix @ w / 2 + w @ b @ a,
        held_out_loss=lambda: (w - c).square().sum() / 2 + d @ a.square(),
        learning_rate=xi,
    )
    with torch.no_grad():
        ahead = before - xi * (matrix @ before + b @ a)
        torch.testing.assert_close(found, 2 * d * a - xi * b.T @ (ahead - c))
    assert torch.equal(w, before) and w.grad is None and a.grad is None


def test_unrolled_gradient_restores_the_weights_when_a_loss_fails():
    w, a = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)

    def out_of_memory():
        assert not torch.equal(w, torch.ones(2))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        unrolled_gradient([a], [w], lambda: (w * a).sum(), out_of_memory, 0.1)
    assert torch.equal(w, torch.ones(2))


def test_unrolled_gradient_of_a_loss_that_needs_no_weights_is_the_plain_one():
    w, a = torch.ones(2, requires_grad=True), torch.tensor([2.0, 3.0], requires_grad=True)
    (found,) = unrolled_gradient([a], [w], lambda: (w * a).sum(), lambda: a.square().sum(), 0.1)
    assert found.tolist() == [4.0, 6.0]


def test_paths_weigh_every_operation_by_the_softmax():
    sampler = DARTSSampler(SPACE)
    with torch.no_grad():
        sampler.logits[1].copy_(torch.tensor([1.0, 3.0, 0.0, 2.0, -1.0]).log_softmax(0))
    path = sampler.path(0, 5)
    assert path.choices is None and not path.weights[1].requires_grad
    expected = [math.exp(value) for value in (1, 3, 0, 2, -1)]
    assert path.weights[1].tolist() == pytest.approx([value / sum(expected) for value in expected])


def test_a_given_architecture_runs_alone_or_stands_out_a_little():
    assert DARTSSampler(SPACE).path_of(SECRET) == Path(SECRET)
    space = MaskedSpace()  # sizes 3, 4, 5, 3, 2
    path = DARTSSampler(space, soft_one_shot=0.01).path_of((2, 0, 1, 0, 1))
    assert path.choices is None
    assert path.weights[0].tolist() == pytest.approx([1 / 3 - 0.005, 1 / 3 - 0.005, 1 / 3 + 0.01])
    assert path.weights[4].tolist() == pytest.approx([0.49, 0.51])
    assert [float(weights.sum()) for weights in path.weights] == pytest.approx([1.0] * 5)


def test_chooses_by_probability_as_sorting_all_architectures_does():
    space = MaskedSpace()
    sampler = DARTSSampler(space)
    with torch.no_grad():
        for t, logits in enumerate(sampler.logits):
            logits.copy_(torch.randn(len(logits), generator=torch.Generator().manual_seed(t)))

    def log_prob(choices):
        return sum(
            float(logits.detach().double().log_softmax(0)[c]) for logits, c in zip(sampler.logits, choices, strict=True)
        )

    everything = sorted(space.enumerate(), key=lambda choices: -log_prob(choices))
    assert sampler.choose(unneeded, 25, 0) == everything[:25]
    assert sampler.choose(unneeded, 10_000, 0) == everything


def test_runs_a_real_supernet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SPACE.build_supernet(lambda width: nn.BatchNorm2d(width, track_running_stats=False), Head(3), 4, 1)
        images, labels = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(path):
        return nn.functional.cross_entropy(network(images, path), labels)

    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    sampler = DARTSSampler(SPACE, 2, learning_rate=0.1, soft_one_shot=0.01)
    losses = []
    for step in range(5):
        losses.append(float(loss(sampler.path(0, step)).detach()))
        sampler.learn(ArchitectureStep(network, loss, loss, lambda parameters: None, 0, step, 0.0, 1e-3))
    assert losses[-1] < losses[0]
    assert torch.equal(nn.utils.parameters_to_vector(network.parameters()), before)
    assert loss(sampler.path_of(SECRET)).isfinite()


def test_continues_from_a_checkpoint_exactly():
    whole_network, network = Sum(), Sum()
    whole = trained(DARTSSampler(SPACE, 2), whole_network, range(12))
    half = trained(DARTSSampler(SPACE, 2), network, range(7))
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = DARTSSampler(SPACE, 2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    trained(resumed, network, range(7, 12))
    assert torch.equal(torch.cat(list(resumed.logits)), torch.cat(list(whole.logits)))
    assert torch.equal(network.scale, whole_network.scale)


def test_starts_alike_whatever_the_global_random_state():
    starts = []
    for seed in range(2):
        torch.manual_seed(seed)
        starts.append(torch.cat(list(DARTSSampler(SPACE).logits)))
    assert torch.equal(*starts) and starts[0].abs().max() < 1e-2


@pytest.mark.parametrize("settings", [{"order": 3}, {"soft_one_shot": 0.9}, {"soft_one_shot": 0.0}])
def test_refuses_what_makes_no_sense(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        DARTSSampler(SPACE, **settings)
