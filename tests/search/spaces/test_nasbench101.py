"""NAS-Bench-101: the graph's rules, the benchmark's own hashes, counts and parameters, and shared weights."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.networks.cost.complexity import count_parameters
from lightning_modules.networks.supernet import Path
from search.randomness import TrialRandom
from search.spaces.head import Head
from search.spaces.nasbench101 import EDGES, NASBench101

SPACE = NASBench101()
CHAIN = "conv3x3-bn-relu(0)|maxpool3x3(0,1)|conv1x1-bn-relu()|conv3x3-bn-relu()|conv3x3-bn-relu()|output(1,2)"
PATHS = [
    set(itertools.pairwise((0, *between, 6))) for k in range(6) for between in itertools.combinations(range(1, 6), k)
]
"""The edges of every path from input to output."""
PUBLISHED = {2: 1, 3: 6, 4: 84, 5: 2441, 6: 62010, 7: 359082}
"""Different cells by their number of vertices (of the benchmark's 423,624)."""


@pytest.fixture(scope="module")
def benchmark(real_data):
    with np.load(real_data("nasbench101_sample.npz"), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("adjacency", "ops", "n_vertices", "hash", "trainable_parameters")}


def architecture_of(benchmark, row):
    """A row's architecture, its output moved to vertex 6."""
    last = int(benchmark["n_vertices"][row]) - 1
    matrix, labels = benchmark["adjacency"][row], benchmark["ops"][row]
    number = {**{vertex: vertex for vertex in range(last)}, last: 6}
    edges = {(number[a], number[b]) for a, b in np.argwhere(matrix).tolist()}
    operations = [int(labels[vertex]) if vertex < last else 0 for vertex in range(1, 6)]
    return (*(int(edge in edges) for edge in EDGES), *operations)


def edges_of(arch):
    return {edge for edge, choice in zip(EDGES, arch, strict=False) if choice}


def some(n, seed=0):
    return [tuple(arch) for arch in SPACE.sample(TrialRandom(seed), n)[0].tolist()]


# ---- what is valid ---------------------------------------------------------------------------------------------------


def test_the_decisions_are_the_upper_triangle_and_five_operations():
    assert sorted(EDGES) == list(itertools.combinations(range(7), 2))
    assert SPACE.sizes == (2,) * 21 + (3,) * 5
    assert [decision.name for decision in SPACE.decisions][:2] == ["1<-0", "2<-1"]
    assert SPACE.decisions[-1].name == "vertex 5"


def test_a_choice_is_valid_if_some_path_still_fits():
    for arch in some(300):
        for decided in range(21):
            prefix = arch[:decided]
            present, absent = edges_of(prefix), set(EDGES[:decided]) - edges_of(prefix)
            edge = {EDGES[decided]}
            without = [path for path in PATHS if not path & absent]
            expected = [
                any(len(present | path) <= 9 for path in without if not path & edge),
                any(len(present | path | edge) <= 9 for path in without),
            ]
            assert SPACE.valid_choices(torch.tensor(prefix, dtype=torch.long)).tolist() == expected, (arch, decided)


def test_valid_architectures_have_a_path_and_at_most_nine_edges():
    generator = torch.Generator().manual_seed(3)
    archs = torch.cat(
        [torch.rand(1000, 21, generator=generator).lt(0.4).long(), torch.randint(0, 3, (1000, 5), generator=generator)],
        dim=1,
    )
    expected = [len(edges_of(arch)) <= 9 and any(path <= edges_of(arch) for path in PATHS) for arch in archs.tolist()]
    assert 200 < sum(expected) < 800
    assert SPACE.is_valid(archs).tolist() == expected
    for arch, good in zip(archs.tolist(), expected, strict=True):
        if good:
            assert SPACE.check(arch) == tuple(arch)
        else:
            with pytest.raises(ValueError, match=r"nasbench101: decision '.*' of .* allowed: "):
                SPACE.check(arch)


def test_samples_are_spread_over_cells_of_every_size():
    sizes = Counter(len(SPACE.graph(arch).vertices) + 2 for arch in some(2000))
    assert min(sizes[vertices] for vertices in range(2, 8)) > 60


# ---- strings ---------------------------------------------------------------------------------------------------------


def test_a_string_names_each_vertex_and_what_it_reads():
    arch = SPACE.parse(CHAIN)
    assert edges_of(arch) == {(0, 1), (0, 2), (1, 2), (1, 6), (2, 6)} and arch[21:] == (0, 2, 1, 0, 0)
    assert SPACE.format(arch) == CHAIN
    assert [(edge.source, edge.target, edge.label) for edge in SPACE.diagram(arch)] == [
        ("0", "1", "conv3x3-bn-relu"),
        ("0", "2", "maxpool3x3"),
        ("1", "2", "maxpool3x3"),
        ("1", "6", "concatenate"),
        ("2", "6", "concatenate"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("conv1x1-bn-relu()", "conv1x1-bnrelu()", "vertex 3 of .* is 'conv1x1-bnrelu', .*mean 'conv1x1-bn-relu'"),
        ("maxpool3x3(0,1)", "maxpool3x3(1,0)", r"vertex 2 of .* reads \(1,0\), it may read vertices 0 to 1, in asc"),
        ("maxpool3x3(0,1)", "maxpool3x3(0,2)", r"vertex 2 of .* reads \(0,2\)"),
        ("maxpool3x3(0,1)", "maxpool3x3(0,)", r"vertex 2 of .* is 'maxpool3x3\(0,\)', it must read as"),
        ("|output(1,2)", "", "has 5 vertices, 6 are needed"),
        ("output(1,2)", "output()", "decision '6<-0' of .* is 0, allowed: "),
        ("output(1,2)", "maxpool3x3(1,2)", "vertex 6 of .* is 'maxpool3x3', allowed: output"),
    ],
)
def test_a_wrong_string_is_explained(old, new, message):
    with pytest.raises(ValueError, match=f"nasbench101: .*{message}"):
        SPACE.parse(CHAIN.replace(old, new))


# ---- one cell, many architectures ------------------------------------------------------------------------------------


def renumberings(arch):
    """The pruned cell in every order of its vertices."""
    pruned = SPACE.prune(arch)
    for order in itertools.permutations(range(1, 6)):
        new = {0: 0, 6: 6, **dict(enumerate(order, start=1))}
        moved = {(new[a], new[b]) for a, b in edges_of(pruned)}
        if all(a < b for a, b in moved):
            old = {number: vertex for vertex, number in new.items()}
            yield (*(int(edge in moved) for edge in EDGES), *(pruned[20 + old[vertex]] for vertex in range(1, 6)))


def with_junk(arch):
    """Another operation, and an edge into it if there is one left, on a vertex that changes nothing."""
    edges, changed = edges_of(arch), list(arch)
    idle = [vertex for vertex in range(1, 6) if not any(vertex in edge for edge in edges)]
    if idle:
        changed[20 + idle[0]] = 2
        if len(edges) < 9:
            changed[EDGES.index((0, idle[0]))] = 1
    return tuple(changed)


def test_architectures_of_one_cell_have_one_hash_and_one_canonical_form():
    most = 0
    for arch in some(100):
        others = {with_junk(other) for other in renumberings(arch)}
        assert {SPACE.spec_hash(other) for other in others} == {SPACE.spec_hash(arch)}
        canonical = SPACE.canonical(torch.tensor([arch, *others]))
        assert (canonical == canonical[0]).all()
        most = max(most, len(others))
        assert SPACE.spec_hash(tuple(canonical[0].tolist())) == SPACE.spec_hash(arch)
    assert most > 20


def test_canonical_forms_are_valid_fixed_and_compact():
    archs = SPACE.sample(TrialRandom(4, trials=2), 300)
    canonical = SPACE.canonical(archs)
    assert canonical.shape == archs.shape and SPACE.is_valid(canonical).all()
    assert torch.equal(SPACE.canonical(canonical), canonical)
    for arch in canonical.flatten(0, 1).tolist():
        vertices = SPACE.graph(arch).vertices
        assert vertices == tuple(range(1, len(vertices) + 1)) and SPACE.prune(arch) == tuple(arch)


def test_pruning_drops_dead_ends():
    text = "conv3x3-bn-relu()|maxpool3x3(0,1)|conv1x1-bn-relu(2)|maxpool3x3(0)|maxpool3x3()|output(2)"
    pruned = SPACE.prune(SPACE.parse(text))
    assert SPACE.format(pruned) == (
        "conv3x3-bn-relu()|maxpool3x3(0)|conv3x3-bn-relu()|conv3x3-bn-relu()|conv3x3-bn-relu()|output(2)"
    )
    canonical = SPACE.canonical(torch.tensor(pruned))
    assert SPACE.format(tuple(canonical.tolist())).startswith("maxpool3x3(0)|conv3x3-bn-relu()|")


def shapes():
    """The different edges that canonical cells have, as architectures: int64 [n, 26]."""
    bits = torch.arange(2**21)
    count = sum((bits >> k) & 1 for k in range(21))
    bits = bits[(count >= 1) & (count <= 9)]
    has = {edge: (bits >> k) & 1 for k, edge in enumerate(EDGES)}
    keep = torch.ones(len(bits), dtype=torch.bool)
    for vertex in range(1, 6):
        # Used vertices come first, and have a way in and a way out.
        reads = sum(has[source, vertex] for source in range(vertex)) > 0
        feeds = sum(has[vertex, target] for target in range(vertex + 1, 7)) > 0
        later = sum(has[edge] for edge in EDGES if vertex + 1 in edge) > 0 if vertex < 5 else torch.zeros_like(keep)
        keep &= (reads == feeds) & (reads | ~later)
    keep &= sum(has[source, 6] for source in range(6)) > 0
    archs = torch.stack([(bits[keep] >> k) & 1 for k in range(21)], dim=1)
    archs = torch.cat([archs, torch.zeros(len(archs), 5, dtype=torch.long)], dim=1)
    return torch.unique(SPACE.canonical(archs), dim=0)


@pytest.fixture(scope="module")
def cells():
    """Every canonical architecture, by its number of vertices."""
    # Every cell is a shape with operations on it, and renumbering turns the shape into its canonical form.
    found = {}
    forms = shapes()
    operations = torch.cartesian_prod(*[torch.arange(3)] * 5)
    size = 2 + torch.stack(
        [forms[:, [k for k, edge in enumerate(EDGES) if v in edge]].any(1) for v in range(1, 6)]
    ).sum(0)
    for vertices in range(2, 8):
        mine = forms[size == vertices]
        labels = operations[(operations[:, vertices - 2 :] == 0).all(1)]
        labelled = mine.repeat_interleave(len(labels), dim=0)
        labelled[:, 21:] = labels.repeat(len(mine), 1)
        codes = SPACE.code(SPACE.canonical(labelled))
        order = codes.sort().indices
        first = torch.ones(len(codes), dtype=torch.bool)
        first[1:] = codes[order][1:] != codes[order][:-1]
        found[vertices] = SPACE.canonical(labelled[order[first]])
    return found


def test_there_are_423624_cells(cells):
    assert {vertices: len(archs) for vertices, archs in cells.items()} == PUBLISHED
    assert sum(PUBLISHED.values()) == 423_624


def test_different_cells_have_different_hashes(cells):
    small = torch.cat([cells[vertices] for vertices in range(2, 6)]).tolist()
    assert len({SPACE.spec_hash(arch) for arch in small}) == len(small) == 1 + 6 + 84 + 2441


def test_hashes_are_the_benchmarks(benchmark):
    rows = range(0, len(benchmark["hash"]), 10)
    archs = [architecture_of(benchmark, row) for row in rows]
    for row, arch in zip(rows, archs, strict=True):
        assert SPACE.prune(arch) == arch
        assert SPACE.spec_hash(arch) == benchmark["hash"][row].tobytes().hex()
    assert len(torch.unique(SPACE.canonical(torch.tensor(archs)), dim=0)) == len(archs) == 3001


# ---- networks --------------------------------------------------------------------------------------------------------


def parameters(arch):
    with torch.device("meta"):
        return count_parameters(SPACE.build(arch))


def test_parameters_are_the_benchmarks(benchmark):
    smallest = np.argsort(benchmark["n_vertices"], kind="stable")[:10]
    rows = [*smallest.tolist(), *range(0, 30_000, 750)]
    assert len(rows) == 50
    other_numberings = 0
    for row in rows:
        arch, expected = architecture_of(benchmark, row), int(benchmark["trainable_parameters"][row])
        if parameters(arch) != expected:
            # 128 = 43 + 43 + 42: the benchmark trained another numbering, with the odd channels elsewhere.
            assert len(set(SPACE.graph(arch).sources[-1]) - {0}) == 3
            assert expected in {parameters(other) for other in renumberings(arch)}
            other_numberings += 1
    assert other_numberings <= 2


def seeded_supernet(norm):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = SPACE.build_supernet(norm, Head(4), channels=8, cells=1)
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias, 0, 0.3)
        return supernet, torch.randn(6, 3, 8, 8)


