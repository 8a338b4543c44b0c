"""Processes that share a run: nothing is evaluated twice, and where one is killed the rest goes on."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from search.cli import main
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation, Proposal
from search.executors.board import Board
from search.executors.joined import JoinedExecutor, JoinedWorker
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import OneByOne
from tests.forks import COMMAND_LINE, server
from tests.processes import wait_until

TASK = """
import os, time
from search.evaluation import Evaluation
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne


class Noted(OneByOne):
    def __init__(self, space: SearchSpace, log: str = ""):
        self.space, self.log = space, log

    def evaluate_one(self, proposal):
        line = f"{os.getpid()} {proposal.seed} {proposal.architecture}\\n".encode()
        place = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(place, line)
        os.close(place)
        time.sleep(0.1)
        return Evaluation(float(sum(proposal.architecture)))
"""
BUDGET = 24


class Sum(OneByOne):
    """Adds up, or does what its architecture says."""

    def evaluate_one(self, proposal):
        if proposal.architecture[0] == 9:
            raise LookupError("lost")
        if proposal.architecture[0] == 8:
            raise CatchmarkError("mend it")
        return Evaluation(float(sum(proposal.architecture)))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Path("noted_task.py").write_text(TASK)
    task = {"class_path": "noted_task.Noted", "init_args": {"log": str(tmp_path / "log")}}
    executor = {"class_path": "JoinedExecutor", "init_args": {"workers": 3, "patience_seconds": 60.0}}
    content = {"space": "NASBench201", "targets": {"t": task}, "agents": {"random": "RandomSearch"}}
    content |= {"budget": BUDGET, "executor": executor}
    Path("r.yaml").write_text(dump_yaml(content))
    return content


def started():
    return server().start(COMMAND_LINE, ["run", "r.yaml", "--join", "shared", "--quiet"], stdout="said")


def lines():
    return Path("log").read_text().splitlines() if Path("log").exists() else []


def test_a_killed_leader_is_followed_and_nothing_is_evaluated_twice(recipe):
    children = [started() for _ in range(3)]
    wait_until(lambda: len(lines()) >= BUDGET // 3, lambda: Path("said").read_text())
    (lock,) = Path("shared").glob("journal.lock")
    leader = int(lock.read_text())
    assert leader in children
    os.kill(leader, signal.SIGKILL)
    codes = {child: server().wait(child) for child in children}
    assert codes.pop(leader) == -signal.SIGKILL and set(codes.values()) == {0}, Path("said").read_text()
    journal = Journal("shared/journal.sqlite", writable=False)
    (search,) = journal.searches()
    records = list(journal.records(search))
    assert len(records) == BUDGET and all(each.evaluation.status == "ok" for each in records)
    times = Counter(line.partition(" ")[2] for line in lines())
    assert len(times) == BUDGET
    # What the killed leader's own worker was at, nobody knows an answer to.
    twice = [line for line in lines() if times[line.partition(" ")[2]] > 1]
    assert len(twice) <= 2
    assert len({line.split()[0] for line in lines()}) > 1


def test_a_run_that_nobody_can_join_says_so(recipe, capsys):
    assert main(["run", "r.yaml", "--quiet"]) == 2
    assert "--join RUN" in capsys.readouterr().err
    Path("r.yaml").write_text(dump_yaml({key: recipe[key] for key in recipe if key != "executor"}))
    assert main(["run", "r.yaml", "--join", "shared"]) == 2
    assert "executor: {class_path: JoinedExecutor" in capsys.readouterr().err
    assert main(["run", "r.yaml", "--join", "shared", "--resume", "latest"]) == 2
    assert "leave out --resume" in capsys.readouterr().err


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "board")


def executor_on(folder, **arguments):
    executor = JoinedExecutor(2, **arguments)
    executor.place(folder)
    return executor


def test_a_worker_answers_and_what_it_answers_is_told_once(tmp_path):
    with executor_on(tmp_path) as executor:
        executor.begin(Sum())
        for index in range(3):
            executor.submit((0, index), Proposal((index, 2), seed=index))
        worker = JoinedWorker(executor.board)
        assert [worker.work_once() for _ in range(4)] == [True] * 3 + [False]
        told = dict(executor.wait() for _ in range(3))
        assert {ticket: each.score for ticket, each in told.items()} == {(0, 0): 2.0, (0, 1): 3.0, (0, 2): 4.0}
        assert not executor.board.over
    assert executor.board.over and not list((tmp_path / "board/jobs").iterdir())


def test_another_leader_takes_over_what_is_under_way(tmp_path):
    first, task = executor_on(tmp_path), Sum()
    task.space = NASBench201()
    first.begin(task)
    for index in range(2):
        first.submit((0, index), Proposal((index, 1), seed=index))
    JoinedWorker(first.board).work_once()
    second, task = executor_on(tmp_path), Sum()
    task.space = NASBench201()
    assert task.space.sizes and "sizes" in vars(task.space)  # it has computed what the other had not
    second.begin(task)
    for index in range(2):
        second.submit((7, index), Proposal((index, 1), seed=index))
    assert second.wait()[0] in ((7, 0), (7, 1))  # answered to the one before, by nobody again
    worker = JoinedWorker(second.board)
    assert worker.work_once() and not worker.work_once()
    assert second.wait()[1].score in (1.0, 2.0)


def test_a_lost_worker_is_replaced_and_its_late_answer_dropped(board, tmp_path):
    executor = executor_on(tmp_path, patience_seconds=0.2)
    executor.begin(Sum())
    executor.submit((0, 0), Proposal((1, 1), seed=0))
    lost = board.claim("lost")
    assert board.claim("other") is None
    time.sleep(0.5)
    board.beat()
    assert board.overdue(0.2) == [lost.key] and board.take_back(lost.key) and not board.touch(lost)
    assert JoinedWorker(board).work_once()
    assert not board.answer(lost, "lost", ("done", Evaluation(-1.0)))
    assert executor.wait()[1].score == 2.0


def test_a_job_whose_processes_are_lost_again_and_again_has_failed(board, tmp_path):
    executor = executor_on(tmp_path, patience_seconds=0.05, retries=0)
    executor.begin(Sum())
    executor.submit((0, 0), Proposal((1, 1), seed=0))
    board.claim("lost")
    ticket, evaluation = executor.wait()
    assert ticket == (0, 0) and evaluation.status == "failed" and "its process was lost once" in evaluation.reason


def test_what_goes_wrong_in_a_task(tmp_path):
    executor = executor_on(tmp_path)
    executor.begin(Sum())
    executor.submit((0, 0), Proposal((9,), seed=0))
    JoinedWorker(executor.board).work_once()
    assert executor.wait()[1].reason.startswith("LookupError: lost")
    executor.submit((0, 1), Proposal((8,), seed=0))
    JoinedWorker(executor.board).work_once()
    with pytest.raises(CatchmarkError, match="mend it"):
        executor.wait()


def test_what_others_may_write_is_not_executed(board):
    board.folder.chmod(0o777)
    with pytest.raises(CatchmarkError, match="others may write it"):
        Board(board.folder)
    (board.folder.parent / "file").write_text("")
    with pytest.raises(RunError, match="can't be written"):
        Board(board.folder.parent / "file")


@pytest.mark.parametrize(
    "arguments", [{"workers": 0}, {"workers": 1, "retries": -1}, {"workers": 1, "patience_seconds": 0}]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        JoinedExecutor(**arguments)
