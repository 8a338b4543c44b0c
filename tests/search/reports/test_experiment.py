import functools
import itertools
import json
import math
import re
import sqlite3
from types import MappingProxyType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from search.agents.catcher.agent import CATCHer
from search.agents.catcher.settings import CatcherSettings
from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation, Proposal
from search.loop.search import Listener
from search.reports.architecture_svg import architecture_svg
from search.reports.line_chart import Line, line_chart
from search.reports.page import duration, p_equals
from search.reports.pages import write_report
from search.reports.scatter_plots import Cloud, Explored, contexts_svg, fronts_svg
from search.reports.verdict import verdict
from search.results.search import summarise_search
from search.runs.journal import Journal, Record
from search.spaces.base import Decision, Edge, SearchSpace
from search.studies.experiment import Experiment, MetaTraining
from search.tasks.base import OneByOne, TaskPool
from tests.search.reports.reading import Page, assert_needs_nothing_but_itself, groups


class Stack(SearchSpace):
    """Four decisions of three choices."""

    name = "stack"
    decisions = tuple(Decision(f"layer {t}", ("conv", "pool", "skip")) for t in range(4))

    def build(self, architecture, **head):
        raise NotImplementedError


class Additive(OneByOne):
    """Known scores, best at the last choice everywhere; some architectures fail."""

    score_name = "accuracy (%)"
    instant = True

    def __init__(self, space, fails="", known=False):
        self.space, self.fails, self.known = space, fails, known

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        if self.fails and architecture[0] == architecture[1] == 0:
            return Evaluation.failed(f"{self.fails} after {sum(architecture)} steps", 0.5)
        score = 50.0 + 5 * sum(choice * (t + 1) for t, choice in enumerate(architecture)) / 2
        return Evaluation(score, {"loss": 100 - score}, 0.25)

    def all_scores(self):
        if not self.known:
            return None
        return torch.tensor([self.evaluate_one(Proposal(a)).score for a in self.space.enumerate()], dtype=torch.float64)


class Weighed(Additive):
    """Accuracy against the number of convolutions; no convolution is free, so the score is neither."""

    objectives = MappingProxyType({"accuracy": "max", "convolutions": "min"})

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        found = super().evaluate_one(proposal)
        count = float(architecture.count(0))
        return Evaluation(found.score - 5 * count, {"accuracy": found.score, "convolutions": count}, 100.0)

    def all_objectives(self):
        if not self.known:
            return None
        found = [self.evaluate_one(Proposal(a)).metrics for a in self.space.enumerate()]
        return torch.tensor([[each["accuracy"], each["convolutions"]] for each in found], dtype=torch.float64)


class Pool(TaskPool):
    known = False

    def __init__(self, space):
        self.space = space

    def draw(self, index, seed):
        return Additive(self.space, known=self.known)

    def describe(self, index, seed):
        return f"practice <b>{index}</b>"


catcher = functools.partial(CATCHer, settings=CatcherSettings(**CATCHer.toy()["settings"]))
AGENTS = {"random": RandomSearch, "catch_meta": catcher}


def experiment(trials=3, budget=8, agents=AGENTS, fails="", known=False, meta=True, **more):
    meta_training = MetaTraining(Pool, ["catch_meta"], epochs=2, networks=6) if meta else None
    targets = {"toy": lambda space: Additive(space, fails, known)}
    return Experiment(
        Stack(), targets, agents, budget, trials, meta_training=meta_training, most_failures=10**6, **more
    )


