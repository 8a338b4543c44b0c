"""What every task promises, and every pool of tasks."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch

from search.contracts.contract import Broken, Contract, Subject, ensure, random_state_stays, toy_factory
from search.errors import explain
from search.evaluation import LARGEST, Architecture, Evaluation, Proposal
from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import Task, TaskPool

SEEDS = (3, 4, 2**31 - 1)


class TaskSubject(Subject):
    """A task on a space. Evaluations are kept, for an evaluation may take a second."""

    @functools.cached_property
    def task(self) -> Task:
        """The task, opened."""
        task = self.make(self.space)
        task.open()
        return task

    @functools.cached_property
    def archs(self) -> list[Architecture]:
        """Three architectures."""
        return [self.space.draw("contract", k) for k in range(len(SEEDS))]

    @functools.cached_property
    def answers(self) -> list[Evaluation]:
        """Their evaluations."""
        return evaluate(self.task, self.archs, SEEDS)


def evaluate(task: Task, archs: Sequence[Architecture], seeds: Sequence[int]) -> list[Evaluation]:
    """Evaluate some architectures, one after another."""
    answers = list(task.evaluate([Proposal(arch, seed) for arch, seed in zip(archs, seeds, strict=True)]))
    ensure(
        len(answers) == len(archs) and all(isinstance(each, Evaluation) for each in answers),
        f"{len(archs)} architectures are answered by {[type(each).__name__ for each in answers]}",
        "give one Evaluation for each, in order",
    )
    return answers


def _known(evaluation: Evaluation) -> tuple[object, ...]:
    """What a seed decides of an evaluation: all but how long it took."""
    return (repr(evaluation.score), evaluation.status, sorted(evaluation.metrics.items()), evaluation.history)


def answers_in_numbers(subject: TaskSubject) -> None:
    """Answers with a finite score, or says why there is none; metrics and costs are numbers."""
    for answer in subject.answers:
        if answer.status == "failed":
            ensure(answer.reason and math.isnan(answer.score), "a failure has no reason", "use Evaluation.failed")
            continue
        score = isinstance(answer.score, float) and abs(answer.score) <= LARGEST
        ensure(score, f"the score is {answer.score!r}", "give a float, higher is better, or Evaluation.failed(reason)")
        for name, value in answer.metrics.items():
            ensure(isinstance(value, (int, float)), f"metric '{name}' is {value!r}", "metrics are floats by name")
        cost = 0 <= answer.cost_seconds < math.inf
        ensure(cost, f"the cost is {answer.cost_seconds}", "cost_seconds is how long it took, 0 or more")
        try:
            json.dumps([answer.metrics, answer.history])
        except (TypeError, ValueError) as error:
            raise Broken(f"the journal can't keep it: {error}", "metrics and history are plain numbers") from None
    failed = [each.reason for each in subject.answers if each.status == "failed"]
    ensure(len(failed) < len(SEEDS), f"every evaluation fails: {failed[:1]}", "mend what the reason names")


def the_score_has_a_name(subject: TaskSubject) -> None:
    """Says in words what the score is, and knows its space."""
    named = isinstance(subject.task.score_name, str) and subject.task.score_name
    ensure(named, "score_name is empty", "say what the score is, with its unit: it labels every plot")
    ensure(subject.task.space is subject.space, "task.space is not the space it was given", "set self.space = space")


def the_same_again(subject: TaskSubject) -> None:
    """Answers the same again: a pure function of architecture and seed."""
    torch.manual_seed(torch.seed() % 2**31)  # whoever draws from the global state draws something new
    again = evaluate(subject.task, subject.archs[::-1], SEEDS[::-1])[::-1]
    for arch, first, second in zip(subject.archs, subject.answers, again, strict=True):
        ensure(
            _known(first) == _known(second),
            f"{arch} gives {first.score} and then, with the same seed, {second.score}",
            "derive every random number from the seed, keep nothing from one evaluation to the next",
        )


def random_states_stay(subject: TaskSubject) -> None:
    """Leaves torch's random state as it was."""
    with random_state_stays("train inside of search.training.isolation.isolated, or draw from a torch.Generator"):
        evaluate(subject.task, subject.archs[:1], SEEDS[:1])


