import pytest
import torch
from torch import nn

from lightning_modules.networks.cells import Cell, CellNetwork, build_operation
from lightning_modules.networks.cost.complexity import count_flops, count_parameters


def cell_network(names, **size):
    with torch.random.fork_rng(devices=[]):
        return CellNetwork(lambda width: Cell([build_operation(name, width) for name in names]), 10, **size)


DEAD_END = ("nor_conv_1x1", "none", "none", "skip_connect", "none", "none")


@pytest.mark.parametrize(
    "layer, shape, parameters, flops",
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 5, 7), 8 * 27 + 8, 35 * (8 * 27 + 8)),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False), (4, 8, 8), 8 * 18, 16 * 8 * 18),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 3, 3), 4 * 6 * 4 + 6, 9 * 4 * 6 * 4 + 36 * 6),
        (nn.Conv1d(2, 3, 5), (2, 9), 33, 5 * 33),
        (nn.Linear(6, 4), (6,), 28, 28),
        (nn.Linear(6, 4, bias=False), (5, 6), 24, 5 * 24),
        (nn.BatchNorm2d(3), (3, 4, 4), 6, 0),
    ],
)
def test_layers_by_hand(layer, shape, parameters, flops):
    assert count_parameters(layer) == parameters
    assert count_flops(layer, shape) == flops


def test_a_layer_used_twice_counts_twice():
    layer = nn.Linear(4, 4)
    assert count_flops(nn.Sequential(layer, nn.ReLU(), layer), (4,)) == 40
    assert count_parameters(nn.Sequential(layer, layer)) == 20


def test_dead_ends_count_only_when_asked_for():
    network = cell_network(DEAD_END)
    without = count_flops(network, (3, 32, 32), unused=False)
    assert without == 7_783_050
    assert count_flops(network, (3, 32, 32)) == without + 15 * 16 * 16 * 32 * 32
    assert not any(cell.compute_unused for cell in network.modules() if isinstance(cell, Cell))


def test_counting_leaves_no_trace():
    network = cell_network(DEAD_END, channels=4, cells=1)
    network.stem.eval()  # a frozen part within a network in training
    modes = [module.training for module in network.modules()]
    assert True in modes and False in modes
    state = {key: value.clone() for key, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    count_flops(network, (3, 8, 8))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_that_fails_is_restored_too():
    network = cell_network(DEAD_END, channels=4, cells=1)
    with pytest.raises(RuntimeError):
        count_flops(network, (5, 8, 8))
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(cell.compute_unused for cell in network.modules() if isinstance(cell, Cell))


def test_nothing_is_computed_on_the_meta_device():
    real = cell_network(("nor_conv_3x3",) * 6, cells=1)
    with torch.device("meta"):
        meta = cell_network(("nor_conv_3x3",) * 6, cells=1)
    assert count_flops(meta, (3, 32, 32)) == count_flops(real, (3, 32, 32))


def test_batch_statistics_and_other_types_are_no_obstacle():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), norm, nn.Flatten(), nn.Linear(4, 2)).double()
    assert count_flops(network, (3, 2, 2)) == 4 * 16 + 10