def run(folder, experiment, config="budget: 8\n"):
    """A finished run, and its report."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "journal.sqlite")
    journal.set_about("environment", json.dumps({"python": "3.11", "cpus": 2}))
    experiment.run(folder, journal)
    journal.close()
    (folder / "config.yaml").write_text(config)
    return write_report(folder, experiment).read_text()


# ---- the page ------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(tmp_path):
    assert_needs_nothing_but_itself(run(tmp_path, experiment()))


def test_sections_come_in_the_promised_order(tmp_path):
    text = Page(run(tmp_path, experiment(fails="no memory", name="My run", description="What it is for."))).text
    order = [
        "My run",
        "What it is for.",
        "After 8 evaluations a trial on toy",
        "Target: toy",
        "How the best score grew",
    ]
    order += [
        "The best architecture",
        "How it was done",
        "Meta-training",
        "Failed evaluations",
        "no memory",
        "All 60 evaluations",
    ]
    order += ["Make it again", "catchmark run", "budget: 8", "python"]
    place = 0
    for words in order:
        place = text.index(words, place)
    headings = re.findall(r"<h2>(.*?)</h2>", (tmp_path / "report.html").read_text())
    assert headings == [
        "Target: toy",
        "Where agents place the tasks",
        "How it was done",
        "Failed evaluations",
        "Evaluations",
        "Make it again",
    ]


def test_what_recipes_and_journals_say_is_text_never_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    agents = {f"a{evil}": RandomSearch, "b$\\frac{&": RandomSearch}
    made = experiment(
        agents=agents, fails=f"{evil} & co", meta=False, name=f"n{evil}", description=f"d{evil}", trials=2
    )
    page = run(tmp_path, made, config=f"# {evil}\n")
    parsed = Page(page)
    assert parsed.tags.count("script") == 1  # ours
    assert evil not in page
    for words in (f"n{evil}", f"d{evil}", f"a{evil} found", f"{evil} & co", f"# {evil}", "b$\\frac{&"):
        assert words in parsed.text, words


def test_the_environment_and_the_stages_are_escaped_too(tmp_path):
    made = experiment()
    run(tmp_path, made)
    journal = Journal(tmp_path / "journal.sqlite")
    journal.set_about("environment", json.dumps({"command": "<img src=x>"}))
    journal.close()
    page = write_report(tmp_path, made).read_text()
    parsed = Page(page)
    assert "img" not in parsed.tags and "b" not in parsed.tags
    assert "<img src=x>" in parsed.text and "1: practice <b>0</b>" in parsed.text


def test_meta_training_table_has_each_tasks_mean_and_best(tmp_path):
    page = run(tmp_path, experiment())
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        scores = database.execute(
            "SELECT stage, score FROM evaluations WHERE search = 'meta_training/catch_meta'"
        ).fetchall()
    cells = re.findall(
        r"<tr><td>(\d: practice[^<]*)</td><td class=\"n\">(\d+)</td>((?:<td class=\"n\">[\d.]+</td>)+)", page
    )
    assert [count for _, count, _ in cells] == ["6", "6"]
    for k, (_, _, numbers) in enumerate(cells):
        mine = [score for stage, score in scores if stage.startswith(f"{k + 1}: ")]
        mean, best = (float(each) for each in re.findall(r">([\d.]+)<", numbers))
        assert mean == pytest.approx(sum(mine) / len(mine), abs=0.05)
        assert best == pytest.approx(max(mine), abs=0.05)


def test_failures_are_counted_by_reason_whatever_their_numbers(tmp_path):
    page = run(tmp_path, experiment(trials=20, fails="out of memory", meta=False, agents={"random": RandomSearch}))
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        reasons = database.execute("SELECT reason FROM evaluations WHERE status = 'failed'").fetchall()
    assert len(set(reasons)) > 1
    section = page[page.index("<h2>Failed evaluations</h2>") : page.index("<h2>Evaluations</h2>")]
    assert re.findall(r'<td class="n">(\d+)</td><td>out of memory after \d steps</td><td>toy/random</td>', section) == [
        str(len(reasons))
    ]
    assert "Failed evaluations" not in run(
        tmp_path / "clean", experiment(trials=2, meta=False, agents={"r": RandomSearch})
    )


def test_an_unfinished_run_says_so_and_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "my toy" / "1"
    folder.mkdir(parents=True)
    made = experiment()

    class Interruption(Listener):
        def evaluated(self, search, records):
            if search.name == "toy/random" and records[-1].step == 2:
                raise KeyboardInterrupt

    journal = Journal(folder / "journal.sqlite")
    with pytest.raises(KeyboardInterrupt):
        made.run(folder, journal, [Interruption()])
    journal.close()
    text = Page(write_report(folder, made).read_text()).text
    assert "Unfinished. 1 of 3 searches are complete, and 21 of 60 evaluations made." in text
    assert "random and catch_meta have not finished here" in text
    assert "catchmark run --resume 'runs/my toy/1'" in text
    assert "After 3 evaluations a trial on toy" in text


def test_a_run_without_any_evaluation_has_a_report(tmp_path):
    Journal(tmp_path / "journal.sqlite").close()
    text = Page(write_report(tmp_path, experiment()).read_text()).text
    assert "No search on a target has begun yet." in text and "It was not recorded." in text


def test_a_run_in_which_everything_failed_has_a_report(tmp_path):
    class Broken(Additive):
        def evaluate_one(self, proposal):
            return Evaluation.failed("never works")

    made = Experiment(Stack(), {"toy": Broken}, {"random": RandomSearch}, 3, 2, most_failures=10**6)
    text = Page(run(tmp_path, made)).text
    assert "no evaluation has succeeded so far" in text and "6 of 6 evaluations failed" in text


def test_agents_of_one_class_are_told_apart_by_their_settings(tmp_path):
    config = (
        "agents:\n  random: {class_path: x.R}\n  catch_meta: {class_path: c.C, init_args: {context: zero, seed: 1}}\n"
    )
    config += "  scratch: {class_path: c.C, init_args: {context: posterior, seed: 1}}\n"
    text = Page(run(tmp_path, experiment(agents={**AGENTS, "scratch": catcher}), config)).text
    assert "ECCV 2020). Here with context: zero ." in text
    assert "ECCV 2020). Here with context: posterior ." in text
    assert "seed: 1 ." not in text
    assert "All trials of a meta-trained agent start from the same meta-training." in text


def test_at_most_2000_rows_with_the_best_of_every_search_and_a_small_file(tmp_path):
    made = experiment(trials=500, budget=50, agents={"random": RandomSearch}, meta=False)
    page = run(tmp_path, made)
    assert len(page.encode()) < 2_000_000
    assert "2,000 of 25,000 evaluations: the best of every search" in Page(page).text
    table = page[page.index('<table id="evaluations">') :]
    rows = re.findall(r"<tr><td>toy/(\w+)</td><td>toy</td><td class=\"n\">(\d+)</td><td class=\"n\">(\d+)</td>", table)
    assert len(rows) == len(set(rows)) == 2000
    scores = [float(each) for each in re.findall(r'</td><td class="n">([\d.]+)</td><td>loss', table)]
    assert max(scores) == 100.0  # found by some of 500 trials of 50, and shown wherever it was


def test_all_rows_of_a_small_run_with_what_was_measured(tmp_path):
    page = run(tmp_path, experiment(trials=2, budget=4, agents={"random": RandomSearch}, meta=False))
    rows = re.findall(r"<tr><td>toy/random</td>.*", page)
    assert "All 8 evaluations" in page and len(rows) == 8
    assert sorted(re.findall(r'<td class="n">(\d)</td><td class="n">(\d)</td><td class="a">', page)) == sorted(
        (str(n), str(trial)) for n in (1, 2, 3, 4) for trial in (1, 2)
    )
    assert all("loss " in row and '<td class="n">0.25</td>' in row for row in rows)


def test_the_same_run_gives_the_same_page(tmp_path):
    made = experiment()
    first = run(tmp_path, made)
    assert write_report(tmp_path, made).read_text() == first
    assert not (tmp_path / "report.partial").exists()


# ---- contexts, fronts, and what else the networks give -------------------------------------------------------------


def section(page, heading):
    """From a heading of the second or third rank to the next of the second."""
    start = page.index(heading)
    return page[start : page.index("<h2>", start + 1)]


class Turning(Additive):
    """A known score that weighs its decisions by the angle: neighbours rank architectures alike."""

    def __init__(self, space, angle=0.0):
        super().__init__(space, known=True)
        self.weights = [math.cos(angle + t) for t in range(4)]

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        return Evaluation(sum(weight * choice for weight, choice in zip(self.weights, architecture, strict=True)))


class TurningPool(Pool):
    """Two angles in turn: the third stage is the first's task."""

    def draw(self, index, seed):
        return Turning(self.space, index % 2 + 1.0)

    def describe(self, index, seed):
        return f"angle {index % 2}"


