"""Searches over several processes: real ones, on one machine and, where that is permitted, on two hosts made of network
namespaces.
"""

import os
import re
import signal
import subprocess
import threading

import pytest
import torch.distributed as dist
import yaml
from torch.testing._internal.distributed.fake_pg import FakeStore

from datamodules.batches import EpochShuffle
from search.distributed.joint_fit import ExperimentCalls, JointTask, joint_calls_of
from search.distributed.links import meet
from search.errors import CatchmarkError, RunError
from search.evaluation import Proposal
from search.recipes.recipe import load_recipe
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.studies.base import Study
from search.training.launch import Launch, find_launch
from search.training.trainer_arguments import arguments_here
from search.training.watch import make_trainer
from tests.processes import PATIENCE, kept_port
from tests.search.distributed.ranks import ENVIRONMENT, Job
from tests.search.distributed.recipes import SEARCH, TROUBLE
from tests.search.distributed.spaces import Troubled, notes
from tests.search.evaluating import answer

ALONE = {
    "targets.digits.data.batch_size": "64",
    "targets.digits.trainer.strategy": "auto",
    "meta_training.pool.data.batch_size": "64",
    "meta_training.pool.trainer.strategy": "auto",
}


@pytest.fixture
def job(server, tmp_path):
    return Job(server, tmp_path)


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
    assert "does not come back" not in "".join(troubled.said().values())  # nobody waited for ever


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
    # Rank 0 would think for ever; or the sixth, a slow one, is being trained.
    children = job.start(**{"THINK": "1"} if thinking else {"HOLD": str(lost)})
    job.until_held(children)
    os.kill(children[lost], signal.SIGKILL)
    codes = [server.wait(child) for child in children]
    assert codes == ([-9, 1] if lost == 0 else [1, -9]), job.said()
    assert f"rank {lost} (" in job.said()[1 - lost] and "is gone" in job.said()[1 - lost]
    assert "does not come back" not in job.said()[1 - lost]
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
    children = job.start(HOLD=str(at))
    job.until_held(children)
    os.kill(children[at], number)
    assert [server.wait(child) for child in children] == [130, 130], job.said()
    assert "does not come back" not in "".join(job.said().values())
    journal = Journal(job.run_folders[0] / "journal.sqlite", writable=False)
    assert journal.about("status") == "interrupted"
    journal.close()
    assert len(job.records()) == 5
    assert "Traceback" not in job.said()[0] + job.said()[1]
    assert job.run("--resume") == [0, 0], job.said()
    assert_same_trouble(job.records())


def test_a_run_has_one_writer(server, tmp_path):
    job = Job(server, tmp_path, TROUBLE)
    (first,) = job.start(ranks=1, HOLD="0")
    job.until_held([first])
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
    said = []

    def come(place):
        (link,) = meet(Launch(rank=2, ranks=3, **place), PATIENCE)
        said.append(link.peer)
        link.close()

    with kept_port() as port:
        place = {"address": "127.0.0.1", "port": port}
        second = threading.Thread(target=come, args=(place,))
        second.start()
        with pytest.raises(
            RunError, match="of 3 ranks these did not come: 1; start every one of them, with srun or torchrun"
        ):
            meet(Launch(rank=0, ranks=3, **place), 5)
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
        joint_calls_of(study(tmp_path, **overrides), Launch(rank=0, ranks=4, nodes=2))


class OtherStudy(Study):
    """Any other study."""

    planned = run = summarise = page = None


def test_a_study_that_nobody_knows_is_refused():
    with pytest.raises(CatchmarkError, match="a OtherStudy is not made for several processes, and 2 were started"):
        joint_calls_of(OtherStudy(), Launch(ranks=2))


@pytest.fixture
def third_of_four(monkeypatch):
    """This process is the last of four, two a node."""
    place = {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "GROUP_WORLD_SIZE": 2, "MASTER_PORT": 1}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


def test_ranks_find_the_task_and_what_the_trainer_is_to_be_told(tmp_path, third_of_four):
    one = study(tmp_path)
    calls = joint_calls_of(one, find_launch())
    task = calls.task(["target", "digits"])
    assert task is one.targets["digits"] and calls.study is one
    told = arguments_here(task.trainer)
    assert (told["devices"], told["num_nodes"], told["strategy"]) == (2, 2, "ddp_find_unused_parameters_true")
    (environment,) = told["plugins"]
    assert (environment.global_rank(), environment.local_rank(), environment.node_rank()) == (3, 1, 1)
    drawn = calls.task(["pool", 0, 1, 5])
    assert calls.task(["pool", 0, 1, 5]) is drawn and drawn.trainer == task.trainer | {"limit_train_batches": 2}
    assert drawn.data.arrays.num_classes == one.phases[0].pool.draw(1, 5).data.arrays.num_classes
    assert make_trainer(task.plan(0)).world_size == 4


