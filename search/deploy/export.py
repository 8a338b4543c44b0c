"""``catchmark export``: a trained network as a file that other programs run, checked against the network itself."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datamodules.preprocessing import Preprocessing
from lightning_modules.networks.language_model import LanguageModel
from search.deploy.exported_inputs import LAYOUTS, Inputs, Layout, Prepared
from search.deploy.network_folder import ABOUT, load_module, network_of, read_about, trained_folder
from search.deploy.preprocessing import preprocessing_in
from search.deploy.usage import lines_of_use, metadata
from search.errors import CatchmarkError, RunError, explain, nearest, one_line
from search.recipes.trust import Trust, check_links, trust_of

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
PARTS = ("network", "backbone", "pyramid")
TOLERANCE = 1e-4
"""The most that a file's outputs may differ from the network's, by the largest value of each output."""
_DYNAMIC_BATCHES = (1, 3)
"""What a file of any batch size is checked with; it was traced with another one."""

Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        outputs: their names, in order.
        resolution: height and width of the images that it takes, or how many words.
        difference: the largest difference to the network's own outputs, by the largest value of each output.
        batches: how many inputs at a time that was looked at with.
        usage: lines of Python that use it; empty where nobody knows what is done to a picture.
    """

    path: Path
    outputs: tuple[str, ...]
    resolution: tuple[int, ...]
    difference: float
    batches: tuple[int, ...]
    usage: str