def turning(agents=AGENTS, pool=TurningPool, targets=2, **more):
    made = {f"target {k}": lambda space, k=k: Turning(space, 0.5 * k) for k in range(targets)}
    training = MetaTraining(pool, ["catch_meta"], epochs=3, networks=6, trials=2)
    return Experiment(Stack(), made, agents, 6, 2, meta_training=training, **more)


def test_contexts_of_known_tasks_are_drawn_and_tested(tmp_path):
    page = run(tmp_path, turning())
    part = section(page, "<h2>Where agents place the tasks</h2>")
    text = Page(part).text
    assert "catch_meta, meta-trained for target 0, target 1" in text
    svg = part[part.index("<svg") : part.index("</svg>") + 6]
    # Two targets and two tasks practised on, of which one came twice.
    assert (groups(svg, "dots"), groups(svg, "sign"), groups(svg, "key")) == (4, 4, 4)
    for name in ("target 0", "target 1", "angle 0", "angle 1", "Practised on"):
        assert f">{name}</text>" in svg
    shares = [int(each) for each in re.findall(r"principal component \((\d+)% of variance\)", svg)]
    assert len(shares) == 2 and 100 >= shares[0] >= shares[1] and sum(shares) <= 100
    found = re.search(r"over the 6 pairs of 4 tasks.*Spearman correlation of (-?[\d.]+) \(permutation test: p", text)
    assert -1 <= float(found[1]) <= 1
    assert "by the first of 2 independent meta-trainings" in text and "the same on every task" in text
    assert write_report(tmp_path, turning()).read_text() == page


