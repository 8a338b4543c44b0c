"""The guides: their code is a plugin as a stranger writes it, outside of the package; it runs as it stands there."""

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from search.cli import main
from search.results.search import without_seconds

ROOT = Path(__file__).parents[2]
GUIDES = {path.stem: path for path in sorted((ROOT / "docs/adding").glob("*.md")) if path.stem != "index"}
BLOCK = re.compile(r"^```(python|yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=GUIDES)
def commands(request, tmp_path, monkeypatch):
    """The guide's files in an empty folder; its commands."""
    found = []
    for kind, text in BLOCK.findall(GUIDES[request.param].read_text(encoding="utf-8")):
        if kind == "console":
            found += [shlex.split(line.removeprefix("$ ")) for line in text.splitlines()]
        else:
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield found
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_code_of_a_guide_keeps_its_promises_and_runs(commands, capsys):
    assert [words[1] for words in commands] == ["check"] * (len(commands) - 1) + ["run"] and "--tiny" in commands[-1]
    for words in commands:
        assert words[0] == "catchmark"
        code = main([*words[1:], *(["--quiet"] if words[1] == "run" else [])])
        assert code == 0, capsys.readouterr()
    (summary,) = Path("runs").glob("*-tiny/latest/summary.json")
    assert json.loads(summary.read_text())["description"].startswith("TINY")


def test_every_kind_has_a_guide():
    index = (ROOT / "docs/adding/index.md").read_text(encoding="utf-8")
    assert set(GUIDES) == set(re.findall(r"^(\w+)$", index.split("```{toctree}")[1], re.MULTILINE))


KILLING = """
import os, signal, sys
import {module}
owner, calls = {module}.{name}, []
kept = owner.{method}

def killing(*arguments):
    calls.append(arguments)
    if len(calls) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept(*arguments)

owner.{method} = killing
from search.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("commands", "method", "at"),
    [("agent", "learn", 4), ("path_sampler", "epoch_ended", 2)],
    indirect=["commands"],
)
def test_what_is_killed_goes_on_as_if_nothing_had_been(commands, method, at, server):
    """Two processes and two whole runs: what a guide says of state must hold where it is needed."""
    module, _, name = commands[0][2].partition(".")
    run, script = commands[-1][1:], KILLING.format(module=module, name=name, method=method, at=at)
    killed = server.run(script, [*run, "--quiet"], environment={**os.environ, "PYTHONPATH": os.getcwd()})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert main([*run, "--quiet", "--resume"]) == 0
    assert main([*run, "--quiet", "--runs", "whole"]) == 0
    resumed, whole = (
        json.loads(next(Path(runs).glob("*-tiny/latest/summary.json")).read_text()) for runs in ("runs", "whole")
    )
    assert without_seconds(resumed) == without_seconds(whole)
