import csv
import itertools
import json
import math
import re

import numpy as np
import pytest
import yaml

from search.cli import main
from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.reports.comparison import render_text, write_html
from search.reports.page import decimals_for
from search.results.comparison import compare_runs, flatten
from search.results.search import summarise_search
from search.runs.journal import Journal, Record
from search.runs.json_files import write_json
from search.spaces.base import Decision, SearchSpace
from search.statistics.significance import holm, rank_test


class Line(SearchSpace):
    name = "line"
    decisions = (Decision("place", tuple(map(str, range(10)))),)

    def build(self, architecture, **head):
        raise NotImplementedError


def make_run(folder, found, config=None, score_name="accuracy (%)", finished=True):
    """A run folder; ``found`` is target -> agent -> the scores of each trial, evaluation by evaluation."""
    folder.mkdir(parents=True)
    journal = Journal(folder / "journal.sqlite")
    targets = {}
    for target, agents in found.items():
        entries = {}
        for agent, trials in agents.items():
            steps = [
                [
                    Record(
                        step,
                        0,
                        trial,
                        target,
                        Proposal((step,), trial),
                        Evaluation.failed("x") if math.isnan(scores[step]) else Evaluation(scores[step]),
                    )
                    for trial, scores in enumerate(trials)
                ]
                for step in range(len(trials[0]))
            ]
            journal.begin(f"{target}/{agent}")
            for step, records in enumerate(steps):
                last = step == len(steps) - 1
                journal.finish_step(f"{target}/{agent}", records, None, finished and last, seconds=0.1)
            flat = list(itertools.chain.from_iterable(steps))
            entries[agent] = summarise_search(flat, len(trials), Line(), None, 0.1)
        targets[target] = {"score_name": score_name, "agents": entries}
    journal.close()
    write_json(folder / "summary.json", {"name": "x", "space": "line", "targets": targets, "meta_training": {}})
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {"budget": 3}))
    return folder


def around(centre, trials, length=3):
    """Trials that climb to centre, centre + 0.1, ..."""
    return [[centre - 5 + k, centre - 1, centre + 0.1 * k][:length] for k in range(trials)]


# ---- significance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8]),
        ([1, 1, 1, 1], [2, 2, 2, 2]),
        ([1, 4, 6, 7, 9], [2, 3, 5, 8]),
        ([1, 1, 2, 3, 3], [1, 2, 2, 3, 5, 5]),
    ],
    ids=str,
)
def test_the_rank_test_is_the_share_of_arrangements_at_least_as_extreme(a, b):
    """U counted pair by pair, over every way to deal the values out."""

    def u(first, second):
        return sum((x > y) + 0.5 * (x == y) for x in first for y in second)

    middle, pooled = len(a) * len(b) / 2, a + b
    extreme = total = 0
    for chosen in itertools.combinations(range(len(pooled)), len(a)):
        first = [pooled[k] for k in chosen]
        second = [pooled[k] for k in range(len(pooled)) if k not in chosen]
        extreme += abs(u(first, second) - middle) >= abs(u(a, b) - middle)
        total += 1
    assert rank_test(np.array(a, dtype=float), np.array(b, dtype=float)) == pytest.approx(extreme / total)


def test_the_rank_test_of_many_trials_agrees_with_the_exact_distribution():
    from scipy import stats

    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=30), rng.normal(shift, size=30)) for shift in np.linspace(0, 1, 40)]
    exact = [stats.mannwhitneyu(a, b, method="exact").pvalue for a, b in pairs]
    # In the far tail the approximation errs by factors, where it can't change a verdict: so by absolute difference.
    assert [rank_test(a, b) for a, b in pairs] == pytest.approx(exact, abs=0.005)
    # Two samples of one distribution are called different in about 5 of 100 cases.
    false_alarms = sum(rank_test(rng.normal(size=20), rng.normal(size=20)) < 0.05 for _ in range(1000))
    assert 25 <= false_alarms <= 75


def test_too_few_trials_are_not_tested_and_equal_ones_do_not_differ():
    assert rank_test(np.arange(3.0), np.arange(50.0)) is None
    assert rank_test(np.empty(0), np.arange(5.0)) is None
    assert rank_test(np.full(5, 2.0), np.full(4, 2.0)) == 1.0


def test_holm_multiplies_each_p_value_by_those_not_yet_rejected():
    # Smallest times 3, next times 2, largest times 1 but never below the one before it.
    corrected = holm([0.03, None, 0.01, 0.02])
    assert corrected[1] is None
    assert [corrected[k] for k in (0, 2, 3)] == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# ---- runs ----------------------------------------------------------------------------------------------------------


