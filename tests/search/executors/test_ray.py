"""The executor on Ray, with real workers: they die, hang, run out of memory, and are cut off; nothing is lost."""

import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from datamodules.digits import DigitsDataModule
from lightning_modules.classification import ClassificationModule
from search.agents.regularized_evolution import RegularizedEvolution
from search.commands.run import run_recipe
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation, Proposal
from search.executors.inline import evaluate_one
from search.executors.processes import ProcessExecutor
from search.executors.ray import RayExecutor
from search.executors.ray_groups import processes_of, was_lost
from search.executors.ray_session import RaySession
from search.loop.run_search import run_search
from search.loop.search import Listener, Search, Stage
from search.recipes.recipe import load_recipe
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.tasks.measured_latency import MeasuredLatencyTask
from search.tasks.trained import TrainedTask
from search.training.launch import Launch
from search.training.trainer_arguments import arguments_here, strategy_of_own_processes
from tests import processes as running
from tests.forks import COMMAND_LINE, ROOT
from tests.processes import alive, wait_until
from tests.search.agents.toy_spaces import Grid
from tests.search.executors.ray_tasks import (
    Faulty,
    Meeting,
    Plain,
    Share,
    Unsendable,
    Unwelcome,
    evaluate,
    note,
    notes,
    tries,
)
from tests.search.studies.test_supernet_study import recipe as supernets
from tests.search.studies.test_supernet_study import timeless

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is missing: pip install "catchmark[ray]"')


@pytest.fixture(scope="module")
def ray_on_this_machine():
    """One Ray for the file: it takes seconds to start. Executors use a connection that is there, and leave it."""
    handler = signal.getsignal(signal.SIGTERM)
    session = RaySession(None, {"CPU": 1, "GPU": 0, "guest": 1}, workers=10)
    assert signal.getsignal(signal.SIGTERM) is handler  # Ray's own would end the process with no word
    yield session
    session.close()


@pytest.fixture(scope="module")
def workers(ray_on_this_machine):
    with RayExecutor(2, retries=1) as executor:
        yield executor


@pytest.fixture(scope="module")
def one_worker(ray_on_this_machine):
    with RayExecutor(1, cpus=2, resources={"guest": 1}) as executor:
        yield executor


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def run_on(executor, task, journal, budget, name="a"):
    stage = Stage("label", lambda: task, budget, adapting=False)
    agent = RegularizedEvolution(Grid(), seed=1)
    run_search(Search(name, agent, [stage], 7, most_failures=99, saving_share=math.inf, executor=executor), journal)
    return list(journal.records(name))


# ---- side by side ------------------------------------------------------------------------------------------------


def test_evaluations_overlap(workers, journal, tmp_path):
    records = run_on(workers, Meeting(Grid(), str(tmp_path)), journal, 4)
    assert [each.evaluation.reason for each in records] == [""] * 4
    assert len({each.evaluation.metrics["process"] for each in records}) == 2
    assert os.getpid() not in {each.evaluation.metrics["process"] for each in records}


def test_one_worker_is_the_search_in_one_process(one_worker, tmp_path):
    found = []
    for name, executor in {"inline": None, "ray": one_worker}.items():
        journal = Journal(tmp_path / name)
        records = run_on(executor, Plain(), journal, 25)
        found.append(repr((records, journal.state("a"))))
        journal.close()
    assert found[0] == found[1]


# ---- faults ------------------------------------------------------------------------------------------------------


