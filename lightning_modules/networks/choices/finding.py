"""Which choices a network has: their names, their order, and when each makes a difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from lightning_modules.networks.choices.choice_module import ChoiceModule, Condition
from lightning_modules.networks.choices.value import Choice, Value


@dataclass
class Declared:
    """A choice of a network.

    Attributes:
        name: its own, or the path of the module where it was met first and what of it is decided.
        choice: which has its place now.
        uses: for each place where it is used, the conditions under which that is there; an empty one for always.
    """

    name: str
    choice: Choice
    uses: list[tuple[Condition, ...]] = field(default_factory=list)


def find_choices(network: nn.Module) -> list[Declared]:
    """The choices of a network in the order of its modules, outer ones first; gives each its place.

    Raises:
        ValueError: two choices have one name.
    """
    found: dict[int, Declared] = {}

    def visit(module: nn.Module, path: str, conditions: tuple[Condition, ...]) -> None:
        for name, value in _values(module):
            for number, choice in enumerate(value.choices):
                name_here = _join(path, name) or "choice"
                default = name_here if len(value.choices) == 1 else f"{name_here}.{number}"
                found.setdefault(id(choice), Declared(choice.name or default, choice)).uses.append(conditions)
        for name, child, condition in _parts(module):
            visit(child, _join(path, name), conditions if condition is None else (*conditions, condition))

    visit(network, "", ())
    named: dict[str, Choice] = {}
    for place, each in enumerate(found.values()):
        if named.setdefault(each.name, each.choice) is not each.choice:
            raise ValueError(
                f"two choices are called '{each.name}': give each a name of its own, or use one Choice in both places"
            )
        each.choice.place, each.choice.name = place, each.name
    return list(found.values())


def _values(module: nn.Module) -> Iterator[tuple[str, Value]]:
    """What paths decide of a module itself; of a user's, whatever attribute is a value."""
    held = module.values() if isinstance(module, ChoiceModule) else vars(module)
    return ((name, each) for name, each in held.items() if isinstance(each, Value))


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module, Condition | None]]:
    if isinstance(module, ChoiceModule):
        return module.parts()
    return ((name, child, None) for name, child in module.named_children())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
