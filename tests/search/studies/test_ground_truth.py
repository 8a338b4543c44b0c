"""Stand-alone performance: the same whatever evaluates it, in whatever order, and however often it is interrupted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from search.attributes.base import Attribute
from search.attributes.table_column import TableColumn
from search.errors import RunError
from search.evaluation import Evaluation
from search.randomness import TrialRandom
from search.runs.journal import Journal
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201
from search.studies.ground_truth import GroundTruth
from search.studies.landmarks import LandmarkChoice
from search.studies.supernet_job import STAND_ALONE
from search.tables.table import write_table
from search.tasks.base import OneByOne
from search.tasks.table import TableTask
from tests.search.agents.toy_spaces import Grid
from tests.search.executors.scrambled_executor import Scrambled


class Picky(OneByOne):
    """Knows two of three architectures, and takes its time."""

    def __init__(self):
        self.space, self.evaluated = NASBench201(), 0

    def evaluate_one(self, proposal):
        self.evaluated += 1
        total = sum((place + 1) * choice for place, choice in enumerate(proposal.architecture))
        return Evaluation(total + proposal.seed / 2**31) if total % 3 else Evaluation.failed("no luck")


def ask(truth, trial):
    """What a study asks of a trial."""
    archs = [NASBench201().draw("landmark", trial, k) for k in range(4)]
    landmarks = list(zip(archs, truth.evaluate(trial, "landmark", archs, trial), strict=True))
    return landmarks, truth.measure(trial, 5, set(archs), 10 + trial, trial)


def study(path, executor=None, failed=None, trials=2):
    journal = Journal(path)
    task = Picky()
    fail = (lambda name, record: failed.append(record.architecture)) if failed is not None else lambda *_: None
    try:
        truth = GroundTruth(task, journal, executor, fail)
        answers = [ask(truth, trial) for trial in range(trials)]
        records = [replace(r, evaluation=repr(r.evaluation)) for r in journal.records(STAND_ALONE)]
        return repr(answers), records, task.evaluated
    finally:
        journal.close()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return study(tmp_path_factory.mktemp("one") / "journal.sqlite")


@pytest.mark.parametrize("workers", [2, 5])
def test_in_whatever_order_evaluations_end_the_journal_is_the_same(workers, expected, tmp_path):
    executor, failed = Scrambled(workers), []
    answers, records, _ = study(tmp_path / "journal.sqlite", executor, failed)
    assert (answers, records) == expected[:2]
    assert max(executor.counts) >= 4, "all landmarks of a trial are under way together"
    assert len(failed) == sum("no luck" in record.evaluation for record in records) > 0
    assert [record.step for record in records] == list(range(len(records)))


class Stopping(Scrambled):
    def __init__(self, workers, after):
        super().__init__(workers, seed=after)
        self.left = after

    def wait(self):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().wait()


@pytest.mark.parametrize("after", [1, 3, 6, 12])
def test_interrupted_anywhere_it_goes_on_to_the_same(after, expected, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "journal.sqlite", Stopping(3, after))
    answers, records, evaluated = study(tmp_path / "journal.sqlite")
    assert (answers, records) == expected[:2]
    assert evaluated == len(records) - after


class Hopeless(Picky):
    def evaluate_one(self, proposal):
        return Evaluation(math.nan)


def test_a_truth_that_always_fails_ends_the_run(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    truth = GroundTruth(Hopeless(), journal, None, lambda *_: None)
    with pytest.raises(RunError, match="truth: 10 evaluations in a row failed, the last one with: the score is nan"):
        truth.measure(0, 20, set(), 1, 1)
    journal.close()


class OneOfFour(OneByOne):
    """A space of four networks."""

    def __init__(self):
        self.space = Grid(2, 2)

    def evaluate_one(self, proposal):
        return Evaluation(float(sum(proposal.architecture)))


class Sum(Attribute):
    """The sum of the choices."""

    def measure(self, architectures):
        yield from map(sum, architectures)


class Table(TableTask):
    """A few of NAS-Bench-101's cells: as of a public sample of them, most strings have no row."""

    def __init__(self, folder, cells):
        space = NASBench101()
        rows = cells
        write_table(
            folder / "cells.npz", rows.numpy(), {"cifar10_val_acc_108ep": np.arange(len(rows)) / 10}, space.name
        )
        super().__init__(space, str(folder / "cells.npz"), "cifar10", "val", "acc", 108)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    space = NASBench101()
    cells = space.canonical(space.sample(TrialRandom(3), 1500)[0]).unique(dim=0)[:300]
    return Table(tmp_path_factory.mktemp("table"), cells)