def export_network(
    run: str | Path,
    target: str | None = None,
    form: str = "onnx",
    part: str | None = None,
    out: Path | None = None,
    resolution: int | None = None,
    batch: int | Literal["dynamic"] = "dynamic",
    trust: str | Iterable[str] = (),
    with_preprocessing: Layout | None = None,
) -> Exported:
    """Write a trained network as ONNX or as a program of ``torch.export``, and check what was written.

    The input is called ``images``: float32 ``[batch, channels, height, width]``, normalised as in training. A
    classifier's output is called ``logits``; a backbone's are its feature maps ``stride_4``, ``stride_8`` and so on.
    With ``with_preprocessing`` the input is called ``pictures``: uint8, sized, which the file scales and normalises.
    A language model's input is ``words``, int64 ``[batch, time]``, each sequence from a state of zeros.

    Args:
        run: the run's folder, or that of the network itself.
        target: which of the run's targets; None for the only one that was trained.
        form: ``onnx`` or ``torch``.
        part: ``network``, ``backbone``, or ``pyramid``, the backbone under a neck that was searched; None for the first
            there is of pyramid and backbone of what does not classify, and else for the network. A detector's network
            is refused: its boxes come of code that is not exported.
        out: the file; None for ``PART.onnx`` or ``PART.pt2`` beside the weights.
        resolution: height and width of the images, or words of a sequence; None for those of the training.
        batch: images a pass, or ``dynamic`` for any number.
        trust: as for `search.deploy.network_folder.load_network`.
        with_preprocessing: put scaling and normalisation into the file: ``nhwc`` for pictures
            ``[batch, height, width, channels]``, ``nchw`` for ``[batch, channels, height, width]``; None to leave them
            to whoever uses it.

    Raises:
        CatchmarkError: nothing was trained, a package is missing, or this part can't be exported.
        RunError: the file gives other outputs than the network; it has been removed.
    """
    if form not in FORMATS:
        raise CatchmarkError(f"--format: '{form}' is not one of: {', '.join(FORMATS)}{nearest(form, FORMATS, '')}")
    if part not in (*PARTS, None):
        raise CatchmarkError(f"--part: '{part}' is not one of: {', '.join(PARTS)}{nearest(str(part), PARTS, '')}")
    for key, value in (("resolution", resolution), ("batch", batch)):
        if isinstance(value, int) and value < 1:
            raise CatchmarkError(f"--{key} is {value}, at least 1 is needed")
    if with_preprocessing not in (*LAYOUTS, None):
        raise CatchmarkError(f"--with-preprocessing: '{with_preprocessing}' is not one of: {', '.join(LAYOUTS)}")
    folder = trained_folder(Path(run), target)
    check_links(folder)
    if form == "onnx":
        _need_packages("onnx", "onnxscript", "onnxruntime")
    about = read_about(folder)
    size = (resolution, resolution) if resolution is not None else about["resolution"]
    if size is None:
        raise CatchmarkError(f"{folder}: the training did not see how large its images are; give --resolution")
    module, names, part = _part(folder, about, part, trust_of(trust))
    inputs, preprocessing = _inputs(folder, module, size, about), preprocessing_in(folder / ABOUT, about)
    if with_preprocessing is not None:
        module, inputs = _prepared(folder, module, inputs, preprocessing, with_preprocessing)
    path = out or folder / f"{part}{FORMATS[form]}"
    if not path.parent.is_dir():
        raise CatchmarkError(f"--out: there is no folder '{path.parent}'")
    partial = path.with_name(f"partial-{path.stem}{FORMATS[form]}")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters', about their own code
            run_file = _write(partial, form, module, names, inputs, batch, metadata(about, preprocessing, inputs))
            batches = _DYNAMIC_BATCHES if batch == "dynamic" else (int(batch),)
            difference = max(_difference(module, run_file, inputs.random(n, 1)) for n in batches)
        if not difference <= TOLERANCE:
            raise RunError(
                f"{path}: its outputs differ from the network's by {difference:.1e} of their scale, at most "
                f"{TOLERANCE:.0e} is allowed; the file has been removed"
            )
        os.replace(partial, path)
    except CatchmarkError:
        raise
    except Exception as error:
        sides = "x".join(map(str, size))
        raise RunError(f"{path}: the {part} could not be exported at {sides}: {explain(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    usage = lines_of_use(path, names, inputs, about.get("classes"), preprocessing) if form == "onnx" else ""
    return Exported(path, names, inputs.sides, difference, batches, usage)


def in_words(exported: Exported) -> str:
    """What was written, for the terminal."""
    sides = exported.resolution
    what = f"images of {sides[0]}x{sides[1]}" if len(sides) == 2 else f"sequences of {sides[0]} words"
    return (
        f"{exported.path}: {what} to {', '.join(exported.outputs)}\n"
        f"checked: largest difference {exported.difference:.1e} of the outputs' scale, with "
        f"{' and '.join(map(str, exported.batches))} at a time" + (f"\n\n{exported.usage}" if exported.usage else "")
    )


def _inputs(folder: Path, module: nn.Module, size: Sequence[int], about: dict[str, Any]) -> Inputs:
    """What a network takes, of that size."""
    good = all(isinstance(each, int) and each > 0 for each in size)
    if isinstance(module, LanguageModel) and good and len(size) in (1, 2):
        return Inputs((size[0],), module.words)
    if not good or len(size) != 2:
        raise CatchmarkError(f"{folder}: the size of its images is {list(size)}; give --resolution")
    return Inputs((about["in_channels"], *size))


def _prepared(
    folder: Path, module: nn.Module, inputs: Inputs, preprocessing: Preprocessing | None, layout: Layout
) -> tuple[nn.Module, Inputs]:
    """A network with the preprocessing in front of it."""
    if inputs.words is not None:
        raise CatchmarkError("--with-preprocessing: the network reads words, of which nothing is to be normalised")
    if preprocessing is None or preprocessing.mean is None or preprocessing.channels != inputs.shape[0]:
        raise CatchmarkError(
            f"--with-preprocessing: {folder} does not say how its images are normalised, for its data module has no "
            "'preprocessing'; export without, and normalise as the data module does"
        )
    channels, height, width = inputs.shape
    shape = (height, width, channels) if layout == "nhwc" else inputs.shape
    return Prepared(module, preprocessing, layout).eval(), Inputs(shape, layout=layout)


def _need_packages(*names: str) -> None:
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise CatchmarkError(f"--format onnx needs what is not installed: pip install {' '.join(missing)}")


def _part(
    folder: Path, about: dict[str, Any], part: str | None, trust: Trust
) -> tuple[nn.Module, tuple[str, ...], str]:
    """What to export, the names of its outputs as far as they are known before it runs, and which part it is."""
    from lightning_modules.classification import ClassificationModule
    from lightning_modules.detection import DetectionModule
    from lightning_modules.language import LanguageModule

    module = load_module(folder, about, trust)
    network, classifies = network_of(module), isinstance(module, ClassificationModule)
    backbone = _backbone(network)
    neck: Any = getattr(network, "neck", None)
    has_pyramid = backbone is not None and isinstance(neck, nn.Module) and hasattr(neck, "strides")
    if part is None:
        below = "pyramid" if has_pyramid else "backbone"
        part = "network" if classifies or backbone is None else below
    if part == "network":
        if isinstance(module, DetectionModule):
            raise CatchmarkError(
                "--part network: a detector's boxes come of post-processing that can't be exported; use --part backbone"
            )
        return network, ("logits" if classifies or isinstance(module, LanguageModule) else "output",), part
    if backbone is None:
        raise CatchmarkError(f"--part backbone: {type(network).__name__} has no backbone with strides; use network")
    if part == "pyramid":
        if not has_pyramid:
            raise CatchmarkError(f"--part pyramid: {type(network).__name__} has no neck that says its strides")
        return nn.Sequential(backbone, neck), tuple(f"stride_{stride}" for stride in neck.strides), part
    strides: Any = backbone.strides
    return backbone, tuple(f"stride_{stride}" for stride in strides), part


def _backbone(network: nn.Module) -> nn.Module | None:
    """The part of a network that gives feature maps, below what may select some of them."""
    while isinstance(inner := getattr(network, "backbone", None), nn.Module):
        network = inner
        if hasattr(network, "strides"):
            return network
    return None


def _write(
    path: Path,
    form: str,
    module: nn.Module,
    names: tuple[str, ...],
    inputs: Inputs,
    batch: int | str,
    said: dict[str, str],
) -> Run:
    """Write the file; what runs it, read back from there."""
    images = inputs.random(2 if batch == "dynamic" else int(batch), 0)
    outputs = _as_tuple(module(images))
    if len(outputs) != len(names) or not all(isinstance(each, Tensor) for each in outputs):
        raise CatchmarkError(
            f"{type(module).__name__} gives something else than {len(names)} tensor{'s' * (len(names) > 1)}, which "
            "can't be exported; use the other --part"
        )
    sizes = ({0: torch.export.Dim("batch", min=1)},) if batch == "dynamic" else None
    if form == "torch":
        return _write_torch(path, module, images, sizes, said)
    return _write_onnx(path, module, images, sizes, inputs.name, names, said)


def _write_torch(path: Path, module: nn.Module, images: Tensor, sizes: Any, said: dict[str, str]) -> Run:
    program = torch.export.export(module, (images,), dynamic_shapes=sizes)
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(said)})
    loaded: Any = torch.export.load(path).module()
    return lambda inputs: _as_tuple(loaded(inputs))


