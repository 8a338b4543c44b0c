import math

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping

from search.statistics.early_stopping import Stopped, stop_early


@pytest.mark.parametrize(
    ("monitored", "patience", "direction", "expected"),
    [
        ([5, 4, 3, 2], 1, "min", Stopped(4, 4)),
        ([5, 4, 6, 3], 1, "min", Stopped(3, 2)),
        ([5, 4, 6, 3], 2, "min", Stopped(4, 4)),
        ([1, 3, 2, 2, 9], 2, "max", Stopped(4, 2)),
        ([1, 1, 1], 2, "max", Stopped(3, 1)),  # as good is not better
        ([1, math.nan, 2], 2, "max", Stopped(3, 3)),
        ([7], 3, "max", Stopped(1, 1)),
    ],
)
def test_a_training_stops_where_nothing_becomes_better(monitored, patience, direction, expected):
    assert stop_early(monitored, patience, direction) == expected


def test_it_stops_where_lightning_stops():
    generator = torch.Generator().manual_seed(0)
    for patience in (1, 2, 4):
        curve = torch.randn(30, generator=generator)
        callback = EarlyStopping("value", mode="max", patience=patience)
        ends = (epoch for epoch, value in enumerate(curve, 1) if callback._evaluate_stopping_criteria(value)[0])
        end = next(ends)
        found = stop_early(curve.tolist(), patience, "max")
        assert found == Stopped(end, int(curve[:end].argmax()) + 1) == Stopped(end, end - patience)


def test_nothing_to_stop_is_refused():
    for arguments in (([], 1, "max"), ([1.0], 0, "max"), ([1.0], 1, "up")):
        with pytest.raises(ValueError):
            stop_early(*arguments)
