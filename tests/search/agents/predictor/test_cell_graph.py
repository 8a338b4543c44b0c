"""What graphs say is equal, against the numbers that cells compute when every operation is a function."""

import math
from collections import Counter

import pytest
import torch

from search.agents.predictor.cell_graph import CellGraph, Ends
from search.agents.predictor.encodings import names_of
from search.randomness import TrialRandom
from search.spaces.base import Edge
from search.spaces.darts import DARTS
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201
from tests.search.agents.toy_spaces import Grid

SPACE = NASBench201()
ENDS = Ends(frozenset("0"), frozenset("3"))


def computed(arch, x=0.37):
    """The cell's output where the three operations with weights are functions of a number."""
    functions = [None, lambda v: v, lambda v: math.sin(2 * v + 1), lambda v: math.exp(-v), lambda v: v * v + 0.3]
    nodes, choices = [x], iter(arch)
    for target in range(1, 4):
        nodes.append(sum(functions[k](nodes[s]) for s in range(target) if (k := next(choices)) and nodes[s] != 0))
    return round(nodes[3], 9)


def graph(arch):
    return CellGraph.of(SPACE, arch, ENDS)


def test_cells_have_one_name_exactly_if_they_compute_the_same():
    archs = [tuple(arch) for arch in SPACE.sample(TrialRandom(0), 1500)[0].tolist()]
    names, values = [graph(arch).name for arch in archs], [computed(arch) for arch in archs]
    pairs = set(zip(names, values, strict=True))
    assert len(pairs) == len(set(names)) == len(set(values)) < 1200
    numbers = names_of(SPACE, torch.tensor(archs)).tolist()
    assert len(set(zip(numbers, names, strict=True))) == len(set(numbers)) == len(set(names))


def test_ends_are_those_of_the_space():
    assert Ends.of(SPACE) == ENDS
    ends = Ends.of(DARTS())
    assert ends.inputs == {"normal 0", "normal 1", "reduce 0", "reduce 1"}
    assert Ends.of(Grid(3, 2)) == Ends(frozenset({"in"}), frozenset({"out"}))


def test_renumbered_cells_have_one_name():
    space = NASBench101()
    archs = space.sample(TrialRandom(1), 60)[0]
    ends = Ends.of(space)
    for arch, canonical in zip(archs.tolist(), space.canonical(archs).tolist(), strict=True):
        assert CellGraph.of(space, tuple(arch), ends).name == CellGraph.of(space, tuple(canonical), ends).name


def test_paths_and_subtrees_of_a_cell_by_hand():
    """1 reads 0 by a 3x3; 2 reads 0 by a 1x1 and 1 by a skip; 3 reads 0 by a skip, 1 by nothing, 2 by a pooling."""
    cell = graph((3, 2, 1, 1, 0, 4))
    assert cell.paths() == Counter({(): 1, ("nor_conv_1x1", "avg_pool_3x3"): 1, ("nor_conv_3x3", "avg_pool_3x3"): 1})
    shallow = cell.subtrees(0)
    assert shallow == Counter({"0:=0": 1, "0:avg_pool_3x3<": 1, "0:nor_conv_1x1<": 1, "0:nor_conv_3x3<": 1})
    deeper = cell.subtrees(1)
    assert deeper["1:avg_pool_3x3<(nor_conv_1x1<,nor_conv_3x3<)"] == 1 and deeper["1:nor_conv_3x3<(=0)"] == 1
    assert {pattern: count for pattern, count in deeper.items() if pattern.startswith("0:")} == shallow


def test_an_arrow_counts_for_every_way_from_it():
    """Node 1 is read by 2 and 3, and 2 by 3: the convolution into 1 has two ways out."""
    cell = graph((3, 0, 2, 0, 2, 2))
    assert cell.uses == {"3": 1, "2": 1, "1": 2}
    assert cell.subtrees(0)["0:nor_conv_3x3<"] == 2 and cell.subtrees(0)["0:nor_conv_1x1<"] == 3
    assert sum(cell.paths().values()) == 2


@pytest.mark.parametrize("arch", [(0, 0, 0, 0, 0, 0), (3, 3, 3, 0, 0, 0), (0, 0, 3, 0, 3, 0)])
def test_a_cell_without_a_way_through_is_empty(arch):
    cell = graph(arch)
    assert cell.outputs == [] and cell.name == "" and not cell.paths() and not cell.subtrees(2)


def test_arrows_that_change_something_stay():
    drawing = [Edge("0", "1", "skip_connect"), Edge("1", "3", "skip_connect")]
    assert CellGraph(drawing, ENDS, "skip_connect").paths() == Counter({(): 1})
    assert CellGraph(drawing, ENDS).paths() == Counter({("skip_connect", "skip_connect"): 1})
