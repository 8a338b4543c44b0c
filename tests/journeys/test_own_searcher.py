"""A searcher of one's own in one file beside the recipe: run twice, compared, and printed for a paper."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

from search.cli import main

SEARCHER = '''
"""Simulated annealing: a mutant takes its parent's place where it is better, and now and then where it is worse."""

import torch

from search.agents.base import Agent
from search.spaces.base import SearchSpace


class Annealing(Agent):
    """Simulated annealing with a fixed temperature.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        temperature: points of score that a mutant may lose, about; 0 is hill climbing.
    """

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0, temperature: float = 1.0):
        super().__init__(space, trials, seed)
        self.temperature = temperature
        self.place = space.sample(self.rng, 1)
        self.height = torch.full((trials,), -torch.inf, dtype=torch.float64)

    def begin_task(self, budget, adapting):
        super().begin_task(budget, adapting)
        self.height.fill_(-torch.inf)

    def ask(self, n=1):
        return self.space.mutate(self.place.expand(-1, n, -1), self.rng)

    def learn(self, archs, rewards):
        for k in range(rewards.shape[1]):
            loss, luck = self.height - rewards[:, k], self.rng.uniform(1)[:, 0].double()
            moves = (loss <= 0) | (luck < torch.exp(-loss / max(self.temperature, 1e-9)))
            self.place = torch.where(moves[:, None, None], archs[:, k : k + 1], self.place)
            self.height = torch.where(moves, rewards[:, k], self.height)

    def state_dict(self):
        return {**super().state_dict(), "place": self.place.clone(), "height": self.height.clone()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.place, self.height = state["place"].clone(), state["height"].clone()
'''
RECIPE = """
description: Does it pay to accept what is worse?
space: NASBench201
targets:
  cifar100:
    class_path: TableTask
    init_args: {table: nasbench201.npz, dataset: cifar100, split: val, metric: acc, epochs: 12}
agents:
  annealing: {class_path: my_searcher.Annealing, init_args: {temperature: 1.0}}
  random: RandomSearch
budget: 12
trials: 6
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_searcher", raising=False)
    Path("my_searcher.py").write_text(SEARCHER)
    Path("annealing.yaml").write_text(RECIPE)
    return tmp_path


def fonts_of(pdf):
    """Of every font of a PDF that says what it is: whether its outlines are in the file."""
    objects = dict(re.findall(rb"^(\d+) 0 obj\n(.*?)\nendobj$", pdf, re.MULTILINE | re.DOTALL))
    leaves = [each for each in objects.values() if b"/Type /Font\n" in each or b"/Type /Font " in each]
    described = [each for each in leaves if b"/Subtype /Type0" not in each]  # which names one of the others
    embedded = []
    for font in described:
        place = re.search(rb"/FontDescriptor (\d+) 0 R", font)
        embedded.append(place is not None and b"/FontFile2" in objects[place.group(1)])
    return embedded


def test_from_one_file_to_a_figure_for_a_paper(folder, capsys):
    assert main(["check", "my_searcher.Annealing"]) == 0
    runs = []
    for name, words in (("warm", []), ("cold", ["--agents.annealing.temperature", "0", "--seed", "1"])):
        assert main(["run", "annealing.yaml", "--quiet", "--runs", name, *words]) == 0
        runs.append(f"{name}/annealing/latest")
    capsys.readouterr()
    # Neither needs the file: a run's folder is data.
    Path("my_searcher.py").rename("elsewhere.py")
    sys.modules.pop("my_searcher")
    assert main(["compare", *runs, "--csv", "scores.csv", "--figures", "figures", "--html", "page.html"]) == 0
    said = capsys.readouterr().out
    assert "agents.annealing.init_args.temperature" in said and "A: 1.0" in said and "B: 0.0" in said

    rows = list(csv.DictReader(Path("scores.csv").open()))
    assert len(rows) == 2 * 2 * 6
    for run in runs:
        agents = json.loads(Path(run, "summary.json").read_text())["targets"]["cifar100"]["agents"]
        for agent, entry in agents.items():
            of_these = [float(row["score"]) for row in rows if row["agent"] == agent and row["run"].startswith(run[:4])]
            assert len(of_these) == 6 and sum(of_these) / 6 == pytest.approx(entry["best_score_mean"], abs=1e-9)
    (pdf,) = Path("figures").glob("*.pdf")
    fonts = fonts_of(pdf.read_bytes())
    assert fonts and all(fonts)
    assert Path("page.html").read_text().count("<svg") == 1

    assert main(["report", runs[0]]) == 2
    assert "--trust my_searcher.Annealing" in capsys.readouterr().err
    Path("elsewhere.py").rename("my_searcher.py")
    assert main(["report", runs[0], "--trust", "my_searcher", "--figures", "more"]) == 0
    assert all(all(fonts_of(each.read_bytes())) for each in Path("more").glob("*.pdf"))
    assert "Simulated annealing with a fixed temperature" in Path(runs[0], "report.html").read_text()
