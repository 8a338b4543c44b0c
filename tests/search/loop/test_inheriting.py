"""An agent whose children inherit a parent's weights, and a task of two stages that stops below a running mean.

Both as a stranger would write them. Killed at any instant and resumed, a search finds what it would have found.
"""

import functools
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from search.agents.base import Agent
from search.errors import RunError
from search.evaluation import Evaluation, Proposal
from search.executors.inline import InlineExecutor
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests.processes import killed_in
from tests.search.agents.toy_spaces import Grid
from tests.search.executors.scrambled_executor import Scrambled

BUDGET, RANDOM = 14, 3
"""Evaluations a trial, and how many of them begin with an architecture drawn at random."""


class Inheriting(Agent):
    """Mutates the best architecture that left its weights, and trains on from these while it is worth it."""

    def __init__(self, space, trials=1, seed=0):
        super().__init__(space, trials, seed)
        # For each trial what it was told of: architecture, score, and whether it left its weights.
        self.told = [[] for _ in range(trials)]

    def propose(self, n=1):
        fresh = self.space.sample(self.rng, n)
        best = [max((each for each in told if each[2]), key=lambda each: each[1], default=None) for told in self.told]
        parents = [row[0] if one is None else torch.tensor(one[0]) for row, one in zip(fresh, best, strict=True)]
        children = self.space.mutate(torch.stack(parents)[:, None].expand(-1, n, -1), self.rng)
        return [self._trial(*each) for each in zip(fresh, children, best, self.told, strict=True)]

    def _trial(self, fresh, children, best, told):
        if best is None or len(told) < RANDOM:
            return [Proposal(tuple(arch)) for arch in fresh.tolist()]
        mean = sum(score for _, score, _ in told) / len(told)
        return [
            Proposal(tuple(arch), fidelity={"epochs": 2}, parent=tuple(best[0]), stop_below=mean)
            for arch in children.tolist()
        ]

    def observe(self, proposals, evaluations, rewards):
        for told, asked, found in zip(self.told, proposals, evaluations, strict=True):
            for proposal, answer in zip(asked, found, strict=True):
                told.append([list(proposal.architecture), answer.score, answer.artifact is not None])

    def state_dict(self):
        return super().state_dict() | {"told": [[list(each) for each in told] for told in self.told]}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.told = [[list(each) for each in told] for told in state["told"]]


def moved(weights, architecture, rate):
    return [weight + rate * (choice - weight) / 7 for weight, choice in zip(weights, architecture, strict=True)]


def worth(weights, architecture):
    return sum(architecture) - sum(abs(w - choice) for w, choice in zip(weights, architecture, strict=True))


class TwoStages(OneByOne):
    """Weights are numbers that move towards the architecture's choices, in small steps first; leaves them behind.

    Args:
        dies_at: number of the evaluation and of the moment in it at which the process is killed.
    """

    honours = frozenset({"epochs", "parent", "stop_below"})
    keeps_artifact = True

    def __init__(self, dies_at=None):
        self.space, self.dies_at, self.made = Grid(), dies_at, 0

    def evaluate_one(self, proposal):
        self.made += 1
        self.moment(0)
        weights = [proposal.seed % 97 / 9.7] * len(self.space.decisions)
        if proposal.inherit is not None:
            weights = json.loads(Path(proposal.inherit, "weights.json").read_text())
        assert not Path(proposal.leave).exists(), "what a killed evaluation has left is gone"
        Path(proposal.leave).mkdir()
        for stage, rate in enumerate((0.3, 0.9)):
            for _ in range(int(proposal.fidelity.get("epochs", 4))):
                weights = moved(weights, proposal.architecture, rate)
            Path(proposal.leave, "weights.json").write_text("[half of what"[: 13 if stage == 0 else 0])
            self.moment(1 + stage)
            score = worth(weights, proposal.architecture) - (proposal.seed % 9 if stage == 0 else 0)
            if stage == 0 and proposal.stop_below is not None and score < proposal.stop_below:
                return Evaluation(score, {"stages": 1}, 1.0)
        Path(proposal.leave, "weights.json").write_text(json.dumps(weights))
        self.moment(3)
        return Evaluation(score, {"stages": 2}, 2.0, artifact=proposal.leave)

    def moment(self, number):
        if (self.made, number) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


def search_on(folder, trials, batch, executor=None, dies_at=None, dies_in_observe=None):
    """Go on with the search in a folder."""

    class Dying(Inheriting):
        def observe(self, proposals, evaluations, rewards):
            super().observe(proposals, evaluations, rewards)
            if len(self.told[0]) == dies_in_observe:
                os.kill(os.getpid(), signal.SIGKILL)

    kind = Inheriting if dies_in_observe is None else Dying
    stage = Stage("two stages", functools.partial(TwoStages, dies_at), BUDGET, adapting=True)
    search = Search("toy/inheriting", kind(Grid(), trials, 3), [stage], 3, batch, executor=executor)
    if executor is not None and trials > 1:
        search.alone = lambda trial: kind(Grid(), 1, 3 + trial)
    journal = Journal(folder / "journal.sqlite")
    try:
        run_search(search, journal)
    finally:
        journal.close()


def result(folder):
    """All that a search leaves: its evaluations, and every file with its content."""
    journal = Journal(folder / "journal.sqlite", writable=False)
    records = list(journal.records("toy/inheriting"))
    journal.close()
    files = {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted((folder / "artifacts").rglob("*"))
        if path.is_file()
    }
    return records, files


SHAPES = {
    "one by one": {"trials": 1, "batch": 1},
    "in batches": {"trials": 2, "batch": 3},
    "on an executor": {"trials": 1, "batch": 1, "executor": InlineExecutor()},
    "trials on an executor": {"trials": 2, "batch": 1, "executor": InlineExecutor()},
}


