"""Ranks combined, weights fitted, and columns of tables as attributes."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from search.attributes.combination import Combination, fit_weights, rank_scores, read_weights, save_weights
from search.attributes.combined_ranks import CombinedRanks
from search.attributes.flops import Flops
from search.attributes.parameters import Parameters
from search.attributes.table_column import TableColumn
from search.randomness import derive_seed
from search.spaces.nasbench201 import NASBench201
from search.spaces.transnasbench101 import TransNASBench101Micro
from search.tables.table import write_table

SPACE = NASBench201()


def random_columns(n, seed=0):
    generator = np.random.default_rng(seed)
    return {name: generator.integers(0, n // 2, n).astype(float) for name in "abcd"}


def test_az_nas_is_the_sum_of_the_logarithms_of_ranks():
    columns = random_columns(40)
    expected = sum(np.log(stats.rankdata(values) / 40) for values in columns.values())
    assert Combination(members=list("abcd")).of(columns) == pytest.approx(expected)
    assert Combination(members=["a"]).of(columns).max() <= 0


def test_only_ranks_matter_and_what_has_no_value_is_last():
    columns = random_columns(40)
    stretched = {name: np.exp(values / 10) for name, values in columns.items()}
    combination = Combination(weights={"a": 0.5, "b": -2.0}, scale="normal")
    assert combination.of(stretched) == pytest.approx(combination.of(columns))
    scores = rank_scores(np.array([3.0, math.nan, 1.0, math.inf]))
    assert scores.argsort().tolist() == [1, 2, 0, 3] and scores[3] == 0


@pytest.mark.parametrize("scale", ["log", "normal"])
def test_among_others_a_value_ranks_as_in_their_midst(scale):
    pool = np.array([1.0, 2.0, 2.0, 5.0])
    assert rank_scores(pool, pool, scale) == pytest.approx(rank_scores(pool, None, scale))
    low, between, high = rank_scores(np.array([0.0, 3.0, 9.0]), pool, scale)
    own = rank_scores(pool, None, scale)
    assert low < own[0] and own[2] < between < own[3] < high and np.isfinite([low, between, high]).all()
    if scale == "normal":
        assert own[3] == pytest.approx(stats.norm.ppf(3.5 / 4))


def test_weights_are_fitted_on_sources_and_rank_another_task():
    """The truth is three times one proxy, minus another, and noise; two proxies say nothing."""
    generator = np.random.default_rng(1)

    def task(n=300):
        values = {name: generator.normal(size=n) for name in "abcd"}
        truth = 3 * values["a"] - values["b"] + generator.normal(size=n) / 2
        truth[:5] = math.nan
        return {name: np.exp(each) for name, each in values.items()}, truth

    weights = fit_weights([task(), task()], scale="normal")
    assert abs(weights["c"]) < 0.05 and abs(weights["d"]) < 0.05
    assert weights["a"] / -weights["b"] == pytest.approx(3, rel=0.2)
    values, truth = task()
    fitted = Combination(weights=weights, scale="normal").of(values)[5:]
    assert stats.spearmanr(fitted, truth[5:]).statistic > 0.95 > stats.spearmanr(values["a"][5:], truth[5:]).statistic


def test_weights_are_kept_in_a_file(tmp_path):
    path = tmp_path / "weights.json"
    save_weights(path, {"a": 1.5, "b": -0.25}, "normal", ["cifar100"])
    assert read_weights(path) == ({"a": 1.5, "b": -0.25}, "normal")
    assert json.loads(path.read_text())["fitted_on"] == ["cifar100"]
    columns = random_columns(20)
    same = Combination(weights={"a": 1.5, "b": -0.25}, scale="normal")
    assert Combination(file=str(path)).of(columns).tolist() == same.of(columns).tolist()
    path.write_text("[1]")
    with pytest.raises(ValueError, match="not a file of weights"):
        Combination(file=str(path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "one of: members, weights, file"),
        ({"members": ["a"], "weights": {"a": 1.0}}, "one of: members, weights, file"),
        ({"members": []}, "at least one member"),
        ({"members": ["a"], "scale": "lin"}, "scale is 'lin', allowed: log, normal"),
    ],
)
def test_what_is_no_combination_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Combination(**arguments)


def test_combined_ranks_are_those_of_a_pool_drawn_once():
    members = {
        "flops": partial(Flops, build=SPACE.toy_build()),
        "parameters": partial(Parameters, build=SPACE.toy_build()),
    }
    attribute = CombinedRanks(SPACE, members, pool=8, seed=3)
    archs = torch.tensor([[3] * 6, [0, 3, 0, 2, 1, 0]])
    pool = [SPACE.draw(derive_seed(3, "pool"), draw) for draw in range(8)]
    expected = np.zeros(2)
    for make in members.values():
        own, among = make(SPACE).values(archs).numpy(), make(SPACE).values(torch.tensor(pool)).numpy()
        expected += rank_scores(own, among)
    assert attribute.values(archs).tolist() == pytest.approx(expected.tolist())
    with pytest.raises(ValueError, match="combination has 'synflow', members are flops, parameters"):
        CombinedRanks(SPACE, members, Combination(members=["synflow"]))


def test_a_column_of_a_table_is_an_attribute(tmp_path):
    archs = np.array([[3] * 6, [0, 3, 0, 2, 1, 0]])
    path = write_table(tmp_path / "proxies.npz", archs, {"synflow": np.array([7.5, math.nan])}, SPACE.name)
    attribute = TableColumn(SPACE, str(path), "synflow")
    values = attribute.values(torch.tensor([[3] * 6, [0, 3, 0, 2, 1, 0], [1] * 6]))
    assert values[0] == 7.5 and values[1:].isnan().all() and attribute.name == "synflow"
    with pytest.raises(ValueError, match="no column 'synflw'; the nearest are synflow"):
        TableColumn(SPACE, str(path), "synflw")
    with pytest.raises(ValueError, match="of the space 'nasbench201', not of 'transnasbench101_micro'"):
        TableColumn(TransNASBench101Micro(), str(path), "synflow")
    with pytest.raises(ValueError, match="direction is 'up'"):
        TableColumn(SPACE, str(path), "synflow", "up")
