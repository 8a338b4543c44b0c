"""The command line: help at once, runs that can be stopped and resumed, and one line about whatever goes wrong."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from search.cli import main
from search.commands import find_commands
from search.commands.run import FLAGS, OPTIONS, option_meant, run_recipe
from search.recipes.classes import find_parameters
from search.recipes.yaml_text import dump_yaml
from search.results.search import without_seconds
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from search.tables import SHIPPED
from search.tables.table import write_table
from tests.forks import COMMAND_LINE
from tests.processes import alive, wait_until

COMMAND = Path(sys.executable).parent / "catchmark"
SLOW = """
import time
from pathlib import Path

from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation
from search.tasks.table import TableTask


class Slow(TableTask):
    instant, made = False, 0

    def evaluate(self, proposals):
        for evaluation in super().evaluate(proposals):
            self.made += 1
            while self.made > 5 and not Path("let").exists():
                time.sleep(0.02)
            yield evaluation


class Lost(RandomSearch):
    def ask(self, n=1):
        raise LookupError("the map fell off the wall")


class Failing(TableTask):
    def evaluate(self, proposals):
        for _ in proposals:
            yield Evaluation.failed("out of luck")
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    archs = np.array(list(itertools.product(range(5), repeat=6)))
    values = np.random.default_rng(0).uniform(0, 90, len(archs))
    path = tmp_path_factory.mktemp("tables") / "tiny.npz"
    return write_table(path, archs, {"c_val_acc_12ep": values}, "nasbench201", compressed=False)


@pytest.fixture
def recipe(table, tmp_path, monkeypatch):
    """A recipe of six evaluations in the current folder, as a mapping; `r.yaml` is its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("slow_tasks.py").write_text(SLOW)
    column = {"table": str(table), "dataset": "c", "split": "val", "metric": "acc", "epochs": 12}
    content = {
        "space": "NASBench201",
        "targets": {"images": {"class_path": "TableTask", "init_args": column}},
        "agents": {"random": "RandomSearch", "evolution": "RegularizedEvolution"},
        "budget": 3,
        "description": "Six evaluations.",
    }
    Path("r.yaml").write_text(dump_yaml(content))
    yield content
    sys.modules.pop("slow_tasks", None)


def with_task(recipe, name, **arguments):
    task = {"class_path": f"slow_tasks.{name}", "init_args": recipe["targets"]["images"]["init_args"] | arguments}
    Path("r.yaml").write_text(dump_yaml(recipe | {"targets": {"images": task}}))


def only_run(name="r"):
    return (Path("runs") / name / "latest").resolve()


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def modules_after(script):
    done = subprocess.run([sys.executable, "-c", f"{script}\nimport sys; print(*sys.modules)"], capture_output=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.decode().split())


# ---- help ----------------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    loaded = modules_after("from search import cli; cli._parser(cli.find_commands())")
    heavy = {"torch", "pytorch_lightning", "numpy", "wandb", "matplotlib", "jsonargparse", "yaml", "scipy", "optuna"}
    assert "search.cli" in loaded and not loaded & heavy


def test_help_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert {"run", "train", "export", "report", "compare", "data", "list"} <= set(find_commands())
    assert all(name in text for name in (*find_commands(), "experiments/quickstart.yaml"))


@pytest.mark.parametrize("words", [*([name] for name in find_commands()), ["data", "nasbench201"]], ids=" ".join)
def test_each_command_has_help_with_an_example(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    example = text.partition("Example: ")[2]
    assert example.startswith(f"catchmark {words[0]}")
    assert words[0] != "run" or all(option in text for option in (*FLAGS, *OPTIONS, "--KEY"))


def test_options_of_run_are_like_no_key_of_a_recipe():
    keys, _, _ = find_parameters(Experiment, 0)
    assert "budget" in keys and not any(option_meant(f"--{key}") for key in keys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "'rnu'"),
        (["report"], "folder"),
        (["report", "a", "b"], "unrecognized arguments: b"),
        (["report", "--html", "x", "a"], "unrecognized arguments: --html"),
        (["compare"], "RUN"),
        (["data"], "BENCHMARK"),
        (["data", "nasbench2"], "nasbench201"),
        (["list", "--all"], "--all"),
        (["run"], "which recipe?"),
        (["run", "--resume"], "which recipe?"),
        (["report", "nowhere"], "nowhere is not a run folder"),
        (["compare", "nowhere", "elsewhere"], "nowhere is not a run folder"),
        (["data", "nasbench201", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_wrong_command_lines(words, said, recipe, capsys):
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("catchmark: ") and line.count("\n") == 1 and said in line


def test_no_command(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: catchmark")


# ---- list ----------------------------------------------------------------------------------------------------------


def test_list(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if not line.startswith(" ")] == [
        "recipes",
        "spaces",
        "tasks",
        "task pools",
        "agents",
        "attributes",
        "reward terms",
        "path samplers",
        "data modules",
        "executors",
        "studies",
        "tables",
    ]
    words = text.split()
    for name in (
        "NASBench201",
        "TableTask",
        "TrainedTask",
        "SubtaskPool",
        "CATCHer",
        "RandomSearch",
        "GumbelSampler",
        *SHIPPED,
    ):
        assert name in words
    assert "quickstart.yaml" in text


def test_output_that_nobody_reads_to_its_end(tmp_path):
    """Such as of `catchmark list | head`, which would take longer."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([COMMAND, "status", tmp_path], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 1 and done.stderr == ""


