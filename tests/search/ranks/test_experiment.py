"""Searches over several processes: real ones, on one machine and, where that is permitted, on two hosts made of network
namespaces.

Most of them are forked from a server that has imported everything, with the environment that ``srun`` would give them.
"""

import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import LambdaCallback
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from datamodules.batches import EpochShuffle
from lightning_modules.networks.batch_statistics import BatchStatistics
from search.agents.random_search import RandomSearch
from search.cli import main
from search.errors import CatchmarkError, RunError
from search.journal import Journal
from search.launch import Launch
from search.ranks.joint_tasks import JointTasks, train_alone
from search.ranks.links import meet
from search.recipes.recipe import load_recipe
from search.spaces.base import Decision, SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.study import Study

ROOT = Path(__file__).parents[2]
SECONDS = 60
SEARCH = """
space: tests.search.test_ranks.JointNorms
targets:
  digits:
    class_path: TrainedTask
    init_args:
      data: {class_path: DigitsDataModule, init_args: {resolution: 8, batch_size: 32}}
      epochs: 1
      build: {channels: 4, cells: 1}
      threads: 1
      trainer: {accelerator: cpu, strategy: ddp, limit_train_batches: 6}
agents:
  evolution: {class_path: RegularizedEvolution, init_args: {population: 3, tournament: 2}}
  catch:
    class_path: CATCHer
    init_args:
      settings: {hidden: 16, candidates: 8, initial_networks: 2, policy_updates: 2, evaluator_updates: 3}
meta_training:
  pool:
    class_path: SubtaskPool
    init_args:
      data: {class_path: DigitsDataModule, init_args: {batch_size: 32}}
      classes: [3, 4]
      resolutions: [8]
      examples_per_class: 40
      epochs: 1
      build: {channels: 4, cells: 1}
      threads: 1
      trainer: {accelerator: cpu, strategy: ddp, limit_train_batches: 2}
  agents: [catch]
  epochs: 2
  networks: 2
budget: 4
"""
TROUBLE = """
space: tests.search.test_ranks.Troubled
targets:
  digits:
    class_path: TrainedTask
    init_args:
      data: {class_path: DigitsDataModule, init_args: {resolution: 8, batch_size: 32}}
      epochs: 1
      threads: 1
      trainer: {accelerator: cpu, strategy: ddp, limit_train_batches: 3}
agents:
  in_order: tests.search.test_ranks.InOrder
budget: 13
"""
ALONE = {
    "targets.digits.data.batch_size": "64",
    "targets.digits.trainer.strategy": "auto",
    "meta_training.pool.data.batch_size": "64",
    "meta_training.pool.trainer.strategy": "auto",
}


# ---- what runs in the processes ------------------------------------------------------------------------------------


def rank():
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def note(architecture):
    """Say what this rank builds, and how much of the system it has in use."""
    line = [os.getpid(), list(architecture), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))]
    if "NOTES" in os.environ:
        with open(f"{os.environ['NOTES']}/{rank()}.txt", "a") as file:
            file.write(json.dumps(line) + "\n")


def notes(folder, of_rank):
    file = folder / f"{of_rank}.txt"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class JointNorms(NASBench201):
    """Normalises over all ranks; torch's own way to do that is for GPUs only."""

    def build(self, architecture, **arguments):
        note(architecture)
        if rank() == 1 and len(notes(Path(os.environ["NOTES"]), 1)) == 3 and os.environ.get("DIE"):
            os.kill(os.getpid(), signal.SIGKILL)
        network = super().build(architecture, **arguments)
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, BatchStatistics(child.num_features, affine=True))
        return network


def _raise(error):
    raise error


class Trouble(nn.Module):
    """A network that is in trouble in its second step, on some rank."""

    def __init__(self, kind, classes):
        super().__init__()
        self.linear, self.kind, self.steps = nn.Linear(64, classes), kind, 0

    def forward(self, images):
        self.steps += 1
        what, _, where = self.kind.partition(" on rank ")
        if self.steps == 2 and str(rank()) == where:
            if what == "memory":
                torch.empty(2**58).zero_()  # a real refusal of the allocator: 2^60 bytes
            _raise(IndexError("a layer of no width"))
        if what == "slow":
            time.sleep(0.2)
        return self.linear(images.flatten(1))