def test_a_killed_worker_costs_nothing(workers, tmp_path):
    """Killed from outside in the middle of an evaluation, which is then made by another; the others know nothing."""

    def kill():
        wait_until(lambda: tries(tmp_path, 1))
        os.kill(tries(tmp_path, 1)[0][0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = evaluate(workers, Faulty(tmp_path), (1, 10), (0, 11))
    killer.join()
    assert [each.status for each in found.values()] == ["ok", "ok"] and found[0].score == 1
    tried = tries(tmp_path, 1)
    assert len(tried) == 2 and tried[0][0] != tried[1][0] and tried[0][1:] == tried[1][1:]


def test_an_evaluation_that_kills_every_worker_has_failed(workers, tmp_path):
    found = evaluate(workers, Faulty(tmp_path), (2, 1), (0, 2))
    assert found[0].status == "failed" and found[1].status == "ok"
    assert found[0].reason == "its worker died 2 times: its process was killed, ran out of memory, or crashed"
    assert len(tries(tmp_path, 2)) == 2  # retries: 1


def test_an_evaluation_that_hangs_has_failed_and_leaves_nothing(workers, tmp_path, monkeypatch):
    """Those beside it are done before there is a limit, so that it says nothing of how fast they are."""
    workers.begin(Faulty(tmp_path))
    for number, kind in enumerate((3, 0, 0)):
        workers.submit((0, number), Proposal((kind, 0, 0, 0, 0, 0), number))
    beside = dict(workers.wait() for _ in range(2))
    assert [evaluation.status for evaluation in beside.values()] == ["ok", "ok"] and (0, 0) not in beside
    (child,) = hanging(tmp_path)
    monkeypatch.setattr(workers, "time_limit_seconds", 0.5)
    ticket, evaluation = workers.wait()
    assert ticket == (0, 0) and evaluation.cost_seconds >= 0.5
    assert evaluation.reason == "time limit of 0.5 s reached, its worker was killed"
    wait_until(lambda: not alive(child))


def hanging(folder):
    """The process that an evaluation which hangs has started."""
    wait_until(lambda: any(len(each) == 1 for each in notes(folder)))
    return next(each for each in notes(folder) if len(each) == 1)


def test_an_exception_or_too_little_memory_is_a_failed_evaluation(workers, tmp_path):
    found = evaluate(workers, Faulty(tmp_path), (4, 1), (4, 2), (0, 5))
    assert found[0].reason.startswith("MemoryError")
    assert found[1].reason.startswith("ValueError: no such size (ray_tasks.py:")
    assert found[2].status == "ok"
    assert len({each[0] for each in notes(tmp_path)}) <= 2  # nobody died of it


@pytest.mark.parametrize(
    "seed, error, words",
    [(3, CatchmarkError, r"^score 'x' is not logged$"), (4, RunError, r"^the task ended its process with SystemExit")],
)
def test_what_stops_a_run_in_one_process_stops_it_here(seed, error, words, workers, tmp_path):
    with pytest.raises(CatchmarkError, match=words) as caught:
        evaluate(workers, Faulty(tmp_path), (4, seed))
    assert type(caught.value) is error


def test_a_task_that_cannot_travel(one_worker):
    import ray

    words = r"the task Unsendable can't be sent to workers: .*lock.*; open files"
    with pytest.raises(CatchmarkError, match=words):
        one_worker.begin(Unsendable())
    with pytest.raises(CatchmarkError, match="a worker can't take the task") as caught:
        evaluate(one_worker, Unwelcome(), (0, 0))
    assert "\n" not in str(caught.value) and "this is no number" in str(caught.value)
    # The worker that could not is gone, though the traceback knows it: what is reserved is reserved for another.
    evaluate(one_worker, Plain(), (0, 1))
    wait_until(lambda: ray.available_resources().get("guest") == 9)


def test_a_worker_that_nobody_can_offer(ray_on_this_machine):
    with RayExecutor(1, resources={"no_such_thing": 1}, start_seconds=0.5) as executor:
        with pytest.raises(
            RunError, match=r"^no worker has started in 0.5 s: one needs 1 CPU, 1 no_such_thing, Ray has"
        ):
            evaluate(executor, Plain(), (0, 0))
    with pytest.raises(CatchmarkError, match=r"2 workers with gpus: 50 need 100 GPUs, this machine has \d"):
        RayExecutor(2, gpus=50).begin(Plain())


JOIN = """
import sys
from search.executors.ray import RayExecutor
from tests.search.executors.ray_tasks import Plain, evaluate

for address in sys.argv[1:]:
    try:
        with RayExecutor(1, address=address) as there:
            print(evaluate(there, Plain(), (1, 5))[0].score)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_cluster_is_joined_and_left(server, ray_on_this_machine):
    """By another process, which leaves it as it was; and one that is not there is said so at once."""
    import ray

    with running.kept_port() as nobody:
        addresses = [f"127.0.0.1:{nobody}", ray.get_runtime_context().gcs_address]
        refused, joined = server.run(JOIN, addresses, folder=ROOT).stdout.splitlines()
    assert refused.startswith(f"CatchmarkError executor.address: there is no Ray cluster at '{addresses[0]}' (")
    assert joined == str(math.sin(1) + 5 / 3)
    assert ray.is_initialized()


def test_the_task_is_sent_once_and_workers_stay(workers, journal, tmp_path):
    """Stage by stage the same processes, each of which must take part."""
    processes = []
    for name in ("a", "b"):
        (folder := tmp_path / name).mkdir()
        records = run_on(workers, Meeting(Grid(), str(folder)), journal, 4, name)
        processes.append({record.evaluation.metrics["process"] for record in records})
    assert processes[0] == processes[1] and len(processes[0]) == 2


def test_threads_are_the_cpus_and_workers_wait_for_nobody(one_worker):
    """Beside busy programs they get what the run itself would get."""
    (evaluation,) = evaluate(one_worker, Share(), (0, 0)).values()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert (evaluation.score, evaluation.metrics) == (2, {"environment": 2, "niceness": own})


# ---- candidates that are groups of processes ---------------------------------------------------------------------

DEAD_END = (3, 1, 2, 0, 0, 0)  # what the first node computes leads nowhere


class Member(ClassificationModule):
    """Says which process trains, and gets into trouble in one of the groups of two that train: the first, the second.

    Args:
        network: to train.
        folder: where it says so.
        trouble: what happens.
        which: of the groups.
    """

    def __init__(self, network, folder, trouble="", which=1):
        super().__init__(network)
        self.folder, self.trouble, self.which = str(folder), trouble, which

    def on_train_batch_start(self, batch, index):
        if index == 0:
            note(self.folder, os.getpid(), os.getppid())
        if index == 1 and self.trouble and len(notes(self.folder)) in (2 * self.which - 1, 2 * self.which):
            wait_until(lambda: len(notes(self.folder)) == 2 * self.which)
            if self.trouble == "a process is killed" and self.global_rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1000)


class Reserved(TrainedTask):
    """Says what Ray has reserved for a candidate; where an earlier training has met, another program listens now."""

    def evaluate_one(self, proposal):
        import ray

        with socket.create_server(("127.0.0.1", 0)) as other:
            os.environ["MASTER_PORT"] = str(other.getsockname()[1])
            evaluation = super().evaluate_one(proposal)
        evaluation.metrics["reserved"] = ray.get_runtime_context().get_assigned_resources()["CPU"]
        return evaluation


def group(folder, strategy="ddp", trouble="", which=1, kind=TrainedTask, **trainer):
    return kind(
        NASBench201(),
        DigitsDataModule(batch_size=32),
        partial(Member, folder=folder, trouble=trouble, which=which),
        epochs=1,
        build={"channels": 4, "cells": 1},
        threads=1,
        trainer={"accelerator": "cpu", "devices": 2, "strategy": strategy, "limit_train_batches": 4} | trainer,
    )


@pytest.fixture(scope="module")
def groups(ray_on_this_machine, single_then_groups):
    with RayExecutor(1, retries=1) as executor:
        yield executor


def train_on(executor, task):
    executor.begin(task)
    executor.submit((0, 0), Proposal(DEAD_END, 5))
    return executor.wait()[1]


@pytest.fixture(scope="module")
def trained_inline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inline")
    task = group(folder, "ddp_fork_find_unused_parameters_true")
    evaluation = evaluate_one(task, Proposal(DEAD_END, 5))
    assert evaluation.status == "ok" and len(notes(folder)) == 2
    return evaluation


def same(ours, theirs):
    return (ours.status, ours.score, ours.metrics) == (theirs.status, theirs.score, theirs.metrics)


def test_a_candidate_on_two_devices_is_trained_as_in_one_process(groups, trained_inline, tmp_path):
    """By two processes of one worker, to the last bit, and with the cores of two."""
    found = train_on(groups, group(tmp_path, kind=Reserved))
    assert found.metrics.pop("reserved") == 2, found
    assert same(found, trained_inline)
    (first, worker), (second, same_worker) = notes(tmp_path)
    assert first != second and worker == same_worker != os.getpid()
    wait_until(lambda: not alive(first) and not alive(second))


@pytest.mark.parametrize("trouble", ["a process is killed", "the worker is killed"])
def test_a_group_that_loses_a_process_is_trained_again(trouble, groups, trained_inline, tmp_path):
    killer = threading.Thread(target=kill_the_worker, args=(tmp_path,))
    if trouble == "the worker is killed":
        killer.start()
    assert same(train_on(groups, group(tmp_path, trouble=trouble)), trained_inline)
    assert len(notes(tmp_path)) == 4
    wait_until(lambda: not any(alive(process) for process, _ in notes(tmp_path)))


def kill_the_worker(folder):
    wait_until(lambda: len(notes(folder)) == 2)
    os.kill(notes(folder)[0][1], signal.SIGKILL)


def test_a_group_that_hangs_has_failed_and_leaves_nothing(groups, tmp_path, monkeypatch):
    """A limit is set when it has begun, so that it says nothing of how fast a worker imports."""
    assert train_on(groups, group(tmp_path, trouble="hangs", which=2)).status == "ok"
    groups.submit((0, 1), Proposal(DEAD_END, 5))
    wait_until(lambda: len(notes(tmp_path)) == 4)
    monkeypatch.setattr(groups, "time_limit_seconds", 0.5)
    _, evaluation = groups.wait()
    assert evaluation.reason == "time limit of 0.5 s reached, its worker was killed"
    processes = {process for each in notes(tmp_path)[2:] for process in each}
    assert len(processes) == 3
    wait_until(lambda: not any(map(alive, processes)))


SINGLE_THEN_GROUPS = """
import sys

from search.executors.ray import RayExecutor
from tests.search.executors.ray_tasks import Plain, evaluate
from tests.search.executors.test_ray import Reserved, group, train_on

with RayExecutor(1) as executor:
    print(evaluate(executor, Plain(), (1, 5))[0].score, flush=True)
    print(train_on(executor, group(sys.argv[1], kind=Reserved)).metrics["reserved"], flush=True)
    print(train_on(executor, group(sys.argv[2], trouble="hangs")).reason, flush=True)
"""


@pytest.fixture(scope="module")
def single_then_groups(server):
    """A process with a Ray of its own, which starts while groups are tested, and ends up with a group that hangs."""
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="cm"))
    fine, hanging = root / "fine", root / "hanging"
    fine.mkdir(), hanging.mkdir()
    process = server.start(
        SINGLE_THEN_GROUPS,
        [fine, hanging],
        folder=ROOT,
        environment={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(root)},
        stdout=root / "said",
        stderr=root / "errors",
    )
    yield process, hanging
    end(server, process)
    shutil.rmtree(root)


def end(server, process):
    """``kill -9``, where it has not ended."""
    if process in server.started:
        os.kill(process, signal.SIGKILL)
        server.wait(process)


def test_what_a_candidate_is_not_to_blame_for():
    assert was_lost(Evaluation.failed("ProcessExitedException: process 1 terminated with signal SIGKILL"))
    assert not was_lost(Evaluation.failed("RuntimeError: shapes do not match")) and not was_lost(Evaluation(1.0))


def test_groups_may_follow_single_processes_and_end_with_a_driver_that_is_killed(single_then_groups):
    """What is reserved grows with them, beyond what Ray on this machine was started with."""
    driver, hanging = single_then_groups
    wait_until(lambda: len(notes(hanging)) >= 2 or not alive(driver))
    said, errors = ((hanging.parent / name).read_text() for name in ("said", "errors"))
    assert alive(driver), f"the group did not hang: {said}{errors}"
    assert [*map(float, said.splitlines())] == [math.sin(1) + 5 / 3, 2]
    processes = descendants_of(driver)
    assert {process for each in notes(hanging) for process in each} < set(processes)
    os.kill(driver, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, processes)))


@pytest.mark.parametrize(
    "trainer, processes, strategy",
    [
        ({"devices": 2}, 2, "ddp_fork_find_unused_parameters_true"),
        ({"devices": "2", "strategy": "ddp"}, 2, "ddp_fork_find_unused_parameters_true"),
        ({"devices": [0, 3, 5], "strategy": "ddp_fork"}, 3, "ddp_fork"),
        (
            {"devices": "0,1", "strategy": "ddp_find_unused_parameters_false"},
            2,
            "ddp_fork_find_unused_parameters_false",
        ),
        ({"devices": 4, "strategy": "ddp_spawn"}, 4, "ddp_spawn"),
        ({"devices": "auto"}, 1, "ddp_fork_find_unused_parameters_true"),
        ({"devices": -1, "strategy": "ddp_notebook"}, 1, "ddp_fork"),
        ({"devices": 1}, 1, None),
        ({}, 1, None),
    ],
)
def test_how_many_processes_train_and_how_they_start(trainer, processes, strategy):
    inner = TrainedTask(NASBench201(), DigitsDataModule(), trainer={"accelerator": "cpu"} | trainer)
    outer = MeasuredLatencyTask(NASBench201(), lambda space: inner, target_milliseconds=1.0)
    assert processes_of(outer) == processes_of(inner) == processes
    if strategy is not None:
        assert strategy_of_own_processes(inner.trainer) == strategy
    told = arguments_here(inner.trainer, launch=Launch(worker=True))
    assert told.get("strategy") == (strategy if processes > 1 else inner.trainer.get("strategy"))


@pytest.mark.parametrize(
    "trainer, words",
    [
        (
            {"num_nodes": 2},
            r"^trainer.num_nodes is 2, but on Ray a candidate is trained on one machine: leave num_nodes",
        ),
        (
            {"strategy": "fsdp"},
            r"^trainer.strategy is 'fsdp', but on Ray .* with ddp, ddp_fork or ddp_spawn, each also",
        ),
    ],
)
def test_a_group_that_no_worker_can_start(trainer, words, tmp_path):
    with pytest.raises(CatchmarkError, match=words) as caught:
        RayExecutor(1).begin(group(tmp_path, **trainer))
    assert "\n" not in str(caught.value)


def test_a_child_is_trained_to_the_last_bit(workers):
    """In a process alone, too. What one worker imports here, supernets need as well."""
    task = TrainedTask(
        NASBench201(),
        DigitsDataModule(resolution=8, batch_size=256),
        partial(ClassificationModule, learning_rate=0.05),
        epochs=1,
        build={"channels": 2, "cells": 1},
        threads=1,
    )
    alone = evaluate_one(task, Proposal((3, 0, 0, 0, 0, 0), 2))
    assert alone.status == "ok"
    with ProcessExecutor(1) as process:
        for executor in (workers, process):
            assert same(evaluate(executor, task, (3, 2))[0], alone)


# ---- supernets ---------------------------------------------------------------------------------------------------


class Ear(Listener):
    """What a run is told of its trainings."""

    def __init__(self):
        self.epochs, self.ended = [], {}

    def trained(self, name, epochs, values, new, trial):
        self.epochs.append((name, values))

    def training_ended(self, name, trial, history):
        self.ended[name] = history


def test_supernets_are_trained_on_workers_as_in_one_process(workers, tmp_path):
    study = load_recipe(supernets(tmp_path))[0]
    found = []
    for executor in (None, workers):
        folder, ear = tmp_path / f"run{len(found)}", Ear()
        folder.mkdir()
        journal, study.executor = Journal(folder / "journal.sqlite"), executor
        summary = study.run(folder, journal, [ear])
        journal.close()
        assert all(
            history == [values for name, values in ear.epochs if name == at] for at, history in ear.ended.items()
        )
        found.append((timeless(summary), ear.ended))
    assert found[0] == found[1] and set(found[0][1]) == {"spos", "spos_landmarks"}


# ---- the end of a run, whatever ends it --------------------------------------------------------------------------

RECIPE = """
space: NASBench201
targets:
  slow:
    class_path: tests.search.executors.ray_tasks.Slow
    init_args: {folder: FOLDER}
agents: {evolution: RegularizedEvolution}
budget: 40
executor: {class_path: RayExecutor, init_args: {workers: 2}}
"""
COMMAND = ("run", "recipe.yaml", "--quiet")
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}


def descendants_of(process):
    """Every process that a process has started, and those that these have."""
    return [each for each in running.descendants_of(process) if not is_agent(each)]


def is_agent(process):
    """Two agents of Ray itself spend a minute on telling a driver that is gone why they end."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().startswith((b"ray::DashboardAgent", b"ray::RuntimeEnvA"))


@pytest.fixture(scope="module")
def ending_runs(server):
    """Runs with a Ray of their own, one for each end. They start together, and wait for their end."""
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="cm"))  # sockets lie below it, and their paths must be short
    runs = {}
    for number in ENDS:
        (folder := root / str(int(number))).mkdir()
        (folder / "recipe.yaml").write_text(RECIPE.replace("FOLDER", str(folder)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled", "TMPDIR": str(folder)}
        begin = f"import os; os.setsid(); {COMMAND_LINE}"
        runs[number] = (
            folder,
            server.start(begin, COMMAND, folder=folder, environment=environment, stderr=folder / "errors"),
        )
    yield runs
    for _, run in runs.values():
        end(server, run)
    shutil.rmtree(root)


@pytest.mark.parametrize("number", ENDS)
def test_a_run_that_is_ended_leaves_no_process_and_goes_on(
    number, ending_runs, server, ray_on_this_machine, monkeypatch
):
    """Killed, or interrupted at the terminal; for the journal the former is the harder."""
    folder, run = ending_runs[number]
    wait_until(lambda: len(notes(folder)) >= 10 or not alive(run))
    processes = descendants_of(run)
    assert len(processes) > 4 and {each[0] for each in notes(folder)} < set(processes)
    # Nobody else's network is touched.
    assert set().union(*map(listening_on, processes)) == {"127.0.0.1"}
    if number == signal.SIGINT:
        os.killpg(run, number)  # as a terminal does: everybody in the foreground hears it
    else:
        os.kill(run, number)
    code, words = server.wait(run), (folder / "errors").read_text()
    assert code == ENDS[number], words
    wait_until(lambda: not any(map(alive, processes)))
    assert bool(list(folder.glob("catchmark-*"))) == (number == signal.SIGKILL)
    if number == signal.SIGINT:
        assert "stopped; what was evaluated is kept" in words and len(words.splitlines()) == 1
    if number == signal.SIGKILL:
        check_that_it_goes_on(folder, monkeypatch)


def check_that_it_goes_on(folder, monkeypatch):
    """What was under way is made again, with the same seeds; what was committed is not."""
    latest, before = folder / "runs" / "recipe" / "latest", len(notes(folder))
    committed = [(each.architecture, each.seed) for each in read(latest)]
    assert before >= 10 and before - 2 <= len(committed) <= before - 1
    (folder / "let").touch()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(folder)
    assert run_recipe(None, {}, resume=str(latest), quiet=True, trust=Plain.__module__) == 0
    records = [(each.architecture, each.seed) for each in read(latest)]
    assert records[: len(committed)] == committed and len(set(records)) == len(records) == 40
    made = [(tuple(architecture), seed) for _, architecture, seed in notes(folder)]
    assert set(made) == set(records)
    assert len(made) - before == 40 - len(committed) and not set(made[before:]) & set(committed)


def read(folder):
    journal = Journal(folder / "journal.sqlite")  # after a kill its log must be folded in
    try:
        return list(journal.records("slow/evolution"))
    finally:
        journal.close()


def listening_on(process):
    """The addresses on which a process listens."""
    addresses, sockets = set(), set()
    try:
        for link in Path(f"/proc/{process}/fd").iterdir():
            if (target := os.readlink(link)).startswith("socket:["):
                sockets.add(target[8:-1])
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and words[9] in sockets:
                    last = words[1].split(":")[0][-8:]  # of an IPv6 address, the IPv4 one that is mapped into it
                    addresses.add(".".join(str(int(last[k : k + 2], 16)) for k in (6, 4, 2, 0)))
    except OSError:
        pass
    return addresses
