"""How a process finds out what it was started for, and what a dry run says of the time it will take."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from search.cli import main
from search.errors import CatchmarkError
from search.recipes.recipe import RECIPES, load_recipe
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.tables.table import write_table
from search.training.launch import Launch, find_launch, first_host

LAUNCH = RECIPES / "launch"
TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "head",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "mine",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SRUN = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NNODES": "2",
    "SLURM_JOB_NODELIST": "gpu[07-09,12],other",
    "SLURM_RESTART_COUNT": "1",
}
RECIPE = """
space: NASBench201
targets:
  digits:
    class_path: TrainedTask
    init_args:
      data: {class_path: DigitsDataModule, init_args: {resolution: 8}}
      epochs: 1
      build: {channels: 2, cells: 1}
      threads: 1
      trainer: {accelerator: cpu, limit_train_batches: 1}
  table:
    class_path: TableTask
    init_args: {table: TABLE, dataset: cifar10, split: val, metric: acc, epochs: 12, cost_seconds: 30.0}
agents: {random: RandomSearch, evolution: RegularizedEvolution}
budget: 3
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    for name in [*TORCHRUN, *SRUN]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)


def test_a_process_by_itself():
    launch = find_launch({})
    assert launch == Launch() and (launch.rank, launch.ranks, launch.nodes, launch.node) == (0, 1, 1, 0)
    # A batch script is not srun, and a torchrun of one process has nobody to follow it.
    assert find_launch({"SLURM_JOB_ID": "3", "SLURM_NTASKS": "4", "SLURM_RESTART_COUNT": "2"}) == Launch(
        identity="SLURM  3", restarts=2
    )
    one = TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}
    assert find_launch(one) == Launch(identity="torchrun mine", restarts=2)


def test_torchrun():
    launch = find_launch(TORCHRUN)
    assert launch == Launch(5, 8, 1, 2, "head", 29500, "torchrun mine", 2, agent=True)
    assert (launch.ranks_of_node, launch.node) == (4, 1)
    unnamed = find_launch(TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"})
    assert unnamed.identity == "torchrun head:29500"


def test_srun():
    launch = find_launch(SRUN)
    assert (launch.rank, launch.ranks, launch.local_rank, launch.nodes, launch.address) == (4, 6, 1, 2, "gpu07")
    assert launch.restarts == 1 and launch.identity == "SLURM  77" and not launch.agent
    # Every rank of a step finds the same port without being told, another step of the job another one.
    assert launch.port == find_launch(SRUN | {"SLURM_PROCID": "0"}).port
    assert launch.port != find_launch(SRUN | {"SLURM_STEP_ID": "1"}).port
    assert 15000 <= launch.port < 30000
    chosen = find_launch(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"})
    assert (chosen.address, chosen.port) == ("10.0.0.1", 4000)
    # A step may be smaller than its job.
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "gpu12",
        "SLURM_PROCID": "1",
    }
    small = find_launch(SRUN | step)
    assert (small.ranks, small.nodes, small.address) == (2, 1, "gpu12")
    # torchrun inside of a job: the job is what is started again.
    inside = find_launch(SRUN | TORCHRUN)
    assert (inside.rank, inside.ranks, inside.identity, inside.restarts) == (5, 8, "SLURM  77", 3)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node3", "node3"),
        ("a,b", "a"),
        ("node[007-9]", "node007"),
        ("rack1-n[3,5-7],rack2-n[1]", "rack1-n3"),
        ("gpu[12]", "gpu12"),
    ],
)
def test_the_first_of_slurms_nodes(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (TORCHRUN | {"RANK": "first"}, "RANK is 'first', a whole number is needed"),
        (TORCHRUN | {"MASTER_ADDR": ""}, "no MASTER_ADDR: start with torchrun or srun"),
        (TORCHRUN | {"RANK": "8"}, "rank 8 of 8 on 2 nodes"),
        (SRUN | {"SLURM_NNODES": "4"}, "each node must have the same number of processes"),
    ],
)
def test_a_launch_that_makes_no_sense(environment, message):
    with pytest.raises(CatchmarkError, match=message):
        find_launch(environment)


# ---- started again -------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path):
    archs = np.array(list(NASBench201().enumerate()), dtype=np.int8)
    scores = np.random.default_rng(0).uniform(10, 90, len(archs))
    table = write_table(tmp_path / "table.npz", archs, {"cifar10_val_acc_12ep": scores}, "nasbench201")
    (tmp_path / "r.yaml").write_text(RECIPE.replace("TABLE", str(table)))
    return tmp_path / "r.yaml"


def folders():
    return sorted(path.parent.name for path in Path("runs/r").glob("*/journal.sqlite") if path.parent.name != "latest")


def launched(folder):
    journal = Journal(Path("runs/r") / folder / "journal.sqlite", writable=False)
    try:
        return journal.about("launch")
    finally:
        journal.close()


