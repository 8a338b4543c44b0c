import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_modules.networks.cells import FactorizedReduce, ReLUConvNorm
from lightning_modules.networks.darts_cells import (
    EDGES,
    OPERATION_NAMES,
    OPERATIONS,
    PAIRS,
    DARTSCell,
    DARTSNetwork,
    DARTSSuperCell,
    node_choices,
)
from lightning_modules.networks.supernet import Path, Selection

SIZES = [size for pairs in PAIRS for size in (len(pairs), len(OPERATION_NAMES), len(OPERATION_NAMES))]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def some_choices(n, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(int(torch.randint(size, (), generator=generator)) for size in SIZES) for _ in range(n)]


def super_cell(reduction, channels=2, first=0):
    selection = Selection()
    return DARTSSuperCell(selection, first, channels, reduction), selection


def random_weights():
    return tuple(torch.rand(size) for size in SIZES)


# ---- operations ------------------------------------------------------------------------------------------------------


def normalised(x):
    return (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()


def depthwise(x, weight, stride, dilation):
    """Each output pixel summed up from the pixels around it, channel by channel."""
    kernel = weight.shape[-1]
    reach = dilation * (kernel // 2)
    padded = functional.pad(x, (reach,) * 4)
    height, width = (-(-size // stride) for size in x.shape[2:])
    total = torch.zeros(x.shape[0], x.shape[1], height, width)
    for row, column in itertools.product(range(kernel), repeat=2):
        shifted = padded[:, :, row * dilation :: stride, column * dilation :: stride][:, :, :height, :width]
        total = total + shifted * weight[:, 0, row, column].view(1, -1, 1, 1)
    return total


def mixed(x, weight):
    return torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_separable_and_dilated_convolutions_are_what_the_paper_says(kernel, stride):
    x = torch.randn(3, 4, 8, 8)
    separable = OPERATIONS[f"sep_conv_{kernel}x{kernel}"](4, stride, nn.BatchNorm2d)
    weights = [module.weight for module in separable if isinstance(module, nn.Conv2d)]
    once = normalised(mixed(depthwise(x.relu(), weights[0], stride, 1), weights[1]))
    twice = normalised(mixed(depthwise(once.relu(), weights[2], 1, 1), weights[3]))
    torch.testing.assert_close(separable(x), twice, rtol=1e-4, atol=1e-5)

    dilated = OPERATIONS[f"dil_conv_{kernel}x{kernel}"](4, stride, nn.BatchNorm2d)
    weights = [module.weight for module in dilated if isinstance(module, nn.Conv2d)]
    expected = normalised(mixed(depthwise(x.relu(), weights[0], stride, 2), weights[1]))
    torch.testing.assert_close(dilated(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPERATION_NAMES)
def test_operations_keep_channels_and_divide_the_resolution(name):
    x = torch.randn(2, 6, 8, 8)
    before = x.clone()
    for stride in (1, 2):
        assert OPERATIONS[name](6, stride, nn.BatchNorm2d)(x).shape == (2, 6, 8 // stride, 8 // stride)
    assert torch.equal(x, before)  # no operation works in place: other edges read the same map


def test_pooling_leaves_the_border_out_and_is_not_normalised():
    x = torch.arange(16.0).view(1, 1, 4, 4) - 20
    average = OPERATIONS["avg_pool_3x3"](1, 1, nn.BatchNorm2d)(x)
    assert average[0, 0, 0, 0] == x[0, 0, :2, :2].mean() and average[0, 0, 1, 1] == x[0, 0, :3, :3].mean()
    assert OPERATIONS["max_pool_3x3"](1, 1, nn.BatchNorm2d)(x)[0, 0, 0, 0] == x[0, 0, 1, 1]
    for name in ("max_pool_3x3", "avg_pool_3x3"):
        assert not list(OPERATIONS[name](4, 2, nn.BatchNorm2d).parameters())


# ---- the cell of one architecture ------------------------------------------------------------------------------------


def test_edges_and_pairs():
    assert EDGES[:5] == ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2)) and len(EDGES) == len(set(EDGES)) == 14
    assert [len(pairs) for pairs in PAIRS] == [1, 3, 6, 10]
    assert PAIRS[1] == ((0, 1), (0, 2), (1, 2))


@pytest.mark.parametrize("reduction", [False, True])
def test_a_cell_is_a_naive_loop_over_its_nodes(reduction):
    one, two = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for choices in some_choices(20):
        cell = DARTSCell(node_choices(choices), 4, reduction)
        states = [one, two]
        for node in range(4):
            pair, first, second = choices[3 * node : 3 * node + 3]
            pairs = [(j, k) for k in range(node + 2) for j in range(k)]
            j, k = sorted(pairs)[pair]
            copies = []
            for place, (source, operation) in enumerate(((j, first), (k, second))):
                stride = 2 if reduction and source in (0, 1) else 1
                module = OPERATIONS[OPERATION_NAMES[operation]](4, stride, nn.BatchNorm2d)
                module.load_state_dict(cell.operations[2 * node + place].state_dict())
                copies.append(module(states[source]))
            states.append(copies[0] + copies[1])
        outputs = cell(one, two)
        assert len(outputs) == 4
        for output, expected in zip(outputs, states[2:], strict=True):
            assert torch.equal(output, expected)
            assert output.shape == (2, 4, *([4, 4] if reduction else [8, 8]))


# ---- the network -----------------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """A cell that only notes what it is given."""

    def __init__(self, channels, reduction):
        super().__init__()
        self.channels, self.reduction, self.seen = channels, reduction, None

    def forward(self, before_last, last):
        self.seen = (tuple(before_last.shape), tuple(last.shape))
        return [last[:, :, :: 1 + self.reduction, :: 1 + self.reduction]] * 4


def test_reduction_cells_stand_at_one_and_two_thirds():
    for cells, reductions in ((20, [6, 13]), (8, [2, 5]), (14, [4, 9]), (3, [1, 2]), (2, [0, 1]), (1, [0])):
        network = DARTSNetwork(Recorder, 10, channels=2, cells=cells)
        assert [k for k, block in enumerate(network.blocks) if block.cell.reduction] == reductions
        logits = network(torch.randn(2, 3, 16, 16))
        assert logits.shape == (2, 10)


def test_inputs_are_fitted_to_the_cell():
    network = DARTSNetwork(Recorder, 5, channels=4, cells=6, in_channels=1)
    images = torch.randn(2, 1, 16, 16)
    assert network.stem(images).shape == (2, 12, 16, 16)
    assert network.features(images).shape == (2, 64, 4, 4)
    width, size = 4, 16
    for position, block in enumerate(network.blocks):
        width *= 2 if position in (2, 4) else 1
        assert block.cell.channels == width
        assert block.cell.seen == ((2, width, size, size), (2, width, size, size))
        size //= 2 if position in (2, 4) else 1
        # The output before the last one has twice the resolution exactly where the last one was a reduction cell.
        kind = FactorizedReduce if position in (3, 5) else ReLUConvNorm
        assert type(block.fit_before_last) is kind and type(block.fit_last) is ReLUConvNorm


@pytest.mark.parametrize("wrong", [{"cells": 0}, {"channels": 0}])
def test_a_network_without_cells_or_channels_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is 0, it must be at least 1"):
        DARTSNetwork(Recorder, 10, **wrong)


# ---- the supernet's cell ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", [False, True])
def test_weights_scale_operations_and_pairs(reduction):
    one, two = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    cell, selection = super_cell(reduction)
    for choices in some_choices(10):
        weights = random_weights()
        selection.path = Path(choices, weights)
        states = [one, two]
        for node in range(4):
            pair, *operations = choices[3 * node : 3 * node + 3]
            terms = [
                weights[3 * node + 1 + place][operation]
                * cell.operations[EDGES.index((node + 2, source))][operation](states[source])
                for place, (source, operation) in enumerate(zip(PAIRS[node][pair], operations, strict=True))
            ]
            states.append(weights[3 * node][pair] * (terms[0] + terms[1]))
        for output, expected in zip(cell(one, two), states[2:], strict=True):
            torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("reduction", [False, True])
def test_the_relaxation_sums_over_pairs_and_operations(reduction):
    one, two = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    cell, selection = super_cell(reduction)
    weights = random_weights()
    selection.path = Path(None, weights)
    states = [one, two]
    for node in range(4):
        pair_weights, first, second = weights[3 * node : 3 * node + 3]
        total = 0
        for pair_weight, (j, k) in zip(pair_weights, PAIRS[node], strict=True):
            on_j, on_k = (cell.operations[EDGES.index((node + 2, source))] for source in (j, k))
            total = total + pair_weight * (
                sum(weight * operation(states[j]) for weight, operation in zip(first, on_j, strict=True))
                + sum(weight * operation(states[k]) for weight, operation in zip(second, on_k, strict=True))
            )
        states.append(total)
    for output, expected in zip(cell(one, two), states[2:], strict=True):
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


def test_the_relaxation_runs_each_operation_once():
    cell, selection = super_cell(False)
    selection.path = Path(None, random_weights())
    runs = {}
    for edge, operations in enumerate(cell.operations):
        for choice, operation in enumerate(operations):
            operation.register_forward_hook(lambda *_, key=(edge, choice): runs.__setitem__(key, runs.get(key, 0) + 1))
    cell(torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8))
    assert len(runs) == 14 * 7 and set(runs.values()) == {1}
    runs.clear()
    selection.path = Path(some_choices(1)[0])
    cell(torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8))
    assert len(runs) == 8 and set(runs.values()) == {1}


def test_one_hot_weights_are_a_hard_path():
    one, two = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    cell, selection = super_cell(True)
    for choices in some_choices(5):
        hot = tuple(
            functional.one_hot(torch.tensor(choice), size).float() for choice, size in zip(choices, SIZES, strict=True)
        )
        outputs = []
        for path in (Path(choices), Path(choices, hot), Path(None, hot)):
            selection.path = path
            outputs.append(torch.cat(cell(one, two)))
        torch.testing.assert_close(outputs[1], outputs[0])
        torch.testing.assert_close(outputs[2], outputs[0])


def test_every_weight_gets_its_gradient():
    cell, selection = super_cell(False)
    one, two = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    weights = tuple(values.requires_grad_() for values in random_weights())
    selection.path = Path(None, weights)
    torch.cat(cell(one, two)).square().sum().backward()
    assert all((values.grad != 0).all() for values in weights)
    choices = some_choices(1)[0]
    weights = tuple(values.requires_grad_() for values in random_weights())
    selection.path = Path(choices, weights)
    torch.cat(cell(one, two)).square().sum().backward()
    for values, choice in zip(weights, choices, strict=True):
        assert values.grad.nonzero().flatten().tolist() == [choice]


def test_a_cell_reads_its_own_decisions():
    one, two = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)
    cell, selection = super_cell(True, first=12)
    other, own = some_choices(2)
    selection.path = Path(other + own)
    expected = torch.cat(cell(one, two))
    stand_alone = DARTSCell(node_choices(own), 2, True)
    stand_alone.load_state_dict(cell.standalone_state(other + own))
    assert torch.equal(torch.cat(stand_alone(one, two)), expected)
