"""The folder of a network that was trained in full: what lies in it, and the network made of it again.

``network.json`` says what the network is and how it was trained, ``weights.pt`` is the state of its Lightning module.
Nothing in either runs code when it is read: of the classes that the JSON file names only catchmark's own are built, and
those that the user vouches for (`search.recipes.trust`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from search.errors import CatchmarkError, explain, kind, nearest, one_line
from search.recipes.trust import Trust, read_json, trust_of
from search.spaces.base import SearchSpace
from search.training.isolation import isolated
from search.training.tensor_files import load_tensors

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule

ABOUT, WEIGHTS = "network.json", "weights.pt"
FORMAT = 1
_KINDS: dict[str, tuple[type, ...]] = {
    "space": (dict, str),
    "architecture": (str,),
    "build": (dict,),
    "in_channels": (int,),
    "resolution": (list, type(None)),
    "metrics": (dict, type(None)),
}
CLASSIFICATION = {"class_path": "lightning_modules.classification.ClassificationModule", "init_args": {}}
"""The module of a training that names none."""


def load_network(run: str | Path, target: str | None = None, trust: str | Iterable[str] = ()) -> nn.Module:
    """The network that ``catchmark train`` trained, on the CPU, in evaluation mode.

    Args:
        run: the run's folder, or that of the network itself.
        target: which of the run's targets; None for the only one that was trained.
        trust: classes, modules and packages by import path that are not catchmark's own and may be used nevertheless,
            and config files of mmdet and mmseg that may be run: only what you know the author of.

    Returns:
        For classification and depth, what turns normalised images ``[batch, channels, height, width]`` into logits or
        inverse depth; where a moving average of the weights was kept, the averaged network. For detection and
        segmentation, mmdet's or mmseg's model, ready for ``mmdet.apis.inference_detector`` and
        ``mmseg.apis.inference_model``.

    Raises:
        CatchmarkError: nothing was trained, or a file is damaged or names what is not trusted; nothing in it is
            executed.
    """
    folder = trained_folder(Path(run), target)
    about = read_about(folder)
    module = load_module(folder, about, trust_of(trust))
    network = network_of(module)
    if (library := getattr(module, "library", None)) in ("mmdet", "mmseg"):
        from search.deploy.openmmlab_apis import describe_for_openmmlab

        describe_for_openmmlab(network, library, folder / ABOUT, about)
    return network


def trained_folder(run: Path, target: str | None = None) -> Path:
    """The folder of a finished training.

    Raises:
        CatchmarkError: there is none, or several of which none is named.
    """
    if (run / ABOUT).is_file():
        folder = run
    else:
        from search.deploy.choice import TRAINED

        there = sorted(path.parent.name for path in (run / TRAINED).glob(f"*/{ABOUT}"))
        if not there:
            raise CatchmarkError(f"{run} has no trained network; train it first: catchmark train {run}")
        if target is None and len(there) > 1:
            raise CatchmarkError(f"{run} has several trained networks, name a target: {', '.join(there)}")
        if target is not None and target not in there:
            raise CatchmarkError(
                f"{run} has no trained network of a target '{target}'{nearest(target, there, 'trained')}; "
                f"train it first: catchmark train {run} --target {target}"
            )
        folder = run / TRAINED / (target or there[0])
    if read_about(folder)["metrics"] is None or not (folder / WEIGHTS).is_file():
        raise CatchmarkError(f"{folder}: the training is not finished; go on with the same 'catchmark train' again")
    return folder


def read_about(folder: Path) -> dict[str, Any]:
    """The content of ``network.json``.

    Raises:
        CatchmarkError: it can't be read, is damaged, or a later version wrote it.
    """
    path = folder / ABOUT
    try:
        about = read_json(path)
        if about["format"] != FORMAT:
            raise CatchmarkError(
                f"{path} has format {about['format']}, this version of catchmark reads format {FORMAT}; use the "
                "version that wrote it"
            )
        missing = {"space", "architecture", "build", "in_channels", "resolution", "module", "task", "seed", "metrics"}
        missing -= set(about)
    except OSError as error:
        raise CatchmarkError(f"{explain(error)}; a folder of 'catchmark train' is needed") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CatchmarkError(f"{path} is damaged ({one_line(error)}); train the network again") from error
    if missing:
        raise CatchmarkError(f"{path} is damaged (it lacks {', '.join(sorted(missing))}); train the network again")
    for key, kinds in _KINDS.items():
        if not isinstance(about[key], kinds):
            raise CatchmarkError(f"{path} is damaged ({key} is {kind(about[key])}); train the network again")
    return about


def class_name(described: Mapping[str, Any] | str) -> str:
    """The bare name of the class that a part of ``network.json`` describes."""
    path = described if isinstance(described, str) else str(described.get("class_path"))
    return path.rpartition(".")[2]


def load_module(folder: Path, about: Mapping[str, Any], trust: Trust) -> LightningModule:
    """The Lightning module of a folder with its trained weights, in evaluation mode.

    Args:
        folder: of a trained network.
        about: the content of its ``network.json``.
        trust: what that may name.

    Raises:
        CatchmarkError: the weights are damaged, or those of another network.
    """
    path = folder / WEIGHTS
    module = build_module(about, str(folder / ABOUT), trust)
    try:
        weights = load_tensors(path)
    except Exception as error:
        raise CatchmarkError(f"{path} can't be used: {explain(error)}") from error
    if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise CatchmarkError(f"{path} can't be used: it is not a state dict of tensors")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CatchmarkError(f"{path} has the weights of another network than {folder / ABOUT} describes") from error
    return module.eval()


def build_module(about: Mapping[str, Any], key: str, trust: Trust) -> LightningModule:
    """The untrained module; no random state changes.

    Args:
        about: its ``space``, ``architecture``, ``build`` and ``module``, as ``network.json`` has them.
        key: where these stand, for messages.
        trust: what they may name.

    Raises:
        CatchmarkError: something of it is wrong, or not trusted.
    """
    from pytorch_lightning import LightningModule

    from search.recipes.build import build

    try:
        with isolated():
            space = build(about["space"], SearchSpace, "space", trust)
            network = space.build_from(space.parse(about["architecture"]), about["build"])
            return build(about["module"], Callable[[nn.Module], LightningModule], "module", trust, [network])
    except CatchmarkError as error:
        raise CatchmarkError(f"{key}: {error}") from error
    except Exception as error:
        raise CatchmarkError(f"{key}: the network can't be built: {explain(error)}") from error


def network_of(module: LightningModule) -> nn.Module:
    """What a Lightning module has trained.

    Raises:
        CatchmarkError: it calls it neither ``network`` nor ``model``.
    """
    average = getattr(module, "average", None)
    if isinstance(average, nn.Module):
        module = average  # type: ignore[assignment]  # it holds the averaged network under the same name
    for name in ("network", "model"):
        if isinstance(network := getattr(module, name, None), nn.Module):
            return network
    raise CatchmarkError(f"{type(module).__name__} keeps no 'network' or 'model' that could be taken out of it")
