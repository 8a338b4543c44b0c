"""Looking evaluations up in a table."""

import math

import numpy as np
import pytest
import torch

from search.randomness import TrialRandom
from search.spaces.base import Decision, SearchSpace
from search.tables.table import write_table
from search.tasks.table import CostModel, Measurement, TableTask
from tests.search.evaluating import evaluate, evaluate_many


class Toy(SearchSpace):
    name = "toy"
    decisions = (Decision("a", ("x", "y")), Decision("b", ("p", "q", "r")))

    def build(self, architecture, **head):
        raise NotImplementedError


class Masked(Toy):
    """After a=y only b=p is allowed: four architectures."""

    def valid_choices(self, prefix):
        mask = super().valid_choices(prefix)
        if prefix.shape[-1] == 1:
            mask[..., 1:] &= prefix == 0
        return mask


class Huge(SearchSpace):
    name = "huge"
    decisions = tuple(Decision(f"d{k}", ("0", "1", "2", "3")) for k in range(30))

    def build(self, architecture, **head):
        raise NotImplementedError


ROWS = [(1, 2), (0, 0), (0, 2), (1, 0), (0, 1), (1, 1)]
SCORES = {arch: 10.0 * arch[0] + arch[1] for arch in ROWS}
COLUMN = {"dataset": "d", "split": "val", "metric": "acc", "epochs": 12}


def make(folder, rows=ROWS, scores=None, space="toy"):
    values = np.array([SCORES[row] for row in rows] if scores is None else scores)
    return str(write_table(folder / "t.npz", np.array(rows), {"d_val_acc_12ep": values}, space))


def test_scores_of_any_shape(tmp_path):
    task = TableTask(Toy(), make(tmp_path), **COLUMN)
    assert task.instant and task.score_name == "d val accuracy after 12 epochs (%)"
    archs = task.space.sample(TrialRandom(0, 5), 7)
    got = task.scores(archs)
    assert got.dtype == torch.float64 and got.shape == (5, 7)
    assert got.tolist() == [[SCORES[tuple(arch)] for arch in trial] for trial in archs.tolist()]
    assert task.scores(torch.tensor([1, 2])).item() == 12.0


def test_evaluate(tmp_path):
    task = TableTask(Toy(), make(tmp_path), **COLUMN, cost_seconds=3.5)
    assert evaluate(task, (1, 0), seed=0) == evaluate(task, (1, 0), seed=9)
    evaluation = evaluate(task, (1, 0), seed=0)
    assert (evaluation.score, evaluation.cost_seconds, evaluation.status) == (10.0, 3.5, "ok")
    many = list(evaluate_many(task, ROWS))
    assert [each.score for each in many] == [SCORES[row] for row in ROWS]
    assert list(evaluate_many(task, [])) == []


def test_missing_rows_and_values_fail_with_a_reason(tmp_path):
    task = TableTask(Toy(), make(tmp_path, rows=[(0, 1), (0, 2)], scores=[5.0, math.nan]), **COLUMN)
    good, unmeasured, absent = evaluate_many(task, [(0, 1), (0, 2), (1, 2)])
    assert good.score == 5.0 and good.status == "ok"
    for evaluation, text in ((unmeasured, "a=x|b=r"), (absent, "a=y|b=r")):
        assert math.isnan(evaluation.score) and evaluation.status == "failed"
        assert evaluation.reason == f"t.npz has no d_val_acc_12ep of {text}"


def test_choices_out_of_range_are_refused(tmp_path):
    task = TableTask(Toy(), make(tmp_path), **COLUMN)
    # (0, 3) has the code of (1, 0), it must not pass for it.
    for wrong in ([0, 3], [-1, 0], [2, 0], [0], [0, 0, 0]):
        with pytest.raises(ValueError, match="not architectures of this space"):
            task.scores(torch.tensor(wrong))


def test_all_scores_follow_the_space(tmp_path):
    task = TableTask(Toy(), make(tmp_path), **COLUMN)
    assert task.all_scores().tolist() == [SCORES[arch] for arch in Toy().enumerate()]
    task.all_scores().zero_()
    assert task.all_scores().sum() > 0, "the caller must not be able to change the table"
    assert TableTask(Toy(), make(tmp_path, rows=ROWS[:5]), **COLUMN).all_scores() is None


