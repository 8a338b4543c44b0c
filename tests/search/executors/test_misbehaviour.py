"""Tasks of users that do to the process what they should not: a line says so, and nothing evaluated before is lost."""

import io
import json
import os
import shutil
import signal
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from search.cli import main
from search.errors import RunError
from search.evaluation import Evaluation, Proposal
from search.executors.inline import evaluate_all, evaluate_one
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import OneByOne

SPACE = NASBench201()
GOOD = Evaluation(1.0, cost_seconds=1.0)


class Misbehaving(OneByOne):
    """Its ``n``-th evaluation in this process does what `deeds` say, or scores ``n``."""

    made = 0
    deeds: ClassVar = {}

    def __init__(self, space):
        self.space = space

    def evaluate_one(self, proposal):
        Misbehaving.made += 1
        answer = self.deeds.get(Misbehaving.made, lambda: None)()
        return Evaluation(float(Misbehaving.made), cost_seconds=1.0) if answer is None else answer


class Unspeakable(Exception):
    """Even its message fails."""

    def __str__(self):
        raise RuntimeError("no words")


class OwnEnd(BaseException):
    """Nobody expects it."""


def fall(error):
    raise error


def one_after_another(*deeds):
    for deed in deeds:
        deed()


def run_folder():
    return (Path("runs") / "r" / "latest").resolve()


def close_and_open():
    """Other files then have the numbers of the journal's."""
    os.closerange(0, 100)
    Misbehaving.files = [open(f"other{k}.txt", "w+") for k in range(20)]


def in_a_child(deed):
    if os.fork() == 0:
        deed()


def replace_streams():
    sys.stdout = sys.stderr = io.StringIO()


def ignore_signals():
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def have_torch_compute_otherwise():
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)


GOES_ON = {
    "moves": lambda: os.chdir("/"),
    "moves to a folder that it removes": lambda: one_after_another(
        lambda: os.mkdir("x"), lambda: os.chdir("x"), lambda: os.rmdir("../x")
    ),
    "forks": lambda: in_a_child(lambda: None),
    "forks and fails there": lambda: in_a_child(lambda: fall(ValueError("in the child"))),
    "forks and exits there": lambda: in_a_child(sys.exit),
    "forks and is interrupted there": lambda: in_a_child(lambda: fall(KeyboardInterrupt())),
    "replaces streams": replace_streams,
    "closes streams": lambda: one_after_another(sys.stdout.close, sys.stderr.close),
    "closes descriptors": lambda: os.closerange(0, 3),
    "ignores signals": ignore_signals,
    "makes warnings errors": lambda: warnings.simplefilter("error"),
    "makes rounding an error": lambda: np.seterr(all="raise") and None,
    "sets an alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.3) and None,
    "has torch compute otherwise": have_torch_compute_otherwise,
    "names a metric oddly": lambda: Evaluation(1.0, {"\ud800\x1b[31m": 1.0, 3: np.float32(2.0), None: True}),
    "gives tensors": lambda: Evaluation(torch.tensor([2.0]), {"a": torch.tensor(1, dtype=torch.int8)}, Fraction(1, 2)),
}
FAILS = {
    "fails oddly": lambda: Evaluation(0.0, status="failed", reason="\ud800\n\x1b]0;title\x07" + "long " * 10**6),
    "fails without a reason": lambda: Evaluation(0.0, status="failed"),
    "has a status of its own": lambda: Evaluation(1.0, status="splendid"),
    "raises what can't be told": lambda: fall(Unspeakable()),
    "raises odd words": lambda: fall(ValueError("\ud800" + "x" * 10**6)),
}
ENDS = {
    "exits": lambda: sys.exit("bye"),
    "exits well": lambda: sys.exit(0),
    "exits without a word": sys.exit,
    "ends a generator": lambda: fall(GeneratorExit()),
    "raises its own end": lambda: fall(OwnEnd("over\nand out")),
    "closes everything": lambda: os.closerange(0, 100),
    "closes everything and opens other files": close_and_open,
    "gives a number": lambda: 0.5,
    "gives words": lambda: Evaluation("good"),
    "gives several numbers": lambda: Evaluation(torch.tensor([1.0, 2.0])),
    "nests its metrics": lambda: Evaluation(1.0, {"a": {"b": 1.0}}),
    "gives a complex cost": lambda: Evaluation(1.0, cost_seconds=1j),
    "gives a number of 400 digits": lambda: Evaluation(10**400),
    "dies": lambda: os._exit(0),
}
TAKES_AWAY = {
    "removes the run's folder": lambda: shutil.rmtree(run_folder()),
    "removes all runs": lambda: shutil.rmtree("runs"),
    "moves the run's folder": lambda: os.rename(run_folder(), "elsewhere"),
}


