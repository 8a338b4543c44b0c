"""FBNet's claim: are networks that were searched for a device faster there, at equal accuracy, than others?

    catchmark run experiments/fbnet/devices_reduced.yaml --runs runs
    python experiments/benchmarks/fbnet_devices.py runs/devices_reduced/latest [more runs, of other seeds]

Reads what the runs have in their journals and trains nothing; their data must be where they were. For each method it
prints the latency on each device, and the stand-alone accuracy, of the most accurate network that a search found
("train several, keep the best") and, as a mean, of all that it found: over all trials of all runs, with the standard
deviation over them. Random search stands beside: of the networks that were measured, which cost about as much to train
as a search, the most accurate one that is no slower on the device than what was searched for it. Whether the claim
holds is said pair by pair.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from search.attributes.fbnet_latency import FBNetLatency
from search.evaluation import Architecture
from search.recipes.recipe import load_recipe
from search.recipes.trust import granted
from search.results.found_networks import found_and_drawn
from search.runs.journal import Record
from search.spaces.base import SearchSpace
from search.studies.supernet_study import SupernetStudy

DEVICES = ("pixel3", "raspi4", "fpga", "eyeriss")
"""Those whose latencies are exact in the table that ships."""


@dataclass(frozen=True)
class Network:
    """A network that was trained alone.

    Attributes:
        architecture: of the space.
        accuracy: its stand-alone score.
        latencies: milliseconds by device.
    """

    architecture: Architecture
    accuracy: float
    latencies: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """One trial of one run.

    Attributes:
        found: what each method found, best first by itself.
        drawn: random networks.
        seconds: of each method's search, and of the training of a random network.
    """

    found: dict[str, list[Network]]
    drawn: list[Network]
    seconds: dict[str, float]

    def best(self, method: str) -> Network:
        """The most accurate of what a method found."""
        return max(self.found[method], key=lambda network: network.accuracy)


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    trials = [trial for run in parser.parse_args().runs for trial in trials_of(run)]
    methods = list(trials[0].found)
    print(f"{len(trials)} trials; milliseconds and accuracy (%), mean ± standard deviation over trials")
    print("\n| searched for | " + " | ".join(f"on {device}" for device in DEVICES) + " | accuracy |")
    print("|---|" + "---|" * (len(DEVICES) + 1))
    for method in methods:
        print(_row(f"{method}, best", [[trial.best(method)] for trial in trials]))
        print(_row(f"{method}, all found", [trial.found[method] for trial in trials]))
    for device in (each for each in methods if each in DEVICES):
        print(_row(f"random, no slower on {device}", [_rival(trial, device) for trial in trials]))
    print(_row("random, all", [trial.drawn for trial in trials]))
    print()
    for device, other in itertools.product((each for each in methods if each in DEVICES), methods):
        if device != other:
            _compare(trials, device, other)
    for name in trials[0].seconds:
        print(f"seconds, {name}: {_spread([trial.seconds[name] for trial in trials])}")


def trials_of(run: Path) -> list[Trial]:
    """What a run has: as many of its trials as are finished."""
    study, _ = load_recipe(run / "config.yaml", trust=granted())
    assert isinstance(study, SupernetStudy), f"{run} is not a run of a SupernetStudy"
    found, alone = found_and_drawn(run, study)
    return [_trial(study, alone, found, trial) for trial in range(study.trials)]


def _trial(study: SupernetStudy, alone: Sequence[Record], found: dict[str, list[Record]], trial: int) -> Trial:
    own = {name: [each for each in records if each.trial == trial] for name, records in found.items()}
    drawn = [each for each in alone if each.trial == trial]
    seconds = {
        name: records[0].evaluation.metrics["training"] + records[0].evaluation.metrics["choosing"]
        for name, records in own.items()
    }
    seconds["training a random network"] = statistics.mean(each.evaluation.cost_seconds for each in drawn)
    return Trial(
        {
            name: _networks(
                study.space, [(each.architecture, each.evaluation.metrics["stand_alone"]) for each in records]
            )
            for name, records in own.items()
        },
        _networks(study.space, [(each.architecture, each.evaluation.score) for each in drawn]),
        seconds,
    )


def _networks(space: SearchSpace, scored: Sequence[tuple[Architecture, float]]) -> list[Network]:
    archs = torch.tensor([architecture for architecture, _ in scored])
    latencies = {device: FBNetLatency(space, device).values(archs).tolist() for device in DEVICES}
    return [
        Network(architecture, accuracy, {device: values[k] for device, values in latencies.items()})
        for k, (architecture, accuracy) in enumerate(scored)
    ]


def _rival(trial: Trial, device: str) -> list[Network]:
    """The most accurate random network that is no slower on a device than what was searched for it; perhaps none."""
    most = trial.best(device).latencies[device]
    fast = [network for network in trial.drawn if network.latencies[device] <= most]
    return sorted(fast, key=lambda network: -network.accuracy)[:1]


def _row(label: str, by_trial: Sequence[Sequence[Network]]) -> str:
    there = [networks for networks in by_trial if networks]
    label += "" if len(there) == len(by_trial) else f" ({len(there)} of {len(by_trial)} trials have one)"
    columns = [[statistics.mean(each.latencies[device] for each in group) for group in there] for device in DEVICES]
    columns.append([statistics.mean(each.accuracy for each in group) for group in there])
    return f"| {label} | " + " | ".join(map(_spread, columns)) + " |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def _compare(trials: Sequence[Trial], device: str, other: str) -> None:
    """Say whether what was searched for a device is faster there than what was searched for something else."""
    pairs = [(trial.best(device), trial.best(other)) for trial in trials]
    faster = sum(one.latencies[device] < two.latencies[device] for one, two in pairs)
    shares = [one.latencies[device] / two.latencies[device] for one, two in pairs]
    differences = [one.accuracy - two.accuracy for one, two in pairs]
    print(
        f"on {device}, searched for it and not for {other}: faster in {faster} of {len(pairs)} trials, latency x "
        f"{_spread(shares)}, accuracy {_spread(differences)} points higher"
    )


if __name__ == "__main__":
    main()
