"""What ``catchmark predict`` writes: a table of what was found, and pictures with it drawn on them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from datamodules.pictures import SUFFIXES
from search.deploy.drawing import mask_picture
from search.deploy.predict import Prediction, Predictor
from search.errors import CatchmarkError
from search.runs.json_files import write_whole

FORMATS = ("json", "csv")
_AGAIN = "the same 'catchmark predict' again"


def picture_files(named: Iterable[Path]) -> list[Path]:
    """The files that are named, and the pictures at any depth below the folders that are, in the order of their names.

    Raises:
        CatchmarkError: a folder has none.
    """
    files: list[Path] = []
    for path in named:
        if not path.is_dir():
            files.append(path)
            continue
        below = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
        if not below:
            raise CatchmarkError(f"{path} has no pictures ({', '.join(SUFFIXES)})")
        files += below
    return files


def predict_files(
    predictor: Predictor, files: Iterable[Path], out: Path | None, form: str, complain: Callable[[str], None]
) -> tuple[str, int]:
    """Ask about pictures, and draw them.

    Args:
        predictor: is asked.
        files: the pictures.
        out: the folder to draw them into, which is made, and to write ``predictions.json`` or ``.csv`` into; None for
            neither.
        form: ``json`` or ``csv``.
        complain: told in one line of each file that can't be read.

    Returns:
        The table, and how many pictures could not be read.

    Raises:
        CatchmarkError: the folder can't be made.
        RunError: it can't be written.
    """
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatchmarkError(f"--out: can't make the folder {out}: {error.strerror}") from error
    found: list[dict[str, Any]] = []
    names, failed = _unused_names(), 0
    for file in files:
        try:
            prediction = predictor(file)
        except (ValueError, OSError) as error:
            complain(str(error))
            failed += 1
            continue
        entry: dict[str, Any] = {"picture": str(file), "found": prediction.rows}
        found.append(entry if out is None else entry | _draw(prediction, out, names(file)))
    text = _as_csv(found) if form == "csv" else json.dumps(found, indent=1) + "\n"
    if out is not None:
        write_whole(out / f"predictions.{form}", text, _AGAIN)
    return text, failed


def _draw(prediction: Prediction, out: Path, name: str) -> dict[str, str]:
    """Write pictures; their names below the folder."""
    written = {"drawn": f"{name}.png"}
    prediction.drawn.save(out / written["drawn"])
    if prediction.mask is not None:
        written["mask"] = f"{name}-mask.png"
        mask_picture(prediction.mask).save(out / written["mask"])
    return written


def _unused_names() -> Callable[[Path], str]:
    """Names of files, less their folders and suffixes; with a number where one has been given before."""
    given: set[str] = set()

    def candidates(stem: str) -> Iterator[str]:
        yield stem
        number = 2
        while True:
            yield f"{stem}-{number}"
            number += 1

    def name(file: Path) -> str:
        chosen = next(each for each in candidates(file.stem) if not {each, f"{each}-mask"} & given)
        given.update((chosen, f"{chosen}-mask"))
        return chosen

    return name


def _as_csv(found: list[dict[str, Any]]) -> str:
    """A line a class, a box or a share."""
    rows = [{"picture": each["picture"], **row} for each in found for row in each["found"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["picture"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
