import numpy as np
import pytest
import torch

from lightning_modules.networks.cost.complexity import count_flops, count_parameters
from search.spaces.base import Edge
from search.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
ALL_CONV = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
RESNET = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"


@pytest.fixture(scope="module")
def table(real_data):
    with np.load(real_data("nasbench201.npz"), allow_pickle=False) as arrays:
        return {key: arrays[key] for key in ("arch", "arch_str", "params_m", "flops_m")}


def measure(architecture):
    with torch.random.fork_rng(devices=[]):
        network = SPACE.build(architecture)
    return count_parameters(network), count_flops(network, (3, 32, 32))


def test_every_row_of_the_table(table):
    assert len(table["arch_str"]) == 15_625
    for row, (text, codes) in enumerate(zip(table["arch_str"].tolist(), table["arch"].tolist(), strict=True)):
        arch = SPACE.from_index(row)
        assert arch == tuple(codes)
        assert SPACE.format(arch) == text
        assert SPACE.parse(text) == arch
        assert SPACE.index(arch) == row


def test_known_rows_need_no_table():
    first = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    assert SPACE.format(SPACE.from_index(0)) == first
    assert SPACE.index(SPACE.parse(ALL_CONV)) == 1462
    assert SPACE.index((0,) * 6) == 1651


def test_the_order_is_a_permutation_and_its_inverse():
    everything = torch.arange(15_625)
    assert torch.equal(SPACE.codes_by_index.sort().values, everything)
    assert torch.equal(SPACE.indices_by_code[SPACE.codes_by_index], everything)


@pytest.mark.parametrize("index", [-1, 15_625])
def test_an_index_outside_the_table_is_refused(index):
    with pytest.raises(ValueError, match=f"index {index} is not one of 0 to 15624"):
        SPACE.from_index(index)


@pytest.mark.parametrize(
    "text, message",
    [
        (ALL_CONV.replace("|nor_conv_3x3~2|", "|nor_conv3x3~2|"), "edge 3<-2 .*did you mean 'nor_conv_3x3'"),
        (ALL_CONV.replace("~2", "~1"), "'nor_conv_3x3~1' .* must end in '~2'"),
        (ALL_CONV.split("+")[0], "has 1 nodes, 3 are needed"),
        (ALL_CONV.replace("|nor_conv_3x3~0|+|nor", "|nor_conv_3x3~0||+|nor"), "node 1 of"),
        (ALL_CONV + " ", "node 3 of"),
        (ALL_CONV.replace("|nor_conv_3x3~0|+", "|nor_conv_3x3|+"), "must end in '~0'"),
    ],
)
def test_a_wrong_string_says_where(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


def test_the_diagram_leaves_out_edges_without_operation():
    assert SPACE.diagram(SPACE.parse(RESNET)) == [
        Edge("0", "1", "nor_conv_3x3"),
        Edge("1", "2", "nor_conv_3x3"),
        Edge("0", "3", "skip_connect"),
        Edge("2", "3", "skip_connect"),
    ]


def test_size_and_cost_by_hand():
    """Stem 464 + reductions 14,464 and 57,600 + last normalisation 128 + classifier 650, and what each edge adds."""
    generator = torch.Generator().manual_seed(0)
    archs = [(0,) * 6, (1,) * 6, (4,) * 6, *torch.randint(0, 5, (3, 6), generator=generator).tolist()]
    for arch in archs:
        parameters, flops = 73_306, 7_783_050
        for choice in arch:
            area = {2: 1, 3: 9}.get(choice, 0)
            for width, side in ((16, 32), (32, 16), (64, 8)):
                parameters += 5 * (area * width * width + 2 * width) if area else 0
                flops += 5 * area * width * width * side * side
        assert measure(tuple(arch)) == (parameters, flops)


def test_size_and_cost_are_the_benchmarks(table):
    """Equal in float32, the precision of the table, for 40 random cells and those with a special shape."""
    random_rows = np.random.default_rng(201).choice(15_625, 40, replace=False).tolist()
    special = [tuple([choice] * 6) for choice in range(5)] + [
        (2, 0, 0, 0, 0, 0),
        (0, 0, 3, 0, 0, 0),
        (1, 0, 0, 0, 0, 3),
    ]
    for row in [*random_rows, *(SPACE.index(arch) for arch in [*special, SPACE.parse(RESNET)])]:
        parameters, flops = measure(SPACE.from_index(row))
        assert np.float32(parameters / 1e6) == table["params_m"][row], row
        assert np.float32(flops / 1e6) == table["flops_m"][row], row
