"""Spaces confined to what a table lists: which networks those are, which are near, and that no agent asks another."""

import itertools
import math

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.cost.complexity import count_parameters
from lightning_modules.path_samplers.uniform import UniformSampler
from search.agents.base import Agent
from search.cli import main
from search.contracts import agent as contract
from search.randomness import TrialRandom
from search.recipes.catalogue import find_classes
from search.spaces.head import Head
from search.spaces.listed import ListedNetworks
from search.spaces.nasbench101 import NASBench101
from search.tables import SHIPPED_FOLDER
from search.tables.table import write_table
from search.tasks.table import TableTask

from .masked_space import MaskedSpace

AGENTS = find_classes("search.agents", Agent)
COLUMN = {"dataset": "d", "split": "val", "metric": "acc", "epochs": 12}
LISTED = sorted(list(MaskedSpace().enumerate())[::3])


def make(folder, rows=LISTED, space="masked", name="t.npz"):
    scores = np.arange(len(rows), dtype=float)
    return str(write_table(folder / name, np.array(rows), {"d_val_acc_12ep": scores}, space))


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Every third architecture of a space with rules."""
    return ListedNetworks(MaskedSpace(), make(tmp_path_factory.mktemp("part"), LISTED[::-1]))


@pytest.fixture(scope="module")
def benchmark():
    """The cells of NAS-Bench-101 that ship."""
    return ListedNetworks(NASBench101(), str(SHIPPED_FOLDER / "nasbench101.npz"))


# ---- which are listed ------------------------------------------------------------------------------------------------


def test_what_is_listed_is_valid_and_nothing_else(part):
    assert list(part.enumerate()) == LISTED and 30 < len(LISTED) < 100
    product = list(itertools.product(*(range(-1, size + 1) for size in part.sizes)))
    valid = part.is_valid(torch.tensor(product)).tolist()
    assert [arch for arch, good in zip(product, valid, strict=True) if good] == LISTED
    for arch in MaskedSpace().enumerate():
        if arch in LISTED:
            assert part.check(arch) == arch and part.parse(part.format(arch)) == arch
        else:
            for refuse in (part.check, part.format, part.build, lambda a: part.parse(MaskedSpace().format(a))):
                with pytest.raises(ValueError, match=r"listed masked: decision '.*' of .* is ., allowed: "):
                    refuse(arch)


def test_decision_by_decision_the_listed_ones_are_reached(part):
    for t, size in enumerate(part.sizes):
        for prefix in sorted({arch[:t] for arch in LISTED}):
            following = {arch[t] for arch in LISTED if arch[:t] == prefix}
            mask = part.valid_choices(torch.tensor(prefix, dtype=torch.long)).tolist()
            assert mask == [choice in following for choice in range(size)]


def test_each_is_drawn_and_as_often_as_any_other(part):
    drawn = [tuple(arch) for arch in part.sample(TrialRandom(1), 100 * len(LISTED))[0].tolist()]
    counts = [drawn.count(arch) for arch in LISTED]
    assert min(counts) > 0 and sum(counts) == len(drawn) and stats.chisquare(counts).pvalue > 1e-4


# ---- which are near --------------------------------------------------------------------------------------------------


def test_neighbours_are_the_nearest(part):
    archs = torch.tensor(LISTED)
    near, there = part.neighbours(archs)
    assert there.all() and near.shape == (len(LISTED), sum(part.sizes) - len(part.sizes), len(part.sizes))
    for arch, found in zip(LISTED, near.tolist(), strict=True):
        distances = [sum(a != b for a, b in zip(arch, other, strict=True)) for other in found]
        known = sorted(sum(a != b for a, b in zip(arch, other, strict=True)) for other in LISTED if other != arch)
        assert distances == known[: len(found)] and len(set(map(tuple, found))) == len(found)
    again = part.neighbours(archs[5:8])
    assert torch.equal(again[0], near[5:8])


def test_a_mutant_is_any_neighbour(part):
    arch = torch.tensor(LISTED[7])
    near = {tuple(each) for each in part.neighbours(arch[None])[0][0].tolist()}
    mutants = [tuple(each) for each in part.mutate(arch.expand(1, 4000, -1), TrialRandom(3))[0].tolist()]
    counts = [mutants.count(each) for each in near]
    assert sum(counts) == len(mutants) and stats.chisquare(counts).pvalue > 1e-4


def test_a_short_list_has_few_neighbours(tmp_path):
    space = ListedNetworks(MaskedSpace(), make(tmp_path, LISTED[:3]))
    near, there = space.neighbours(torch.tensor(LISTED[:1]))
    assert {tuple(each) for each in near[there].tolist()} == set(LISTED[1:3]) and there.sum() == 2
    alone = ListedNetworks(MaskedSpace(), make(tmp_path, LISTED[:1]))
    archs = alone.sample(TrialRandom(0, trials=2), 3)
    assert torch.equal(alone.mutate(archs, TrialRandom(0, trials=2)), archs)
    assert not alone.neighbours(archs[:, 0])[1].any()


# ---- searches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_no_agent_asks_what_is_not_listed(name, part):
    subject = contract.subjects(AGENTS[name], {"part": part})[0]
    asked = contract.advance(subject.begin(), contract.BUDGET)
    assert part.is_valid(asked).all() and len(asked.unique(dim=1)[0]) > 1


def test_scores_are_those_of_listed_networks_where_the_table_has_more(part, tmp_path):
    everything = list(MaskedSpace().enumerate())
    table = make(tmp_path, everything[::-1])
    task = TableTask(part, table, **COLUMN)
    expected = [float(len(everything) - 1 - everything.index(arch)) for arch in LISTED]
    assert task.all_scores().tolist() == expected and task.known_architectures() is None
    other = next(arch for arch in everything if arch not in LISTED)
    assert math.isnan(task.scores(torch.tensor(other)))
    none = ListedNetworks(MaskedSpace(), make(tmp_path, [other], name="other.npz"))
    with pytest.raises(ValueError, match="none of its architectures belongs to the space 'listed masked'"):
        TableTask(none, make(tmp_path), **COLUMN)


def test_tables_of_other_spaces_are_refused(tmp_path):
    for rows, space, words in (
        (LISTED, "toy", "the table is of the space 'toy', not of 'masked'"),
        ([(2, 1, 3, 0, 0)], "masked", "do not belong to the space 'masked'"),
        ([(0, 0)], "masked", "do not belong to the space 'masked'"),
        (np.zeros((0, 5)), "masked", "do not belong to the space 'masked'"),
    ):
        with pytest.raises(ValueError, match=words):
            ListedNetworks(MaskedSpace(), make(tmp_path, rows, space))
    with pytest.raises(FileNotFoundError, match="no table 'absent"):
        ListedNetworks(MaskedSpace(), "absent.npz")


def test_at_toy_size_networks_are_built_as_the_whole_spaces_are(tmp_path, capsys):
    recipe = {
        "space": {"class_path": "ListedNetworks", "init_args": {"space": "NASBench101", "table": "nasbench101.npz"}},
        "targets": {"digits": {"class_path": "TrainedTask", "init_args": {"data": "DigitsDataModule"}}},
        "agents": {"random": "RandomSearch"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", str(tmp_path / "r.yaml"), "--tiny", "--dry-run"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["targets"]["digits"]["init_args"]["build"] == NASBench101.toy_build()


# ---- NAS-Bench-101 ---------------------------------------------------------------------------------------------------


def test_the_cells_of_nasbench101_that_ship(benchmark):
    table = str(SHIPPED_FOLDER / "nasbench101.npz")
    task = TableTask(benchmark, table, "cifar10", "val", "acc", 108, fidelities=[4, 12, 36])
    scores = task.all_scores()
    assert scores.shape == (30_001,) and scores.max() == pytest.approx(94.9119, abs=1e-4)
    best = next(itertools.islice(benchmark.enumerate(), int(scores.argmax()), None))
    assert benchmark.format(best) == (
        "conv3x3-bn-relu(0)|maxpool3x3(1)|conv3x3-bn-relu(2)|conv1x1-bn-relu(3)|conv3x3-bn-relu(0,3,4)|output(0,5)"
    )
    with np.load(table, allow_pickle=False) as arrays:
        row = int((torch.from_numpy(arrays["arch"]) == torch.tensor(best)).all(-1).long().argmax())
        assert count_parameters(benchmark.build(best)) == pytest.approx(arrays["params_m"][row] * 1e6, abs=1)
        # No network fails at any level; and each was trained once, for what is right of 9,984 images is a whole number.
        for epochs in (4, 12, 36, 108):
            right = arrays[f"cifar10_val_acc_{epochs}ep"].astype(float) / 100 * 9984
            np.testing.assert_allclose(right, right.round(), atol=1e-3)


def test_a_cell_is_listed_under_any_numbering(benchmark):
    text = "conv3x3-bn-relu(0)|conv1x1-bn-relu(0)|maxpool3x3(1)|conv3x3-bn-relu(2,3)|conv3x3-bn-relu()|output(3,4)"
    swapped = "conv1x1-bn-relu(0)|conv3x3-bn-relu(0)|maxpool3x3(2)|conv3x3-bn-relu(1,3)|maxpool3x3()|output(3,4)"
    assert benchmark.parse(text) == benchmark.parse(swapped) and benchmark.format(benchmark.parse(swapped)) == text
    assert not benchmark.is_valid(torch.tensor(NASBench101().parse(swapped)))


def test_neighbours_of_a_cell_are_as_many_as_in_the_whole_space_and_nearer_than_chance(benchmark):
    archs = benchmark.sample(TrialRandom(4), 50)[0]
    near, there = benchmark.neighbours(archs)
    assert near.shape == (50, 31, 26) and there.all() and benchmark.is_valid(near).all()
    others = benchmark.sample(TrialRandom(5), 50)[0]
    assert benchmark.distance(near, archs[:, None]).max() < benchmark.distance(archs, others).double().mean()


def test_paths_of_its_supernet_are_listed_cells_each_as_often_as_any_other(benchmark):
    """Where paths are drawn decision by decision, a seventh of those of NAS-Bench-101 is one and the same cell."""
    supernet = benchmark.build_supernet(lambda width: BatchStatistics(width), Head(3, 1), 8, 1)
    whole = NASBench101().build_supernet(lambda width: BatchStatistics(width), Head(3, 1), 8, 1)
    shapes = [{name: weight.shape for name, weight in each.named_parameters()} for each in (supernet, whole)]
    assert shapes[0] == shapes[1]
    sampler = UniformSampler(benchmark)
    paths = [sampler.path(0, step) for step in range(600)]
    drawn = torch.tensor([path.choices for path in paths])
    assert benchmark.is_valid(drawn).all()
    # Of 30,001 cells 600 draws repeat about six.
    by_decisions = NASBench101().canonical(torch.tensor([NASBench101().draw("path", step) for step in range(600)]))
    assert len(drawn.unique(dim=0)) > 580 > 540 > len(by_decisions.unique(dim=0))
    assert supernet(torch.randn(2, 1, 8, 8), paths[0]).shape == (2, 3)