@pytest.mark.parametrize("affine", [True, False])
def test_a_path_gives_what_its_network_gives(affine):
    supernet, images = seeded_supernet(lambda c: nn.BatchNorm2d(c, affine=affine, track_running_stats=False))
    for arch in some(30, seed=8):
        network = SPACE.build(arch, Head(4), channels=8, cells=1)
        before = network.state_dict()["stem.convolution.weight"].clone()
        supernet.hand_down(arch, network)
        assert not torch.equal(before, network.state_dict()["stem.convolution.weight"])
        torch.testing.assert_close(supernet(images, Path(arch)), network(images), rtol=1e-4, atol=1e-5)


def test_a_network_of_another_cell_is_not_handed_anything():
    supernet, _ = seeded_supernet(nn.BatchNorm2d)
    with pytest.raises(ValueError, match="not the stand-alone network of"):
        supernet.hand_down(
            SPACE.parse(CHAIN),
            SPACE.build(SPACE.parse(CHAIN.replace("()", "(0)", 1).replace("1,2)", "1,3)")), Head(4), 8, 1),
        )


def test_weights_of_operations_get_a_gradient():
    supernet, images = seeded_supernet(nn.BatchNorm2d)
    arch = SPACE.parse(CHAIN)
    weights = tuple(torch.ones(size, requires_grad=True) for size in SPACE.sizes)
    plain = supernet(images, Path(arch))
    weighted = supernet(images, Path(arch, weights))
    torch.testing.assert_close(weighted, plain)
    nn.functional.cross_entropy(weighted, torch.arange(6) % 4).backward()
    for t, weight in enumerate(weights):
        if t in (21, 22):  # vertices 1 and 2 are all there is
            assert weight.grad.nonzero().flatten().tolist() == [arch[t]]
        else:
            assert weight.grad is None


def test_a_relaxed_path_is_refused():
    supernet, images = seeded_supernet(nn.BatchNorm2d)
    with pytest.raises(ValueError, match="continuous relaxation"):
        supernet(images, Path(None, tuple(torch.ones(size) for size in SPACE.sizes)))
