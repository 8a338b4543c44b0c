"""Auto-DeepLab's supernet: what a path computes, what all of them together do, and how often."""

from collections import Counter

import pytest
import torch
from torch import nn

from lightning_modules.networks.auto_deeplab_cells import Block, Cell
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.drop_path import set_drop_path
from lightning_modules.networks.supernet import Path
from search.randomness import TrialRandom
from search.spaces.auto_deeplab import AutoDeepLab
from search.spaces.head import Head

SPACE = AutoDeepLab(layers=4, blocks=2)
SMALL = {"filters": 2, "stem_channels": 3, "head_channels": 3}


def supernet_of(space=SPACE, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = space.build_supernet(lambda width: BatchStatistics(width, True), Head(3), **SMALL)
        for parameter in supernet.parameters():
            if parameter.ndim == 1:  # a scale of 1 would hide a wrong one
                nn.init.uniform_(parameter, 0.5, 1.5)
    return supernet.double()


def alone(supernet, arch, space=SPACE):
    network = space.build(arch, Head(3), **SMALL, decoder="search").double()
    supernet.hand_down(arch, network)
    return network


def images(batch=3, height=33, width=46):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1)).double()


def one_hot(arch, space=SPACE):
    """Weights that are 1 for what an architecture chooses and 0 for all else; its blocks read two different states."""
    weights = [torch.zeros(shape).double() for shape in space.relaxation().shapes()]
    level = 0
    for t, (move, after) in enumerate(zip(arch, space.levels(arch), strict=False)):
        weights[t][level, move], level = 1.0, after
    for each, block in zip(weights[space.layers :], space.cell(arch), strict=True):
        for source, operation in zip(block.sources, block.operations, strict=True):
            each[source, operation] = 1.0
    return tuple(weights)


def test_paths_of_every_level_compute_what_their_networks_compute_alone():
    supernet, x, ends = supernet_of(), images(), set()
    for arch in map(tuple, SPACE.sample(TrialRandom(4), 25)[0].tolist()):
        ends.add(SPACE.levels(arch)[-1])
        with torch.no_grad():
            torch.testing.assert_close(supernet(x, Path(arch)), alone(supernet, arch)(x))
    assert ends == {0, 1, 2, 3}


@pytest.mark.parametrize("operation", range(1, 8))
def test_every_operation_weighed_alone_is_its_path(operation):
    """On paths whose input before the last is of the cell's own level, which is what all together read."""
    supernet, x = supernet_of(), images()
    arch = SPACE.from_levels([0] * 4, [Block((0, 1), (operation, 4)), Block((0, 2), (5, operation))])
    with torch.no_grad():
        expected = supernet(x, Path(arch))
        torch.testing.assert_close(supernet(x, Path(arch, one_hot(arch))), expected)
        torch.testing.assert_close(only_level_0(supernet)(x, Path(None, one_hot(arch))), expected)


def only_level_0(supernet):
    """Without the logits of other levels: what their heads make of nothing is no part of a path."""
    for name, head in supernet.network.body.heads.items():
        if name != "0":
            nn.init.zeros_(head.classifier.weight)
            nn.init.zeros_(head.classifier.bias)
    return supernet


def test_a_gradient_reaches_moves_and_operations():
    supernet, relaxation = supernet_of(), SPACE.relaxation()
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(shape, generator=generator).double().requires_grad_() for shape in relaxation.shapes()]
    for hard in (False, True):
        path = relaxation.path(logits, hard=hard)
        found = torch.autograd.grad(supernet(images(), path).square().sum(), logits)
        assert all(each.isfinite().all() and each.abs().sum() > 0 for each in found)
    for t, place in ((1, (0, 1)), (5, (2, 4))):  # by differences, for one of each kind

        def output(shift, t=t, place=place):
            moved = [each.detach().clone() for each in logits]
            moved[t][place] += shift
            with torch.no_grad():
                return float(supernet(images(), relaxation.path(moved)).square().sum())

        soft = torch.autograd.grad(supernet(images(), relaxation.path(logits)).square().sum(), logits)
        assert float(soft[t][place]) == pytest.approx((output(1e-5) - output(-1e-5)) / 2e-5, rel=1e-4)


def test_each_cell_runs_once_for_each_place_before_it():
    space = AutoDeepLab(layers=6, blocks=1)
    supernet, runs, fitted = supernet_of(space), Counter(), Counter()
    for layer, cells in enumerate(supernet.network.body.cells):
        for level, cell in cells.items():
            edge = cell.operations[0]
            edge[3].register_forward_hook(lambda *_, place=(layer, level): runs.update([place]))
            for origin, module in cell.fit_last.items():
                place = (layer, level, origin)
                module.register_forward_hook(lambda *_, place=place: fitted.update([place]))
    logits = [torch.zeros(shape).double() for shape in space.relaxation().shapes()]
    with torch.no_grad():
        supernet(images(2, 32, 32), space.relaxation().path(logits))
    # Places before: of the levels 0 to 3 two, three, three and two; at the beginning fewer can be reached.
    assert runs.total() == fitted.total() == 2 + 5 + 8 + 10 + 10 + 10
    assert set(fitted.values()) == {1}  # each preprocessing once, and each cell as often as it has places before it
    assert all(runs[place] == sum(key[:2] == place for key in fitted) for place in runs)


# ---- cells -----------------------------------------------------------------------------------------------------------


def test_a_cell_is_what_its_formula_says():
    """Of one block, a full convolution of every second pixel on the last output and a maximum on the one before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = Cell([Block((0, 1), (6, 1))], 3, 5, 4, 1, lambda channels: nn.Identity())
    generator, f = torch.Generator().manual_seed(0), nn.functional
    last, before = (torch.randn(2, channels, 6, 7, generator=generator) for channels in (3, 5))
    states = [f.conv2d(x.relu(), fit[1].weight) for x, fit in ((last, cell.fit_last), (before, cell.fit_before))]
    atrous = f.conv2d(states[0].relu(), cell.operations[0].convolution.weight, padding=2, dilation=2)
    torch.testing.assert_close(cell(last, before), atrous + f.max_pool2d(states[1], 3, 1, 1))


def test_what_has_the_channels_before_the_last_stays_as_it_is():
    cell = Cell([Block((1, 1), (3, 0))], 3, 4, 4, 1, nn.BatchNorm2d)
    before = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cell(torch.zeros(2, 3, 6, 7), before), before)


def test_a_block_of_nothing_is_zero_at_the_right_size():
    cell = Cell([Block((0, 0), (0, 0)), Block((1, 2), (3, 3))], 3, 4, 4, 2, nn.BatchNorm2d)
    output = cell(torch.randn(2, 3, 5, 7), torch.randn(2, 4, 10, 14))
    assert output.shape == (2, 8, 3, 4) and not output[:, :4].any() and output[:, 4:].any()


def test_a_later_cell_drops_more():
    network = SPACE.build(SPACE.published(), Head(3), **SMALL, drop_path_keep=0.6)
    assert set_drop_path(network, 0.5) == 4
    assert [cell.drop_path.probability for cell in network.body.cells] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    with pytest.raises(ValueError, match="drop_path_keep is 0"):
        SPACE.build(SPACE.published(), Head(3), **SMALL, drop_path_keep=0)