def test_contexts_of_trained_tasks_come_from_the_journal(tmp_path):
    page = run(tmp_path, experiment())  # scores unknown
    text = Page(section(page, "<h2>Where agents place the tasks</h2>")).text
    assert "Spearman" not in text and "The histories are the run's own" in text
    assert "are" in text and "apart on average" in text


def test_no_contexts_without_weights_or_without_a_posterior(tmp_path):
    made = turning()
    run(tmp_path, made)
    (tmp_path / "weights" / "catch_meta.pt").rename(tmp_path / "away.pt")
    assert "Where agents place" not in write_report(tmp_path, made).read_text()
    (tmp_path / "weights" / "catch_meta.pt").write_bytes(b"PK damaged")
    assert "Where agents place" not in write_report(tmp_path, made).read_text()
    agents = {"random": RandomSearch, "catch_meta": lambda *args: catcher(*args, context="zero")}
    assert "Where agents place" not in run(tmp_path / "zero", turning(agents))
    assert "Where agents place" not in run(tmp_path / "none", experiment(meta=False))


def test_meta_trainings_that_led_to_the_same_weights_share_a_picture(tmp_path):
    training = MetaTraining(TurningPool, ["catch_meta"], epochs=2, networks=6)
    longer = MetaTraining(TurningPool, ["catch_meta"], epochs=3, networks=6)
    targets = {name: Turning for name in "abc"}
    by_target = {"a": [training], "b": [training], "c": [longer]}
    made = Experiment(Stack(), targets, {"catch_meta": catcher}, 6, 2, meta_training_for=by_target)
    page = run(tmp_path, made)
    assert re.findall(r"<h3>(catch_meta, meta-trained for .*)</h3>", page) == [
        "catch_meta, meta-trained for a, b",
        "catch_meta, meta-trained for c",
    ]


@pytest.mark.parametrize("known", [True, False])
def test_hypervolumes_and_fronts_of_two_objectives(tmp_path, known):
    targets = {"toy": lambda space: Weighed(space, known=known)}
    agents = {"random": RandomSearch, "evolution": RandomSearch}
    made = Experiment(Stack(), targets, agents, 7, 4, seed=1)
    page = run(tmp_path, made)
    part = section(page, "<h3>Between accuracy and convolutions</h3>")
    svg = part[part.index("<svg") : part.index("</svg>") + 6]
    assert (groups(svg, "front"), groups(svg, "chosen"), groups(svg, "truth")) == (2, 2, int(known))
    assert "convolutions (lower is better)" in svg and "accuracy (higher is better)" in svg
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        rows = database.execute("SELECT trial, metrics FROM evaluations WHERE search = 'toy/random'").fetchall()
    metrics = [(trial, json.loads(text)) for trial, text in rows]
    everything = [each for _, each in metrics]
    if known:
        task = Weighed(Stack())
        everything = [task.evaluate_one(Proposal(a)).metrics for a in Stack().enumerate()]
    low, most = min(each["accuracy"] for each in everything), max(each["convolutions"] for each in everything)

    def area(found):
        """By convolutions: for each number below the worst, the best accuracy that needs no more of them."""
        return sum(
            max([each["accuracy"] - low for each in found if each["convolutions"] <= count], default=0.0)
            for count in range(int(most))
        )

    shares = np.array([area([each for at, each in metrics if at == t]) for t in range(4)]) / area(everything)
    half = 3.182446 * shares.std(ddof=1) / 2  # t(0.975, 3), four trials
    # Both agents are the same searcher, so they have the same row.
    found = re.findall(r'</span>\w+</td>\s*<td class="n">([\d.]+)</td>\s*<td class="n">([\d.-]+) to ([\d.-]+)<', part)
    assert len(found) == 2 and found[0] == found[1]
    # No share is more than all.
    expected = [100 * shares.mean(), 100 * (shares.mean() - half), min(100 * (shares.mean() + half), 100)]
    assert [float(each) for each in found[0]] == pytest.approx(expected, abs=0.06)
    assert ("the whole space dominates" in part) == known
    assert "<h3>Between" not in run(tmp_path / "one", experiment(meta=False))


