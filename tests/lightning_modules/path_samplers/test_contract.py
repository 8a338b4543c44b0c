"""What every path sampler promises. A new sampler is covered the moment its file exists."""

import io
import math
import zlib

import pytest
import torch
from torch import nn

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.path_samplers.base import ArchitectureStep, PathSampler, best_first, best_of, distinct
from search.recipes.catalogue import find_classes
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201
from tests.search.spaces.masked_space import MaskedSpace

SAMPLERS = find_classes("lightning_modules.path_samplers", PathSampler)
QUICK = {
    "UniformSampler": {"population": 8, "tournament": 3, "budget": 30},
    "RandomNASSampler": {"candidates": 30},
    "GumbelSampler": {"learning_rate": 0.5, "candidates": 200},
    "DARTSSampler": {"learning_rate": 0.5, "order": 2},
    "SETNSampler": {"learning_rate": 0.5, "candidates": 20},
    "ENASSampler": {"learning_rate": 0.1, "steps": 3, "aggregate": 6, "candidates": 30},
    "NAOSampler": {
        **{"warmup": 1, "every": 1, "seed_architectures": 4, "new": 6, "keep": 6, "random": 10},
        **{"step_sizes": 3, "predictor_epochs": 3, "hidden": 4, "embedding": 4, "predictor_width": 4},
    },
}
OWN_ORDER = {"DARTSSampler"}
"""Those that choose by probability and do not ask what an architecture is worth."""
RELAXED = {"DARTSSampler"}
"""Those whose path is the same at every step: all operations."""
SPACES = {"NASBench201": NASBench201(), "MaskedSpace": MaskedSpace()}
EPOCHS, STEPS = 6, 3


def make(name, space):
    return SAMPLERS[name](space, **QUICK.get(name, {}))


def worth(archs):
    """A number in [0, 1) for each architecture, the same on every machine, in no order of theirs."""
    return [zlib.crc32(bytes(arch)) / 2**32 for arch in archs]


class Weights(nn.Module):
    """Shared weights of any space: a path's output is the sum of its choices' weights."""

    def __init__(self, space):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.scale = nn.ParameterList(torch.randn(size, generator=generator) for size in space.sizes)

    def forward(self, images, path):
        total = images.mean()
        for t, scale in enumerate(self.scale):
            if path.choices is None:
                total = total + (path.weights[t] * scale.tanh()).sum()
            else:
                weight = 1.0 if path.weights is None else path.weights[t][path.choices[t]]
                total = total + weight * scale[path.choices[t]].tanh()
        return total


class Training:
    """Shared weights and a sampler that learn side by side, and everything that was seen of them."""

    def __init__(self, name, space):
        self.space, self.network, self.sampler, self.seen = space, Weights(space), make(name, space), []

    def loss(self, seed):
        image = torch.randn(2, generator=torch.Generator().manual_seed(seed))
        return lambda path: (self.network(image, path) - 1).square()

    def evaluate(self, archs):
        with torch.no_grad():
            losses = [float(self.loss(999)(self.sampler.path_of(arch))) for arch in archs]
        return [1 / (1 + each) for each in losses]

    def run(self, epochs):
        for epoch in epochs:
            for step in range(epoch * STEPS, (epoch + 1) * STEPS):
                path = self.sampler.path(5, step)
                self.seen.append(path.choices or torch.cat(path.weights).tolist())
                self.network.zero_grad()
                train, held_out = self.loss(2 * step), self.loss(2 * step + 1)
                train(path).backward()
                with torch.no_grad():
                    for parameter in self.network.parameters():
                        parameter -= 0.0 if parameter.grad is None else 0.1 * parameter.grad
                self.sampler.learn(
                    ArchitectureStep(
                        *(self.network, train, held_out, lambda parameters: None),
                        *(5, step, step / (EPOCHS * STEPS), 0.1),
                    )
                )
            self.sampler.epoch_ended(self.evaluate, 5, epoch, EPOCHS)
        return self


@pytest.fixture(params=SAMPLERS)
def name(request):
    return request.param


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


def test_there_are_samplers():
    assert set(QUICK) <= set(SAMPLERS)


def same(one, other):
    if one.choices is not None or other.choices is not None:
        return one.choices == other.choices
    return all(torch.equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))


def test_a_path_is_a_pure_function_of_seed_step_and_index(name, space):
    sampler = make(name, space)
    keys = [(seed, step, index) for seed in (0, 2**31 - 1) for step in (0, 1, 99) for index in (0, 1, 7)]
    first = {key: sampler.path(*key) for key in keys}
    torch.manual_seed(4)
    other = make(name, space)
    for key in reversed(keys):
        assert same(sampler.path(*key), first[key]) and same(other.path(*key), first[key])


def test_drawing_and_choosing_leave_the_global_random_state_and_the_sampler_alone(name, space):
    sampler = make(name, space)
    state, before = torch.get_rng_state(), io.BytesIO()
    torch.save(sampler.state_dict(), before)
    sampler.path(1, 2)
    sampler.choose(worth, 3, 0)
    after = io.BytesIO()
    torch.save(sampler.state_dict(), after)
    assert torch.equal(torch.get_rng_state(), state) and before.getvalue() == after.getvalue()


def test_different_steps_indices_and_seeds_give_different_paths(name, space):
    sampler = make(name, space)
    paths = [sampler.path(0, step) for step in range(60)]
    if name in RELAXED:
        assert all(path.choices is None and same(path, paths[0]) for path in paths)
        return
    for others in (paths, [sampler.path(0, 0, k) for k in range(60)], [sampler.path(k, 0) for k in range(60)]):
        assert len({path.choices for path in others}) > 35


