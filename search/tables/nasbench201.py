"""From the published files of NAS-Bench-201 and NATS-Bench (topology space) to a table.

Four layouts are read:

* the folder ``NATS-tss-v1_0-*-simple``: ``meta.pickle.pbz2`` and one bz2-compressed pickle per architecture, which
  holds the results of the 12-epoch and the 200-epoch training under the keys '12' and '200';
* the single file ``NATS-tss-v1_0-*.pickle.pbz2``: the same in one pickle;
* ``NAS-Bench-201-v1_*.pth``, by torch.save in its old and its zip format; the keys are 'less' and 'full';
* a CSV with ``arch`` or ``arch_str`` (``|nor_conv_3x3~0|+|...``) and columns named as in `search.tables.table`.

The folder's layout was checked against three official files (architectures 0, 11 and 284), whose 12-epoch accuracies
and 200-epoch test accuracies agree with tables that others made from the benchmark. The two single-file layouts were
checked only on synthetic files, written after NATS-Bench's own reader (github.com/D-X-Y/NATS-Bench, nats_bench/).

The single files hold every epoch of every training (4.7 GB for v1.1). They are read in one pass, in which all but the
last epoch is dropped as it comes by; tensors are never read.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from tqdm import tqdm

from search.spaces.nasbench201 import NASBench201
from search.tables.comma_separated import read_csv
from search.tables.restricted_pickle import read_pickle
from search.tables.table import column_name, file_digest, write_table

VERSION = "nasbench201 1"
SUFFIX = ".pickle.pbz2"
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# Epochs of training by the benchmark's key for the hyper-parameters.
TRAININGS = {"12": 12, "200": 200, "less": 12, "full": 200}
# (data set, evaluation set) in the benchmark's words, and (data set, split) in ours. 'cifar10-valid' is trained on half
# of CIFAR-10's training images and 'cifar10' on all of them, so that 'cifar10' has no validation set.
EVALUATIONS = {
    ("cifar10-valid", "x-valid"): ("cifar10_valid", "val"),
    ("cifar10-valid", "ori-test"): ("cifar10_valid", "test"),
    ("cifar10", "ori-test"): ("cifar10", "test"),
    ("cifar100", "x-valid"): ("cifar100", "val"),
    ("cifar100", "x-test"): ("cifar100", "test"),
    ("ImageNet16-120", "x-valid"): ("imagenet16_120", "val"),
    ("ImageNet16-120", "x-test"): ("imagenet16_120", "test"),
}
DATASETS = {dataset: ours for (dataset, _), (ours, _) in EVALUATIONS.items()}
# Of runs that disagree on FLOPs or parameters (early releases miscounted), the benchmark's own reader trusts this seed.
TRUSTED_SEED = 888


def convert_nasbench201(source: Path, out: Path) -> Path:
    """Write the table of a NAS-Bench-201 or NATS-Bench topology file.

    Rows are in the benchmark's own order. Accuracies (percent) are means over the seeds that were trained, after the
    last epoch; ``{dataset}_train_seconds_{epochs}ep`` is the mean time of one whole training; ``params_m`` and
    ``flops_m`` are the network's for CIFAR-10, in millions. What the source does not hold becomes no column.

    Args:
        source: one of the layouts above.
        out: the table to write.

    Raises:
        ValueError: the source has none of these layouts, is incomplete, or its pickle names anything but data.
    """
    source = Path(source)
    space = NASBench201()
    if not source.exists():
        raise FileNotFoundError(f"no file or folder {source}; download it from github.com/D-X-Y/NATS-Bench first")
    if source.is_dir():
        names, rows, digest = _read_folder(source)
    elif source.name.endswith((SUFFIX, ".pth")):
        names, rows = _read_file(source)
        digest = file_digest(source)
    elif source.suffix == ".csv":
        arch, columns = read_csv(source, space.parse)
        return write_table(out, arch, columns, space.name, _provenance(source, file_digest(source)))
    else:
        raise ValueError(
            f"{source}: not a NATS-Bench folder, a '{SUFFIX}' file, a '.pth' file or a '.csv' file; give one of these"
        )
    missing = [k for k, row in enumerate(rows) if row is None]
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} of {len(rows)} architectures have no results (the first is {missing[0]:06d}); "
            f"unpack or download it again"
        )
    wanted = sorted({name for row in rows if row for name in row})
    columns = {
        name: np.array([row.get(name, np.nan) if row else np.nan for row in rows], np.float32) for name in wanted
    }
    arch = np.array([space.parse(name) for name in names], dtype=np.int8)
    return write_table(out, arch, columns, space.name, _provenance(source, digest))


def _provenance(source: Path, digest: str) -> dict[str, str]:
    return {"source": source.resolve().name, "source_sha256": digest, "converter": VERSION}


def _read_folder(folder: Path) -> tuple[list[str], list[dict[str, float] | None], str]:
    """Architecture strings, a row of results for each, and the SHA-256 over all files read."""
    whole = hashlib.sha256()

    def unpack(path: Path) -> Any:
        packed = path.read_bytes()
        whole.update(path.name.encode() + hashlib.sha256(packed).digest())
        try:
            unpacked = bz2.decompress(packed)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: damaged ({error}); unpack or download it again") from error
        return read_pickle(io.BytesIO(unpacked), str(path))

    if not (folder / f"meta{SUFFIX}").is_file():
        raise ValueError(f"{folder}: no 'meta{SUFFIX}' in it; give the folder 'NATS-tss-v1_0-...-simple'")
    names = _names(unpack(folder / f"meta{SUFFIX}"), folder)
    rows: list[dict[str, float] | None] = []
    for k, name in enumerate(tqdm(names, desc=folder.name, unit=" architectures", leave=False, disable=None)):
        path = folder / f"{k:06d}{SUFFIX}"
        rows.append(_row(unpack(path), name, str(path)) if path.is_file() else None)
    return names, rows, whole.hexdigest()


def _read_file(path: Path) -> tuple[list[str], list[dict[str, float] | None]]:
    """Architecture strings and a row of results for each, out of one pickle."""
    with (
        path.open("rb") as file,
        tqdm(
            total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None
        ) as progress,
    ):

        def prune(filled: dict[Any, Any]) -> None:
            if "eval_acc1es" in filled and "epochs" in filled:
                _keep_last_epoch(filled)
                progress.update(file.tell() - progress.n)

        with _pickle_of(path, file) as stream:
            content = read_pickle(stream, str(path), prune=prune)
    names = _names(content, path)
    found = content.get("arch2infos")
    if not isinstance(found, dict):
        raise ValueError(f"{path}: no results in it; give a file that holds all architectures")
    return names, [_row(found[k], name, str(path)) if k in found else None for k, name in enumerate(names)]


@contextmanager
def _pickle_of(path: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    """The stream from which the results are unpickled, whatever they are wrapped in."""
    try:
        if path.name.endswith(SUFFIX):
            with bz2.open(file) as unpacked:
                yield cast(BinaryIO, io.BufferedReader(unpacked, 1 << 20))
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                inner = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
                if len(inner) != 1:
                    raise ValueError(f"{path}: not a file of torch.save; download it again")
                with archive.open(inner[0]) as member:
                    yield cast(BinaryIO, io.BufferedReader(member, 1 << 20))
        else:
            # The old format is a row of pickles: a magic number, a version, the machine's word sizes, and the content.
            file.seek(0)
            if read_pickle(file, str(path)) != TORCH_MAGIC:
                raise ValueError(f"{path}: not a file of torch.save; download it again")
            for _ in ("version", "word sizes"):
                read_pickle(file, str(path))
            yield file
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); download it again") from error


def _names(content: Any, source: Path) -> list[str]:
    names = content.get("meta_archs") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise ValueError(f"{source}: no list of architectures ('meta_archs') in it; is it NAS-Bench-201 or NATS-tss?")
    return names


def _keep_last_epoch(trial: dict[Any, Any]) -> None:
    """Shrink one training's record in place; what `_row` reads of it stays the same, however often this is done.

    In place, because the pickle's memo holds on to every dict until the end.
    """
    last = f"@{trial['epochs'] - 1}"
    kept: dict[str, dict[Any, Any]] = {}
    if isinstance(trial["eval_acc1es"], dict):
        kept["eval_acc1es"] = {key: value for key, value in trial["eval_acc1es"].items() if str(key).endswith(last)}
    if trial.get("train_times"):
        kept["train_times"] = {"total": sum(trial["train_times"].values())}
    for key, value in list(trial.items()):
        if isinstance(value, dict):
            value.clear()
            value.update(kept.get(key, {}))
        if key not in ("eval_acc1es", "train_times", "epochs", "params", "flop"):
            del trial[key]


def _row(record: Any, name: str, source: str) -> dict[str, float]:
    """The columns of one architecture, out of its record ``{'12': results, '200': results}``."""
    row: dict[str, float] = {}
    try:
        for key, results in record.items():
            if results["arch_str"] != name:
                raise ValueError(f"it is of {results['arch_str']}, where {name} is expected")
            for dataset, ours in DATASETS.items():
                trials = {seed: trial for (data, seed), trial in results["all_results"].items() if data == dataset}
                if not trials:
                    continue
                epochs = TRAININGS[key]
                if {trial["epochs"] for trial in trials.values()} != {epochs}:
                    raise ValueError(f"a training under '{key}' did not take {epochs} epochs")
                for (data, evaluation), (_, split) in EVALUATIONS.items():
                    accuracies = [trial["eval_acc1es"].get(f"{evaluation}@{epochs - 1}") for trial in trials.values()]
                    if data == dataset and None not in accuracies:
                        row[column_name(ours, split, "acc", epochs)] = float(np.mean(accuracies))
                if all(trial["train_times"] for trial in trials.values()):
                    seconds = [sum(trial["train_times"].values()) for trial in trials.values()]
                    row[column_name(ours, "train", "seconds", epochs)] = float(np.mean(seconds))
                if dataset == "cifar10" or (dataset == "cifar10-valid" and "params_m" not in row):
                    row["params_m"], row["flops_m"] = _agreed(trials, "params"), _agreed(trials, "flop")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: not a record of NAS-Bench-201 ({error!r})") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}; download it again") from error
    return row


def _agreed(trials: dict[Any, Any], quantity: str) -> float:
    """What all trainings say of one network, or where they disagree, what the trusted one says."""
    values = [float(trial[quantity]) for trial in trials.values()]
    if max(values) - min(values) < 1e-5:
        return values[0]
    return float(trials[TRUSTED_SEED][quantity]) if TRUSTED_SEED in trials else float(np.mean(values))
