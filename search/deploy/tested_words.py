"""What a folder of a trained network says of its test, in ``network.json``, as a table and on the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from search.deploy.testing import Tested


def tested_in_words(about: Mapping[str, Any]) -> str:
    """The test in one line, or why there is none."""
    if "test" not in about:
        return "test:    none, an earlier version trained it"
    if (test := about["test"]) is None:
        return "test:    none, the data have no images that chose nothing; the above were chosen by the validation data"
    known = {name: value for name, value in test["of_classes"].items() if value is not None}
    words = ", ".join(f"{name} {value:.4g}" for name, value in test["metrics"].items())
    if known:
        worst = min(known, key=lambda name: known[name])
        words += f"; the worst class is {worst} with {known[worst]:.4g}"
    return f"test:    {test['images']:,} images that chose nothing: {words}"


def tested_in_short(tested: Tested, score: str, classes: list[str] | None) -> dict[str, Any]:
    """What ``network.json`` says of the test: the score first, and of each class its own."""
    first = f"test_{score.removeprefix('val_')}"
    names = sorted(tested.metrics, key=lambda name: name != first)
    return {
        "images": tested.images,
        "metrics": {name: tested.metrics[name] for name in names},
        "of": "accuracy" if tested.of == "images" else "iou",
        "of_classes": dict(zip(named(classes, len(tested.of_classes)), tested.of_classes, strict=True)),
    }


def confusion_table(confusion: np.ndarray, classes: list[str] | None) -> str:
    """Labels by predictions as CSV: a row a label."""
    names = named(classes, len(confusion))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label \\ prediction", *names])
    writer.writerows([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    return text.getvalue()


def named(classes: list[str] | None, count: int) -> list[str]:
    """The names of so many classes; numbers where nobody has named just these."""
    return classes if classes is not None and len(classes) == count else [str(label) for label in range(count)]
