"""What somebody meant: the end of an error line about a name that is not known. Loads nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_NAMES = 30


def nearest(name: object, known: Iterable[object], words: str = "allowed", cutoff: float = 0.6) -> str:
    """The end of an error line: the nearest valid spelling, or else all there is.

    Args:
        name: what was said.
        known: what could be said.
        words: what to call the list of all there is; empty to leave it out.
        cutoff: as for `spelled_alike`.
    """
    names = list(map(str, known))
    if close := spelled_alike(name, names, 1, cutoff):
        return f"; did you mean '{close[0]}'?"
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"; {words}: {', '.join(names[:_MOST_NAMES])}{more}" if names and words else ""


def spelled_alike(name: object, known: Iterable[object], most: int, cutoff: float) -> list[str]:
    """The names that are spelled most like one, the nearest first.

    Args:
        name: what was said.
        known: what could be said; upper and lower case are alike.
        most: how many.
        cutoff: how alike they must be, from 0, however far, to 1, the same.
    """
    folded = {str(each).casefold(): str(each) for each in known}
    return [folded[each] for each in difflib.get_close_matches(str(name).casefold(), folded, most, cutoff)]