def test_two_runs_side_by_side(tmp_path):
    a = make_run(tmp_path / "a", {"toy": {"catch": around(90, 5), "random": around(80, 5)}})
    b = make_run(tmp_path / "b", {"toy": {"catch": around(95, 5), "random": around(80, 5)}})
    comparison = compare_runs([a, b])
    assert [(row.agent, row.run) for row in comparison.rows] == [
        ("catch", "A"),
        ("catch", "B"),
        ("random", "A"),
        ("random", "B"),
    ]
    catch, random = comparison.same_agent
    assert catch.difference == pytest.approx(-5) and random.difference == pytest.approx(0)
    # 5 against 5, all apart: 2 of 252 arrangements are as extreme; two pairs of this kind.
    assert catch.p_value == pytest.approx(2 * 2 / 252) and catch.verdict == "significant"
    assert random.p_value == 1.0 and random.verdict == "not significant"
    assert len(comparison.other_pairs) == 4 and not comparison.notes and not comparison.settings


@pytest.mark.parametrize("label", ["catch", "catch for toy"])
def test_trials_of_one_meta_training_are_compared_by_their_means(label, tmp_path):
    folders = []
    for name, centre in (("a", 90), ("b", 90.05)):
        folder = make_run(tmp_path / name, {"toy": {"catch": around(centre, 5) * 4, "random": around(80, 20)}})
        summary = json.loads((folder / "summary.json").read_text())
        summary["meta_training"] = {label: {"trials": 5}}
        write_json(folder / "summary.json", summary)
        folders.append(folder)
    catch, random = compare_runs(folders).same_agent
    assert catch.p_value == pytest.approx(
        min(1, 2 * rank_test(*(np.array(c) + 0.1 * np.arange(5) for c in (90, 90.05))))
    )
    assert catch.first.trials == "5 meta-trainings x 4 trials" and random.first.trials == "20 trials"
    assert random.p_value == 1.0


def test_pairs_are_judged_at_the_fewer_evaluations(tmp_path):
    a = make_run(tmp_path / "a", {"toy": {"catch": around(90, 4)}})
    b = make_run(tmp_path / "b", {"toy": {"catch": around(90, 4, length=2)}})
    comparison = compare_runs([a, b])
    (pair,) = comparison.same_agent
    assert pair.evaluations == 2 and pair.difference == 0.0
    assert "different numbers of evaluations" in comparison.notes[0]


def test_three_trials_are_too_few_and_say_so(tmp_path):
    runs = [make_run(tmp_path / name, {"toy": {"catch": around(c, 3)}}) for name, c in (("a", 50), ("b", 99))]
    (pair,) = compare_runs(runs).same_agent
    assert pair.p_value is None and pair.verdict == "too few trials"
    assert "too few trials" in render_text(compare_runs(runs))


def test_trials_without_any_success_do_not_count(tmp_path):
    nothing = [[math.nan] * 3] * 4
    a = make_run(tmp_path / "a", {"toy": {"catch": nothing}})
    b = make_run(tmp_path / "b", {"toy": {"catch": around(90, 4)}})
    comparison = compare_runs([a, b])
    assert comparison.same_agent[0].verdict == "nothing found to compare"
    assert "—" in render_text(comparison)
    write_html(comparison, tmp_path / "c.html")


def test_targets_with_other_scores_are_not_compared(tmp_path):
    a = make_run(tmp_path / "a", {"toy": {"catch": around(90, 4)}})
    b = make_run(tmp_path / "b", {"toy": {"catch": around(90, 4)}}, score_name="loss")
    comparison = compare_runs([a, b])
    assert comparison.same_agent == [] and "'toy' is not the same everywhere" in comparison.notes[0]


def test_an_unfinished_run_is_named(tmp_path):
    a = make_run(tmp_path / "a", {"toy": {"catch": around(90, 4)}})
    b = make_run(tmp_path / "b", {"toy": {"catch": around(90, 4)}}, finished=False)
    assert compare_runs([a, b]).notes == ["run B is unfinished, it goes on with: toy/catch."]


def test_only_differing_settings_are_listed(tmp_path):
    found = {"toy": {"catch": around(90, 4)}}
    base = {"budget": 3, "agents": {"catch": {"class_path": "C", "init_args": {"settings": {"clip": 0.2}}}}}
    other = {"budget": 3, "agents": {"catch": {"class_path": "C", "init_args": {"settings": {"clip": 0.1}}}}, "seed": 1}
    runs = [make_run(tmp_path / name, found, config) for name, config in (("a", base), ("b", other))]
    assert compare_runs(runs).settings == {
        "agents.catch.init_args.settings.clip": {"A": "0.2", "B": "0.1"},
        "seed": {"A": None, "B": "1"},
    }


def test_flatten_reaches_into_lists_of_mappings():
    config = {"pool": [{"table": "a"}, {"table": "b"}], "classes": [1, 2], "none": None, "empty": {}, "on": True}
    assert flatten(config) == {
        "pool[0].table": "a",
        "pool[1].table": "b",
        "classes": "[1, 2]",
        "none": "null",
        "empty": "{}",
        "on": "true",
    }


