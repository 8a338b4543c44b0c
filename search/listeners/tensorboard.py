"""TensorBoard: the curves of searches and of long trainings, in ``tensorboard/`` of the run's folder.

Asked for with ``CATCHMARK_TENSORBOARD=1``. A run that goes on writes them anew, for the journal and the
checkpoints have what was before; so they are those of a run that was never stopped.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, one_line
from search.listeners.points import SearchPoints
from search.loop.search import Listener, Search
from search.runs.journal import Record

ASKED = "CATCHMARK_TENSORBOARD"
_FOLDER = "tensorboard"


def tensorboard_listeners(folder: Path) -> list[Listener]:
    """Who writes a run's curves: somebody or, where it is not asked for, nobody.

    Args:
        folder: the run's folder, or that of a training.

    Raises:
        CatchmarkError: TensorBoard is asked for and is not installed.
    """
    if os.environ.get(ASKED, "0") in ("", "0"):
        return []
    if importlib.util.find_spec("tensorboard") is None:
        raise CatchmarkError(f"{ASKED} is set, and needs what is not installed: pip install tensorboard")
    return [TensorBoardCurves(folder / _FOLDER)]


class TensorBoardCurves(Listener):
    """A TensorBoard run for each search, and for each long training; what goes wrong there does not stop the run.

    Args:
        folder: of all of them; each has one below it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writers: dict[str, Any] = {}
        self._steps: dict[str, int] = {}
        self._points: SearchPoints | None = None
        self._failed = False

    # ---- searches --------------------------------------------------------------------------------------------------

    def search_began(self, search: Search, records: Sequence[Record]) -> None:
        """Write what an earlier attempt evaluated, too."""
        self._points = SearchPoints(search)
        with self._guarded():
            self._open(search.name)
            self._add(search.name, records)

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Write every evaluation that is complete over the trials."""
        with self._guarded():
            self._add(search.name, records)

    def search_ended(self, search: Search) -> None:
        """Leave the search's curves."""
        with self._guarded():
            self._close(search.name)

    def _add(self, name: str, records: Sequence[Record]) -> None:
        assert self._points is not None
        for record in records:
            for point in self._points.add(record):
                self._write(name, point, point.pop("evaluation"))

    # ---- trainings -------------------------------------------------------------------------------------------------

    def trained(self, name: str, epochs: int, values: Mapping[str, float], new: bool, trial: int = 0) -> None:
        """Write an epoch, also one of an earlier attempt; of a training that ended then there is nothing to say."""
        if not values:
            return
        with self._guarded():
            run = f"{name}-{trial}"
            if run not in self._steps:
                self._open(run)
            self._steps[run] += 1
            self._write(run, values, self._steps[run])

    def training_ended(self, name: str, trial: int, history: Sequence[Mapping[str, float]]) -> None:
        """Write what another process has not said in time, and leave the training's curves."""
        run = f"{name}-{trial}"
        for values in history[self._steps.get(run, 0) :]:
            self.trained(name, 1, values, True, trial)
        with self._guarded():
            self._close(run)

    # ---- files -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the curves of what was cut short."""
        with self._guarded():
            for run in list(self._writers):
                self._close(run)

    def _open(self, run: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = self.folder / run
        shutil.rmtree(place, ignore_errors=True)  # of an earlier attempt, whose points all come again
        self._writers[run], self._steps[run] = SummaryWriter(str(place)), 0

    def _write(self, run: str, values: Mapping[str, Any], step: int) -> None:
        for key, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and key != "epoch":
                self._writers[run].add_scalar(key, value, step)

    def _close(self, run: str) -> None:
        if (writer := self._writers.pop(run, None)) is not None:
            writer.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """A full disk ends the curves, and nothing else."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                print(f"TensorBoard: curves have stopped ({one_line(error)}); the run goes on", file=sys.stderr)
            self._failed = True
