"""What an experiment has found: agents on tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.evaluation import Architecture
from search.randomness import derive_seed
from search.results.attributes import summarise_attributes
from search.results.fronts import has_front, summarise_front
from search.results.references import summarise_references
from search.results.search import for_json, summarise_search
from search.runs.journal import Journal, Record
from search.studies.meta_training import PHASE
from search.studies.transfer import EXCHANGE, find_winners, summarise_exchange

if TYPE_CHECKING:
    from search.studies.experiment import Experiment


def summarise_experiment(experiment: Experiment, journal: Journal) -> dict[str, Any]:
    """What the journal holds so far, as ``summary.json`` has it."""
    summary: dict[str, Any] = {
        "name": experiment.name,
        "description": experiment.description,
        "space": experiment.space.name,
        "seed": experiment.seed,
        "budget": experiment.budget,
        "budget_seconds": experiment.budget_seconds,
        "trials": experiment.trials,
        PHASE: _summarise_meta_training(experiment, journal),
        "targets": summarise_targets(experiment, journal),
    }
    if experiment.exchange:
        winners = find_winners(summary["targets"])
        summary[EXCHANGE] = {"repeats": experiment.exchange} | summarise_exchange(
            journal, experiment.space, winners, list(summary["targets"]), experiment.agent_names
        )
    return for_json(summary)


def _summarise_meta_training(experiment: Experiment, journal: Journal) -> dict[str, Any]:
    begun, summary = journal.searches(), {}
    for phase in experiment.phases:
        if phase.search in begun:
            records = list(journal.records(phase.search))
            sources = phase.sources(derive_seed(experiment.seed, "pool"))
            summary[phase.label] = {
                "tasks": list(dict.fromkeys(record.stage for record in records)),
                "trials": 1 + max((record.trial for record in records), default=0),
                "evaluations": len(records),
                "source_evaluations": _source_evaluations(records, sources),
                "failed": sum(record.evaluation.status == "failed" for record in records),
                "seconds": journal.progress(phase.search)[1],
            }
    return summary


def summarise_targets(experiment: Experiment, journal: Journal) -> dict[str, Any]:
    """What the searches on each target have found."""
    begun, summary = journal.searches(), dict[str, Any]()
    for name, task in experiment.targets.items():
        searches = {agent: f"{name}/{agent}" for agent in experiment.agent_names if f"{name}/{agent}" in begun}
        if not searches:
            continue
        scores, limit = task.all_scores(), experiment.seconds(name)
        known = None if scores is None else scores.numpy()
        summary[name] = {
            "score_name": task.score_name,
            "budget_seconds": limit,
            "agents": {
                agent: summarise_search(
                    list(journal.records(search)),
                    experiment.trials,
                    experiment.space,
                    known,
                    journal.progress(search)[1],
                    limit,
                    experiment.meta_trainings(name, agent),
                )
                for agent, search in searches.items()
            },
        }
        if references := summarise_references(journal, name, experiment.trials):
            summary[name]["references"] = references
        if has_front(task.objectives):
            found = {agent: list(journal.records(search)) for agent, search in searches.items()}
            summary[name] |= summarise_front(
                found,
                task,
                experiment.trials,
                limit,
                {agent: experiment.meta_trainings(name, agent) for agent in found},
            )
        if experiment.attributes:
            records = (record for search in searches.values() for record in journal.records(search))
            summary[name]["attributes"] = summarise_attributes(records, experiment.attributes)
    return summary


def _source_evaluations(records: Sequence[Record], sources: Mapping[str, str]) -> int:
    """The most different (source, architecture) pairs that one trial's meta-training paid for.

    The same pair again costs nothing: its score is known, however a task weighs it.
    """
    paid: dict[int, set[tuple[str, Architecture]]] = {}
    for record in records:
        paid.setdefault(record.trial, set()).add((sources[record.stage], record.architecture))
    return max((len(pairs) for pairs in paid.values()), default=0)
