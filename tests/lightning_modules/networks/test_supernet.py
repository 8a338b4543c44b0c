"""Weight sharing is real: a path computes what the stand-alone network with the same weights computes."""

import copy
import inspect
from functools import partial

import pytest
import torch
from torch import nn

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.cells import Zero
from lightning_modules.networks.choices import DepthChoice, OperationChoice
from lightning_modules.networks.supernet import Path, PathModule
from search.recipes.catalogue import find_classes
from search.spaces.auto_deeplab import AutoDeepLab
from search.spaces.autoformer import AutoFormer
from search.spaces.base import SearchSpace
from search.spaces.cas import CASMultiScale
from search.spaces.depth_fusion import DepthFusion
from search.spaces.fbnet import FBNet
from search.spaces.gdas import GDASCells
from search.spaces.listed import ListedNetworks
from search.spaces.mobile_blocks import MobileBlocks
from search.spaces.module_space import ModuleSpace
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201

SPACES = {
    **{
        name: found
        for name, found in find_classes("search.spaces", SearchSpace).items()
        if found.build_supernet is not SearchSpace.build_supernet
        and not issubclass(found, (GDASCells, ListedNetworks))
        and not found.reads_text
    },
    "CASMultiScale": lambda: CASMultiScale(**CASMultiScale.toy()),
    "DepthFusion of version 2, a cell for each fusion": lambda: DepthFusion(2, synchronised=False),
    "AutoDeepLab": lambda: AutoDeepLab(layers=2, blocks=1),
    "FBNet": lambda: FBNet([1, 2]),  # every kind of layer: the shape changes in it or not
    **{found.__name__: partial(found, **found.toy()) for found in (AutoFormer, MobileBlocks, ModuleSpace)},
}
SMALL = {"num_classes": 3, "channels": 6, "cells": 1, "width": 2}
LARGER = {
    "AutoDeepLab": {"filters": 2, "stem_channels": 4, "head_channels": 4, "decoder": "search"},
    "CASBackbone": {"channels": 2, "stages": 2, "head_channels": 4},
    "CASMultiScale": {"channels": 2, "stages": 2, "head_channels": 8},
    "DARTS": {"cells": 3},
    "FBNet": {"width_multiplier": 0.25, "head_channels": 8},
}
"""With a single cell DARTS would have no normal ones; FBNet says its width in other words.

The spaces of GDAS have DARTS' supernet but for edges and a fixed cell: `tests/search/spaces/test_gdas.py`. Listed
networks have that of their space: `tests/search/spaces/test_listed.py`.
What reads text has tests of its own: `tests/search/spaces/test_recurrent.py`.
"""
_MOST_PATHS = 400


def head_of(name, space):
    known = {*inspect.signature(space.build_supernet).parameters, *(["num_classes"] if space.classifies else [])}
    return {key: value for key, value in SMALL.items() if key in known} | LARGER.get(name, {})


