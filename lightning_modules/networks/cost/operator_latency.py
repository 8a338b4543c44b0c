"""A network's latency as the sum of its operators', each of which is measured once.

Architectures of one space share most of their operators: once these have been measured, the latency of any further
network is a look-up that costs one pass without arithmetic, and the same number every time (FBNet, sec. 3.2, has such a
table by block).

What an operator is, PyTorch's dispatcher says: every call that a forward pass makes, whether a module or a line of
code made it, so that sums of branches and resizing count as convolutions do. Two calls are the same operator where
their names, the shapes and types of their tensors and all other arguments are equal. It is then named by them, for
instance ``aten.relu.default(float32[1, 16, 32, 32])``.

An operator is timed where it stands, in the first network that has it. Called by itself again and again it would find
its weights in the processor's innermost cache: on a server's CPU the operators of small residual networks took half
as long then.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.networks.cost.latency import (
    LatencySettings,
    Stopwatch,
    hardware_name,
    measuring,
    median_of_medians,
    prepare,
)

_FORMAT = "operator latencies 1"


def operators_of(network: nn.Module, settings: LatencySettings) -> list[str]:
    """Every operator of one forward pass, in order; those that only look at a tensor in another way are left out.

    The pass computes nothing: it runs on PyTorch's ``meta`` device, where tensors have shapes and no values. A network
    whose forward pass looks at values can't be traced so.

    Args:
        network: stays as it is.
        settings: of the images.
    """
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        traced, images = prepare(network, settings, "meta")
        with _Tracer() as tracer:
            traced(images)
    return tracer.operators


class OperatorLatencies:
    """The look-up table of one machine and one setting.

    Args:
        settings: of all its measurements.
        milliseconds: of each operator, by its key; more are added by `measure`.
        overhead: milliseconds between an operator and the next, see `calibrate`.
        hardware: what was measured; None for this machine.
    """

    def __init__(
        self,
        settings: LatencySettings,
        milliseconds: Mapping[str, float] | None = None,
        overhead: float = 0.0,
        hardware: str | None = None,
    ):
        self.settings, self.overhead = settings, overhead
        self.milliseconds = dict(milliseconds or {})
        self.hardware = hardware_name(torch.device(settings.device)) if hardware is None else hardware

    def measure(self, network: nn.Module, operators: Sequence[str] | None = None) -> int:
        """Measure those of a network's operators that the table lacks.

        What is in the table already stays as it is.

        Args:
            network: stays as it is.
            operators: what `operators_of` gives for it, where that is known; None to trace it.

        Returns:
            How many there were.

        Raises:
            ValueError: this machine has no such device, or the network calls other operators there than in a trace.
        """
        operators = list(operators or operators_of(network, self.settings))
        lacking = {operator for operator in operators if operator not in self.milliseconds}
        if not lacking:
            return 0
        self.settings.check_device()
        rounds: dict[str, list[list[float]]] = {operator: [] for operator in lacking}
        with measuring(self.settings):
            timed, images = prepare(network, self.settings, self.settings.device)
            with _Tracer() as tracer:
                timed(images)
            if tracer.operators != operators:
                different = next(pair for pair in zip_longest(operators, tracer.operators) if pair[0] != pair[1])
                raise ValueError(
                    f"the network calls {different[1]} on {self.settings.device}, but {different[0]} on meta"
                )
            for _ in range(self.settings.warmup):
                timed(images)
            for _ in range(self.settings.rounds):
                for times in rounds.values():
                    times.append([])
                for _ in range(self.settings.repeats):
                    with _Timer(Stopwatch(self.settings)) as timer:
                        timed(images)
                    for operator, milliseconds in zip(operators, timer.times(), strict=True):
                        if operator in lacking:
                            rounds[operator][-1].append(milliseconds)
        self.milliseconds |= {operator: median_of_medians(times)[0] for operator, times in rounds.items()}
        return len(lacking)

    def estimate(self, network: nn.Module, operators: Sequence[str] | None = None) -> float:
        """Milliseconds of a forward pass: the sum over its operators, and the overhead once for each.

        Args:
            network: stays as it is.
            operators: as for `measure`.

        Raises:
            ValueError: the table lacks an operator of the network.
        """
        total, count = self._sum(operators or operators_of(network, self.settings))
        return total + self.overhead * count

    def calibrate(self, measured: Iterable[tuple[nn.Module, float]]) -> float:
        """Fit the overhead to whole networks, by least squares.

        The time between operators goes into Python and into tensors that are no longer in the cache. It changes
        estimates of networks with many small operators against those of few large ones.

        Args:
            measured: networks whose operators are in the table, and their measured milliseconds.

        Returns:
            The overhead, at least 0.
        """
        products = squares = 0.0
        for network, milliseconds in measured:
            total, count = self._sum(operators_of(network, self.settings))
            products += count * (milliseconds - total)
            squares += count**2
        self.overhead = max(0.0, products / squares) if squares else 0.0
        return self.overhead

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON; a process that dies meanwhile leaves the old file."""
        content = {
            "format": _FORMAT,
            "hardware": self.hardware,
            "torch": torch.__version__,
            "settings": self.settings.described(),
            "overhead_ms": self.overhead,
            "operators_ms": dict(sorted(self.milliseconds.items())),
        }
        path = Path(path)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str], settings: LatencySettings) -> OperatorLatencies:
        """Read a table for this machine and these settings.

        Args:
            path: as `save` wrote it.
            settings: what is needed; how carefully was measured is not compared.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such table, or that of another machine or setting.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is '{content['format']}'")
            found = {"hardware": content["hardware"]} | content["settings"]
            milliseconds = {str(key): float(value) for key, value in content["operators_ms"].items()}
            overhead = float(content["overhead_ms"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: no table of operators' latencies ({error!r}); remove it") from error
        table = cls(settings, milliseconds, overhead)
        needed = {"hardware": table.hardware} | settings.described()
        for key, value in needed.items():
            if found.get(key) != value:
                raise ValueError(
                    f"{path}: its latencies are of {key} {found.get(key)}, those of {key} {value} are needed; name "
                    "another file to have them measured"
                )
        if bad := [key for key, value in milliseconds.items() if not 0 <= value < math.inf]:
            raise ValueError(f"{path}: the latency of {bad[0]} is {milliseconds[bad[0]]}; remove the line")
        return table

    def _sum(self, operators: Sequence[str]) -> tuple[float, int]:
        """The operators' milliseconds together, and their number."""
        counts = Counter(operators)
        if lacking := [key for key in counts if key not in self.milliseconds]:
            raise ValueError(
                f"{len(lacking)} of the network's {len(counts)} operators are not in the table, for instance "
                f"{lacking[0]}; measure the network first"
            )
        return math.fsum(n * self.milliseconds[key] for key, n in counts.items()), counts.total()


class _Listener(TorchDispatchMode):
    """Hears of every call of the dispatcher while it is active."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        return func(*args, **options) if func.is_view else self.call(func, args, options)

    def call(self, func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make a call that computes something."""
        raise NotImplementedError


class _Tracer(_Listener):
    """Names the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def call(self, func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        shown = [*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in sorted(options.items()))]
        self.operators.append(f"{func}({', '.join(shown)})")
        return func(*args, **options)


class _Timer(_Listener):
    """Times the calls."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self.stopwatch = stopwatch
        self.marks: list[tuple[Any, Any]] = []

    def call(self, func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        began = self.stopwatch.read()
        result = func(*args, **options)
        self.marks.append((began, self.stopwatch.read()))
        return result

    def times(self) -> list[float]:
        """Milliseconds of each call."""
        return [self.stopwatch.milliseconds(*mark) for mark in self.marks]


def _shown(value: Any) -> str:
    """An argument of an operator as part of its name: the same on every device."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    return "device" if isinstance(value, torch.device) else str(value)
