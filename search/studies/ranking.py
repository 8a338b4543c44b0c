"""A ranking: what attributes say of many architectures, without training any, and how far the truth agrees.

How data walks: the architectures are all of the space, some drawn at random, or those of a file. Those whose networks
compute the same are one job of an executor, which measures their attributes, together where they look at the same
network; what comes back goes into the journal, and a run that was stopped measures what is not there yet. Table,
summary and report are made of the journal alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import torch

from search.attributes.base import Attribute
from search.attributes.combination import Combination
from search.attributes.network import NetworkAttribute
from search.attributes.together import measure_together
from search.errors import CatchmarkError, nearest, one_line
from search.evaluation import Architecture, Evaluation, Proposal
from search.executors.base import Executor, Say, Work
from search.executors.inline import InlineExecutor
from search.executors.processes import executor_for
from search.loop.search import Listener
from search.randomness import TrialRandom, derive_seed
from search.results.ranking import PART, ranking_in_words, summarise_ranking, write_tables
from search.runs.journal import Journal, Record
from search.spaces.base import SearchSpace
from search.studies.base import Study, built
from search.tasks.base import Task

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

ALL = "all"
_MOST = 1_000_000
"""Combinations of choices that anybody would go through one by one."""
_DRAWS = 200
"""Times that as many as are wanted are drawn before it is said that there are too few."""
_COMMIT_SECONDS = 1.0
"""Between two commits; so much is lost at most when a run is killed."""


Job = tuple[list[Architecture], list[tuple[Architecture, dict[str, float]]]]
"""Architectures to measure, and what is known of others whose networks compute the same."""


class Measuring(Work):
    """Measures the attributes of architectures, a group of them a job.

    Args:
        attributes: by name.
    """

    def __init__(self, attributes: Mapping[str, Attribute]):
        self.attributes = attributes

    def do(self, job: Job, say: Say) -> list[dict[str, float]]:
        """The values of a group, in its order."""
        architectures, known = job
        for architecture, values in known:
            for name, value in values.items():
                self.attributes[name].remember(architecture, value)
        return [measure_together(self.attributes, architecture) for architecture in architectures]

    def trainers(self) -> list[Mapping[str, Any]]:
        """None: nothing is trained."""
        return []


class Ranking(Study):
    """Ranks architectures by attributes, with no training.

    Args:
        space: of the architectures.
        attributes: what to rank by, by name.
        architectures: ``all`` of the space, how many to draw at random, or a file of architecture strings, one a line.
        truths: tasks of look-ups to compare with, by name. Where architectures are drawn, only those are that every
            truth knows.
        combinations: several attributes as one, by name, ranked among these architectures.
        order: the attribute or combination that decides which architectures are the top; the first combination, or else
            the first attribute, where empty.
        top: architectures to name.
        data: what proxies look at that name no data of their own.
        build: arguments of `SearchSpace.build_from` of attributes that name none of their own.
        device: of proxies that name none of their own; None for the CPU.
        workers: short for an executor of so many processes; 1 for this one.
        executor: where architectures are measured; in this process, one after another, if None.
        seed: of the draw. Proxies have seeds of their own.
        name: names the folder of its runs; the recipe's file name where empty.
        description: what it shows; opens the report.
    """

    unit = "architectures"

    def __init__(
        self,
        space: SearchSpace,
        attributes: dict[str, Callable[[SearchSpace], Attribute]],
        architectures: Union[int, str] = ALL,  # noqa: UP007 - jsonargparse reads it on Python 3.10
        truths: Optional[dict[str, Callable[[SearchSpace], Task]]] = None,  # noqa: UP045
        combinations: Optional[dict[str, Combination]] = None,  # noqa: UP045
        order: str = "",
        top: int = 10,
        data: Optional[LightningDataModule] = None,  # noqa: UP045
        build: Optional[dict[str, Any]] = None,  # noqa: UP045
        device: Optional[str] = None,  # noqa: UP045
        workers: int = 1,
        executor: Optional[Executor] = None,  # noqa: UP045
        seed: int = 0,
        name: str = "",
        description: str = "",
    ):
        if not attributes:
            raise CatchmarkError("attributes: at least one is needed")
        for key, value in (("top", top), ("workers", workers), ("architectures", architectures)):
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{key} is {value}, it must be at least 1")
        self.executor = executor_for(workers, executor)
        self.space, self.seed, self.name, self.description = space, seed, name, description
        self._chosen, self.top = architectures, top
        self.attributes: dict[str, Attribute] = {
            key: built(f"attributes.{key}", partial(make, space)) for key, make in attributes.items()
        }
        for attribute in self.attributes.values():
            if isinstance(attribute, NetworkAttribute):
                attribute.adopt(data=data, build=build, device=device)
        self.truths: dict[str, Task] = {
            key: built(f"truths.{key}", partial(make, space)) for key, make in (truths or {}).items()
        }
        for key, task in self.truths.items():
            if not task.instant:
                raise CatchmarkError(f"truths.{key}: a {type(task).__name__} trains; a ranking only looks up")
        self.combinations = dict(combinations or {})
        self._check_names()
        self.order = order or next(iter(self.combinations), next(iter(self.attributes)))
        if self.order not in (known := (*self.attributes, *self.combinations)):
            raise CatchmarkError(f"order: there is no '{order}'{nearest(order, known, 'known')}")

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Few architectures."""
        return {"architectures": 4, "top": 2}

    def _check_names(self) -> None:
        """A column each."""
        for key, combination in self.combinations.items():
            for name in combination.parts:
                if name not in self.attributes:
                    raise CatchmarkError(
                        f"combinations.{key}: there is no attribute '{name}'{nearest(name, self.attributes, 'known')}"
                    )
        columns = [*self.attributes, *self.combinations, *self.truths]
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise CatchmarkError(f"'{twice[0]}' names two of attributes, combinations and truths")
        if taken := [name for name in columns if name in ("arch", "space", "provenance", "architecture")]:
            raise CatchmarkError(f"the name '{taken[0]}' is taken by the table of the ranking; choose another one")

    # ---- what is ranked --------------------------------------------------------------------------------------------

    @cached_property
    def architectures(self) -> list[Architecture]:
        """What is ranked, no network twice.

        Raises:
            CatchmarkError: the space is too large to list, or has too few, or the file is no list of architectures.
        """
        if self._chosen == ALL:
            if math.prod(self.space.sizes) > _MOST:
                raise CatchmarkError(
                    f"architectures: '{self.space.name}' has too many to list, {math.prod(self.space.sizes):,} "
                    "combinations of choices; say how many to draw"
                )
            found = list(self.space.enumerate())
        elif isinstance(self._chosen, int):
            return self._drawn(self._chosen)
        else:
            found = _read_architectures(self._chosen, self.space)
        canonical = self.space.canonical(torch.tensor(found)).tolist()
        return list(dict.fromkeys(map(tuple, canonical)))

    def _drawn(self, count: int) -> list[Architecture]:
        found: dict[Architecture, None] = {}
        rng = TrialRandom(derive_seed(self.seed, PART))
        for _ in range(_DRAWS):
            drawn = self.space.canonical(self.space.sample(rng, count)[0]).tolist()
            archs = [arch for arch in dict.fromkeys(map(tuple, drawn)) if arch not in found]
            for task in self.truths.values():
                worth = self._worth(task, archs)
                archs = [arch for arch, score in zip(archs, worth, strict=True) if not math.isnan(score)]
            found |= dict.fromkeys(archs)
            if len(found) >= count:
                return list(found)[:count]
        raise CatchmarkError(f"architectures is {count}, but of many drawn only {len(found)} were different and known")

    @staticmethod
    def _worth(task: Task, architectures: Sequence[Architecture]) -> list[float]:
        return [each.score for each in task.evaluate([Proposal(arch) for arch in architectures])]

    def planned(self) -> dict[str, int]:
        """The one part, and how many architectures it has."""
        return {PART: len(self.architectures)}

    def priced_by(self, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is measured, of what."""
        return {key: recipe.get(key) for key in ("space", "attributes", "data", "build", "device")}

    # ---- running ---------------------------------------------------------------------------------------------------

    def run(self, folder: Path, journal: Journal, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
        """Measure every architecture, or go on where an earlier attempt stopped; returns the summary.

        Args:
            folder: of the run; ``ranking.csv`` and ``ranking.npz`` go there.
            journal: of the run.
            listeners: who wants to know.
        """
        journal.begin(PART)
        known = {
            record.architecture: {
                name: value for name, value in record.evaluation.attributes.items() if name in self.attributes
            }
            for record in journal.records(PART)
        }

        def tell(count: int, new: bool) -> None:
            for listener in listeners:
                listener.trained(PART, count, {}, new)

        if known:
            tell(len(known), False)
        jobs = self._jobs(known)
        step_of = {architecture: step for step, architecture in enumerate(self.architectures)}
        waiting: list[Record] = []
        since = time.monotonic()
        with self.executor or InlineExecutor() as executor:
            executor.begin_work(Measuring(self.attributes), lambda ticket, said: None)
            for number, job in enumerate(jobs):
                executor.submit((0, number), job)
            for left in range(len(jobs) - 1, -1, -1):
                (_, number), measured = executor.wait()
                for arch, values in zip(jobs[number][0], measured, strict=True):
                    waiting.append(
                        Record(step_of[arch], 0, 0, PART, Proposal(arch, self.seed), self._seen(arch, values))
                    )
                if left == 0 or time.monotonic() - since >= _COMMIT_SECONDS:
                    now = time.monotonic()
                    journal.finish_step(PART, waiting, None, finished=left == 0, seconds=now - since)
                    tell(len(waiting), True)
                    waiting, since = [], now
        if not jobs:
            journal.finish_step(PART, [], None, finished=True, seconds=0.0)
        write_tables(self, journal, folder)
        return self.summarise(journal)

    def _jobs(self, known: Mapping[Architecture, dict[str, float]]) -> list[Job]:
        """What is still to be measured, those together whose networks compute the same: proxies measure these once."""
        same = self.space.representative(torch.tensor(self.architectures)).tolist()
        groups: dict[Architecture, Job] = {}
        for architecture, representative in zip(self.architectures, map(tuple, same), strict=True):
            wanted, there = groups.setdefault(representative, ([], []))
            if architecture in known:
                there.append((architecture, known[architecture]))
            else:
                wanted.append(architecture)
        return [job for job in groups.values() if job[0]]

    def _seen(self, arch: Architecture, values: Mapping[str, float]) -> Evaluation:
        known = {name: self._worth(task, [arch])[0] for name, task in self.truths.items()}
        metrics = {name: value for name, value in known.items() if not math.isnan(value)}
        # Nothing was evaluated that could fail: what the truth does not know has a score of 0, and no metric.
        score = next(iter(metrics.values()), 0.0)
        found = {name: value for name, value in values.items() if not math.isnan(value)}
        return Evaluation(score, metrics=metrics, attributes=found)

    # ---- what came out ---------------------------------------------------------------------------------------------

    def summarise(self, journal: Journal) -> dict[str, Any]:
        """What the journal holds so far, as ``summary.json`` has it."""
        return summarise_ranking(self, journal)

    def in_words(self, summary: Mapping[str, Any]) -> str:
        """The top, and how far the truths agree, as a terminal shows it."""
        return ranking_in_words(summary)


def _read_architectures(path: str, space: SearchSpace) -> list[Architecture]:
    """The architectures of a text file, one string a line; empty lines and what is behind ``#`` do not count."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatchmarkError(
            f"architectures: '{path}' is neither 'all', nor a number, nor a file that can be read"
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            try:
                found.append(space.parse(text))
            except ValueError as error:
                raise CatchmarkError(f"architectures: line {number} of '{path}': {one_line(error)}") from error
    if not found:
        raise CatchmarkError(f"architectures: '{path}' has none")
    return found
