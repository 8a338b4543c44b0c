"""How well latencies on a device are predicted from 10 networks timed on it.

    python experiments/benchmarks/few_shot_latency.py [--table nasbench201_latency.npz] [--samples 10] [--draws 10]
        [--devices titan_rtx_256 ...] [--figures FOLDER]

The six devices and the sources are those of HELP (Lee et al., NeurIPS 2021, Table 3; its repository names them). What
is printed is Spearman's rank correlation over all networks of NAS-Bench-201 that were not timed, mean and standard
deviation over draws of the networks to time; below it, as HELP's code has it, over 1,000 random networks without the
fastest and the slowest tenth, which is harder.

HELP sees 900 networks of each source. Here a row of its own has that; the others have the sources' whole tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from search.attributes.few_shot_latency import latency_features, networks_to_time, predict_latency
from search.randomness import TrialRandom, derive_seed
from search.reports.ranking_plots import agreement_svg
from search.reports.svg import kept_in
from search.spaces.nasbench201 import NASBench201
from search.tables.latency import LatencyTable, read_latency
from search.tables.table import find_table

TARGETS = ("titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga")
"""HELP's unseen devices."""
TRAINING = (
    "1080ti_1",
    "1080ti_32",
    "1080ti_256",
    "silver_4114",
    "silver_4210r",
    "samsung_a50",
    "pixel3",
    "essential_ph_1",
    "samsung_s7",
)
"""HELP's devices for meta-training."""
VALIDATION = ("titanx_1", "titanx_32", "titanx_256", "gold_6240")
"""HELP's devices for choosing a checkpoint."""
NETWORKS = 900
"""HELP's networks of a source."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="nasbench201_latency.npz")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--pool", type=int, default=900)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--devices", nargs="+", default=list(TARGETS))
    parser.add_argument("--figures", type=Path, help="a folder for a figure as SVG and PDF, of the thousand's middle")
    chosen = parser.parse_args()
    space = NASBench201()
    table = read_latency(chosen.table, space)
    print(f"{'sources':34} {'timed':12}", *(f"{device:>15}" for device in chosen.devices), f"{'mean':>15}")
    flops, nothing = _flops(space), torch.zeros(0, dtype=torch.long)
    found = np.array(
        [[_correlations(flops, table.of(device), nothing, draw) for device in chosen.devices] for draw in range(10)]
    )
    _print("FLOPs", "", found)
    means = {"FLOPs, without timings": found[..., 1].mean(0)}
    for label, sources, known, informative in _rows():
        seen = table if known is None else _only(table, known)
        found = np.zeros((chosen.draws, len(chosen.devices), 2))
        features: dict[Sequence[str], Tensor] = {}
        for at, device in enumerate(chosen.devices):
            names = _without_twins(table, device, sources) if isinstance(sources, float) else sources
            if names not in features:
                features[names] = latency_features(space, seen, names)
            column = table.of(device)
            for draw in range(chosen.draws):
                pool = chosen.pool if informative else chosen.samples
                networks = networks_to_time(features[names], chosen.samples, pool, draw)
                predicted = predict_latency(features[names], networks, column[networks])
                found[draw, at] = _correlations(predicted, column, networks, draw)
        counts = sorted({len(names) for names in features})
        count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        how = "informative" if informative else "random"
        _print(f"{label}: {count}", how, found)
        means[label if informative else f"{label} (random)"] = found[..., 1].mean(0)
    if chosen.figures is not None:
        with kept_in(chosen.figures):
            rankings = {name: dict(zip(chosen.devices, map(float, each), strict=True)) for name, each in means.items()}
            agreement_svg(rankings, chosen.devices, "Spearman's correlation with the measured latency")


def _print(label: str, how: str, found: np.ndarray) -> None:
    """A row for all networks and one for the middle of a thousand; ``found`` is ``[draws, devices, 2]``."""
    for place, of in enumerate(("", "  middle")):
        cells = [*found[..., place].T, found[..., place].mean(1)]
        print(f"{of or label:34} {how:12}", *(f"{cell.mean():8.3f} ±{cell.std(ddof=1):.3f}" for cell in cells))


def _rows() -> list[tuple[str, Sequence[str] | float, int | None, bool]]:
    """Label, sources (or the Spearman correlation above which one is a twin), networks of a source, how to choose."""
    return [
        ("HELP's", TRAINING + VALIDATION, None, True),
        ("HELP's", TRAINING + VALIDATION, None, False),
        ("HELP's, 900 networks of each", TRAINING + VALIDATION, NETWORKS, True),
        ("HELP's, 900 networks of each", TRAINING + VALIDATION, NETWORKS, False),
        ("HELP's for training", TRAINING, None, True),
        ("no twin, that is none above .98", 0.98, None, True),
        ("none above .95", 0.95, None, True),
        ("none above .90", 0.90, None, True),
        ("no source", (), None, True),
    ]


def _flops(space: NASBench201) -> Tensor:
    """Of every network, as NAS-Bench-201 has them."""
    with np.load(find_table("nasbench201.npz"), allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["flops_m"])[space.indices_by_code]


def _without_twins(table: LatencyTable, device: str, most: float) -> tuple[str, ...]:
    """Every device but the six, but for those that rank networks as this one does."""
    others = [each for each in table.devices if each != device and each not in TARGETS]
    return tuple(each for each in others if _spearman(table.of(each), table.of(device)) <= most)


def _only(table: LatencyTable, networks: int) -> LatencyTable:
    """The table as if so many random networks had been measured."""
    measured = (~table.milliseconds.isnan()).all(1).nonzero()[:, 0]
    order = TrialRandom(derive_seed(0, "networks of the sources")).permutation(len(measured))[0]
    known = torch.full_like(table.milliseconds, torch.nan)
    kept = measured[order[:networks]]
    known[kept] = table.milliseconds[kept]
    return replace(table, milliseconds=known)


def _correlations(predicted: Tensor, column: Tensor, networks: Tensor, draw: int) -> tuple[float, float]:
    """Over all networks that were not timed, and over the middle of 1,000 of them."""
    rest = torch.ones(len(column), dtype=torch.bool)
    rest[networks] = False
    rest = (rest & ~column.isnan()).nonzero()[:, 0]
    asked = rest[TrialRandom(derive_seed(draw, "queries")).permutation(len(rest))[0, :1000]]
    middle = asked[column[asked].argsort()[100:900]]
    return _spearman(predicted[rest], column[rest]), _spearman(predicted[middle], column[middle])


def _spearman(one: Tensor, other: Tensor) -> float:
    both = ~(one.isnan() | other.isnan())
    return float(spearmanr(one[both].numpy(), other[both].numpy()).statistic)


if __name__ == "__main__":
    main()
