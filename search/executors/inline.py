"""Evaluations in this process, one after another."""

from __future__ import annotations

import math
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from search.errors import CatchmarkError, one_line
from search.executors.base import Executor, Ticket
from search.spaces.base import Architecture
from search.tasks.base import Evaluation, Task


class InlineExecutor(Executor):
    """One evaluation after another, in this process; what a run does that names no executor."""

    workers = 1

    def __init__(self) -> None:
        self._task: Task | None = None
        self._waiting: deque[tuple[Ticket, Architecture, int]] = deque()

    def begin(self, task: Task) -> None:
        """Evaluate on this task from now on."""
        self.drop()
        self._task = task

    def submit(self, ticket: Ticket, architecture: Architecture, seed: int) -> None:
        """Take an evaluation; it is made when it is waited for."""
        self._waiting.append((ticket, architecture, seed))

    def wait(self) -> tuple[Ticket, Evaluation]:
        """Make the evaluation that was taken first."""
        assert self._task is not None, "no task has begun"
        ticket, architecture, seed = self._waiting.popleft()
        return ticket, evaluate_one(self._task, architecture, seed)

    def drop(self) -> None:
        """Forget what was taken."""
        self._waiting.clear()


def evaluate_one(task: Task, architecture: Architecture, seed: int) -> Evaluation:
    """One evaluation, as `evaluate_all` makes it."""
    (evaluation,) = evaluate_all(task, [architecture], [seed])
    return evaluation


def evaluate_all(task: Task, architectures: Sequence[Architecture], seeds: Sequence[int]) -> Iterator[Evaluation]:
    """One evaluation after another, in order; an exception in the task is a failed evaluation, and it goes on.

    A generator that has raised is dead: the architecture that it was at has failed, the others are asked for anew.

    Raises:
        CatchmarkError: the task said so itself (something the user can mend), or it breaks its contract.
    """
    done = 0
    while done < len(architectures):
        began = time.monotonic()
        try:
            for evaluation in task.evaluate_many(architectures[done:], seeds[done:]):
                if done == len(architectures):
                    raise CatchmarkError(f"{type(task).__name__}.evaluate_many gives more evaluations than were asked")
                checked = _checked(task, evaluation)
                done += 1
                yield checked
                began = time.monotonic()
            if done < len(architectures):
                raise CatchmarkError(
                    f"{type(task).__name__}.evaluate_many gives {done} evaluations where {len(architectures)} are asked"
                )
        except CatchmarkError:
            raise
        except Exception as error:
            if done == len(architectures):  # nothing is left that could have failed
                raise
            done += 1
            yield Evaluation.failed(_printable(_place(error)), time.monotonic() - began)


def _checked(task: Task, evaluation: Evaluation) -> Evaluation:
    """The evaluation in plain floats, as failed where its score is no number that can be compared."""
    if not isinstance(evaluation, Evaluation):
        raise CatchmarkError(f"{type(task).__name__} gives a {type(evaluation).__name__}, an Evaluation is needed")
    try:
        # Plus zero: a negative zero would not come back from the journal as one.
        score, cost = float(evaluation.score) + 0.0, float(evaluation.cost_seconds) + 0.0
        metrics = _floats(evaluation.metrics)
        history = [_floats(epoch) for epoch in evaluation.history]
    except (TypeError, ValueError, AttributeError) as error:
        raise CatchmarkError(
            f"{type(task).__name__} gives an Evaluation whose score, cost, metrics or history are no numbers: "
            f"{one_line(error)}"
        ) from error
    cost = cost if math.isfinite(cost) else 0.0
    if evaluation.status == "ok" and math.isfinite(score):
        return Evaluation(score, metrics, cost, history=history)
    reason = f"the score is {score}" if evaluation.status == "ok" else evaluation.reason
    return Evaluation(math.nan, metrics, cost, "failed", _printable(reason), history)


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


def _printable(text: str) -> str:
    """One line that UTF-8 can hold: a file name in a message may not be text."""
    return " ".join(str(text).encode("utf-8", "replace").decode().split())


def _place(error: Exception) -> str:
    """An exception with its type, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
