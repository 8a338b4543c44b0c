"""Columns of attributes against quantiles worked out by counting."""

import math
from statistics import NormalDist

import pytest
import torch

from search.attributes.base import Attribute
from search.attributes.quantiles import QuantileColumns
from search.statistics.places import places
from tests.search.agents.toy_spaces import Grid

SPACE = Grid()


class Sum(Attribute):
    name = "sum of choices"

    def measure(self, architectures):
        return [math.nan if sum(each) == 0 else float(sum(each)) for each in architectures]


class Cost(Sum):
    direction = "min"


def test_places_count_what_is_below_and_half_of_what_is_equal():
    values = torch.tensor([[0.0, 2.0, 9.0], [5.0, 5.0, 4.0]], dtype=torch.float64)
    others = torch.tensor([[3.0, 2.0, 1.0, 2.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    assert places(values, others).tolist() == [[0, 2, 4], [2, 2, 0]]


def test_a_column_is_the_normal_quantile_among_the_reference_and_larger_is_better():
    decisions = len(SPACE.sizes)
    reference = torch.tensor([[k % size for size in SPACE.sizes] for k in range(4)])
    columns = QuantileColumns(SPACE, {"sum": Sum(SPACE), "cost": Cost(SPACE)}, reference)
    asked = torch.cat([reference, torch.zeros(1, decisions, dtype=torch.long)])
    some = columns(asked[:2])
    found = columns(asked.view(1, 5, decisions))
    assert torch.equal(found[0, :2], some) and torch.equal(columns(asked.flip(0)), found[0].flip(0))
    assert found.shape == (1, 5, 2) and len(columns) == 2
    known = [sum(row) for row in reference.tolist() if sum(row)]
    for row, (up, down) in zip(asked.tolist(), found[0].tolist(), strict=True):
        value = sum(row)
        if not value:  # it has none, which is the middle
            assert up == down == 0
            continue
        place = sum(each < value for each in known) + 0.5 * sum(each == value for each in known)
        assert up == pytest.approx(NormalDist().inv_cdf((place + 0.5) / (len(known) + 1)), abs=1e-6)
        assert down == -up