# ---- a whole run ---------------------------------------------------------------------------------------------------


def test_dry_run(recipe, capsys):
    assert main(["run", "r.yaml", "--dry-run", "--trials", "2"]) == 0
    text = capsys.readouterr().out
    assert "# images/random: 6 evaluations" in text and "# in all: 12 evaluations" in text
    assert yaml.safe_load(text)["trials"] == 2
    assert not Path("runs").exists()


def test_a_run_and_what_it_leaves(recipe, capsys):
    assert main(["run", "r.yaml"]) == 0
    output = capsys.readouterr()
    latest = Path("runs/r/latest")
    assert latest.is_symlink() and latest.resolve().parent == Path("runs/r").resolve()
    folder = only_run()
    assert {"config.yaml", "journal.sqlite", "summary.json", "report.html"} <= {each.name for each in folder.iterdir()}
    said = dict(line.split(": ", 1) for line in output.out.splitlines())
    assert Path(said["summary"].strip()) == Path("runs/r") / folder.name / "summary.json"
    assert Path(said["report"].strip()).read_text().lstrip().startswith("<!")
    agents = summary_of(folder)["targets"]["images"]["agents"]
    assert list(agents) == ["random", "evolution"] and agents["random"]["evaluations"] == 3
    journal = Journal(folder / "journal.sqlite", writable=False)
    assert journal.about("status") == "finished"
    assert yaml.safe_load(journal.about("recipe")) == yaml.safe_load((folder / "config.yaml").read_text())
    assert len(list(journal.records("images/random"))) == 3
    environment = json.loads(journal.about("environment"))
    assert {"python", "torch", "platform", "started", "command"} <= set(environment)
    journal.close()
    assert "images/random" in output.err, "progress is shown where --quiet is not said"


def test_quiet(recipe, capsys):
    assert main(["run", "r.yaml", "--quiet", "--runs", "elsewhere"]) == 0
    assert capsys.readouterr().err == ""
    assert (Path("elsewhere/r/latest") / "summary.json").is_file() and not Path("runs").exists()


def test_two_runs_of_a_second(recipe):
    assert main(["run", "r.yaml", "--quiet"]) == 0
    first = only_run()
    assert main(["run", "r.yaml", "--quiet"]) == 0
    assert first.is_dir() and only_run() != first
    assert without_seconds(summary_of(only_run())) == without_seconds(summary_of(first))


def test_a_folder_called_latest_is_left_alone(recipe, capsys):
    Path("runs/r/latest").mkdir(parents=True)
    (Path("runs/r/latest") / "mine").touch()
    assert main(["run", "r.yaml", "--quiet"]) == 0
    assert "no link runs/r/latest" in capsys.readouterr().err
    assert (Path("runs/r/latest") / "mine").exists()
    assert sorted(each.name for each in Path("runs/r").iterdir() if each.name.startswith(".")) == []


