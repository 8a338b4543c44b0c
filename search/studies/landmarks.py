"""Choosing landmark architectures: those whose stand-alone performance guides a supernet."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from search.attributes.base import Attribute
from search.attributes.combination import rank_scores
from search.attributes.combined_ranks import oriented_columns
from search.attributes.together import measure_together
from search.errors import CatchmarkError, one_line
from search.evaluation import Architecture
from search.randomness import TrialRandom, derive_seed
from search.spaces.base import SearchSpace

_TRIES = 500
"""Mutations of one landmark before it is kept as it is (Landmark Regularization's public code)."""
_IN_VAIN = 500
"""Diverse landmarks in a row that were of no use, after which there are said to be no more."""


@dataclass(frozen=True)
class LandmarkChoice:
    """Which landmarks a supernet is given, and when.

    Attributes:
        count: at the start.
        how: ``random``, or ``hamming``, diverse by Algorithm 1.
        tau: of ``hamming``: landmarks differ from the first one in more than so many decisions.
        iterations: T; after each but the last, the best architectures by the supernet are trained and become landmarks.
        added: landmarks that an iteration adds.
        worth: what orders landmarks: ``trained``, the study's ground truth; or ``attributes``, those of the study:
            nothing is trained, and pairs count that all attributes order alike (RD-NAS, Dong et al., ICASSP 2023).
        file: a CSV file of landmarks that are trained already, with the columns ``architecture`` (the space's string)
            and ``worth``, higher is better; takes the place of ``count``, ``how`` and training.
    """

    count: int = 30
    how: Literal["random", "hamming"] = "random"
    tau: int = 4
    iterations: int = 1
    added: int = 10
    worth: Literal["trained", "attributes"] = "trained"
    file: str | None = None

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"count": 4, "added": 2, "iterations": 2}

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if self.count < 2 or self.iterations < 1 or self.added < 1 or self.tau < 0:
            raise ValueError(
                f"count is {self.count} (at least 2), iterations {self.iterations}, added {self.added} (at least 1), "
                f"tau {self.tau} (at least 0)"
            )
        if self.worth not in ("trained", "attributes"):
            raise ValueError(f"worth is '{self.worth}', allowed: trained, attributes")
        if self.worth == "attributes" and (self.iterations > 1 or self.file):
            raise ValueError(
                "worth is 'attributes': neither a file of trained landmarks nor iterations that train go with it"
            )

    def draw(self, space: SearchSpace, *seed: int | str, known: Tensor | None = None) -> Iterator[Architecture]:
        """Landmarks one after another, no two of one network; whoever wants more gets the same first ones.

        Args:
            space: of the landmarks.
            *seed: of the draws.
            known: int64 ``[n, decisions]``, the architectures whose worth is known at all; None for all of the space.
        """
        if self.how == "random":
            return random_landmarks(space, *seed, known=known)
        return hamming_landmarks(space, self.tau, *seed, known=known)


def opinions_of(attributes: Mapping[str, Attribute], architectures: Sequence[Architecture]) -> list[tuple[float, ...]]:
    """What attributes say of landmarks: for each a number an attribute, the normal quantile of its rank among them."""
    rows = [measure_together(attributes, architecture) for architecture in architectures]
    columns = oriented_columns(attributes, rows).values()
    ranks = np.stack([rank_scores(column, scale="normal") for column in columns], axis=1)
    return list(map(tuple, ranks.tolist()))


def random_landmarks(space: SearchSpace, *seed: int | str, known: Tensor | None = None) -> Iterator[Architecture]:
    """Landmarks drawn at random, of different networks; arguments as for `LandmarkChoice.draw`."""
    return space.draw_distinct(*seed, "landmark", among=known)


def hamming_landmarks(
    space: SearchSpace, tau: int, *seed: int | str, known: Tensor | None = None
) -> Iterator[Architecture]:
    """Diverse landmarks (Landmark Regularization, Algorithm 1; details of the public code), of different networks.

    A random root, and others that come about by changing one random decision of it after another until the Hamming
    distance from the root exceeds ``tau``. A landmark that does not get there in 500 changes is kept all the same.

    Args:
        space: of the landmarks.
        tau: the distance to exceed, 0 or more.
        *seed: of the draws.
        known: as for `LandmarkChoice.draw`; a landmark that is not among these is not kept.

    Raises:
        ValueError: no two architectures differ in so many decisions.
    """
    if tau >= len(space.decisions):
        raise ValueError(f"tau is {tau}, but no two architectures differ in more than {len(space.decisions)} decisions")
    return _hamming_landmarks(space, tau, *seed, known=known)


def _hamming_landmarks(space: SearchSpace, tau: int, *seed: int | str, known: Tensor | None) -> Iterator[Architecture]:
    if known is None:
        root, allowed = space.draw(*seed, "root"), None
    else:
        root = next(space.draw_distinct(*seed, "root", among=known))
        allowed = set(map(tuple, space.canonical(known).tolist()))
    yield root
    taken = {space.canonical_of(root)}
    rng = TrialRandom(derive_seed(*seed, "mutations"))
    anchor = torch.tensor(root).view(1, 1, -1)
    in_vain = 0
    while in_vain < _IN_VAIN:
        arch, in_vain = anchor, in_vain + 1
        for _ in range(_TRIES):
            arch = space.mutate(arch, rng)
            if int(space.distance(arch, anchor)) > tau:
                break
        found = tuple(arch[0, 0].tolist())
        network = space.canonical_of(found)
        if network not in taken and (allowed is None or network in allowed):
            taken.add(network)
            in_vain = 0
            yield found


def read_landmarks(path: str | Path, space: SearchSpace) -> tuple[list[Architecture], list[float]]:
    """Landmarks that a user has trained already.

    Args:
        path: a CSV file with the columns ``architecture`` and ``worth``.
        space: of the architectures.

    Raises:
        CatchmarkError: there is no such file, or a line of it can't be read.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise CatchmarkError(f"landmarks.file: '{path}' can't be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CatchmarkError(
            f"landmarks.file: '{path}' can't be read (not a text file of comma-separated values)"
        ) from error
    archs, worth = [], []
    for number, row in enumerate(rows, start=2):
        try:
            archs.append(space.parse(row["architecture"].strip()))
            worth.append(float(row["worth"]))
            if not math.isfinite(worth[-1]):
                raise ValueError(f"worth is {worth[-1]}")
            if archs[-1] in archs[:-1]:
                raise ValueError("the architecture was named before")
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise CatchmarkError(
                f"landmarks.file: line {number} of '{path}' is not 'architecture,worth': {one_line(error)}"
            ) from error
    if len(archs) < 2:
        raise CatchmarkError(f"landmarks.file: '{path}' has {len(archs)} landmarks, at least 2 are needed")
    return archs, worth