def _write_onnx(
    path: Path,
    module: nn.Module,
    images: Tensor,
    sizes: Any,
    input_name: str,
    names: tuple[str, ...],
    said: dict[str, str],
) -> Run:
    program = torch.onnx.export(
        module,
        (images,),
        dynamo=True,
        dynamic_shapes=sizes,
        input_names=[input_name],
        output_names=list(names),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(said)
    program.save(path, external_data=False)
    return _onnx_runner(path, input_name)


def _onnx_runner(path: Path, input_name: str) -> Run:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RunError(f"{path.name}: onnxruntime can't read what was written ({one_line(error)})") from error
    return lambda images: [torch.from_numpy(each) for each in session.run(None, {input_name: images.numpy()})]


def _difference(module: nn.Module, run: Run, images: Tensor) -> float:
    """The largest difference between a file's outputs and a network's on some inputs, by each output's scale."""
    worst = 0.0
    for ours, theirs in zip(_as_tuple(module(images)), run(images), strict=True):
        if ours.shape != theirs.shape:
            raise RunError(f"the file gives outputs of shape {list(theirs.shape)}, the network {list(ours.shape)}")
        scale = float(ours.abs().max()) or 1.0
        difference = float((ours - theirs).abs().max()) / scale
        worst = max(worst, difference) if difference == difference else float("inf")
    return worst


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