@functools.cache
def reference(shape, folder):
    folder.mkdir(exist_ok=True)
    search_on(folder, **SHAPES[shape])
    return result(folder)


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture
def whole(shape, tmp_path_factory):
    return reference(shape, tmp_path_factory.getbasetemp() / shape.replace(" ", "_"))


def test_children_inherit_and_stop(whole, shape):
    records, files = whole
    assert len(records) == BUDGET * SHAPES[shape]["trials"]
    inheriting = [record for record in records if record.proposal.parent is not None]
    stopped = [record for record in records if record.evaluation.metrics["stages"] == 1]
    assert len(inheriting) > BUDGET / 3 and 0 < len(stopped) < len(inheriting)
    assert all(record.evaluation.score < record.proposal.stop_below for record in stopped)
    assert all(record.evaluation.artifact is None for record in stopped)
    left = {record.evaluation.artifact for record in records} - {None}
    assert {str(Path(file).parent) for file in files} == left, "what was stopped has left nothing behind"
    assert len(left) == len(records) - len(stopped)


def test_the_weights_are_those_of_the_parent(whole, shape):
    """Every score once more, from the files."""
    records, files = whole
    if SHAPES[shape]["batch"] > 1:
        pytest.skip("in a batch the parent's weights are those before the step")
    latest = {}
    for record in records:
        weights, asked = [record.seed % 97 / 9.7] * 6, record.proposal
        if asked.parent is not None:
            weights = json.loads(files[latest[record.trial, asked.parent] + "/weights.json"])
        for rate in (0.3, 0.9)[: int(record.evaluation.metrics["stages"])]:
            for _ in range(int(asked.fidelity.get("epochs", 4))):
                weights = moved(weights, asked.architecture, rate)
        unlucky = record.seed % 9 if record.evaluation.metrics["stages"] == 1 else 0
        assert worth(weights, asked.architecture) - unlucky == record.evaluation.score
        if record.evaluation.artifact is not None:
            latest[record.trial, record.architecture] = record.evaluation.artifact


@pytest.mark.parametrize("dies_at", [(1, 0), (2, 3), (5, 1), (6, 2), (7, 3), (9, 0), (9, 1), (9, 2), (9, 3), (12, 3)])
def test_killed_in_an_evaluation(whole, shape, dies_at, tmp_path):
    """Before it begins, with half of an artifact left, and with a whole one that the journal does not know."""
    killed = 0
    for _ in range(3):  # again and again, until an attempt does not get that far
        killed += killed_in(search_on, tmp_path, **SHAPES[shape], dies_at=dies_at)
    assert killed > 0 or dies_at[1] == 3 or dies_at[1] == 2
    search_on(tmp_path, **SHAPES[shape])
    assert repr(result(tmp_path)) == repr(whole)


@pytest.mark.parametrize("told", [3, 6, 9])
def test_killed_before_a_step_is_committed(whole, shape, told, tmp_path):
    assert killed_in(search_on, tmp_path, **SHAPES[shape], dies_in_observe=told)
    search_on(tmp_path, **SHAPES[shape])
    assert repr(result(tmp_path)) == repr(whole)


def test_what_was_under_way_inherits_the_same_again(tmp_path):
    """Three at a time, in another order after the kill: what was under way is evaluated again as it was asked."""
    killed_in(search_on, tmp_path, trials=1, batch=1, executor=Scrambled(3), dies_at=(9, 2))
    search_on(tmp_path, trials=1, batch=1, executor=Scrambled(3))
    records, files = result(tmp_path)
    assert len(records) == BUDGET and sum(record.proposal.parent is not None for record in records) > 5
    left = {record.evaluation.artifact for record in records} - {None}
    assert {str(Path(file).parent) for file in files} == left


class Careless(Inheriting):
    """Asks for the weights of an architecture that nobody evaluated."""

    def propose(self, n=1):
        return [[Proposal((0,) * 6, parent=(1,) * 6)] * n] * self.trials


class Short(Inheriting):
    def propose(self, n=1):
        return [[Proposal((0,) * 6, fidelity={"resolution": 8})] * n] * self.trials


class Elsewhere(TwoStages):
    def evaluate_one(self, proposal):
        return Evaluation(1.0, artifact="/etc/hostname")


class Silent(Elsewhere):
    keeps_artifact = False


@pytest.mark.parametrize(
    "agent, task, words",
    [
        (Careless, TwoStages, r"asks in trial 0 for the weights of \(1, 1, 1, 1, 1, 1\), of which no evaluation"),
        (Short, TwoStages, r"asks for resolution, which TwoStages does not honour \(it honours epochs, parent, stop_b"),
        (Inheriting, Elsewhere, "names an artifact, '/etc/hostname', but it may leave one at"),
        (Inheriting, Silent, "names an artifact, '/etc/hostname', but its keeps_artifact is not set"),
    ],
)
def test_what_can_not_be_done_is_refused(agent, task, words, tmp_path):
    search = Search("toy/mine", agent(Grid()), [Stage("toy", task, 4, True)], 0)
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(RunError, match=words):
        run_search(search, journal)
    journal.close()


def test_a_parent_whose_weights_were_removed(tmp_path):
    killed_in(search_on, tmp_path, trials=1, batch=1, dies_at=(8, 0))
    for path in list((tmp_path / "artifacts").rglob("weights.json")):
        path.unlink()
        path.parent.rmdir()
    with pytest.raises(RunError, match="is gone, whose weights an evaluation is to inherit"):
        search_on(tmp_path, trials=1, batch=1)
