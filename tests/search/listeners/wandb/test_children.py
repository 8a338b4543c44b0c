"""A W&B run for each child: what it holds is what the journal holds."""

import math

import pytest

from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation
from search.listeners.wandb.children import ChildRuns
from search.listeners.wandb.connection import WandbConnection
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests.search.agents.toy_spaces import Grid
from tests.search.listeners.wandb.test_searches import Stopper, logged, no_settings, stop  # noqa: F401 - no_settings: a fixture

SPACE = Grid()


class Trained(OneByOne):
    """Two epochs are logged; every third child diverges in its second, every fifth fails before it begins."""

    def __init__(self):
        self.space = SPACE

    def evaluate_one(self, proposal):
        seed = proposal.seed
        epochs = [{"train_loss": 2.0 + seed / 2**31}, {"train_loss": 1.0, "val_accuracy": 100 * seed / 2**31}]
        if seed % 5 == 0:
            return Evaluation.failed("out of memory", 0.5)
        if seed % 3 == 0:
            return Evaluation.failed("diverged: train_loss is nan after epoch 2", 1.0, [epochs[0], {}])
        return Evaluation(epochs[1]["val_accuracy"], {"val_loss": 0.5, "odd": math.nan}, 2.0, history=epochs)


def run(folder, trials=1, stopper=None, task=Trained, batch=1):
    journal = Journal(folder / "journal.sqlite")
    children = ChildRuns(WandbConnection(folder, "quickstart"), SPACE, {"seed": 3})
    agent = RandomSearch(SPACE, trials, seed=1)
    search = Search("target/random", agent, [Stage("a stage", task, 6, True)], 7, batch=batch, most_failures=99)
    try:
        run_search(search, journal, [children, *([stopper] if stopper else [])])
    except KeyboardInterrupt:
        assert stopper is not None
    finally:
        children.close()
        records = list(journal.records("target/random"))
        journal.close()
    return records


def check(folder, records):
    """Every child has one run, which is whole."""
    runs = {tuple(each.config[key] for key in ("step", "slot", "trial")): each for each in logged(folder)}
    assert len(runs) == len(logged(folder)) == len(records)
    for record in records:
        child, evaluation = runs[record.step, record.slot, record.trial], record.evaluation
        assert (child.run.run_group, child.run.job_type) == ("quickstart", "child")
        assert list(child.run.tags) == ["child", "grid", "random", "target", "seed 3"]
        assert child.config["choices"] == list(record.architecture)
        assert (child.config["stage"], child.config["seed"]) == ("a stage", record.seed)
        assert child.points == [{"epoch": 1 + k, **values} for k, values in enumerate(evaluation.history)]
        summary = {key: value for key, value in child.summary.items() if key[0] != "_"}
        assert (
            summary["status"] == f'"{evaluation.status}"' and float(summary["cost_seconds"]) == evaluation.cost_seconds
        )
        assert "odd" not in summary
        assert child.exits[0].exit_code == (evaluation.status != "ok")
        if evaluation.status == "ok":
            assert float(summary["score"]) == evaluation.score and float(summary["val_loss"]) == 0.5
        else:
            assert summary["reason"] == f'"{evaluation.reason}"' and "score" not in summary


@pytest.mark.parametrize(("trials", "batch"), [(1, 1), (2, 3)])
def test_every_child_is_a_run(trials, batch, tmp_path):
    records = run(tmp_path, trials, batch=batch)
    assert {record.evaluation.status for record in records} == {"ok", "failed"}
    check(tmp_path, records)
    names = {each.run.display_name for each in logged(tmp_path)}
    assert ("quickstart/target/random/2.3 trial 2" if trials > 1 else "quickstart/target/random/6") in names
    assert len(names) == len(records)


def test_a_resumed_search_logs_each_child_once(tmp_path):
    run(tmp_path, stopper=Stopper(3, stop))
    begun = {each.folder for each in logged(tmp_path)}
    assert len(begun) == 3
    check(tmp_path, run(tmp_path))
    assert begun < {each.folder for each in logged(tmp_path)}  # what was whole is not logged again


def test_a_child_that_was_cut_short_is_logged_again(tmp_path):
    records = run(tmp_path)
    child = next(each for each in logged(tmp_path) if each.config["step"] == 2)
    (child.folder / "complete").unlink()
    run(tmp_path)
    assert not child.folder.exists()
    check(tmp_path, records)


def test_a_look_up_is_no_child(tmp_path):
    class LookUp(Trained):
        instant = True

        def evaluate_one(self, proposal):
            return Evaluation(1.0)

    assert len(run(tmp_path, task=LookUp)) == 6 and not logged(tmp_path)
