"""Errors that the command line shows as a single line."""


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