class Troubled(SearchSpace):
    """What goes wrong, and where."""

    name = "troubled"
    decisions = (
        Decision("kind", ("fine", "crash on rank 1", "memory on rank 1", "crash on rank 0", "build on rank 1", "slow")),
        Decision("nothing", ("at all", "whatever")),
    )

    def build(self, architecture, num_classes=10, in_channels=1):
        note(architecture)
        kind = self.decisions[0].choices[architecture[0]]
        if kind == f"build on rank {rank()}":
            raise RuntimeError("no such network")
        return Trouble(kind, num_classes)


class InOrder(RandomSearch):
    """Every choice of the first decision, and from the start again."""

    asked = 0

    def ask(self, n=1):
        if self.asked == 4 and "THINK" in os.environ:
            time.sleep(2)
        first = torch.arange(self.asked, self.asked + n) % len(self.space.decisions[0].choices)
        self.asked += n
        return torch.stack([first, torch.zeros_like(first)], dim=1)[None]

    def state_dict(self):
        return super().state_dict() | {"asked": self.asked}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.asked = state["asked"]


def serve():
    """Fork a process for every line of the input that describes one; for a line with its number, say how it ended."""
    import pytorch_lightning.strategies  # noqa: F401
    import scipy.special  # noqa: F401

    import search.reports.plots
    import search.reports.report  # noqa: F401
    from search.ranks import follower, leader  # noqa: F401

    for recipe in (SEARCH, TROUBLE):
        Path("recipe.yaml").write_text(recipe)
        main(["run", "recipe.yaml", "--dry-run"])
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
            continue
        folder, words, environment, namespace = order
        if (child := os.fork()) == 0:
            code = 99
            try:
                output = os.open(
                    f"{folder}/{environment.get('SLURM_PROCID', 0)}.out", os.O_RDWR | os.O_APPEND | os.O_CREAT
                )
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.chdir(folder)
                os.environ.update(environment)
                if namespace:
                    enter(namespace)
                code = main(["run", *words])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)


