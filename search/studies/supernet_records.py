"""What a supernet's training gave, as evaluations that the journal keeps."""

from __future__ import annotations

from collections.abc import Sequence

from search.evaluation import LARGEST, Architecture, Evaluation, Proposal
from search.runs.journal import Record
from search.studies.supernet_job import ADDED, FOUND, MEASURED, Job, Outcome


def records_of(job: Job, outcome: Outcome, truths: Sequence[float], seed: int) -> list[Record]:
    """A step for each round that was measured, one for the landmarks that were added, one for what was found.

    Args:
        job: the training.
        outcome: what it gave.
        truths: the stand-alone performance of the architectures that it found.
        seed: of the supernet.
    """
    records: list[Record] = []

    def add(step: int, stage: str, archs: Sequence[Architecture], evaluations: Sequence[Evaluation]) -> None:
        for slot, (arch, evaluation) in enumerate(zip(archs, evaluations, strict=True)):
            records.append(Record(step, slot, job.trial, stage, Proposal(tuple(arch), seed), evaluation))

    for step, (epoch, scores) in enumerate(outcome.rounds):
        evaluations = [evaluation_of(score, {"loss": loss}) for score, loss in scores]
        add(step, f"{MEASURED} after epoch {epoch}", [arch for arch, _ in job.measured], evaluations)
    steps = len(outcome.rounds)
    add(steps, ADDED, [tuple(a) for a, _ in outcome.added], [evaluation_of(w, {}) for _, w in outcome.added])
    evaluations = [
        evaluation_of(score, {"stand_alone": truth} | outcome.seconds)
        for (_, score), truth in zip(outcome.found, truths, strict=True)
    ]
    add(steps + 1, FOUND, [tuple(arch) for arch, _ in outcome.found], evaluations)
    return records


def evaluation_of(score: float, metrics: dict[str, float]) -> Evaluation:
    """An evaluation with shared weights, as failed where the score is no number, or too large to be one."""
    known = {key: value for key, value in metrics.items() if abs(value) <= LARGEST}
    return Evaluation(score, known) if abs(score) <= LARGEST else Evaluation.failed(f"the score is {score:g}")
