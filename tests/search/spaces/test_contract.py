"""What every search space promises. A new space is covered the moment its file exists."""

import functools
import itertools
import math
from collections import Counter

import pytest
import torch
from scipy import stats

from search.randomness import TrialRandom
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace
from search.spaces.head import Head

from .masked_space import LENGTHS, LIMITS, MaskedSpace

SPACES = {**find_classes("search.spaces", SearchSpace), "MaskedSpace": MaskedSpace}
NARROWER = {"residual_backbone": {"width": 0.125}}
"""Networks of that space have up to hundreds of millions of weights."""
SMALLEST = {
    "darts": {"channels": 4, "cells": 3},
    "nasbench101": {"channels": 8, "cells": 1},
    "residual_backbone": {"width": 0.125},
    "depth_fusion_v1_sync": {"channels": 8},
}
"""Where the size of a network doesn't matter."""
ENUMERABLE = 50_000
"""Larger spaces are looked at through samples instead of one by one."""


@functools.cache
def space_of(name):
    return SPACES[name]()


def build(space, arch):
    return space.build(tuple(arch), head_of(space), **NARROWER.get(space.name, {}))


def head_of(space):
    return Head(7 if space.classifies else 0)


def is_small(space):
    return math.prod(space.sizes) <= ENUMERABLE


@functools.cache
def everything(name):
    return list(space_of(name).enumerate())


def some(space, n=500):
    return space.sample(TrialRandom(11), n)[0]


def valid_after(space, prefix):
    """The next choices, asked from the space one prefix at a time."""
    return {k for k, good in enumerate(space.valid_choices(torch.tensor(prefix, dtype=torch.long)).tolist()) if good}


@pytest.fixture(params=SPACES)
def space(request):
    return space_of(request.param)


@pytest.fixture(params=[name for name in SPACES if is_small(space_of(name))])
def small(request):
    return space_of(request.param), everything(request.param)


def test_there_are_spaces_and_they_have_names():
    assert {"NASBench201", "TransNASBench101Micro", "MaskedSpace"} <= set(SPACES)
    names = [space_of(name).name for name in SPACES]
    assert len(set(names)) == len(names) and all(name == name.lower() for name in names)


def test_decisions_have_different_names_and_different_choices(space):
    assert len({decision.name for decision in space.decisions}) == len(space.decisions)
    for decision in space.decisions:
        assert len(set(decision.choices)) == len(decision.choices) > 0


def test_the_masked_space_is_what_a_triple_loop_gives():
    valid = [
        (width, *(length - 1 for length in lengths), activation)
        for width in range(3)
        for lengths in itertools.product(*(range(1, most + 1) for most in LENGTHS))
        for activation in range(2)
        if sum(lengths) <= LIMITS[width]
    ]
    assert everything("MaskedSpace") == valid
    assert 100 <= len(valid) < math.prod(space_of("MaskedSpace").sizes)


def test_enumerate_is_the_sorted_set_of_valid_architectures(small):
    space, architectures = small
    product = list(itertools.product(*(range(size) for size in space.sizes)))
    valid = space.is_valid(torch.tensor(product)).tolist()
    assert architectures == [arch for arch, good in zip(product, valid, strict=True) if good]


def test_is_valid_refuses_choices_out_of_range(space):
    archs = some(space, 20)
    assert space.is_valid(archs).all()
    for t, size in enumerate(space.sizes):
        for wrong in (-1, size):
            broken = archs.clone()
            broken[:, t] = wrong
            assert not space.is_valid(broken).any()


def test_every_code_is_its_own(small):
    space, architectures = small
    codes = space.code(torch.tensor(architectures)).tolist()
    product = list(itertools.product(*(range(size) for size in space.sizes)))
    assert [product[code] for code in codes] == architectures  # the place in lexicographic order of all combinations


# ---- random architectures --------------------------------------------------------------------------------------------


def test_samples_are_valid_and_a_function_of_the_seed(space):
    together = space.sample(TrialRandom(5, trials=3), 40)
    assert together.shape == (3, 40, len(space.decisions)) and together.dtype == torch.long
    assert space.is_valid(together).all()
    for trial in range(3):
        assert torch.equal(space.sample(TrialRandom(5 + trial), 40)[0], together[trial])
    assert not torch.equal(together[0], together[1])


