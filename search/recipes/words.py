"""The words in which errors about recipes and runs are told."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from search.errors import one_line

_LONGEST_VALUE, _LONGEST_MESSAGE, _MOST_NAMES = 60, 400, 30


def kind(value: Any) -> str:
    """A value of a recipe in a few words."""
    if words := {dict: "a mapping", list: "a list", type(None): "empty"}.get(type(value)):
        return words
    text = str(value).lower() if isinstance(value, (bool, float)) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def join(key: str, name: Any) -> str:
    """The dotted key of a value below another one."""
    return f"{key}.{name}" if key else str(name)


def nearest(name: str, known: Iterable[str], words: str = "allowed") -> str:
    """The end of an error line: the nearest valid spelling, or else all there is.

    Args:
        name: what was said.
        known: what could be said.
        words: what to call the list of all there is; empty to leave it out.
    """
    folded = {each.casefold(): each for each in known}
    if close := difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6):
        return f"; did you mean '{folded[close[0]]}'?"
    shown = [*folded.values()][:_MOST_NAMES]
    more = ", ..." if len(shown) < len(folded) else ""
    return f"; {words}: {', '.join(shown)}{more}" if folded and words else ""


def explain(error: BaseException) -> str:
    """An exception in one line, with its place in the code where it is not one that is raised to speak to a user."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"'{error.filename}': {error.strerror}"
    trace = traceback.extract_tb(error.__traceback__)
    loader = getattr(sys.modules.get("torch.serialization"), "__file__", None)
    if any(frame.filename == loader and frame.name == "load" for frame in trace):
        # torch's own words advise to load the file with its code executed.
        return "the file is not one of tensors and plain values, as torch.save writes; nothing in it was executed"
    message = one_line(error)
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE - 3]}..."
    if isinstance(error, (ValueError, OSError)):
        return message
    if not isinstance(error, SyntaxError) and trace:  # that one names its place itself
        message += f" ({Path(trace[-1].filename).name}, line {trace[-1].lineno})"
    return message if message.startswith(type(error).__name__) else f"{type(error).__name__}: {message}"
