"""Small made-up tables of NAS-Bench-201 for the tests of latency rewards."""

import numpy as np

from search.spaces.nasbench201 import NASBench201
from search.tables.table import write_table

SPACE = NASBench201()
SIZE = 15625
DEVICES = ("phone", "chip", "server", "board")


def write_latency(folder, change=None, devices=DEVICES, name="latency.npz"):
    """Latencies in the benchmark's row order: 1 to 11 ms, other on every device; ``change`` edits them in place."""
    values = np.random.default_rng(0).uniform(1, 11, (SIZE, len(devices))).astype(np.float32)
    if change is not None:
        change(values)
    path = folder / name
    np.savez(path, latency_ms=values, devices=np.array(devices))
    return str(path), values


def write_quality(folder, change=None, name="quality.npz"):
    """A column ``a_val_acc_12ep`` and a column ``b_val_acc_12ep``, rows in the benchmark's order."""
    arch = np.array([SPACE.from_index(index) for index in range(SIZE)])
    random = np.random.default_rng(1)
    columns = {f"{dataset}_val_acc_12ep": random.uniform(10, 90, SIZE).astype(np.float32) for dataset in "ab"}
    if change is not None:
        change(columns)
    return str(write_table(folder / name, arch, columns, "nasbench201", compressed=False)), columns


def column(path, dataset="a"):
    return {"table": path, "dataset": dataset, "split": "val", "metric": "acc", "epochs": 12}
