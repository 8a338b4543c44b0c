"""How long a network takes on a device on which only a few were ever timed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search.attributes.base import Attribute
from search.evaluation import Architecture
from search.randomness import TrialRandom, derive_seed
from search.spaces.base import SearchSpace
from search.statistics.few_shot import most_informative, predict_from_few
from search.tables.latency import LatencyTable, read_latency

_COUNTS = 0.1
"""Prior variance of what the numbers of operators explain, next to 1 of what the other devices do."""
_PAIRS = 10.0
"""Ridge penalty of pairs of choices where a source's latencies are smoothed; a network weighs 1."""
_CHOOSING = 0.3
"""Noise of a timing, on the scale of ``_COUNTS``, where networks to time are chosen."""
_NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Noises of a timing that a prediction chooses among, on the same scale. These four were tuned on devices that no table
reports; `docs/methods/few_shot_latency.md` says which."""
_LEAST = 0.5
"""No network is predicted to be faster than this share of the fastest that was timed: a line may fall below zero."""


class FewShotLatency(Attribute):
    """The predicted latency of a network on a device, from a few networks timed on it and other devices' tables.

    Latency in milliseconds is taken for a weighted sum of the other devices' latencies and of the numbers of operators
    in the network (`search.statistics.few_shot`). Of the device's own column nothing is read but the latencies of the
    networks that are timed, which are chosen before, to be informative, from a random pool of networks. None of them
    need be trained for it.

    Args:
        space: NAS-Bench-201.
        device: the one on which networks are timed; one of the table's.
        held_out: further devices whose latencies may not be used.
        samples: networks that are timed. One whose timing failed is not replaced.
        pool: networks that these are chosen from, drawn at random.
        seed: of the pool.
        table: the latencies' path (format: `search.tables.latency`), or the table itself.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: there is no such device (the nearest spelling is named), the space is another one, a number is out
            of range, or fewer than two timings succeeded.
    """

    name = "predicted latency"
    unit = "ms"
    direction = "min"

    def __init__(
        self,
        space: SearchSpace,
        device: str,
        held_out: Sequence[str] = (),
        samples: int = 10,
        pool: int = 900,
        seed: int = 0,
        table: str | LatencyTable = "nasbench201_latency.npz",
    ):
        super().__init__(space)
        table = read_latency(table, space) if isinstance(table, str) else table
        self.device, self.sources = device, other_devices(table, device, held_out)
        features = latency_features(space, table, self.sources)
        networks = networks_to_time(features, samples, pool, seed)
        timings = table.milliseconds[networks, table.devices.index(device)]  # all that is ever read of the column
        self.timed = [tuple(arch) for arch in table.archs[networks].tolist()]
        self.milliseconds = predict_latency(features, networks, timings)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A device of the table that ships."""
        return {"device": "pixel3"}

    def measure(self, architectures: Sequence[Architecture]) -> list[float]:
        """Predicted milliseconds, of networks that were timed too."""
        return self.milliseconds[self.space.code(torch.tensor(architectures))].tolist()