def test_paths_are_valid_at_the_start_and_after_learning(name, space):
    training = Training(name, space)
    for epochs in (range(0), range(3)):
        sampler = training.run(epochs).sampler
        for step in range(100, 140):
            path = sampler.path(0, step)
            if path.choices is not None:
                assert space.check(path.choices) == path.choices
            if path.weights is not None:
                assert [len(each) for each in path.weights] == list(space.sizes)
                assert all(float(each.sum()) == pytest.approx(1) for each in path.weights)


def test_a_real_supernet_runs_every_path(name):
    space = SPACES["NASBench201"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = space.build_supernet(lambda width: BatchStatistics(width), Head(3), 4, 1)
        images = torch.randn(4, 3, 8, 8)
    sampler = make(name, space)
    for path in [sampler.path(0, 0), sampler.path(0, 1), sampler.path_of((3, 1, 2, 0, 4, 3))]:
        assert network(images, path).isfinite().all()


def test_chooses_different_valid_architectures_best_first(name, space):
    sampler = Training(name, space).run(range(2)).sampler
    asked = {}

    def evaluate(archs):
        asked.update(zip(archs, worth(archs), strict=True))
        return worth(archs)

    for count in (1, 4, 9):
        chosen = sampler.choose(evaluate, count, 3)
        assert len(set(chosen)) == len(chosen) <= count
        assert all(space.check(arch) == arch and type(arch) is tuple for arch in chosen)
        assert len(chosen) == count  # all of them have so many to offer here
        if name in OWN_ORDER:
            assert not asked
        else:
            assert worth(chosen) == sorted(worth(chosen), reverse=True) and set(chosen) <= set(asked)
            assert max(asked.values()) == worth(chosen)[0]
    assert sampler.choose(evaluate, 4, 3) == sampler.choose(evaluate, 4, 3)


def test_never_evaluates_an_architecture_twice_in_one_choice(name, space):
    sampler, asked = Training(name, space).run(range(2)).sampler, []

    def evaluate(archs):
        asked.extend(archs)
        return worth(archs)

    sampler.choose(evaluate, 5, 1)
    assert len(set(asked)) == len(asked)


def test_continues_from_a_checkpoint_exactly(name, space):
    whole = Training(name, space).run(range(EPOCHS))
    half = Training(name, space).run(range(4))
    file = io.BytesIO()
    torch.save([half.network.state_dict(), half.sampler.state_dict()], file)
    half.run(range(4, EPOCHS))  # what is saved must not change with what it was saved from
    file.seek(0)
    resumed = Training(name, space)
    weights, state = torch.load(file, weights_only=True)
    resumed.network.load_state_dict(weights)
    resumed.sampler.load_state_dict(state)
    resumed.run(range(4, EPOCHS))
    assert resumed.seen == half.seen[4 * STEPS :] == whole.seen[4 * STEPS :]
    assert all(torch.equal(a, b) for a, b in zip(resumed.network.scale, whole.network.scale, strict=True))
    chosen = [each.sampler.choose(each.evaluate, 5, 2) for each in (whole, resumed)]
    assert chosen[0] == chosen[1]


def test_two_trainings_agree_and_learning_has_an_effect(name, space):
    one, other = (Training(name, space).run(range(3)) for _ in range(2))
    assert one.seen == other.seen
    states = [io.BytesIO() for _ in range(3)]
    for each, file in zip((one.sampler, other.sampler, make(name, space)), states, strict=True):
        torch.save(each.state_dict(), file)
    assert states[0].getvalue() == states[1].getvalue()
    if make(name, space).state_dict():  # a sampler with a state changes it
        assert states[0].getvalue() != states[2].getvalue()


def test_worth_that_is_not_a_number_stops_nothing(name, space):
    sampler = make(name, space)

    def diverged(archs):
        return [math.nan for _ in archs]

    sampler.epoch_ended(diverged, 0, 2, EPOCHS)
    chosen = sampler.choose(diverged, 3, 0)
    assert len(set(chosen)) == len(chosen) == 3 and all(space.check(arch) for arch in chosen)


def test_a_masked_space_is_never_exhausted_into_an_endless_loop(name):
    space = SPACES["MaskedSpace"]
    everything = set(space.enumerate())
    chosen = make(name, space).choose(worth, len(everything) + 50, 0)
    assert set(chosen) <= everything and len(set(chosen)) == len(chosen)


# ---- what samplers share ---------------------------------------------------------------------------------------------


def test_distinct_draws_are_different_and_bounded():
    space = SPACES["MaskedSpace"]
    everything = set(space.enumerate())
    found = distinct(space, 40, "some", 3)
    assert len(set(found)) == len(found) == 40 and set(found) <= everything
    assert distinct(space, 60, "some", 3)[:40] == found != distinct(space, 40, "some", 4)
    assert set(distinct(space, len(everything) + 20, 0)) <= everything


def test_best_first_puts_what_has_no_worth_last():
    known = {(0,): 1.0, (1,): math.nan, (2,): 3.0, (3,): -math.inf, (4,): 3.0}
    assert best_first(known) == [(2,), (4,), (0,), (3,), (1,)]
    assert best_of(list(known), lambda archs: [known[arch] for arch in archs]) == best_first(known)