def test_all_scores_of_a_masked_space(tmp_path):
    rows = [(1, 0), (0, 0), (0, 2), (0, 1)]
    task = TableTask(Masked(), make(tmp_path, rows=rows), **COLUMN)
    assert task.all_scores().tolist() == [0.0, 1.0, 2.0, 10.0]
    assert TableTask(Masked(), make(tmp_path, rows=rows[:3]), **COLUMN).all_scores() is None


def test_a_space_too_large_to_enumerate(tmp_path):
    space = Huge()
    archs = space.sample(TrialRandom(3), 100)[0]
    path = make(tmp_path, rows=archs.tolist(), scores=np.arange(100.0), space="huge")
    task = TableTask(space, path, **COLUMN)
    assert task.scores(archs).tolist() == list(range(100))
    assert task.scores((archs + 1) % 4).isnan().all() and task.all_scores() is None


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"epochs": 200}, "no column 'd_val_acc_200ep'; the nearest are d_val_acc_12ep"),
        ({"epochs": None}, "no column 'd_val_acc'; the nearest are d_val_acc_12ep"),
        ({"split": "test"}, "no column 'd_test_acc_12ep'; the nearest are d_val_acc_12ep"),
    ],
)
def test_a_wrong_column_is_never_replaced(change, nearest, tmp_path):
    with pytest.raises(ValueError, match=nearest):
        TableTask(Toy(), make(tmp_path), **{**COLUMN, **change})


def test_tables_of_other_spaces_are_refused(tmp_path):
    with pytest.raises(ValueError, match="of the space 'other', the task's is 'toy'"):
        TableTask(Toy(), make(tmp_path, space="other"), **COLUMN)
    with pytest.raises(ValueError, match="do not belong to the space 'toy'"):
        TableTask(Toy(), make(tmp_path, rows=[(0, 3)], scores=[1.0], space=None), **COLUMN)
    with pytest.raises(ValueError, match="do not belong to the space 'huge'"):
        TableTask(Huge(), make(tmp_path, space=None), **COLUMN)


def test_a_row_twice_is_refused(tmp_path):
    np.savez(tmp_path / "t.npz", arch=np.array([(0, 1), (0, 1)], np.int8), d_val_acc_12ep=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="stands in it twice"):
        TableTask(Toy(), str(tmp_path / "t.npz"), **COLUMN)


def test_nasbench201(real_data):
    from search.spaces.nasbench201 import NASBench201

    path = real_data("nasbench201.npz")
    space = NASBench201()
    task = TableTask(space, str(path), "cifar10", "test", "acc", 200)
    with np.load(path) as arrays:
        best = str(arrays["arch_str"][6111])
        texts, values = arrays["arch_str"][::500], arrays["cifar10_test_acc_200ep"][::500].astype(float)
    assert evaluate(task, space.parse(best), seed=0).score == pytest.approx(94.3733, abs=1e-4)
    got = evaluate_many(task, [space.parse(str(text)) for text in texts])
    assert [each.score for each in got] == values.tolist()
    scores = task.all_scores()
    assert scores.shape == (15625,) and scores.max() == pytest.approx(94.3733, abs=1e-4)
    assert scores[space.code(torch.tensor(space.parse(best)))] == scores.max()


# ---- cost, and columns that are reported ---------------------------------------------------------------------------

FLOPS = {(1, 2): 40.0, (0, 0): 10.0, (0, 2): 20.0, (1, 0): 10.0, (0, 1): 80.0, (1, 1): 80.0}  # the mean is 40


def make_rich(folder, rows=ROWS, flops=FLOPS, **columns):
    values = {"d_val_acc_12ep": np.array([SCORES[row] for row in rows])}
    values |= {"flops_m": np.array([flops[row] for row in rows])}
    return str(write_table(folder / "t.npz", np.array(rows), values | columns, "toy"))


