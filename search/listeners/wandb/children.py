"""One W&B run a child network, in the group of its recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from search.listeners.wandb.connection import WandbConnection
from search.loop.search import Listener, Search
from search.runs.journal import Record
from search.spaces.base import SearchSpace


class ChildRuns(Listener):
    """What each child logged, epoch by epoch, its architecture, and what it is worth.

    A child is logged when it is safe in the journal, wherever it was trained; look-ups are no children. One that failed
    is marked as failed, with its reason.

    Args:
        connection: to W&B.
        space: for the names of architectures.
        config: the resolved recipe; of it a child's config has the seed.
    """

    def __init__(self, connection: WandbConnection, space: SearchSpace, config: dict[str, Any]):
        self.connection, self.space, self.config = connection, space, config
        self._stopped = connection.mode == "disabled"

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """Log what an earlier attempt evaluated and had no time to log."""
        self.evaluated(search, records)

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Log the children among these evaluations."""
        for record in records:
            if (record.evaluation.history or record.evaluation.status == "failed") and not self._stopped:
                with self.connection.guarded("children", self._stop, again=True):
                    self._log(search, record)

    def _stop(self) -> None:
        self._stopped = True

    def _log(self, search: Search, record: Record) -> None:
        identity = self.connection.identity(search.name, record.step, record.slot, record.trial)
        if self.connection.is_complete(earlier := self.connection.earlier(identity)):
            return
        target, _, agent = search.name.partition("/")
        evaluation, architecture = record.evaluation, self.space.format(record.architecture)
        # The first child of a search is its evaluation 1; where trials run together each counts its own.
        place = f"{1 + record.step}{f'.{1 + record.slot}' if search.batch > 1 else ''}"
        trial = f" trial {1 + record.trial}" if search.agent.trials > 1 else ""
        run = self.connection.start(
            identity,
            name=f"{search.name}/{place}{trial}",
            job_type="child",
            tags=["child", self.space.name, agent, target, f"seed {self.config.get('seed', 0)}"],
            config={
                "search": search.name,
                "agent": agent,
                "target": target,
                "stage": record.stage,
                "step": record.step,
                "slot": record.slot,
                "trial": record.trial,
                "seed": record.seed,
                "architecture": architecture,
                "choices": list(record.architecture),
            },
        )
        for epoch, values in enumerate(evaluation.history[run.step :], 1 + run.step):
            run.log({"epoch": epoch, **values}, step=epoch)
        run.summary.update(
            {name: value for name, value in evaluation.metrics.items() if math.isfinite(value)}
            | {"status": evaluation.status, "cost_seconds": evaluation.cost_seconds, "architecture": architecture}
            | ({"score": evaluation.score} if evaluation.status == "ok" else {"reason": evaluation.reason})
        )
        self.connection.finish(run, failed=evaluation.status != "ok")
        self.connection.replace(earlier)
