"""The guides: their code is a plugin as a stranger writes it, outside of the package; it runs as it stands there."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from search.cli import main

GUIDES = sorted(path for path in (Path(__file__).parents[2] / "docs/adding").glob("*.md") if path.stem != "index")
BLOCK = re.compile(r"^```(python|yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=GUIDES, ids=lambda path: path.stem)
def commands(request, tmp_path, monkeypatch):
    """The guide's files in an empty folder; its commands."""
    found = []
    for kind, text in BLOCK.findall(request.param.read_text(encoding="utf-8")):
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
    assert {words[1] for words in commands} == {"check", "run"} and all("--tiny" in words for words in commands[1:])
    for words in commands:
        assert words[0] == "catchmark"
        code = main([*words[1:], *(["--quiet"] if words[1] == "run" else [])])
        assert code == 0, capsys.readouterr()
    (summary,) = Path("runs").glob("*-tiny/latest/summary.json")
    assert json.loads(summary.read_text())["description"].startswith("TINY")


def test_every_kind_has_a_guide():
    index = (GUIDES[0].parent / "index.md").read_text(encoding="utf-8")
    assert {path.stem for path in GUIDES} == set(re.findall(r"^(\w+)$", index.split("```{toctree}")[1], re.MULTILINE))
