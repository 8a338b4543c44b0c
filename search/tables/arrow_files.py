"""Images and labels out of the Parquet and Arrow files in which the Hugging Face Hub keeps data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from search.tables.labelled_pictures import LABEL, Labelled, choose_label

_IMAGES = ("image", "img")


def labelled_of(file: Path, image: str | None, label: str | None) -> Iterator[Labelled]:
    """The pictures of one file.

    Args:
        file: ends in ``.parquet`` or ``.arrow``.
        image: the column of images, each with its ``bytes``, or its ``path``; None for ``image`` or ``img``.
        label: that of classes; None for ``label``, or the only other column.

    Raises:
        ValueError: the file or a column cannot be read.
    """
    content = _read(file)
    columns = list(content.column_names)
    pictures = image or next((name for name in _IMAGES if name in columns), _IMAGES[0])
    classes = choose_label(file, columns, pictures, label)
    for batch in content.select([pictures, classes]).to_batches(max_chunksize=256):
        for number, row in enumerate(batch.to_pylist()):
            value, source = row[pictures], f"{file}, picture {number}"
            if isinstance(value, dict) and value.get("bytes"):
                yield Labelled(value["bytes"], row[classes], source)
            elif isinstance(value, dict) and value.get("path"):
                yield Labelled(file.parent / value["path"], row[classes], source)
            else:
                raise ValueError(f"{source}: '{pictures}' has neither bytes nor a path")


def names_of(source: Path, files: Sequence[Path], label: str | None) -> list[str] | None:
    """The names of the classes, where a file's metadata or ``dataset_info.json`` has them for the column of labels."""
    described: list[Any] = [_features(_read(files[0]).schema.metadata)]
    for path in sorted(source.rglob("dataset_info.json")):
        described.append(json.loads(path.read_text(encoding="utf-8")).get("features"))
    for features in described:
        column = features.get(label or LABEL) if isinstance(features, dict) else None
        if isinstance(column, dict) and isinstance(column.get("names"), list):
            return [str(name) for name in column["names"]]
    return None


def _features(metadata: Any) -> Any:
    text = (metadata or {}).get(b"huggingface")
    return json.loads(text).get("info", {}).get("features") if text else None


def _read(file: Path) -> Any:
    """The table of one file."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{file} needs pyarrow: pip install 'catchmark[arrow]'") from error
    try:
        if file.suffix == ".parquet":
            return parquet.read_table(file)
        with pa.memory_map(str(file)) as mapped:
            try:
                return pa.ipc.open_stream(mapped).read_all()
            except pa.ArrowInvalid:
                return pa.ipc.open_file(mapped).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
