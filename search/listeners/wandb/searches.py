"""One W&B run a search."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from search.listeners.points import SearchPoints
from search.listeners.wandb.connection import OneRun, WandbConnection
from search.loop.search import Search
from search.runs.journal import Record
from search.spaces.base import SearchSpace

_MOST_ROWS = 10_000
"""Rows of the table of evaluations: W&B shows tables of this size; the journal has them all."""

_COLUMNS = ("stage", "step", "slot", "trial", "architecture", "score", "cost_seconds", "status", "reason")


class SearchRuns(OneRun):
    """Config, the metrics of every evaluation, a table of evaluations, and the best architecture as an artifact.

    With several trials, each point is the mean over the trials after so many evaluations.

    Args:
        connection: to W&B.
        space: for the names of architectures.
        config: the resolved recipe.
    """

    def __init__(self, connection: WandbConnection, space: SearchSpace, config: dict[str, Any]):
        super().__init__(connection, "this search", again=True)
        self.space, self.config = space, config

    # ---- what the loop tells ---------------------------------------------------------------------------------------

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """Start the search's W&B run; what an earlier attempt evaluated is logged again, under the same id."""
        self._points = SearchPoints(search)
        self._rows: list[Record] = []
        if self.connection.mode == "disabled":
            return
        with self.guarded():
            identity = self.connection.identity(search.name)
            earlier = self.connection.earlier(identity)
            if search.ended(records) and self.connection.is_complete(earlier):
                return
            phase, _, agent = search.name.partition("/")
            self._run = self.connection.start(
                identity,
                name=search.name,
                job_type=phase,
                tags=[self.space.name, agent, phase, f"seed {self.config.get('seed', 0)}"],
                config={**self.config, "search": search.name, "agent": agent, "target": phase},
            )
            self._log(records)
            self.connection.replace(earlier)

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Log every evaluation that is complete over the trials."""
        if self._run is not None:
            with self.guarded():
                self._log(records)

    def search_ended(self, search: Search) -> None:
        """Log the table and the best architecture, and finish the W&B run."""
        if self._run is not None:
            with self.guarded():
                self._end(search)
            self._abandon()

    # ---- what that does --------------------------------------------------------------------------------------------

    def _log(self, records: Sequence[Record]) -> None:
        for record in records:
            if len(self._rows) < _MOST_ROWS:
                self._rows.append(record)
            for point in self._points.add(record):
                if point["evaluation"] >= self._run.step:  # an online run that goes on has the others already
                    self._run.log(point, step=point["evaluation"])

    def _end(self, search: Search) -> None:
        import wandb

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
            for record in self._rows
        ]
        self._run.log({"evaluations": wandb.Table(columns=list(_COLUMNS), data=rows)})
        if self._points.best is not None and search.stages[-1].adapting:
            self._run.summary["best_architecture"] = self.space.format(self._points.best.architecture)
            # Where there is no room for more artifacts, there may be for all the rest.
            with self.connection.guarded("the best architecture as an artifact", lambda: None):
                self._log_artifact(self._points.best)
        self.connection.finish(self._run)

    def _log_artifact(self, best: Record) -> None:
        import wandb

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
