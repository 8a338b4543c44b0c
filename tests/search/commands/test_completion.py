"""``catchmark completion``: what bash offers, asked of bash itself; and that it answers without anything heavy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from search.cli import main
from search.commands.completion import candidates
from search.recipes.outline import RECIPES, recipe_keys

ROOT = Path(__file__).parents[3]
RECIPE = """
space: NASBench201
targets: {one: {class_path: TableTask, init_args: {dataset: cifar100}}}
agents:
  catch: {class_path: CATCHer, init_args: {settings: {candidates: 40}}}
  evolution: {class_path: RegularizedEvolution, init_args: {population: 9}}
  random: RandomSearch
budget: 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RECIPE)
    Path("over.yaml").write_text("base: mine.yaml\nagents: {random: null, local: LocalSearch}\n")
    Path("notes.txt").write_text("")
    Path("more").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", ["run", "report", "compare", "completion", "--help"]),
        ("com", ["compare", "completion"]),
        ("run m", ["mine.yaml", "more/"]),
        ("run mine.yaml --agents.", ["--agents.catch.", "--agents.evolution.", "--agents.random"]),
        ("run over.yaml --agents.l", ["--agents.local"]),
        ("run mine.yaml --budget 3 --agents.catch.", ["--agents.catch.class_path", "--agents.catch.settings."]),
        ("run mine.yaml --agents.catch.init_args.settings.", ["--agents.catch.init_args.settings.candidates"]),
        ("run mine.yaml --agent.p", ["--agent.population"]),
        ("run mine.yaml --tr", ["--trust", "--trials"]),
        ("run mine.yaml --targets.one.d", ["--targets.one.dataset"]),
        ("run mine.yaml --budget ", []),
        ("run mine.yaml --quiet --dr", ["--dry-run"]),
        ("run nowhere.yaml --agents.", []),
        ("new c", ["classification"]),
        ("new classification folder --", ["--out", "--skip-broken", "--help"]),
        ("export run --format o", ["onnx"]),
        ("data nasb", ["nasbench101", "nasbench201"]),
        ("data image_folder source --r", ["--resolution"]),
        ("report --o", ["--optuna"]),
        ("completion z", ["zsh"]),
        ("nothing ", []),
    ],
)
def test_what_a_word_may_become(typed, expected, folder):
    found = candidates(typed.split(" "))
    if typed in ("", "new classification folder --"):
        assert set(expected) <= set(found)
    else:
        assert sorted(found) == sorted(expected)


def test_a_shipped_recipe_is_found_by_its_name(folder, monkeypatch):
    assert candidates(["run", "quickstart_t"]) == [str(RECIPES / "quickstart_table.yaml")]
    monkeypatch.chdir(RECIPES.parent)
    assert candidates(["run", "quickstart_t"]) == ["experiments/quickstart_table.yaml"]
    assert candidates(["run", "experiments/quickstart_t"]) == ["experiments/quickstart_table.yaml"]


def test_every_shipped_recipe_tells_its_keys():
    paths = sorted(RECIPES.glob("**/*.yaml"))
    assert len(paths) > 50
    for path in paths:
        keys = recipe_keys(path)
        assert keys and "init_args" not in keys and "base" not in keys
        if "agents" in keys:
            assert set(keys["agents"]) and "class_path" not in keys["agents"]


ASK = """
eval "$({python} -m search.cli completion bash)"
catchmark() {{ {python} -m search.cli "$@"; }}
complete -p catchmark
ask() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    _catchmark 2>/dev/null
    printf '%s\\n' "asked" "${{COMPREPLY[@]}}"
}}
ask catchmark run mine.yaml --agents.
ask catchmark rep
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_it(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = ASK.format(python=sys.executable)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    registered, agents, commands = done.stdout.split("asked\n")
    assert "complete -o default -F _catchmark catchmark" in registered
    assert agents.splitlines() == ["--agents.catch.", "--agents.evolution.", "--agents.random"]
    assert commands.splitlines() == ["report"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script(tmp_path, capsys):
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    subprocess.run(["zsh", "-n", str(tmp_path / "script")], check=True)