@pytest.mark.parametrize("given", [CostModel(100.0, 0.25), {"seconds": 100.0, "flops_share": 0.25}])
def test_costs_grow_with_flops(given, tmp_path):
    task = TableTask(Toy(), make_rich(tmp_path), **COLUMN, cost_seconds=given)
    costs = [each.cost_seconds for each in evaluate_many(task, ROWS)]
    assert costs == pytest.approx([75 + 25 * FLOPS[row] / 40 for row in ROWS])
    assert np.mean(costs) == pytest.approx(100.0) and task.cost_seconds == 100.0
    assert [evaluate(task, row, 0).cost_seconds for row in ROWS] == costs  # whatever is asked together, to the last bit


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_flops_share(share, tmp_path):
    task = TableTask(Toy(), make_rich(tmp_path), **COLUMN, cost_seconds=CostModel(50.0, share))
    costs = [each.cost_seconds for each in evaluate_many(task, ROWS)]
    assert costs == pytest.approx([50 * FLOPS[row] / 40 if share else 50 for row in ROWS])


def test_the_cost_of_what_has_no_flops(tmp_path):
    path = make_rich(tmp_path, rows=ROWS[:3], flops=FLOPS | {(0, 0): math.nan})
    task = TableTask(Toy(), path, **COLUMN, cost_seconds=CostModel(60.0, 0.5))
    costs = [each.cost_seconds for each in evaluate_many(task, ROWS[:4])]
    assert costs == pytest.approx([30 + 30 * 40 / 30, 60, 30 + 30 * 20 / 30, 60])  # the last one is not in the table


def test_a_table_without_flops(tmp_path):
    path = make(tmp_path)
    assert evaluate(TableTask(Toy(), path, **COLUMN, cost_seconds=CostModel(5.0)), (0, 0), 0).cost_seconds == 5.0
    with pytest.raises(ValueError, match="no column 'flops_m'; the nearest are d_val_acc_12ep"):
        TableTask(Toy(), path, **COLUMN, cost_seconds=CostModel(5.0, 0.5))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (-1.0, r"cost_seconds is -1.0, it must be a number of at least 0"),
        (math.nan, r"cost_seconds is nan, it must"),
        ({"seconds": 3.0, "flops_share": 1.5}, r"cost_seconds.flops_share is 1.5, it must lie in \[0, 1\]"),
    ],
)
def test_costs_out_of_range(wrong, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        TableTask(Toy(), make_rich(tmp_path), **COLUMN, cost_seconds=wrong)


def test_further_columns_become_metrics(tmp_path):
    columns = {
        "e_test_acc_200ep": np.arange(6.0),
        "d_loss_x": np.array([math.nan, 1.0, 2.0, 3.0, 4.0, 5.0]),
        "other_test_acc_200ep": np.zeros(6),
    }
    also = [Measurement("e", "test", "acc", 200), {"dataset": "d", "split": "loss", "metric": "x", "epochs": None}]
    task = TableTask(Toy(), make_rich(tmp_path, **columns), **COLUMN, also=also)
    evaluations = list(evaluate_many(task, ROWS))
    assert [each.score for each in evaluations] == [SCORES[row] for row in ROWS]
    for k, evaluation in enumerate(evaluations):
        expected = {"e_test_acc_200ep": float(k), "d_loss_x": float(k)}
        if k == 0:
            del expected["d_loss_x"]  # not measured
        assert evaluation.metrics == expected
    with pytest.raises(ValueError, match="no column 'e_test_acc_20ep'; the nearest are e_test_acc_200ep"):
        TableTask(Toy(), make_rich(tmp_path, **columns), **COLUMN, also=[Measurement("e", "test", "acc", 20)])


def test_nasbench201_costs_and_columns(real_data):
    from search.spaces.nasbench201 import NASBench201

    path = real_data("nasbench201.npz")
    space = NASBench201()
    also = [Measurement("imagenet16_120", "test", "acc", 200)]
    task = TableTask(space, str(path), "cifar10_valid", "val", "acc", 12, CostModel(154.0, 0.5), also)
    evaluations = list(evaluate_many(task, list(space.enumerate())))
    costs = np.array([each.cost_seconds for each in evaluations])
    with np.load(path) as arrays:
        flops = arrays["flops_m"].astype(float)
    assert costs.mean() == pytest.approx(154.0)
    # The cheapest and the dearest network, from the FLOPs alone.
    assert [costs.min(), costs.max()] == pytest.approx(
        [77 + 77 * each / flops.mean() for each in (flops.min(), flops.max())]
    )
    assert max(each.metrics["imagenet16_120_test_acc_200ep"] for each in evaluations) == pytest.approx(
        47.3111, abs=1e-4
    )
