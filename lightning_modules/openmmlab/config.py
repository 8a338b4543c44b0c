"""Model configs of mmdet and mmseg: finding one, changing it, and building a model of it around our own backbone."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lightning_modules.openmmlab import scope
from lightning_modules.openmmlab.names import Named, names_beyond, with_registered_names
from lightning_modules.spelling import nearest

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

    A config file is run, as the library itself would do, and ``custom_imports`` of a config are imported: both are for
    what the user has written. Of others' configs `named_code` says what they would run.

    Args:
        library: whose config it is.
        key: the argument that names it, for messages.
        wanted: a short name of ``stock``; the path of a config file, full or of a model only, from here or from the
            library's own ``configs`` folder; or the model config itself.
        stock: paths below the ``configs`` folder by short name.

    Raises:
        ValueError: there is no such name or file, or it holds no model.
    """
    with scope(library):
        if isinstance(wanted, str):
            path = _find_file(library, key, wanted, stock)
            found = _read_shipped(path) if _is_shipped(library, path) else _read_file(path)
        else:
            found = copy.deepcopy(dict(wanted))
            _import_modules(found)
    model = _model_of(found)
    if not isinstance(model, dict) or "type" not in model:
        raise ValueError(f"{key}: neither 'model' nor 'type' is in the config, so it describes no model of {library}")
    return model


def named_code(library: Library, key: str, wanted: Any, overrides: Any, stock: Mapping[str, str]) -> Iterator[Named]:
    """What a model of these arguments would import or run, beside what the library has registered.

    Who goes on with this behind an entry allows it.

    Args:
        library: whose config it is.
        key: the argument that names it.
        wanted: as for `load_model_config`; None for its default.
        overrides: merged into it.
        stock: as for `load_model_config`.
    """
    try:
        with scope(library):
            found = _described(library, key, wanted, stock)
    except (ValueError, ImportError):  # building the model says so
        return
    if isinstance(found, Path):
        yield key, str(wanted), f"is a config file outside of {library}, which is a program"
        found = None
    for module in _custom_imports(found):
        yield f"{key}.custom_imports", module, "is a module that would be imported"
    with scope(library):
        _import_modules(found)
        model, changes = copy.deepcopy(_model_of(found)), copy.deepcopy(overrides)
        if isinstance(model, dict) and not keeps_backbone(model):
            model.pop("backbone", None)
        forget_downloads([model, changes])
        named = [*names_beyond(library, model, key), *names_beyond(library, changes, "overrides")]
    yield from named


def plain_config(library: Library, key: str, wanted: Any, stock: Mapping[str, str]) -> Any:
    """What stands in a config file, in place of its path; what names none, or one of the library's own, as it is.

    A file that holds what JSON can't is left to be named.
    """
    if not isinstance(wanted, str):
        return wanted
    with scope(library):
        path = _find_file(library, key, wanted, stock)
        if _is_shipped(library, path):
            return wanted
        found = _read_file(path)
        model = _model_of(found)
        forget_downloads(model)
        kept = {name: found[name] for name in ("custom_imports",) if name in found}
        plain = with_registered_names(library, kept | {"model": model})
    try:
        return json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError):
        return wanted


def keeps_backbone(model: Mapping[str, Any]) -> bool:
    """Whether a model builds something around the backbone that its config describes: BiSeNet's two paths."""
    backbone = model.get("backbone")
    return isinstance(backbone, Mapping) and backbone.get("type") == "BiSeNetV1"


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


def forget_downloads(config: Any) -> None:
    """Remove every mention of pretrained weights: nothing is fetched, and the backbone brings its own."""
    for each in each_dict(config):
        each.pop("pretrained", None)
        initial = each.get("init_cfg")
        if isinstance(initial, (list, tuple)):
            each["init_cfg"] = [one for one in initial if not _is_pretrained(one)]
        elif _is_pretrained(initial):
            del each["init_cfg"]


def _is_pretrained(initial: Any) -> bool:
    return isinstance(initial, dict) and str(initial.get("type")).rpartition(".")[2] in ("Pretrained", "PretrainedInit")


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


def _described(library: Library, key: str, wanted: Any, stock: Mapping[str, str]) -> Any:
    """The content of a config; the path of a file that is not the library's own, which is not read."""
    if not isinstance(wanted, str) or wanted in stock:
        return None if isinstance(wanted, str) else wanted
    path = _find_file(library, key, wanted, stock)
    return _read_shipped(path, imports=False) if _is_shipped(library, path) else path


def _read_shipped(path: Path, imports: bool = True) -> dict[str, Any]:
    """A config file of a library's own, which every network of a search is built by."""
    return copy.deepcopy(_read_once(path, imports))


@functools.lru_cache(maxsize=32)
def _read_once(path: Path, imports: bool) -> dict[str, Any]:
    return _read_file(path, imports)


def _read_file(path: Path, imports: bool = True) -> dict[str, Any]:
    from mmengine.config import Config as ConfigFile

    return ConfigFile.fromfile(str(path), import_custom_modules=imports).to_dict()


def _model_of(found: Any) -> Any:
    """The model part of a config's content."""
    if not isinstance(found, dict):
        return found
    model = found.get("model", found)
    if isinstance(model, dict) and "data_preprocessor" in found:
        model.setdefault("data_preprocessor", found["data_preprocessor"])
    return model


def _custom_imports(config: Any) -> list[str]:
    asked = config.get("custom_imports") if isinstance(config, Mapping) else None
    modules = asked.get("imports", []) if isinstance(asked, Mapping) else []
    return [str(module) for module in ([modules] if isinstance(modules, str) else modules)]


def _import_modules(config: Any) -> None:
    for module in _custom_imports(config):
        importlib.import_module(module)


def _is_shipped(library: Library, path: Path) -> bool:
    return path.resolve().is_relative_to(_shipped(library).resolve())


def _shipped(library: Library) -> Path:
    package = importlib.import_module(library).__file__
    assert package is not None
    return Path(package).parent / ".mim" / "configs"


def _find_file(library: Library, key: str, wanted: str, stock: Mapping[str, str]) -> Path:
    shipped = _shipped(library)
    if not wanted.endswith(_SUFFIXES):
        if wanted not in stock:
            raise ValueError(
                f"{key} is '{wanted}'{nearest(wanted, stock, cutoff=0.0)} Allowed: {', '.join(stock)}, the path of a "
                f"config file of {library} ({', '.join(_SUFFIXES)}), or a model config"
            )
        return shipped / stock[wanted]
    for path in (Path(wanted), shipped / wanted):
        if path.is_file():
            return path
    names = [str(path.relative_to(shipped)) for path in shipped.rglob("*.py")]
    hint = nearest(wanted, names, "", cutoff=0.0)
    raise ValueError(f"{key}: there is no config file '{wanted}', neither here nor among those of {library}{hint}")