def supernet_of(space, head, affine, seed=0):
    """A small supernet whose normalisation is not at its start, where a scale of 1 would hide a wrong one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = space.build_supernet_from(lambda width: BatchStatistics(width, affine), head)
        for module in supernet.modules():
            if isinstance(module, BatchStatistics) and affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return supernet


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 0])


def loss_of(outputs, labels):
    """Cross-entropy of logits; of maps, how far their means are from the labels."""
    if outputs.ndim == 2:
        return nn.functional.cross_entropy(outputs, labels)
    return (outputs.mean((1, 2, 3)) - labels).square().mean()


def standalone_of(space, head, supernet, choices):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        network = space.build_from(choices, head)
    supernet.hand_down(choices, network)
    return network


def operations_of(supernet):
    """Every module that belongs to a path alone and computes something, by name.

    Convolutions are left out: one whose first channels are used is not called itself. The layer behind it is.
    """
    return {
        f"{prefix}.{name}"
        for prefix, part in supernet.named_modules()
        if isinstance(part, (PathModule, DepthChoice, OperationChoice))
        for name, module in part.named_modules()
        if not list(module.children()) and not isinstance(module, (Zero, nn.Conv2d))
    }


def forced(space):
    """Architectures without end, at first one for each choice of each decision."""
    for t, size in enumerate(space.sizes):
        for choice in range(size):
            for draw in range(50):
                arch = space.draw("forced", t, choice, draw)
                arch = (*arch[:t], choice, *arch[t + 1 :])
                if space.is_valid(torch.tensor(arch)):
                    yield arch
                    break
    for draw in range(_MOST_PATHS):
        yield space.draw("any", draw)


@pytest.mark.parametrize("affine", [False, True], ids=["normalised", "affine"])
@pytest.mark.parametrize("name", SPACES)
def test_every_operation_gives_in_a_path_what_it_gives_alone(name, affine):
    space = SPACES[name]()
    head = head_of(name, space)
    supernet, (images, labels) = supernet_of(space, head, affine), batch()
    names = {module: key for key, module in supernet.named_modules()}
    waiting = operations_of(supernet)
    untaken = {(t, choice) for t, size in enumerate(space.sizes) for choice in range(size)}
    assert waiting
    for module in supernet.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, *_: waiting.discard(names[module]))
    seen = set()
    for arch in forced(space):
        news = {(t, choice) for t, choice in enumerate(arch)} & untaken
        if arch in seen or not (news or waiting):
            continue
        seen.add(arch)
        untaken -= news
        network = standalone_of(space, head, supernet, arch)
        with torch.no_grad():
            shared, alone = supernet(images, Path(arch)), network(images)
        torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)
        losses = [loss_of(outputs, labels) for outputs in (shared, alone)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
        if not untaken and not waiting:
            break
    assert not untaken, f"choices that no path took: {sorted(untaken)}"
    assert not waiting, f"operations that never ran: {sorted(waiting)}"


@pytest.mark.parametrize("name", SPACES)
def test_gradients_are_those_of_the_stand_alone_network_and_reach_nothing_else(name):
    space = SPACES[name]()
    head = head_of(name, space)
    supernet, (images, labels) = supernet_of(space, head, True), batch(1)
    for draw in range(3):
        arch = space.draw("gradient", draw)
        network = standalone_of(space, head, supernet, arch)
        loss_of(network(images), labels).backward()
        supernet.zero_grad(set_to_none=True)
        loss_of(supernet(images, Path(arch)), labels).backward()
        # The gradients take the weights' places, and are handed down as those are.
        gradients = copy.deepcopy(supernet)
        with torch.no_grad():
            for ours, theirs in zip(gradients.parameters(), supernet.parameters(), strict=True):
                ours.copy_(torch.zeros_like(theirs) if theirs.grad is None else theirs.grad)
        handed = gradients.standalone_state(arch)
        total = 0.0
        for key, parameter in network.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(handed[key], expected, rtol=1e-3, atol=1e-5)
            total += float(expected.square().sum())
        assert total > 1e-4
        everything = sum(float(parameter.square().sum().detach()) for parameter in gradients.parameters())
        assert everything == pytest.approx(total, rel=1e-4)


# The weights of Auto-DeepLab's cells belong to edges, not to decisions: see test_auto_deeplab.py. Single paths alone
# decide numbers, such as widths: see choices/test_modules.py.
@pytest.mark.parametrize(
    "name", [name for name in SPACES if name not in ("AutoDeepLab", "AutoFormer", "MobileBlocks", "ModuleSpace")]
)
def test_weights_of_one_change_nothing_and_one_hot_weights_are_the_path(name):
    space = SPACES[name]()
    head = head_of(name, space)
    supernet, (images, _) = supernet_of(space, head, True), batch(2)
    arch = space.draw("weights", 1)
    one_hot = tuple(
        torch.zeros(size).index_fill(0, torch.tensor([choice]), 1.0)
        for size, choice in zip(space.sizes, arch, strict=True)
    )
    with torch.no_grad():
        plain = supernet(images, Path(arch))
        torch.testing.assert_close(supernet(images, Path(arch, one_hot)), plain)
        if not isinstance(space, NASBench101):  # whose channels depend on the edges, so it has no relaxation
            torch.testing.assert_close(supernet(images, Path(None, one_hot)), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("relaxed", [False, True])
def test_a_gradient_reaches_the_weights_of_a_path(relaxed):
    space = NASBench201()
    supernet, (images, _) = supernet_of(space, head_of("NASBench201", space), False).double(), batch(3)
    arch = (3, 2, 3, 1, 4, 3)
    generator = torch.Generator().manual_seed(0)
    weights = tuple(torch.rand(5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(6))

    def output(weights):
        return supernet(images.double(), Path(None if relaxed else arch, weights)).square().sum()

    found = torch.autograd.grad(output(weights), weights)
    for t, choice in [(0, 3), (1, 2), (3, 1), (5, 3), (5, 2)]:
        slopes = []
        for shift in (1e-7, -1e-7):
            moved = [each.detach().clone() for each in weights]
            moved[t][choice] += shift
            slopes.append(float(output(tuple(moved)).detach()))
        expected = (slopes[0] - slopes[1]) / 2e-7
        assert float(found[t][choice]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert (expected != 0) == (relaxed or arch[t] == choice)
    if not relaxed:  # nothing but the chosen operations ran
        for t, gradient in enumerate(found):
            assert gradient.nonzero().flatten().tolist() == [arch[t]]


def test_paths_follow_one_another_without_a_trace():
    space = NASBench201()
    supernet, (images, _) = supernet_of(space, head_of("NASBench201", space), True), batch()
    one, other = space.draw(1), space.draw(2)
    with torch.no_grad():
        first = supernet(images, Path(one))
        assert not torch.allclose(supernet(images, Path(other)), first)
        assert torch.equal(supernet(images, Path(one)), first)


def test_handing_down_copies_and_leaves_running_statistics_alone():
    space = NASBench201()
    head = head_of("NASBench201", space)
    supernet = supernet_of(space, head, False)
    network = standalone_of(space, head, supernet, (3,) * 6)
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in supernet.state_dict().items())
    norm = network.activation[0]
    assert not norm.running_mean.any() and torch.equal(norm.weight, torch.full_like(norm.weight, 2.0))


@pytest.mark.parametrize("wrong", [(2,) * 6, (0,) * 6])
def test_handing_down_to_another_architecture_is_refused(wrong):
    space = NASBench201()
    head = head_of("NASBench201", space)
    network = space.build_from(wrong, head)
    with pytest.raises((ValueError, RuntimeError)):
        supernet_of(space, head, False).hand_down((3,) * 6, network)


@pytest.mark.parametrize("head", [{"channels": 8}, {"num_classes": 5}])
def test_handing_down_to_another_size_is_refused_as_promised(head):
    space = NASBench201()
    small = head_of("NASBench201", space)
    with pytest.raises(ValueError, match="not the stand-alone network"):
        supernet_of(space, small, False).hand_down((3,) * 6, space.build_from((3,) * 6, small | head))


def test_a_path_that_says_nothing_is_refused():
    with pytest.raises(ValueError, match="needs choices, weights, or both"):
        Path(None)


def test_a_space_without_a_supernet_says_so():
    class Plain(SearchSpace):
        name, decisions = "plain", ()

        def build(self, architecture, **head):
            return nn.Identity()

    with pytest.raises(ValueError, match="the space 'plain' has no supernet"):
        Plain().build_supernet(nn.BatchNorm2d)


def test_there_is_a_supernet_for_every_space_of_the_catalogue():
    assert {"NASBench101", "NASBench201", "TransNASBench101Micro", "DARTS", "DepthFusion", "FBNet"} <= set(SPACES)
