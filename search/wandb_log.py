"""Logs a run to Weights & Biases: one W&B run a search, grouped by recipe.

Offline unless ``WANDB_MODE`` says otherwise: the data lie in the run's folder until ``wandb sync`` sends them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.journal import Record
from search.loop import Listener, Search
from search.spaces.base import SearchSpace

_MOST_ROWS = 10_000
"""Rows of the table of evaluations: W&B shows tables of this size; the journal has them all."""


class WandbLog(Listener):
    """Config, the metrics of every evaluation, a table of evaluations, and the best architecture as an artifact.

    With several trials, each point is the mean over the trials after so many evaluations.

    Args:
        folder: the run's folder; W&B writes to ``wandb/`` in it.
        recipe: the recipe's name: the group of its searches.
        space: for the names of architectures.
        config: the resolved recipe.
    """

    def __init__(self, folder: Path, recipe: str, space: SearchSpace, config: dict[str, Any]):
        self.folder, self.recipe, self.space, self.config = folder, recipe, space, config
        self._run: Any = None

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """Start the search's W&B run; what an earlier attempt evaluated is logged again, under the same id."""
        self._records: list[Record] = []
        self._step: dict[int, list[Record]] = defaultdict(list)
        self._best = [-math.inf] * search.agent.trials
        self._points = 0
        self._run = self._start(search)
        self.evaluated(search, records)

    def _start(self, search: Search) -> Any:
        import wandb

        phase, _, agent = search.name.partition("/")
        settings: dict[str, Any] = dict(
            project=os.environ.get("WANDB_PROJECT", "catchmark"),
            name=f"{self.recipe}/{search.name}",
            # The same search of the same run folder is the same W&B run, however often it is resumed.
            id=hashlib.sha256(f"{self.folder.resolve().name}/{self.recipe}/{search.name}".encode()).hexdigest()[:16],
            group=self.recipe,
            job_type=phase,
            tags=[self.space.name, agent, phase, f"seed {self.config.get('seed', 0)}"],
            config={**self.config, "search": search.name, "agent": agent, "target": phase},
            dir=str(self.folder),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
        mode = os.environ.get("WANDB_MODE") or "offline"
        try:
            return wandb.init(mode=mode, **settings)  # type: ignore[arg-type]
        except Exception as error:
            # No key, no network, a full quota: the search matters more, and offline data can be sent later.
            print(
                f"W&B mode '{mode}' is not available ({' '.join(str(error).split())}); logging offline, "
                f"send it later with: wandb sync {self.folder / 'wandb'}/offline-run-*",
                file=sys.stderr,
            )
            return wandb.init(mode="offline", **settings)

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Log every evaluation that is complete over the trials."""
        self._records.extend(records)
        for record in records:
            key = (record.step << 20) + record.slot
            self._step[key].append(record)
            if len(self._step[key]) == search.agent.trials:
                self._log_point(self._step.pop(key))

    def _log_point(self, records: list[Record]) -> None:
        for record in records:
            if record.evaluation.score > self._best[record.trial]:
                self._best[record.trial] = record.evaluation.score
        self._points += 1
        found = [best for best in self._best if best > -math.inf]
        scores = [record.evaluation.score for record in records if record.evaluation.status == "ok"]
        point: dict[str, Any] = {
            "evaluation": self._points,
            "failed": len(records) - len(scores),
            "cost_seconds": sum(record.evaluation.cost_seconds for record in records),
        }
        if scores:
            point["score"] = sum(scores) / len(scores)
        if found:
            point["best_score"] = sum(found) / len(found)
        if len(records) == 1:
            point |= {f"metrics/{name}": value for name, value in records[0].evaluation.metrics.items()}
            point["stage"] = records[0].stage
        self._run.log(point, step=self._points)

    def search_ended(self, search: Search) -> None:
        """Log the table and the best architecture, and finish the W&B run."""
        import wandb

        columns: list[str | int] = [
            "stage",
            "step",
            "slot",
            "trial",
            "architecture",
            "score",
            "cost_seconds",
            "status",
            "reason",
        ]
        rows = [
            [
                record.stage,
                record.step,
                record.slot,
                record.trial,
                self.space.format(record.architecture),
                None if math.isnan(record.evaluation.score) else record.evaluation.score,
                record.evaluation.cost_seconds,
                record.evaluation.status,
                record.evaluation.reason,
            ]
            for record in self._records[:_MOST_ROWS]
        ]
        self._run.log({"evaluations": wandb.Table(columns=columns, data=rows)}, step=self._points)
        good = [record for record in self._records if record.evaluation.status == "ok"]
        if good and search.stages[-1].adapting:
            best = max(good, key=lambda record: record.evaluation.score)
            self._run.summary["best_architecture"] = self.space.format(best.architecture)
            artifact = wandb.Artifact(f"architecture-{self._run.id}", type="architecture")
            with artifact.new_file("architecture.json") as file:
                json.dump(
                    {
                        "space": self.space.name,
                        "architecture": self.space.format(best.architecture),
                        "choices": list(best.architecture),
                        "score": best.evaluation.score,
                    },
                    file,
                )
            self._run.log_artifact(artifact)
        self._run.finish()
        self._run = None

    def close(self) -> None:
        """Finish a W&B run that was cut short; it can be resumed."""
        if self._run is not None:
            self._run.finish(exit_code=1)
            self._run = None
