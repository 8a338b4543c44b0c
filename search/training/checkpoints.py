"""How Lightning writes and reads its checkpoints here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import TorchCheckpointIO

from search.training.tensor_files import load_tensors, save_tensors


class WholeCheckpoints(TorchCheckpointIO):
    """A plugin of the Trainer: checkpoints are on the disk when they are said to be, and none is read that is damaged.

    Lightning's own way leaves it to the system when to write, and gathers the file in the folder for temporary ones,
    which may be another, full, disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace the file in one stroke."""
        save_tensors(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it on the CPU; whatever the arguments say, nothing in it is executed."""
        return load_tensors(Path(path))
