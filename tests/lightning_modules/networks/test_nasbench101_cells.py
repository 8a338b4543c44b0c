import itertools

import pytest
import torch
from torch import nn

from lightning_modules.networks.nasbench101_cells import (
    OPERATION_NAMES,
    CellGraph,
    ConvNormReLU,
    VertexCell,
    VertexCellNetwork,
    VertexSuperCell,
)
from lightning_modules.networks.supernet import Path, Selection

CONV3, CONV1, POOL = range(3)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def with_random_norms(module):
    """Scales and shifts away from 1 and 0, as after training."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return module


# ---- graphs ----------------------------------------------------------------------------------------------------------


def test_what_lies_on_no_path_is_left_out():
    # 1 reads nothing, 3 feeds nothing, 4 reads only 3.
    graph = CellGraph.of([(0, 2), (1, 2), (2, 5), (2, 3), (3, 4)], [CONV3] * 4)
    assert graph.sources == ((), (0,), (), (), (2,))
    assert graph.vertices == (2,) and graph.projected == (2,) and graph.output == 5
    with pytest.raises(ValueError, match="path from input to output"):
        CellGraph.of([(0, 1), (2, 3)], [CONV3, CONV3])


def test_the_output_shares_its_channels():
    three = CellGraph.of([(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)], [CONV3] * 3)
    assert three.channels(128) == (43, 43, 42, 128)
    assert three.channels(9) == (3, 3, 3, 9)
    with pytest.raises(ValueError, match="channels: 2 cannot be shared by 3 vertices"):
        three.channels(2)
    # The edge from the input takes no share; 1 feeds 2 and 3, and is as large as the larger of them.
    inner = CellGraph.of([(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (0, 4)], [CONV3] * 3)
    assert inner.channels(7) == (4, 4, 3, 7)
    assert CellGraph.of([(0, 2)], [CONV3]).channels(8) == (0, 8)


def test_no_vertex_reads_more_channels_than_there_are():
    edges = list(itertools.combinations(range(6), 2))
    generator = torch.Generator().manual_seed(5)
    for _ in range(500):
        present = torch.rand(len(edges), generator=generator) < 0.5
        chosen = [edge for edge, is_there in zip(edges, present.tolist(), strict=True) if is_there] + [(0, 5)]
        graph = CellGraph.of(chosen, [POOL] * 4)
        for channels in (4, 13):
            widths = graph.channels(channels)
            for target in graph.vertices:
                assert all(widths[s - 1] >= widths[target - 1] > 0 for s in graph.sources[target - 1] if s)
            feeding = [widths[source - 1] for source in graph.sources[-1] if source]
            assert (
                sum(feeding) == (channels if feeding else 0) and max(feeding, default=0) - min(feeding, default=0) < 2
            )


# ---- cells -----------------------------------------------------------------------------------------------------------


def test_a_cell_written_out():
    graph = CellGraph.of([(0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 4), (0, 4)], [CONV3, CONV1, POOL])
    cell = with_random_norms(VertexCell(graph, 5, 9))
    x = torch.randn(2, 5, 6, 6)
    project, operate = cell.projections, cell.operations
    # Two vertices share nine channels: 5 and 4. Vertex 1 feeds both and has 5.
    one = operate["1"](project["1"](x))
    two = operate["2"](one + project["2"](x))
    three = nn.functional.max_pool2d(one[:, :4], 3, 1, padding=1)
    assert (one.shape[1], two.shape[1], three.shape[1]) == (5, 5, 4)
    expected = torch.cat([two, three], dim=1) + project["4"](x)
    assert torch.equal(cell(x), expected)
    assert set(project) == {"1", "2", "4"} and set(operate) == {"1", "2", "3"}
    assert operate["1"].convolution.kernel_size == (3, 3) and operate["2"].convolution.kernel_size == (1, 1)


def test_an_empty_cell_is_a_projection():
    cell = VertexCell(CellGraph.of([(0, 3)], [CONV3, CONV3]), 4, 6)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(cell(x), cell.projections["3"](x)) and len(cell.operations) == 0


def test_the_first_channels_are_a_smaller_layer():
    for affine, track in itertools.product((True, False), repeat=2):

        def norm(channels, affine=affine, track=track):
            return nn.BatchNorm2d(channels, affine=affine, track_running_stats=track)

        large, small = with_random_norms(ConvNormReLU(6, 8, 3, norm)), ConvNormReLU(4, 5, 3, norm)
        assert small.load_state_dict(large.sliced_state(4, 5)) == ([], [])
        for _ in range(2):
            x = torch.randn(3, 4, 6, 6)
            torch.testing.assert_close(large(x, 5), small(x))
        for layer in (large, small):
            layer.eval()  # in which running statistics are used, where there are any
        torch.testing.assert_close(large(x, 5), small(x))
        if track:
            torch.testing.assert_close(large.norm.running_mean[:5], small.norm.running_mean)
            assert not large.norm.running_mean[5:].any() and large.norm.running_mean[:5].all()


def test_only_the_channels_in_use_learn():
    layer = ConvNormReLU(6, 8, 1)
    (layer(torch.randn(3, 4, 6, 6), 5) * torch.randn(3, 5, 6, 6)).sum().backward()
    gradient = layer.convolution.weight.grad[:, :, 0, 0]
    assert gradient[:5, :4].all() and not gradient[5:].any() and not gradient[:, 4:].any()
    assert layer.norm.weight.grad[:5].all() and not layer.norm.weight.grad[5:].any()


# ---- shared weights --------------------------------------------------------------------------------------------------


GRAPHS = {
    (0,): CellGraph.of([(0, 1), (0, 2), (1, 3), (2, 3)], [CONV3, POOL]),
    (1,): CellGraph.of([(0, 1), (1, 2), (2, 3), (0, 3)], [CONV1, CONV3]),
}


def super_cell(in_channels=4, out_channels=7):
    selection = Selection()
    return VertexSuperCell(selection, GRAPHS.__getitem__, 1, 2, in_channels, out_channels), selection


@pytest.mark.parametrize("choices", GRAPHS)
def test_a_path_is_its_cell(choices):
    shared, selection = super_cell()
    with_random_norms(shared)
    cell = VertexCell(GRAPHS[choices], 4, 7)
    assert cell.load_state_dict(shared.standalone_state(choices)) == ([], [])
    selection.path = Path(choices)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(shared(x), cell(x))


def test_weights_multiply_what_operations_give():
    shared, selection = super_cell()
    x = torch.randn(2, 4, 6, 6)
    selection.path = Path((0,))
    plain = shared(x).detach()
    weights = (torch.ones(2), torch.tensor([3.0, 50.0, 50.0]), torch.tensor([50.0, 50.0, 0.5]))
    for weight in weights:
        weight.requires_grad_()
    selection.path = Path((0,), weights)
    weighted = shared(x)
    torch.testing.assert_close(weighted[:, :4], 3 * plain[:, :4])
    torch.testing.assert_close(weighted[:, 4:], 0.5 * plain[:, 4:])
    weighted.sum().backward()
    assert weights[0].grad is None
    assert weights[1].grad.tolist() == pytest.approx([float(plain[:, :4].sum()), 0, 0])
    assert weights[2].grad.tolist() == pytest.approx([0, 0, float(plain[:, 4:].sum())])


def test_a_relaxed_path_is_refused():
    shared, selection = super_cell()
    selection.path = Path(None, (torch.ones(2), torch.ones(3), torch.ones(3)))
    with pytest.raises(ValueError, match=r"a path without choices .* has no meaning in the NAS-Bench-101 space"):
        shared(torch.randn(2, 4, 6, 6))


def test_too_few_channels_are_refused_at_once():
    with pytest.raises(ValueError, match="channels: 1 cannot be shared by 2 vertices"):
        super_cell(out_channels=1)


# ---- the network -----------------------------------------------------------------------------------------------------


def test_the_skeleton():
    seen = []

    def build_cell(inputs, outputs):
        seen.append((inputs, outputs))
        return VertexCell(GRAPHS[(0,)], inputs, outputs)

    network = VertexCellNetwork(build_cell, num_classes=6, channels=4, cells=2, in_channels=1)
    assert seen == [(4, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
    images = torch.randn(2, 1, 16, 16)
    assert network.features(images).shape == (2, 16, 4, 4) and network(images).shape == (2, 6)
    assert sum(isinstance(module, nn.MaxPool2d) and module.kernel_size == 2 for module in network.body) == 2


def test_convolutions_start_with_variance_one_over_fan_in():
    network = VertexCellNetwork(lambda a, b: VertexCell(GRAPHS[(0,)], a, b), num_classes=6, channels=64, cells=1)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_in = module.in_channels * module.kernel_size[0] ** 2
            assert float(module.weight.detach().var()) * fan_in == pytest.approx(1, abs=0.05), name
            assert float(module.weight.detach().abs().max()) < 2.3 / fan_in**0.5


def test_operations_are_those_of_the_benchmark():
    assert OPERATION_NAMES == ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