def enter(namespace):
    """Go to another network namespace: another host, as far as the network goes."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


# ---- what starts them ----------------------------------------------------------------------------------------------


class Server:
    """A process that has imported everything and forks others."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.search.test_ranks import serve; serve()"],
            cwd=folder,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started = set()
        while self.read() != "ready":
            pass

    def read(self):
        line = self.process.stdout.readline()
        assert line, "the server has died"
        return line.strip()

    def order(self, what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return int(self.read())

    def start(self, folder, words, environment, namespace=None):
        child = self.order([str(folder), list(map(str, words)), environment, namespace])
        self.started.add(child)
        return child

    def wait(self, child):
        self.started.discard(child)
        return self.order(child)

    def close(self):
        for child in self.started:
            os.kill(child, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait(timeout=10)


ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_", "WANDB_"))
} | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def job(server, tmp_path):
    return Job(server, tmp_path)


class Job:
    """A folder, and the ranks that work in it as ``srun`` would start them."""

    def __init__(self, server, folder, recipe=SEARCH):
        self.server, self.folder, self.number = server, folder, random.randrange(10**6)
        self.notes = folder / "notes"
        self.notes.mkdir(parents=True)
        self.write(recipe)

    def write(self, recipe):
        (self.folder / "recipe.yaml").write_text(recipe)

    def start(self, *words, ranks=2, namespaces=None, per_rank=((), ()), **environment):
        """Start every rank; their processes' numbers."""
        return [
            self.server.start(
                self.folder,
                ["recipe.yaml", "--quiet", *words, *per_rank[at]],
                {
                    "NOTES": str(self.notes),
                    "SLURM_JOB_ID": str(self.number),
                    **({} if ranks == 1 else self.place(at, ranks)),
                    **environment,
                },
                None if namespaces is None else namespaces[at],
            )
            for at in range(ranks)
        ]

    def place(self, at, ranks):
        return {
            "SLURM_NTASKS": str(ranks),
            "SLURM_PROCID": str(at),
            "SLURM_LOCALID": "0",
            "SLURM_NNODES": str(ranks),
            "SLURM_JOB_NODELIST": "localhost",
        }

    def run(self, *words, **options):
        """The exit code of every rank."""
        return [self.server.wait(child) for child in self.start(*words, **options)]

    def said(self):
        return {at: (self.folder / f"{at}.out").read_text() for at in range(2) if (self.folder / f"{at}.out").exists()}

    def until(self, of_rank, count):
        """Wait until a rank has begun so many evaluations."""
        deadline = time.monotonic() + SECONDS
        while len(notes(self.notes, of_rank)) < count:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    @property
    def run_folders(self):
        return [path.parent for path in self.folder.glob("runs/recipe/*/journal.sqlite") if "latest" not in path.parts]

    def records(self):
        (folder,) = self.run_folders
        journal = Journal(folder / "journal.sqlite", writable=False)
        try:
            return [record for name in journal.searches() for record in journal.records(name)]
        finally:
            journal.close()


@pytest.fixture(scope="module")
def reference(server, tmp_path_factory):
    """The search of one process, with the joint batch."""
    job = Job(server, tmp_path_factory.mktemp("reference"))
    words = [word for key, value in ALONE.items() for word in (f"--{key}", value)]
    assert job.run(*words, ranks=1) == [0], job.said()
    records = job.records()
    assert len(records) == 2 * 2 + 2 * 4 and all(record.evaluation.status == "ok" for record in records)
    return records


def assert_same_search(records, reference):
    assert [record.architecture for record in records] == [record.architecture for record in reference]
    assert [record.seed for record in records] == [record.seed for record in reference]
    for ours, theirs in zip(records, reference, strict=True):
        assert ours.evaluation.status == "ok", ours.evaluation.reason
        assert ours.evaluation.score == pytest.approx(theirs.evaluation.score, abs=0.17)  # an image of 596
        for name in ("train_loss", "val_loss"):
            assert ours.evaluation.metrics[name] == pytest.approx(theirs.evaluation.metrics[name], abs=2e-4)
        assert ours.evaluation.metrics["parameters"] == theirs.evaluation.metrics["parameters"]


# ---- tests ---------------------------------------------------------------------------------------------------------


def test_two_ranks_search_as_one_process_with_the_joint_batch(job, reference):
    assert job.run() == [0, 0], job.said()
    records = job.records()
    assert_same_search(records, reference)
    worst = max(
        abs(ours.evaluation.metrics["val_loss"] - theirs.evaluation.metrics["val_loss"])
        for ours, theirs in zip(records, reference, strict=True)
    )
    print(f"largest difference of a validation loss: {worst:.1e}")
    for at in range(2):
        built = sorted(each[1] for each in notes(job.notes, at))
        assert built == sorted(list(record.architecture) for record in records)
    assert job.said()[1] in ("", *re.findall(r"\A\[rank1\].*find_unused_parameters.*\n\Z", job.said()[1]))


@pytest.fixture(scope="module")
def troubled(server, tmp_path_factory):
    job = Job(server, tmp_path_factory.mktemp("troubled"), TROUBLE)
    assert job.run() == [0, 0], job.said()
    return job


def assert_same_trouble(records):
    kinds = Troubled.decisions[0].choices
    assert [kinds[record.architecture[0]] for record in records] == [*kinds, *kinds, kinds[0]]
    for record in records:
        kind = kinds[record.architecture[0]]
        evaluation = record.evaluation
        expected = {
            "crash on rank 1": r"IndexError: a layer of no width \(rank 1\)",
            "memory on rank 1": r"out of memory: .*allocate.* \(rank 1\)",
            "crash on rank 0": r"IndexError: a layer of no width",
            "build on rank 1": r"RuntimeError: no such network \(rank 1\)",
        }.get(kind)
        if expected is None:
            assert evaluation.status == "ok" and evaluation.score > 0, evaluation.reason
        else:
            assert evaluation.status == "failed" and re.fullmatch(expected, evaluation.reason), evaluation.reason


def test_a_child_that_fails_on_one_rank_has_failed_and_the_search_goes_on(troubled):
    assert_same_trouble(troubled.records())
    seconds = {}
    for record in troubled.records():
        seconds.setdefault(record.evaluation.status, []).append(record.evaluation.cost_seconds)
    print(f"failed evaluations take {max(seconds['failed']):.2f} s at most")
    assert max(seconds["failed"]) < 20


def test_many_children_leave_nothing_open(troubled):
    for at in range(2):
        used = [each[2:] for each in notes(troubled.notes, at)]
        assert len(used) == 13
        print(f"rank {at}: files and threads {used[2]} at the third child, {used[-1]} at the last")
        # The third child is behind two failures and what torch starts once; a group left open has five files or more.
        assert used[-1][0] <= used[2][0] and used[-1][1] <= used[2][1]


@pytest.mark.parametrize(("lost", "thinking"), [(0, False), (1, False), (1, True)])
def test_a_rank_that_is_killed_ends_the_job_and_the_job_goes_on(lost, thinking, server, tmp_path):
    job = Job(server, tmp_path, TROUBLE)
    children = job.start(**{"THINK": "1"} if thinking else {})
    job.until(lost, 4 if thinking else 6)  # the sixth, a slow one, is being trained
    time.sleep(0.7 if thinking else 0.2)
    os.kill(children[lost], signal.SIGKILL)
    began = time.monotonic()
    codes = [server.wait(child) for child in children]
    print(f"rank {1 - lost} ended {time.monotonic() - began:.1f} s later")
    assert codes == ([-9, 1] if lost == 0 else [1, -9]), job.said()
    assert time.monotonic() - began < (1 if thinking else 20)
    assert f"rank {lost} (" in job.said()[1 - lost] and "is gone" in job.said()[1 - lost]
    done = 4 if thinking else 5
    assert len(job.records()) == done
    assert job.run(SLURM_RESTART_COUNT="1") == [0, 0], job.said()
    assert "was started again: going on in runs/recipe/" in job.said()[0]
    assert len(job.run_folders) == 1
    assert_same_trouble(job.records())
    assert len(notes(job.notes, 0)) == 13 + (0 if thinking else 1), "only what was under way is evaluated again"


@pytest.mark.parametrize(("at", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_rank_that_is_interrupted_ends_the_job_cleanly(at, number, server, tmp_path):
    job = Job(server, tmp_path, TROUBLE)
    children = job.start()
    job.until(at, 6)
    time.sleep(0.2)
    os.kill(children[at], number)
    began = time.monotonic()
    assert [server.wait(child) for child in children] == [130, 130], job.said()
    assert time.monotonic() - began < 20
    journal = Journal(job.run_folders[0] / "journal.sqlite", writable=False)
    assert journal.about("status") == "interrupted"
    journal.close()
    assert len(job.records()) == 5
    assert "Traceback" not in job.said()[0] + job.said()[1]
    assert job.run("--resume") == [0, 0], job.said()
    assert_same_trouble(job.records())


def test_a_run_has_one_writer(server, tmp_path):
    job = Job(server, tmp_path, TROUBLE)
    (first,) = job.start(ranks=1)
    job.until(0, 6)
    assert job.run("--resume", ranks=1) == [1], job.said()
    assert re.search(r"runs/recipe/\S+ is being written by another process \(\d+\)", job.said()[0])
    os.kill(first, signal.SIGTERM)
    assert server.wait(first) == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "1"], r"rank 1 \(.*, process \d+\) has another recipe, or another version of catchmark"),
        (["--sead", "1"], r"rank 1 \(.*, process \d+\): sead: there is no such key.*did you mean 'seed'"),
    ],
)
def test_ranks_with_other_recipes_do_not_start(words, message, server, tmp_path):
    job = Job(server, tmp_path, TROUBLE)
    children = job.start(per_rank=([], words))
    assert [server.wait(child) for child in children] == [2, 2]
    assert re.search(message, job.said()[0]) and job.said()[1] == ""
    assert not (tmp_path / "runs").exists()