def workers_can_hold_a_copy(subject: TaskSubject) -> None:
    """Can be copied to another process, and answers the same there."""
    import cloudpickle  # as executors do

    try:
        cloudpickle.dumps(subject.task)
        copy = deepcopy(subject.task)  # which asks objects for the same as pickle does, and reads nothing
    except Exception as error:
        cure = "keep no open files or locks in it"
        raise Broken(f"it can't be sent to a process: {explain(error)}", cure) from None
    copy.space = subject.task.space
    (answer,) = evaluate(copy, subject.archs[:1], SEEDS[:1])
    same = _known(answer) == _known(subject.answers[0])
    ensure(same, "a copy of it answers something else", "an evaluation may depend on architecture and seed alone")


def objectives_are_measured(subject: TaskSubject) -> None:
    """Measures what it calls its objectives."""
    for name in subject.task.objectives:
        for answer in subject.answers:
            known = answer.status == "failed" or not math.isnan(subject.task.value(answer, name))
            ensure(known, f"an evaluation has no '{name}'", "put every objective into metrics")


def foreign_architectures_are_refused(subject: TaskSubject) -> None:
    """Refuses what is no architecture of its space."""
    wrong = (99,) * len(subject.space.decisions)
    try:
        (answer,) = evaluate(subject.task, [wrong], SEEDS[:1])
    except ValueError:
        return
    failed = answer.status == "failed"
    ensure(failed, f"{wrong} gets a score", "begin with self.space.check(architecture), which raises a ValueError")


def known_scores_are_the_scores(subject: TaskSubject) -> None:
    """Knows of every architecture the score that it gives, if it says to know them."""
    scores = subject.task.all_scores()
    if scores is None:
        return
    everything = list(subject.space.enumerate())
    ensure(len(scores) == len(everything), f"all_scores has {len(scores)} values", "one for each of space.enumerate()")
    for arch, answer in zip(subject.archs, subject.answers, strict=True):
        known = float(scores[everything.index(arch)])
        same = known == answer.score or (math.isnan(known) and answer.status == "failed")
        ensure(same, f"all_scores says {known} where an evaluation gives {answer.score}", "in the order of enumerate")


def subjects(found: type) -> list[TaskSubject]:
    """A task on NAS-Bench-201, or on the space that it names (`search.tasks.base.Task.toy_space`)."""
    space = found.toy_space() or NASBench201()  # type: ignore[attr-defined]
    return [TaskSubject(found, space.name, toy_factory(found, Callable[[SearchSpace], Task], space), space)]


CONTRACT = Contract(
    "task",
    Task,
    subjects,
    checks=(
        the_score_has_a_name,
        answers_in_numbers,
        the_same_again,
        random_states_stay,
        workers_can_hold_a_copy,
        objectives_are_measured,
        foreign_architectures_are_refused,
        known_scores_are_the_scores,
    ),
)


def draws_depend_on_index_and_seed(subject: Subject) -> None:
    """Draws tasks that index and seed alone decide."""
    one, other = subject.make(subject.space), subject.make(subject.space)
    keys = [(index, seed) for seed in (0, 5) for index in range(6)]
    said = {key: (one.describe(*key), one.source(*key)) for key in keys}
    for key in reversed(keys):
        same = (other.describe(*key), other.source(*key)) == said[key]
        ensure(same, f"the task of index and seed {key} differs", "derive every draw from index and seed")
    drawn = [evaluate(each.draw(1, 5), [subject.space.draw("pool")], [3])[0] for each in (one, other, one)]
    same = len({repr(_known(each)) for each in drawn}) == 1
    ensure(same, "the same task gives several scores", "derive every draw from index and seed")


def draws_tasks_of_the_space(subject: Subject) -> None:
    """Draws tasks on the space that it was given."""
    drawn = subject.make(subject.space).draw(0, 0)
    ensure(isinstance(drawn, Task), f"draw gives a {type(drawn).__name__}", "draw returns a Task")
    ensure(drawn.space is subject.space, "the task is on another space", "hand the space on")


def pool_subjects(found: type) -> list[Subject]:
    """A pool on NAS-Bench-201."""
    space = NASBench201()
    return [Subject(found, space.name, toy_factory(found, Callable[[SearchSpace], TaskPool], space), space)]


POOL_CONTRACT = Contract(
    "task pool", TaskPool, pool_subjects, checks=(draws_tasks_of_the_space, draws_depend_on_index_and_seed)
)
