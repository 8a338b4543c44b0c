"""Predicted latencies: what is read, what is known, and how good they are on real devices."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr

from search.attributes.few_shot_latency import (
    FewShotLatency,
    latency_features,
    networks_to_time,
    other_devices,
    predict_latency,
)
from search.tables.latency import LatencyTable, read_latency
from tests.search.tables.latency_tables import SPACE

REAL = read_latency("nasbench201_latency.npz", SPACE)
HELP_SOURCES = (
    *("1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "samsung_a50", "pixel3"),
    *("essential_ph_1", "samsung_s7", "titanx_1", "titanx_32", "titanx_256", "gold_6240"),
)


def correlation(one, other):
    both = ~(one.isnan() | other.isnan())
    return spearmanr(one[both], other[both]).statistic


def made_up(**columns):
    return LatencyTable(REAL.path, REAL.archs, tuple(columns), torch.stack(list(columns.values()), dim=1))


def with_column(table, device, column):
    changed = table.milliseconds.clone()
    changed[:, table.devices.index(device)] = column
    return replace(table, milliseconds=changed)


def test_reads_nothing_of_the_device_but_what_it_times():
    whole = FewShotLatency(SPACE, "fpga", samples=10, seed=3, table=REAL)
    timed = SPACE.code(torch.tensor(whole.timed))
    assert len(set(whole.timed)) == 10
    for filler in (torch.nan, 1e6):
        column = torch.full((len(REAL.archs),), filler, dtype=torch.float64)
        column[timed] = REAL.of("fpga")[timed]
        other = FewShotLatency(SPACE, "fpga", samples=10, seed=3, table=with_column(REAL, "fpga", column))
        assert other.timed == whole.timed and torch.equal(other.milliseconds, whole.milliseconds)
    column[timed[4]] *= 2
    other = FewShotLatency(SPACE, "fpga", samples=10, seed=3, table=with_column(REAL, "fpga", column))
    assert other.timed == whole.timed and not torch.equal(other.milliseconds, whole.milliseconds)


def test_reads_nothing_of_devices_that_are_held_out():
    held_out = [device for device in REAL.devices if device not in ("fpga", "pixel2", "titanx_1")]
    whole, blank = FewShotLatency(SPACE, "fpga", held_out, table=REAL), REAL
    for device in held_out:
        blank = with_column(blank, device, torch.nan)
    assert whole.sources == ("pixel2", "titanx_1")
    assert torch.equal(FewShotLatency(SPACE, "fpga", held_out, table=blank).milliseconds, whole.milliseconds)


def test_another_seed_times_other_networks():
    features = latency_features(SPACE, REAL, ("titanx_1",))
    draws = {tuple(networks_to_time(features, seed=seed).tolist()) for seed in (0, 0, 1, 2)}
    assert len(draws) == 3


def test_operators_alone_tell_the_latency_of_a_device_that_adds_them_up():
    cost = torch.tensor([0.0, 0.1, 0.5, 1.5, 0.3], dtype=torch.float64)
    names = [decision.choices for decision in SPACE.decisions]
    assert len(set(names)) == 1  # the same operators on every edge
    latency = 2 + cost[REAL.archs].sum(1)
    predicted = FewShotLatency(SPACE, "new", table=made_up(new=latency)).milliseconds
    assert ((predicted - latency).abs() < 0.05 * latency).all()


def test_a_source_tells_what_operators_alone_do_not():
    """The new device is three times an old one, where a convolution costs more behind another one."""
    convolutions = (REAL.archs >= 2) & (REAL.archs <= 3)
    latency = 2 + convolutions.sum(1) + 4.0 * (convolutions[:, 0] & convolutions[:, 2]) + 2.0 * convolutions[:, 5]
    noise = torch.randn(len(latency), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = made_up(new=3 * latency, old=latency + 0.3 * noise)
    found = FewShotLatency(SPACE, "new", table=table)
    alone = FewShotLatency(SPACE, "new", held_out=["old"], table=table)
    assert found.sources == ("old",) and alone.sources == ()
    # Better than the noisy source itself, and than without it.
    assert correlation(found.milliseconds, latency) > max(0.99, correlation(table.of("old"), latency))
    assert correlation(alone.milliseconds, latency) < 0.97


def test_failed_timings_are_left_out():
    features, column = latency_features(SPACE, REAL, ("titanx_1",)), REAL.of("pixel2")
    networks = networks_to_time(features)
    timings = column[networks]
    timings[[2, 5]] = torch.nan
    kept = [0, 1, 3, 4, 6, 7, 8, 9]
    expected = predict_latency(features, networks[kept], timings[kept])
    assert torch.equal(predict_latency(features, networks, timings), expected) and (expected > 0).all()
    with pytest.raises(ValueError, match="1 of 10 networks could be timed"):
        predict_latency(features, networks, torch.where(torch.arange(10) == 3, timings, torch.nan))


def test_ranks_networks_on_devices_it_has_not_seen():
    """HELP's sources and unseen devices; HELP's mean is .932."""
    features = latency_features(SPACE, REAL, HELP_SOURCES)
    networks = networks_to_time(features, seed=100)
    found = {
        device: correlation(predict_latency(features, networks, REAL.of(device)[networks]), REAL.of(device))
        for device in ("titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga")
    }
    assert sum(found.values()) / 6 > 0.95 and min(found.values()) > 0.8


def test_refuses_what_can_not_be():
    with pytest.raises(ValueError, match=r"no device 'pixel33'.*pixel3"):
        FewShotLatency(SPACE, "pixel33", table=REAL)
    with pytest.raises(ValueError, match="no device 'pixel4'"):
        other_devices(REAL, "pixel3", ["pixel4"])
    with pytest.raises(ValueError, match="samples is 1 and pool 900"):
        FewShotLatency(SPACE, "pixel3", samples=1, table=REAL)
    with pytest.raises(ValueError, match="no two networks were measured on all"):
        latency_features(SPACE, with_column(REAL, "fpga", torch.nan), ("fpga", "pixel3"))
