"""A study of supernets: how well several ways to train one rank architectures.

How data walks: a trial draws landmarks and the architectures to measure, and asks the ground truth what they are worth
(`stand_alone` in the journal). Every method then trains a supernet (`search.studies.supernet_training`), in this
process or in several; what it measured goes into the journal as evaluations of those architectures. Summary and report
are made of the journal alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import torch

from datamodules.protocols import SupernetData
from lightning_modules.landmark_regularizer import LandmarkRegularizer, LandmarkSettings
from lightning_modules.objectives.base import Objective
from lightning_modules.objectives.classification import ClassificationObjective
from lightning_modules.path_samplers.base import PathSampler
from lightning_modules.supernet_settings import SupernetSettings
from search.errors import CatchmarkError, RunError
from search.executors import evaluate_all
from search.executors.inline import evaluate_one
from search.loop.search import Listener
from search.randomness import derive_seed
from search.results.search import for_json
from search.runs.journal import Journal, Record
from search.spaces.base import Architecture, SearchSpace
from search.statistics.rank_correlation import CIFAR_BIN
from search.studies.base import Study
from search.studies.landmarks import LandmarkChoice, read_landmarks
from search.studies.supernet_job import ADDED, FOUND, LANDMARK, MEASURED, STAND_ALONE
from search.tasks.base import LARGEST, Evaluation, Task, parts

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from search.studies.supernet_job import Job, Outcome, Stretch
    from search.studies.supernet_stretch import Tell

_DRAWS = 200
"""Draws for each architecture to measure, before it is said that there are too few."""
_MOST_FAILURES = 10
"""Evaluations of the truth that may fail in a row: then it is not the architectures' fault."""


