"""Text files that are written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search.training.tensor_files import whole


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n", "resume the run; nothing is lost")


def write_whole(path: Path, text: str, cure: str) -> None:
    """Write a text whole or not at all; what UTF-8 can't hold is replaced.

    Args:
        path: of the file.
        text: its content.
        cure: closes the message: what to do once there is room.

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    with whole(path, cure) as file:
        file.write(text.encode("utf-8", errors="replace"))
