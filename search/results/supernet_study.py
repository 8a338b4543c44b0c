"""What a study of supernets found, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.evaluation import Architecture
from search.results.landmark_references import (
    PROCESS,
    TOGETHER,
    WITH_ATTRIBUTES,
    landmark_predictions,
    process_predictions,
    ranks_together,
)
from search.runs.journal import Journal, Record
from search.statistics.intervals import mean_interval
from search.statistics.rank_correlation import kendall_tau, sparse_kendall_tau
from search.studies.supernet_job import ADDED, FOUND, LANDMARK, MEASURED, STAND_ALONE
from search.tasks.repeated import agreement_of_seeds

if TYPE_CHECKING:
    from search.studies.supernet_study import SupernetStudy

FLOPS, PARAMETERS = "FLOPs", "parameters"
"""Rankings that need neither a supernet nor landmarks."""
Worth = dict[Architecture, float]
"""What architectures are worth, or are said to be."""
_Processes = dict[tuple[int, frozenset[tuple[Architecture, float]]], Worth]
"""What processes say, by the trial and the landmarks that they are fitted to: many methods have the same ones."""
CORRELATIONS = (-1.0, 1.0)
"""What a rank correlation can be."""


def summarise_study(study: SupernetStudy, journal: Journal) -> dict[str, Any]:
    """The content of ``summary.json``.

    Per method: ``s_kdt`` and ``kendall_tau`` at the end, by the score, by the loss, ``_of_process`` by a Gaussian
    process on this method's landmarks alone (and attributes, where the study has any), and ``_with_process`` by the
    loss and the process together (the sum of the normal quantiles of both ranks, nothing fitted; a method without
    landmarks takes that of all the trial's), for each trial, with mean, standard deviation and 95% interval; after
    every measured epoch, by score and loss; ``landmarks``, how many it had in each trial, and of the study
    ``landmarks_of_trials``, how many the models of ``without_supernet`` are fitted to: all of a trial;
    ``found``, the architectures that it returned;
    ``landmark_coefficient``, what landmarks weigh on average behind the warm-up; ``seconds``. Per ranking without a
    supernet the same correlations. ``truth_agreement`` is how far two seeds of the truth rank the measured
    architectures alike, where it has several (`search.tasks.repeated.RepeatedTask`).
    """
    alone = list(journal.records(STAND_ALONE)) if STAND_ALONE in journal.searches() else []
    free = {trial: _free_rankings(study, alone, trial) for trial in sorted({record.trial for record in alone})}
    summary: dict[str, Any] = {
        "name": study.name,
        "description": study.description,
        "space": study.space.name,
        "seed": study.seed,
        "trials": study.trials,
        "truth": study.truth.score_name,
        "truth_agreement": _truth_agreement(alone),
        "methods": {},
        "without_supernet": _without_supernet(study, alone, free),
        "landmarks_of_trials": [len(_landmarks(alone, trial)) for trial in free],
    }
    everything = study.truth.all_scores()
    ranked = None if everything is None else np.sort(everything.numpy()[~np.isnan(everything.numpy())])
    begun = set(journal.searches())
    processes: _Processes = {}
    for name in study.methods:
        records = list(journal.records(name)) if name in begun else []
        trials = sorted({record.trial for record in records})
        each = [
            _trial(study, name, [r for r in records if r.trial == trial], alone, ranked, free.get(trial, {}), processes)
            for trial in trials
        ]
        method: dict[str, Any] = {"trials": len(trials), "seconds": [one.pop("seconds") for one in each]}
        for by in ("", "_by_loss", "_of_process", "_with_process"):
            for key in (f"s_kdt{by}", f"kendall_tau{by}"):
                last = [one["rounds"][-1].get(key) for one in each if one["rounds"]]
                method[key] = _spread(last, CORRELATIONS)
        epochs = [entry["epoch"] for entry in each[0]["rounds"]] if each else []
        method["rounds"] = [
            {
                "epoch": epoch,
                **{
                    key: _spread([one["rounds"][k][key] for one in each if k < len(one["rounds"])], CORRELATIONS)
                    for key in ("s_kdt", "s_kdt_by_loss")
                },
            }
            for k, epoch in enumerate(epochs)
        ]
        method["found"] = [one["found"] for one in each]
        for key in ("mean", "first", "best", "best_rank"):
            method[f"found_{key}"] = _spread([one["found"][key] for one in each if one["found"].get(key) is not None])
        method["landmarks"] = [one["landmarks"] for one in each]
        method["landmarks_added"] = [one["added"] for one in each]
        if (landmarks := study.methods[name].landmarks) is not None:
            method["landmark_coefficient"] = landmarks.mean_coefficient(study.settings_of(name))
        summary["methods"][name] = method
    return summary


def _worth(alone: Sequence[Record], trial: int) -> dict[tuple[int, ...], float]:
    """What stand-alone training gives for the measured architectures of a trial."""
    return {r.architecture: r.evaluation.score for r in alone if r.trial == trial and r.stage == MEASURED}


def _truth_agreement(alone: Sequence[Record]) -> dict[str, Any]:
    """Kendall's tau-b between two seeds of the truth, trial by trial."""
    measured = [r for r in alone if r.stage == MEASURED and r.evaluation.status == "ok"]
    trials = sorted({record.trial for record in measured})
    return _spread([agreement_of_seeds([r.evaluation for r in measured if r.trial == t]) for t in trials], CORRELATIONS)


def _landmarks(alone: Sequence[Record], trial: int) -> Worth:
    """The landmarks of a trial, with what stand-alone training gives."""
    those = [r for r in alone if r.trial == trial and r.stage.startswith(LANDMARK)]
    return {r.architecture: r.evaluation.score for r in those if not math.isnan(r.evaluation.score)}


def _own_landmarks(study: SupernetStudy, name: str, records: Sequence[Record], alone: Sequence[Record]) -> Worth:
    """Those that a method had in the trial of its records: what it began with, and what its iterations added."""
    if study.methods[name].landmarks is None or not records:
        return {}
    stage = study.landmark_key(name)  # those of a file are not in the journal
    begun = list(_landmarks([r for r in alone if r.stage == stage], records[0].trial).items())
    added = [(r.architecture, r.evaluation.score) for r in records if r.stage == ADDED and r.evaluation.status == "ok"]
    return dict(begun[: study.methods[name].landmarks_from.count] + added)


def _trial(
    study: SupernetStudy,
    name: str,
    records: Sequence[Record],
    alone: Sequence[Record],
    ranked: np.ndarray | None,
    free: Mapping[str, Worth],
    processes: _Processes,
) -> dict[str, Any]:
    trial = records[0].trial
    worth, own = _worth(alone, trial), _own_landmarks(study, name, records, alone)
    process: Worth | None = free.get(PROCESS + WITH_ATTRIBUTES) or free.get(PROCESS)
    if process is not None and len(own) >= 2 and own.keys() != _landmarks(alone, trial).keys():
        archs, attributes, key = list(process), list(study.attributes.values()), (trial, frozenset(own.items()))
        if key not in processes:
            predicted = process_predictions(study.space, list(own), list(own.values()), archs, attributes)
            processes[key] = dict(zip(archs, map(float, predicted), strict=True))
        process = processes[key]
    added = {record.architecture for record in records if record.stage == ADDED}
    rounds: dict[str, list[Record]] = {}
    for record in records:
        if record.stage.startswith(MEASURED):
            rounds.setdefault(record.stage, []).append(record)
    entries = []
    for stage, those in rounds.items():
        # An architecture that has become a landmark is not measured any more; a failed one ranks last.
        those = [record for record in those if record.architecture not in added]
        truths = [worth[record.architecture] for record in those]
        scores = [-math.inf if math.isnan(r.evaluation.score) else r.evaluation.score for r in those]
        losses = [-r.evaluation.metrics.get("loss", math.inf) for r in those]
        said = {"": scores, "_by_loss": losses}
        if process is not None:
            beside = np.array([process[record.architecture] for record in those])
            if own:
                said["_of_process"] = list(beside)
            said["_with_process"] = list(ranks_together([np.array(losses), beside]))
        entry: dict[str, Any] = {"epoch": int(stage.rpartition(" ")[2])}
        for by, values in said.items():
            entry[f"s_kdt{by}"] = sparse_kendall_tau(truths, values, study.threshold)
            entry[f"kendall_tau{by}"] = kendall_tau(truths, values)
        entries.append(entry)
    found = [record for record in records if record.stage == FOUND]
    values = [r.evaluation.metrics["stand_alone"] for r in found if "stand_alone" in r.evaluation.metrics]
    outcome: dict[str, Any] = {
        "architectures": [study.space.format(record.architecture) for record in found],
        "stand_alone": [r.evaluation.metrics.get("stand_alone") for r in found],
    }
    if values:
        outcome |= {"mean": float(np.mean(values)), "first": values[0], "best": max(values)}
        if ranked is not None:
            outcome["best_rank"] = 1 + int((ranked > max(values)).sum())
    seconds = {
        key: next((r.evaluation.metrics[key] for r in found if key in r.evaluation.metrics), 0.0)
        for key in ("training", "measuring", "choosing")
    }
    return {"rounds": entries, "found": outcome, "landmarks": len(own), "added": len(added), "seconds": seconds}


def _spread(values: Sequence[float | None], within: tuple[float, float] = (-math.inf, math.inf)) -> dict[str, Any]:
    known = np.array([value for value in values if value is not None and math.isfinite(value)])
    if not len(known):
        return {"mean": None, "std": None, "interval": None, "trials": []}
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)) if len(known) > 1 else 0.0,
        "interval": mean_interval(known, within),
        "trials": [float(value) for value in known],
    }