def test_what_the_networks_found_give_elsewhere(tmp_path):
    page = run(tmp_path, experiment(trials=3, meta=False, agents={"random": RandomSearch}))
    part = section(page, "<h3>What the found networks give elsewhere</h3>")
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        best = database.execute("SELECT MAX(score) FROM evaluations GROUP BY trial").fetchall()
    mean = 100 - sum(score for (score,) in best) / 3  # the toy's loss is what its score lacks to 100
    found = re.search(r'>random</td><td class="n">([\d.]+)</td><td class="n">(-?[\d.]+) to ([\d.]+)<', part)
    assert float(found[1]) == pytest.approx(mean, abs=0.06)
    assert float(found[2]) < mean < float(found[3])
    bare = run(tmp_path / "bare", turning(agents={"random": RandomSearch, "catch_meta": catcher}))
    assert "give elsewhere" not in bare


def test_a_budget_of_time_is_named_where_there_is_one(tmp_path):
    made = Experiment(Stack(), {"toy": Weighed}, {"random": RandomSearch}, 9, budget_seconds=450.0, trials=3)
    text = Page(run(tmp_path, made)).text
    assert "In 7 min 30 s of evaluating a trial, enough for 4 evaluations on average, on toy, random found" in text
    assert "Budget 7 min 30 s Trials" in text
    assert "what a search of 7 min 30 s, by what evaluations are said to cost, ended with" in text
    assert "Unfinished" not in text


# ---- the verdict ---------------------------------------------------------------------------------------------------


def said(scores, space=None, all_scores=None, meta_trainings=None, **more):
    """The verdict on agents that found ``scores``, a list of one score a trial each."""
    space = space or Stack()
    entries = {}
    for agent, found in scores.items():
        records = [
            Record(0, 0, k, "t", Proposal((0, 0, 0, 0)), Evaluation.failed("x") if math.isnan(s) else Evaluation(s))
            for k, s in enumerate(found)
        ]
        shared = (meta_trainings or {}).get(agent)
        entries[agent] = summarise_search(records, len(found), space, all_scores, 0.0, meta_trainings=shared)
    finals = {agent: np.array(found, dtype=np.float64) for agent, found in scores.items()}
    return verdict("digits", "accuracy (%)", entries, finals, **more)


def test_three_trials_whose_intervals_overlap_show_no_difference():
    words = said({"random": [96.0, 96.4, 96.8], "catch": [96.8, 97.2, 97.6]})
    # Half the interval of three trials: t(0.975, 2) = 4.3027 times the standard deviation 0.4 over the root of 3.
    assert "catch found 97.20% (mean of 3 trials, 95% interval 96.21 to 98.19)" in words
    assert "and random 96.40 (95.41 to 97.39)." in words
    assert "The intervals overlap, so 3 trials don't show a difference." in words
    assert "ahead" not in words


def test_trials_of_a_few_meta_trainings_show_no_more_than_these():
    # Ten times the same three meta-trainings: thirty trials that look apart are three.
    scores = {"random": [96.0, 96.4, 96.8] * 10, "catch": [96.8, 97.2, 97.6] * 10}
    words = said(scores, meta_trainings={"catch": 3})
    assert "catch found 97.20% (mean of 3 meta-trainings x 10 trials, 95% interval 96.21 to 98.19)" in words
    assert "3 meta-trainings don't show a difference." in words and "ahead" not in words
    assert "catch is ahead of random" in said(scores)


def test_tests_say_what_they_are_over():
    scores = {"random": [96.0, 96.4, 96.8, 96.1, 96.2] * 4, "catch": [97.8, 97.2, 97.6, 97.4, 97.3] * 4}
    words = said(scores, meta_trainings={"catch": 5})
    # Five means against five, all apart: 2 of 252 arrangements are as extreme.
    expected = f"(Mann-Whitney U test over means of the trials of a meta-training: p {p_equals(2 / 252)})"
    assert expected in words


