"""How repeatable a measured latency is, and how well a sum over operators ranks networks.

    python experiments/benchmarks/latency.py [--space ResidualBackbone] [--build width=1 ...] [--device cpu]
        [--threads 1] [--batch 1] [--resolution 224] [--precision float32] [--networks 50] [--sweeps 3]
        [--repetitions 10]

Repeatability: one architecture is measured as often as ``--repetitions`` says, freshly built each time; the spread is
what lies between the slowest and the fastest measurement. The aim is less than 10 % on an idle machine.

Look-up: random architectures are measured as a whole and estimated from a table of operators. The overhead is fitted to
``--calibration`` further architectures. What is measured is the median of ``--sweeps`` over all networks; how well the
first sweep ranks the last one's is the most that an estimate can reach. The aim is a rank correlation of 0.9.

A machine that is busy with something else answers neither question.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import torch
import yaml
from scipy.stats import kendalltau, spearmanr
from torch import nn

from lightning_modules.networks.cost.latency import LatencySettings, hardware_name, measure_latency
from lightning_modules.networks.cost.operator_latency import OperatorLatencies
from search.recipes.classes import find_class
from search.spaces.base import SearchSpace


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="ResidualBackbone")
    parser.add_argument("--build", nargs="*", default=[], metavar="KEY=VALUE", help="arguments of the space's build")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--resolution", type=int, nargs="+", default=[224])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--calibration", type=int, default=5)
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--lookup", help="where to keep the table of operators")
    chosen = parser.parse_args()
    settings = LatencySettings(
        batch=chosen.batch,
        resolution=chosen.resolution,
        device=chosen.device,
        threads=chosen.threads,
        precision=chosen.precision,
        repeats=chosen.repeats,
        rounds=chosen.rounds,
    )
    settings.check_device()
    space = find_class(chosen.space, SearchSpace, "--space")()
    build = {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in chosen.build)}
    busy = f"{os.getloadavg()[0]:.1f} processes were running on {os.cpu_count()} cores" if os.name == "posix" else ""
    print(f"{hardware_name(torch.device(settings.device))}; {settings.described()}; {space.name}; {busy}", flush=True)

    def network(number: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return space.build_from(space.draw("latency benchmark", number), build)

    _repeatability(network(0), settings, chosen.repetitions)
    _look_up(
        [network(1 + k) for k in range(chosen.calibration)],
        [network(1 + chosen.calibration + k) for k in range(chosen.networks)],
        settings,
        chosen.sweeps,
        chosen.lookup,
    )


def _repeatability(network: nn.Module, settings: LatencySettings, repetitions: int) -> None:
    found = [measure_latency(network, settings) for _ in range(repetitions)]
    times = [latency.milliseconds for latency in found]
    middle = statistics.median(times)
    print(f"\none network, measured {repetitions} times: ms {' '.join(f'{each:.2f}' for each in times)}")
    print(
        f"median {middle:.2f} ms, from {min(times):.2f} to {max(times):.2f}: spread "
        f"{100 * (max(times) - min(times)) / middle:.1f} %, standard deviation "
        f"{100 * float(np.std(times, ddof=1)) / middle:.1f} %; rounds of one measurement spread "
        f"{100 * statistics.median(latency.spread for latency in found):.1f} %",
        flush=True,
    )


def _look_up(
    calibration: list[nn.Module], networks: list[nn.Module], settings: LatencySettings, sweeps: int, path: str | None
) -> None:
    table = OperatorLatencies(settings)
    began = time.perf_counter()
    for network in [*calibration, *networks]:
        table.measure(network)
    seconds = time.perf_counter() - began
    print(f"\n{len(table.milliseconds)} operators of {len(calibration) + len(networks)} networks in {seconds:.0f} s")
    began = time.perf_counter()
    swept = np.array([[measure_latency(each, settings).milliseconds for each in networks] for _ in range(sweeps)])
    seconds = (time.perf_counter() - began) / swept.size
    measured = np.median(swept, axis=0)
    plain = np.array([table.estimate(network) for network in networks])
    table.calibrate((network, measure_latency(network, settings).milliseconds) for network in calibration)
    began = time.perf_counter()
    fitted = np.array([table.estimate(network) for network in networks])
    look_up = (time.perf_counter() - began) / len(networks)
    print(f"{len(networks)} networks, {measured.min():.2f} to {measured.max():.2f} ms measured")
    print(f"seconds a network: {seconds:.2f} measured, {look_up:.3f} looked up")
    for label, estimate in (
        ("last sweep against the first", swept[-1]),
        ("sum", plain),
        (f"sum + {1e3 * table.overhead:.1f} us an operator", fitted),
    ):
        truth = swept[0] if label == "last sweep against the first" else measured
        error = np.abs(estimate / truth - 1)
        print(
            f"{label:32} Spearman {spearmanr(estimate, truth).statistic:.4f}  Kendall "
            f"{kendalltau(estimate, truth).statistic:.4f}  median error {100 * np.median(error):.1f} %, largest "
            f"{100 * error.max():.1f} %",
            flush=True,
        )
    if path:
        table.save(path)


if __name__ == "__main__":
    main()
