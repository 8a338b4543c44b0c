"""Searches of several fidelities that go on from what an evaluation has left, killed at any moment and resumed."""

import functools
import json
import os
import signal
from pathlib import Path

import pytest

from search.agents.asha import ASHA
from search.agents.hyperband import Hyperband
from search.evaluation import Evaluation
from search.executors.inline import InlineExecutor
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests.processes import killed_in
from tests.search.agents.toy_spaces import Grid
from tests.search.executors.scrambled_executor import Scrambled

BUDGET, LEVELS = 22, [2, 4, 8]
AGENTS = {
    "hyperband": functools.partial(Hyperband, levels=LEVELS, eta=2.0),  # of which successive halving is a part
    "asha": functools.partial(ASHA, levels=LEVELS, eta=2.0),
}
SHAPES = {
    "in batches": {"trials": 2, "batch": 3},
    "trials on an executor": {"trials": 2, "batch": 1, "executor": InlineExecutor()},
}


class Epochs(OneByOne):
    """A training is a list of its epochs' seeds; an evaluation writes the list down, and its score depends on it.

    Args:
        dies_at: number of the evaluation, and of the moment in it, at which the process is killed.
    """

    honours = frozenset({"epochs", "parent"})
    keeps_artifact = True

    def __init__(self, dies_at=None):
        self.space, self.dies_at, self.made = Grid(), dies_at, 0

    def evaluate_one(self, proposal):
        self.made += 1
        self.moment(0)
        trained = [] if proposal.inherit is None else json.loads(Path(proposal.inherit).read_text())
        assert not Path(proposal.leave).exists(), "what a killed evaluation has left is gone"
        before, wanted = len(trained), int(proposal.fidelity.get("epochs", LEVELS[-1]))
        while len(trained) < wanted:
            trained.append(proposal.seed % 101)
            Path(proposal.leave).write_text(json.dumps(trained)[:-1])  # half of it
            self.moment(1)
        Path(proposal.leave).write_text(json.dumps(trained))
        self.moment(2)
        score = sum(proposal.architecture) + sum(trained) / 101 / wanted
        metrics = {"before": before, "trained": len(trained)}
        return Evaluation(score, metrics, len(trained) - before, artifact=proposal.leave)

    def moment(self, number):
        if (self.made, number) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


def search_on(folder, agent, trials, batch, executor=None, dies_at=None):
    """Go on with the search in a folder."""
    stage = Stage("epochs", functools.partial(Epochs, dies_at), BUDGET, adapting=True)
    search = Search("toy/mine", AGENTS[agent](Grid(), trials, 3), [stage], 3, batch, executor=executor)
    if executor is not None and trials > 1:
        search.alone = lambda trial: AGENTS[agent](Grid(), 1, 3 + trial)
    journal = Journal(folder / "journal.sqlite")
    try:
        run_search(search, journal)
    finally:
        journal.close()


def result(folder):
    """All that a search leaves: its evaluations, and every file with its content."""
    journal = Journal(folder / "journal.sqlite", writable=False)
    records = list(journal.records("toy/mine"))
    journal.close()
    files = {str(path.relative_to(folder)): path.read_text() for path in sorted((folder / "artifacts").rglob("*-*"))}
    return records, files


@functools.cache
def reference(agent, shape, folder):
    folder.mkdir(exist_ok=True)
    search_on(folder, agent, **SHAPES[shape])
    return result(folder)


@pytest.fixture(params=AGENTS)
def agent(request):
    return request.param


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture
def whole(agent, shape, tmp_path_factory):
    return reference(agent, shape, tmp_path_factory.getbasetemp() / f"{agent}_{shape.replace(' ', '_')}")


def test_every_training_goes_on_where_it_was_left(whole, shape):
    see_that_every_training_goes_on(whole[0], SHAPES[shape]["trials"])


def see_that_every_training_goes_on(records, trials):
    """No epoch is paid for twice: each evaluation adds to what the same architecture had one level below."""
    assert len(records) == BUDGET * trials
    reached = {}
    for record in records:
        at = int(record.proposal.fidelity.get("epochs", LEVELS[-1]))
        found, key = record.evaluation.metrics, (record.trial, record.architecture)
        assert found["trained"] == at and found["before"] == reached.get(key, 0)
        assert record.evaluation.cost_seconds == at - found["before"]
        assert (record.proposal.parent is not None) == (found["before"] > 0)
        reached[key] = at
    assert sum(record.full for record in records) >= 2 * trials


@pytest.mark.parametrize("dies_at", [(7, 0), (9, 1), (14, 2)])
def test_killed_in_an_evaluation_it_goes_on_bit_for_bit(whole, agent, shape, dies_at, tmp_path):
    assert killed_in(search_on, tmp_path, agent=agent, **SHAPES[shape], dies_at=dies_at)
    killed_in(search_on, tmp_path, agent=agent, **SHAPES[shape], dies_at=(3, 2))
    search_on(tmp_path, agent, **SHAPES[shape])
    assert repr(result(tmp_path)) == repr(whole)


def test_with_workers_that_finish_in_any_order(agent, tmp_path):
    """Killed, then in another order: still every training goes on where it was left."""
    killed_in(search_on, tmp_path, agent=agent, trials=1, batch=1, executor=Scrambled(3), dies_at=(9, 1))
    search_on(tmp_path, agent, trials=1, batch=1, executor=Scrambled(3))
    see_that_every_training_goes_on(result(tmp_path)[0], 1)
