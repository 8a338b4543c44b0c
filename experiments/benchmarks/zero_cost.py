"""How zero-cost proxies compare with published values, with themselves, and what they cost.

    python experiments/benchmarks/zero_cost.py stored zero_cost_proxies.npz --space nasbench201 --networks 200 --again
    python experiments/benchmarks/zero_cost.py seeds --networks 100
    python experiments/benchmarks/zero_cost.py widths --networks 100
    python experiments/benchmarks/zero_cost.py az_nas RUN/ranking.npz
    python experiments/benchmarks/zero_cost.py weights zero_cost_proxies.npz --out weights.json
    python experiments/benchmarks/zero_cost.py cost --networks 20

``stored``: Spearman with what NAS-Bench-Suite-Zero (Krishnakumar et al., NeurIPS 2022) published, network by network;
and of both the median, what nine tenths lie between, and the Spearman with the number of parameters: values that hang
on the draw may disagree network by network and still be those of the same proxy.
Its weights were drawn by other generators, so proxies agree as far as two initialisations of one network do: with
``--again`` the same networks are measured with another seed, to see how far that is. Bounds: .99 without data, .90
with data. The file has ``space``, ``dataset``, ``arch``, ``columns`` and ``values``.
``seeds``: Spearman of each proxy with itself under another seed: as far as any two implementations can agree.
``widths``: Spearman of each proxy of the benchmark's networks with that of smaller ones, as a shipped table has them.
``az_nas``: Kendall's tau-b of AZ-NAS and of its four parts on a table that ``catchmark rank`` has left, with intervals
over the architectures. Published over all 15,625 cells: .741, .723, .710.
``weights``: weights of proxies, fitted on published values and accuracies of source tasks, against the sum of the
logarithms of ranks and the best single proxy, on tasks and networks that had no part in the fit.
``cost``: median milliseconds of processor time a network and proxy, alone and together, on one core, and peak memory.

What was measured is kept in a file of JSON lines, one a network (``--keep``), and is not measured again. CIFAR-10 is
``cifar10.npz`` below the current folder or ``$CATCHMARK_DATA``.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import resource
import statistics
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from datamodules.arrays import ArrayDataModule
from search.attributes.base import Attribute
from search.attributes.combination import SCALES, Combination, fit_weights, save_weights
from search.attributes.flops import Flops
from search.attributes.proxy import Proxy
from search.attributes.together import measure_together
from search.evaluation import Architecture
from search.randomness import TrialRandom
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace
from search.spaces.darts import DARTS
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201
from search.spaces.transnasbench101 import TransNASBench101Micro
from search.statistics.rank_correlation import kendall_tau, spearman

STORED = {
    "synflow": "Synflow",
    "l2_norm": "WeightNorm",
    "nwot": "Nwot",
    "jacov": "Jacov",
    "snip": "Snip",
    "grasp": "Grasp",
    "fisher": "Fisher",
    "grad_norm": "GradientNorm",
    "plain": "Plain",
}
"""The published columns, by the classes that have them here."""


class NormalisedPools(DARTS):
    """The DARTS cells as those published values are of: NASLib normalises what pooling gives, without parameters."""

    def build(self, architecture: Architecture, *options: Any, **named: Any) -> nn.Module:
        """The network, with a normalisation behind each pooling inside of its cells."""
        network = super().build(architecture, *options, **named)
        for module in list(network.modules()):
            for name, pool in list(module.named_children()):
                if isinstance(pool, (nn.MaxPool2d, nn.AvgPool2d)):
                    # Of whatever width: without statistics and parameters it does not need to know.
                    norm = nn.BatchNorm2d(1, affine=False, track_running_stats=False)
                    setattr(module, name, nn.Sequential(pool, norm))
        return network


BUILDS: dict[str, tuple[SearchSpace, dict[str, Any], str]] = {
    "nasbench201": (NASBench201(), {}, "cifar10"),
    "nasbench101": (NASBench101(), {}, "cifar10"),
    "nasbench301": (NormalisedPools(), {"channels": 32, "cells": 8}, "cifar10"),
    "transbench101_micro": (TransNASBench101Micro(), {"channels": 64, "num_classes": 100}, "class_object"),
}
"""By the name of a space in the file: ours, the arguments of `SearchSpace.build_from`, and the data set."""
PROXIES: dict[str, Any] = find_classes("search.attributes", Proxy)


def decode(space: str, text: str) -> Architecture:
    """The architecture that NAS-Bench-Suite-Zero writes so; the codes were matched by parameters and accuracies."""
    code = ast.literal_eval(text)
    if space == "nasbench201":
        return tuple((1, 0, 3, 2, 4)[code[edge]] for edge in (0, 1, 3, 2, 4, 5))
    if space == "nasbench101":
        names = {2: "maxpool3x3", 3: "conv1x1-bn-relu", 4: "conv3x3-bn-relu"}
        matrix, operations = np.reshape(code[:49], (7, 7)), code[49:]
        # They are written with vertices on no path, whose edges may be too many; the benchmark leaves those out.
        paths = np.linalg.matrix_power(matrix + np.eye(7, dtype=int), 6) > 0
        alive = paths[0] & paths[:, 6]
        matrix = matrix * np.outer(alive, alive)
        parts = []
        for vertex in range(1, 7):
            sources = ",".join(str(source) for source in range(vertex) if matrix[source, vertex])
            parts.append(f"{names[operations[vertex]] if vertex < 6 else 'output'}({sources})")
        return NASBench101().parse("|".join(parts))
    if space == "nasbench301":
        names = DARTS.decisions[1].choices
        return DARTS().from_genotype(*([(names[operation], source) for source, operation in cell] for cell in code))
    return tuple(code)


def attributes_of(
    space: SearchSpace, build: Mapping[str, Any], names: Sequence[str], seed: int = 0, batch_size: int = 32
) -> dict[str, Attribute]:
    """Proxies by the names of their classes, on CIFAR-10."""
    data = ArrayDataModule("cifar10.npz", batch_size=batch_size)
    attributes = {name: PROXIES[name](space, dict(build), seed, data=data) for name in names}
    if "Nwot" in attributes:  # NASLib's cells compute what goes nowhere
        attributes["Nwot"] = PROXIES["Nwot"](space, dict(build), seed, data=data, unused=True)
    return attributes


def measured(attributes: Mapping[str, Attribute], archs: Sequence[Architecture], keep: Path) -> list[dict[str, float]]:
    """The values of architectures; those in the file are not measured again, others go there."""
    known = {}
    if keep.is_file():
        for line in keep.read_text().splitlines():
            entry = json.loads(line)
            known[tuple(entry["arch"])] = entry["values"]
    found = []
    for number, arch in enumerate(archs):
        if arch not in known:
            known[arch] = measure_together(attributes, arch)
            with keep.open("a") as file:
                file.write(json.dumps({"arch": arch, "values": known[arch]}) + "\n")
            if number % 20 == 0:
                print(f"  {number} of {len(archs)}", flush=True)
        found.append(known[arch])
    return found


def column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """A proxy's values."""
    return np.array([row[name] for row in rows], dtype=float)


