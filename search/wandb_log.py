"""Logs a run to Weights & Biases: one W&B run a search, grouped by recipe.

Offline unless ``WANDB_MODE`` says otherwise: the data lie in the run's folder until ``wandb sync`` sends them. Whatever
happens to W&B, the search goes on: the journal has everything.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import shutil
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, one_line
from search.journal import Record
from search.loop import Listener, Search
from search.spaces.base import SearchSpace
from search.summary import TimeBudget

_MOST_ROWS = 10_000
"""Rows of the table of evaluations: W&B shows tables of this size; the journal has them all."""

_START_SECONDS, _FINISH_SECONDS = 30, 120
"""How long an online run may wait for W&B's server when it starts and when it ends."""

_COMPLETE = "complete"
"""Name of the file that marks a W&B run's folder as holding the whole search."""

_MODES = ("offline", "online", "disabled", "shared", "dryrun", "run")

_COLUMNS = ("stage", "step", "slot", "trial", "architecture", "score", "cost_seconds", "status", "reason")


class WandbLog(Listener):
    """Config, the metrics of every evaluation, a table of evaluations, and the best architecture as an artifact.

    With several trials, each point is the mean over the trials after so many evaluations.

    Args:
        folder: the run's folder; W&B writes to ``wandb/`` in it, and nowhere else.
        recipe: the recipe's name: the group of its searches.
        space: for the names of architectures.
        config: the resolved recipe.

    Raises:
        CatchmarkError: ``WANDB_MODE`` is none of W&B's modes.
    """

    def __init__(self, folder: Path, recipe: str, space: SearchSpace, config: dict[str, Any]):
        self.folder, self.recipe, self.space, self.config = folder.resolve() / "wandb", recipe, space, config
        self._mode = os.environ.get("WANDB_MODE") or "offline"
        if self._mode not in _MODES:
            near = difflib.get_close_matches(self._mode, _MODES, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; allowed: {', '.join(_MODES)}"
            raise CatchmarkError(f"the environment variable WANDB_MODE is '{self._mode}'{hint}")
        self._run: Any = None

    # ---- what the loop tells ---------------------------------------------------------------------------------------

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """Start the search's W&B run; what an earlier attempt evaluated is logged again, under the same id."""
        # By number of evaluation within a trial: trials may be ahead of each other.
        self._incomplete: dict[int, list[Record]] = defaultdict(list)
        self._made_by = [0] * search.agent.trials
        self._rows: list[Record] = []
        self._best_of = [-math.inf] * search.agent.trials
        self._best: Record | None = None
        self._points, self._time_budget = 0, TimeBudget(search.seconds)
        if self._mode == "disabled":
            return
        with self._guarded():
            identity = self._identity(search)
            earlier = list(self.folder.glob(f"*run-*-{identity}*"))
            if search.ended(records) and any((each / _COMPLETE).exists() for each in earlier):
                return
            self._run = self._start(search, identity)
            self._log(search, records)
            for folder in earlier:
                # The new folder has all of it; two of one id would both be sent.
                if folder.name.startswith("offline-") and not list(folder.glob("*.synced")):
                    shutil.rmtree(folder, ignore_errors=True)

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Log every evaluation that is complete over the trials."""
        if self._run is not None:
            with self._guarded():
                self._log(search, records)

    def search_ended(self, search: Search) -> None:
        """Log the table and the best architecture, and finish the W&B run."""
        if self._run is not None:
            with self._guarded():
                self._end(search)
            self._run = None

    def close(self) -> None:
        """Finish a W&B run that was cut short; it can be resumed."""
        if self._run is not None:
            with self._guarded():
                self._run.finish(exit_code=1)
            self._run = None

    # ---- what that does --------------------------------------------------------------------------------------------

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let W&B fail without the search, and keep in the run's folder what it would put into the home directory."""
        ours = {
            "WANDB_DATA_DIR": str(self.folder / "data"),
            "WANDB_CACHE_DIR": str(self.folder / "cache"),
            "WANDB_SILENT": "true",
            # Offline is offline: W&B's own reports of its errors would be sent all the same.
            "WANDB_ERROR_REPORTING": "false",
        }
        ours = {name: value for name, value in ours.items() if name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        except Exception as error:
            self._run = None
            _say(f"logging of this search has stopped ({one_line(error)}); the search goes on, its journal has it all")
        finally:
            for name in ours:
                del os.environ[name]

    def _identity(self, search: Search) -> str:
        """The W&B id: the same search of the same run folder is the same W&B run, however often it is resumed."""
        file = self.folder / "identity"
        if not file.exists():
            # A name or a path would not do: two machines may start the same recipe in the same second.
            self.folder.mkdir(exist_ok=True)
            partial = file.with_suffix(".partial")
            partial.write_text(uuid.uuid4().hex)
            os.replace(partial, file)
        return hashlib.sha256(f"{file.read_text()}/{search.name}".encode()).hexdigest()[:16]

    def _start(self, search: Search, identity: str) -> Any:
        import wandb

        phase, _, agent = search.name.partition("/")
        tags = [self.space.name, agent, phase, f"seed {self.config.get('seed', 0)}"]
        arguments: dict[str, Any] = dict(
            project=os.environ.get("WANDB_PROJECT", "catchmark"),
            name=f"{self.recipe}/{search.name}",
            id=identity,
            group=self.recipe,
            job_type=phase,
            tags=[tag[:64] for tag in tags],  # W&B refuses longer ones
            config={**self.config, "search": search.name, "agent": agent, "target": phase},
            dir=str(self.folder.parent),
            resume="allow",
            # No terminal output, machine statistics, source code or list of packages: a start takes milliseconds.
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", _START_SECONDS)),
                finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", _FINISH_SECONDS)),
                finish_timeout_raises=True,
            ),
        )
        if self._mode in ("online", "shared", "run"):
            try:
                # Asked for here, for `init` would stop and wait for someone to type a key.
                if not wandb.login(prompt=False, verify=False):
                    raise ValueError("no API key: set WANDB_API_KEY, or run 'wandb login'")
                return wandb.init(mode=self._mode, **arguments)  # type: ignore[arg-type]
            except Exception as error:
                # No key, no network, a full quota: the search matters more, and offline data can be sent later.
                _say(
                    f"WANDB_MODE={self._mode} is not possible now ({one_line(error)}); logging offline, "
                    f"send it later with: wandb sync {self.folder}/offline-run-*"
                )
                self._mode = "offline"
                wandb.teardown()  # or W&B takes the id to be in use by the run that has just failed to start
        return wandb.init(mode="offline", **arguments)

    def _log(self, search: Search, records: Sequence[Record]) -> None:
        for record in records:
            if len(self._rows) < _MOST_ROWS:
                self._rows.append(record)
            if self._time_budget.counts(record) and record.evaluation.status == "ok":
                if self._best is None or record.evaluation.score > self._best.evaluation.score:
                    self._best = record
                self._best_of[record.trial] = max(self._best_of[record.trial], record.evaluation.score)
            number = self._made_by[record.trial] = self._made_by[record.trial] + 1
            self._incomplete[number].append(record)
            if len(self._incomplete[number]) == search.agent.trials:
                self._log_point(self._incomplete.pop(number))

    def _log_point(self, records: list[Record]) -> None:
        self._points += 1
        if self._points < self._run.step:
            return  # an online run that goes on has it already
        found = [best for best in self._best_of if best > -math.inf]
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
            metrics = records[0].evaluation.metrics
            point |= {f"metrics/{name}": value for name, value in metrics.items() if math.isfinite(value)}
            point["stage"] = records[0].stage
        self._run.log(point, step=self._points)

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
        if self._best is not None and search.stages[-1].adapting:
            name = self.space.format(self._best.architecture)
            self._run.summary["best_architecture"] = name
            artifact = wandb.Artifact(f"architecture-{self._run.id}", type="architecture")
            with artifact.new_file("architecture.json") as file:
                json.dump(
                    {
                        "space": self.space.name,
                        "architecture": name,
                        "choices": list(self._best.architecture),
                        "score": self._best.evaluation.score,
                    },
                    file,
                )
            self._run.log_artifact(artifact)
        folder = Path(self._run.dir).parent
        self._run.finish()
        (folder / _COMPLETE).touch()


def _say(text: str) -> None:
    print(f"W&B: {text}", file=sys.stderr, flush=True)