def test_sampled_choices_are_uniform_given_what_came_before(space):
    archs = space.sample(TrialRandom(3), 6000)[0]
    for t in range(len(space.sizes)):
        # The most frequent prefix has the most to say about a masked space.
        prefix = Counter(map(tuple, archs[:, :t].tolist())).most_common(1)[0][0]
        allowed = sorted(valid_after(space, prefix))
        chosen = archs[(archs[:, :t] == torch.tensor(prefix, dtype=torch.long)).all(1), t]
        seen = [int((chosen == k).sum()) for k in allowed]
        assert sum(seen) == len(chosen)
        assert len(allowed) == 1 or stats.chisquare(seen).pvalue > 1e-4


def test_mutants_are_valid_different_and_a_function_of_the_seed(space):
    archs = space.sample(TrialRandom(5, trials=3), 200)
    mutants = space.mutate(archs, TrialRandom(9, trials=3))
    assert mutants.shape == archs.shape and space.is_valid(mutants).all()
    assert (space.distance(archs, mutants) >= 1).all()
    unmasked = is_small(space) and len(list(space.enumerate())) == math.prod(space.sizes)
    if unmasked:
        assert (space.distance(archs, mutants) == 1).all()
    for trial in range(3):
        assert torch.equal(space.mutate(archs[trial : trial + 1], TrialRandom(9 + trial))[0], mutants[trial])


def test_a_mutation_hits_every_free_decision_equally_and_draws_equally_from_the_others(space):
    for arch in some(space, 3):
        parent = tuple(arch.tolist())
        others = [valid_after(space, parent[:t]) - {choice} for t, choice in enumerate(parent)]
        free = [t for t, choices in enumerate(others) if choices]
        mutants = space.mutate(arch.expand(1, 8000, -1), TrialRandom(21))[0]
        # A mask may force later decisions to follow, so the mutated decision is the first that differs.
        position = (mutants != arch).long().argmax(-1)
        seen = position.bincount(minlength=len(parent))
        assert set(seen.nonzero().flatten().tolist()) == set(free)
        assert stats.chisquare(seen[free].numpy()).pvalue > 1e-4
        for t in free:
            chosen = mutants[position == t, t].tolist()
            counts = [chosen.count(k) for k in others[t]]
            assert sum(counts) == len(chosen)
            assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-4


def test_a_mutation_keeps_every_later_decision_that_may_stay(space):
    archs = some(space, 300)
    mutants = space.mutate(archs.unsqueeze(0), TrialRandom(2))[0]
    for old, new in zip(archs.tolist(), mutants.tolist(), strict=True):
        first = next(t for t in range(len(old)) if old[t] != new[t])
        for t in range(first + 1, len(old)):
            assert new[t] == old[t] or old[t] not in valid_after(space, new[:t])


def test_neighbours_are_all_architectures_one_decision_away(small):
    space, architectures = small
    archs = some(space, 5)
    found, valid = space.neighbours(archs)
    assert found.shape == (5, sum(space.sizes) - len(space.sizes), len(space.sizes)) and valid.shape == found.shape[:2]
    for arch, neighbours, good in zip(archs.tolist(), found, valid, strict=True):
        kept = [tuple(neighbour) for neighbour in neighbours[good].tolist()]
        expected = {other for other in architectures if sum(a != b for a, b in zip(arch, other, strict=True)) == 1}
        assert len(kept) == len(set(kept)) and set(kept) == expected
    again, still_valid = space.neighbours(archs)
    assert torch.equal(found, again) and torch.equal(valid, still_valid)


# ---- encodings -------------------------------------------------------------------------------------------------------