def interval(n: int, correlation: float) -> str:
    """A Spearman correlation with its 95% interval (Fisher's transformation, Bonett and Wright's variance)."""
    if abs(correlation) > 1 - 1e-12:
        return f"{correlation:.4f}"
    half = 1.96 * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    low, high = (math.tanh(math.atanh(correlation) + sign * half) for sign in (-1, 1))
    return f"{correlation:.4f} [{low:.4f}, {high:.4f}]"


def middle_of(values: np.ndarray) -> str:
    """The median of some values and what nine tenths of them lie between."""
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{median:.5g} [{low:.5g}, {high:.5g}]"


# ---- the measurements ------------------------------------------------------------------------------------------------


def stored(arguments: argparse.Namespace) -> None:
    """Against published values."""
    space, build, dataset = BUILDS[arguments.space]
    with np.load(arguments.file, allow_pickle=False) as arrays:
        rows = np.flatnonzero((arrays["space"] == arguments.space) & (arrays["dataset"] == dataset))
        rows = np.random.default_rng(0).permutation(rows)[: arguments.networks]
        archs = [decode(arguments.space, text) for text in arrays["arch"][rows].tolist()]
        columns, values = arrays["columns"].tolist(), arrays["values"][rows]
    names = {theirs: ours for theirs, ours in STORED.items() if not np.isnan(values[:, columns.index(theirs)]).all()}
    if arguments.only:
        names = {theirs: ours for theirs, ours in names.items() if theirs in arguments.only}
    attributes = attributes_of(space, build, list(names.values()))
    found = measured(attributes, archs, arguments.keep)
    again = None
    if arguments.again:
        others = attributes_of(space, build, list(names.values()), seed=1)
        again = measured(others, archs, arguments.keep.with_name(f"{arguments.keep.stem}-again.jsonl"))
    for theirs, ours in names.items():
        published, own = values[:, columns.index(theirs)], column(found, ours)
        known = ~np.isnan(published) & (published > -1e7)  # -1e8 stands for what was no number
        if known.sum() > 3:
            agreement = interval(known.sum(), spearman(published[known], own[known]))
            own_noise = ""
            if again is not None:
                own_noise = f"  another seed {interval(known.sum(), spearman(own[known], column(again, ours)[known]))}"
            sizes = values[known, columns.index("params")]
            both = [
                f"{middle_of(each[known])}, with parameters {spearman(sizes, each[known]):.2f}"
                for each in (published, own)
            ]
            print(f"{theirs:10} n {known.sum():4}  Spearman {agreement}{own_noise}")
            print(f"{'':10} published {both[0]}; here {both[1]}")


