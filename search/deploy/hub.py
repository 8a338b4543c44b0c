"""A trained network as a folder for the Hugging Face Hub: ``model.safetensors``, ``config.json`` and a model card.

Neither file runs code when it is read: safetensors holds numbers alone, and of the classes that the JSON file names
only catchmark's own are built, or what the user vouches for.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.deploy.network_folder import (
    FORMAT,
    build_module,
    class_name,
    load_module,
    network_of,
    read_about,
    trained_folder,
)
from search.errors import CatchmarkError, RunError, explain
from search.recipes.trust import check_links, read_json, trust_of
from search.runs.json_files import write_json, write_whole

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_OURS = "catchmark"
"""The key of ``config.json`` that holds what the network is built from."""
_AGAIN = "run the same 'catchmark export' again"


def export_hub(
    run: str | Path, target: str | None = None, out: Path | None = None, trust: str | Iterable[str] = ()
) -> Path:
    """Write a trained network as a folder for the hub, and check that it is read back to the bit.

    Args:
        run: the run's folder, or that of the network itself.
        target: which of the run's targets; None for the only one that was trained.
        out: the folder, which must be new or one of these; None for ``hub`` beside the weights.
        trust: as for `search.deploy.network_folder.load_network`.

    Raises:
        CatchmarkError: nothing was trained, safetensors is missing, or the folder holds something else.
        RunError: what was written is not what was meant; it has been removed.
    """
    _need_safetensors()
    from safetensors.torch import save_file

    folder = trained_folder(Path(run), target)
    check_links(folder)
    about = read_about(folder)
    network = network_of(load_module(folder, about, trust_of(trust)))
    path = out or folder / "hub"
    if path.exists() and (not path.is_dir() or {each.name for each in path.iterdir()} - {MODEL, CONFIG, CARD}):
        raise CatchmarkError(f"--out: {path} holds something else; name a new folder")
    # Tensors that share memory, as tied weights do, are refused by the format; each is written as its own.
    state = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in network.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place)
        save_file(state, made / MODEL, metadata={"format": "pt"})
        write_json(made / CONFIG, hub_config(about))
        write_whole(made / CARD, _card(about, state), _AGAIN)
        again = load_hub(made, trust).state_dict()
        if again.keys() != state.keys() or any(not _same(again[key], state[key]) for key in state):
            raise RunError(f"{path}: other weights are read than were written; nothing is left behind")
        path.mkdir(parents=True, exist_ok=True)
        for name in (MODEL, CONFIG, CARD):
            shutil.move(made / name, path / name)
    return path


def load_hub(folder: str | Path, trust: str | Iterable[str] = ()) -> nn.Module:
    """The network of such a folder, on the CPU, in evaluation mode.

    Args:
        folder: with ``model.safetensors`` and ``config.json``, as downloaded.
        trust: as for `search.deploy.network_folder.load_network`.

    Raises:
        CatchmarkError: a file is missing, damaged or names what is not trusted, or safetensors is missing.
    """
    _need_safetensors()
    from safetensors.torch import load_file

    path = Path(folder) / CONFIG
    try:
        about = read_json(path)[_OURS]
        if about["format"] != FORMAT:
            raise CatchmarkError(
                f"{path} has format {about['format']}, this version of catchmark reads format {FORMAT}"
            )
        network = network_of(build_module(about, str(path), trust_of(trust)))
    except OSError as error:
        raise CatchmarkError(
            f"{explain(error)}; a folder of 'catchmark export --format safetensors' is needed"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CatchmarkError(f"{path} is damaged, or no file of catchmark's ({explain(error)})") from error
    try:
        network.load_state_dict(load_file(Path(folder) / MODEL))
    except Exception as error:
        raise CatchmarkError(f"{Path(folder) / MODEL} can't be used: {explain(error)}") from error
    return network.eval()


def hub_config(about: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``config.json``: by the names of the hub what others look for, and what the network is built from.

    Args:
        about: the content of ``network.json``.
    """
    said: dict[str, Any] = {
        "model_type": _OURS,
        "library_name": _OURS,
        "architectures": [class_name(about["space"])],
        "num_channels": about["in_channels"],
        "image_size": about["resolution"],
        "torch_dtype": "float32",
    }
    if classes := about.get("classes"):
        said["id2label"] = {str(label): name for label, name in enumerate(classes)}
        said["label2id"] = {name: label for label, name in enumerate(classes)}
    if about.get("preprocessing"):
        said["preprocessing"] = about["preprocessing"]
    keys = ("format", "space", "architecture", "build", "module")
    return said | {"metrics": about["metrics"], _OURS: {key: about[key] for key in keys}}


def _card(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """What the hub shows of it."""
    head = ["---", f"library_name: {_OURS}", "tags:", "- neural-architecture-search", "---", ""]
    numbers = [f"| {name} | {value:.4g} |" for name, value in (about["metrics"] or {}).items()]
    body = [
        f"# A network of the space {class_name(about['space'])}",
        "",
        f"Architecture: `{about['architecture']}`, {sum(each.numel() for each in state.values()):,} numbers.",
        "",
        "| validation, at the epoch that is kept | |",
        "|---|---|",
        *numbers,
        "",
        "```python",
        "from huggingface_hub import snapshot_download",
        "from search.deploy.hub import load_hub",
        "",
        'network = load_hub(snapshot_download("NAME/OF_THIS_REPOSITORY"))  # a plain torch module',
        "```",
        "",
        "`config.json` says how a picture is made ready (`preprocessing`), where the data said so.",
    ]
    return "\n".join([*head, *body]) + "\n"


def _same(ours: Tensor, theirs: Tensor) -> bool:
    """To the bit, whatever the values."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return False
    return torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))


def _need_safetensors() -> None:
    if importlib.util.find_spec("safetensors") is None:
        raise CatchmarkError("--format safetensors needs what is not installed: pip install safetensors")
