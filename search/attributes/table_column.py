"""What somebody has measured before, looked up."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from search.attributes.base import Attribute
from search.evaluation import Architecture
from search.spaces.base import SearchSpace
from search.tables.table import find_table, read_columns


class TableColumn(Attribute):
    """A column of a table, such as a zero-cost proxy that was measured of a whole space.

    Args:
        space: that the table is of.
        table: its path (format: `search.tables.table`); ``catchmark rank`` leaves one of every ranking in its run.
        column: which of its columns.
        direction: which values presumably go with better networks, ``max`` or ``min``.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: there is no such column (the nearest ones are named), or the table is of another space.
    """

    def __init__(self, space: SearchSpace, table: str, column: str, direction: str = "max"):
        super().__init__(space)
        if direction not in ("max", "min"):
            raise ValueError(f"direction is '{direction}', allowed: max, min")
        self.name, self.direction = column, direction
        path = find_table(table)
        content = read_columns(path, [column])
        if content.space not in (None, space.name, space.part_of) or content.arch.shape[1] != len(space.sizes):
            raise ValueError(f"{path}: the table is of the space '{content.space}', not of '{space.name}'")
        codes = space.code(space.canonical(torch.from_numpy(content.arch).long())).tolist()
        self._column = dict(zip(codes, content.columns[column].tolist(), strict=True))

    @classmethod
    def toy(cls) -> dict[str, str]:
        """A column of a table that ships, for `NASBench201`."""
        return {"table": "nasbench201.npz", "column": "flops_m"}

    def measure(self, architectures: Sequence[Architecture]) -> list[float]:
        """The column's values; NaN of architectures that the table does not have."""
        codes = self.space.code(torch.tensor(architectures)).tolist()
        return [self._column.get(code, float("nan")) for code in codes]