def _without_supernet(
    study: SupernetStudy, alone: Sequence[Record], free: Mapping[int, Mapping[str, Mapping[Architecture, float]]]
) -> dict[str, Any]:
    """How well what is free ranks the same architectures: a supernet must be above it to be of use."""
    found: dict[str, list[dict[str, float]]] = {}
    for trial, rankings in free.items():
        worth = _worth(alone, trial)
        for key, ranking in rankings.items():
            truths, values = [worth[arch] for arch in ranking], list(ranking.values())
            found.setdefault(key, []).append(
                {
                    "s_kdt": sparse_kendall_tau(truths, values, study.threshold),
                    "kendall_tau": kendall_tau(truths, values),
                }
            )
    return {
        name: {key: _spread([one[key] for one in each], CORRELATIONS) for key in ("s_kdt", "kendall_tau")}
        for name, each in sorted(found.items())
    }


def _free_rankings(study: SupernetStudy, alone: Sequence[Record], trial: int) -> dict[str, dict[Architecture, float]]:
    """Rankings that anyone has for nothing: what each says of a trial's measured architectures, once all are known."""
    import torch

    measured = [r for r in alone if r.trial == trial and r.stage == MEASURED]
    landmarks = _landmarks(alone, trial)
    if len(measured) < study.measured:
        return {}
    archs = [record.architecture for record in measured]
    predictions: dict[str, Any] = dict(zip((FLOPS, PARAMETERS), _sizes(study, measured), strict=True))
    for name, attribute in study.attributes.items():
        values = attribute.values(torch.tensor(archs)).numpy()
        # What has no value ranks last.
        predictions[name] = np.nan_to_num(values if attribute.direction == "max" else -values, nan=-math.inf)
    if len(study.attributes) >= 2:
        predictions[TOGETHER] = ranks_together([predictions[name] for name in study.attributes])
    if len(landmarks) >= 2:
        predictions |= landmark_predictions(
            study.space,
            list(landmarks),
            list(landmarks.values()),
            archs,
            list(study.attributes.values()),
        )
    return {
        key: dict(zip(archs, map(float, values), strict=True))
        for key, values in predictions.items()
        if values is not None
    }


def _sizes(study: SupernetStudy, measured: Sequence[Record]) -> tuple[list[float] | None, list[float] | None]:
    """FLOPs and parameters of stand-alone networks; FLOPs are None where the data do not say how large images are."""
    import torch

    from lightning_modules.networks.cost.complexity import count_flops, count_parameters

    shape = getattr(study.training.data, "input_shape", None)
    flops, parameters = [], []
    for record in measured:
        with torch.device("meta"):
            network = study.space.build_from(record.architecture, study.head())
        if shape is not None:  # not under that device, which would be asked before every operation
            flops.append(float(count_flops(network, shape)))
        parameters.append(float(count_parameters(network)))
    return flops or None, parameters
