"""A run as Optuna studies, one a search, for whatever reads those, such as optuna-dashboard."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, explain
from search.runs.journal import Journal
from search.studies.experiment import Experiment


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
    from optuna.trial import TrialState, create_trial

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
                trials = []
                for record in journal.records(name):
                    found = record.evaluation
                    values = [task.value(found, key) for key, _ in wanted] or [found.score]
                    ok = found.status == "ok" and all(value == value for value in values)
                    attributes: dict[str, Any] = {
                        "trial": record.trial,
                        "seed": record.seed,
                        "seconds": found.cost_seconds,
                    }
                    attributes |= dict(found.metrics)
                    if not ok:
                        attributes["reason"] = found.reason
                    chosen = zip(experiment.space.decisions, record.architecture, strict=True)
                    trials.append(
                        create_trial(
                            state=TrialState.COMPLETE if ok else TrialState.FAIL,
                            values=values if ok else None,
                            params={each.name: each.choices[index] for each, index in chosen},
                            distributions=dict(space),
                            user_attrs=attributes,
                        )
                    )
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