def in_a_process(folder, *words):
    """A command in a process of its own, forked; its exit code, and what it said on standard output and error."""
    said = folder / "out.txt", folder / "err.txt"
    if (child := os.fork()) == 0:
        code = 99
        try:
            os.chdir(folder)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for descriptor, path in enumerate(said, 1):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
                os.dup2(file, descriptor)
                os.close(file)
            sys.stdout = open(1, "w", closefd=False, buffering=1)
            sys.stderr = open(2, "w", closefd=False, buffering=1)
            code = main([*map(str, words)])
            sys.stdout.flush()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, *(path.read_text(errors="surrogateescape").splitlines() for path in said)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a recipe, whose task does such deeds in its first evaluations; as `in_a_process` gives it."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)

    def call(deeds, *words, budget=6):
        monkeypatch.setattr(Misbehaving, "deeds", dict(enumerate(deeds, 1)))
        monkeypatch.setattr(Misbehaving, "made", 0)
        task = f"{__name__}.Misbehaving"
        recipe = {"space": "NASBench201", "targets": {"t": task}, "agents": {"random": "RandomSearch"}}
        Path("r.yaml").write_text(dump_yaml(recipe | {"budget": budget}))
        return in_a_process(tmp_path, "run", *(words or ["r.yaml"]), "--quiet")

    return call


def evaluations(folder):
    journal = Journal(folder / "journal.sqlite", writable=False)
    try:
        return [record.evaluation for record in journal.records("t/random")]
    finally:
        journal.close()


def test_a_run_goes_on_behind_what_its_task_does(run, tmp_path):
    deeds, budget = GOES_ON | FAILS, len(GOES_ON | FAILS) + 1
    code, output, errors = run(deeds.values(), budget=budget)
    assert code == 0, errors
    assert [line.partition(" ")[0] for line in output] == ["run:", "summary:", "report:"]
    first, last = errors
    assert first.startswith("t/random: an evaluation failed: ? ?]0;title?long long") and first.isprintable()
    assert last == f"failed: {len(FAILS)} of {budget} evaluations, the report says why" and len(first) < 400
    made = dict(zip([*deeds, "nothing"], evaluations(run_folder()), strict=True))
    assert [name for name, each in made.items() if each.status != "ok"] == list(FAILS)
    assert made["names a metric oddly"].metrics == {"??[31m": 1.0, "3": 2.0, "None": 1.0}
    assert made["gives tensors"] == Evaluation(2.0, {"a": 1.0}, 0.5)
    assert len(made["fails oddly"].reason) == 1000
    for name, words in {
        "fails without a reason": "its status is 'failed', and no reason was given",
        "has a status of its own": "its status is 'splendid', and no reason was given",
        "raises what can't be told": "Unspeakable: Unspeakable (test_misbehaviour.py:",
        "raises odd words": "ValueError: ?xxxxx",
    }.items():
        assert made[name].reason.startswith(words), name
    assert sorted(path.name for path in run_folder().iterdir()) == FILES
    json.loads((run_folder() / "summary.json").read_text())
    assert (run_folder() / "report.html").read_text().rstrip().endswith("</html>")
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "r.yaml", "out.txt", "err.txt"}


