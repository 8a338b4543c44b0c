import json
import math
import re
import sqlite3
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from scipy import stats

from datamodules.digits import DigitsDataModule
from datamodules.three_parts import ThreePartsDataModule
from lightning_modules.landmark_regularizer import LandmarkSettings
from lightning_modules.path_samplers.uniform import RandomNASSampler, UniformSampler
from lightning_modules.supernet_settings import SupernetSettings
from search.evaluation import Evaluation, Proposal
from search.reports.line_chart import Line
from search.reports.page import duration
from search.reports.pages import write_report
from search.reports.supernet_plots import Ranking, courses_svg, rankings_svg, visible_range
from search.reports.supernet_study import report_page
from search.reports.supernet_verdict import landmark_pairs, verdict
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.statistics.intervals import mean_interval
from search.statistics.significance import paired_test
from search.studies.landmarks import LandmarkChoice
from search.studies.supernet_study import Method, SupernetStudy
from search.tasks.base import OneByOne
from tests.search.reports.reading import SVG, Page, assert_needs_nothing_but_itself, groups

TRIALS, MEASURED = 2, 6


class Convolutions(OneByOne):
    """Many 3x3 convolutions are good; no two architectures of a kind are worth the same."""

    score_name = "accuracy <of> digits (%)"
    instant = True

    def __init__(self, space):
        self.space = space

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        names = [d.choices[c] for d, c in zip(self.space.decisions, architecture, strict=True)]
        place = sum(choice * 5**k for k, choice in enumerate(architecture)) / 5**6
        return Evaluation(50.0 + 5 * names.count("nor_conv_3x3") + place)

    def all_scores(self):
        return torch.tensor([self.evaluate_one(Proposal(a)).score for a in self.space.enumerate()], dtype=torch.float64)


def make_study(trials=TRIALS, **more):
    evolution = partial(UniformSampler, population=3, tournament=2, budget=4)
    landmarks = LandmarkSettings(warmup=1)
    methods = {
        "spos": Method(evolution, found=2),
        "spos_landmarks": Method(
            evolution, landmarks, LandmarkChoice(count=4, iterations=2, added=1), found=2
        ),
        "random": Method(partial(RandomNASSampler, candidates=4), found=2),
    }  # fmt: skip
    data = ThreePartsDataModule(DigitsDataModule(batch_size=64), evaluation_images=32, images=400)
    return SupernetStudy(
        NASBench201(),
        Convolutions,
        data,
        methods,
        settings=SupernetSettings(epochs=3),
        build={"channels": 2, "cells": 1},
        measured=MEASURED,
        measurements=3,
        trials=trials,
        name="toy study",
        threads=1,
        **more,
    )


def run(folder, study):
    journal = Journal(folder / "journal.sqlite")
    journal.set_about("environment", json.dumps({"python": "3.11", "command": "<img src=x>"}))
    study.run(folder, journal)
    journal.close()
    (folder / "config.yaml").write_text("measured: 6  # <script>evil()</script>\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        run(folder, make_study())
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder, make_study(description="What <b>landmarks</b> add.")).read_text()


