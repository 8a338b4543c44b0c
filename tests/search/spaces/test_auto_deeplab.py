"""Auto-DeepLab's space: the published sizes, exactly."""

import itertools
import math

import pytest
import torch

from lightning_modules.networks.auto_deeplab_cells import Block
from lightning_modules.networks.cost.complexity import count_flops, count_parameters
from search.randomness import TrialRandom
from search.spaces.auto_deeplab import PUBLISHED_BLOCKS, AutoDeepLab
from search.spaces.head import Head

SPACE = AutoDeepLab()
SIZES = {20: (10_147_427, 333.25), 32: (21_622_451, 460.93), 48: (44_424_691, 695.03)}
"""Filters: parameters at 19 classes, as an independent program counted them from the authors' code (the paper says
10.15, 21.62 and 44.42 million), and the paper's billions of multiply-adds at 1025x2049 pixels."""


def test_there_are_as_many_paths_and_cells_as_the_paper_says():
    assert len(SPACE.decisions) == 32
    assert SPACE.count_paths() == 75_025  # the 25th Fibonacci number; of eleven moves 28,657, the paper's 2.9e4
    assert AutoDeepLab(layers=11).count_paths() == 28_657
    assert SPACE.count_cells() == 556_627_761_561_600 == math.prod(range(2, 7)) ** 2 * 8**10
    small, moves = AutoDeepLab(layers=5, blocks=1), list(itertools.product(range(2), *[range(3)] * 4))
    valid = small.is_valid(torch.tensor([(*walk, 0, 0, 0, 0) for walk in moves]))
    assert valid.tolist() == [is_walk(walk) for walk in moves] and small.count_paths() == int(valid.sum())


def is_walk(moves):
    level, walk = 0, []
    for move in moves:
        level += 1 - move
        walk.append(level)
    return min(walk) >= 0 and max(walk) <= 3


@pytest.mark.parametrize("filters", SIZES)
def test_the_published_networks_have_their_published_sizes(filters):
    with torch.device("meta"):
        network = SPACE.build(SPACE.published(), filters=filters)
    parameters, billions = SIZES[filters]
    assert count_parameters(network) == parameters
    assert count_flops(network, (3, 1025, 2049)) / 1e9 == pytest.approx(billions, rel=0.06)


def test_the_published_architecture_is_a_point_of_the_space():
    arch = SPACE.published()
    assert SPACE.levels(arch) == [0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1]
    assert SPACE.cell(arch) == PUBLISHED_BLOCKS
    text = SPACE.format(arch)
    assert SPACE.parse(text) == arch and "block 1 first operation=atrous_conv_5x5" in text
    assert AutoDeepLab(5, 2).levels(AutoDeepLab(5, 2).published()) == [0, 0, 0, 1, 2]


def test_logits_have_the_size_of_the_images_and_of_the_classes():
    images = torch.randn(2, 1, 37, 50, generator=torch.Generator().manual_seed(0))
    small = {"filters": 2, "stem_channels": 3, "head_channels": 4}
    for classes, maps in ((7, 7), (0, 1), (None, 19)):
        assert SPACE.build(SPACE.published(), Head(classes, 1), **small)(images).shape == (2, maps, 37, 50)


def test_moves_beyond_the_trellis_are_refused():
    with pytest.raises(ValueError, match=r"decision 'cell 2' of .* is 2, allowed: \[0, 1\]"):
        SPACE.check((1, 2, *SPACE.published()[2:]))
    with pytest.raises(ValueError, match="no move leads from level 0 to level 2"):
        SPACE.from_levels([2] * 12, PUBLISHED_BLOCKS)
    with pytest.raises(ValueError, match="levels are"):
        SPACE.from_levels([4] * 12, PUBLISHED_BLOCKS)
    with pytest.raises(ValueError, match="blocks 6"):
        AutoDeepLab(blocks=6)
    with pytest.raises(ValueError, match="decoder is 'fcn', allowed: deeplabv3plus, search"):
        SPACE.build(SPACE.published(), decoder="fcn")


def test_equal_cells_have_one_canonical_form_and_compute_the_same():
    space = AutoDeepLab(layers=2, blocks=2)
    one = space.from_levels([0, 1], [Block((1, 0), (4, 3)), Block((2, 1), (1, 0))])
    other = space.from_levels([0, 1], [Block((0, 1), (3, 4)), Block((0, 2), (0, 1))])
    canonical = space.canonical(torch.tensor([one, other]))
    assert canonical.tolist() == [list(other)] * 2
    archs = space.sample(TrialRandom(0), 200)[0]
    assert torch.equal(space.canonical(space.canonical(archs)), space.canonical(archs))
    assert space.is_valid(space.canonical(archs)).all()
    small = {"filters": 2, "stem_channels": 3, "head_channels": 4}
    networks = [space.build(arch, Head(3), **small).eval() for arch in (one, other)]
    state, moved = networks[0].state_dict(), {}
    for key, value in state.items():  # the two operations of a block in the other order
        for a, b in ((0, 1), (1, 0), (2, 3), (3, 2)):
            if f".operations.{a}." in key:
                moved[key.replace(f".operations.{a}.", f".operations.{b}.")] = value
                break
        else:
            moved[key] = value
    networks[1].load_state_dict(moved)
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(networks[0](images), networks[1](images))


def test_the_drawing_stands_on_a_trellis():
    space = AutoDeepLab(layers=3, blocks=2)
    arch = space.from_levels([0, 1, 2], [Block((0, 1), (4, 0)), Block((2, 2), (1, 3))])
    edges = [(edge.source, edge.target, edge.label) for edge in space.diagram(arch)]
    assert edges[:3] == [("stem", "1 /4", "same"), ("1 /4", "2 /8", "down"), ("2 /8", "3 /16", "down")]
    assert edges[3:6] == [
        ("last", "block 1", "sep_conv_3x3"),
        ("block 1", "block 2", "max_pool_3x3"),
        ("block 1", "block 2", "skip"),
    ]
    places = space.places()
    assert {end for source, target, _ in edges for end in (source, target)} <= set(places)
    assert [places[node] for node in ("stem", "1 /4", "2 /8", "3 /16")] == [(0, 0), (1, 0), (2, 1), (3, 2)]
    assert len(set(places.values())) == len(places)