@pytest.mark.parametrize("runs", [2, 5])
def test_text_fits_100_columns_whatever_the_names(tmp_path, runs):
    agents = {"an agent whose name is longer than anyone would ever want it to be": around(90, 4), "r": around(1e6, 4)}
    config = {"a_long_key" * 8: "a long value " * 30, "path": "x" * 300}
    folders = [
        make_run(
            tmp_path / f"{'long ' * 12}{k}", {"a target " * 9: agents}, {**config, "seed": k, "x": "y" * 200 + str(k)}
        )
        for k in range(runs)
    ]
    text = render_text(compare_runs(folders))
    assert max(map(len, text.splitlines())) <= 100
    assert "seed" in text and "significant" in text and text.count("y" * 50) >= runs


def test_the_page_has_all_and_needs_nothing_else(tmp_path):
    evil = "<script>alert(1)</script>"
    folders = [
        make_run(tmp_path / name, {f"t{evil}": {f"a{evil}": around(90, 4), "r": around(80, 4)}}, {"note": evil + name})
        for name in ("a", "b")
    ]
    write_html(compare_runs(folders), tmp_path / "comparison.html")
    page = (tmp_path / "comparison.html").read_text()
    assert "<script" not in page and page.count('class="curve"') == 4 and page.count('class="band"') == 4
    outside = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", page)
    assert "http" not in outside.replace("http-equiv", "") and " src=" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;a" in page and ">difference</th>" in page


# ---- what can be wrong ---------------------------------------------------------------------------------------------


def test_figures_and_scores_for_a_paper(tmp_path, capsys, monkeypatch):
    """Vectors with their fonts, and numbers that read back to the last bit."""
    monkeypatch.chdir(tmp_path)
    third = [[1.0, math.nan, 0.1 + 0.2], [math.nan] * 3]
    make_run(tmp_path / "one", {"left": {"a": around(50, 5), "b": third}, "right": {"a": around(1, 2)}})
    make_run(tmp_path / "two", {"left": {"a": around(60, 5)}})
    words = ["compare", "one", "two", "--csv", "scores.csv", "--figures", "figures", "--html", "page.html"]
    for _ in range(2):  # a second time files are replaced
        assert main(words) == 0
    assert "table: scores.csv" in capsys.readouterr().out
    with open("scores.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["score"] for line in lines if line["agent"] == "b"] == [repr(1.0), ""]
    assert [float(line["score"]) for line in lines if line["run"].endswith("two")] == [60 + 0.1 * k for k in range(5)]
    assert {line["target"] for line in lines} == {"left", "right"} and lines[0]["evaluations"] == "3"
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert [name[:2] + name[-4:] for name in files] == ["01.pdf", "01.svg", "02.pdf", "02.svg"]
    pdf, svg = ((tmp_path / "figures" / name).read_bytes() for name in files[:2])
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf
    assert b"<text" not in svg and svg.count(b"<path") > 10  # letters are drawn: no font is missing anywhere
    (tmp_path / "taken").write_text("")
    assert main([*words[:3], "--figures", "taken"]) == 2
    assert main([*words[:3], "--csv", "nowhere/scores.csv"]) == 2
    said = capsys.readouterr().err
    assert "--figures: " in said and "--csv: 'nowhere/scores.csv' can't be written" in said


def test_wrong_folders_are_refused_with_the_cure(tmp_path):
    a = make_run(tmp_path / "a", {"toy": {"catch": around(90, 4)}})
    b = make_run(tmp_path / "b", {"toy": {"catch": around(90, 4)}})
    with pytest.raises(CatchmarkError, match="1 run given, two or more are needed"):
        compare_runs([a])
    (tmp_path / "latest").symlink_to(a)
    with pytest.raises(CatchmarkError, match="is given twice"):
        compare_runs([a, tmp_path / "latest"])
    with pytest.raises(CatchmarkError, match=r"is not a run folder: it has no journal\.sqlite"):
        compare_runs([a, tmp_path])
    summary = json.loads((b / "summary.json").read_text())
    summary["targets"]["toy"]["agents"]["catch"]["evaluations"] = 2
    write_json(b / "summary.json", summary)
    with pytest.raises(CatchmarkError, match=r"older than the journal; write it anew: catchmark report"):
        compare_runs([a, b])
    (b / "summary.json").write_text("{")
    with pytest.raises(CatchmarkError, match=r"summary\.json is damaged"):
        compare_runs([a, b])
    (b / "summary.json").unlink()
    with pytest.raises(CatchmarkError, match=r"has no summary\.json; write it with: catchmark report"):
        compare_runs([a, b])


def test_numbers_get_the_decimals_that_tell_them_apart():
    assert decimals_for([91.2, 91.9]) == 3 and decimals_for([50, 90]) == 1 and decimals_for([1000, 90000]) == 0
    assert decimals_for([0.97]) == 4 and decimals_for([]) == 2 and decimals_for([None, math.nan]) == 2
    assert decimals_for([0.0]) == 3 and decimals_for([5e-12, 5e-12]) == 8
    assert json.dumps(decimals_for([97.0, 97.0])) == "2"
