"""The executor of processes, with real ones: they die, and nothing is lost or left."""

import os
import signal
import threading

import pytest

from search.errors import CatchmarkError
from search.evaluation import Proposal
from search.executors.base import Work
from search.executors.inline import evaluate_one
from search.executors.processes import ProcessExecutor
from tests.processes import alive, wait_until
from tests.search.executors.ray_tasks import Faulty, Plain, Unsendable, Unwelcome, evaluate, note, notes, tries


@pytest.fixture(scope="module")
def workers():
    """Two processes, which stay for all tests of this file."""
    with ProcessExecutor(2) as executor:
        yield executor


def test_evaluations_are_those_of_one_process(workers):
    asked = [(kind, seed) for kind in range(3) for seed in range(3)]
    found = evaluate(workers, Plain(), *asked)
    alone = [evaluate_one(Plain(), Proposal((kind, 0, 0, 0, 0, 0), seed)) for kind, seed in asked]
    assert [(e.status, e.reason, e.metrics) for e in found.values()] == [(e.status, e.reason, e.metrics) for e in alone]
    assert [repr(e.score) for e in found.values()] == [repr(e.score) for e in alone]


def test_a_killed_process_costs_nothing_and_one_that_always_dies_has_failed(workers, tmp_path):
    def kill_the_first():
        wait_until(lambda: tries(tmp_path, 1))
        os.kill(tries(tmp_path, 1)[0][0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    found = evaluate(workers, Faulty(tmp_path), (1, 10), (0, 11), (2, 1))
    killer.join()
    assert [found[number].status for number in range(3)] == ["ok", "ok", "failed"]
    assert len(tries(tmp_path, 1)) == 2 and len(tries(tmp_path, 2)) == 2
    assert found[2].reason.startswith("its worker died 2 times: its process was killed")


def test_what_stops_a_run_in_one_process_stops_it_here(workers, tmp_path):
    assert evaluate(workers, Faulty(tmp_path), (4, 2))[0].reason.startswith("ValueError: no such size")
    with pytest.raises(CatchmarkError, match="score 'x' is not logged"):
        evaluate(workers, Faulty(tmp_path), (4, 3))
    with pytest.raises(CatchmarkError, match=r"ended its process with SystemExit\(3\)"):
        evaluate(workers, Faulty(tmp_path), (4, 4))
    with pytest.raises(CatchmarkError, match=r"the task Unsendable can't be sent to workers: .*lock.*; open files"):
        workers.begin(Unsendable())
    with pytest.raises(CatchmarkError, match="a worker can't take the task"):
        evaluate(workers, Unwelcome(), (0, 0))


class Counting(Work):
    """Counts as far as it is told, aloud, and on from where it was when it died."""

    def __init__(self, folder):
        self.folder = str(folder)

    def do(self, job, say):
        for number in range(len(notes(self.folder)), job):
            note(self.folder, number, os.getpid())
            say(number)
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return job * 10

    def trainers(self):
        return []


def test_other_work_is_heard_of_and_begun_again_where_its_process_died(workers, tmp_path):
    heard = []
    workers.begin_work(Counting(tmp_path), lambda ticket, what: heard.append((ticket, what)))
    workers.submit((0, 5), 4)
    assert workers.wait() == ((0, 5), 40)
    assert [what for _, what in heard] == [0, 1, 2, 3] and {ticket for ticket, _ in heard} == {(0, 5)}
    (_, first), (_, second), (_, third), _ = notes(tmp_path)
    assert first == second != third


def test_what_is_dropped_or_closed_leaves_no_process(tmp_path):
    executor = ProcessExecutor(1, retries=0)
    executor.begin(Faulty(tmp_path))
    executor.submit((0, 0), Proposal((1, 0, 0, 0, 0, 0), 1))
    wait_until(lambda: tries(tmp_path, 1))
    executor.drop()
    assert not alive(tries(tmp_path, 1)[0][0])
    executor.submit((0, 1), Proposal((0, 0, 0, 0, 0, 0), 1))
    assert executor.wait()[1].status == "ok"
    executor.close()
    assert not alive(tries(tmp_path, 0)[0][0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": 1, "threads": 0}, "threads is 0"),
        ({"workers": 1, "retries": -1}, "retries is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ProcessExecutor(**arguments)