def test_a_rank_that_does_not_come_is_named():
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = {"address": "127.0.0.1", "port": free.getsockname()[1]}
    said = []

    def come():
        (link,) = meet(Launch(rank=2, ranks=3, **place), 10)
        said.append(link.peer)
        link.close()

    second = threading.Thread(target=come)
    second.start()
    with pytest.raises(
        RunError, match="of 3 ranks these did not come: 1; start every one of them, with srun or torchrun"
    ):
        meet(Launch(rank=0, ranks=3, **place), 2)
    second.join()
    assert said == [0]


def study(tmp_path, recipe=SEARCH, **overrides):
    (tmp_path / "recipe.yaml").write_text(recipe)
    return load_recipe(tmp_path / "recipe.yaml", {key.replace("__", "."): value for key, value in overrides.items()})[0]


TRAINER = "targets.digits.trainer"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {f"{TRAINER}.devices": "3"},
            "targets.digits: trainer has devices: 3, but 2 processes were started on each of 2",
        ),
        ({f"{TRAINER}.num_nodes": "4"}, "trainer has num_nodes: 4, but 2 processes .* nodes; say num_nodes: 2, or"),
        (
            {f"{TRAINER}.strategy": "ddp_fork"},
            "trainer.strategy 'ddp_fork' starts processes of its own.*say strategy: ddp",
        ),
    ],
)
def test_what_does_not_fit_the_ranks_is_refused(overrides, message, tmp_path):
    with pytest.raises(CatchmarkError, match=message):
        JointTasks(study(tmp_path, **overrides), Launch(rank=0, ranks=4, nodes=2))


