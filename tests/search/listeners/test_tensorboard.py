"""TensorBoard's files hold what the journal holds, also where a run was stopped and goes on."""

import importlib.util

import pytest

from search.agents.random_search import RandomSearch
from search.errors import CatchmarkError
from search.evaluation import Evaluation
from search.listeners.several import Several
from search.listeners.tensorboard import TensorBoardCurves, tensorboard_listeners
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests.search.agents.toy_spaces import Grid
from tests.search.stopper import Stopper

SPACE = Grid()
THERE = importlib.util.find_spec("tensorboard") is not None
needs_it = pytest.mark.skipif(not THERE, reason="tensorboard is not installed: pip install catchmark[tensorboard]")


class Sums(OneByOne):
    """A third of the evaluations fail."""

    def __init__(self):
        self.space = SPACE

    def evaluate_one(self, proposal):
        if sum(proposal.architecture) % 3 == 0:
            return Evaluation.failed("divisible by 3", 0.5)
        return Evaluation(float(sum(proposal.architecture)), {"loss": 1 / (1 + sum(proposal.architecture))}, 2.0)


def run(folder, trials, stop=None):
    """A search of eight evaluations a trial; what its journal holds."""
    curves, journal = TensorBoardCurves(folder / "tensorboard"), Journal(folder / "journal.sqlite")
    search = Search("digits/random", RandomSearch(SPACE, trials, seed=1), [Stage("a stage", Sums, 8, True)], 7)
    try:
        run_search(search, journal, [curves, *([Stopper(stop)] if stop else [])])
    except KeyboardInterrupt:
        assert stop is not None
    finally:
        curves.close()
        records = list(journal.records(search.name))
        journal.close()
    return records


def scalars(folder, run):
    """By tag the steps and values that TensorBoard reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard" / run)).Reload()
    return {tag: [(each.step, each.value) for each in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@needs_it
@pytest.mark.parametrize("stop", [None, 5])
def test_a_search_is_drawn_as_the_journal_has_it(tmp_path, stop):
    if stop:
        run(tmp_path, 1, stop)
    records = run(tmp_path, 1)
    drawn = scalars(tmp_path, "digits/random")
    scored = [(1 + k, r.evaluation.score) for k, r in enumerate(records) if r.evaluation.status == "ok"]
    assert len(records) == 8 and 0 < len(scored) < 8 and drawn["score"] == scored
    assert drawn["best_score"] == [(k, max(v for at, v in scored if at <= k)) for k in range(scored[0][0], 9)]
    assert drawn["failed"] == [(1 + k, float(r.evaluation.status != "ok")) for k, r in enumerate(records)]
    assert [value for _, value in drawn["metrics/loss"]] == pytest.approx([1 / (1 + score) for _, score in scored])


@needs_it
def test_of_several_trials_the_mean_is_drawn(tmp_path):
    records = run(tmp_path, 3)
    failed = [sum(r.evaluation.status != "ok" for r in records if r.step == step) for step in range(8)]
    assert scalars(tmp_path, "digits/random")["failed"] == [(1 + k, float(count)) for k, count in enumerate(failed)]


@needs_it
def test_epochs_of_a_training_that_goes_on_are_drawn_once(tmp_path):
    first = Several([TensorBoardCurves(tmp_path / "tensorboard")])
    first.trained("sandwich", 1, {"epoch": 1, "loss": 3.0}, True)
    first.close()
    second = Several([TensorBoardCurves(tmp_path / "tensorboard")])
    second.trained("sandwich", 1, {"epoch": 1, "loss": 3.0}, False)
    second.trained("sandwich", 1, {"epoch": 2, "loss": 2.0}, True)
    second.training_ended("sandwich", 0, [{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}])
    second.trained("sandwich", 5, {}, False, trial=1)  # it ended in an earlier attempt
    assert scalars(tmp_path, "sandwich-0") == {"loss": [(1, 3.0), (2, 2.0), (3, 1.0)]}
    assert not (tmp_path / "tensorboard" / "sandwich-1").exists()


@needs_it
def test_what_goes_wrong_there_does_not_stop_the_run(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    assert len(run(tmp_path, 1)) == 8
    assert capsys.readouterr().err.count("TensorBoard: curves have stopped") == 1


def test_it_is_asked_for_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("CATCHMARK_TENSORBOARD", raising=False)
    assert tensorboard_listeners(tmp_path) == []
    monkeypatch.setenv("CATCHMARK_TENSORBOARD", "1")
    if THERE:
        (listener,) = tensorboard_listeners(tmp_path)
        assert listener.folder == tmp_path / "tensorboard"
    else:
        with pytest.raises(CatchmarkError, match="pip install tensorboard"):
            tensorboard_listeners(tmp_path)
