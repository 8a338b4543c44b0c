"""Stand-alone performance of architectures: what a supernet's ranking is measured against, evaluated once and kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from search.attributes.base import Attribute
from search.errors import RunError
from search.evaluation import Architecture, Evaluation, Proposal
from search.executors.base import Executor
from search.executors.inline import InlineExecutor, evaluate_one
from search.randomness import derive_seed
from search.runs.journal import Journal, Record
from search.studies.landmarks import LandmarkChoice, opinions_of, read_landmarks
from search.studies.supernet_job import LANDMARK, MEASURED, STAND_ALONE, Landmarks
from search.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

_DRAWS = 200
"""Draws of different networks for each that is wanted, before it is said that there are too few."""
_SPARE = 4
"""Evaluations of landmarks for each that is wanted, before it is said that too many fail."""
_MOST_FAILURES = 10
"""Evaluations that may fail in a row: then it is not the architectures' fault."""


def landmark_stage(choice: LandmarkChoice) -> str:
    """The stage of landmarks in the journal; the same for methods with the same ones."""
    # A method that adds landmarks starts from the same ones as another that does not.
    worth = "" if choice.worth == "trained" else f" by {choice.worth}"
    return (
        f"{LANDMARK} {choice.how} {choice.tau if choice.how == 'hamming' else ''} {choice.file or ''}".strip() + worth
    )


class GroundTruth:
    """What stand-alone training gives, as the journal has it, and what is evaluated to know more.

    The journal numbers evaluations in the order in which they are asked for, whatever the order in which they end.

    Args:
        task: whose score is stand-alone performance.
        journal: of the run.
        executor: evaluates; None for this process. Look-ups never leave it.
        fail: told of evaluations that fail.
        attributes: what landmarks are worth that nobody trains, by name.
    """

    def __init__(
        self,
        task: Task,
        journal: Journal,
        executor: Executor | None,
        fail: Callable[[str, Record], None],
        attributes: Mapping[str, Attribute] | None = None,
    ):
        self._task, self._journal, self._fail, self._attributes = task, journal, fail, attributes or {}
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
            RunError: too many evaluations failed, or there are not so many architectures.
        """
        found: dict[str, Landmarks] = {}
        space, draws = self._task.space, derive_seed(seed, "architectures")
        for choice in choices:
            stage = landmark_stage(choice)
            if choice.file is not None:
                found[stage] = list(zip(*read_landmarks(choice.file, space), strict=True))
                continue
            if choice.worth == "attributes":
                landmarks = self._untrained(choice, draws)
            else:
                landmarks = self._landmarks(trial, choice, draws, seed)
            found[stage] = max(found.get(stage, []), landmarks, key=len)
        taken = {arch for pairs in found.values() for arch, _ in pairs}
        return found | {MEASURED: self.measure(trial, measured, taken, draws, seed)}

    def _untrained(self, choice: LandmarkChoice, draw_seed: int) -> Landmarks:
        """As many landmarks as are wanted, with what attributes say of them."""
        drawn = choice.draw(self._task.space, draw_seed, choice.how)
        archs = list(itertools.islice(drawn, choice.count))
        if len(archs) < choice.count:
            raise RunError(f"landmarks_from.count is {choice.count}, but there are only {len(archs)} networks")
        return list(zip(archs, opinions_of(self._attributes, archs), strict=True))

    def _landmarks(self, trial: int, choice: LandmarkChoice, draw_seed: int, seed: int) -> Landmarks:
        """As many landmarks as are wanted, with their performance: one that fails is replaced by the next."""
        drawn = choice.draw(self._task.space, draw_seed, choice.how, known=self._known_architectures)
        drawn = itertools.islice(drawn, _DRAWS * choice.count)
        found: Landmarks = []
        asked = 0
        while len(found) < choice.count:
            left = min(choice.count - len(found), _SPARE * choice.count - asked)
            archs = list(itertools.islice(filter(self._knows, drawn), left))
            if not archs:
                raise RunError(
                    f"landmarks_from.count is {choice.count}, but of {asked} different networks the truth knew only "
                    f"{len(found)}"
                )
            scores = self.evaluate(trial, landmark_stage(choice), archs, seed)
            found += [pair for pair in zip(archs, scores, strict=True) if not math.isnan(pair[1])]
            asked += len(archs)
        return found

    @cached_property
    def _known_architectures(self) -> Tensor | None:
        return self._task.known_architectures()

    def _knows(self, architecture: Architecture) -> bool:
        """Whether an evaluation is worth a line in the journal: a table may not have every architecture."""
        return not self._task.instant or evaluate_one(self._task, Proposal(architecture)).status == "ok"

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
        """Architectures of different networks to measure the ranking of, drawn until so many have succeeded.

        Args:
            trial: which.
            count: how many.
            taken: whose networks are not to be among them.
            draw_seed: of the draws.
            seed: of the trial.

        Raises:
            RunError: so many were not found.
        """
        known = self._known_architectures
        drawn = self._task.space.draw_distinct(draw_seed, MEASURED, among=known, besides=taken)
        drawn = itertools.islice(drawn, _DRAWS * count)
        found: Landmarks = []
        while len(found) < count:
            archs = list(itertools.islice(filter(self._knows, drawn), count - len(found)))
            if not archs:
                reasons = [e.reason for (t, _, _), e in self._known.items() if t == trial and e.status != "ok"]
                why = f"; the last of {len(reasons)} that failed: {reasons[-1]}" if reasons else ""
                raise RunError(f"measured is {count}, but of many drawn the truth knew only {len(found)}{why}")
            scores = self.evaluate(trial, MEASURED, archs, seed)
            found += [pair for pair in zip(archs, scores, strict=True) if not math.isnan(pair[1])]
        return found
