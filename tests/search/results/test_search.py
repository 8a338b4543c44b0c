"""The summary's numbers, each against a computation of another kind."""

import json
import math
import os

import numpy as np
import pytest
import torch
from scipy import stats

from search.agents.random_search import RandomSearch
from search.errors import RunError
from search.evaluation import Evaluation, Proposal
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.loop.time_budget import within
from search.results.search import at_best, best_so_far, summarise_search, without_seconds
from search.runs.journal import Journal, Record
from search.runs.json_files import write_json
from search.statistics.intervals import mean_interval, share_interval
from search.tasks.base import OneByOne
from tests.search.agents.toy_spaces import Grid
from tests.search.stopper import Stopper

NAN = math.nan
SPACE = Grid(decisions=2, choices=3)


def records_of(scores, batch=1, architecture=(0, 1), metrics=None):
    """Records of ``scores[trial][evaluation]``, NaN where the evaluation failed, in the journal's order."""
    records = []
    for k in range(len(scores[0])):
        for trial, row in enumerate(scores):
            good = row[k] == row[k]
            evaluation = Evaluation(row[k], metrics or {}, 1.5) if good else Evaluation.failed("no luck", 0.5)
            records.append(Record(k // batch, k % batch, trial, "toy", Proposal(architecture, k), evaluation))
    return records


def summarise(scores, all_scores=None, **options):
    all_scores = None if all_scores is None else np.array(all_scores, dtype=np.float64)
    return summarise_search(records_of(scores, **options), len(scores), SPACE, all_scores, seconds=12.0)


# ---- formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 20, 500])
def test_share_interval_is_wilsons(n):
    for hits in sorted({0, 1, n // 3, n - 1, n}):
        theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert share_interval(hits, n) == pytest.approx([theirs.low, theirs.high], abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 10, 500])
def test_mean_interval_is_students(n):
    values = np.random.default_rng(n).normal(90, 3, n)
    theirs = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(list(theirs), rel=1e-12)


def test_mean_interval_of_few_values():
    assert mean_interval(np.array([])) is None
    assert mean_interval(np.array([1.0])) is None
    assert mean_interval(np.array([2.0, 2.0, 2.0])) == [2.0, 2.0]


def test_an_interval_stays_within_what_there_can_be():
    """Of two values it is 12.7 times as wide as they are apart: of correlations it would leave -1 to 1."""
    assert mean_interval(np.array([0.5, 0.9]), (-1.0, 1.0)) == [-1.0, 1.0]
    low, high = mean_interval(np.array([0.90, 0.91]), (-1.0, 1.0))
    assert (low, high) == pytest.approx((0.905 - 12.7062 * 0.005, 0.905 + 12.7062 * 0.005), abs=1e-4)
    assert mean_interval(np.array([0.96, 0.98]), (-1.0, 1.0)) == pytest.approx([0.97 - 12.7062 * 0.01, 1.0], abs=1e-4)


def test_intervals_cover_as_often_as_they_say():
    """95% of them hold the truth: a check that needs no formula."""
    generator = np.random.default_rng(0)
    covered = [low <= 5 <= high for low, high in (mean_interval(row) for row in generator.normal(5, 2, (4000, 6)))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)
    covered = [low <= 0.3 <= high for low, high in (share_interval(k, 40) for k in generator.binomial(40, 0.3, 4000))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_best_so_far_with_failures():
    scores = [[NAN, 2, NAN, 1, 3], [5, NAN, 4, 6, NAN], [NAN] * 5]
    expected = [[NAN, 2, 2, 2, 3], [5, 5, 5, 6, 6], [NAN] * 5]
    np.testing.assert_array_equal(best_so_far(records_of(scores), 3), expected)


def test_best_so_far_of_an_unfinished_search():
    records = records_of([[1, 2, 3], [4, 5, 6]])[:-1]  # the second trial has two evaluations
    np.testing.assert_array_equal(best_so_far(records, 2), [[1, 2], [4, 5]])
    assert best_so_far([], 3).shape == (3, 0)


def test_best_so_far_of_many_trials():
    scores = np.random.default_rng(0).normal(size=(20, 30))
    scores[np.random.default_rng(1).random(scores.shape) < 0.3] = NAN
    curve = best_so_far(records_of(scores.tolist(), batch=4), 20)
    for trial in range(20):
        for k in range(30):
            seen = [each for each in scores[trial, : k + 1] if each == each]
            assert curve[trial, k] == max(seen) if seen else math.isnan(curve[trial, k])


# ---- the summary of a search -------------------------------------------------------------------------------------


def test_everything_of_a_small_search():
    scores = [[NAN, 3.0, 2.0, 9.0], [1.0, 7.0, NAN, 7.0], [4.0, NAN, 5.0, 4.0]]
    summary = summarise(scores, all_scores=range(10))
    assert summary["trials"] == 3 and summary["evaluations"] == 4 and summary["failed"] == 3
    assert summary["seconds"] == 12.0 and summary["cost_seconds"] == 9 * 1.5 + 3 * 0.5
    assert summary["best_score_mean"] == 7.0 and summary["best_score_std"] == 2.0  # of 9, 7 and 5
    half = stats.t.ppf(0.975, 2) * 2 / math.sqrt(3)
    assert summary["best_score_interval"] == pytest.approx([7 - half, 7 + half])
    assert summary["curve_mean"] == [2.5, pytest.approx((3 + 7 + 4) / 3), pytest.approx((3 + 7 + 5) / 3), 7.0]
    assert [interval is None for interval in summary["curve_interval"]] == [False] * 4
    assert summary["best"]["score"] == 9.0 and summary["best"]["trial"] == 0 and summary["best"]["evaluation"] == 3
    assert summary["best"]["architecture"] == SPACE.format((0, 1)) and summary["best"]["choices"] == [0, 1]
    # Of the scores 0 to 9: 9 is the best, 7 the third, 5 the fifth.
    assert summary["found_best"] == pytest.approx(1 / 3) and summary["found_top3"] == pytest.approx(2 / 3)
    assert summary["found_top3_interval"] == share_interval(2, 3)
    assert summary["mean_rank"] == 3.0 and summary["best_possible"] == 9.0
    assert summary["mean_rank_interval"] == pytest.approx([1.0, 3 + half])  # 3 - half is below the best rank


def test_ranks_with_ties_and_unmeasured_architectures():
    """The rank is one more than the number of better architectures; what was not measured is not ranked."""
    table = [5.0, 9.0, NAN, 9.0, 7.0, 7.0, 1.0]
    for score, rank, best, top3 in [(9, 1, 1, 1), (7, 3, 0, 1), (5, 5, 0, 0), (1, 6, 0, 0)]:
        summary = summarise([[float(score)]], table)
        assert (summary["mean_rank"], summary["found_best"], summary["found_top3"]) == (rank, best, top3), score
    # By definition, for random tables with many ties.
    generator = np.random.default_rng(0)
    table = generator.integers(0, 8, 40).astype(float)
    found = generator.choice(table, 30)
    summary = summarise([[each] for each in found], table)
    assert summary["mean_rank"] == pytest.approx(np.mean([1 + sum(table > each) for each in found]))
    third = sorted(table)[-3]
    assert summary["found_top3"] == np.mean(found >= third)
    assert summary["found_best"] == np.mean(found == max(table))


def test_a_trial_that_found_nothing_has_not_found_the_best():
    summary = summarise([[9.0], [NAN]], all_scores=[9.0, 1.0, 2.0, 3.0])
    assert summary["found_best"] == 0.5 and summary["mean_rank"] == 1.0 and summary["best_score_mean"] == 9.0
    assert summary["best_score_std"] is None and summary["mean_rank_interval"] is None


@pytest.mark.parametrize("table", [[4.0], [4.0, 2.0], [4.0, NAN, NAN]])
def test_a_space_of_fewer_than_three(table):
    assert summarise([[4.0]], table)["found_top3"] == 1.0


def test_the_evaluation_of_the_best_counts_within_its_trial():
    scores = [[0.0] * 10, [0.0] * 6 + [1.0] + [0.0] * 3]
    assert summarise(scores, batch=4)["best"]["evaluation"] == 6  # step 1, slot 2


def test_the_first_of_equals_is_the_best():
    assert (
        summarise([[1.0, 5.0, 5.0], [5.0, 5.0, 5.0]])["best"] == summarise([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])["best"]
    )


@pytest.mark.parametrize("scores", [[[NAN, NAN], [NAN, NAN]], [[NAN], [NAN]]])
def test_a_search_in_which_everything_failed(scores):
    summary = summarise(scores, all_scores=[1.0, 2.0, 3.0])
    assert summary["best"] is None and summary["best_score_mean"] is None and summary["failed"] == 2 * len(scores[0])
    assert summary["curve_mean"] == [None] * len(scores[0])
    assert "found_best" not in summary
    json.dumps(summary, allow_nan=False)


def test_a_search_that_has_not_begun():
    summary = summarise_search([], 4, SPACE, np.arange(9.0), 0.0)
    assert summary["evaluations"] == 0 and summary["best"] is None and summary["curve_mean"] == []


# ---- a limit of time ---------------------------------------------------------------------------------------------


def timed(costs, scores=None, metrics=None):
    """Records with ``costs[trial][evaluation]``, in the journal's order; scores count up unless they are given."""
    records = []
    for k in range(len(costs[0])):
        for trial, row in enumerate(costs):
            score = float(k) if scores is None else scores[trial][k]
            extra = {} if metrics is None else metrics[trial][k]
            records.append(Record(k, 0, trial, "toy", Proposal((trial, 1), k), Evaluation(score, extra, row[k])))
    return records


def places(records):
    return [(each.trial, each.step) for each in records]


def test_what_does_not_fit_does_not_count_nor_what_comes_after():
    records = timed([[4.0, 4.0, 4.0, 1.0], [3.0, 3.0, 3.0, 1.0], [11.0, 1.0, 1.0, 1.0]])
    # 8 of 10 s and then 12: over, though the fourth would fit again. 9, then exactly 10. Nothing.
    assert places(within(records, 10.0)) == [(0, 0), (1, 0), (0, 1), (1, 1), (1, 2), (1, 3)]
    assert within(records, None) == records


def test_a_trial_whose_time_is_exactly_used_up_is_over():
    assert places(within(timed([[5.0, 5.0, 0.0]]), 10.0)) == [(0, 0), (0, 1)]


@pytest.mark.parametrize(
    "cost, seconds, count", [(288.0, 14400.0, 50), (154.0, 10800.0, 70), (0.1, 0.3, 3), (0.1, 7.0, 70)]
)
def test_how_many_fit_however_sums_are_rounded(cost, seconds, count):
    assert len(within(timed([[cost] * 100]), seconds)) == count


def test_within_is_what_cumulative_sums_say():
    costs = np.random.default_rng(0).integers(1, 30, (40, 25)) / 8  # eighths: sums are exact
    counted = (costs.cumsum(1) <= 20).sum(1)
    expected = {(trial, k) for trial in range(40) for k in range(counted[trial])}
    assert set(places(within(timed(costs.tolist()), 20.0))) == expected and 0 < min(counted) < max(counted) < 25


def test_the_curve_of_searches_with_a_limit_of_time():
    costs = [[4.0, 4.0, 4.0, 4.0, 1.0], [2.0, 2.0, 2.0, 2.0, 4.0], [5.0, 6.0, 1.0, 1.0, 1.0]]
    scores = [[1.0, 3.0, 9.0, 9.0, 9.0], [2.0, 1.0, NAN, 5.0, 9.0], [4.0, 9.0, 9.0, 9.0, 9.0]]
    curve = best_so_far(timed(costs, scores), 3, 10.0)
    np.testing.assert_array_equal(curve, [[1, 3, 3, 3], [2, 2, 2, 5], [4, 4, 4, 4]])
    assert best_so_far(timed(costs, scores), 3, 1.0).shape == (3, 0)


def test_nothing_in_the_summary_is_from_after_the_end():
    costs = [[4.0, 4.0, 4.0, 4.0], [2.0, 2.0, 2.0, 4.0]]
    scores = [[1.0, 3.0, 9.0, 9.0], [2.0, 6.0, 5.0, 9.0]]
    metrics = [[{"test": 10.0 * trial + k} for k in range(4)] for trial in range(2)]
    table = np.array([9.0, 6.0, 5.0, 3.0, 2.0, 1.0])
    summary = summarise_search(timed(costs, scores, metrics), 2, SPACE, table, 1.0, 9.0)
    assert (summary["evaluations"], summary["evaluations_mean"], summary["cost_seconds"]) == (3, 2.5, 14.0)
    assert summary["curve_mean"] == [1.5, 4.5, 4.5] and summary["best_score_mean"] == 4.5
    assert summary["best"]["score"] == 6.0 and summary["best"]["trial"] == 1 and summary["best"]["evaluation"] == 1
    assert summary["found_best"] == 0.0 and summary["found_top3"] == 0.5 and summary["mean_rank"] == 3.0
    assert summary["at_best"]["test"]["mean"] == (1 + 11) / 2
    assert "evaluations_mean" not in summarise_search(timed(costs, scores), 2, SPACE, table, 1.0)


# ---- what the best network is worth otherwise ----------------------------------------------------------------------


def test_metrics_at_each_trials_best():
    metrics = [
        [{"test": 70.0}, {"test": 80.0, "rare": 5.0}, {"test": 90.0}],
        [{"test": 60.0}, {"test": 50.0}, {"test": 40.0, "rare": 1.0}],  # the first of equals
        [{"test": 1.0}, {"test": math.inf}, {"test": 2.0}],  # not a number that can be averaged
        [{"test": 30.0}, {}, {"test": 20.0}],  # absent where it matters
    ]
    scores = [[1.0, 3.0, 2.0], [4.0, 4.0, 4.0], [1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]
    found = at_best(timed([[1.0] * 3] * 4, scores, metrics))
    assert set(found) == {"test", "rare"}
    assert found["test"]["mean"] == 70.0 and found["test"]["std"] == pytest.approx(math.sqrt(200))  # of 80 and 60
    assert found["test"]["interval"] == mean_interval(np.array([80.0, 60.0]))
    assert found["rare"] == {"mean": 5.0, "std": None, "interval": None}


def test_metrics_at_the_best_by_definition():
    generator = np.random.default_rng(0)
    scores, other = generator.integers(0, 9, (30, 20)).astype(float), generator.normal(size=(30, 20))
    scores[generator.random(scores.shape) < 0.2] = NAN
    metrics = [[{"other": value} for value in row] for row in other]
    records = [each for each in timed([[1.0] * 20] * 30, scores.tolist(), metrics) if each.evaluation.score >= 0]
    values = [row[int(np.nanargmax(score))] for score, row in zip(scores, other, strict=True)]
    found = at_best(records)["other"]
    assert (found["mean"], found["std"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))


def test_failed_evaluations_and_tasks_without_metrics():
    assert summarise([[NAN, 2.0], [NAN, NAN]], metrics={"loss": 0.5})["at_best"]["loss"]["mean"] == 0.5
    assert summarise([[1.0, 2.0]])["at_best"] == summarise([[NAN]], metrics={"loss": 1.0})["at_best"] == {}


# ---- the file ----------------------------------------------------------------------------------------------------


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_json_is_strict(tmp_path):
    metrics = {"loss": NAN, "ratio": math.inf, "flops": 3.0}
    summary = summarise([[NAN, 3.0], [NAN, NAN]], all_scores=[NAN, 3.0, 1.0], metrics=metrics)
    write_json(tmp_path / "summary.json", summary)
    read = strict(tmp_path / "summary.json")
    assert read == summary
    assert read["best"]["metrics"] == {"loss": None, "ratio": None, "flops": 3.0}
    assert read["curve_mean"] == [None, 3.0]


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"score": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"before": "x" * 100_000, "score": NAN})
    with pytest.raises(TypeError):
        write_json(path, {"score": object()})
    assert strict(path) == {"score": 1.0}
    write_json(path, {"score": 2.0})
    assert strict(path) == {"score": 2.0}
    assert [each.name for each in tmp_path.iterdir() if each.suffix != ".partial"] == ["summary.json"]


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(
        RunError, match=r"summary.json could not be written \(.*No such file.*nothing is lost"
    ) as caught:
        write_json(tmp_path / "nowhere" / "summary.json", {})
    assert caught.value.exit_code == 1
    if os.path.exists("/dev/full"):
        (tmp_path / "summary.partial").symlink_to("/dev/full")
        with pytest.raises(RunError, match="No space left on device"):
            write_json(tmp_path / "summary.json", {"score": 1.0})
        assert not (tmp_path / "summary.json").exists()


def test_without_seconds():
    summary = {"a": [{"seconds": 1, "b": 2}], "cost_seconds": 3, "c": {"train_seconds": 1, "secondsish": 4}}
    assert without_seconds(summary) == {"a": [{"b": 2}], "c": {"secondsish": 4}}


# ---- resuming ----------------------------------------------------------------------------------------------------


class Toy(OneByOne):
    instant = True

    def __init__(self):
        self.space = SPACE

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        if seed % 4 == 0:
            return Evaluation.failed("a seed divisible by 4")
        return Evaluation(sum(architecture) + seed / 2**31, {"seed": float(seed)})


def lose_connection():
    raise ConnectionError


def test_a_resumed_search_has_the_same_summary(tmp_path):
    summaries = []
    for name, stops in {"undisturbed": [], "stopped": [8, 17, 4]}.items():
        journal = Journal(tmp_path / name)
        for stop in [*stops, math.inf]:
            agent = RandomSearch(SPACE, trials=2, seed=0)
            search = Search("a", agent, [Stage("toy", Toy, 24, True)], 0, batch=3, most_failures=99)
            try:
                run_search(search, journal, [Stopper(stop, lose_connection)])
            except ConnectionError:
                assert not journal.progress("a")[0]
        records, (finished, seconds) = list(journal.records("a")), journal.progress("a")
        assert finished and seconds > 0
        scores = torch.arange(9.0, dtype=torch.float64).numpy()
        summaries.append(summarise_search(records, 2, SPACE, scores, seconds))
        journal.close()
    assert summaries[0]["failed"] > 0 and summaries[0]["seconds"] != summaries[1]["seconds"]
    assert without_seconds(summaries[0]) == without_seconds(summaries[1])


def test_on_the_way_by_hand():
    """Two trials of six evaluations on a space whose scores are 0 .. 9: where each stood after 5 and after 6."""
    scores = [[1.0, 4.0, 3.0, 7.0, 2.0, 9.0], [8.0, 5.0, 6.0, 0.0, 3.0, 4.0]]
    summary = summarise(scores, np.arange(10.0))
    after5, after6 = summary["on_the_way"]
    assert (after5["evaluations"], after6["evaluations"]) == (5, 6)
    assert (after5["regret"], after5["found_best"], after5["found_top3"], after5["mean_rank"]) == (1.5, 0.0, 1.0, 2.5)
    assert (after6["regret"], after6["found_best"], after6["mean_rank"]) == (0.5, 0.5, 1.5)
    assert all(summary[key] == value for key, value in after6.items() if key != "evaluations")


def test_trials_of_one_meta_training_count_once():
    """A journal in which all trials of a meta-training agree says what one of as many trials as meta-trainings says."""
    own, possible = [[1.0, 5.0], [2.0, 8.0], [3.0, 7.0], [2.0, 6.0]], np.arange(9.0)
    once = summarise(own, all_scores=possible)
    shared = summarise_search(records_of(own * 5), 20, SPACE, possible, 12.0, meta_trainings=4)
    assert (shared["meta_trainings"], "meta_trainings" in once) == (4, False)
    intervals = [key for key in once if key.endswith("interval")]
    assert {"best_score_interval", "curve_interval", "found_best_interval", "regret_interval"} < set(intervals)
    for key in intervals:
        assert np.array(shared[key]) == pytest.approx(np.array(once[key])), key
    assert shared["on_the_way"][-1]["mean_rank_interval"] == pytest.approx(once["on_the_way"][-1]["mean_rank_interval"])
    naive = summarise(own * 5, all_scores=possible)
    assert np.diff(naive["best_score_interval"]) < 0.5 * np.diff(shared["best_score_interval"])