def rows(page):
    """The table of methods: the cells of each row by its name."""
    found = {}
    for line in re.findall(r"<tr[^>]*>(<td class=\"name\">.*?)</tr>", page, re.DOTALL):
        cells = [re.sub(r"<wbr>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL)]
        name, *cells = (re.sub(r"<br>.*|<span.*</span>", "", cell) for cell in cells)
        intervals = re.findall(r"<small>\[(.*?)\]</small>", line)
        found[name] = (cells, intervals)
    return found


def evaluations(folder, search):
    with sqlite3.connect(folder / "journal.sqlite") as database:
        lines = database.execute(
            "SELECT trial, stage, architecture, score, metrics FROM evaluations WHERE search = ? ORDER BY step, slot",
            (search,),
        ).fetchall()
    return [(t, stage, tuple(json.loads(a)), score, json.loads(metrics)) for t, stage, a, score, metrics in lines]


# ---- the page ------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(page):
    assert_needs_nothing_but_itself(page)


def test_what_recipes_say_is_text_never_markup(page):
    parsed = Page(page)
    assert parsed.tags.count("script") == 1  # ours
    assert not {"b", "img", "of"} & set(parsed.tags)
    for words in ("What <b>landmarks</b> add.", "<img src=x>", "accuracy <of> digits (%)", "<script>evil()</script>"):
        assert words in parsed.text, words


def test_sections_come_in_the_promised_order(page):
    text, place = Page(page).text, 0
    for words in [
        "toy study", "What <b>landmarks</b> add.", "After 3 epochs,", "With 2 trials nothing can be tested",
        "What each method reached", "FLOPs", "How the rankings grew", "What the supernets say of architectures",
        "The best architectures returned", "How it was done", "Supernet", "Path", "Stand-alone", "Landmark", "S-KdT",
        "RandomNASSampler. Random search with weight sharing", "Make it again", "catchmark run", "measured: 6",
    ]:  # fmt: skip
        place = text.index(words, place)
    assert "Unfinished" not in text
    assert "Landmarks: 4, random, 1 more after each of 1 iterations" in text and "from epoch 2 on" in text


def test_the_table_has_what_the_journal_bears_out(folder, page):
    worth = {
        (trial, arch): score
        for trial, stage, arch, score, _ in evaluations(folder, "stand_alone")
        if stage == "measured"
    }
    everything = Convolutions(NASBench201()).all_scores().numpy()
    table = rows(page)
    assert {"FLOPs", "parameters", "random forest on the landmarks"} < set(table)
    for name in ("spos", "spos_landmarks", "random"):
        taus, means, bests, training = [], [], [], []
        for trial in range(TRIALS):
            mine = [each[1:] for each in evaluations(folder, name) if each[0] == trial]
            added = {arch for stage, arch, _, _ in mine if stage == "added landmark"}
            last = [(worth[trial, arch], s) for stage, arch, s, _ in mine if stage == "measured after epoch 3"]
            assert len(last) == MEASURED and bool(added) == (name == "spos_landmarks")
            taus.append(stats.kendalltau(*zip(*last, strict=True)).statistic)
            found = [metrics for stage, _, _, metrics in mine if stage == "found"]
            means.append(np.mean([metrics["stand_alone"] for metrics in found]))
            bests.append(max(metrics["stand_alone"] for metrics in found))
            training.append(found[0]["training"])
        cells, intervals = table[name]
        mean, std = (float(each) for each in cells[2].split(" ± "))
        assert mean == pytest.approx(np.mean(taus), abs=6e-4)
        assert std == pytest.approx(abs(taus[0] - taus[1]) / math.sqrt(2), abs=6e-4)
        half = 12.7062 * abs(taus[0] - taus[1]) / 2  # t(0.975, 1), two trials
        expected = [max(mean - half, -1), min(mean + half, 1)]
        assert [float(each) for each in intervals[2].split(", ")] == pytest.approx(expected, abs=0.01)
        assert float(cells[6]) == pytest.approx(np.mean(means), abs=0.06)
        assert float(cells[7]) == pytest.approx(np.mean(bests), abs=0.06)
        ranks = [1 + int((everything > best).sum()) for best in bests]
        assert float(cells[8].replace(",", "")) == pytest.approx(np.median(ranks), abs=0.51)
        assert cells[9] == duration(float(np.mean(training)))
    cells, _ = table["parameters"]
    assert cells[0][0] in "-0123456789" and cells[1] == "—" and cells[3:] == ["—"] * 9


def test_the_figures_show_every_method_and_every_measured_architecture(folder, page):
    figures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    courses, scatter, *drawings = figures
    count = lambda tree, name: len([g for g in tree.iter(f"{SVG}g") if g.get("class") == name])  # noqa: E731
    assert (count(courses, "curve"), count(courses, "level"), count(courses, "begin")) == (3, 5, 1)
    assert count(scatter, "axes") == 3
    shown = {"dots": 0, "beyond": 0, "added": 0, "found": 0, "landmarks": 0}
    for group in scatter.iter(f"{SVG}g"):
        if group.get("class") in shown:
            shown[group.get("class")] += len(list(group.iter(f"{SVG}use")))
    assert shown["dots"] + shown["beyond"] + shown["added"] == 3 * MEASURED
    assert shown["found"] == 3 * 2 and shown["landmarks"] == 4 + 1
    text = Page(page).text
    for name in ("spos", "random"):
        found = [
            (metrics["stand_alone"], arch)
            for _, stage, arch, _, metrics in evaluations(folder, name)
            if stage == "found"
        ]
        worth, arch = max(found)
        assert NASBench201().format(arch) in text and f"{worth:.6g}" in text
    assert 1 <= len(drawings) <= 3


def test_an_unfinished_run_says_so_and_how_to_go_on(folder):
    # The same journal, of a study that wants a third trial.
    study = make_study(trials=3)
    journal = Journal(folder / "journal.sqlite", writable=False)
    text = Page(report_page(folder, study, journal, study.summarise(journal))).text
    journal.close()
    assert "Unfinished. 6 of 9 supernets are trained." in text and "catchmark run --resume" in text
    assert "spos, spos_landmarks and random have not finished, so the methods can't be compared yet." in text
    assert "2 of 3 trials" in text and "Landmarks raise" not in text and "Landmarks lower" not in text


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    Journal(tmp_path / "journal.sqlite").close()
    page = write_report(tmp_path, make_study()).read_text()
    text = Page(page).text
    assert "No supernet has been trained to the end yet" in text and "0 of 6 supernets" in text
    assert "<svg" not in page and "It was not recorded." in text


def test_pairs_with_and_without_landmarks():
    study = make_study()
    assert landmark_pairs(study) == [("spos", "spos_landmarks")]
    study.methods["spos"].settings = SupernetSettings(epochs=4)
    assert landmark_pairs(study) == []


# ---- the verdict ---------------------------------------------------------------------------------------------------


def spread(values):
    known = np.array(values, dtype=np.float64)
    if not len(known):
        return {"mean": None, "std": None, "interval": None, "trials": []}
    return {"mean": known.mean(), "std": known.std(), "interval": mean_interval(known), "trials": list(values)}


def said(methods, references=None, pairs=(), trials=None, found=None, agreement=(), landmarks=(30, 30)):
    """The verdict on methods with these S-KdT, one a trial, and so many landmarks each, of so many in all."""
    trials = trials or max(map(len, methods.values()))
    summary = {
        "trials": trials,
        "methods": {
            name: {
                "trials": len(values),
                "s_kdt": spread(values),
                "rounds": [{"epoch": 250}],
                "found_mean": spread((found or {}).get(name, [])),
                "found_best": spread((found or {}).get(name, [])),
                "found_best_rank": spread([]),
                "landmarks": [landmarks[0]] * len(values),
            }
            for name, values in methods.items()
        },
        "landmarks_of_trials": [landmarks[1]] * trials,
        "without_supernet": {name: {"s_kdt": spread(values)} for name, values in (references or {}).items()},
        "truth_agreement": spread(agreement),
    }
    return verdict(summary, pairs, 200)


LOW = [0.30, 0.32, 0.28, 0.31, 0.29, 0.33, 0.30, 0.31]
HIGH = [value + 0.10 + 0.01 * (k % 3) for k, value in enumerate(LOW)]


def test_many_trials_are_tested_trial_by_trial():
    words = said({"spos": LOW, "spos_l": HIGH}, {"FLOPs": [0.35] * 8}, [("spos", "spos_l")])
    half = 2.364624 * np.std(HIGH, ddof=1) / math.sqrt(8)  # t(0.975, 7), eight trials
    low, high = np.mean(HIGH) - half, np.mean(HIGH) + half
    assert words[0].startswith(
        "After 250 epochs, spos_l orders 200 architectures most like stand-alone training does with an S-KdT of 0.414 "
        f"(mean of 8 trials, 95% interval {low:.3f} to {high:.3f}), before spos (0.305)."
    )
    # Eight differences of one sign: 2 of 256 arrangements are as far out.
    assert words[0].endswith("spos_l is ahead of spos by more than luck (paired randomisation test: p = 0.008).")
    assert words[1].startswith("Landmarks raise the S-KdT of spos by 0.109 (spos_l, so in 8 of 8 trials, 95% interval ")
    assert words[1].endswith(", more than luck (p = 0.008).")
    assert words[2].startswith(
        "Rankings without a supernet reach 0.350 (FLOPs). Above the best of them is spos_l (by 0.064"
    )
    # One comparison of two supernets each: Holm doubles the smaller p-value of 2 / 256.
    assert "more than luck (p = 0.016); spos is not." in words[2]
    assert not any("can be tested" in each for each in words)


def test_what_so_few_trials_can_not_show_is_not_called_no_difference():
    """Six differences of one sign have p = 1 / 32, and three of these are corrected to 3 / 32."""
    low = LOW[:6]
    methods = {"a": low, "b": low[::-1], "c": low, "a_l": HIGH[:6], "b_l": HIGH[:6], "c_l": HIGH[:6]}
    words = said(methods, pairs=[("a", "a_l"), ("b", "b_l"), ("c", "c_l")])
    assert "In 15 comparisons at once so few trials can show no difference (p = " in words[0]
    assert words[1].count("which may be luck (p = 0.094), and so few trials can show nothing in 3 comparisons.") == 3
    alone = said({"a": low, "a_l": HIGH[:6]}, pairs=[("a", "a_l")])
    assert "more than luck (p = 0.031)" in alone[1] and "so few" not in " ".join(alone)


def test_differences_of_either_sign_may_be_luck():
    mixed = [value + (0.01 if k % 2 else -0.012) for k, value in enumerate(LOW)]
    words = said({"spos": LOW, "spos_l": mixed}, pairs=[("spos", "spos_l")])
    assert "Between spos and spos_l the trials show no difference (p = " in words[0]
    assert words[1].startswith("Landmarks lower the S-KdT of spos by 0.001 (spos_l, so in 4 of 8 trials")
    assert "which may be luck (p = " in words[1] and "more than luck" not in " ".join(words)


@pytest.mark.parametrize("trials", [1, 2, 5])
def test_with_few_trials_nothing_is_tested(trials):
    words = said({"a": LOW[:trials], "b": HIGH[:trials]}, {"FLOPs": [0.1] * trials}, [("a", "b")])
    text = " ".join(words)
    assert "nothing can be tested" in words[-1] and "p =" not in text and "more than luck" not in text
    assert "Landmarks raise the S-KdT of a by " in text
    assert "Above the best of them are b (by " in text
    assert ("95% interval" in text) == (trials > 1)


def test_supernets_below_every_other_ranking_and_orders_by_lot():
    words = said({"a": [-0.1, 0.0]}, {"FLOPs": [0.5, 0.6], "parameters": [0.1, 0.2]})
    assert "orders 200 architectures like stand-alone training does with an S-KdT of -0.050" in words[0]
    assert "no better than an order drawn by lot" in words[0] and "before" not in words[0]
    assert words[1] == (
        "Rankings without a supernet reach 0.550 (FLOPs) and 0.150 (parameters). No supernet is above the best of them."
    )


def test_models_that_have_had_more_landmarks_than_any_method_are_said_to():
    """Methods with landmarks of their own: what is fitted to all of them is no fair match for one."""
    scores, free = {"random": [0.4, 0.5], "diverse": [0.5, 0.6]}, {"ridge": [0.7, 0.8]}
    words = said(scores, free, landmarks=(30, 127))[1]
    assert words.startswith(
        "Rankings without a supernet reach 0.750 (ridge). Those on the landmarks are fitted to all 127 of a trial, "
        "where no method has more than 30: the table has beside each method what the process makes of its own."
    )
    assert said(scores, free, landmarks=(30, 30))[1].startswith("Rankings without a supernet reach 0.750 (ridge). No ")


def test_other_orders_of_the_same_supernets_are_said_beside():
    names = ("spos", "spos_l")
    methods = {
        name: {
            "trials": 8,
            "s_kdt": spread(values),
            "s_kdt_by_loss": spread([each + 0.02 for each in values]),
            "s_kdt_with_process": spread([each + 0.3 for each in values] if name == "spos_l" else []),
            "rounds": [{"epoch": 9}],
            "landmarks": [],
            **{f"found_{key}": spread([]) for key in ("mean", "best", "best_rank")},
        }
        for name, values in zip(names, (LOW, HIGH), strict=True)
    }
    free = {"ridge": {"s_kdt": spread([0.55] * 8)}}
    summary = {
        "trials": 8,
        "methods": methods,
        "without_supernet": free,
        "truth_agreement": spread([]),
        "landmarks_of_trials": [],
    }
    words = verdict(summary, [], 200)[1]
    assert words.startswith(
        "Rankings without a supernet reach 0.550 (ridge). No supernet is above the best of them. "
        "By the loss of the shared weights, no supernet is. "
        "By that loss and the Gaussian process on the landmarks together, above the best of them is spos_l (by 0.164"
    )
    assert words.endswith("more than luck (p = 0.008).") and "spos is not" not in words


def test_how_far_the_truth_agrees_with_itself_is_said():
    one = said({"a": [0.5], "b": [0.4]}, agreement=[0.62])
    assert "stand in an order whose Kendall's tau-b with the first is 0.620: the rest is luck." in one[1]
    two = said({"a": [0.5, 0.4], "b": [0.4, 0.3]}, agreement=[0.62, 0.7])
    assert "is 0.660 (0.620 to 0.700 in 2 trials): the rest is luck." in two[1]
    assert "luck" not in said({"a": [0.5], "b": [0.4]})[1]


def test_equal_methods_share_the_first_place():
    words = said({"a": [0.5, 0.6], "b": [0.5, 0.6], "c": [0.1, 0.2]}, found={"a": [91.0, 93.0], "b": [90.0, 90.5]})
    assert words[0].startswith("After 250 epochs, a and b order 200 architectures most like")
    assert words[0].endswith(", before c (0.150).")
    assert "Of the architectures that a returns, the best scores 92.00 stand-alone on average" in words[1]
    assert "with the other methods it is 90.25 (b)." in words[1]


def test_unfinished_and_impossible_studies_claim_nothing():
    words = said({"a": LOW[:3], "b": HIGH[:2]}, pairs=[("a", "b")])
    assert len(words) == 1 and "b has not finished, so the methods can't be compared yet." in words[0]
    assert said({"a": [], "b": []}, trials=2) == [
        "No supernet has been trained to the end yet: there is nothing to compare."
    ]
    summary = {"trials": 1, "methods": {"a": {"trials": 1, "s_kdt": spread([])}}, "without_supernet": {}}
    assert "can't be computed" in verdict(summary, [], 5)[0]


def test_the_paired_test_has_known_answers():
    assert paired_test(np.ones(5)) is None
    assert paired_test(np.arange(1.0, 7.0)) == 2 / 64
    assert paired_test(np.zeros(6)) == 1.0
    differences = np.random.default_rng(3).normal(0.4, 1.0, 9)
    exact = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert paired_test(differences) == pytest.approx(exact.pvalue, abs=1e-12)
    many = np.random.default_rng(4).normal(0.4, 1.0, 30)
    assert paired_test(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)
    assert paired_test(many + 5) == 1 / 2**14  # never zero


# ---- figures -------------------------------------------------------------------------------------------------------


def course(label, mean, interval=None, color=0):
    return Line(label, range(1, len(mean) + 1), mean, interval or [None] * len(mean), color)


def test_a_course_for_every_method_and_bands_that_say_something():
    narrow, wide = [(0.1, 0.3), (0.2, 0.5)], [(-1.0, 1.0), (-1.0, 1.0)]
    svg = courses_svg(
        [course("<i>$a$", [0.2, 0.35], narrow), course("b", [0.1, 0.2], wide, 1), course("c", [None, 0.3], color=8)],
        {"FLOPs": 0.25, "parameters": 0.25},
        begin=1,
    )
    assert (groups(svg, "curve"), groups(svg, "band"), groups(svg, "level"), groups(svg, "begin")) == (3, 1, 2, 1)
    assert "<i>" not in svg and "$a$" in svg
    assert groups(courses_svg([course("a", [None])], {}), "curve") == 1


def test_the_axis_holds_every_mean_and_ends_near_them():
    low, high = visible_range([course("a", [0.2, 0.4], [(-1.0, 1.0)] * 2)], [0.5])
    assert -0.1 < low < 0.2 and 0.5 < high < 0.8
    low, high = visible_range([course("a", [0.99], [(0.9, 1.0)])], [])
    assert high <= 1.02 and low < 0.97
    assert visible_range([course("a", [None])], []) == (-1.0, 1.0)


def test_outliers_stand_as_arrows_at_the_edge():
    random = np.random.default_rng(0)
    points = np.stack([random.uniform(85, 93, 50), random.uniform(20, 40, 50)], 1)
    far = np.array([[10.0, 30.0], [9.0, 25.0], [90.0, 500.0]])
    nothing = np.zeros((0, 2))
    one = Ranking("<a>", np.concatenate([points, far]), np.zeros(53, bool), nothing, np.zeros(0), 0)
    svg = rankings_svg([one], "accuracy")
    uses = {"dots": 0, "beyond": 0}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if group.get("class") in uses:
            uses[group.get("class")] += len(list(group.iter(f"{SVG}use")))
    assert uses == {"dots": 50, "beyond": 3} and "<a>" not in svg
    ticks = [float(t) for t in re.findall(r">(\d+)</text>", svg)]
    assert min(tick for tick in ticks if tick > 45) > 80 and 10.0 not in ticks
    assert rankings_svg([one], "accuracy") == svg


def test_any_points_can_be_drawn():
    same = Ranking("a", np.ones((3, 2)), np.array([True, False, False]), np.ones((1, 2)), np.array([7.0]), 3)
    svg = rankings_svg([same] * 5, "worth")
    assert groups(svg, "axes") == 5 and groups(svg, "added") == 5 and groups(svg, "landmarks") == 5