def test_three_trials_far_apart_only_point_to_a_difference():
    words = said({"random": [50.0, 50.1, 50.2], "catch": [97.0, 97.1, 97.2]})
    assert "points to a difference; 3 trials are too few for a rank test to confirm it" in words
    assert "ahead" not in words


def test_a_single_trial_gives_no_interval_and_no_winner():
    words = said({"random": [96.0], "catch": [99.0]})
    assert "catch found 99.00% and random 96.00." in words
    assert "With a single trial no interval can be given" in words and "a trial on" not in words
    assert "ahead" not in words and "mean of" not in words


def test_many_trials_are_judged_by_a_corrected_rank_test():
    low, high = list(np.linspace(90, 91, 20)), list(np.linspace(95, 96, 20))
    words = said({"random": low, "catch": high, "evolution": [value - 0.01 for value in high]})
    assert "catch is ahead of random (Mann-Whitney U tests, corrected for 3 comparisons: p < 0.001)." in words
    assert "Between it and evolution the trials don't show a difference (p = " in words
    same = said({"random": low, "catch": low})
    assert "the trials don't show a difference (Mann-Whitney U test: p = 1.00)" in same and "ahead" not in same


def test_trials_that_found_nothing_are_named():
    words = said({"random": [math.nan, 90.0, 91.0], "catch": [math.nan] * 3})
    assert "random found 90.5% (in 2 of 3 trials, the others found nothing, 95% interval" in words
    assert "catch found nothing: every evaluation failed." in words
    words = said({"random": [math.nan, 90.0, 91.0], "catch": [math.nan, math.nan, 95.0]})
    assert "An agent of which a single trial found anything can't be compared with others." in words
    assert "nothing to compare" in said({"random": [math.nan, math.nan]})


def test_unfinished_agents_are_not_compared():
    words = said({"random": [90.0] * 5, "catch": [91.0] * 5}, unfinished=["catch"])
    assert "catch has not finished here, so the agents can't be compared yet." in words and "ahead" not in words


def test_the_best_possible_is_named_with_who_found_it():
    everything = np.linspace(0, 99, 100)
    words = said({"random": [90.0, 95.0, 96.0, 97.0], "catch": [99.0, 98.0, 99.0, 97.0]}, all_scores=everything)
    assert (
        "The best architecture of the whole space has 99.0%: catch found it most often, in 50.0% of the trials."
        in words
    )
    assert "no trial found it" in said({"random": [90.0, 95.0]}, all_scores=everything)


def test_durations_read_well():
    assert [duration(s) for s in (0, 0.001, 0.42, 12.3, 59.6, 200, 7500)] == [
        "0 s", "under 0.01 s", "0.42 s", "12 s", "1 min 0 s", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip


def test_a_budget_of_time_in_words():
    entry = {"evaluations": 5, "best_score_interval": None, "best_score_mean": 1.0}
    agents = {"a": {**entry, "evaluations_mean": 3.0}, "b": {**entry, "evaluations_mean": 4.25}}
    finals = {"a": np.array([1.0]), "b": np.array([2.0])}
    assert verdict("t", "score", agents, finals, budget_seconds=7200).startswith(
        "In 2 h 0 min of evaluating, enough for 3 to 4.2 evaluations, on t, b found 2.000 and a 1.000."
    )


# ---- figures -------------------------------------------------------------------------------------------------------


def test_figures_are_the_same_every_time_and_leave_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    edges = [Edge("0", "1", "conv"), Edge("0", "2", "skip"), Edge("1", "2", "pool")]
    for draw in (
        lambda: line_chart([Line("a", [1, 2], [1.0, 2.0], [None, (1.5, 2.5)])], "evaluations", "score"),
        lambda: architecture_svg(edges),
    ):
        first = draw()
        with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):
            assert draw() == first
        assert "date" not in first.lower() and "matplotlib" not in first.replace('class="matplotlib"', "")
        assert ' id="figure' not in first and "<style" not in first
    assert dict(matplotlib.rcParams) == before


def test_labels_of_edges_are_escaped():
    svg = architecture_svg([Edge("<a>", "b", '"><script>')])
    assert "<script" not in svg and groups(svg, "arrow") == 1


