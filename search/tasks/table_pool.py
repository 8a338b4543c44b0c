"""Meta-training tasks out of benchmark tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.randomness import TrialRandom, derive_seed
from search.spaces.base import SearchSpace
from search.tables.table import column_name
from search.tasks.base import TaskPool
from search.tasks.table import TableTask


@dataclass(frozen=True)
class TableColumn:
    """One column of a table; the attributes are `TableTask`'s arguments of these names."""

    table: str
    dataset: str
    split: str
    metric: str
    epochs: int | None
    cost_seconds: float = 0.0


class TablePool(TaskPool):
    """Columns of tables in random order, every one once before any comes again.

    Args:
        space: the search space of all tables.
        tasks: the columns to draw from; dicts of the same keys do as well.

    Raises:
        ValueError: there is no column to draw.
    """

    def __init__(self, space: SearchSpace, tasks: Sequence[TableColumn]):
        self.space = space
        self.tasks = tuple(TableColumn(**task) if isinstance(task, dict) else task for task in tasks)
        if not self.tasks:
            raise ValueError("TablePool: 'tasks' is empty, at least one table column is needed")
        # Opened at once, so that a wrong path or column is found before anything has been searched.
        self._opened = {column: TableTask(space, **asdict(column)) for column in self.tasks}

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Columns of a table that ships, for `NASBench201`."""
        return {
            "tasks": [
                {"table": "nasbench201.npz", "dataset": name, "split": "val", "metric": "acc", "epochs": 12}
                for name in ("cifar100", "imagenet16_120")
            ]
        }

    def draw(self, index: int, seed: int) -> TableTask:
        """The ``index``-th task: a pure function of (index, seed)."""
        return self._opened[self._column(index, seed)]

    def describe(self, index: int, seed: int) -> str:
        """Table and column of the ``index``-th task."""
        column = self._column(index, seed)
        return f"{column.table}: {column_name(column.dataset, column.split, column.metric, column.epochs)}"

    def _column(self, index: int, seed: int) -> TableColumn:
        turn, place = divmod(index, len(self.tasks))
        order = TrialRandom(derive_seed(seed, "table pool", turn)).permutation(len(self.tasks))[0]
        return self.tasks[int(order[place])]
