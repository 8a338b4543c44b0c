"""JSON files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from search.errors import RunError, one_line


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    temporary = path.with_suffix(".partial")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"{path} could not be written ({one_line(error)}): see to the disk, then resume the run; nothing is lost"
        ) from error
