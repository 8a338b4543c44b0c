"""Errors that the command line shows as a single line, and the words in which they are told."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_LONGEST_VALUE, _LONGEST_MESSAGE = 60, 400


class CatchmarkError(Exception):
    """Something the user can mend in what they gave: the message names the cause and the cure in one line."""

    exit_code = 2


class RunError(CatchmarkError):
    """A run that was asked for rightly cannot go on; what it has found is safe in its journal."""

    exit_code = 1


def one_line(error: BaseException) -> str:
    """An exception's message, or its type where it has none, without line breaks."""
    try:
        message = str(error)
    except Exception:  # a user's own class may be wrong about itself
        message = ""
    return " ".join(message.split()) or type(error).__name__


def nearest(name: object, known: Iterable[object], words: str = "allowed", cutoff: float = 0.6) -> str:
    """The end of an error line: the nearest valid spelling, or else all there is (`lightning_modules.spelling`)."""
    # Imported late: until the command line has put the current folder last, a folder there may be called so too.
    from lightning_modules import spelling

    return spelling.nearest(name, known, words, cutoff)


def kind(value: Any) -> str:
    """A value of a recipe in a few words."""
    if words := {dict: "a mapping", list: "a list", type(None): "empty"}.get(type(value)):
        return words
    text = str(value).lower() if isinstance(value, (bool, float)) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def join(key: str, name: Any) -> str:
    """The dotted key of a value below another one."""
    return f"{key}.{name}" if key else str(name)


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
