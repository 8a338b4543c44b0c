"""Stand-alone performance: the same whatever evaluates it, in whatever order, and however often it is interrupted."""

import math
from dataclasses import replace

import pytest

from search.errors import RunError
from search.evaluation import Evaluation
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.studies.ground_truth import GroundTruth
from search.studies.supernet_job import STAND_ALONE
from search.tasks.base import OneByOne
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
