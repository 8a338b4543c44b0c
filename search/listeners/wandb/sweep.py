"""The W&B run that a W&B sweep asked for: the whole recipe with the sweep's values, and the numbers it came to."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.listeners.wandb.connection import OneRun, WandbConnection
from search.recipes.yaml_text import parse_yaml


@dataclass(frozen=True)
class Sweep:
    """What W&B's agent says of the run that it asks for.

    Attributes:
        name: the sweep's id.
        run: the id of the W&B run.
        values: what the sweep has chosen, by the recipe's keys.
    """

    name: str
    run: str
    values: dict[str, Any]


def take_sweep(environment: MutableMapping[str, str] = os.environ) -> Sweep | None:
    """What W&B's agent left in the environment, taken out of it: every W&B run would take itself for the one asked for.

    Returns:
        None outside of a sweep.
    """
    taken = {name: environment.pop(f"WANDB_{name}", "") for name in ("SWEEP_ID", "SWEEP_PARAM_PATH")}
    if not taken["SWEEP_ID"]:
        return None
    values: dict[str, Any] = {}
    if taken["SWEEP_PARAM_PATH"] and (file := Path(taken["SWEEP_PARAM_PATH"])).is_file():
        content = parse_yaml(file.read_text(encoding="utf-8"))
        values = {key: entry["value"] for key, entry in content.items() if isinstance(entry, Mapping)}
    return Sweep(taken["SWEEP_ID"], environment.pop("WANDB_RUN_ID", ""), values)


class SweepRun(OneRun):
    """From the beginning of the run to its end, so that W&B knows that it goes on; the numbers come at the end.

    The numbers are those of ``summary.json``, their keys joined by slashes, as
    ``targets/digits/agents/evolution/best_score_mean``; one of them is the sweep's ``metric``.

    Args:
        connection: to W&B.
        sweep: what is asked for.
        config: the resolved recipe.
        tags: to filter by.
    """

    def __init__(self, connection: WandbConnection, sweep: Sweep, config: dict[str, Any], tags: list[str]):
        super().__init__(connection, "this run for its sweep")
        with self.guarded():
            self._run = connection.start(
                sweep.run or connection.identity("sweep", sweep.name),
                name=f"sweep {sweep.name}",
                job_type="sweep",
                tags=tags,
                config={**config, **sweep.values},
                sweep_id=sweep.name,
            )

    def summarised(self, summary: Mapping[str, Any]) -> None:
        """Log what the run came to, and finish."""
        if self._run is not None:
            with self.guarded():
                self._run.log(numbers(summary))
                self.connection.finish(self._run)
            self._abandon()


def numbers(summary: Mapping[str, Any], key: str = "") -> dict[str, float]:
    """Every single number of a summary, by its keys joined by slashes."""
    found: dict[str, float] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{key}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{key}{name}"] = value
    return found
