"""Rewards of quality and latency, looked up."""

import math

import numpy as np
import pytest
import torch

from search.evaluation import Objective, Proposal
from search.executors.inline import evaluate_one
from search.randomness import TrialRandom
from search.tasks.latency_reward import LatencyRewardTask
from search.tasks.table_pool import TableColumn
from tests.search.evaluating import evaluate, evaluate_many
from tests.search.tables.latency_tables import SIZE, SPACE, column, write_latency, write_quality


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Index 5 has no latency on the chip, index 6 no quality."""
    folder = tmp_path_factory.mktemp("tables")

    def no_latency(values):
        values[5, 1] = 0.001

    def no_quality(columns):
        columns["a_val_acc_12ep"][6] = np.nan

    return *write_latency(folder, no_latency), *write_quality(folder, no_quality)


def make(tables, device="chip", exponent=-0.3, **options):
    latency_path, _, quality_path, _ = tables
    return LatencyRewardTask(SPACE, column(quality_path), latency_path, device, exponent, **options)


def test_the_reward_by_hand(tables):
    _, latency, _, quality = tables
    known = np.delete(latency[:, 1].astype(np.float64), 5)
    target = np.quantile(known, 0.3)
    task = make(tables)
    assert task.target == pytest.approx(target, rel=1e-12)
    for index in (0, 857, 15624):
        got = evaluate(task, SPACE.from_index(index), seed=0)
        q, ms = float(quality["a_val_acc_12ep"][index]), float(latency[index, 1])
        assert got.score == pytest.approx(q * (ms / target) ** -0.3, rel=1e-12)
        assert got.metrics == {"quality": q, "latency_ms": ms}


def test_the_target_quantile_is_where_the_reward_is_the_quality(tables):
    for quantile in (0.0, 0.5, 1.0):
        task = make(tables, "phone", target_quantile=quantile)
        _, latency, _, quality = tables
        index = int(np.abs(latency[:, 0] - np.quantile(latency[:, 0], quantile)).argmin())
        got = evaluate(task, SPACE.from_index(index), 0)
        assert got.score == pytest.approx(float(quality["a_val_acc_12ep"][index]), rel=1e-3)


def test_a_limit_of_the_latency(tables):
    """Evaluations keep their reward and say by how much they miss it; the best there is keeps it."""
    free = make(tables)
    _, latency, _, _ = tables
    limit = float(np.quantile(latency[:, 1], 0.2))
    task = make(tables, objectives={"latency_ms": {"direction": "min", "limit": limit}})
    assert task.objectives == {"quality": Objective("max"), "latency_ms": Objective("min", limit)}
    for index in (0, 857, 3000, 15624):
        plain = evaluate_one(free, Proposal(SPACE.from_index(index)))
        found = evaluate_one(task, Proposal(SPACE.from_index(index)))
        excess = max(0.0, found.metrics["latency_ms"] / limit - 1)
        assert (found.score, found.metrics, found.status) == (plain.score, plain.metrics, "ok")
        assert found.violation == pytest.approx(excess) and found.feasible == (excess == 0) and plain.violation == 0
    everything, within = free.all_scores(), task.all_objectives()[:, 1] <= limit
    assert torch.equal(task.all_scores()[within], everything[within]) and task.all_scores()[~within].isnan().all()
    with pytest.raises(ValueError, match="objectives has 'latency', allowed: quality, latency_ms, score"):
        make(tables, objectives={"latency": {"direction": "min", "limit": 1.0}})


def test_one_by_one_together_and_the_whole_space_agree(tables):
    task = make(tables)
    everything = task.all_scores()
    assert everything.shape == (SIZE,) and everything.isnan().sum() == 2
    archs = SPACE.sample(TrialRandom(3), 50)[0]
    choices = [tuple(arch) for arch in archs.tolist()]
    together = list(evaluate_many(task, choices))
    assert together == [evaluate(task, arch, 9) for arch in choices]
    wanted = [everything[code].item() for code in SPACE.code(archs).tolist()]
    assert [each.score for each in together] == wanted
    assert list(evaluate_many(task, [])) == []
    for position, arch in enumerate(list(SPACE.enumerate())[:: SIZE // 7]):
        assert evaluate(task, arch, 0).score == everything[position * (SIZE // 7)].item()


def test_what_was_not_measured_fails_with_its_reason(tables):
    task = make(tables)
    for index, reason in ((5, "no chip latency was measured of |"), (6, "quality.npz has no a_val_acc_12ep of |")):
        got = evaluate(task, SPACE.from_index(index), 0)
        assert got.status == "failed" and math.isnan(got.score) and got.reason.startswith(reason)
        assert task.all_scores()[SPACE.code(torch.tensor(SPACE.from_index(index)))].isnan()
    assert evaluate(make(tables, "phone"), SPACE.from_index(5), 0).status == "ok"


def test_says_what_it_is(tables):
    task = make(tables)
    assert task.instant and task.offered(0) is None
    assert task.score_name == f"a val accuracy after 12 epochs (%) x (chip latency / {task.target:.3g} ms)^-0.3"


def test_what_it_refuses(tables):
    with pytest.raises(ValueError, match="no device 'chop'; did you mean 'chip'"):
        make(tables, "chop")
    for exponent in (0.3, math.nan, -math.inf):
        with pytest.raises(ValueError, match=r"exponent is .* at most 0"):
            make(tables, exponent=exponent)
    with pytest.raises(ValueError, match=r"target_quantile is 30, it must lie in \[0, 1\]"):
        make(tables, target_quantile=30)
    with pytest.raises(ValueError, match="exponent is -1000: the reward of a fast network would be infinite"):
        make(tables, exponent=-1000)
    with pytest.raises(ValueError, match="no column"):
        LatencyRewardTask(SPACE, TableColumn(**column(tables[2], dataset="z")), tables[0], "chip", -0.3)


@pytest.mark.parametrize("share", [1.0, 1 / SIZE], ids=["all", "one"])
def test_a_quality_below_zero_is_refused(tables, tmp_path, share):
    def negative(columns):
        columns["a_val_acc_12ep"][: round(share * SIZE)] *= -1

    path, _ = write_quality(tmp_path, negative)
    with pytest.raises(ValueError, match=r"quality, 'a val accuracy .*', is -\d.*; below 0 a slower .* never negative"):
        LatencyRewardTask(SPACE, column(path), tables[0], "chip", -0.3)
    assert evaluate(LatencyRewardTask(SPACE, column(path, "b"), tables[0], "chip", -0.3), (0,) * 6, 0).status == "ok"


def test_a_quality_of_zero_is_worth_zero_however_fast(tables, tmp_path):
    def zero(columns):
        columns["a_val_acc_12ep"][:1000] = 0.0
        columns["a_val_acc_12ep"][1000] = np.nan

    task = LatencyRewardTask(SPACE, column(write_quality(tmp_path, zero)[0]), tables[0], "chip", -0.3)
    assert [evaluate(task, SPACE.from_index(index), 0).score for index in (0, 1, 999)] == [0.0] * 3
    assert evaluate(task, SPACE.from_index(1000), 0).status == "failed"


def test_no_slower_network_of_equal_quality_is_worth_more(tables):
    rewards, (quality, latency) = make(tables).all_scores(), make(tables).all_objectives().T
    measured = ~rewards.isnan()
    per_quality = (rewards / quality)[measured][latency[measured].argsort()]
    assert (per_quality.diff() <= 1e-12).all() and len(per_quality) == SIZE - 2


def test_more_weight_on_latency_finds_faster_networks(real_data):
    latencies = str(real_data("nasbench201_latency.npz"))
    quality = TableColumn(str(real_data("nasbench201.npz")), "cifar10_valid", "val", "acc", 200)
    best = []
    for exponent in (0.0, -0.07, -0.3):
        task = LatencyRewardTask(SPACE, quality, latencies, "eyeriss", exponent)
        code = int(task.all_scores().nan_to_num(-1.0).argmax())
        arch = torch.cartesian_prod(*[torch.arange(5)] * 6)[code]
        best.append(evaluate(task, tuple(arch.tolist()), 0).metrics)
    latency, accuracy = [each["latency_ms"] for each in best], [each["quality"] for each in best]
    assert latency[0] > latency[1] > latency[2] and accuracy[0] > accuracy[1] > accuracy[2]
