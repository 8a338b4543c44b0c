"""From TransNAS-Bench-101 (Duan et al., CVPR 2021), micro space, to a table.

Not the benchmark's own ``.pth`` is read, but two plain layouts of its final validation metrics: a ``.npz`` with
``arch_str`` [4096], ``tasks`` [k] and ``val_metric`` [4096, k], and a CSV with ``arch_str`` and a column per task.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search.spaces.transnasbench101 import TransNASBench101Micro
from search.tables.comma_separated import read_csv
from search.tables.table import column_name, file_digest, write_table

VERSION = "transnasbench101 1"
# What is measured of each task, higher is better: accuracies in percent (of pixels for segmentation).
METRICS = {
    "class_scene": "acc",
    "class_object": "acc",
    "jigsaw": "acc",
    "segmentsemantic": "acc",
    "room_layout": "neg_loss",
    "normal": "ssim",
    "autoencoder": "ssim",
}


def convert_transnasbench101(source: Path, out: Path) -> Path:
    """Write the table of TransNAS-Bench-101's micro space: columns ``{task}_val_{metric}``, metrics as in `METRICS`.

    Args:
        source: a ``.npz`` or ``.csv`` as above.
        out: the table to write.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another layout, or names a task that the benchmark does not have.
    """
    source, space = Path(source), TransNASBench101Micro()
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}; a .npz with arch_str, tasks and val_metric, or a .csv, is needed")
    if source.suffix == ".csv":
        arch, by_task = read_csv(source, space.parse)
    else:
        try:
            with np.load(source, allow_pickle=False) as arrays:
                texts, tasks, values = arrays["arch_str"], arrays["tasks"], arrays["val_metric"]
        except Exception as error:  # zlib, zipfile and numpy each have their own way to say it
            raise ValueError(f"{source}: no readable arch_str, tasks and val_metric in it ({error})") from error
        if values.shape != (len(texts), len(tasks)):
            raise ValueError(f"{source}: val_metric is {values.shape}, {(len(texts), len(tasks))} is needed")
        arch = np.array([space.parse(str(text)) for text in texts], dtype=np.int8)
        by_task = {str(task): values[:, k] for k, task in enumerate(tasks)}
    unknown = set(by_task) - set(METRICS)
    if unknown:
        raise ValueError(f"{source.name}: task '{min(unknown)}' is none of {', '.join(METRICS)}")
    columns = {column_name(task, "val", METRICS[task], None): values for task, values in by_task.items()}
    provenance = {"source": source.name, "source_sha256": file_digest(source), "converter": VERSION}
    return write_table(out, arch, columns, space.name, provenance)
