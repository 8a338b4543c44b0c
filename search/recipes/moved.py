"""Where classes were in earlier versions, for recipes and runs that name them there."""

from __future__ import annotations

from typing import Any

MOVED = {
    "lightning_modules.networks.depth_losses": "lightning_modules.objectives.depth",
    "lightning_modules.networks.latency": "lightning_modules.networks.cost.latency",
    "lightning_modules.networks.nao_model": "lightning_modules.path_samplers.nao_model",
    "lightning_modules.networks.operator_latency": "lightning_modules.networks.cost.operator_latency",
    "lightning_modules.objectives": "lightning_modules.objectives.base",
    "lightning_modules.openmmlab_config": "lightning_modules.openmmlab.config",
    "lightning_modules.openmmlab_module": "lightning_modules.openmmlab.module",
    "search.experiment": "search.studies.experiment",
    "search.landmarks": "search.studies.landmarks",
    "search.meta_training": "search.studies.meta_training",
    "search.study": "search.studies.base",
    "search.supernets.study": "search.studies.supernet_study",
    "search.tasks.shared_weights": "search.studies.shared_weights",
}
"""Modules whose classes a recipe may name, by where they were."""

CLASSES = {
    "datamodules.halves.HalvesDataModule": "datamodules.three_parts.ThreePartsDataModule",
    "lightning_modules.objectives.DepthObjective": "lightning_modules.objectives.depth.DepthObjective",
    "lightning_modules.objectives.base.DepthObjective": "lightning_modules.objectives.depth.DepthObjective",
    "lightning_modules.objectives.ClassificationObjective": (
        "lightning_modules.objectives.classification.ClassificationObjective"
    ),
    "lightning_modules.objectives.base.ClassificationObjective": (
        "lightning_modules.objectives.classification.ClassificationObjective"
    ),
}
"""Classes that moved alone, or have another name."""


ADDED = {
    "mode": "min_size",
    "steps_every": 1,
    "warmup": 0,
    "climb": "below",
    "every": 0,
    "fidelities": [],
    "sees": "score",
    "falls_in": 0,
    "nesterov": False,
    "model": "forest",
    "kl_per_reward": False,
    "kl_prefixes": "last",
    "prior_factor": False,
    "candidates_adapting": 0,
    "uniform_floor": 0.0,
    "fallback": "random",
    "adapts_on": "ranks",
    "opening": "random",
    "worth": "trained",
    "workers": 1,
    "mutations_adapting": 0.0,
    "prior": "evaluator",
    "whole": 0,
    "one_network": "graph",
    "attributes_for": "nothing",
    "group": 0,
    "truths": "range",
    "spread": 1.0,
    "active": 0.0,
}
"""Arguments that classes had not in earlier versions, with what stands for what they did then (null needs no entry)."""


def name_today(name: str) -> str:
    """What a class of this short name is called today."""
    renamed = (new for old, new in CLASSES.items() if old.endswith(f".{name}"))
    return next(renamed, name).rpartition(".")[2]


def path_today(path: str) -> str:
    """The import path of a class, by its path of any version."""
    if path in CLASSES:
        return CLASSES[path]
    module, _, name = path.rpartition(".")
    return f"{MOVED[module]}.{name}" if module in MOVED else path


def paths_today(described: Any) -> Any:
    """A recipe, or a part of one, with every ``class_path`` as it is today."""
    if isinstance(described, dict):
        return {
            key: path_today(value) if key == "class_path" and isinstance(value, str) else paths_today(value)
            for key, value in described.items()
        }
    return [paths_today(each) for each in described] if isinstance(described, list) else described
