"""How another program uses an exported file: what the file says of itself, and some lines of Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.preprocessing import Preprocessing
from search.deploy.exported_inputs import Inputs
from search.deploy.network_folder import class_name

_NAMED = 12
"""Classes that are named in the lines; more are read out of the file."""


def metadata(about: Mapping[str, Any], preprocessing: Preprocessing | None, inputs: Inputs) -> dict[str, str]:
    """What an exported file carries: text by name; of anything but a word, JSON.

    Args:
        about: the content of ``network.json``.
        preprocessing: what is done to a picture; None where nobody knows.
        inputs: what the file takes.
    """
    said: dict[str, Any] = {"space": class_name(about["space"]), "architecture": about["architecture"]}
    if about.get("classes"):
        said["classes"] = about["classes"]
    if preprocessing is not None and inputs.words is None:
        said |= preprocessing.described()
        said["normalised"] = "by the file" if inputs.layout else "before"
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def lines_of_use(
    path: Path,
    outputs: Sequence[str],
    inputs: Inputs,
    classes: Sequence[str] | None,
    preprocessing: Preprocessing | None,
) -> str:
    """Python that makes a picture ready and runs an ONNX file, with onnxruntime and Pillow alone.

    Returns:
        Empty where nobody knows what is done to a picture, or the network takes none.
    """
    if preprocessing is None or inputs.words is not None:
        return ""
    lines = ["import json", "import numpy as np", "import onnxruntime", "from PIL import Image, ImageOps", ""]
    named = classes is not None and outputs[0] in ("logits", "output")
    if not named or len(classes or ()) <= _NAMED:
        lines.remove("import json")
    lines.append(f"session = onnxruntime.InferenceSession({str(path)!r})")
    if named and len(classes or ()) <= _NAMED:
        lines.append(f"classes = {list(classes or ())}")
    elif named:
        lines.append('classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])')
    lines.append('picture = ImageOps.exif_transpose(Image.open("picture.png")).convert("RGB")')
    lines += _sizing(preprocessing, inputs.sides)
    lines += _pixels(preprocessing, inputs)
    lines.append(f"answers = session.run({list(outputs)}, {{{inputs.name!r}: pixels}})")
    return "\n".join([*lines, _answer(outputs, named)])


def _sizing(preprocessing: Preprocessing, sides: Sequence[int]) -> list[str]:
    height, width = sides
    how = f"Image.Resampling.{preprocessing.resample.upper()}"
    if preprocessing.resize != "centre":
        return [f"picture = picture.resize(({width}, {height}), {how})"]
    return [
        f"side = min(picture.size) * {preprocessing.crop}",
        "left, upper = (picture.width - side) / 2, (picture.height - side) / 2",
        f"picture = picture.resize(({width}, {height}), {how}, box=(left, upper, left + side, upper + side))",
    ]


def _pixels(preprocessing: Preprocessing, inputs: Inputs) -> list[str]:
    """From a sized picture to the array that the file takes."""
    grey = preprocessing.colours == "L"
    array = 'picture.convert("L")' if grey else "picture"
    pixels = f"np.asarray({array})" + ("[..., None]" if grey else "")
    if preprocessing.colours == "BGR":
        pixels += "[..., ::-1]"
    if inputs.layout == "nhwc":
        return [f"pixels = np.ascontiguousarray({pixels})[None]"]
    if inputs.layout == "nchw":
        return [f"pixels = np.ascontiguousarray({pixels}.transpose(2, 0, 1))[None]"]
    lines = [f"pixels = {pixels} / {preprocessing.scale:g}"]
    if preprocessing.mean is not None and preprocessing.std is not None:
        lines = [f"pixels = ({pixels} / {preprocessing.scale:g} - {list(preprocessing.mean)})"]
        lines[0] += f" / {list(preprocessing.std)}"
    return [*lines, "pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)"]


def _answer(outputs: Sequence[str], named: bool) -> str:
    if outputs[0] == "logits" and named:
        return "print(classes[answers[0][0].argmax()])"
    if outputs[0] == "logits":
        return "print(answers[0][0].argmax())"
    return "print([answer.shape for answer in answers])"
