"""Two processes share one search with a searcher of one's own; one of them is lost, and the other ends it."""

import json
import os
import signal
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from search.cli import main
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from tests.forks import COMMAND_LINE
from tests.processes import wait_until

BUDGET, LAST = 10, 5
OWN = f"""
import os, signal, time
from pathlib import Path
from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne
from tests.processes import descendants_of, wait_until


def lines():
    return Path("log").read_text().splitlines() if Path("log").exists() else []


class Counted(OneByOne):
    "Notes what it evaluates. Where DOOMED is set it waits, once it has noted something, for others to do so too."

    def __init__(self, space: SearchSpace):
        self.space = space

    def evaluate_one(self, proposal):
        mine = str(os.getpid())
        if "DOOMED" in os.environ and any(line.split()[0] == mine for line in lines()):
            wait_until(lambda: any(line.split()[0] != mine for line in lines()))
        with open("log", "a") as log:
            log.write(f"{{mine}} {{proposal.seed}} {{proposal.architecture}}\\n")
        return Evaluation(float(sum(proposal.architecture)))


class Doomed(RandomSearch):
    "Where DOOMED is set its machine is lost: when it is told for the {LAST}th time, before that is in the journal."

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0):
        super().__init__(space, trials, seed)
        self.told = 0

    def learn(self, archs, rewards):
        self.told += 1
        if self.told == {LAST} and "DOOMED" in os.environ:
            wait_until(lambda: len(lines()) > self.told)  # what is under way has been evaluated, and
            wait_until(lambda: all(".done-" in job.name for job in Path("shared/board/jobs").iterdir()))
            for process in (*descendants_of(os.getpid()), os.getpid()):
                os.kill(process, signal.SIGKILL)

    def state_dict(self):
        return {{**super().state_dict(), "told": self.told}}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.told = state["told"]
"""


def recipe(executor):
    return dump_yaml(
        {
            "space": "NASBench201",
            "targets": {"sums": "lost_machine.Counted"},
            "agents": {"mine": "lost_machine.Doomed"},
            "budget": BUDGET,
            "executor": executor,
        }
    )


def test_a_machine_is_lost_and_nothing_is_evaluated_twice(tmp_path, monkeypatch, server, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "lost_machine", raising=False)
    Path("lost_machine.py").write_text(OWN)
    Path("search.yaml").write_text(recipe({"class_path": "JoinedExecutor", "init_args": {"workers": 2}}))
    words, said = ["run", "search.yaml", "--join", "shared", "--quiet"], "said"
    first = server.start(COMMAND_LINE, words, stdout=said, environment={**os.environ, "DOOMED": "yes"})
    lock = Path("shared/journal.lock")
    wait_until(lambda: lock.exists() and lock.read_text().strip() == str(first), lambda: Path(said).read_text())
    second = server.start(COMMAND_LINE, words, stdout=said)
    assert server.wait(first) == -signal.SIGKILL
    with closing(Journal("shared/journal.sqlite", writable=False)) as journal:
        (name,) = journal.searches()
        kept = list(journal.records(name))
    assert len(kept) == LAST - 1
    assert server.wait(second) == 0, Path(said).read_text()

    with closing(Journal("shared/journal.sqlite", writable=False)) as journal:
        records = list(journal.records(name))
    assert len(records) == BUDGET and all(each.evaluation.status == "ok" for each in records)
    assert records[: len(kept)] == kept
    lines = Path("log").read_text().splitlines()
    evaluated = Counter(line.partition(" ")[2] for line in lines)
    assert evaluated == Counter(f"{each.seed} {each.architecture}" for each in records)
    assert set(evaluated.values()) == {1}
    processes = [line.split()[0] for line in lines]
    assert {str(second)} < set(processes) and str(first) not in processes  # the one that leads has another beside it

    assert main(["status", "."]) == 0
    assert f"finished           {BUDGET}" in capsys.readouterr().out
    summary = json.loads(Path("shared/summary.json").read_text())["targets"]["sums"]["agents"]["mine"]
    assert summary["evaluations"] == BUDGET and Path("shared/report.html").exists()
    assert summary["best_score_mean"] == max(each.evaluation.score for each in records)

    # One process alone evaluates the same.
    Path("alone.yaml").write_text(recipe(None))
    assert main(["run", "alone.yaml", "--quiet"]) == 0
    alone = [line.partition(" ")[2] for line in Path("log").read_text().splitlines()[len(lines) :]]
    assert Counter(alone) == evaluated
