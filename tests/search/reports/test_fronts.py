"""What a report shows of several objectives: pictures, limits, and what broke them."""

import re

import pytest

from search.agents.nsga2 import NSGA2
from search.agents.random_search import RandomSearch
from search.evaluation import Objective
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from tests.search.reports.reading import Page, groups
from tests.search.reports.test_experiment import run, section
from tests.search.studies.test_objectives import LIMIT, Layers, Toy, evaluated, feasible

AGENTS = {"random": RandomSearch, "nsga2": NSGA2}


class Two(Toy):
    def __init__(self, space, limit=None):
        super().__init__(space, limit, known=True)
        self.objectives = {"accuracy": "max", "latency": Objective("min", limit)}

    def all_objectives(self):
        return super().all_objectives()[:, :2]


def pictures(part):
    return re.findall(r"<svg.*?</svg>", part, flags=re.DOTALL)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_three_objectives_are_parallel_axes(tmp_path, limit):
    made = Experiment(Layers(), {"toy": lambda space: Toy(space, limit)}, AGENTS, budget=20, trials=2)
    part = section(run(tmp_path, made), "<h3>Between accuracy, latency and size</h3>")
    svg = pictures(part)[0]
    for name, words in (("accuracy", "higher"), ("latency", "lower"), ("size", "lower")):
        assert f">{name}<" in svg and f"{words} is better" in svg
    found = {name: [values for trial, _, values in evaluated(tmp_path, f"toy/{name}") if trial == 0] for name in AGENTS}
    kept = {name: sum(feasible(values, limit) for values in each) for name, each in found.items()}
    assert groups(svg, "axis") == 3 and groups(svg, "front") == groups(svg, "chosen") == sum(map(bool, kept.values()))
    # A path for all that broke a limit.
    assert groups(svg, "broken") == (0 if limit is None else sum(kept[name] < 20 for name in AGENTS))
    assert groups(svg, "limit") == (limit is not None) and ("Limits: latency at most 14" in part) == (limit is not None)
    assert "nsga2 sees every objective; others maximise the score" in part
    row = re.search(r"</span>random</td>(.*?)</tr>", part, flags=re.DOTALL)[1]
    broken = sum(not feasible(values, limit) for _, _, values in evaluated(tmp_path, "toy/random"))
    assert row.endswith(f'<td class="n">{broken}</td>') == (limit is not None)


def test_two_objectives_with_a_limit_have_it_drawn(tmp_path):
    made = Experiment(Layers(), {"toy": lambda space: Two(space, LIMIT)}, AGENTS, budget=30, trials=1)
    page = run(tmp_path, made)
    part = section(page, "<h3>Between accuracy and latency</h3>")
    scatter, growth = pictures(part)
    assert groups(scatter, "limit") == 1 and groups(scatter, "broken") >= 1 and "breaks a limit" in scatter
    free = Experiment(Layers(), {"toy": Two}, AGENTS, budget=30, trials=1)
    without = pictures(section(run(tmp_path / "free", free), "<h3>Between accuracy and latency</h3>"))[0]
    assert groups(without, "limit") == groups(without, "broken") == 0 and "breaks a limit" not in without
    assert "dominated hypervolume (%)" in growth and ">nsga2<" in growth.replace("> nsga2<", ">nsga2<")
    journal = Journal(tmp_path / "journal.sqlite", writable=False)
    records = [record for search in ("toy/random", "toy/nsga2") for record in journal.records(search)]
    journal.close()
    over = sum(record.evaluation.metrics["latency"] > LIMIT for record in records)
    assert page.count("<td>over a limit</td>") == over > 0


def test_one_objective_has_no_part_of_its_own(tmp_path):
    class One(Toy):
        def __init__(self, space):
            super().__init__(space)
            self.objectives = {"accuracy": "max"}

    text = Page(run(tmp_path, Experiment(Layers(), {"toy": One}, AGENTS, budget=5))).text
    assert "Between accuracy" not in text and "hypervolume" not in text
