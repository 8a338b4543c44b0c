"""A study of supernets: how well several ways to train one rank architectures.

How data walks: a trial draws landmarks and the architectures to measure, and asks the ground truth what they are worth
(`stand_alone` in the journal). Every method then trains a supernet (`search.studies.supernet_training`), in this
process or in several; what it measured goes into the journal as evaluations of those architectures. Summary and report
are made of the journal alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import torch

from datamodules.protocols import SupernetData
from lightning_modules.objectives.base import Objective
from lightning_modules.objectives.classification import ClassificationObjective
from lightning_modules.supernet_settings import SupernetSettings
from search.attributes.base import Attribute
from search.errors import CatchmarkError
from search.evaluation import Proposal
from search.executors.base import Executor, Ticket
from search.executors.inline import InlineExecutor, evaluate_all
from search.executors.processes import executor_for
from search.loop.search import Listener
from search.randomness import derive_seed
from search.results.search import for_json
from search.runs.journal import Journal, Record
from search.spaces.base import SearchSpace
from search.statistics.rank_correlation import CIFAR_BIN
from search.studies.base import Study, built
from search.studies.ground_truth import GroundTruth, landmark_stage
from search.studies.supernet_job import MEASURED, Job, Landmarks, Outcome, checkpoint_of
from search.studies.supernet_records import records_of
from search.studies.supernet_training import Method, SupernetTraining, SupernetWork
from search.tasks.base import Task, all_parts
from search.training.trainer_arguments import TINY_TRAINER

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


class SupernetStudy(Study):
    """How well supernets rank architectures, against their stand-alone performance.

    Args:
        space: of the supernet.
        truth: the task whose score is stand-alone performance: a table, or real training.
        data: what the supernet learns from, in parts: a `datamodules.three_parts.ThreePartsDataModule`.
        methods: ways to train it, by name.
        settings: of the shared weights, where a method has none of its own.
        build: arguments of ``space.build_supernet`` besides those that the data decide.
        affine: whether normalisation learns a scale and a shift.
        objective: what to learn and to rank by; None for classification.
        measured: architectures whose ranking is measured; landmarks are never among them.
        measurements: times that it is measured, evenly spread, the last one at the end.
        threshold: width of S-KdT's bins.
        calibration: batches to recalibrate normalisation on before an architecture is evaluated; 0 for the statistics
            of each batch.
        share_warmups: train what methods have in common before their landmarks once, and go on from there. The result
            is the same, for nothing before depends on landmarks.
        trials: independent repetitions, each with its own landmarks and measured architectures.
        seed: of everything.
        workers: short for an executor of so many processes; 1 for this one.
        threads: of the CPU for a training; None for as many as torch uses.
        channels_last: lay images out pixel by pixel: faster from 8 channels on.
        trainer: further arguments of Lightning's Trainer; with ``strategy: ddp`` all ranks of a launch train together.
        executor: where trainings and evaluations of the truth run; this process, one after another, if None.
        attributes: what is known of an architecture for nothing, such as zero-cost proxies, by name: rankings that
            stand beside those of supernets, and further columns of the models that are fitted to the landmarks.
        name: names the folder of its runs; the recipe's file name where empty.
        description: what it shows; opens the report.
    """

    unit = "epochs"

    def __init__(
        self,
        space: SearchSpace,
        truth: Callable[[SearchSpace], Task],
        data: LightningDataModule,
        methods: dict[str, Method],
        settings: SupernetSettings = SupernetSettings(),  # noqa: B008 - frozen
        build: Optional[dict[str, Any]] = None,  # noqa: UP045
        affine: bool = False,
        objective: Optional[Objective] = None,  # noqa: UP045
        measured: int = 200,
        measurements: int = 1,
        threshold: float = CIFAR_BIN,
        calibration: int = 0,
        share_warmups: bool = True,
        trials: int = 1,
        seed: int = 0,
        workers: int = 1,
        threads: Optional[int] = None,  # noqa: UP045
        channels_last: bool = True,
        trainer: Optional[dict[str, Any]] = None,  # noqa: UP045
        executor: Optional[Executor] = None,  # noqa: UP045
        attributes: Optional[dict[str, Callable[[SearchSpace], Attribute]]] = None,  # noqa: UP045
        name: str = "",
        description: str = "",
    ):
        counts = {"measured": measured, "measurements": measurements, "trials": trials, "workers": workers}
        for key, value in counts.items():
            if value < (2 if key == "measured" else 1):
                raise ValueError(f"{key} is {value}, it must be at least {2 if key == 'measured' else 1}")
        if not methods:
            raise CatchmarkError("methods: at least one is needed")
        if not isinstance(data, SupernetData):
            raise CatchmarkError(
                f"data: a supernet needs its training set in parts; wrap {type(data).__name__} in ThreePartsDataModule"
            )
        self.space, self.data, self.methods = space, data, methods
        self.attributes: dict[str, Attribute] = {
            key: built(f"attributes.{key}", partial(make, space)) for key, make in (attributes or {}).items()
        }
        self.measured, self.threshold, self.share_warmups = measured, threshold, share_warmups
        self.executor = executor_for(workers, executor)
        self.trials, self.seed = trials, seed
        self.name, self.description = name, description
        self.training = SupernetTraining(
            space,
            truth(space),
            data,
            methods,
            settings,
            build or {},
            affine,
            ClassificationObjective() if objective is None else objective,
            measurements,
            threshold,
            calibration,
            seed,
            threads,
            channels_last,
            trainer or {},
        )
        self.training.head()  # data that are not there are noticed before a training begins
        for key in methods:
            self._check_method(key)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {
            "settings": {"epochs": 3},
            "measured": 4,
            "measurements": 1,
            "trials": 1,
            "workers": 1,
            "threads": 1,
            "trainer": dict(TINY_TRAINER),
        }

    def _check_method(self, name: str) -> None:
        method, settings = self.methods[name], self.settings_of(name)
        landmarks = method.landmarks
        if landmarks is not None and not landmarks.mean_coefficient(settings):
            raise CatchmarkError(
                f"methods.{name}.landmarks.warmup is {landmarks.warmup}, of {settings.epochs} epochs: the landmarks "
                "would never weigh in"
            )
        if landmarks is not None and method.landmarks_from.worth == "attributes" and not self.attributes:
            raise CatchmarkError(
                f"methods.{name}.landmarks_from.worth is 'attributes', and the study has none: name some"
            )
        with torch.random.fork_rng(devices=[]):
            try:
                method.sampler(self.space)
            except (ValueError, TypeError) as error:
                raise CatchmarkError(f"methods.{name}.sampler: {error}") from error

    # ---- what it is of ---------------------------------------------------------------------------------------------

    @property
    def truth(self) -> Task:
        """The task whose score is stand-alone performance."""
        return self.training.truth

    @property
    def score_name(self) -> str:
        """What an architecture scores with shared weights."""
        return self.training.objective.score_name

    def head(self, method: str | None = None) -> dict[str, Any]:
        """The arguments of ``space.build`` and ``space.build_supernet``."""
        return self.training.head(method)

    def settings_of(self, method: str) -> SupernetSettings:
        """How a method's weights learn."""
        return self.training.settings_of(method)

    def with_training(self, training: SupernetTraining) -> SupernetStudy:
        """The same study, trained and evaluated in another way."""
        changed = copy.copy(self)
        changed.training = training
        return changed

    # ---- running ---------------------------------------------------------------------------------------------------

    def planned(self) -> dict[str, int]:
        """Every method by name, and the epochs of its trainings; warm-ups that are shared count for each."""
        return {name: self.trials * self.settings_of(name).epochs for name in self.methods}

    def trainers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Of the supernets, and of the ground truth."""
        yield "", self.training.trainer
        yield from (("truth", part.trainer) for part in all_parts(self.truth))

    def run(self, folder: Path, journal: Journal, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
        """Train every supernet, or go on where an earlier attempt stopped; returns the summary."""

        def tell(job: Job, epochs: int, values: dict[str, float], new: bool) -> None:
            for listener in listeners:
                for name in job.methods:  # an epoch of a warm-up is one of every method that it is for
                    listener.trained(name, epochs, values, new, job.trial)

        def fail(name: str, record: Record) -> None:
            for listener in listeners:
                listener.failed(name, record)

        with self.executor or nullcontext():
            self._train_all(folder, journal, listeners, tell, fail)
        return self.summarise(journal)

    def _train_all(self, folder: Path, journal: Journal, listeners: Sequence[Listener], tell: Any, fail: Any) -> None:
        """Evaluate the ground truth, then train every supernet."""
        if self.executor is None and not all(journal.progress(name)[0] for name in self.methods):
            self.training.check()
            self.truth.open()
        truth = GroundTruth(self.truth, journal, self.executor, fail, self.attributes)
        choices = [each.landmarks_from for each in self.methods.values() if each.landmarks is not None]
        truths = [truth.of_trial(trial, self.seed + trial, choices, self.measured) for trial in range(self.trials)]
        waiting: list[Job] = []
        for name in self.methods:
            journal.begin(name)
            done = {record.trial for record in journal.records(name)}
            for trial in range(self.trials):
                job = self._job(name, trial, truths[trial])
                if trial in done:
                    tell(job, self.settings_of(name).epochs, {}, False)
                else:
                    waiting.append(job)
        waiting.sort(key=lambda job: job.trial)  # so that an unfinished run can compare methods soon
        for wave in self._waves(folder, waiting):
            for job, outcome, seconds in self._do(wave, folder, tell):
                if job.until is None:
                    for listener in listeners:
                        listener.training_ended(job.method, job.trial, outcome.history)
                    for record in self._keep(journal, job, outcome, seconds):
                        if record.evaluation.status != "ok":
                            fail(job.method, record)

    def _do(self, jobs: Sequence[Job], folder: Path, tell: Any) -> Iterator[tuple[Job, Outcome, float]]:
        """Trainings that do not depend on each other, each with its outcome and its seconds as soon as it is there."""
        executor = InlineExecutor() if self.executor is None else self.executor
        heard = [0] * len(jobs)

        def hear(ticket: Ticket, what: tuple[int, int, dict[str, float], bool]) -> None:
            number, (place, *told) = ticket[1], what
            if place == heard[number]:  # one that was begun again in another process says all again
                heard[number] += 1
                tell(jobs[number], *told)

        if jobs:
            executor.begin_work(SupernetWork(self.training, folder), hear)
        for number, job in enumerate(jobs):
            executor.submit((0, number), job)
        for _ in jobs:
            (_, number), (outcome, seconds) = executor.wait()
            yield jobs[number], outcome, seconds

    def _waves(self, folder: Path, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Trainings that do not wait for each other: first what several have in common, then the rest from there."""
        if not self.share_warmups:
            yield list(jobs)
            return
        groups: dict[tuple[str, int], list[Job]] = {}
        for job in jobs:
            groups.setdefault((self.kinship(job.method), job.trial), []).append(job)
        first: list[Job] = []
        rest: list[Job] = []
        for (kinship, trial), members in groups.items():
            ends = [self._warmup(job.method) for job in members]
            until = min(ends)
            begun = all(checkpoint_of(folder, job.place).is_file() for job in members)
            if len(members) < 2 or until < 1 or begun:
                rest += members
                continue
            # No method's name has a dot, so no training has this place.
            place, names = f"warmup.{kinship}-{until}-{trial}", tuple(job.method for job in members)
            first.append(replace(members[0], place=place, landmarks=[], until=until, methods=names))
            rest += [replace(job, start=place, begins=until) for job in members]
        yield first
        yield sorted(rest, key=lambda job: job.trial)

    def _warmup(self, method: str) -> int:
        """Epochs of a method that landmarks do not change."""
        landmarks = self.methods[method].landmarks
        return self.settings_of(method).epochs if landmarks is None else landmarks.warmup

    def kinship(self, method: str) -> str:
        """The first of the methods that train the same but for landmarks, perhaps this one."""
        own = self._besides_landmarks(method)
        return next(name for name in self.methods if self._besides_landmarks(name) == own)

    def _besides_landmarks(self, method: str) -> list[Any]:
        """All that a training depends on and that methods can differ in."""
        # A sampler's text in the recipe, not what came of it: two objects can look the same and differ. Made in Python,
        # only the very same callable is known to make the same.
        sampler = self.methods[method].sampler if self.recipe is None else self.recipe["methods"][method]["sampler"]
        return [sampler, self.settings_of(method), self.head(method)]

    def _job(self, method: str, trial: int, truth: dict[str, Landmarks]) -> Job:
        chosen = self.methods[method]
        landmarks = truth[self.landmark_key(method)] if chosen.landmarks is not None else []
        if chosen.landmarks_from.file is None:  # of methods that draw them alike, each has the first of the same
            landmarks = landmarks[: chosen.landmarks_from.count]
        return Job(f"{method}-{trial}", method, trial, landmarks, truth[MEASURED], methods=(method,))

    def landmark_key(self, method: str) -> str:
        """The stage of a method's landmarks in the journal; the same for methods with the same ones."""
        return landmark_stage(self.methods[method].landmarks_from)

    def _keep(self, journal: Journal, job: Job, outcome: Outcome, seconds: float) -> list[Record]:
        """What a training gave, as records of the journal."""
        seed = derive_seed(self.seed + job.trial, "supernet")
        truths = evaluate_all(self.truth, [Proposal(tuple(arch), seed) for arch, _ in outcome.found])
        records = records_of(job, outcome, [truth.score for truth in truths], seed)
        trials = {record.trial for record in journal.records(job.method)} | {job.trial}
        journal.finish_step(job.method, records, None, finished=len(trials) == self.trials, seconds=seconds)
        return records

    # ---- what came out ---------------------------------------------------------------------------------------------

    def summarise(self, journal: Journal) -> dict[str, Any]:
        """What the journal holds so far, as ``summary.json`` has it."""
        from search.results.supernet_study import summarise_study

        return for_json(summarise_study(self, journal))
