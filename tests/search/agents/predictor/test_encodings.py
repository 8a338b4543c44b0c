"""Encodings: their columns, that equal networks have equal ones, and that every space has some."""

import pytest
import torch

from search.agents.predictor.arrows import FLAGS, ArrowEncoding
from search.agents.predictor.candidates import Neighbourhood, WholeSpace
from search.agents.predictor.encodings import (
    Encoding,
    OneHotEncoding,
    PathEncoding,
    SideBySide,
    SubtreeEncoding,
    names_of,
)
from search.attributes.base import Attribute
from search.randomness import TrialRandom
from search.recipes.catalogue import find_classes
from search.spaces.base import Decision, SearchSpace
from search.spaces.nasbench201 import OPERATION_NAMES, NASBench201
from search.spaces.nasbench_macro import NASBenchMacro
from tests.search.agents.toy_spaces import Grid

ENCODINGS = find_classes("search.agents.predictor", Encoding)
SPACES = find_classes("search.spaces", SearchSpace)
SMALLER = {
    "AutoDeepLab": {"layers": 6, "blocks": 2},
    "ListedNetworks": {"space": NASBenchMacro(), "table": "nasbench_macro.npz"},
}
"""What is a graph of a hundred arrows at full size, and what has to be said."""


class SmallCells(NASBench201):
    """Cells whose last three edges have two operations each: 1,000 of them."""

    name = "small cells"
    decisions = tuple(
        Decision(each.name, OPERATION_NAMES if t < 3 else OPERATION_NAMES[:2])
        for t, each in enumerate(NASBench201.decisions)
    )


CELLS = SmallCells()
ALL = torch.tensor(list(CELLS.enumerate()))


class Sum(Attribute):
    """The sum of the choices; none of odd ones above 8."""

    name = "sum"

    def measure(self, architectures):
        return [float("nan") if sum(arch) > 8 and sum(arch) % 2 else float(sum(arch)) for arch in architectures]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("space", SPACES)
def test_encodes_every_space(space, encoding):
    space = SPACES[space](**SMALLER.get(space, {}))
    archs = space.sample(TrialRandom(2), 20)[0]
    encoder = ENCODINGS[encoding]().open(space)
    code = encoder(archs)
    assert code.dtype == torch.float32 and code.shape == (20, len(encoder.groups)) and code.isfinite().all()
    assert len(code.unique(dim=0)) > 5 and sorted(set(encoder.groups.tolist())) == list(range(encoder.groups.max() + 1))
    assert torch.equal(encoder(archs[7:8]), code[7:8])


@pytest.mark.parametrize("encoding", sorted(set(ENCODINGS) - {"OneHotEncoding"}))
def test_equal_networks_have_equal_codes(encoding):
    names = names_of(CELLS, ALL)
    code = ENCODINGS[encoding]().open(CELLS, ALL)(ALL)
    if encoding == "ArrowEncoding":  # the order of arrows means nothing
        size = code.shape[1] // int(ENCODINGS[encoding]().open(CELLS, ALL).groups.max() + 1)
        code = code.view(len(ALL), -1, size)[..., : len(OPERATION_NAMES)].sum(1)
    for name in names.unique()[:100]:
        assert len(code[names == name].unique(dim=0)) == 1
    assert len(names.unique()) < 400


def test_path_codes_of_a_cell():
    encoder = PathEncoding().open(CELLS, ALL)
    counted = PathEncoding(counts=True).open(CELLS, ALL)
    twice = torch.tensor([[3, 3, 1, 1, 1, 1]])  # 3 reads 0; 0 by a 3x3 through 1; through 2; through 1 and 2
    assert encoder(twice).sum() == 2 and sorted(counted(twice).square().unique().tolist()) == pytest.approx([0, 1, 3])


def test_hashed_columns_have_the_same_distances():
    archs = ALL[::9]
    known, hashed = (SubtreeEncoding().open(CELLS, whole)(archs) for whole in (ALL, None))
    same = torch.cdist(known, known) - torch.cdist(hashed, hashed)
    assert (same.abs() < 1e-3).double().mean() > 0.9


def test_arrows_say_what_feeds_them():
    encoder = ArrowEncoding().open(CELLS, ALL)
    slots = int(encoder.groups.max()) + 1
    code = encoder(torch.tensor([[3, 0, 2, 0, 0, 1]])).view(slots, -1)  # 0 -> 1 -> 2 = 3
    kinds = code.shape[1] - FLAGS - slots
    assert code[:2, :kinds].sum(1).tolist() == [1, 1] and code[2:].sum() == 0
    reads, ends = code[:2, kinds].tolist(), code[:2, kinds + 1].tolist()
    assert reads == [1, 0] and code[1, kinds + FLAGS :].nonzero().tolist() == [[0]]
    assert ends == [0, 1] or ends == [0, 0]  # node 3 has the arrows of node 2


def test_side_by_side_columns_are_numbered_on():
    space = Grid(2, 3)
    both = SideBySide([OneHotEncoding().open(space), OneHotEncoding().open(space)])
    assert both.groups.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 and both.blocks.tolist() == [0] * 6 + [1] * 6


def test_columns_are_scaled_and_attributes_are_quantiles():
    pool = WholeSpace(CELLS, [OneHotEncoding(), PathEncoding()], {"sum": Sum(CELLS)})
    archs, features = pool._all.archs[0], pool._all.features[0].double()
    apart = (features[:, None] - features[None]).square().mean((0, 1))
    for group in range(int(pool.groups.max()) + 1):
        inside = pool.groups == group
        block = int(pool.blocks[inside][0])
        beside = len(set(pool.groups[pool.blocks == block].tolist()))
        assert float(apart[inside].sum()) == pytest.approx(1 / beside, rel=1e-4)
    sums, column = archs.sum(1), features[:, -1]
    missing = (sums > 8) & (sums % 2 == 1)
    assert missing.any() and (column[missing] == 0).all()
    order = sums[~missing].argsort(stable=True)
    assert (column[~missing][order].diff() >= 0).all() and column.min() < 0 < column.max()


def test_a_whole_space_has_every_network_once_and_knows_the_others():
    pool = WholeSpace(CELLS, [SubtreeEncoding()], {})
    names = pool._all.names[0]
    assert len(names.unique()) == len(names) == len(names_of(CELLS, ALL).unique())
    assert torch.equal(pool.names(ALL), names_of(CELLS, ALL))
    fresh = SideBySide([SubtreeEncoding().open(CELLS, pool._all.archs[0])])(ALL)
    scale = pool.features(ALL).sum() / fresh.sum()  # equal networks have equal codes, whichever of them is encoded
    assert torch.allclose(pool.features(ALL), fresh * scale, atol=1e-5)


def test_a_neighbourhood_is_half_of_mutants():
    space = Grid(6, 4)
    pool = Neighbourhood(space, [OneHotEncoding()], {}, count=40)
    best = space.sample(TrialRandom(5, 2), 2)
    found = pool.candidates(best, TrialRandom(6, 2))
    assert found.archs.shape == (2, 40, 6) and found.features.shape == (2, 40, 24)
    near = (found.archs[:, 20:, None] != best[:, None]).sum(-1).amin(-1)
    assert (near == 1).all()
    assert pool.candidates(best[:, :0], TrialRandom(6, 2)).archs.shape == (2, 40, 6)
