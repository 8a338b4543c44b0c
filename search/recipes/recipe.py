"""Reads a recipe: a YAML file that names classes and their arguments.

Two passes. `search.recipes.check` walks the YAML beside the signatures of the classes it names and says what is wrong
where. Then jsonargparse, which LightningCLI uses too, parses types and builds the objects, class by class
(`search.recipes.parts`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.agents.base import Agent
from search.errors import CatchmarkError, explain, kind, nearest, one_line
from search.recipes.build import build_study
from search.recipes.check import RecipeCheck
from search.recipes.classes import find_class, find_parameters
from search.recipes.outline import RECIPES
from search.recipes.tiny import SUFFIX, Tiny
from search.recipes.trust import RECIPE, Trust, Untrusted
from search.recipes.yaml_text import dump_yaml, parse_yaml
from search.runs.folders import shown_path
from search.studies.base import Study
from search.studies.experiment import Experiment

NAMED = ("agents", "targets", "methods", "attributes")
"""Mappings of a recipe whose keys are names of the user's choice."""
_NAME = re.compile(r"\w[\w+-]{0,99}")
_RECIPE_NAME = re.compile(r"\w(?:[\w.+() -]{0,98}[\w+()-])?")


def load_recipe(
    path: str | Path, overrides: Mapping[str, str] | None = None, trust: Trust = RECIPE, tiny: bool = False
) -> tuple[Study, str]:
    """Build what a recipe describes: agents on tasks, or the study that its ``class_path`` names.

    Args:
        path: the YAML file.
        overrides: values that replace the file's, by dotted key, as text in YAML: ``{"agents.catch.init_args.context":
            "zero"}``. ``init_args`` may be left out of a key; ``agent.KEY`` stands for every agent that takes KEY.
        trust: what the file may name. Where it was found in a run's folder, and not named by the user, it is data.
        tiny: cut to seconds (`search.recipes.tiny`).

    Returns:
        The study, and the resolved recipe as YAML: with every default, enough to run it again.

    Raises:
        CatchmarkError: the recipe is wrong; one line that names the key, the value and what is allowed.
    """
    try:
        with trust.held():
            study, resolved = _load(Path(path), overrides or {}, trust, tiny)
    except Untrusted as error:
        raise Untrusted(f"{path}: {error}") from error
    study.trust = trust
    return study, resolved


def _load(path: Path, overrides: Mapping[str, str], trust: Trust, tiny: bool) -> tuple[Study, str]:
    recipe = read_recipe(path)
    for key, text in overrides.items():
        _override(recipe, key, text, trust)
    named = "class_path" in recipe
    values = recipe if not named else recipe.setdefault("init_args", {})
    if isinstance(values, dict) and values.get("name") in (None, ""):
        values["name"] = re.sub(r"[^\w.+() -]", "_", path.stem).strip(". -")[:100] or "recipe"
    if tiny and isinstance(values, dict):
        values["name"] = f"{values['name']}{SUFFIX}"
    check = RecipeCheck(trust, Tiny(trust) if tiny else None)
    if not named:
        checked = check.arguments(recipe, Experiment, "")
        _check_names(checked)
        study = build_study(checked, check, Experiment)
        return study, dump_yaml(study.recipe)
    described = check.class_(recipe, Study, "")
    _check_names(described["init_args"])
    found = find_class(described["class_path"], Study, "class_path", trust)
    study = build_study(described["init_args"], check, found)
    return study, dump_yaml({"class_path": described["class_path"], "init_args": study.recipe})


def read_recipe(path: Path) -> dict[str, Any]:
    """The content of a recipe's file, laid over that of its ``base``, if it names one.

    Mappings are laid over each other key by key; ``null`` in place of a mapping, or of a class that is named without
    arguments among agents, targets, methods or attributes, takes it out; everything else replaces what was there. A
    relative base is relative to the file that names it.

    Raises:
        CatchmarkError: there is no such file, it is not a YAML mapping, or it is its own base.
    """
    chain = [path.resolve()]
    contents = [_read_file(path)]
    while (base := contents[-1].pop("base", None)) is not None:
        if not isinstance(base, str):
            raise CatchmarkError(f"{path}: base: the path of a recipe is needed, this is {kind(base)}")
        chain.append((chain[-1].parent / base).resolve())
        if chain[-1] in chain[:-1]:
            raise CatchmarkError(f"{path}: base: '{base}' leads back to a recipe that is based on it")
        contents.append(_read_file(chain[-1]))
    content = contents.pop()
    while contents:  # from the lowest up: what a recipe takes out must not come back from further below
        above = contents.pop()
        content = _laid_over(content, above)
        agents = above.get("agents")
        for name in [each for each, value in agents.items() if value is None] if isinstance(agents, dict) else ():
            _leave_untrained(content, name)
    return content


def _leave_untrained(recipe: dict[str, Any], agent: str) -> None:
    """Take an agent that was left out of what is meta-trained too, and with the last one its meta-training."""

    def kept(phase: Any) -> bool:
        if isinstance(phase, dict) and isinstance(phase.get("agents"), list) and agent in phase["agents"]:
            phase["agents"] = [each for each in phase["agents"] if each != agent]
            return bool(phase["agents"])
        return True

    if not kept(recipe.get("meta_training")):
        del recipe["meta_training"]
    of_targets = recipe.get("meta_training_for")
    if isinstance(of_targets, dict):
        for target, phases in of_targets.items():
            if isinstance(phases, list):
                of_targets[target] = [phase for phase in phases if kept(phase)]


