"""Cuts a recipe to seconds: ``catchmark run RECIPE --tiny`` walks every path that the recipe has, at toy size.

Every class says what makes it cheap (``toy``, of spaces ``toy_build``). What its constructor has a default for is
replaced by that; what a recipe has to say stays, and a number is only ever replaced by a smaller one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from typing import Any

from search.recipes.classes import find_class
from search.recipes.trust import Trust
from search.spaces.base import SearchSpace
from search.studies.base import Study

SUFFIX = "-tiny"
"""Behind the name of a run, so that its folder says what it is."""
NOTICE = "TINY, cut to seconds by --tiny to see whether it runs: its numbers say nothing."
"""Before the description, which opens the report."""
_DATA = {"batch_size": 8, "num_workers": 0}
"""What makes any data module cheap."""
_TRAINING = ("TrainedTask", "SubtaskPool", "TwoStageTask")
"""Where these are, an evaluation takes a noticeable time, and one trial must do."""

_SLOW = ("DetectionModule", "TwoStageTask")
"""Where these are it takes a second or more."""
_BY_TARGET = ("targets", "meta_training_for", "budget_seconds")
"""What a recipe says target by target, or may say so."""
_ALIKE = 2
"""Targets that differ in nothing but names and numbers which are searched on: the next one runs the same code again."""


class Tiny:
    """Replaces the arguments of one class after another, from the study on.

    Args:
        trust: what may be imported.
    """

    def __init__(self, trust: Trust):
        self._trust, self._build, self._is_truth = trust, dict[str, Any](), False

    def __call__(self, owner: type, given: dict[str, Any], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
        """The arguments at toy size.

        Args:
            owner: the class that takes them.
            given: what the recipe says.
            known: the parameters of its constructor.
        """
        toy = dict(getattr(owner, "toy", dict)() or {})
        if given.get("init"):  # who starts from weights has their sizes
            return given
        if hasattr(owner, "train_dataloader"):
            toy = _DATA | toy
        if issubclass(owner, Study):
            self._look_at(given)
            toy |= self._of_study(given, known)
        if "build" in known and (given.get("build") or not is_dataclass(owner)):  # else one further up holds
            toy["build"] = self._build
        if "levels" in known:  # a few evaluations lead up a single step
            levels = given.get("levels", known["levels"].default)
            toy["levels"] = [levels[0], levels[-1]]
        if owner.__name__ == "DetectionModule":
            detector = given.get("detector", "faster_rcnn")
            if detector == "faster_rcnn":
                toy["overrides"] = {
                    "neck": {"out_channels": 16},
                    "roi_head": {"bbox_head": {"fc_out_channels": 16}},
                }
            elif detector in ("retinanet", "nas_fpn"):
                toy["overrides"] = {"bbox_head": {"feat_channels": 16, "stacked_convs": 1}}
        if self._is_truth and owner.__name__ == "TrainedTask" and given.get("score") in (None, "val_accuracy"):
            toy["score"] = "val_loss"  # of so few images networks get equally many right, and landmarks must differ
        smaller = dict(given)
        if issubclass(owner, Study):
            left = _beyond(given.get("targets"))
            smaller |= {key: _without(left, given[key]) for key in _BY_TARGET if key in given}
        for name, value in toy.items():
            if name in known and known[name].default is not inspect.Parameter.empty:
                smaller[name] = _smaller(given.get(name, known[name].default), value)
        return smaller

    def _look_at(self, study: dict[str, Any]) -> None:
        space = study.get("space")
        while isinstance(space, dict) and "space" in (arguments := space.get("init_args") or {}):
            space = arguments["space"]  # of a part of a space, whose networks it builds
        path = space.get("class_path") if isinstance(space, dict) else space
        if isinstance(path, str):
            found = find_class(path, SearchSpace, "space", self._trust)
            self._build = found.toy_build()  # type: ignore[attr-defined]
        self._is_truth = "truth" in study

    def _of_study(self, given: dict[str, Any], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
        """What depends on the whole of it."""
        text, toy = json.dumps(given, default=str), dict[str, Any]()
        if any(name in text for name in _TRAINING):
            toy["trials"] = 1
        if any(name in text for name in _SLOW):
            toy["budget"] = 2
        toy["description"] = f"{NOTICE} {given.get('description', '')}".strip()
        return toy


def _without(targets: Collection[str], given: Any) -> Any:
    """What a recipe says by target, for all others."""
    return {name: each for name, each in given.items() if name not in targets} if isinstance(given, dict) else given


def _beyond(targets: Any) -> list[str]:
    """The names of targets behind the first few that are alike."""
    alike: dict[str, list[str]] = {}
    for name, each in targets.items() if isinstance(targets, dict) else ():
        alike.setdefault(json.dumps(_classes(each) if isinstance(each, dict) else each), []).append(name)
    return [name for names in alike.values() for name in names[_ALIKE:]]


def _classes(given: Any) -> Any:
    """The classes that something is made of, and what they are given by its name; of lists each kind once."""
    if isinstance(given, dict):
        return {key: each if key == "class_path" else _classes(each) for key, each in given.items()}
    if isinstance(given, list):
        return sorted({json.dumps(_classes(each)) for each in given})
    return isinstance(given, str)


def _smaller(given: Any, toy: Any) -> Any:
    """What to take in place of a given value."""
    if isinstance(given, dict) and isinstance(toy, dict) and "class_path" not in given:
        return given | {name: _smaller(given.get(name), value) for name, value in toy.items()}
    if _is_number(given) and _is_number(toy):
        return min(given, toy)
    return toy


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