def test_runs_that_cannot_be_written(recipe, capsys):
    Path("taken").touch()
    assert main(["run", "r.yaml", "--runs", "taken"]) == 2
    line = capsys.readouterr().err
    assert "can't make the run folder taken/r/" in line and line.count("\n") == 1


# ---- resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["latest", "folder", "name", "recipe after", "no recipe"])
def test_resuming_a_finished_run_changes_nothing(how, recipe):
    assert main(["run", "r.yaml", "--quiet"]) == 0
    folder = only_run()
    before = summary_of(folder)
    words = {
        "latest": ["r.yaml", "--resume"],
        "folder": ["r.yaml", "--resume", str(folder)],
        "name": ["r.yaml", f"--resume={folder.name}"],
        "recipe after": ["--resume", "r.yaml"],
        "no recipe": ["--resume", "runs/r/latest"],
    }[how]
    assert main(["run", *words, "--quiet"]) == 0
    assert summary_of(folder) == before
    assert [each for each in Path("runs/r").iterdir() if each.name != "latest"] == [Path("runs/r") / folder.name]


def test_resuming_with_another_recipe_is_refused(recipe, capsys):
    assert main(["run", "r.yaml", "--quiet"]) == 0
    before = {each: each.read_bytes() for each in only_run().iterdir()}
    capsys.readouterr()
    assert main(["run", "r.yaml", "--resume", "--budget", "9", "--agents.evolution.population", "5"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    keys = line.partition("differs from the run's in: ")[2].partition(";")[0]
    assert keys.split(", ") == ["agents.evolution.init_args.population", "budget"]
    command = line.partition("own recipe: ")[2].strip()
    assert main(shlex.split(command)[1:]) == 0
    after = {each: each.read_bytes() for each in only_run().iterdir() if each.suffix in (".yaml", ".json")}
    assert {each: content for each, content in before.items() if each in after} == after


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "nowhere"], ["--resume", "."]])
def test_nothing_to_resume(words, recipe, capsys):
    assert main(["run", "r.yaml", *words]) == 2
    line = capsys.readouterr().err
    assert "--resume: there is no run in" in line and "without --resume" in line and line.count("\n") == 1


def test_a_run_folder_that_lost_its_recipe(recipe, capsys):
    assert main(["run", "r.yaml", "--quiet"]) == 0
    (only_run() / "config.yaml").unlink()
    assert main(["run", "--resume", str(only_run())]) == 2
    assert "name the recipe too" in capsys.readouterr().err
    assert main(["run", "r.yaml", "--quiet", "--resume"]) == 0
    # The journal has the recipe too, and puts it back.
    assert main(["run", "--quiet", "--resume", str(only_run())]) == 0


def test_two_processes_on_one_run(recipe, capsys):
    assert main(["run", "r.yaml", "--quiet"]) == 0
    journal = Journal(only_run() / "journal.sqlite")
    assert main(["run", "r.yaml", "--quiet", "--resume"]) == 1
    journal.close()
    line = capsys.readouterr().err
    assert "another process" in line and line.count("\n") == 1


def start_slow_run(server, recipe):
    """A run of twice 40 evaluations as a process of its own, once five are made; on its own it would not go on."""
    with_task(recipe, "Slow")
    process = server.start(COMMAND_LINE, ["run", "r.yaml", "--quiet", "--budget", "40"], stderr="errors.txt")
    wait_until(lambda: evaluations_of_the_run() == 5 or not alive(process))
    assert alive(process), Path("errors.txt").read_text()
    return process