def test_a_target_on_one_device_is_rank_0s_alone(tmp_path, third_of_four):
    one = study(tmp_path, targets__digits__trainer__strategy="auto")
    asked = []
    calls = ExperimentCalls(one, lambda *what: asked.append(what))
    task = calls.study.targets["digits"]
    assert task.evaluate_one(Proposal((1,) * 6)).status == "ok" and not asked
    assert make_trainer(task.plan(0)).world_size == 1


def test_a_joint_call_is_made_around_the_training_alone(tmp_path):
    """The reward of a weighed training is rank 0's, and the recipe's own tasks stay as they are."""
    recipe = yaml.safe_load(SEARCH)
    arguments = {"task": recipe["targets"]["digits"], "target_milliseconds": 1.0, "resolution": 8}
    recipe["targets"]["digits"] = {"class_path": "MeasuredLatencyTask", "init_args": arguments}
    one = study(tmp_path, yaml.safe_dump(recipe))
    asked = []

    def together(order, own, failure):
        asked.append(order)
        return own()

    calls = joint_calls_of(one, Launch(ranks=2), together)
    ours, theirs = calls.study.targets["digits"], one.targets["digits"]
    assert type(ours) is type(theirs) and ours is not theirs and not isinstance(theirs.task, JointTask)
    proposal = Proposal((1,) * 6, 3)
    evaluation = answer(ours, proposal)
    assert evaluation.status == "ok"
    assert evaluation.metrics["quality"] == theirs.task.evaluate_one(proposal).score
    assert asked == [{"evaluate": ["target", "digits", "task"], "proposal": proposal.plain()}]
    assert calls.task(["target", "digits", "task"]) is theirs.task
    drawn = calls.study.phases[0].pool.draw(0, 7)
    assert answer(drawn, proposal).status == "ok" and asked[-1]["evaluate"] == ["pool", 0, 0, 7]


@pytest.mark.parametrize("where", ["targets.digits", "meta_training.pool"])
def test_several_devices_need_a_launcher(where, tmp_path):
    with pytest.raises(
        CatchmarkError, match=r"has devices: 2 and num_nodes: 1.*torchrun --nnodes 1 --nproc-per-node 2 "
    ):
        study(tmp_path, **{f"{where}.trainer.devices": "2"}).check_trainers()
    forked = study(tmp_path, **{f"{where}.trainer.devices": "2", f"{where}.trainer.strategy": "ddp_fork"})
    forked.check_trainers()
    task = forked.targets["digits"] if where == "targets.digits" else forked.phases[0].pool.draw(0, 0)
    assert arguments_here(task.trainer)["strategy"] == "ddp_fork"


def test_the_recipe_of_many_processes_trains_in_one(tmp_path):
    one = study(tmp_path)
    one.check_trainers()
    dead_end = NASBench201().parse("|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|")
    for task in one.targets["digits"], one.phases[0].pool.draw(0, 0):
        assert task.evaluate_one(Proposal(dead_end)).status == "ok" and not dist.is_initialized()


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


AGENT = """
import sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from search.cli import main

def rank():
    sys.exit(main(["run", "recipe.yaml", "--quiet"]))

config = LaunchConfig(2, 2, 1, run_id="two", rdzv_backend="c10d", rdzv_endpoint=sys.argv[1], max_restarts=1,
                      local_addr="127.0.0.1", monitor_interval=0.1, start_method="fork")
elastic_launch(config, rank)()
"""


def test_two_agents_start_again_what_was_killed(server, tmp_path, reference):
    """As on two nodes: the second rank kills itself once, both agents start their ranks anew, and nothing is lost.

    They are the agents that torchrun starts; their ranks, which need no fresh interpreter either, are forked.
    """
    job = Job(None, tmp_path)
    environment = ENVIRONMENT | {"NOTES": str(job.notes), "DIE": "1", "WANDB_MODE": "offline"}
    with kept_port() as port:
        place = {"folder": tmp_path, "environment": environment, "stdout": tmp_path / "said"}
        agents = [server.start(AGENT, [f"127.0.0.1:{port}"], **place) for _ in range(2)]
        codes = [server.wait(agent) for agent in agents]
    together = (tmp_path / "said").read_text()
    assert codes == [0, 0], together[-6000:]
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
    assert job.run(namespaces=names, MASTER_ADDR=addresses[0]) == [0, 0], job.said()
    assert_same_search(job.records(), reference)
