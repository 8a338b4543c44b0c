"""Stand-alone performance of architectures: what a supernet's ranking is measured against, evaluated once and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from search.errors import RunError
from search.evaluation import Architecture, Evaluation, Proposal
from search.executors.base import Executor
from search.executors.inline import InlineExecutor, evaluate_one
from search.randomness import derive_seed
from search.runs.journal import Journal, Record
from search.studies.landmarks import LandmarkChoice, read_landmarks
from search.studies.supernet_job import LANDMARK, MEASURED, STAND_ALONE, Landmarks
from search.tasks.base import Task

_DRAWS = 200
"""Draws for each architecture to measure, before it is said that there are too few."""
_MOST_FAILURES = 10
"""Evaluations that may fail in a row: then it is not the architectures' fault."""


def landmark_stage(choice: LandmarkChoice) -> str:
    """The stage of landmarks in the journal; the same for methods with the same ones."""
    # A method that adds landmarks starts from the same ones as another that does not.
    return f"{LANDMARK} {choice.how} {choice.tau if choice.how == 'hamming' else ''} {choice.file or ''}".strip()


class GroundTruth:
    """What stand-alone training gives, as the journal has it, and what is evaluated to know more.

    The journal numbers evaluations in the order in which they are asked for, whatever the order in which they end.

    Args:
        task: whose score is stand-alone performance.
        journal: of the run.
        executor: evaluates; None for this process. Look-ups never leave it.
        fail: told of evaluations that fail.
    """

    def __init__(self, task: Task, journal: Journal, executor: Executor | None, fail: Callable[[str, Record], None]):
        self._task, self._journal, self._fail = task, journal, fail
        self._executor = InlineExecutor() if executor is None or task.instant else executor
        self._steps: dict[tuple[int, str, Architecture], int] = {}
        self._in_a_row = 0
        journal.begin(STAND_ALONE)
        self._known = {
            (each.trial, each.stage, each.architecture): each.evaluation for each in journal.records(STAND_ALONE)
        }

    def of_trial(self, trial: int, seed: int, choices: Sequence[LandmarkChoice], measured: int) -> dict[str, Landmarks]:
        """The landmarks of a trial by their stage, and the architectures to measure, with their performance.

        Args:
            trial: which.
            seed: of the trial.
            choices: which landmarks there are to be.
            measured: how many architectures to measure; none of them is a landmark.

        Raises:
            RunError: too many evaluations failed.
        """
        found: dict[str, Landmarks] = {}
        space, draws = self._task.space, derive_seed(seed, "architectures")
        for choice in choices:
            stage = landmark_stage(choice)
            if choice.file is not None:
                found[stage] = list(zip(*read_landmarks(choice.file, space), strict=True))
                continue
            pairs = found.setdefault(stage, [])
            archs = choice.draw(space, draws, choice.how)[len(pairs) :]
            pairs += zip(archs, self.evaluate(trial, stage, archs, seed), strict=True)
        taken = {arch for pairs in found.values() for arch, _ in pairs}
        found = {stage: [pair for pair in pairs if not math.isnan(pair[1])] for stage, pairs in found.items()}
        return found | {MEASURED: self.measure(trial, measured, taken, draws, seed)}

    def evaluate(self, trial: int, stage: str, archs: Sequence[Architecture], seed: int) -> list[float]:
        """The stand-alone performance of architectures; NaN where the evaluation failed.

        Args:
            trial: which.
            stage: what they are evaluated as.
            archs: what to evaluate, each once.
            seed: of the trial; each evaluation has one of its own.

        Raises:
            RunError: too many evaluations in a row failed.
        """
        waiting: dict[int, Record] = {}
        for arch in archs:
            key = (trial, stage, arch)
            step = self._steps.setdefault(key, len(self._steps))
            if key not in self._known:
                own = derive_seed(seed, stage, self._task.space.format(arch))
                waiting[step] = Record(step, 0, trial, stage, Proposal(arch, own), Evaluation(math.nan))
        if waiting:
            self._executor.begin(self._task)
        for step, record in waiting.items():
            self._executor.submit((step, 0), record.proposal)
        while waiting:
            (step, _), evaluation = self._executor.wait()
            record = replace(waiting.pop(step), evaluation=evaluation)
            self._journal.add(STAND_ALONE, [record])
            self._known[trial, stage, record.architecture] = evaluation
            self._in_a_row = 0 if evaluation.status == "ok" else self._in_a_row + 1
            if self._in_a_row:
                self._fail(STAND_ALONE, record)
            if self._in_a_row == _MOST_FAILURES and not self._task.instant:
                self._executor.drop()
                raise RunError(
                    f"truth: {_MOST_FAILURES} evaluations in a row failed, the last one with: {evaluation.reason}"
                )
        return [self._known[trial, stage, arch].score for arch in archs]

    def measure(self, trial: int, count: int, taken: set[Architecture], draw_seed: int, seed: int) -> Landmarks:
        """Architectures to measure the ranking of, drawn at random until so many have succeeded.

        Args:
            trial: which.
            count: how many.
            taken: what is not to be among them.
            draw_seed: of the draws.
            seed: of the trial.

        Raises:
            RunError: so many were not found.
        """
        found: Landmarks = []
        draws = iter(range(_DRAWS * count))
        taken = set(taken)
        while len(found) < count:
            drawn = self._draw(count - len(found), draws, taken, draw_seed)
            if not drawn:
                reasons = [e.reason for (t, _, _), e in self._known.items() if t == trial and e.status != "ok"]
                why = f"; the last of {len(reasons)} that failed: {reasons[-1]}" if reasons else ""
                raise RunError(f"measured is {count}, but of many drawn the truth knew only {len(found)}{why}")
            scores = self.evaluate(trial, MEASURED, drawn, seed)
            found += [pair for pair in zip(drawn, scores, strict=True) if not math.isnan(pair[1])]
        return found

    def _draw(self, count: int, draws: Iterator[int], taken: set[Architecture], seed: int) -> list[Architecture]:
        """The next architectures that are not taken, and are from then on."""
        drawn: list[Architecture] = []
        while len(drawn) < count and (draw := next(draws, None)) is not None:
            arch = self._task.space.draw(seed, MEASURED, draw)
            if arch in taken:
                continue
            taken.add(arch)
            # A table may not know every architecture; one that it does not know is not worth a line in the journal.
            if not self._task.instant or evaluate_one(self._task, Proposal(arch)).status == "ok":
                drawn.append(arch)
        return drawn
