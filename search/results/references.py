"""What the scores of a target are to be compared with: networks that no search has to find."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from search.randomness import derive_seed
from search.runs.journal import Journal
from search.statistics.intervals import mean_interval
from search.tasks.base import Task

_SCORE = "score"


def measure_references(journal: Journal, target: str, task: Task, trials: int, seed: int) -> None:
    """Measure the references of a task that the journal does not have yet, and write them there.

    Args:
        journal: the run's.
        target: the task's name.
        task: the task.
        trials: so often, each trial with a seed of its own.
        seed: of the run.
    """
    for trial in range(trials):
        if journal.about(_key(target, trial)) is None:
            found = task.references(derive_seed(seed + trial, "references", target))
            if not found:
                return
            values = {name: {_SCORE: each.score, **each.metrics} for name, each in found.items()}
            journal.set_about(_key(target, trial), json.dumps(values))


def summarise_references(journal: Journal, target: str, trials: int) -> dict[str, dict[str, dict[str, Any]]]:
    """What was measured so far.

    Returns:
        By reference, and then by ``score`` or the name of another value: ``mean`` and 95% ``interval`` over trials, and
        the ``values``. Empty where there is nothing.
    """
    texts = [text for trial in range(trials) if (text := journal.about(_key(target, trial))) is not None]
    measured: list[dict[str, dict[str, float]]] = [json.loads(text) for text in texts]
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for name, values in measured[0].items() if measured else ():
        summary[name] = {}
        for key in values:
            every = [each[name][key] for each in measured]
            array = np.array(every, dtype=np.float64)
            summary[name][key] = {"mean": float(array.mean()), "interval": mean_interval(array), "values": every}
    return summary


def _key(target: str, trial: int) -> str:
    return f"references/{target}/{trial}"