@dataclass
class Method:
    """One way to train a supernet.

    Attributes:
        sampler: of paths; it also chooses architectures at the end.
        landmarks: how landmarks weigh on the training; None for none.
        landmarks_from: which landmarks.
        settings: in place of the study's.
        build: in place of the study's.
        found: architectures that the method returns.
    """

    sampler: Callable[[SearchSpace], PathSampler]
    landmarks: Optional[LandmarkSettings] = None  # noqa: UP045 - jsonargparse reads it on Python 3.10
    landmarks_from: LandmarkChoice = field(default_factory=LandmarkChoice)
    settings: Optional[SupernetSettings] = None  # noqa: UP045
    build: Optional[dict[str, Any]] = None  # noqa: UP045
    found: int = 5


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
        workers: trainings at a time, each in its own process; 1 where several ranks train each together.
        threads: of the CPU for a training; None for as many as torch uses.
        channels_last: lay images out pixel by pixel: faster from 8 channels on.
        trainer: further arguments of Lightning's Trainer; with ``strategy: ddp`` all ranks of a launch train together.
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
        self.space, self.truth, self.data, self.methods = space, truth(space), data, methods
        self.settings, self.build, self.affine = settings, build or {}, affine
        self.objective = ClassificationObjective() if objective is None else objective
        self.measured, self.measurements, self.threshold, self.calibration = (
            measured,
            measurements,
            threshold,
            calibration,
        )
        self.share_warmups, self.trials, self.seed = share_warmups, trials, seed
        self.workers, self.threads, self.channels_last, self.trainer = workers, threads, channels_last, trainer or {}
        self.name, self.description = name, description
        self.head()  # data that are not there are noticed before a training begins
        for key in methods:
            self._check_method(key)

    def _check_method(self, name: str) -> None:
        method, settings = self.methods[name], self.settings_of(name)
        landmarks = method.landmarks
        if landmarks is not None and not any(
            landmarks.coefficient_at(epoch, settings.epochs, settings.learning_rate_at(epoch))
            for epoch in range(settings.epochs)
        ):
            raise CatchmarkError(
                f"methods.{name}.landmarks.warmup is {landmarks.warmup}, of {settings.epochs} epochs: the landmarks "
                "would never weigh in"
            )
        with torch.random.fork_rng(devices=[]):
            try:
                method.sampler(self.space)
            except (ValueError, TypeError) as error:
                raise CatchmarkError(f"methods.{name}.sampler: {error}") from error

    # ---- what a training asks --------------------------------------------------------------------------------------

    def head(self, method: str | None = None) -> dict[str, Any]:
        """The arguments of ``space.build_from`` and ``space.build_supernet_from``."""
        known = {key: getattr(self.data, key) for key in ("num_classes", "in_channels") if hasattr(self.data, key)}
        own = None if method is None else self.methods[method].build
        return known | (self.build if own is None else own)

    def settings_of(self, method: str) -> SupernetSettings:
        """How a method's weights learn."""
        return self.methods[method].settings or self.settings

    def regularizer(self, method: str, landmarks: Sequence[tuple[Architecture, float]]) -> LandmarkRegularizer | None:
        """The landmarks' loss of a method, if it has one."""
        settings = self.methods[method].landmarks
        if settings is None or not landmarks:
            return None
        archs, worth = zip(*landmarks, strict=True)
        return LandmarkRegularizer(archs, worth, settings)

    @property
    def score_name(self) -> str:
        """What an architecture scores with shared weights."""
        return self.objective.score_name

    def evaluation_batches(self) -> tuple[list[Any], list[Any]]:
        """What architectures are evaluated on, and what their normalisation is recalibrated on."""
        data: Any = self.data
        return data.evaluation_batches(), data.calibration_batches(self.calibration)

    def measured_epochs(self, method: str) -> set[int]:
        """Behind which epochs the ranking is measured."""
        epochs = self.settings_of(method).epochs
        return {round(epochs * (k + 1) / self.measurements) for k in range(self.measurements)} - {0}

    def iteration_epochs(self, method: str) -> set[int]:
        """Behind which epochs an iteration ends and adds landmarks (all but the last one)."""
        chosen = self.methods[method]
        if chosen.landmarks is None:
            return set()
        warmup, count = chosen.landmarks.warmup, chosen.landmarks_from.iterations
        span = self.settings_of(method).epochs - warmup
        return {warmup + round(span * k / count) for k in range(1, count)}

    def train_stretch(self, folder: Path, stretch: Stretch, tell: Tell) -> None:
        """Train some epochs of a supernet; where several ranks were started, all of them do (`search.distributed`)."""
        from search.studies.supernet_stretch import train_stretch

        train_stretch(self, folder, stretch, tell)

    # ---- running ---------------------------------------------------------------------------------------------------

    def planned(self) -> dict[str, int]:
        """Every method by name, and the epochs of its trainings; warm-ups that are shared count for each."""
        return {name: self.trials * self.settings_of(name).epochs for name in self.methods}

    def trainers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of the supernets, and of the ground truth."""
        yield "", vars(self)
        yield from (("truth", vars(part)) for _, part in parts(self.truth))

    def run(self, folder: Path, journal: Journal, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
        """Train every supernet, or go on where an earlier attempt stopped; returns the summary."""
        from search.executors.processes import run_jobs

        def tell(job: Job, epochs: int, values: dict[str, float], new: bool) -> None:
            for listener in listeners:
                for name in job.methods:  # an epoch of a warm-up is one of every method that it is for
                    listener.trained(name, epochs, values, new, job.trial)

        def fail(name: str, record: Record) -> None:
            for listener in listeners:
                listener.failed(name, record)

        if not all(journal.progress(name)[0] for name in self.methods):
            self._open()
        truths = [self._stand_alone(journal, trial, fail) for trial in range(self.trials)]
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
            for job, outcome, seconds in run_jobs(self, folder, wave, tell):
                if job.until is None:
                    for listener in listeners:
                        listener.training_ended(job.method, job.trial, outcome.history)
                    for record in self._keep(journal, job, outcome, seconds):
                        if record.evaluation.status != "ok":
                            fail(job.method, record)
        return self.summarise(journal)

    def _open(self) -> None:
        """Refuse what would fail every training, before the first evaluation of the truth is paid for."""
        from search.studies.supernet_stretch import make_trainer, settings_of_training

        with settings_of_training(self):
            make_trainer(self, enable_checkpointing=False)
        for _, part in parts(self.truth):
            part.open()

    def _waves(self, folder: Path, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Trainings that do not wait for each other: first what several have in common, then the rest from there."""
        from search.studies.supernet_job import checkpoint_of

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

    def _job(self, method: str, trial: int, truth: dict[str, list[tuple[Architecture, float]]]) -> Job:
        from search.studies.supernet_job import Job

        landmarks = truth[self.landmark_key(method)] if self.methods[method].landmarks is not None else []
        return Job(f"{method}-{trial}", method, trial, landmarks, truth[MEASURED], methods=(method,))

    def landmark_key(self, method: str) -> str:
        """The stage of a method's landmarks in the journal; the same for methods with the same ones."""
        choice = self.methods[method].landmarks_from
        # A method that adds landmarks starts from the same ones as another that does not.
        return f"{LANDMARK} {choice.how} {choice.tau if choice.how == 'hamming' else ''} {choice.file or ''}".strip()

    def _stand_alone(
        self, journal: Journal, trial: int, fail: Callable[[str, Record], None]
    ) -> dict[str, list[tuple[Architecture, float]]]:
        """The landmarks and measured architectures of a trial with what they are worth, evaluated once.

        Args:
            journal: of the run.
            trial: which.
            fail: told of evaluations that fail.

        Raises:
            RunError: too many evaluations in a row failed, or in all.
        """
        journal.begin(STAND_ALONE)
        known = {
            (record.stage, record.architecture): record
            for record in journal.records(STAND_ALONE)
            if record.trial == trial
        }
        step = 1 + max((record.step for record in journal.records(STAND_ALONE)), default=-1)
        found: dict[str, list[tuple[Architecture, float]]] = {}
        failed = [each.evaluation.reason for each in known.values() if each.evaluation.status != "ok"]
        in_a_row = 0

        def worth(stage: str, arch: Architecture) -> float:
            nonlocal step, in_a_row
            if (stage, arch) not in known:
                seed = derive_seed(self.seed + trial, stage, self.space.format(arch))
                evaluation = evaluate_one(self.truth, arch, seed)
                record = Record(step, 0, trial, stage, arch, seed, evaluation)
                journal.add(STAND_ALONE, [record])
                known[stage, arch], step = record, step + 1
                if evaluation.status == "ok":
                    in_a_row = 0
                else:
                    failed.append(evaluation.reason)
                    in_a_row += 1
                    fail(STAND_ALONE, record)
                if in_a_row == _MOST_FAILURES and not self.truth.instant:
                    raise RunError(f"truth: {in_a_row} evaluations in a row failed, the last one with: {failed[-1]}")
            return known[stage, arch].evaluation.score

        seed = derive_seed(self.seed + trial, "architectures")
        for name, method in self.methods.items():
            if method.landmarks is None:
                continue
            key, choice = self.landmark_key(name), method.landmarks_from
            if choice.file is not None:
                found[key] = list(zip(*read_landmarks(choice.file, self.space), strict=True))
                continue
            pairs = found.setdefault(key, [])
            for arch in choice.draw(self.space, seed, choice.how)[len(pairs) :]:
                pairs.append((arch, worth(key, arch)))
        taken = {arch for pairs in found.values() for arch, _ in pairs}
        found = {key: [pair for pair in pairs if not math.isnan(pair[1])] for key, pairs in found.items()}
        found[MEASURED] = []
        for draw in range(_DRAWS * self.measured):
            if len(found[MEASURED]) == self.measured:
                break
            arch = self.space.draw(seed, MEASURED, draw)
            if arch in taken:
                continue
            taken.add(arch)
            # A table may not know every architecture; one that it does not know is not worth a line in the journal.
            if self.truth.instant and evaluate_one(self.truth, arch, 0).status != "ok":
                continue
            if not math.isnan(value := worth(MEASURED, arch)):
                found[MEASURED].append((arch, value))
        if len(found[MEASURED]) < self.measured:
            why = f"; the last of {len(failed)} that failed: {failed[-1]}" if failed else ""
            raise RunError(
                f"measured is {self.measured}, but of many drawn the truth knew only {len(found[MEASURED])}{why}"
            )
        return found

    def _keep(self, journal: Journal, job: Job, outcome: Outcome, seconds: float) -> list[Record]:
        """What a training gave, as records: a step for each round, one for landmarks added, one for those found."""
        records: list[Record] = []
        seed = derive_seed(self.seed + job.trial, "supernet")

        def add(step: int, stage: str, archs: Sequence[Architecture], evaluations: Sequence[Evaluation]) -> None:
            for slot, (arch, evaluation) in enumerate(zip(archs, evaluations, strict=True)):
                records.append(Record(step, slot, job.trial, stage, tuple(arch), seed, evaluation))

        for step, (epoch, scores) in enumerate(outcome.rounds):
            evaluations = [_evaluation(score, {"loss": loss}) for score, loss in scores]
            add(step, f"{MEASURED} after epoch {epoch}", [arch for arch, _ in job.measured], evaluations)
        steps = len(outcome.rounds)
        add(steps, ADDED, [tuple(a) for a, _ in outcome.added], [_evaluation(w, {}) for _, w in outcome.added])
        found = [tuple(arch) for arch, _ in outcome.found]
        truths = evaluate_all(self.truth, found, [seed] * len(found))
        evaluations = [
            _evaluation(score, {"stand_alone": truth.score} | outcome.seconds)
            for (_, score), truth in zip(outcome.found, truths, strict=True)
        ]
        add(steps + 1, FOUND, found, evaluations)
        trials = {record.trial for record in journal.records(job.method)} | {job.trial}
        journal.finish_step(job.method, records, None, finished=len(trials) == self.trials, seconds=seconds)
        return records

    # ---- what came out ---------------------------------------------------------------------------------------------

    def summarise(self, journal: Journal) -> dict[str, Any]:
        """What the journal holds so far, as ``summary.json`` has it."""
        from search.results.supernet_study import summarise_study

        return for_json(summarise_study(self, journal))


def _evaluation(score: float, metrics: dict[str, float]) -> Evaluation:
    known = {key: value for key, value in metrics.items() if abs(value) <= LARGEST}
    return Evaluation(score, known) if abs(score) <= LARGEST else Evaluation.failed(f"the score is {score:g}")