def test_an_arrow_for_every_edge_and_a_box_for_every_node():
    edges = [Edge("0", "1", "conv"), Edge("0", "2", "skip"), Edge("1", "2", "pool"), Edge("0", "2", "twin")]
    svg = architecture_svg(edges)
    assert (groups(svg, "arrow"), groups(svg, "label"), groups(svg, "node")) == (4, 4, 3)
    for words in ("conv", "skip", "pool", "twin"):
        assert f">{words}</text>" in svg
    assert architecture_svg([]) == ""


def test_nodes_stand_where_the_space_says_and_those_of_no_arrow_are_pale():
    edges = [Edge("a", "b", "down"), Edge("b", "c", "up")]
    fixed = {"a": (0, 0), "b": (1, 2), "c": (2, 0), "nobody": (1, 0)}
    svg = architecture_svg(edges, fixed)
    assert (groups(svg, "arrow"), groups(svg, "node")) == (2, 4)
    width, height = (float(each) for each in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    assert width > 2 * 72 and height > 2 * 0.9 * 72  # two columns and two rows of space
    assert svg.count("opacity: 0.35") >= 1 and architecture_svg(edges, {}) == architecture_svg(edges)


def test_long_chains_and_impossible_graphs_are_drawn():
    chain = [Edge(str(k), str(k + 1), f"decision {k}: choice") for k in range(22)]
    width, height = (
        float(each) for each in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', architecture_svg(chain)).groups()
    )
    assert width < 72 * 10 and height > 72 * 2
    assert groups(architecture_svg([Edge("a", "b", "x"), Edge("b", "a", "y")]), "arrow") == 2


def test_a_cloud_a_sign_and_a_line_of_the_key_for_every_task():
    random = np.random.default_rng(0)
    clouds = [Cloud(f"<task> {k}", random.normal(size=(9, 2)), k < 3) for k in range(30)]
    svg = contexts_svg(clouds, [0.5, 0.25])
    assert (groups(svg, "dots"), groups(svg, "sign"), groups(svg, "key")) == (30, 30, 30)
    assert "first principal component (50% of variance)" in svg and ">A</text>" in svg and ">27</text>" in svg
    assert "<task>" not in svg and contexts_svg(clouds, [0.5, 0.25]) == svg
    # All in one place, and a single task: nothing to part, and still a picture.
    assert groups(contexts_svg([Cloud(str(k), np.zeros((2, 2)), False) for k in range(5)], [0, 0]), "sign") == 5
    assert groups(contexts_svg([Cloud("one", np.ones((1, 2)), True)], [0, 0]), "sign") == 1


def test_signs_do_not_cover_each_other():
    crowd = [Cloud(str(k), np.array([[0.01 * k, 0.0], [0.0, 0.01 * k]]), False) for k in range(20)]
    outlier = Cloud("far", np.array([[1.0, 1.0]]), True)
    tree = ElementTree.fromstring(contexts_svg([*crowd, outlier], [0.9, 0.1]))
    places = []
    for group in tree.iter("{http://www.w3.org/2000/svg}g"):
        if group.get("class") == "sign":
            (words,) = group.iter("{http://www.w3.org/2000/svg}text")
            places.append([float(each) for each in re.findall(r"[-\d.]+", words.get("transform"))[-2:]])
    for (ax, ay), (bx, by) in itertools.combinations(places, 2):
        assert abs(ax - bx) > 13 or abs(ay - by) > 11, (ax, ay, bx, by)  # points; a sign is 12 to 18 wide


def test_fronts_are_drawn_for_any_points():
    some = Explored("a", np.array([[1.0, 90.0], [2.0, 95.0], [3.0, 80.0]]), np.array([True, True, False]), 1, 0)
    one = Explored("b", np.array([[2.0, 93.0]]), np.array([True]), 0, 1)
    none = Explored("c", np.zeros((0, 2)), np.zeros(0, dtype=bool), None, 8)
    svg = fronts_svg([some, one, none], ["latency", "quality"], ["min", "max"], np.array([[0.5, 85.0], [2.0, 96.0]]))
    assert (groups(svg, "front"), groups(svg, "chosen"), groups(svg, "truth")) == (2, 2, 1)
    assert groups(fronts_svg([one], ["latency", "quality"], ["max", "min"]), "truth") == 0
    for words in (">a</text>", ">b</text>", "highest score", "the whole space"):
        assert words in svg
