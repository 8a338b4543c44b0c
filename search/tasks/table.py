"""A task whose evaluations are looked up in a benchmark table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from search.errors import RunError
from search.evaluation import LARGEST, Evaluation, Proposal, read_objectives
from search.spaces.base import SearchSpace
from search.tables.table import column_name, find_table, read_columns
from search.tasks.base import Task, keeps_limits

FLOPS = "flops_m"
"""The column with FLOPs, in millions."""


@dataclass(frozen=True)
class Measurement:
    """What a column of a table holds; the attributes are `TableTask`'s arguments of these names."""

    dataset: str
    split: str
    metric: str
    epochs: int | None

    @property
    def column(self) -> str:
        """The column's name."""
        return column_name(self.dataset, self.split, self.metric, self.epochs)


@dataclass(frozen=True)
class CostModel:
    """What an evaluation is said to cost, for tables without training times: a model, not a measurement.

    An architecture costs ``seconds * (1 - flops_share + flops_share * FLOPs / mean FLOPs)``. A part of a training step
    grows with the network's arithmetic, the rest (loading images, starting kernels) does not; how much is assumed.

    Attributes:
        seconds: mean over the architectures of the table.
        flops_share: share of the mean, in [0, 1], that is proportional to the architecture's FLOPs, the table's column
            ``flops_m``. An architecture whose FLOPs are not in the table costs the mean.
    """

    seconds: float
    flops_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no evaluation can cost."""
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"cost_seconds is {self.seconds}, it must be a number of at least 0")
        if not 0 <= self.flops_share <= 1:
            raise ValueError(f"cost_seconds.flops_share is {self.flops_share}, it must lie in [0, 1]")

    def costs(self, flops: Tensor) -> Tensor:
        """Seconds of each architecture: ``[n]`` FLOPs in any unit, NaN where unknown, to float64 ``[n]``."""
        flops = flops.double()
        return self.seconds * (1 - self.flops_share + self.flops_share * (flops / flops.nanmean()).nan_to_num(nan=1.0))


class TableTask(Task):
    """One column of a benchmark table as a reward.

    Split and epochs have no default: a validation accuracy after 12 epochs and a test accuracy after 200 are different
    tasks, and a recipe must say which one it means.

    Where ``fidelities`` names epochs that the table has as well, an agent may ask for them: what such an evaluation
    gives and costs is that after so many epochs. A proposal whose parent is the architecture itself goes on with its
    training: it costs what lies beyond the next lower of the ``fidelities``. Of other parents a table knows nothing.

    Args:
        space: the search space of the table.
        table: the table's path (format: `search.tables.table`); a relative one is looked for below the current folder,
            then below ``$CATCHMARK_DATA``, then among the tables that ship.
        dataset: data set of the column, for instance ``cifar10_valid``.
        split: what it was measured on: ``val`` or ``test``.
        metric: what was measured, for instance ``acc``; higher must be better.
        epochs: epochs of training; None for a column that has none in its name.
        cost_seconds: what an evaluation is said to cost, in seconds: one number for all architectures or a
            `CostModel`; a dict of the same keys does as well.
        also: further columns of the table. Their values become metrics of an evaluation, by the columns' names; values
            that were not measured are left out.
        objectives: what is wanted of the column, by its name, and of these, ``max`` or ``min``, each
            perhaps with a hard limit: ``{flops_m: {direction: min, limit: 50.0}}``.
        fidelities: epochs, lower than ``epochs``, that an agent may ask for: of each the table has the column, and an
            evaluation costs its share of the epochs. Empty: every evaluation is the full one.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: there is no such column (the nearest ones are named), the table is of another space, or a cost or
            a fidelity is out of range.
    """

    instant = True

    def __init__(
        self,
        space: SearchSpace,
        table: str,
        dataset: str,
        split: str,
        metric: str,
        epochs: int | None,
        cost_seconds: float | CostModel = 0.0,
        also: Sequence[Measurement] = (),
        objectives: dict[str, Any] | None = None,
        fidelities: Sequence[int] = (),
    ):
        path = find_table(table)
        model = cost_seconds
        if isinstance(model, dict):
            model = CostModel(**model)
        elif not isinstance(model, CostModel):
            model = CostModel(model)
        further = [(Measurement(**each) if isinstance(each, dict) else each).column for each in also]
        self.space, self.cost_seconds = space, model.seconds
        self.column = self.score_metric = column_name(dataset, split, metric, epochs)
        self.objectives = read_objectives(objectives or {})
        for name in self.objectives:
            if name not in (known := (self.column, *further)):
                raise ValueError(f"objectives has '{name}', allowed: {', '.join(known)}")
        self.epochs, lower = epochs, sorted(set(fidelities))
        if lower and (epochs is None or lower[0] < 1 or lower[-1] >= epochs):
            raise ValueError(f"fidelities is {list(fidelities)}, numbers from 1 to below epochs ({epochs}) are allowed")
        self.honours = frozenset({"epochs", "parent"}) if lower else frozenset()
        at = {few: column_name(dataset, split, metric, few) for few in lower}
        # FLOPs are read only where they decide something: not every table has them.
        wanted = [self.column, *further, *at.values(), *([FLOPS] if model.flops_share else [])]
        content = read_columns(path, list(dict.fromkeys(wanted)))
        archs = torch.from_numpy(content.arch).long()
        if content.space not in (None, space.name, space.part_of):
            raise ValueError(f"{path}: the table is of the space '{content.space}', the task's is '{space.name}'")
        if archs.shape[-1] != len(space.sizes) or not self._in_range(archs).all():
            raise ValueError(f"{path}: its architectures do not belong to the space '{space.name}' {space.sizes}")
        # Sorted codes and a binary search: no larger than the table, where the space has far more architectures.
        order = space.code(archs).argsort()
        order = order[space.is_valid(archs[order])]  # the space may be a part of the table's
        if not len(order):
            raise ValueError(f"{path}: none of its architectures belongs to the space '{space.name}'")
        self._archs = archs[order]
        self._codes = space.code(self._archs)
        columns = {name: _measured(torch.from_numpy(column).double()) for name, column in content.columns.items()}
        self._scores = columns[self.column][order]
        self._further = {name: columns[name][order] for name in further}
        self._lower = {few: columns[name][order] for few, name in at.items()}
        # All at once, so that no rounding depends on which architectures are asked together.
        self._costs = model.costs(columns[FLOPS] if model.flops_share else torch.ones(len(archs)))[order]
        if (self._codes[1:] == self._codes[:-1]).any():
            raise ValueError(f"{path}: an architecture stands in it twice")
        self.score_name = _describe(dataset, split, metric, epochs)
        self._table_name = path.name

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A column of a table that ships, for `NASBench201`."""
        return {"table": "nasbench201.npz", "dataset": "cifar100", "split": "val", "metric": "acc", "epochs": 200}

    def scores(self, archs: Tensor) -> Tensor:
        """The scores of many architectures.

        Args:
            archs: int64 ``[..., decisions]``.

        Returns:
            Float64 ``[...]``; NaN where the table has no value.

        Raises:
            ValueError: a choice index is out of the space's range.
        """
        position, known = self._places(archs)
        return torch.where(known, self._scores[position], math.nan)

    def _places(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """Where architectures stand in the sorted table, and whether they do: ``[..., decisions]`` to ``[...]``."""
        if archs.shape[-1] != len(self.space.sizes) or not self._in_range(archs).all():
            raise ValueError(f"{self.space.name}: not architectures of this space, the sizes are {self.space.sizes}")
        codes = self.space.code(self.space.canonical(archs))
        position = torch.searchsorted(self._codes, codes).clamp(max=len(self._codes) - 1)
        return position, self._codes[position] == codes

    def evaluate(self, proposals: Sequence[Proposal]) -> Iterator[Evaluation]:
        """The table's values, looked up together; seeds change nothing, for a table has one value an architecture.

        Raises:
            RunError: a proposal asks for epochs that are not among the ``fidelities``, or for another one's weights.
        """
        if not proposals:
            return
        architectures = [proposal.architecture for proposal in proposals]
        position, known = self._places(torch.tensor(architectures, dtype=torch.long))
        scores = torch.where(known, self._scores[position], math.nan).tolist()
        costs = torch.where(known, self._costs[position], self.cost_seconds).tolist()
        further = [column[position].tolist() for column in self._further.values()]
        for k, proposal in enumerate(proposals):
            if proposal.fidelity or proposal.parent is not None:
                few, share = self._asked(proposal)
                costs[k] *= share
                if few in self._lower:
                    scores[k] = float(self._lower[few][position[k]]) if known[k] else math.nan
        for k, (architecture, score, cost) in enumerate(zip(architectures, scores, costs, strict=True)):
            if math.isnan(score):
                after = "".join(f" after {few:g} epochs" for few in proposals[k].fidelity.values())
                reason = f"{self._table_name} has no {self.column} of {self.space.format(architecture)}{after}"
                yield Evaluation.failed(reason, cost)
            else:
                values = zip(self._further, (column[k] for column in further), strict=True)
                yield Evaluation(score, {name: value for name, value in values if not math.isnan(value)}, cost)

    def _asked(self, proposal: Proposal) -> tuple[int, float]:
        """The epochs that a proposal asks for, and which share of a full evaluation it costs."""
        assert self.epochs is not None, "without epochs nothing of this is honoured"
        epochs = proposal.fidelity.get("epochs", float(self.epochs))
        known = [*self._lower, self.epochs]
        if epochs not in known:
            raise RunError(f"the agent asks for {epochs:g} epochs, the target's fidelities are {known}")
        if proposal.parent not in (None, proposal.architecture):
            raise RunError(f"the agent asks for the weights of {proposal.parent}, a table knows nothing of inheriting")
        done = 0 if proposal.parent is None else max((few for few in known if few < epochs), default=0)
        return int(epochs), (epochs - done) / self.epochs

    def all_scores(self) -> Tensor | None:
        """The score of every architecture, float64 ``[size]`` in the order of `SearchSpace.enumerate`.

        NaN where the value was not measured, or a hard limit is missed; None where the table lacks architectures of
        the space.
        """
        if not self._complete:
            return None
        kept = keeps_limits(self.objectives, {self.column: self._scores, **self._further})
        return torch.where(kept, self._scores, math.nan)

    def all_objectives(self) -> Tensor | None:
        """The `objectives` of every architecture, float64 ``[size, objectives]``; NaN where not measured.

        None where the table lacks architectures of the space, or there are no objectives.
        """
        if not self.objectives or not self._complete:
            return None
        columns = {self.column: self._scores, **self._further}
        return torch.stack([columns[name] for name in self.objectives], dim=1)

    def known_architectures(self) -> Tensor | None:
        """The rows with a score, int64 ``[n, decisions]``, where the table lacks architectures of the space."""
        return None if self._complete else self._archs[~self._scores.isnan()]

    @cached_property
    def _complete(self) -> bool:
        """Whether the table has every architecture of the space."""
        if len(self._codes) == math.prod(self.space.sizes):
            return True
        # Some architectures may be ruled out; of a space larger than the table one too many is enough to know.
        known = set(self._codes.tolist())
        some = itertools.islice(self.space.enumerate(), len(known) + 1)
        return all(int(self.space.code(torch.tensor(architecture))) in known for architecture in some)

    def _in_range(self, archs: Tensor) -> Tensor:
        return ((archs >= 0) & (archs < torch.tensor(self.space.sizes))).all(-1)


def _measured(column: Tensor) -> Tensor:
    """A column with NaN, not measured, in place of what no measurement gives: infinity, or nearly that."""
    return torch.where(column.abs() <= LARGEST, column, math.nan)


def _describe(dataset: str, split: str, metric: str, epochs: int | None) -> str:
    """The score's name with its unit, for instance ``cifar10_valid val accuracy after 200 epochs (%)``."""
    kind, _, condition = metric.partition("_")
    if kind == "acc":
        metric = f"accuracy{' ' if condition else ''}{condition.replace('_', ' ')}"
    after = "" if epochs is None else f" after {epochs} epochs"
    return f"{dataset} {split} {metric}{after}{' (%)' if kind == 'acc' else ''}"
