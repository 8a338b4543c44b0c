"""Evaluations in this process, one after another."""

from __future__ import annotations

import math
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from typing import Any

from search.errors import CatchmarkError, RunError, one_line
from search.evaluation import LARGEST, Evaluation, Proposal
from search.executors.base import Executor, Hear, Ticket, Work
from search.executors.containment import Containment
from search.tasks.base import Task

_LONGEST = 1000
"""Characters of a reason that are kept."""


class InlineExecutor(Executor):
    """One evaluation after another, in this process; what a run does that names no executor."""

    workers = 1

    def __init__(self) -> None:
        self._held: Task | tuple[Work, Hear] | None = None
        self._waiting: deque[tuple[Ticket, Any]] = deque()

    def begin(self, task: Task) -> None:
        """Evaluate on this task from now on."""
        self.drop()
        self._held = task

    def begin_work(self, work: Work, hear: Hear) -> None:
        """Do jobs of this work from now on."""
        self.drop()
        self._held = work, hear

    def submit(self, ticket: Ticket, order: Any) -> None:
        """Take a proposal or a job; it is done when it is waited for."""
        self._waiting.append((ticket, order))

    def wait(self) -> tuple[Ticket, Any]:
        """Make the evaluation, or do the job, that was taken first."""
        assert self._held is not None, "nothing has begun"
        ticket, order = self._waiting.popleft()
        if isinstance(self._held, Task):
            return ticket, evaluate_one(self._held, order)
        work, hear = self._held
        return ticket, work.do(order, partial(hear, ticket))

    def drop(self) -> None:
        """Forget what was taken."""
        self._waiting.clear()


def evaluate_one(task: Task, proposal: Proposal) -> Evaluation:
    """One evaluation, as `evaluate_all` makes it."""
    (evaluation,) = evaluate_all(task, [proposal])
    return evaluation


def evaluate_all(task: Task, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
    """One evaluation after another, in order; an exception in the task is a failed evaluation, and it goes on.

    A generator that has raised is dead: the proposal that it was at has failed, the others are asked for anew.
    Whatever a task does to the process is undone behind each evaluation (`Containment`).

    Raises:
        CatchmarkError: the task said so itself (something the user can mend).
        RunError: it breaks its contract, can't do what a proposal asks for, or would end the process.
    """
    for proposal in proposals:
        if proposal.demands - task.honours:
            raise _beyond(task, proposal)
    name, done = type(task).__name__, 0
    answers: Iterator[Any] | None = None
    given: Any
    with Containment() as containment:
        while done < len(proposals) or answers is not None:
            began = time.monotonic()
            try:
                if answers is None:
                    answers = _answers(task, proposals[done:])
                given = next(answers, _NOTHING)
            except (CatchmarkError, KeyboardInterrupt):
                raise
            except Exception as error:
                if done == len(proposals):  # nothing is left that could have failed
                    raise
                answers = None
                given = Evaluation.failed(_printable(_place(error)), time.monotonic() - began)
            except BaseException as error:
                raise RunError(f"the task ended its process with {error!r:.200}") from error
            finally:
                containment.restore()
            if given is _NOTHING and done == len(proposals):
                return
            if given is _NOTHING:
                raise RunError(f"{name}.evaluate gives {done} evaluations where {len(proposals)} are asked")
            if done == len(proposals):
                raise RunError(f"{name}.evaluate gives more evaluations than were asked")
            done += 1
            yield _checked(task, given)


_NOTHING = object()


def _beyond(task: Task, proposal: Proposal) -> RunError:
    """What to say of a proposal that asks for more than the task can do."""
    beyond, known = sorted(proposal.demands - task.honours), ", ".join(sorted(task.honours))
    return RunError(
        f"the agent asks for {', '.join(beyond)}, which {type(task).__name__} does not honour "
        f"({f'it honours {known}' if known else 'it evaluates in full, with fresh weights, to the end'}): use another "
        "agent or another task"
    )


def _answers(task: Task, proposals: Sequence[Proposal]) -> Iterator[Any]:
    answers = task.evaluate(proposals)
    if not isinstance(answers, Iterable):
        raise RunError(f"{type(task).__name__}.evaluate gives a {type(answers).__name__}, not Evaluations")
    return iter(answers)


def _checked(task: Task, evaluation: Any) -> Evaluation:
    """The evaluation in plain floats, as failed where its score or its cost is none that can be compared and added."""
    if not isinstance(evaluation, Evaluation):
        raise RunError(f"{type(task).__name__} gives a {type(evaluation).__name__}, an Evaluation is needed")
    try:
        # Plus zero: a negative zero would not come back from the journal as one.
        score, cost = float(evaluation.score) + 0.0, float(evaluation.cost_seconds) + 0.0
        values = _floats(evaluation.metrics)
        epochs = [_floats(epoch) for epoch in evaluation.history]
        attributes = _floats(evaluation.attributes)
        reason = _printable(evaluation.reason)
    except Exception as error:  # they may be objects of anybody's class
        raise RunError(
            f"{type(task).__name__} gives an Evaluation whose score, cost, metrics or history are no numbers: "
            f"{_printable(one_line(error))}"
        ) from error
    metrics = {name: value if abs(value) <= LARGEST else math.nan for name, value in values.items()}
    history = [{name: value for name, value in epoch.items() if abs(value) <= LARGEST} for epoch in epochs]
    affordable = 0 <= cost <= LARGEST
    if evaluation.status != "ok":
        problem = reason or f"its status is '{_printable(evaluation.status)}', and no reason was given"
    elif not abs(score) <= LARGEST:  # of NaN too this is true
        problem = f"the score is {score:g}{_too_large(score)}"
    elif not affordable:
        problem = f"the cost is {cost:g} seconds{_too_large(cost)}"
    else:
        left_out = ", ".join(f"{name} is {value:g}" for name, value in values.items() if abs(value) > LARGEST)
        reason = f"left out: {left_out}" if left_out else ""
        artifact = None if evaluation.artifact is None else str(evaluation.artifact)
        checked = Evaluation(score, metrics, cost, "ok", reason, history, artifact, attributes)
        return replace(checked, violation=task.violation(checked)) if task.objectives else checked
    return Evaluation(math.nan, metrics, cost if affordable else 0.0, "failed", problem, history, None, attributes)


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {_printable(name): float(value) for name, value in values.items()}


def _too_large(value: float) -> str:
    return f", more than the {LARGEST:g} that can be added up" if math.isfinite(value) and abs(value) > LARGEST else ""


def _printable(text: Any) -> str:
    """One line, not too long, that a terminal and UTF-8 can take: a file name in a message may not be text."""
    words = " ".join(str(text).split())
    if len(words) > _LONGEST:
        words = f"{words[: _LONGEST - 3]}..."
    return words if words.isprintable() else "".join(each if each.isprintable() else "?" for each in words)


def _place(error: Exception) -> str:
    """An exception with its type, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    message = one_line(error)
    if len(message) > _LONGEST // 2:  # the place is worth more than the end of a long message
        message = f"{message[: _LONGEST // 2]}..."
    return f"{type(error).__name__}: {message}{place}"
