"""Training one supernet of a study: in epochs that can be interrupted, with measurements on the way.

A training is a pure function of (study, method, trial). It keeps a checkpoint after every epoch, and what it measured
lies in the checkpoint too, so whatever stops it, going on gives what an uninterrupted training would have given.

It is made of stretches (`search.studies.supernet_stretch`). What lies between them, choosing architectures and
training them as landmarks, is one process's alone, even where several train the stretches: nobody can choose
otherwise, and nobody waits in the middle of a conversation. The checkpoint hands on what was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lightning_modules.supernet import SupernetModule, evaluate_paths
from search.errors import RunError
from search.evaluation import Architecture, Proposal
from search.executors.inline import evaluate_one
from search.randomness import derive_seed
from search.runs.tensor_files import load_tensors
from search.studies.supernet_job import Job, Outcome, Stretch, checkpoint_of
from search.studies.supernet_stretch import (
    Tell,
    make_module,
    make_trainer,
    read_checkpoint,
    replace_outcome,
    settings_of_training,
)
from search.training.trainer_arguments import starts_processes

if TYPE_CHECKING:
    from search.studies.supernet_study import SupernetStudy


def load_module(study: SupernetStudy, folder: Path, method: str, trial: int = 0) -> SupernetModule:
    """A trained supernet, from its checkpoint.

    Raises:
        RunError: it is not there, or damaged.
    """
    path = checkpoint_of(folder, f"{method}-{trial}")
    module = make_module(study, method, trial)
    try:
        module.load_state_dict(load_tensors(path)["state_dict"])
    except OSError as error:
        raise RunError(f"{path} can't be read ({error.strerror}): has the supernet been trained?") from error
    except Exception as error:
        raise RunError(f"{path} is not a checkpoint of this supernet, or damaged ({type(error).__name__})") from error
    return module


def train(study: SupernetStudy, folder: Path, job: Job, tell: Tell) -> Outcome:
    """Train a supernet to the end, from wherever its checkpoint stands.

    Args:
        study: what the recipe describes.
        folder: the run's folder.
        job: which training.
        tell: told of every epoch.

    Raises:
        RunError: the checkpoint is damaged.
    """
    checkpoint = checkpoint_of(folder, job.place)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    place = _stand(folder, job)
    outcome = Outcome() if place is None else read_checkpoint(checkpoint_of(folder, place))[1]
    for values in outcome.history[job.begins :]:
        tell(1, values, False)
    until = study.settings_of(job.method).epochs if job.until is None else job.until
    # A warm-up is for methods without landmarks too.
    iterations = sorted(study.iteration_epochs(job.method) - {0}) if job.until is None else []
    for end in sorted({*iterations, until}):
        if outcome.epochs < end:
            study.train_stretch(folder, Stretch(job, end, place, outcome.epochs), tell)
            place, outcome = job.place, read_checkpoint(checkpoint)[1]
        if end in iterations[outcome.iterations :]:
            with _choosing(study, folder, job) as (module, outcome):
                _add_landmarks(study, job, module, outcome)
            place = job.place
    if job.until is None and not outcome.found:
        with _choosing(study, folder, job) as (module, outcome):
            _choose(study, job, module, outcome)
    return outcome


def _stand(folder: Path, job: Job) -> str | None:
    """The place of the checkpoint that a training goes on from; None where there is none."""
    places = [job.place] if job.start is None else [job.place, job.start]
    return next((place for place in places if checkpoint_of(folder, place).is_file()), None)


# ---- between stretches ---------------------------------------------------------------------------------------------


@contextmanager
def _choosing(study: SupernetStudy, folder: Path, job: Job) -> Iterator[tuple[SupernetModule, Outcome]]:
    """The trained supernet on its device, and the outcome; whatever is added to that is kept."""
    began = time.monotonic()
    place = _stand(folder, job)
    assert place is not None  # a stretch has ended
    state, outcome = read_checkpoint(checkpoint_of(folder, place))
    with settings_of_training(study):
        module = make_module(study, job.method, job.trial)
        module.load_state_dict(state["state_dict"])
        yield module.to(_device(study)), outcome
    outcome.seconds["choosing"] += time.monotonic() - began
    replace_outcome(state, outcome, checkpoint_of(folder, job.place))


def _device(study: SupernetStudy) -> torch.device:
    """Where a supernet is trained."""
    if starts_processes(study.trainer):  # these can't be started any more once this one has used an accelerator
        return torch.device("cpu")
    return make_trainer(study, enable_checkpointing=False).strategy.root_device


def _evaluation(study: SupernetStudy, module: SupernetModule) -> Callable[[Sequence[Architecture]], list[float]]:
    batches, calibration = study.evaluation_batches()
    return lambda archs: [each.score for each in evaluate_paths(module, archs, batches, calibration)]


def _choose(study: SupernetStudy, job: Job, module: SupernetModule, outcome: Outcome) -> None:
    """Let the method choose, on the trained weights."""
    evaluate = _evaluation(study, module)
    seed = derive_seed(study.seed + job.trial, "choice")
    chosen = module.sampler.choose(evaluate, study.methods[job.method].found, seed)
    scores = evaluate(chosen)
    outcome.found = [(list(arch), score) for arch, score in zip(chosen, scores, strict=True)]


def _add_landmarks(study: SupernetStudy, job: Job, module: SupernetModule, outcome: Outcome) -> None:
    """The best architectures by the supernet are trained and become landmarks (Landmark Regularization)."""
    known = {arch for arch, _ in job.landmarks} | {tuple(arch) for arch, _ in outcome.added}
    choice = study.methods[job.method].landmarks_from
    seed = derive_seed(study.seed + job.trial, "iteration", len(outcome.added))
    chosen = module.sampler.choose(_evaluation(study, module), choice.added + len(known), seed)
    for arch in [each for each in chosen if each not in known][: choice.added]:
        evaluation = evaluate_one(study.truth, Proposal(arch, seed))
        if evaluation.status == "ok":
            outcome.added.append((list(arch), evaluation.score))
    outcome.iterations += 1