class SupernetStudy(Study):
    """Any other study."""

    planned = run = summarise = page = None


def test_a_study_of_supernets_is_refused():
    with pytest.raises(CatchmarkError, match="a SupernetStudy is not made for several processes, and 2 were started"):
        JointTasks(SupernetStudy(), Launch(ranks=2))


def test_ranks_fill_in_what_the_trainer_is_to_be_told(tmp_path):
    one = study(tmp_path)
    tasks = JointTasks(one, Launch(rank=3, ranks=4, local_rank=1, nodes=2))
    task = tasks.find(["target", "digits"])
    assert task is one.targets["digits"]
    told = task.trainer
    assert (told["devices"], told["num_nodes"], told["strategy"]) == (2, 2, "ddp_find_unused_parameters_true")
    (environment,) = told["plugins"]
    assert (environment.global_rank(), environment.local_rank(), environment.node_rank()) == (3, 1, 1)
    drawn = tasks.find(["pool", 0, 1, 5])
    assert tasks.find(["pool", 0, 1, 5]) is drawn and drawn.trainer["devices"] == 2
    assert drawn.data.arrays.num_classes == one.phases[0].pool.draw(1, 5).data.arrays.num_classes
    assert task.make_trainer(LambdaCallback()).world_size == 4


def test_a_target_on_one_device_is_rank_0s_alone(tmp_path):
    one = study(tmp_path, targets__digits__trainer__strategy="auto")
    asked = []
    JointTasks(one, Launch(ranks=2), lambda *what: asked.append(what))
    task = one.targets["digits"]
    assert task.evaluate((1,) * 6, 0).status == "ok" and not asked
    assert task.make_trainer(LambdaCallback()).world_size == 1


@pytest.mark.parametrize("where", ["targets.digits", "meta_training.pool"])
def test_several_devices_need_a_launcher(where, tmp_path):
    with pytest.raises(
        CatchmarkError, match=r"has devices: 2 and num_nodes: 1.*torchrun --nnodes 1 --nproc-per-node 2 "
    ):
        train_alone(study(tmp_path, **{f"{where}.trainer.devices": "2"}))
    forked = study(tmp_path, **{f"{where}.trainer.devices": "2", f"{where}.trainer.strategy": "ddp_fork"})
    train_alone(forked)
    task = forked.targets["digits"] if where == "targets.digits" else forked.phases[0].pool.draw(0, 0)
    assert task.trainer["strategy"] == "ddp_fork"