def other_devices(table: LatencyTable, device: str, held_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The devices whose latencies may be used for another one's.

    Raises:
        ValueError: the table lacks one of those named.
    """
    for each in (device, *held_out):
        table.check_device(each)
    return tuple(each for each in table.devices if each != device and each not in held_out)


def latency_features(space: SearchSpace, table: LatencyTable, sources: Sequence[str]) -> Tensor:
    """What latencies on a new device are made of: the sources' latencies and the numbers of operators.

    A source's latencies are smoothed first: fitted by a constant, each choice and each pair of choices. A measurement's
    noise is of that device alone, and would do harm where few timings decide how much a source counts.

    Args:
        space: of the table.
        table: the latencies.
        sources: devices of the table whose columns are read; there may be none. Only networks that were measured on all
            of them count.

    Returns:
        Float64 ``[size, sources + kinds of operators]``, each column of mean 0. A row's squared length is 1 on average
        in the sources' part, and ``_COUNTS`` in the operators'.

    Raises:
        ValueError: no two networks were measured on all sources.
    """
    return _features(space, table, tuple(sources))


@functools.lru_cache(maxsize=8)
def _features(space: SearchSpace, table: LatencyTable, sources: tuple[str, ...]) -> Tensor:
    """Once for all agents and trials of a recipe."""
    kinds = list(dict.fromkeys(choice for decision in space.decisions for choice in decision.choices))
    lookups = [torch.tensor([kinds.index(choice) for choice in decision.choices]) for decision in space.decisions]
    chosen = torch.stack([lookup[table.archs[:, t]] for t, lookup in enumerate(lookups)], dim=1)
    counts = torch.stack([(chosen == kind).sum(1) for kind in range(len(kinds))], dim=1).double()
    counts = counts - counts.mean(0)
    operators = _COUNTS**0.5 * counts / counts.square().sum(1).mean().sqrt()
    if not sources:
        return operators
    columns = table.milliseconds[:, [table.devices.index(device) for device in sources]]
    return torch.cat([_smooth(space, table.archs, columns) / len(sources) ** 0.5, operators], dim=1)


def networks_to_time(features: Tensor, samples: int = 10, pool: int = 900, seed: int = 0) -> Tensor:
    """The most informative of random networks; which they are does not depend on any timing.

    Args:
        features: float64 ``[size, k]``, see `latency_features`.
        samples: how many to time.
        pool: random networks that these are chosen from.
        seed: of the pool.

    Returns:
        Rows, int64 ``[samples]``.

    Raises:
        ValueError: a number is out of range.
    """
    if not 2 <= samples <= pool <= len(features):
        raise ValueError(f"samples is {samples} and pool {pool}: 2 <= samples <= pool <= {len(features)} is needed")
    offered = TrialRandom(derive_seed(seed, "networks to time")).permutation(len(features))[0, :pool]
    return most_informative(features, samples, offered, _CHOOSING)


def predict_latency(features: Tensor, networks: Tensor, milliseconds: Tensor) -> Tensor:
    """The latencies of all networks, from those of a few.

    Args:
        features: float64 ``[size, k]``, see `latency_features`.
        networks: rows of those that were timed, int64 ``[samples]``.
        milliseconds: float64 ``[samples]``, what that gave, NaN where it failed.

    Returns:
        Milliseconds, float64 ``[size]``, above 0.

    Raises:
        ValueError: fewer than two timings succeeded.
    """
    succeeded = ~milliseconds.isnan()
    if int(succeeded.sum()) < 2:
        raise ValueError(f"{int(succeeded.sum())} of {len(networks)} networks could be timed, at least 2 are needed")
    timings = milliseconds[succeeded]
    predicted = predict_from_few(features, networks[succeeded], timings, _NOISES)
    return predicted.clamp(min=_LEAST * float(timings.min()))


def _smooth(space: SearchSpace, archs: Tensor, columns: Tensor) -> Tensor:
    """Latencies ``[size, devices]``, NaN where not measured, as choices and pairs of them explain; standardised."""
    # Without the first choice of each decision, which the others are compared with: a third fewer columns.
    blocks = [space.one_hot(archs)[:, start + 1 : end].double() for start, end in itertools.pairwise(space.offsets)]
    pairs = [(one[:, :, None] * other[:, None]).flatten(1) for one, other in itertools.combinations(blocks, 2)]
    terms = torch.cat([torch.ones(len(archs), 1, dtype=torch.float64), *blocks, *pairs], dim=1)
    penalty = torch.full((terms.shape[1],), _PAIRS, dtype=torch.float64)
    penalty[: 1 + sum(each.shape[1] for each in blocks)] = 1e-6
    known = ~columns.isnan().any(1)
    if int(known.sum()) < 2:
        raise ValueError("no two networks were measured on all of the other devices")
    rows, latencies = terms[known], columns[known] / columns[known].mean(0)
    smooth = terms @ torch.linalg.solve(rows.T @ rows + penalty.diag(), rows.T @ latencies)
    return (smooth - smooth.mean(0)) / smooth.std(0, correction=0)
