"""Model configs of mmdet and mmseg: finding one, changing it, and building a model of it around our own backbone."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lightning_modules.openmmlab import scope

Library = Literal["mmdet", "mmseg"]
Config = dict[str, Any]

_SUFFIXES = (".py", ".yaml", ".yml", ".json")


class SelectedMaps(nn.Module):
    """Some feature maps of a backbone, where a head wants fewer than there are.

    Args:
        backbone: images to a tuple of feature maps.
        indices: which of them.
    """

    def __init__(self, backbone: nn.Module, indices: Sequence[int]):
        super().__init__()
        self.backbone, self.indices = backbone, tuple(indices)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images ``[batch, 3, height, width]`` to the selected feature maps."""
        maps = self.backbone(images)
        return tuple(maps[index] for index in self.indices)


def split_network(network: nn.Module, owner: str) -> tuple[nn.Module, int]:
    """The backbone of a classification network and its number of classes.

    Args:
        network: has ``backbone`` (with ``channels`` and ``strides``, one a feature map, and ``in_channels``) and
            ``num_classes``.
        owner: who asks, for messages.

    Raises:
        ValueError: something is missing or out of range.
    """
    backbone, kind = getattr(network, "backbone", None), type(network).__name__
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"{owner} needs a network with a 'backbone', and {kind} has none; use a space that builds one")
    for name in ("channels", "strides", "in_channels"):
        if not hasattr(backbone, name):
            raise ValueError(f"{owner}: the backbone {type(backbone).__name__} does not say its '{name}'")
    channels, strides = tuple(backbone.channels), tuple(backbone.strides)  # type: ignore[arg-type]
    if not channels or len(channels) != len(strides):
        raise ValueError(f"{owner}: the backbone has channels {channels} and strides {strides}: one each a map")
    if backbone.in_channels != 3:
        raise ValueError(f"{owner}: the backbone has in_channels {backbone.in_channels}, 3 is needed: colour images")
    num_classes = getattr(network, "num_classes", None)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"{owner}: num_classes of {kind} is {num_classes}, at least 1 is needed")
    return backbone, num_classes


def load_model_config(
    library: Library, key: str, wanted: str | Mapping[str, Any], stock: Mapping[str, str]
) -> dict[str, Any]:
    """The model part of a config, free to be changed.

    A config file in Python is run, as the library itself would do: name no file of a stranger.

    Args:
        library: whose config it is.
        key: the argument that names it, for messages.
        wanted: a short name of ``stock``; the path of a config file, full or of a model only, from here or from the
            library's own ``configs`` folder; or the model config itself.
        stock: paths below the ``configs`` folder by short name.

    Raises:
        ValueError: there is no such name or file, or it holds no model.
    """
    if isinstance(wanted, str):
        with scope(library):
            from mmengine.config import Config as ConfigFile

            found = ConfigFile.fromfile(str(_find_file(library, key, wanted, stock))).to_dict()
    else:
        found = copy.deepcopy(dict(wanted))
    model = found.get("model", found)
    if not isinstance(model, dict) or "type" not in model:
        raise ValueError(f"{key}: neither 'model' nor 'type' is in the config, so it describes no model of {library}")
    if "data_preprocessor" in found:
        model.setdefault("data_preprocessor", found["data_preprocessor"])
    return model


def merge(config: Config, overrides: Mapping[str, Any]) -> None:
    """Change a config in place: dicts are merged key by key, everything else replaces what was there.

    A dict that meets a list of dicts (the three heads of a cascade) is merged into each of them. A dict with
    ``_delete_: true`` replaces the old one.
    """
    for key, value in overrides.items():
        old = config.get(key)
        if isinstance(value, Mapping) and not value.get("_delete_", False):
            if isinstance(old, dict):
                merge(old, value)
                continue
            if isinstance(old, (list, tuple)) and old and all(isinstance(each, dict) for each in old):
                for each in old:
                    merge(each, value)
                continue
        fresh = copy.deepcopy(value)
        config[key] = {k: v for k, v in fresh.items() if k != "_delete_"} if isinstance(fresh, Mapping) else fresh


def each_dict(node: Any) -> Iterator[Config]:
    """Every dict inside of a config, at any depth, itself included."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from each_dict(child)


def forget_downloads(config: Config) -> None:
    """Remove every mention of pretrained weights: nothing is fetched, and the backbone brings its own."""
    for each in each_dict(config):
        each.pop("pretrained", None)
        initial = each.get("init_cfg")
        if isinstance(initial, dict) and initial.get("type") == "Pretrained":
            del each["init_cfg"]


def set_num_classes(heads: Any, num_classes: int, key: str) -> None:
    """Set the number of classes wherever a head states it.

    Raises:
        ValueError: none does.
    """
    stated = [each for each in each_dict(heads) if "num_classes" in each]
    if not stated:
        raise ValueError(f"{key}: no head of the config states its 'num_classes', so it cannot be set; add it there")
    for each in stated:
        each["num_classes"] = num_classes


def build_model(library: Library, key: str, config: Config, backbone: nn.Module) -> nn.Module:
    """A model of a library, its layers initialised as the library does it, except for the backbone, which is as it was.

    Initial weights are drawn from torch's random state.

    Args:
        library: whose registry knows the model.
        key: the argument that named the config, for messages.
        config: with ``backbone`` in it, by way of `building`.
        backbone: whose weights to keep.

    Raises:
        ValueError: the library refuses the config.
    """
    weights = {name: value.clone() for name, value in backbone.state_dict().items()}
    with scope(library), warnings.catch_warnings():
        # Of the stock configs' own choices, which are kept.
        warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False|Unnecessary conv bias before")
        from mmengine.config import ConfigDict

        models = importlib.import_module(f"{library}.registry").MODELS
        try:
            model = models.build(ConfigDict(config))
        except (AssertionError, AttributeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split()) or "an assertion fails"
            raise ValueError(f"{key}: {library} cannot build its {config['type']}: {reason}") from error
        model.init_weights()
    backbone.load_state_dict(weights)
    return model


def building(module: nn.Module) -> Config:
    """The config of a module that is there already: registries call what stands under ``type``."""

    def existing() -> nn.Module:
        return module

    # A function, for it survives the deep copies of configs as it is.
    build: Callable[[], nn.Module] = existing
    return {"type": build}


@contextlib.contextmanager
def quiet_metrics() -> Iterator[None]:
    """Silence the tables and the progress that the libraries' metrics log and print."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()  # made here, or its handler would keep the stream below for ever
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _find_file(library: Library, key: str, wanted: str, stock: Mapping[str, str]) -> Path:
    package = importlib.import_module(library).__file__
    assert package is not None
    shipped = Path(package).parent / ".mim" / "configs"
    if not wanted.endswith(_SUFFIXES):
        if wanted not in stock:
            near = get_close_matches(wanted, list(stock), n=1, cutoff=0.0)
            raise ValueError(
                f"{key} is '{wanted}'; did you mean '{near[0]}'? Allowed: {', '.join(stock)}, the path of a config "
                f"file of {library} ({', '.join(_SUFFIXES)}), or a model config"
            )
        wanted = stock[wanted]
    for path in (Path(wanted), shipped / wanted):
        if path.is_file():
            return path
    names = [str(path.relative_to(shipped)) for path in shipped.rglob("*.py")]
    near = get_close_matches(wanted, names, n=1, cutoff=0.0)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"{key}: there is no config file '{wanted}', neither here nor among those of {library}{hint}")
