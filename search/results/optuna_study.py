"""A run as Optuna studies, one a search, for whatever reads those, such as optuna-dashboard."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, explain
from search.runs.journal import Journal, Record
from search.studies.experiment import Experiment
from search.tasks.base import Task

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import FrozenTrial


def export_optuna(experiment: Experiment, journal: Journal, path: Path) -> list[str]:
    """Write every search of an experiment that has begun as a study of an SQLite file.

    A decision is a categorical parameter, an evaluation a trial, with its cost, seed and metrics as user attributes; a
    failed evaluation is a failed trial with its reason. Scores are maximised; where a target has several objectives the
    study has them all. The file is replaced as a whole, so a dashboard that shows it can be fed again.

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
        begun = set(journal.searches())
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
                study.add_trials([_trial(record, task, space) for record in journal.records(name)])
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


def _trial(record: Record, task: Task, space: Mapping[str, CategoricalDistribution]) -> FrozenTrial:
    """An evaluation; one that lacks an objective is a failed one."""
    from optuna.trial import TrialState, create_trial

    found = record.evaluation
    values = [task.value(found, key) for key in task.objectives] or [found.score]
    ok = found.status == "ok" and not any(map(math.isnan, values))
    attributes: dict[str, Any] = {"trial": record.trial, "seed": record.seed, "seconds": found.cost_seconds}
    attributes |= found.metrics
    if not ok:
        attributes["reason"] = found.reason
    chosen = zip(space.items(), record.architecture, strict=True)
    return create_trial(
        state=TrialState.COMPLETE if ok else TrialState.FAIL,
        values=values if ok else None,
        params={name: each.choices[index] for (name, each), index in chosen},
        distributions=dict(space),
        user_attrs=attributes,
    )
