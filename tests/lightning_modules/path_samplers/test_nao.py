import io
import math
from statistics import mean

import pytest
import torch

from lightning_modules.path_samplers.nao import NAOSampler
from lightning_modules.path_samplers.uniform import UniformSampler
from search.spaces.nasbench201 import NASBench201
from tests.search.spaces.masked_space import MaskedSpace

SPACE = NASBench201()
SECRET = (3, 1, 4, 0, 2, 3)
QUICK = {"predictor_epochs": 3, "seed_architectures": 20, "new": 10, "keep": 8, "random": 12}


def distance(choices):
    return sum(a != b for a, b in zip(choices, SECRET, strict=True))


class Evaluator:
    """Worth falls with every decision that differs from the secret; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, archs):
        self.asked.append(list(archs))
        return [-float(distance(choices)) for choices in archs]


def paths(sampler, steps=200, seed=0):
    return [sampler.path(seed, step).choices for step in range(steps)]


def test_finds_a_secret_that_it_was_never_shown():
    evaluate = Evaluator()
    quick = {"predictor_epochs": 100, "learning_rate": 3e-3}
    sampler = NAOSampler(SPACE, warmup=1, every=1, seed_architectures=50, new=60, keep=60, random=140, **quick)
    sampler.epoch_ended(evaluate, seed=0, epoch=0, epochs=3)
    (first,) = evaluate.asked
    new = sampler.pool[60 : 120 - sampler.topped_up]
    assert len(new) > 20 and SECRET not in first and not set(new) & set(first)
    assert mean(map(distance, first)) > 4.5  # of 6: what chance gives is 4.8
    assert mean(map(distance, new)) < 3.8
    sampler.epoch_ended(evaluate, seed=0, epoch=1, epochs=3)
    best = sampler.choose(evaluate, 10, seed=0)
    assert best[0] == SECRET
    assert len(set(best)) == 10 and [distance(each) for each in best] == sorted(distance(each) for each in best)
    assert max(map(distance, best)) <= 2


def test_warms_up_as_uniform_paths_do():
    sampler, uniform = NAOSampler(SPACE, warmup=5, **QUICK), UniformSampler(SPACE)
    for epoch in range(4):
        sampler.epoch_ended(Evaluator(), 0, epoch, 100)
    assert not sampler.pool
    assert paths(sampler) == paths(uniform)


def test_renews_when_warm_up_ends_and_then_regularly_but_not_at_the_end():
    renewed = []
    sampler = NAOSampler(SPACE, warmup=4, every=3, **QUICK)
    for epoch in range(13):
        evaluate = Evaluator()
        sampler.epoch_ended(evaluate, 0, epoch, 13)
        if evaluate.asked:
            renewed.append(epoch + 1)
    assert renewed == [4, 7, 10]


def test_draws_from_a_pool_of_the_best_the_new_and_random_ones():
    evaluate = Evaluator()
    sampler = NAOSampler(SPACE, warmup=1, **QUICK)
    sampler.epoch_ended(evaluate, 0, 0, 10)
    (first,) = evaluate.asked
    assert len(set(first)) == 32
    pool = sampler.pool
    assert len(set(pool)) == len(pool) == 8 + 10 + 12
    assert list(pool[:8]) == sorted(first, key=distance)[:8]
    new = pool[8 : 18 - sampler.topped_up]
    assert not set(new) & set(first)
    drawn = paths(sampler, 1000)
    assert set(drawn) == set(pool)
    counts = [drawn.count(choices) for choices in pool]
    assert max(counts) < 70  # 1000 / 30 each, with a standard deviation of 5.7


def test_the_path_is_a_function_of_seed_step_and_index():
    sampler = NAOSampler(SPACE, warmup=1, **QUICK)
    sampler.epoch_ended(Evaluator(), 0, 0, 10)
    assert paths(sampler) == paths(sampler)
    assert len({tuple(paths(sampler, 20, seed)) for seed in range(3)}) == 3
    assert len({tuple(sampler.path(0, step, index).choices for step in range(20)) for index in range(3)}) == 3


def test_random_ones_stand_in_where_too_few_new_are_decoded():
    settings = QUICK | {"new": 40, "seed_architectures": 2}
    sampler = NAOSampler(SPACE, warmup=1, step_sizes=1, **settings)
    sampler.epoch_ended(Evaluator(), 0, 0, 10)
    assert 38 <= sampler.topped_up <= 40  # one step from two architectures gives two at most
    assert len(set(sampler.pool)) == 8 + 40 + 12


def test_stays_within_a_space_that_rules_choices_out():
    space = MaskedSpace()
    sampler = NAOSampler(space, warmup=1, every=1, **(QUICK | {"predictor_epochs": 30}))
    for epoch in range(2):
        sampler.epoch_ended(lambda archs: [float(sum(choices)) for choices in archs], 0, epoch, 10)
    assert bool(space.is_valid(torch.tensor(sampler.pool)).all())
    chosen = sampler.choose(lambda archs: [float(sum(choices)) for choices in archs], 5, 0)
    assert bool(space.is_valid(torch.tensor(chosen)).all())


def test_choosing_evaluates_twice_and_nothing_twice():
    evaluate = Evaluator()
    sampler = NAOSampler(SPACE, warmup=1, **QUICK)
    sampler.epoch_ended(Evaluator(), 0, 0, 10)
    assert len(sampler.choose(evaluate, 5, 0)) == 5
    pool, new = evaluate.asked
    assert pool == list(sampler.pool) and len(new) <= 10 and not set(pool) & set(new)


def test_can_choose_before_there_is_a_pool():
    best = NAOSampler(SPACE, **QUICK).choose(Evaluator(), 3, 0)
    assert len(best) == 3 and distance(best[0]) <= distance(best[2]) < 5


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_architectures_that_diverged_come_last_and_teach_nothing(bad):
    def evaluate(archs):
        return [bad if choices[0] == 3 else -float(distance(choices)) for choices in archs]

    sampler = NAOSampler(SPACE, warmup=1, **QUICK)
    sampler.epoch_ended(evaluate, 0, 0, 10)
    assert all(choices[0] != 3 for choices in sampler.pool[:8])
    assert sampler.topped_up < 10
    hopeless = NAOSampler(SPACE, warmup=1, **QUICK)
    hopeless.epoch_ended(lambda archs: [bad] * len(archs), 0, 0, 10)
    assert hopeless.topped_up == 10 and len(hopeless.pool) == 30


def test_continues_from_a_checkpoint_exactly():
    def ended(sampler, epochs):
        for epoch in epochs:
            sampler.epoch_ended(Evaluator(), 0, epoch, 10)
        return sampler

    whole = ended(NAOSampler(SPACE, warmup=2, every=2, **QUICK), range(6))
    half = ended(NAOSampler(SPACE, warmup=2, every=2, **QUICK), range(3))
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = NAOSampler(SPACE, warmup=2, every=2, **QUICK)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.pool == half.pool != ()
    ended(resumed, range(3, 6))
    assert resumed.pool == whole.pool != half.pool
    assert paths(resumed) == paths(whole)
    assert resumed.choose(Evaluator(), 5, 0) == whole.choose(Evaluator(), 5, 0)


def test_a_checkpoint_of_the_warm_up_has_an_empty_pool():
    resumed = NAOSampler(SPACE, **QUICK)
    resumed.load_state_dict(NAOSampler(SPACE, **QUICK).state_dict())
    assert resumed.pool == ()


def test_leaves_the_global_random_state_alone_and_works_under_inference_mode():
    pools = []
    for mode in (torch.enable_grad, torch.inference_mode):
        before = torch.get_rng_state()
        sampler = NAOSampler(SPACE, warmup=1, **QUICK)
        with mode():
            sampler.epoch_ended(Evaluator(), 0, 0, 10)
        assert torch.equal(torch.get_rng_state(), before)
        pools.append(sampler.pool)
    assert pools[0] == pools[1] != ()


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("keep", 0), ("new", -1), ("trade_off", 1.5)])
def test_refuses_numbers_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        NAOSampler(SPACE, **{name: value})