FILES = ["config.yaml", "journal.lock", "journal.sqlite", "report.html", "summary.json"]


def test_a_run_that_its_task_ends_says_so_and_loses_nothing(run, tmp_path):
    """The run ends again and again, each time in the second evaluation behind those that it has."""
    words = []
    for count, (name, deed) in enumerate(ENDS.items(), 1):
        code, output, errors = run([lambda: None, deed], *words, budget=len(ENDS) + 1)
        if name == "dies":  # it can't be noticed: whoever started it sees the task's own exit code
            assert (code, errors) == (0, [])
        else:
            assert code == 1 and len(errors) == 1 and errors[0].startswith("catchmark: "), (name, errors)
        assert len(output) == 1 and output[0].startswith("run: runs/r/"), name
        if "ends a generator" in name or "exits" in name or "own end" in name:
            assert errors[0].startswith("catchmark: the task ended its process with "), name
        assert len(evaluations(run_folder())) == count, name  # what was evaluated before is there
        words = ["--resume", str(Path("runs", "r", run_folder().name)), "--trust", __name__]
    code, _, errors = run([], *words)
    assert (code, errors) == (0, []) and len(evaluations(run_folder())) == len(ENDS) + 1
    assert sorted(path.name for path in run_folder().iterdir()) == FILES
    assert all(path.read_bytes() == b"" for path in tmp_path.glob("other*.txt"))


@pytest.mark.parametrize("name", TAKES_AWAY)
def test_a_run_whose_folder_is_taken_away_says_so(run, name):
    code, output, errors = run([lambda: None, TAKES_AWAY[name]])
    assert code == 1 and len(output) == len(errors) == 1
    assert "journal.sqlite was removed, moved or replaced while the run wrote it" in errors[0]
    if name.startswith("moves"):
        assert len(evaluations(Path("elsewhere"))) == 1
        assert (
            run([], "--resume", "elsewhere", "--trust", __name__)[0] == 0 and len(evaluations(Path("elsewhere"))) == 6
        )


@pytest.mark.parametrize(
    "answers, words",
    [
        (lambda: None, "evaluate gives a NoneType, not Evaluations"),
        (lambda: 0.5, "evaluate gives a float, not Evaluations"),
        (lambda: [], "evaluate gives 0 evaluations where 2 are asked"),
        (lambda: [GOOD], "evaluate gives 1 evaluations where 2 are asked"),
        (lambda: [GOOD] * 3, "evaluate gives more evaluations than were asked"),
        (lambda: iter(lambda: GOOD, None), "evaluate gives more evaluations than were asked"),
        (lambda: "ab", "gives a str, an Evaluation is needed"),
    ],
)
def test_another_number_of_answers_ends_the_run(answers, words):
    class Miscounting(Misbehaving):
        def evaluate(self, proposals):
            return answers()

    with pytest.raises(RunError, match=words) as caught:
        list(evaluate_all(Miscounting(SPACE), [Proposal((0,) * 6)] * 2))
    assert caught.value.exit_code == 1


def test_nothing_of_the_care_stays_open():
    def opened():
        return set(os.listdir("/proc/self/fd"))

    task, before = Misbehaving(SPACE), opened()
    for _ in range(20):
        evaluate_one(task, Proposal((0,) * 6))
        evaluations = evaluate_all(task, [Proposal((0,) * 6)] * 2)
        next(evaluations)
        evaluations.close()
    assert opened() == before


