import ast

import numpy as np
import pytest
import torch

from lightning_modules.networks.cost.complexity import count_flops, count_parameters
from search.spaces.transnasbench101 import TransNASBench101Micro
from search.tables.table import read_columns

SPACE = TransNASBench101Micro()


def build(arch, **head):
    with torch.device("meta"):
        return SPACE.build_from(arch, head)


def test_every_row_of_the_table(real_data):
    archs = read_columns(real_data("transnasbench101.npz"), []).arch
    assert len(archs) == 4096
    for row, codes in enumerate(archs.tolist()):
        arch = SPACE.from_index(row)
        assert arch == tuple(codes) and SPACE.parse(SPACE.format(arch)) == arch and SPACE.index(arch) == row


def test_the_index_is_the_place_in_sorted_order():
    texts = [SPACE.format(arch) for arch in SPACE.enumerate()]
    assert texts == sorted(texts) and len(texts) == 4096
    assert SPACE.format(SPACE.from_index(0b01_00_10_11_11_11)) == "64-41414-1_02_333"


@pytest.mark.parametrize("index", [-1, 4096])
def test_an_index_outside_the_table_is_refused(index):
    with pytest.raises(ValueError, match=f"index {index} is not one of 0 to 4095"):
        SPACE.from_index(index)


@pytest.mark.parametrize(
    "text, message",
    [
        ("32-41414-1_02_333", "must begin with '64-41414-'"),
        ("64-41414-1_02_33", "1, 2 and 3 digits"),
        ("64-41414-1_02_334", "edge 3<-2 .* is '4', allowed: 0 none, 1 skip_connect"),
        ("64-41414-1_02_33\N{SUPERSCRIPT TWO}", "edge 3<-2"),
    ],
)
def test_a_wrong_string_says_where(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


# Cells of the skeleton at base channel 64: (inputs, outputs).
CELLS = [(64, 128), (128, 128), (128, 128), (128, 128), (128, 256), *[(256, 256)] * 3, (256, 512), (512, 512)]


@pytest.mark.parametrize(
    "cell, size",
    [
        ("0_00_000", lambda i, o: 0),
        ("0_00_100", lambda i, o: i * o + 2 * o if i != o else 0),  # a strided skip is two convolutions and a norm
        ("0_00_200", lambda i, o: i * o + 2 * o),
        ("0_00_300", lambda i, o: 9 * i * o + 2 * o),
        ("0_00_003", lambda i, o: 9 * o * o + 2 * o),  # only edges from the input change the channels
    ],
)
def test_parameters_by_hand(cell, size):
    stem = 3 * 32 * 9 + 2 * 32 + 32 * 64 * 9 + 2 * 64
    network = build(SPACE.parse(f"64-41414-{cell}"), num_classes=47, channels=64)
    assert count_parameters(network) == stem + sum(size(i, o) for i, o in CELLS) + 513 * 47


def test_parameters_are_those_of_the_published_zero_cost_table(real_data):
    """NAS-Bench-Suite-Zero built the networks with 100 classes; its operation codes are the benchmark's."""
    with np.load(real_data("zero_cost_proxies.npz"), allow_pickle=False) as arrays:
        space, dataset, archs, columns, values = (
            arrays[name] for name in ("space", "dataset", "arch", "columns", "values")
        )
    rows = np.flatnonzero((space == "transbench101_micro") & (dataset == "class_object"))[:60]
    assert len(rows) == 60
    for row in rows:
        network = build(ast.literal_eval(str(archs[row])), num_classes=100, channels=64)
        assert np.float32(count_parameters(network) / 1e6) == values[row, columns.tolist().index("params")]


def test_the_backbone_divides_the_resolution_by_32_and_widens_eightfold():
    for cell in ("1_11_111", "0_00_000", "3_22_111", "0_02_003"):
        network = build(SPACE.parse(f"64-41414-{cell}"), num_classes=5, channels=8)
        assert network.features(torch.zeros(2, 3, 256, 256, device="meta")).shape == (2, 64, 8, 8)
        assert network(torch.zeros(2, 3, 256, 256, device="meta")).shape == (2, 5)


def test_convolution_costs_by_hand():
    network = build(SPACE.parse("64-41414-0_00_200"), num_classes=75, channels=64)
    sides = [32, 32, 32, 32, 16, 16, 16, 16, 8, 8]  # of each cell's output, for 256 x 256 images
    expected = 3 * 32 * 9 * 128**2 + 32 * 64 * 9 * 64**2 + 513 * 75
    assert count_flops(network, (3, 256, 256)) == expected + sum(
        i * o * side**2 for (i, o), side in zip(CELLS, sides, strict=True)
    )