def drawn(space: SearchSpace, networks: int) -> list[Architecture]:
    """Random architectures, no two alike."""
    archs = space.sample(TrialRandom(1), 3 * networks)[0].tolist()
    return list(dict.fromkeys(map(tuple, archs)))[:networks]


def seeds(arguments: argparse.Namespace) -> None:
    """Each proxy with itself under another seed."""
    compare(arguments, {"other": ({}, 1)})


def widths(arguments: argparse.Namespace) -> None:
    """Each proxy with itself on smaller networks."""
    compare(arguments, {"one cell": ({"cells": 1}, 0), "8 channels, one cell": ({"cells": 1, "channels": 8}, 0)})


def compare(arguments: argparse.Namespace, others: Mapping[str, tuple[dict[str, Any], int]]) -> None:
    """Each proxy of the benchmark's networks with itself under other circumstances."""
    space, names = NASBench201(), arguments.only or list(PROXIES)
    archs = drawn(space, arguments.networks)
    base = measured(attributes_of(space, {}, names), archs, arguments.keep)
    for said, (build, seed) in others.items():
        keep = arguments.keep.with_name(f"{arguments.keep.stem}-{said.replace(' ', '_')}.jsonl")
        other = measured(attributes_of(space, build, names, seed), archs, keep)
        for name in names:
            one, two = column(base, name), column(other, name)
            known = ~np.isnan(one) & ~np.isnan(two)
            agreement = interval(known.sum(), spearman(one[known], two[known]))
            print(f"{said}: {name:14} n {known.sum():4}  Spearman {agreement}")


def az_nas(arguments: argparse.Namespace) -> None:
    """AZ-NAS and its parts against the three data sets."""
    from search.tables.table import find_table, read_columns

    parts = ["expressivity", "progressivity", "trainability", "flops"]
    table = read_columns(arguments.table, parts)
    space = NASBench201()
    truth_names = [f"{data}_test_acc_200ep" for data in ("cifar10", "cifar100", "imagenet16_120")]
    truth = read_columns(find_table("nasbench201.npz"), truth_names)
    place = {tuple(arch): row for row, arch in enumerate(truth.arch.tolist())}
    rows = [place[tuple(arch)] for arch in table.arch.tolist()]
    columns = {name: table.columns[name].astype(float) for name in parts}
    columns["az_nas"] = Combination(members=parts).of(columns)
    print(f"{len(rows)} architectures of {space.name}")
    for name, values in columns.items():
        taus = []
        for data in truth_names:
            worth = truth.columns[data][rows]
            tau = kendall_tau(worth, values)
            again = np.random.default_rng(0).integers(0, len(rows), (100, len(rows)))
            spread = np.std([kendall_tau(worth[k], values[k]) for k in again])
            taus.append(f"{tau:.3f} +- {1.96 * spread:.3f}")
        print(f"{name:14} {'   '.join(taus)}")


