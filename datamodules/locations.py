"""Where data are looked for: below the current folder, else below ``$CATCHMARK_DATA``, else among what ships."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

_VARIABLE = "CATCHMARK_DATA"


def locations(path: str | PathLike[str], shipped: Path | None = None) -> list[Path]:
    """Where a file or folder may lie, in the order of looking; an absolute path is taken as it is.

    Args:
        path: the file's or folder's.
        shipped: the folder of those that ship, where some of its kind do.
    """
    path, data = Path(path).expanduser(), os.environ.get(_VARIABLE)
    return [path, *([Path(data).expanduser() / path] if data else []), *([shipped / path] if shipped else [])]


def looked_in(path: str | PathLike[str]) -> str:
    """For a message, behind the path: the folders that it was looked for in, or nothing for an absolute path."""
    if Path(path).expanduser().is_absolute():
        return ""
    return f" in {Path.cwd()} or in ${_VARIABLE} ({os.environ.get(_VARIABLE) or 'not set'})"
