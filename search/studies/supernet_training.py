"""What the training of a supernet needs, and how it goes: some epochs, then a choice on the trained weights, and so on.

`SupernetStudy` builds a `SupernetTraining`; whoever has one, in whatever process, can train any of the study's jobs.
Choosing, with the evaluations of what is chosen as landmarks, is one process's alone, even where several train the
stretches between: nobody can choose otherwise, and nobody waits in the middle of a conversation.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import torch

from lightning_modules.landmark_regularizer import LandmarkRegularizer, LandmarkSettings
from lightning_modules.objectives.base import Objective
from lightning_modules.path_samplers.base import PathSampler
from lightning_modules.supernet_settings import SupernetSettings
from search.errors import RunError
from search.evaluation import Architecture, Proposal
from search.executors.base import Say, Work
from search.executors.inline import evaluate_one
from search.randomness import derive_seed
from search.spaces.base import SearchSpace
from search.studies.choosing import choose_networks
from search.studies.landmarks import LandmarkChoice
from search.studies.supernet_job import Job, Landmarks, Outcome, Stretch, checkpoint_of, keep_chosen, read_outcome
from search.studies.supernet_stretch import Tell, TrainStretch, train_stretch
from search.tasks.base import Task, all_parts
from search.training.fit import check_plan
from search.training.isolation import isolated, quiet_lightning, seed_global_streams
from search.training.plan import FitPlan, TrainingStage
from search.training.tensor_files import load_tensors
from search.training.trainer_arguments import starts_processes

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from lightning_modules.supernet import SupernetModule


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

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"found": 2, "landmarks_from": {"count": 4, "added": 2}}


@dataclass(frozen=True)
class SupernetWork(Work):
    """The trainings of a run, as jobs of an executor.

    Attributes:
        training: what each needs.
        folder: the run's.
    """

    training: SupernetTraining
    folder: Path

    def do(self, job: Job, say: Say) -> tuple[Outcome, float]:
        """Train a supernet, or go on with it; the outcome, and the seconds that it took this time."""
        began, said = time.monotonic(), itertools.count()
        outcome = self.training.train(self.folder, job, lambda *what: say((next(said), *what)))
        return outcome, time.monotonic() - began

    def trainers(self) -> list[Mapping[str, Any]]:
        """Of the supernets, and of the landmarks that are added on the way."""
        return [self.training.trainer, *(part.trainer for part in all_parts(self.training.truth))]


@dataclass
class SupernetTraining:
    """What every training of a study needs.

    Attributes are as in `SupernetStudy`, but for:
        train_stretch: trains the epochs between two choices, in this process or on several ranks.
    """

    space: SearchSpace
    truth: Task
    data: LightningDataModule
    methods: dict[str, Method]
    settings: SupernetSettings
    build: dict[str, Any]
    affine: bool
    objective: Objective
    measurements: int
    threshold: float
    calibration: int
    seed: int
    threads: int | None
    channels_last: bool
    trainer: dict[str, Any]
    train_stretch: TrainStretch = train_stretch

    # ---- what it is made of ----------------------------------------------------------------------------------------

    def head(self, method: str | None = None) -> dict[str, Any]:
        """The arguments of ``space.build`` and ``space.build_supernet``."""
        known = {key: getattr(self.data, key) for key in ("num_classes", "in_channels") if hasattr(self.data, key)}
        own = None if method is None else self.methods[method].build
        return known | (self.build if own is None else own)

    def settings_of(self, method: str) -> SupernetSettings:
        """How a method's weights learn."""
        return self.methods[method].settings or self.settings

    def regularizer(self, method: str, landmarks: Landmarks) -> LandmarkRegularizer | None:
        """The landmarks' loss of a method, if it has one."""
        settings = self.methods[method].landmarks
        if settings is None or not landmarks:
            return None
        archs, worth = zip(*landmarks, strict=True)
        return LandmarkRegularizer(archs, worth, settings)

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

    def make_module(self, method: str, trial: int) -> SupernetModule:
        """A fresh supernet with the sampler of a method, and without landmarks."""
        from lightning_modules.networks.batch_statistics import BatchStatistics
        from lightning_modules.supernet import SupernetModule

        seed = derive_seed(self.seed + trial, "supernet")
        with torch.random.fork_rng(devices=[]):
            seed_global_streams(derive_seed(seed, "weights"))
            supernet = self.space.build_supernet_from(partial(BatchStatistics, affine=self.affine), self.head(method))
            if self.channels_last:
                supernet = supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            sampler = self.methods[method].sampler(self.space)
        return SupernetModule(
            supernet,
            sampler,
            objective=self.objective,
            settings=self.settings_of(method),
            seed=derive_seed(seed, "paths"),
        )

    def load_module(self, path: Path, method: str, trial: int = 0) -> SupernetModule:
        """A trained supernet, from its checkpoint.

        Raises:
            RunError: it is not there, or damaged.
        """
        module = self.make_module(method, trial)
        try:
            module.load_state_dict(load_tensors(path)["state_dict"])
        except OSError as error:
            raise RunError(f"{path} can't be read ({error.strerror}): has the supernet been trained?") from error
        except Exception as error:
            raise RunError(
                f"{path} is not a checkpoint of this supernet, or damaged ({type(error).__name__})"
            ) from error
        return module

    def check(self) -> None:
        """Refuse what would fail every training, before the first evaluation of the truth is paid for."""
        check_plan(self._plan_of_machine())

    def _plan_of_machine(self) -> FitPlan:
        return FitPlan([TrainingStage(1)], self.seed, self.trainer, {"accelerator": "auto"}, any_branch=False)

    # ---- how it goes -----------------------------------------------------------------------------------------------

    def train(self, folder: Path, job: Job, tell: Tell) -> Outcome:
        """Train a supernet to the end, from wherever its checkpoint stands.

        Args:
            folder: the run's folder.
            job: which training.
            tell: told of every epoch.

        Raises:
            RunError: the checkpoint is damaged.
        """
        checkpoint_of(folder, job.place).parent.mkdir(parents=True, exist_ok=True)
        places = [job.place] if job.start is None else [job.place, job.start]
        place = next((place for place in places if checkpoint_of(folder, place).is_file()), None)
        outcome = Outcome() if place is None else read_outcome(checkpoint_of(folder, place))
        for values in outcome.history[job.begins :]:
            tell(1, values, False)
        until = self.settings_of(job.method).epochs if job.until is None else job.until
        # A warm-up is for methods without landmarks too.
        iterations = sorted(self.iteration_epochs(job.method) - {0}) if job.until is None else []
        for end in sorted({*iterations, until}):
            if outcome.epochs < end:
                outcome = self.train_stretch(self, folder, Stretch(job, end, place, outcome), tell)
                place = job.place
            if end in iterations[outcome.iterations :]:
                outcome, place = self._choose(folder, job, place, outcome, self._add_landmarks), job.place
        if job.until is None and not outcome.found:
            outcome = self._choose(folder, job, place, outcome, self._find)
        return outcome

    def _choose(
        self,
        folder: Path,
        job: Job,
        place: str | None,
        outcome: Outcome,
        choose: Callable[[SupernetModule, Job, Outcome], None],
    ) -> Outcome:
        """Choose with the trained supernet, on its device; the outcome with what was added to it, which is kept."""
        assert place is not None  # a stretch has ended
        began = time.monotonic()
        with isolated(), quiet_lightning():
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            module = self.load_module(checkpoint_of(folder, place), job.method, job.trial)
            choose(module.to(self._device()), job, outcome)
        outcome.seconds["choosing"] += time.monotonic() - began
        keep_chosen(checkpoint_of(folder, job.place), checkpoint_of(folder, place), outcome)
        return outcome

    def _device(self) -> torch.device:
        """Where a supernet is trained."""
        if starts_processes(self.trainer):  # these can't be started any more once this one has used an accelerator
            return torch.device("cpu")
        from search.training.watch import make_trainer

        return make_trainer(self._plan_of_machine()).strategy.root_device

    def _evaluation(self, module: SupernetModule) -> Callable[[Sequence[Architecture]], list[float]]:
        from lightning_modules.supernet import evaluate_paths

        batches, calibration = self.evaluation_batches()
        return lambda archs: [each.score for each in evaluate_paths(module, archs, batches, calibration)]

    def _find(self, module: SupernetModule, job: Job, outcome: Outcome) -> None:
        """Let the method choose, on the trained weights."""
        evaluate = self._evaluation(module)
        seed = derive_seed(self.seed + job.trial, "choice")
        chosen = choose_networks(self.space, module.sampler.choose, evaluate, self.methods[job.method].found, seed)
        outcome.found = [(list(arch), score) for arch, score in zip(chosen, evaluate(chosen), strict=True)]

    def _add_landmarks(self, module: SupernetModule, job: Job, outcome: Outcome) -> None:
        """The best architectures by the supernet are trained and become landmarks (Landmark Regularization)."""
        known = {arch for arch, _ in job.landmarks} | {tuple(arch) for arch, _ in outcome.added}
        added = self.methods[job.method].landmarks_from.added
        seed = derive_seed(self.seed + job.trial, "iteration", len(outcome.added))

        def usable(arch: Architecture) -> bool:
            # A table may not have the best ones; then the next best take their place.
            return not self.truth.instant or evaluate_one(self.truth, Proposal(arch, seed)).status == "ok"

        evaluate = self._evaluation(module)
        for arch in choose_networks(self.space, module.sampler.choose, evaluate, added, seed, known, usable):
            evaluation = evaluate_one(self.truth, Proposal(arch, seed))
            if evaluation.status == "ok":
                outcome.added.append((list(arch), evaluation.score))
        outcome.iterations += 1
