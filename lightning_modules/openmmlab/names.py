"""What a model config of mmdet or mmseg names: where somebody else has written it, it must name nothing but models.

mmengine builds a ``type`` from its registries, and imports it by its path where they don't know it. The libraries read
further texts as files (``class_weight``, ``teacher_config``), as modules (``target``) and as Python (the ``type`` of
``nms``, ``warp_mode``). So a text in such a config is a registered name or a plain word; what else there is is named.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LIBRARIES = ("mmdet", "mmseg", "mmengine", "mmpretrain")
_OTHER_TYPES = ("dilation", "offset")
"""Not built at all: what AdaptiveConv adapts."""

# No path, no call, no name with a dot: such as 'bilinear', 'Conv 2d', '[CLS]', 'regnetx_3.2gf', '.'.
_PLAIN_WORDS = re.compile(r"(?:[\w +\-\[\]?]|\.(?![^\W\d]))*")

Named = tuple[str, str, str]
"""The key, what it names, and what is wrong with that."""


def names_beyond(library: str, config: Any, key: str) -> Iterator[Named]:
    """What a config names beside registered models and plain words, in its order.

    Args:
        library: in whose `lightning_modules.openmmlab.scope` this runs.
        config: plain content.
        key: where it stands.
    """
    if isinstance(config, Mapping):
        for name, value in config.items():
            at = f"{key}.{name}"
            if name == "type" and isinstance(value, str):
                if not _is_type(library, value):
                    yield at, value, f"is no model that {library} has registered"
            elif not (name == "_scope_" and value in LIBRARIES):
                yield from names_beyond(library, value, at)
    elif isinstance(config, (list, tuple)):
        for place, value in enumerate(config):
            yield from names_beyond(library, value, f"{key}[{place}]")
    elif isinstance(config, str):
        if not _PLAIN_WORDS.fullmatch(config):
            yield key, config, "may be the name of a file, an address or a program"
        elif _is_module_here(config):
            yield key, config, "is a module in the current folder"


def with_registered_names(library: str, config: Any) -> Any:
    """The config with classes, and import paths of registered ones, replaced by the names they are registered by.

    Args:
        library: in whose `lightning_modules.openmmlab.scope` this runs.
        config: content of a config file; classes that are not registered become import paths.
    """
    names = {
        f"{each.__module__}.{getattr(each, '__qualname__', '')}": name for name, each in _registered(library).items()
    }
    return _renamed(config, names)


def _renamed(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, Mapping):
        return {name: _renamed(value, names) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_renamed(value, names) for value in config]
    if hasattr(config, "__qualname__"):
        config = f"{config.__module__}.{config.__qualname__}"
    return names.get(config, config) if isinstance(config, str) else config


def _is_type(library: str, name: str) -> bool:
    import mmcv.ops

    scope, dot, plain = name.rpartition(".")
    if _is_module_here(plain):  # where a part is built from another library's registry, which does not know the name
        return False
    if dot:
        return scope in LIBRARIES and plain in _registered(scope)
    return plain in _registered(library) or plain in _OTHER_TYPES or (plain.isidentifier() and hasattr(mmcv.ops, plain))


def _registered(library: str) -> Mapping[str, Any]:
    """Everything that a library's models are built of, by name; that of mmengine, which all share, included."""
    found: dict[str, Any] = {}
    root = Path(str(importlib.import_module("mmengine").__file__)).parents[1]
    spec = importlib.util.find_spec(library)
    # A folder that is called as a library which is not installed is none.
    if spec is not None and spec.origin is not None and Path(spec.origin).parents[1] == root:
        registries = importlib.import_module(f"{library}.registry")
        shared = importlib.import_module("mmengine.registry")
        for registry in (registries.MODELS, registries.TASK_UTILS, shared.WEIGHT_INITIALIZERS):
            while registry is not None:
                registry.import_from_location()
                found = {**registry.module_dict, **found}
                registry = registry.parent
    return found


def _is_module_here(word: str) -> bool:
    """Whether importing this word would run a file of the current folder; mmengine imports what it does not know."""
    return word.isidentifier() and any(
        (Path.cwd() / place).is_file() for place in (f"{word}.py", f"{word}/__init__.py")
    )
