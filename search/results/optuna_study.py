"""A run as Optuna studies, one a search, for whatever reads those, such as optuna-dashboard."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, explain
from search.runs.journal import Journal, Record
from search.runs.standing import written_at
from search.studies.experiment import Experiment
from search.tasks.base import Task

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import FrozenTrial


def export_optuna(experiment: Experiment, journal: Journal, path: Path) -> list[str]:
    """Write every search of an experiment that has begun as a study of an SQLite file.

    A decision is a categorical parameter, an evaluation a trial, with its cost, seed and metrics as user attributes; a
    failed evaluation is a failed trial with its reason, one that was less than a full evaluation a pruned trial, with
    its score and the fidelity as attributes. Scores are maximised; where a target has several objectives the study has
    them all, and where it has hard limits, by how much they are missed as a constraint. The journal does not keep when
    an evaluation began: trials follow each other, each as long as its evaluation is said to have cost, up to when the
    journal was last written. The file is replaced as a whole, so a dashboard that shows it can be fed again.

    Args:
        experiment: what the run's recipe describes.
        journal: the run's.
        path: the file.

    Returns:
        The names of the studies: ``TARGET/AGENT``.

    Raises:
        CatchmarkError: it can't be written there.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.exceptions import ExperimentalWarning
    from optuna.study import StudyDirection

    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    names = []
    logged = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{fresh}")
        space = {each.name: CategoricalDistribution(each.choices) for each in experiment.space.decisions}
        begun, ended = set(journal.searches()), datetime.fromtimestamp(written_at(journal.path))
        for target, task in experiment.targets.items():
            wanted = list(task.objectives.items())
            directions = [
                StudyDirection.MAXIMIZE if each.direction == "max" else StudyDirection.MINIMIZE for _, each in wanted
            ] or [StudyDirection.MAXIMIZE]
            for agent in experiment.agent_names:
                name = f"{target}/{agent}"
                if name not in begun:
                    continue
                study = optuna.create_study(storage=storage, study_name=name, directions=directions)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)  # names are all that is asked of it
                    study.set_metric_names([key for key, _ in wanted] or ["score"])
                for key, value in _about(experiment, target, task, agent).items():
                    study.set_user_attr(key, value)
                trials = [_trial(record, task, space) for record in journal.records(name)]
                _lay_out(trials, ended)
                study.add_trials(trials)
                names.append(name)
        storage.engine.dispose()
        os.replace(fresh, path)
    except OSError as error:
        raise CatchmarkError(f"--optuna: {explain(error)}; name another file") from error
    except Exception as error:  # SQLAlchemy's, of a folder that is not there
        raise CatchmarkError(f"--optuna: '{path}' can't be written ({explain(error)}); name another file") from error
    finally:
        optuna.logging.set_verbosity(logged)
        with suppress(OSError):
            fresh.unlink()
    return names


def _about(experiment: Experiment, target: str, task: Task, agent: str) -> dict[str, str]:
    """What a dashboard tells of a whole study."""
    found = {
        "recipe": experiment.name,
        "space": type(experiment.space).__name__,
        "target": target,
        "score": task.score_name,
        "agent": f"{agent}, {type(experiment.agent(agent, trials=1)).__name__}",
        "description": " ".join(experiment.description.split()),
    }
    return {key: value for key, value in found.items() if value}


def _lay_out(trials: Sequence[FrozenTrial], end: datetime) -> None:
    """Set when trials began and ended, one after the other, the last at this time."""
    for trial in reversed(trials):
        trial.datetime_complete = end
        with suppress(OverflowError):  # of a simulated cost of ages
            end -= timedelta(seconds=trial.user_attrs["seconds"])
        trial.datetime_start = end


def _trial(record: Record, task: Task, space: Mapping[str, CategoricalDistribution]) -> FrozenTrial:
    """An evaluation; one that lacks an objective is a failed one."""
    from optuna.trial import TrialState, create_trial

    found, fidelity = record.evaluation, dict(record.proposal.fidelity)
    values = [task.value(found, key) for key in task.objectives] or [found.score]
    ok = found.status == "ok" and not any(map(math.isnan, values))
    attributes: dict[str, Any] = {"trial": record.trial, "seed": record.seed, "seconds": found.cost_seconds}
    attributes |= found.metrics
    if not record.full:
        attributes |= {"fidelity": fidelity, "score": found.score}
    if not ok:
        attributes["reason"] = found.reason
    limits = any(each.limit is not None for each in task.objectives.values())
    chosen = zip(space.items(), record.architecture, strict=True)
    return create_trial(
        state=TrialState.FAIL if not ok else TrialState.PRUNED if not record.full else TrialState.COMPLETE,
        values=values if ok and record.full else None,
        params={name: each.choices[index] for (name, each), index in chosen},
        distributions=dict(space),
        user_attrs=attributes,
        constraints={"limits": found.violation} if ok and limits else None,
    )