def test_a_job_that_is_started_again_goes_on_in_its_folder(recipe, monkeypatch, capsys):
    run = ["run", "r.yaml", "--quiet", "--budget", "1"]
    assert main(run) == 0
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert main(run) == 0, "not started again: a run of its own"
    assert main([*run, "--seed", "1"]) == 0
    first, second, third = folders()
    assert [launched(each) for each in (first, second, third)] == ["", "SLURM  41", "SLURM  41"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    capsys.readouterr()
    for words, folder in ([], second), (["--seed", "1"], third):
        before = (Path("runs/r") / folder / "report.html").stat().st_mtime_ns
        assert main([*run, *words]) == 0
        assert f"SLURM  41 was started again: going on in runs/r/{folder}" in capsys.readouterr().err
        assert (Path("runs/r") / folder / "report.html").stat().st_mtime_ns > before
    assert len(folders()) == 3
    (Path("runs/r") / third / "journal.sqlite").write_bytes(b"damaged")
    assert main(run) == 0 and len(folders()) == 3, "a damaged journal hides none behind it"
    assert main([*run, "--seed", "2"]) == 0 and len(folders()) == 4, "another recipe was not begun before"
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert main(run) == 0 and len(folders()) == 5, "neither was another job"


# ---- what it will take ---------------------------------------------------------------------------------------------


def plan(capsys, *words):
    capsys.readouterr()
    assert main(["run", "r.yaml", "--dry-run", *words]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]
    return {name: rest for name, rest in (line[2:].split(": ", 1) for line in lines)}


def test_what_a_recipe_will_take(recipe, capsys):
    before = plan(capsys)
    assert before["digits/random"] == "3 evaluations, cost: what is unknown until an evaluation was made"
    assert before["table/random"] == "3 evaluations, cost: 1 min 30 s (said of look-ups)"
    assert before["in all"] == "12 evaluations, cost: 3 min 0 s and what is unknown until an evaluation was made"
    assert main(["run", "r.yaml", "--quiet", "--budget", "2"]) == 0
    (folder,) = folders()
    # Two were measured; a budget of 600 would take 300 times as long.
    seconds = measured(folder)
    after = plan(capsys, "--budget", "600")
    words = r"600 evaluations, cost: (.+) \(the mean of 2 measured in runs/r/" + folder + r"\)"
    for agent in "random", "evolution":
        (said,) = re.fullmatch(words, after[f"digits/{agent}"]).groups()
        assert in_seconds(said) == pytest.approx(300 * sum(seconds[agent]), abs=1, rel=0.06)
    assert "unknown" not in after["in all"]
    # Another network is another matter.
    other = plan(capsys, "--targets.digits.build", "{channels: 64, cells: 5}")
    assert other["digits/random"].endswith("unknown until an evaluation was made")
    assert plan(capsys, "--resume", folder)["digits/random"].endswith(f"measured in runs/r/{folder})")


def measured(folder):
    journal = Journal(Path("runs/r") / folder / "journal.sqlite", writable=False)
    try:
        return {
            agent: [record.evaluation.cost_seconds for record in journal.records(f"digits/{agent}")]
            for agent in ("random", "evolution")
        }
    finally:
        journal.close()


def in_seconds(words):
    units = {"h": 3600, "min": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) (h|min|s)", words))


def test_an_agent_that_was_not_there_takes_what_others_took(recipe, capsys):
    assert main(["run", "r.yaml", "--quiet", "--budget", "2"]) == 0
    text = recipe.read_text().replace("evolution: Reg", "newcomer: Reg")
    recipe.write_text(text)
    assert "the mean of 4 measured" in plan(capsys)["digits/newcomer"]


# ---- the files -----------------------------------------------------------------------------------------------------


def test_the_slurm_script_goes_on_after_the_time_limit_and_nothing_else(tmp_path):
    """With stand-ins for SLURM's commands: what it calls, and when it queues the job again."""
    script = LAUNCH / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), re.MULTILINE))
    assert options["signal"] == "TERM@120" and "requeue" in options and options["open-mode"] == "append"
    for command in "srun", "scontrol":
        file = tmp_path / "bin" / command
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/bash\necho "{command} $*" >> "{tmp_path}/called"\nexit "${{{command}_code:-0}}"\n')
        file.chmod(0o755)
    for code, requeued in [(0, False), (1, False), (2, False), (130, True)]:
        (tmp_path / "called").write_text("")
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "9",
            "srun_code": str(code),
        }
        words = [str(script), "a recipe.yaml", "--budget", "3"]
        assert subprocess.run(["bash", *words], env=environment).returncode == code
        called = (tmp_path / "called").read_text().splitlines()
        assert called[0] == "srun --kill-on-bad-exit=1 catchmark run a recipe.yaml --budget 3 --quiet"
        assert called[1:] == (["scontrol requeue 9"] if requeued else [])


def test_the_ray_job_names_what_there_is():
    job = yaml.safe_load((LAUNCH / "ray_job.yml").read_text())
    assert set(job) <= {"working_dir", "excludes", "env_vars"}
    assert all(isinstance(value, str) for value in job["env_vars"].values())
    assert ".venv" in job["excludes"] and "runs" in job["excludes"]


@pytest.mark.parametrize("name", ["ray_job.yml", "README.md", "slurm.sh"])
def test_recipes_and_options_that_are_named_exist(name):
    text = (LAUNCH / name).read_text()
    recipes = set(re.findall(r"experiments/[\w/]+\.yaml", text)) - {"experiments/my_recipe.yaml"}
    for path in recipes - {"experiments/launch/ray_job.yml"}:
        overrides = {"executor": "RayExecutor", "executor.address": "auto", "executor.workers": "8"}
        study, _ = load_recipe(RECIPES.parent / path, overrides)
        assert (study.executor.workers, study.executor.address) == (8, "auto")
    for script in re.findall(r"experiments/launch/[\w.]+", text):
        assert (RECIPES.parent / script).is_file()


def test_options_of_torchrun_that_are_named_exist():
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--help"]
    known = subprocess.run(torchrun, capture_output=True, text=True, check=True).stdout
    text = (LAUNCH / "README.md").read_text()
    block = text[text.index("torchrun --nnodes") : text.index("-m search.cli run experiments/my_recipe")]
    named = [*re.findall(r"--[\w-]+", block), "--standalone", "--local-addr"]
    assert len(named) == 8
    for option in named:
        assert option in text and option in known