def evaluations_of_the_run():
    if not (Path("runs/r/latest") / "journal.sqlite").exists():
        return 0
    try:
        journal = Journal(only_run() / "journal.sqlite", writable=False)
    except Exception:  # caught in the act of making it
        return 0
    count = sum(len(list(journal.records(search))) for search in journal.searches())
    journal.close()
    return count


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_never_stopped(sent, server, recipe, capsys):
    process = start_slow_run(server, recipe)
    os.kill(process, sent)
    code, errors = server.wait(process), Path("errors.txt").read_text()
    assert code == 130 and errors.count("\n") == 1, errors
    assert not (only_run() / "summary.json").exists()
    assert evaluations_of_the_run() == 5
    journal = Journal(only_run() / "journal.sqlite", writable=False)
    assert journal.about("status") == "interrupted"
    journal.close()
    # The line says, word for word, how to go on.
    command = shlex.split(errors.partition("go on with: ")[2])
    Path("let").touch()
    assert command[0] == "catchmark" and main([*command[1:], "--quiet"]) == 0
    resumed = summary_of(only_run())
    assert main(["run", "r.yaml", "--quiet", "--budget", "40", "--runs", "straight"]) == 0
    assert without_seconds(resumed) == without_seconds(summary_of(Path("straight/r/latest")))


def test_report_of_an_unfinished_run(server, recipe, capsys):
    process = start_slow_run(server, recipe)
    os.kill(process, signal.SIGKILL)
    assert server.wait(process) == -signal.SIGKILL
    assert main(["report", "runs/r/latest", "--trust", "slow_tasks"]) == 0
    assert (only_run() / "report.html").is_file()
    targets = summary_of(only_run())["targets"]
    assert 1 <= targets["images"]["agents"]["random"]["evaluations"] <= 40
    assert Path(capsys.readouterr().out.strip()).name == "report.html"


def test_the_signal_handler_is_put_back(recipe):
    before = signal.getsignal(signal.SIGTERM)
    assert run_recipe(Path("r.yaml"), {}, quiet=True) == 0
    assert signal.getsignal(signal.SIGTERM) is before


# ---- runs that cannot be finished ----------------------------------------------------------------------------------


def test_an_error_within_a_run(recipe, capsys):
    Path("r.yaml").write_text(dump_yaml(recipe | {"agents": {"random": "RandomSearch", "lost": "slow_tasks.Lost"}}))
    assert main(["run", "r.yaml", "--quiet"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "LookupError: the map fell off the wall (slow_tasks.py, line" in line
    account = Path(line.partition("traceback in ")[2].partition(")")[0])
    assert account.parent.resolve() == only_run() and "slow_tasks.py" in account.read_text()
    # Mended, the same run goes on.
    Path("slow_tasks.py").write_text(SLOW.replace("raise LookupError", "return super().ask(n)  #"))
    sys.modules.pop("slow_tasks")
    assert main([*shlex.split(line.partition("go on with: ")[2])[1:], "--quiet"]) == 0
    assert summary_of(only_run())["targets"]["images"]["agents"]["lost"]["evaluations"] == 3


def test_evaluations_that_all_fail(recipe, capsys):
    with_task(recipe, "Failing")
    assert main(["run", "r.yaml", "--quiet", "--budget", "20"]) == 1
    first, line = capsys.readouterr().err.splitlines()
    assert first == "images/random: an evaluation failed: out of luck"
    assert "10 evaluations in a row failed" in line and "out of luck" in line


# ---- comparing -----------------------------------------------------------------------------------------------------


def test_compare(recipe, capsys):
    for seed in ("0", "100"):
        assert main(["run", "r.yaml", "--quiet", "--trials", "5", "--seed", seed, "--runs", f"seed{seed}"]) == 0
    capsys.readouterr()
    assert main(["compare", "seed0/r/latest", "seed100/r/latest", "--html", "both.html"]) == 0
    text = capsys.readouterr().out
    assert "images" in text and "random" in text and "seed" in text and "page: both.html" in text
    for folder in ("seed0/r/latest", "seed100/r/latest"):
        mean = summary_of(Path(folder))["targets"]["images"]["agents"]["random"]["best_score_mean"]
        assert f"{mean:.1f}"[:4] in text
    assert Path("both.html").read_text().lstrip().startswith("<!")


def test_compare_wants_two(recipe, capsys):
    assert main(["run", "r.yaml", "--quiet"]) == 0
    assert main(["compare", "runs/r/latest"]) == 2
    assert "two or more are needed" in capsys.readouterr().err