def weights(arguments: argparse.Namespace) -> None:
    """Fit weights on source tasks, and look at others."""
    names = ["synflow", "nwot", "jacov", "snip", "fisher", "grad_norm", "l2_norm", "flops", "params"]
    with np.load(arguments.file, allow_pickle=False) as arrays:
        place, values = arrays["columns"].tolist(), arrays["values"].astype(float)
        tasks = [f"{space}/{data}" for space, data in zip(arrays["space"], arrays["dataset"], strict=True)]
        # A network is a source or a target, in whatever task it comes.
        sources = np.array([zlib.crc32(text.encode()) % 2 == 0 for text in arrays["arch"].tolist()])
    values[values < -1e7] = np.nan  # -1e8 stands for what was no number

    def rows(task: str, of_sources: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
        chosen = np.flatnonzero((np.array(tasks) == task) & (sources == of_sources))
        return {name: values[chosen, place.index(name)] for name in names}, values[chosen, place.index("val_accuracy")]

    fitted_on = ["nasbench201/cifar100", "nasbench201/ImageNet16-120"]
    for scale in SCALES:
        found = fit_weights([rows(task, True) for task in fitted_on], scale)
        save_weights(arguments.out.with_stem(f"{arguments.out.stem}_{scale}"), found, scale, fitted_on)
        print(f"{scale}: {found}")
        for task in ("nasbench201/cifar10", *fitted_on, "nasbench301/cifar10", "transbench101_micro/class_object"):
            columns, truth = rows(task, False)
            taus = {
                "fitted": kendall_tau(truth, Combination(weights=found, scale=scale).of(columns)),
                "log ranks": kendall_tau(truth, Combination(members=names).of(columns)),
                "nwot + synflow": kendall_tau(truth, Combination(members=["nwot", "synflow"]).of(columns)),
                **{name: kendall_tau(truth, columns[name]) for name in ("nwot", "synflow", "flops")},
            }
            said = ", ".join(f"{name} {tau:.3f}" for name, tau in taus.items())
            print(f"  {task} (n {len(truth)}): {said}")


def cost(arguments: argparse.Namespace) -> None:
    """Milliseconds of processor time a network, on one core, and the peak of memory."""
    torch.set_num_threads(1)
    space, names = NASBench201(), arguments.only or list(PROXIES)
    archs = [*drawn(space, arguments.networks)]
    attributes = attributes_of(space, {}, names)
    for attribute in attributes.values():
        attribute.batch(1)  # type: ignore[attr-defined] - read before anything is timed
    Flops(space).values(torch.tensor(archs[0]))
    taken: dict[str, list[float]] = {}
    for arch in archs:
        for name in names:
            began = time.process_time()
            next(iter(attributes[name].measure([arch])))
            taken.setdefault(name, []).append(1e3 * (time.process_time() - began))
        began = time.process_time()
        measure_together(attributes, arch)
        taken.setdefault("all together", []).append(1e3 * (time.process_time() - began))
    for name, each in taken.items():
        print(f"{name:14} median {statistics.median(each):7.0f} ms, from {min(each):.0f} to {max(each):.0f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, CIFAR-10 included")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(required=True)
    for function in (stored, seeds, widths, az_nas, weights, cost):
        mode = modes.add_parser(function.__name__, help=function.__doc__)
        mode.set_defaults(function=function)
        if function is stored:
            mode.add_argument("file", type=Path)
            mode.add_argument("--space", choices=BUILDS, default="nasbench201")
            mode.add_argument("--again", action="store_true")
        if function is weights:
            mode.add_argument("file", type=Path)
            mode.add_argument("--out", type=Path, default=Path("weights.json"))
        if function is az_nas:
            mode.add_argument("table", type=Path)
        mode.add_argument("--networks", type=int, default=100)
        mode.add_argument("--only", nargs="*", help="proxies")
        mode.add_argument("--keep", type=Path, default=Path(f"zero_cost_{function.__name__}.jsonl"))
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