def test_the_recipe_of_many_processes_trains_in_one(tmp_path):
    one = study(tmp_path)
    train_alone(one)
    dead_end = NASBench201().parse("|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|")
    for task in one.targets["digits"], one.phases[0].pool.draw(0, 0):
        assert task.evaluate(dead_end, 0).status == "ok" and not dist.is_initialized()


@pytest.mark.parametrize("count", [8, 9])
def test_ranks_share_the_joint_batches(count, tmp_path):
    whole = EpochShuffle(range(count), seed=3)
    whole.set_epoch(2)
    order = list(whole)
    assert sorted(order) == list(range(count)) and len(whole) == count
    shares = []
    for at in range(2):
        dist.init_process_group("fake", rank=at, world_size=2, store=FakeStore())
        try:
            share = EpochShuffle(range(count), seed=3)
        finally:
            dist.destroy_process_group()
        share.set_epoch(2)
        shares.append(list(share))
        assert len(share) == len(shares[at]) == -(-count // 2)
    for begin in range(0, count - 1, 2):  # batches of 1 on two ranks, of 2 on one
        assert [shares[0][begin // 2], shares[1][begin // 2]] == order[begin : begin + 2]
    assert shares[1][-1] == order[-1 if count == 8 else 0]


# ---- two agents of torchrun ----------------------------------------------------------------------------------------


def test_two_agents_start_again_what_was_killed(tmp_path, reference):
    """As on two nodes: the second rank kills itself once, both agents start their ranks anew, and nothing is lost."""
    job = Job(None, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    words += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"127.0.0.1:{port}",
        "--rdzv-id",
        "two",
        "--max-restarts",
        "1",
    ]
    words += ["--local-addr", "127.0.0.1", "--monitor-interval", "0.1"]
    words += ["-m", "search.cli", "run", "recipe.yaml", "--quiet"]
    environment = ENVIRONMENT | {"NOTES": str(job.notes), "DIE": "1", "WANDB_MODE": "offline"}
    began = time.monotonic()
    agents = [
        subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    try:
        said = [agent.communicate(timeout=SECONDS)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    print(f"two agents, one restart: {time.monotonic() - began:.1f} s")
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(said)[-6000:]
    together = "\n".join(said)
    assert (
        "rank 1 (" in together and "is gone" in together and "torchrun two was started again: going on in" in together
    )
    assert_same_search(job.records(), reference)
    (folder,) = job.run_folders
    assert len(list(folder.glob("wandb/offline-run-*"))) == 3  # a search each: meta-training and two agents


# ---- two hosts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them; their names, and their addresses."""
    names = [f"catchmark{os.getpid()}{side}" for side in "ab"]
    cables = [f"cm{os.getpid() % 10**6}{side}" for side in "ab"]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True)

    try:
        ready = [ip("netns", "add", name) for name in names]
        ready.append(ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1]))
        for k in range(2):
            ready.append(ip("link", "set", cables[k], "netns", names[k]))
            ready.append(ip("-n", names[k], "address", "add", f"10.77.31.{k + 1}/24", "dev", cables[k]))
            ready.append(ip("-n", names[k], "link", "set", cables[k], "up"))
            ready.append(ip("-n", names[k], "link", "set", "lo", "up"))
    except OSError as error:
        pytest.skip(f"no network namespaces: the command ip can't be run ({error.strerror})")
    try:
        if wrong := [each.stderr.strip() for each in ready if each.returncode]:
            pytest.skip(f"no network namespaces: {wrong[0]}")
        yield names, ["10.77.31.1", "10.77.31.2"], cables
    finally:
        for name in names:
            ip("netns", "delete", name)


def test_two_hosts_search_as_one_process(hosts, job, reference):
    names, addresses, _ = hosts
    began = time.monotonic()
    assert job.run(namespaces=names, MASTER_ADDR=addresses[0]) == [0, 0], job.said()
    print(f"two hosts: {time.monotonic() - began:.1f} s")
    assert_same_search(job.records(), reference)
