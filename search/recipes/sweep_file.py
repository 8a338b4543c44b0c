"""A sweep's file, as W&B's agents read it: a recipe, which of its values are chosen how, and what judges them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, kind, nearest
from search.randomness import derive_seed
from search.recipes.yaml_text import parse_yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Point = dict[str, Any]
"""A value for every key that is chosen."""
METHODS = ("grid", "random", "bayes")
_COUNTED = ("values", "value")
_RANGES = {"uniform": False, "int_uniform": False, "log_uniform_values": True}
"""Distributions between ``min`` and ``max``; whether in their logarithm."""


@dataclass(frozen=True)
class SweepFile:
    """What a sweep's file says.

    Attributes:
        name: of the sweep.
        words: of ``catchmark run``, without those that are chosen.
        method: ``grid``, ``random`` or ``bayes``.
        metric: a number of ``summary.json``, its keys joined by slashes.
        maximised: whether more of it is better.
        parameters: by the recipe's dotted keys, as the file has them.
    """

    name: str
    words: list[str]
    method: str
    metric: str
    maximised: bool
    parameters: dict[str, Mapping[str, Any]]

    def grid(self) -> Iterator[Point]:
        """Every combination, the last key fastest.

        Raises:
            CatchmarkError: a key has no list of values.
        """
        lists = []
        for key, each in self.parameters.items():
            if (values := _values(each)) is None:
                raise CatchmarkError(f"parameters.{key}: a grid needs 'values' or a 'value'")
            lists.append(values)
        for chosen in itertools.product(*lists):
            yield dict(zip(self.parameters, chosen, strict=True))

    def draw(self, seed: int, known: Sequence[tuple[Point, float]]) -> Point:
        """The next point, which follows from the seed and what is known alone.

        ``random`` draws it at random; ``bayes`` by a tree-structured Parzen estimator (Optuna's, in place of W&B's
        Gaussian process) of the points so far, the first ten at random.

        Args:
            seed: of the sweep.
            known: the points so far and what came of them, in order; NaN of one that failed.
        """
        import optuna
        from optuna.trial import TrialState, create_trial

        number = derive_seed("sweep", seed, len(known))
        samplers = optuna.samplers
        sampler = samplers.TPESampler(seed=number) if self.method == "bayes" else samplers.RandomSampler(seed=number)
        ranges = {key: _distribution(each) for key, each in self.parameters.items()}
        logged = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(direction="maximize" if self.maximised else "minimize", sampler=sampler)
            for point, value in known:
                failed = math.isnan(value)
                study.add_trial(
                    create_trial(
                        state=TrialState.FAIL if failed else TrialState.COMPLETE,
                        value=None if failed else value,
                        params={key: self._inside(key, point[key]) for key in ranges},
                        distributions=ranges,
                    )
                )
            found = study.ask(ranges).params
        finally:
            optuna.logging.set_verbosity(logged)
        return {key: self._outside(key, value) for key, value in found.items()}

    def _inside(self, key: str, value: Any) -> Any:
        """As Optuna has it: the place of a value in its list, for it may be a list or a mapping itself."""
        values = _values(self.parameters[key])
        return value if values is None else values.index(value)

    def _outside(self, key: str, value: Any) -> Any:
        values = _values(self.parameters[key])
        return value if values is None else values[value]


def _values(parameter: Mapping[str, Any]) -> list[Any] | None:
    """What it is chosen from; None for a range."""
    if "values" in parameter:
        return list(parameter["values"])
    return [parameter["value"]] if "value" in parameter else None


def _distribution(parameter: Mapping[str, Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if (values := _values(parameter)) is not None:
        return CategoricalDistribution(range(len(values)))
    low, high, name = parameter["min"], parameter["max"], parameter.get("distribution")
    whole = name == "int_uniform" or (name is None and isinstance(low, int) and isinstance(high, int))
    return IntDistribution(low, high) if whole else FloatDistribution(low, high, log=_RANGES.get(str(name), False))


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep's file.

    Raises:
        CatchmarkError: it is none, or says what only W&B can do.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatchmarkError(f"sweep '{path}' can't be read ({error.strerror})") from error
    except (CatchmarkError, UnicodeDecodeError) as error:
        raise CatchmarkError(f"{path}: {error}") from error
    try:
        return _sweep(content, path.name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".sweep"))
    except CatchmarkError as error:
        raise CatchmarkError(f"{path}: {error}") from error


def _sweep(content: Any, name: str) -> SweepFile:
    if not isinstance(content, dict):
        raise CatchmarkError(f"a sweep is a mapping of keys to values, this is {kind(content)}")
    for key in ("command", "method", "metric", "parameters"):
        if key not in content:
            raise CatchmarkError(f"'{key}' is missing")
    if (method := content["method"]) not in METHODS:
        raise CatchmarkError(f"method: {kind(method)}{nearest(str(method), METHODS)}")
    command, metric, parameters = content["command"], content["metric"], content["parameters"]
    if not isinstance(command, list) or "run" not in command:
        raise CatchmarkError("command: a list with 'catchmark', 'run' and a recipe is needed")
    words = [str(each) for each in command[command.index("run") + 1 :] if not str(each).startswith("${")]
    if not isinstance(metric, dict) or "name" not in metric:
        raise CatchmarkError("metric: a 'name' is needed, and a 'goal'")
    if (goal := metric.get("goal", "minimize")) not in ("minimize", "maximize"):
        raise CatchmarkError(f"metric.goal: {kind(goal)}{nearest(str(goal), ('minimize', 'maximize'))}")
    if not isinstance(parameters, dict) or not parameters:
        raise CatchmarkError("parameters: at least one is needed")
    for key, each in parameters.items():
        _check_parameter(str(key), each)
    return SweepFile(name, words, method, str(metric["name"]), goal == "maximize", dict(parameters))


def _check_parameter(key: str, each: Any) -> None:
    where = f"parameters.{key}"
    if not isinstance(each, dict):
        raise CatchmarkError(f"{where}: a mapping is needed, this is {kind(each)}")
    if set(each) & set(_COUNTED):
        if "values" in each and not (isinstance(each["values"], list) and each["values"]):
            raise CatchmarkError(f"{where}.values: a list with something in it is needed")
        return
    name = each.get("distribution", "uniform")
    if name not in _RANGES:
        raise CatchmarkError(f"{where}.distribution: '{name}' can't be drawn here{nearest(str(name), _RANGES)}")
    low, high = each.get("min"), each.get("max")
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not low < high or (_RANGES[name] and low <= 0):  # type: ignore[operator]
        above = ", above 0" if _RANGES[name] else ""
        raise CatchmarkError(f"{where}: 'values', or 'min' below 'max'{above}, are needed")