def test_one_hot_is_a_naive_loop(space):
    archs = some(space, 30)
    for length in (len(space.sizes), len(space.sizes) // 2, 0):
        code = space.one_hot(archs[:, :length])
        assert code.dtype == torch.float32
        for row, arch in zip(code.tolist(), archs.tolist(), strict=True):
            expected = []
            for t, size in enumerate(space.sizes):
                expected += [1.0 if t < length and arch[t] == k else 0.0 for k in range(size)]
            assert row == expected


def test_distance_counts_differing_decisions(space):
    a, b = some(space, 60).reshape(2, 30, -1)
    expected = [sum(x != y for x, y in zip(p, q, strict=True)) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert space.distance(a, b).tolist() == expected
    assert space.distance(a, a).sum() == 0


def test_strings_are_read_back_and_differ(space):
    architectures = {tuple(arch) for arch in some(space).tolist()}
    texts = {space.format(arch): arch for arch in architectures}
    assert len(texts) == len(architectures)
    for text, arch in texts.items():
        assert space.parse(text) == arch


@pytest.mark.parametrize(
    "damage", [lambda text: "", lambda text: text[:-1], lambda text: text + "|x", lambda text: "?" + text[1:]]
)
def test_a_damaged_string_is_refused_with_the_name_of_the_space(space, damage):
    text = space.format(tuple(some(space, 1)[0].tolist()))
    with pytest.raises(ValueError, match=space.name):
        space.parse(damage(text))


def test_check_names_the_decision_that_is_wrong(space):
    arch = some(space, 1)[0].tolist()
    assert space.check(arch) == tuple(arch)
    for t, decision in enumerate(space.decisions):
        for wrong in (-1, space.sizes[t]):
            with pytest.raises(ValueError, match=f"'{decision.name}'.* is {wrong}, allowed: "):
                space.check([*arch[:t], wrong, *arch[t + 1 :]])
    with pytest.raises(ValueError, match=f"{len(arch) - 1} decisions, {len(arch)} are needed"):
        space.check(arch[:-1])


def test_check_refuses_what_the_mask_rules_out():
    space = space_of("MaskedSpace")
    with pytest.raises(ValueError, match=r"'length 2' of \(2, 1, 3, 0, 0\) is 3, allowed: \[0, 1\]"):
        space.check((2, 1, 3, 0, 0))  # 2 + 4 blocks, and another to come, where 5 are allowed


def test_the_diagram_joins_named_nodes(space):
    for arch in some(space, 20).tolist():
        for edge in space.diagram(tuple(arch)):
            assert edge.source != edge.target and edge.label


# ---- networks --------------------------------------------------------------------------------------------------------


def test_an_example_has_the_channels_that_are_asked_for(space):
    for channels in (1, 3):
        images = space.example_input(Head(in_channels=channels))
        assert images.ndim == 4 and images.shape[1] == channels


def test_networks_take_the_example_and_learn(space):
    archs = [*some(space, 3).tolist(), [size - 1 for size in space.sizes], [0] * len(space.sizes)]
    for arch in filter(lambda arch: space.is_valid(torch.tensor(arch)), archs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            network = build(space, arch)
            images = torch.randn_like(space.example_input(head_of(space)))
        assert len(images) > 1 and images.dtype == torch.float32
        outputs = network(images)
        assert len(outputs) == len(images) and outputs.isfinite().all()
        if space.classifies:
            assert outputs.shape == (len(images), 7)
            torch.nn.functional.cross_entropy(outputs, torch.arange(len(images)) % 7).backward()
        else:
            outputs.square().mean().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


@pytest.mark.parametrize("name", [name for name in SPACES if name != "MaskedSpace"])
def test_images_of_every_size_are_taken_by_a_network_or_refused_in_words(name):
    space = space_of(name)
    for arch in some(space, 2).tolist():
        network = space.build(tuple(arch), **SMALLEST.get(space.name, {})).eval()
        for size in (8, 10, 15, 18, 30, 33, 50):
            images = torch.zeros(1, 3, size, size + 5)
            if space.name.startswith("depth_fusion"):
                with pytest.raises(ValueError, match=f"images are {size}x{size + 5} pixels, both must be divisible"):
                    network(images)
            else:
                assert network(images).isfinite().all()


def test_a_network_is_a_function_of_the_random_state(space):
    arch = tuple(some(space, 1)[0].tolist())
    built = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built.append(build(space, arch).state_dict())
    assert all(torch.equal(built[0][key], built[1][key]) for key in built[0])
    assert not all(torch.equal(built[0][key], built[2][key]) for key in built[0])


def test_a_wrong_architecture_is_not_built(space):
    with pytest.raises(ValueError, match=space.name):
        space.build((99,) * len(space.decisions))
