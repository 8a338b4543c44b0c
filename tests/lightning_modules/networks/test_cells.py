import itertools

import pytest
import torch
from torch import nn

from lightning_modules.networks.cells import (
    OPERATIONS,
    Cell,
    CellNetwork,
    FactorizedReduce,
    ModuleNetwork,
    ReductionBlock,
    Zero,
    build_operation,
    cell_plan,
)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def batch_statistics(channels):
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def with_random_norms(module):
    """Shifts, scales and statistics away from 0 and 1, as after training."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(values)
    return module


def naive(cell, x):
    """Every edge is computed, dead or not, zero or not."""
    nodes = [x]
    edges = iter(cell.operations)
    for target in range(1, 4):
        nodes.append(sum(next(edges)(nodes[source]) for source in range(target)))
    return nodes[-1]


def test_leaving_edges_out_changes_nothing():
    x = torch.randn(2, 4, 6, 6)
    # Every pattern of connected edges, with convolutions: normalised, they do not turn zeros into zeros.
    for names in itertools.product(("none", "nor_conv_1x1"), repeat=6):
        cell = with_random_norms(Cell([build_operation(name, 4) for name in names])).eval()
        assert torch.equal(cell(x), naive(cell, x)), names
    generator = torch.Generator().manual_seed(3)
    for arch in torch.randint(0, 5, (60, 6), generator=generator).tolist():
        cell = with_random_norms(Cell([build_operation(list(OPERATIONS)[choice], 4) for choice in arch])).eval()
        assert torch.equal(cell(x), naive(cell, x)), arch
        cell.compute_unused = True
        assert torch.equal(cell(x), naive(cell, x)), arch


def test_what_cannot_reach_the_output_is_not_computed_but_kept():
    ran = []
    cell = Cell([build_operation(name, 4) for name in ("nor_conv_3x3", "none", "none", "skip_connect", "none", "none")])
    cell.operations[0].register_forward_hook(lambda *_: ran.append("dead"))
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(cell(x), x) and not ran
    assert sum(parameter.numel() for parameter in cell.parameters()) == 4 * 4 * 9 + 8
    cell.compute_unused = True
    assert torch.equal(cell(x), x) and ran == ["dead"]


def test_the_plan_of_a_chain():
    chain = (True, False, True, False, False, True)
    assert cell_plan(chain) == (((0, 0),), ((1, 2),), ((2, 5),))
    cut = (True, False, True, True, False, False)
    assert cell_plan(cut) == ((), (), ((0, 3),))
    assert cell_plan(cut, unused=True) == (((0, 0),), ((1, 2),), ((0, 3),))


@pytest.mark.parametrize("edges", [0, 2, 5, 7])
def test_a_cell_has_a_triangular_number_of_edges(edges):
    with pytest.raises(ValueError, match=f"not {edges}"):
        Cell([nn.Identity() for _ in range(edges)])


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_the_shape_and_leave_the_input_alone(name):
    x = torch.randn(2, 6, 8, 8)
    before = x.clone()
    assert build_operation(name, 6)(x).shape == x.shape
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"])
@pytest.mark.parametrize("side", [1, 7, 8])
def test_strided_operations_agree_on_the_shape(name, side):
    assert build_operation(name, 4, 6, stride=2)(torch.randn(3, 4, side, side)).shape == (3, 6, *2 * [(side + 1) // 2])


def test_pooling_does_not_count_the_border():
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(build_operation("avg_pool_3x3", 2)(ones), ones)
    with pytest.raises(ValueError, match="cannot turn 2 into 4"):
        build_operation("avg_pool_3x3", 2, 4)


def test_the_strided_skip_sees_every_pixel_of_the_diagonal_once():
    skip = FactorizedReduce(1, 2, norm=lambda channels: nn.Identity())
    for convolution in (skip.even, skip.odd):
        nn.init.ones_(convolution.weight)
    x = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    assert torch.equal(skip(x)[0, 0], x[0, 0, ::2, ::2]) and torch.equal(skip(x)[0, 1], x[0, 0, 1::2, 1::2])


def test_the_reduction_block_is_shortcut_plus_two_convolutions():
    block = ReductionBlock(4, 8).eval()
    x = torch.randn(2, 4, 8, 8)
    first, second = block.convolutions
    pooled = x.reshape(2, 4, 4, 2, 4, 2).mean(dim=(3, 5))
    expected = second(first(x)) + torch.einsum("oi,nihw->nohw", block.shortcut[1].weight[:, :, 0, 0], pooled)
    torch.testing.assert_close(block(x), expected)


def test_the_reduction_block_averages_what_there_is_at_an_odd_edge():
    block = ReductionBlock(1, 1).eval()
    nn.init.ones_(block.shortcut[1].weight)
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    expected = torch.tensor([[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]])
    torch.testing.assert_close(block.shortcut(x), expected)
    assert block(x).shape == (1, 1, 2, 3)


def test_the_network_takes_any_cell_and_any_norm():
    widths = []

    def build_cell(width):
        widths.append(width)
        return nn.Identity()

    network = CellNetwork(build_cell, num_classes=5, channels=4, cells=2, in_channels=1, norm=batch_statistics)
    assert widths == [4, 4, 8, 8, 16, 16]
    assert network(torch.randn(3, 1, 16, 16)).shape == (3, 5)
    assert network.features(torch.randn(3, 1, 16, 16)).shape == (3, 16, 4, 4)
    assert not [name for name, _ in network.named_buffers()]


def test_module_digits_change_channels_and_resolution():
    calls = []

    def build_cell(inputs, outputs, stride):
        calls.append((inputs, outputs, stride))
        return Zero(outputs, stride)

    network = ModuleNetwork(build_cell, num_classes=5, channels=4, modules="1234")
    assert calls == [(4, 4, 1), (4, 4, 1), (4, 8, 1), (8, 8, 1), (8, 8, 2), (8, 8, 1), (8, 16, 2), (16, 16, 1)]
    assert network.features(torch.randn(2, 3, 32, 32)).shape == (2, 16, 2, 2)
    for wrong in ("", "415"):
        with pytest.raises(ValueError, match="digits 1, 2, 3 and 4"):
            ModuleNetwork(build_cell, num_classes=5, modules=wrong)
