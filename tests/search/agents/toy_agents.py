"""What makes an agent cheap, for tests that make one themselves."""

import dataclasses
import typing


def toy_options(found):
    """The toy arguments of an agent as Python has them: settings as objects, where a recipe has their fields."""
    hints = typing.get_type_hints(found.__init__)

    def built(name, value):
        kinds = [each for each in (hints[name], *typing.get_args(hints[name])) if dataclasses.is_dataclass(each)]
        return kinds[0](**value) if kinds and isinstance(value, dict) else value

    return {name: built(name, value) for name, value in found.toy().items()}
