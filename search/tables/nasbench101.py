"""From NAS-Bench-101 (Ying et al., ICML 2019) to a table.

Not the benchmark's own ``.tfrecord`` is read, but a plain ``.npz`` of its pruned cells, one a row:

* ``adjacency`` ``[n, 7, 7]``: 1 where an edge leads from the row's vertex to the column's. A cell of fewer vertices
  fills the first rows and columns, its output is the last of them.
* ``ops`` ``[n, 7]``: the label of each vertex: -1 input, 0 conv3x3, 1 conv1x1, 2 maxpool3x3, -2 output, -3 none.
* ``hash`` uint8 ``[n, 16]``: the benchmark's name of the cell.
* ``val_acc_{epochs}ep`` and ``test_acc_{epochs}ep`` ``[n]``, any of them: accuracies in [0, 1].
* ``final_training_time_s`` ``[n]`` (optional): seconds of the training over 108 epochs.
* ``trainable_parameters`` ``[n]`` (optional).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from search.spaces.nasbench101 import EDGES, OUTPUT, VERTICES, NASBench101
from search.tables.table import column_name, file_digest, write_table

VERSION = "nasbench101 1"
INPUT_LABEL, OUTPUT_LABEL, NO_LABEL = -1, -2, -3
FULL_EPOCHS = 108
"""Length of the training whose time is recorded."""


def convert_nasbench101(source: Path, out: Path) -> Path:
    """Write the table of NAS-Bench-101's cells, each as the architecture that `NASBench101.canonical` makes of it.

    Columns are ``cifar10_{split}_acc_{epochs}ep`` in percent, ``cifar10_train_seconds_108ep``, and ``params_m`` in
    millions; rows are in the order of the source.

    Args:
        source: a ``.npz`` as above.
        out: the table to write.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another layout, a row is no cell of the space or not the one that its hash says, or a
            cell comes twice.
    """
    source, space = Path(source), NASBench101()
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}; a .npz with adjacency, ops, hash and val_acc_108ep is needed")
    try:
        with np.load(source, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        adjacency, labels, hashes = arrays["adjacency"], arrays["ops"], arrays["hash"]
    except Exception as error:  # zlib, zipfile and numpy each have their own way to say it
        raise ValueError(f"{source}: no readable adjacency, ops and hash in it ({error})") from error
    rows = len(adjacency)
    for name, array, shape in (
        ("adjacency", adjacency, (rows, VERTICES, VERTICES)),
        ("ops", labels, (rows, VERTICES)),
        ("hash", hashes, (rows, 16)),
    ):
        if array.shape != shape or array.dtype.kind not in "iub":
            raise ValueError(f"{source}: '{name}' is {array.dtype} {list(array.shape)}, integers {list(shape)} needed")
    archs = _architectures(source, space, adjacency.astype(np.int64), labels.astype(np.int64))
    for row, arch in enumerate(tqdm(archs.tolist(), desc="checking hashes", unit=" cells", leave=False, disable=None)):
        found, said = space.spec_hash(tuple(arch)), hashes[row].astype(np.uint8).tobytes().hex()
        if found != said:
            raise ValueError(f"{source}: row {row} says its hash is {said}, that of its cell is {found}")
    canonical = space.canonical(archs).numpy()
    _, first = np.unique(canonical, axis=0, return_index=True)
    if len(first) < rows:
        twice = min(set(range(rows)) - set(first.tolist()))
        raise ValueError(f"{source}: the cell of row {twice}, {hashes[twice].tobytes().hex()}, comes twice")
    provenance = {"source": source.name, "source_sha256": file_digest(source), "converter": VERSION}
    return write_table(out, canonical, _columns(source, arrays, rows), space.name, provenance)


def _architectures(source: Path, space: NASBench101, adjacency: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """Cells with the output moved to the last vertex: int64 ``[n, decisions]``."""
    rows = len(adjacency)
    is_output = labels == OUTPUT_LABEL
    output = is_output.argmax(axis=1)
    interior = np.where(np.arange(VERTICES) < output[:, None], labels, 0)[:, 1:OUTPUT]
    expected = np.full_like(labels, NO_LABEL)
    expected[:, 0] = INPUT_LABEL
    expected[:, 1:OUTPUT] = np.where(np.arange(1, OUTPUT) < output[:, None], interior, NO_LABEL)
    expected[np.arange(rows), output] = OUTPUT_LABEL
    column = np.arange(VERTICES)
    moved = np.where(column < output[:, None], column, VERTICES)  # an index behind the last is an empty column
    moved[:, OUTPUT] = output
    padded = np.pad(adjacency, ((0, 0), (0, 1), (0, 1)))
    each = np.arange(rows)[:, None]
    edges = np.stack([padded[each[:, 0], moved[:, s], moved[:, t]] for s, t in EDGES], axis=1)
    archs = torch.from_numpy(np.concatenate([edges, interior], axis=1))
    # Edges that point backwards, or touch vertices behind the output, have no decision and so would go unnoticed.
    complete = edges.sum(axis=1) == adjacency.sum(axis=(1, 2))
    good = space.is_valid(archs).numpy() & complete & (labels == expected).all(axis=1)
    if not good.all():
        row = int((~good).argmax())
        raise ValueError(f"{source}: row {row} is no cell of {space.name}: ops {labels[row].tolist()}")
    return archs


def _columns(source: Path, arrays: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """What was measured, by the table's names."""
    columns: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        if match := re.fullmatch(r"(val|test)_acc_(\d+)ep", name):
            columns[column_name("cifar10", match[1], "acc", int(match[2]))] = values.astype(np.float64) * 100
    if not columns:
        raise ValueError(f"{source}: no accuracies in it; columns such as val_acc_{FULL_EPOCHS}ep are needed")
    if "final_training_time_s" in arrays:
        columns[column_name("cifar10", "train", "seconds", FULL_EPOCHS)] = arrays["final_training_time_s"]
    if "trainable_parameters" in arrays:
        columns["params_m"] = arrays["trainable_parameters"] / 1e6
    for name, values in columns.items():
        if values.shape != (rows,):
            raise ValueError(f"{source}: '{name}' would have {list(values.shape)} values for {rows} cells")
        if "_acc_" in name and np.nanmax(values, initial=0) > 100:
            raise ValueError(f"{source}: accuracies must lie in [0, 1], those for '{name}' reach {values.max() / 100}")
    return columns