def test_landmarks_are_topped_up_and_no_network_is_drawn_twice(table, tmp_path):
    space, journal = table.space, Journal(tmp_path / "journal.sqlite")
    choices = [LandmarkChoice(20), LandmarkChoice(50), LandmarkChoice(2, "hamming", 3)]
    found = GroundTruth(table, journal, None, lambda *_: None).of_trial(0, 5, choices, 200)
    journal.close()
    cells = {stage: [space.canonical_of(arch) for arch, _ in pairs] for stage, pairs in found.items()}
    counts = {stage: len(each) for stage, each in cells.items()}
    assert counts == {"landmark random": 50, "landmark hamming 3": 2, "measured": 200}
    assert all(len(set(each)) == len(each) for each in cells.values())
    measured = set(cells.pop("measured"))
    assert not any(measured & set(each) for each in cells.values())
    assert not any(math.isnan(worth) for pairs in found.values() for _, worth in pairs)


def test_networks_of_a_table_are_drawn_equally_often(table):
    # Of the strings a seventh prunes to the cell without a vertex; of the rows that have a score it is one.
    empty = (0,) * 20 + (1,) + (0,) * 5
    known = table.known_architectures()
    assert tuple(table.space.canonical_of(empty)) in set(map(tuple, known.tolist()))
    first = [next(table.space.draw_distinct("first", k, among=known)) for k in range(150)]
    assert len(set(first)) > 100  # 300 rows, 150 draws: 118 on average
    assert first.count(table.space.canonical_of(empty)) < 6


class Fails(Picky):
    """Fails on every other one."""

    def evaluate_one(self, proposal):
        return Evaluation.failed("no") if proposal.architecture[0] % 2 else Evaluation(1.0)


def test_a_landmark_that_fails_is_replaced(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    found = GroundTruth(Fails(), journal, None, lambda *_: None).of_trial(0, 5, [LandmarkChoice(12)], 4)
    journal.close()
    assert len(found["landmark random"]) == 12 and not any(arch[0] % 2 for arch, _ in found["landmark random"])


def test_too_few_landmarks_are_refused(table, tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    truth = GroundTruth(Table(tmp_path, table.known_architectures()[:6]), journal, None, lambda *_: None)
    with pytest.raises(RunError, match="count is 10, but of 6 different networks the truth knew only 6"):
        truth.of_trial(0, 5, [LandmarkChoice(10)], 2)
    journal.close()


def test_landmarks_that_attributes_order_are_not_evaluated(tmp_path):
    space = NASBench201()
    task = TableTask(space, "nasbench201.npz", "cifar100", "val", "acc", 12)
    attributes = {
        "flops": TableColumn(space, "nasbench201.npz", "flops_m"),
        "few": TableColumn(space, "nasbench201.npz", "params_m", "min"),
    }
    # Methods with as many landmarks as they want share the first ones, whatever the order in which they stand.
    choices = [LandmarkChoice(30, worth="attributes"), LandmarkChoice(10), LandmarkChoice(8, worth="attributes")]
    journal = Journal(tmp_path / "journal.sqlite")
    found = GroundTruth(task, journal, None, lambda *_: None, attributes).of_trial(0, 5, choices, 20)
    stages = {record.stage for record in journal.records("stand_alone")}
    journal.close()
    assert set(found) == {"landmark random by attributes", "landmark random", "measured"}
    assert stages == {"landmark random", "measured"}
    archs, opinions = zip(*found["landmark random by attributes"], strict=True)
    assert len(set(archs)) == 30 and not set(archs) & {arch for arch, _ in found["measured"]}
    for place, (name, sign) in enumerate((("flops", 1), ("few", -1))):
        values = sign * attributes[name].values(torch.tensor(archs)).numpy()
        ranks = stats.rankdata(values)
        assert [each[place] for each in opinions] == pytest.approx(stats.norm.ppf((ranks - 0.5) / 30))


def test_too_few_networks_for_landmarks_that_nobody_trains_are_said(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    task = OneOfFour()
    truth = GroundTruth(task, journal, None, lambda *_: None, {"sum": Sum(task.space)})
    with pytest.raises(RunError, match=r"landmarks_from\.count is 5, but there are only 4 networks"):
        truth.of_trial(0, 5, [LandmarkChoice(5, worth="attributes")], 2)
    journal.close()
