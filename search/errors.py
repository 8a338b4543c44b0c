"""The one error that the command line shows as a single line."""


class CatchmarkError(Exception):
    """Something the user can mend: the message names the cause and the cure in one line."""


def one_line(error: BaseException) -> str:
    """An exception's message, or its type where it has none, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