# ---- what can't be written -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    recipe = {
        "space": "NASBench201",
        "targets": {"tür": f"{__name__}.Misbehaving"},
        "agents": {"random": "RandomSearch"},
        "budget": 2,
    }
    (root / "r.yaml").write_text(dump_yaml(recipe))
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "disabled"
    try:
        for runs in ("a", "b"):
            assert main(["run", str(root / "r.yaml"), "--quiet", "--runs", str(root / runs)]) == 0
    finally:
        os.environ.pop("WANDB_MODE") if before is None else os.environ.update(WANDB_MODE=before)
    return root / "r.yaml", [str((root / runs / "r" / "latest").resolve()) for runs in ("a", "b")]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_terminal_without_a_character_shows_another(two_runs, encoding):
    recipe, runs = two_runs
    for words in (["compare", *runs], ["run", str(recipe), "--dry-run", "--description", "ü — 文"], ["list"], ["x—"]):
        raw = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(each, encoding=encoding, errors="strict") for each in raw)
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words)
        out.flush(), err.flush()
        text, errors = (each.getvalue().decode(encoding) for each in raw)
        assert code == (2 if words == ["x—"] else 0) and "Traceback" not in errors
        assert "?" in text + errors if words != ["list"] else "recipes" in text


@pytest.mark.parametrize("place", ["nowhere/x.html", ".", "/proc/x.html", "file/x.html", "x" * 300 + ".html"])
def test_a_comparison_that_can_not_be_written(two_runs, place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["compare", *two_runs[1], "--html", place]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith(f"catchmark: --html: '{place}' can't be written (")


@pytest.mark.parametrize("place", ["file", "/proc/x", "/dev/null", "x" * 300])
def test_runs_that_can_not_be_written(two_runs, place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["run", str(two_runs[0]), "--runs", place, "--quiet"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "can't make the run folder" in line


@pytest.mark.parametrize("name", ["summary.json", "report.html", "error.txt"])
def test_a_file_of_the_run_that_can_not_be_replaced(two_runs, name, tmp_path, capsys):
    run = shutil.copytree(two_runs[1][0], tmp_path / "run")
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    code = main(["run", "--resume", str(run), "--quiet", "--trust", __name__])
    line = capsys.readouterr().err
    assert (code, line.count("\n")) == ((0, 0) if name == "error.txt" else (1, 1)) and "Traceback" not in line


@pytest.mark.parametrize("command", [["list"], ["compare"], ["report"]])
def test_an_output_that_is_full(two_runs, command, tmp_path):
    """As of `catchmark list > /dev/full`."""
    runs = two_runs[1][: {"list": 0, "compare": 2, "report": 1}[command[0]]]
    trust = ["--trust", __name__] if command == ["report"] else []
    err = tmp_path / "err.txt"
    if (child := os.fork()) == 0:
        code = 99
        try:
            with open("/dev/full", "w") as full, open(err, "w") as file, redirect_stdout(full), redirect_stderr(file):
                code = main([*command, *runs, *trust])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert err.read_text() == "catchmark: [Errno 28] No space left on device\n"


def test_a_run_without_any_standard_stream(two_runs, tmp_path, monkeypatch):
    """As of `catchmark run r.yaml >&- 2>&-`: Python then has none."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["run", str(two_runs[0]), "--runs", str(tmp_path / "runs")]) == 0
    assert main(["run", "nothing.yaml"]) == 2


def test_what_is_printed_never_goes_into_a_file_of_the_run(two_runs, tmp_path, monkeypatch):
    """Where the standard streams' descriptors are closed, the next files to be opened would have their numbers."""
    noise = b"what a library writes without asking"
    monkeypatch.setattr(Misbehaving, "deeds", {1: lambda: [os.write(k, noise) for k in (1, 2)] and None})
    monkeypatch.setattr(Misbehaving, "made", 0)
    if (child := os.fork()) == 0:
        code = 99
        try:
            sys.stdin = sys.stdout = sys.stderr = None
            os.closerange(0, 3)
            code = main(["run", str(two_runs[0]), "--runs", str(tmp_path / "runs"), "--quiet"])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= len(FILES) and not [path for path in files if noise in path.read_bytes()]
