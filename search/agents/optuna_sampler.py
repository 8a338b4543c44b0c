"""Any of Optuna's samplers as an agent."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from search.agents.base import Agent
from search.agents.optuna_values import StudyValues
from search.errors import nearest
from search.evaluation import Architecture, Evaluation, Objective, Proposal, read_objectives
from search.spaces.base import SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import CategoricalDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import InMemoryStorage
    from optuna.trial import FrozenTrial

# These sample categorical parameters, the only kind here, uniformly at random (read in Optuna 5.0).
_NUMERIC_ONLY = ("CmaEsSampler", "QMCSampler")


class OptunaSampler(Agent):
    """Adapter of Optuna's samplers, by default the tree-structured Parzen estimator (Bergstra et al., 2011).

    Optuna's sampler and study objects are no plain data. So both are made anew for every `ask`: the study from what was
    asked and told, the sampler from a seed that the trial's own stream gives. Resuming is then exact by construction,
    at the price of milliseconds an ask that grow with the number of evaluations. What a sampler notes on its trials and
    on its study (the generations of NSGA-II) is kept too; what it keeps in its own attributes is not.

    An architecture that was asked and not yet told is a running trial of the study; with Optuna's "constant liar", the
    default, TPE spreads a batch out.

    A study of the score alone learns from rewards, and so of hard limits too. One of more is told of whole evaluations;
    a failed one counts as the worst so far by every value, and as missing every limit, for samplers pass over a failed
    trial and ask for the same again.

    A parameter's name is the decision's name. Where the earlier choices rule some out, the valid ones are part of the
    name, because a parameter of a study has one fixed set of values.

    Args:
        space: what can be asked.
        trials: how many independent searchers there are. This agent alone advances them one after another.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        sampler: name of a class in ``optuna.samplers``.
        options: the sampler's own arguments, for instance ``{"n_startup_trials": 5}``; Optuna's defaults otherwise.
        sees: the ``score`` alone; or the score with hard ``limits`` as the study's constraints (with ``GPSampler``
            constrained expected improvement); or all ``objectives``, and limits as constraints (with ``TPESampler``
            the estimator of Ozaki et al., JAIR 2022; with ``GPSampler`` expected hypervolume improvement).
        objectives: by name ``max``, ``min`` or an `Objective` with a limit; None for those of the target.
        score_metric: the name of the objective that is the score itself; empty for the target's.

    Raises:
        ValueError: there is no such sampler or option, or the sampler cannot use categorical parameters.
    """

    batched = False
    caches = frozenset({"_studies"})

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        sampler: str = "TPESampler",
        options: dict[str, Any] | None = None,
        sees: Literal["score", "limits", "objectives"] = "score",
        objectives: dict[str, str | Objective] | None = None,
        score_metric: str = "",
    ):
        super().__init__(space, trials, seed)
        self.sampler, self.options = sampler, dict(options or {})
        if sees not in ("score", "limits", "objectives"):
            raise ValueError(f"OptunaSampler: sees is '{sees}', allowed: score, limits, objectives")
        self._values = StudyValues({}, "", several=False)
        if sees != "score":
            # Empty, this asks for the target's; an agent that sees the score alone has no such attribute.
            self.objectives = read_objectives(objectives or {})
            self._values = StudyValues(self.objectives, score_metric, several=sees == "objectives")
        self._check_sampler()
        self._forget()

    def _check_sampler(self) -> None:
        from optuna import samplers

        # A sampler without a seed of its own wraps another object, which plain options cannot give.
        available = {
            name: parameters
            for name, member in vars(samplers).items()
            if inspect.isclass(member)
            and issubclass(member, samplers.BaseSampler)
            and not inspect.isabstract(member)
            and "seed" in (parameters := inspect.signature(member).parameters)
            and name not in _NUMERIC_ONLY
        }
        if self.sampler in _NUMERIC_ONLY:
            raise ValueError(
                f"OptunaSampler: sampler '{self.sampler}' draws categorical decisions at random; "
                f"use one of {', '.join(sorted(available))}"
            )
        _check_name("sampler", self.sampler, list(available))
        allowed = [name for name in available[self.sampler] if name != "seed"]
        for option in self.options:
            _check_name(f"option of {self.sampler}", option, allowed)
        with _silence():
            self._make_sampler(0)

    def _make_sampler(self, seed: int) -> BaseSampler:
        from optuna import samplers

        return getattr(samplers, self.sampler)(**self.options, seed=seed)

    def _forget(self) -> None:
        # For each trial: (architecture, values, the sampler's notes) in the order told, values None of a failure; then
        # (architecture, notes) in the order asked, then the sampler's notes on the study.
        self._told: list[list[tuple[Architecture, list[float] | None, dict[str, Any]]]] = [
            [] for _ in range(self.trials)
        ]
        self._running: list[list[tuple[Architecture, dict[str, Any]]]] = [[] for _ in range(self.trials)]
        self._study_notes: list[dict[str, Any]] = [{} for _ in range(self.trials)]
        # What Optuna holds of all this. To build it anew for each ask would take longer than Optuna's own work; it is
        # built anew wherever it would not hold the same, in the same order.
        self._studies: list[tuple[Study, InMemoryStorage, int] | None] = [None] * self.trials

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start an empty study."""
        super().begin_task(budget, adapting)
        self._forget()

    def ask(self, n: int = 1) -> Tensor:
        """``n`` suggestions for each trial: int64 ``[trials, n, decisions]``."""
        seeds = self.rng.integers(2**31).tolist()
        with _silence():
            return torch.tensor([self._suggest(trial, seed, n) for trial, seed in enumerate(seeds)])

    def _suggest(self, trial: int, seed: int, n: int) -> list[Architecture]:
        """Ask Optuna on behalf of one trial, and note what it asked."""
        if (kept := self._studies[trial]) is None:
            self._studies[trial] = kept = self._make_study(trial)
        study, storage, study_id = kept
        study.sampler = self._make_sampler(seed)
        asked = []
        for _ in range(n):
            suggestion = study.ask()
            arch: Architecture = ()
            while len(arch) < len(self.space.decisions):
                name, distribution = self._parameter(arch)
                arch = (*arch, cast(int, suggestion.suggest_categorical(name, distribution.choices)))
            notes = dict(study.get_trials(deepcopy=False)[suggestion.number].system_attrs)
            self._running[trial].append((arch, notes))
            asked.append(arch)
        self._study_notes[trial] = dict(storage.get_study_system_attrs(study_id))
        return asked

    def _make_study(self, trial: int) -> tuple[Study, InMemoryStorage, int]:
        """The study of one trial as it stands; where it is stored, and under which number."""
        import optuna
        from optuna.study import StudyDirection

        storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(
            storage=storage, directions=[StudyDirection[word] for word in self._values.directions]
        )
        study_id = storage.get_study_id_from_name(study.study_name)
        for key, value in self._study_notes[trial].items():
            storage.set_study_system_attr(study_id, key, value)
        for arch, values, notes in self._told[trial]:
            study.add_trial(self._frozen(arch, notes, values, "FAIL" if values is None else "COMPLETE"))
        for arch, notes in self._running[trial]:
            study.add_trial(self._frozen(arch, notes, None, "RUNNING"))
        return study, storage, study_id

    def _frozen(self, arch: Architecture, notes: dict[str, Any], values: list[float] | None, state: str) -> FrozenTrial:
        """Optuna's record of an architecture."""
        from optuna.trial import TrialState, create_trial

        parameters = [self._parameter(arch[:t]) for t in range(len(arch))]
        return create_trial(
            state=TrialState[state],
            values=values,
            params={name: choice for (name, _), choice in zip(parameters, arch, strict=True)},
            distributions=dict(parameters),
            system_attrs=notes,
        )

    def _parameter(self, prefix: Architecture) -> tuple[str, CategoricalDistribution]:
        """Name and values of the decision that follows a prefix."""
        from optuna.distributions import CategoricalDistribution

        name = self.space.decisions[len(prefix)].name
        valid = self.space.valid_choices(torch.tensor(prefix, dtype=torch.long)).tolist()
        choices = [choice for choice, good in enumerate(valid) if good]
        if len(choices) < len(valid):
            name = f"{name} of {','.join(map(str, choices))}"
        return name, CategoricalDistribution(choices)

    def observe(
        self, proposals: Sequence[Sequence[Proposal]], evaluations: Sequence[Sequence[Evaluation]], rewards: Tensor
    ) -> None:
        """Learn from whole evaluations, where more than the score is seen."""
        if not self._values.objectives:
            super().observe(proposals, evaluations, rewards)
            return
        for trial, row in enumerate(proposals):
            for proposal, evaluation in zip(row, evaluations[trial], strict=True):
                known = [(values, notes) for _, values, notes in self._told[trial] if values is not None]
                self._finish(trial, proposal.architecture, *self._values.of(evaluation, known))

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Turn running trials into finished ones; what was never asked joins them."""
        for trial, (rows, values) in enumerate(zip(archs.tolist(), rewards.tolist(), strict=True)):
            for arch, reward in zip(map(tuple, rows), values, strict=True):
                self._finish(trial, arch, [reward], {})

    def _finish(self, trial: int, arch: Architecture, values: list[float] | None, more: dict[str, Any]) -> None:
        """One architecture was told.

        Args:
            trial: which.
            arch: what was evaluated.
            values: in the study's directions; None of a failure.
            more: what is noted on it beside the sampler's own notes.
        """
        from optuna.trial import TrialState

        running = self._running[trial]
        place = next((k for k, (asked, _) in enumerate(running) if asked == arch), None)
        notes = ({} if place is None else running.pop(place)[1]) | more
        self._told[trial].append((arch, values, notes))
        if place == 0 and (kept := self._studies[trial]) is not None:
            study, storage, study_id = kept
            number = len(self._told[trial]) - 1
            for key, value in more.items():
                storage.set_trial_system_attr(
                    storage.get_trial_id_from_study_id_trial_number(study_id, number), key, value
                )
            study.tell(number, values, state=TrialState.FAIL if values is None else None)
        else:
            self._studies[trial] = None

    def state_dict(self) -> dict[str, Any]:
        """What each trial asked and was told, with the sampler's notes."""
        return super().state_dict() | {
            "told": [[[list(arch), values, dict(notes)] for arch, values, notes in told] for told in self._told],
            "running": [[[list(arch), dict(notes)] for arch, notes in running] for running in self._running],
            "study_notes": [dict(notes) for notes in self._study_notes],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        # Runs of earlier versions kept one number.
        self._told = [
            [(tuple(arch), [found] if isinstance(found, float) else found, dict(notes)) for arch, found, notes in told]
            for told in state["told"]
        ]
        self._running = [[(tuple(arch), dict(notes)) for arch, notes in running] for running in state["running"]]
        self._study_notes = [dict(notes) for notes in state["study_notes"]]
        self._studies = [None] * self.trials


def _check_name(kind: str, name: str, allowed: list[str]) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: ``name`` is not in ``allowed``; says what is, and the nearest.
    """
    if name not in allowed:
        names = ", ".join(sorted(allowed))
        raise ValueError(f"OptunaSampler: unknown {kind} '{name}', allowed: {names}{nearest(name, allowed, '')}")


@contextmanager
def _silence() -> Iterator[None]:
    """No log lines and no warnings of Optuna's: a study an ask would print thousands."""
    from optuna import logging
    from optuna.exceptions import ExperimentalWarning

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