def _laid_over(below: dict[str, Any], above: dict[str, Any], named: bool = False) -> dict[str, Any]:
    """One recipe over another; ``named`` where keys are names that the user has chosen for classes.

    Arguments of a class are another class's no more.
    """
    if "class_path" in above and above["class_path"] != below.get("class_path", above["class_path"]):
        return above
    content = dict(below)
    for key, value in above.items():
        if value is None and isinstance(content.get(key), (dict, str) if named else dict):
            del content[key]
        elif isinstance(content.get(key), dict) and isinstance(value, dict):
            content[key] = _laid_over(content[key], value, key in NAMED)
        else:
            content[key] = value
    return content


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CatchmarkError(f"recipe '{path}' is {_instead_of_a_file(path)}")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CatchmarkError(f"{path}: a recipe is UTF-8 text, this is not: {one_line(error)}") from error
    except OSError as error:
        raise CatchmarkError(f"recipe {explain(error)}") from error
    except CatchmarkError as error:
        raise CatchmarkError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise CatchmarkError(f"{path}: a recipe is a mapping of keys to values, this is {kind(content)}")
    return content


def _instead_of_a_file(path: Path) -> str:
    if path.is_dir():
        there = ", ".join(sorted(str(each) for each in path.glob("*.yaml"))[:5])
        return f"a folder, a .yaml file is needed{'; in it: ' if there else ''}{there}"
    shipped = {each.stem: shown_path(each) for each in sorted(RECIPES.glob("**/*.yaml"))}
    near = nearest(path.stem, shipped, words="")
    for name, place in shipped.items():
        near = near.replace(f"'{name}'", f"'{place}'")
    return f"not a file{near or '; catchmark list names the recipes that ship'}"


def _override(recipe: dict[str, Any], key: str, text: str, trust: Trust) -> None:
    """Replace one value of a recipe, in place."""
    parts = key.split(".")
    if parts[0] == "agent" and len(parts) > 1:
        for name in _agents_that_take(recipe, parts[1], key, trust):
            _override(recipe, ".".join(["agents", name, *parts[1:]]), text, trust)
        return
    if not all(parts):
        raise CatchmarkError(f"--{key}: a key is names with single dots between them, as in agents.catch.context")
    try:
        value = parse_yaml(text)
    except CatchmarkError as error:
        raise CatchmarkError(f"--{key}: the value {kind(text)} is not valid YAML: {error}") from error
    at: Any = recipe
    for depth, part in enumerate(parts):
        if not isinstance(at, dict):
            raise CatchmarkError(f"--{key}: '{'.'.join(parts[:depth])}' is {kind(at)}, it has no '{part}'")
        if "class_path" in at and part not in ("class_path", "init_args"):
            at = at.setdefault("init_args", {})
            if at is None or not isinstance(at, dict):
                raise CatchmarkError(f"--{key}: '{'.'.join(parts[:depth])}.init_args' is {kind(at)}, not a mapping")
        if depth == len(parts) - 1:
            if value is None and isinstance(at.get(part), (dict, str)) and depth == 1 and parts[0] in NAMED:
                del at[part]  # as `null` over a mapping takes it out in a recipe with a base
                if parts[0] == "agents":
                    _leave_untrained(recipe, part)
            else:
                at[part] = value
            return
        # A setting that stands at its default is not in the recipe; a name of the user's own choice must be.
        if part not in at and depth == 1 and parts[0] in NAMED:
            raise CatchmarkError(f"--{key}: the recipe has no '{'.'.join(parts[:2])}'{nearest(part, map(str, at))}")
        if isinstance(at.get(part), str):
            at[part] = {"class_path": at[part]}  # a class named without arguments gets its first
        at = at.setdefault(part, {})


def _agents_that_take(recipe: dict[str, Any], argument: str, key: str, trust: Trust) -> list[str]:
    """The recipe's agents whose class has such an argument; ``--agent.KEY`` is for all of them."""
    agents = recipe.get("agents")
    takers, known = [], set()
    for name, agent in agents.items() if isinstance(agents, dict) else ():
        path = agent.get("class_path") if isinstance(agent, dict) else agent
        if isinstance(path, str):
            parameters, _, open_ended = find_parameters(find_class(path, Agent, f"agents.{name}", trust), skip=3)
            known |= set(parameters)
            if open_ended or argument in parameters:
                takers.append(str(name))
    if not takers:
        raise CatchmarkError(
            f"--{key}: no agent of the recipe takes '{argument}'{nearest(argument, known, 'they take')}"
        )
    return takers


def _check_names(recipe: dict[str, Any]) -> None:
    """Names become keys on the command line, parts of search names, files of weights, and the folder of the runs."""
    _check_name(recipe["name"], "name", _RECIPE_NAME, "dots and spaces inside", taken="latest")
    for group, taken in (("agents", None), ("targets", "meta_training"), ("methods", "stand_alone")):
        if group not in recipe:
            continue
        if not recipe[group]:
            raise CatchmarkError(f"{group}: at least one is needed")
        for name in recipe[group]:
            _check_name(name, group, _NAME, "no dots, spaces or slashes", taken)


def _check_name(name: str, key: str, allowed: re.Pattern[str], words: str, taken: str | None) -> None:
    if name == taken:
        raise CatchmarkError(f"{key}: the name '{name}' is taken by the run's own records; choose another one")
    if not allowed.fullmatch(name):
        raise CatchmarkError(
            f"{key}: {kind(name)} can't be a name; letters, digits, '_', '-' and '+' can, {words}, 100 at most"
        )
