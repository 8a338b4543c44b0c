"""The way to mmdet and mmseg: they load here without mmcv's compiled operators.

mmcv compiles its operators per release of torch, and publishes wheels for a few old ones only. Its pure-Python
distribution ``mmcv-lite`` lacks them, yet mmdet and mmseg import `mmcv.ops` at their very top. `prepare` puts stand-ins
on torch's and torchvision's kernels in place of the compiled module; where that one is there, it stays.

There are two sets of releases: OpenMMLab's own last ones, and those of the fork that is still maintained (``onedl-``),
which goes by the same importable names. Either does.

Both libraries build parts of a model through mmengine's common registry, which reads a plain name, such as ``ResNet``,
by the scope that holds at that moment. Build in `scope`::

    with scope("mmdet"):
        from mmdet.registry import MODELS

        detector = MODELS.build(config)
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Literal

# The newest releases of both libraries, with the newest mmcv that they accept.
# mmseg imports ftfy and regex without declaring them.
INSTALLATION = "pip install mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0 mmsegmentation==1.2.2 ftfy regex"
# The fork that is maintained, under the same importable names: one set or the other, never parts of both.
FORK = "pip install onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1 onedl-mmsegmentation==1.4.2"
_OPENMMLAB, _FORK = ((2, 0), (2, 2)), ((2, 3), (2, 4))
"""From which release of mmcv on, and before which, of either set."""


def prepare() -> None:
    """Make `mmcv.ops`, and so mmdet and mmseg, importable: call it before importing any of them.

    Where the compiled operators load, nothing changes. Elsewhere ``mmcv._ext`` becomes a module of stand-ins (see
    `operators`), and an operator that has none raises NotImplementedError when it is called. Repeated calls cost
    nothing. Beyond what the libraries do when they are imported, `sys.modules` is all that it changes.

    Raises:
        ImportError: mmengine or mmcv is not installed, or mmcv's release does not go with mmdet and mmseg.
    """
    if "mmcv._ext" in sys.modules:
        return
    with _no_deprecation_warnings():
        with _advice_on_missing():
            mmcv = importlib.import_module("mmcv")
        _check_release(mmcv.__version__)
        try:
            importlib.import_module("mmcv._ext")
        # OSError, and ImportError for undefined symbols: compiled for another torch, which is as good as absent.
        except (ImportError, OSError):
            from lightning_modules.openmmlab.operators import stand_in_module

            sys.modules["mmcv._ext"] = stand_in_module()


@contextmanager
def scope(library: Literal["mmdet", "mmseg"]) -> Iterator[None]:
    """Within it, plain names in configurations mean this library's models, data sets, transforms and metrics.

    Names of the other library are found by prefix, as in ``type="mmseg.FCNHead"``. Build a model and call its
    `init_weights` in here, where mmengine reports warnings only: to the latter belongs a message per parameter. Forward
    passes need no scope. Afterwards mmengine's default scope and level of logging are as before.

    The first time imports the library whole, which takes seconds.

    Args:
        library: the importable name.

    Raises:
        ImportError: the library or one that it needs is not installed, or mmcv's release does not go with it.
    """
    prepare()
    # The fork prints that a service of its makers is not installed.
    with _no_deprecation_warnings(), _advice_on_missing(), redirect_stdout(io.StringIO()):
        importlib.import_module(f"{library}.utils").register_all_modules(init_default_scope=False)
        if library == "mmdet":
            importlib.import_module("lightning_modules.openmmlab.necks").register()
    logger = importlib.import_module("mmengine.logging").MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        default_scope = importlib.import_module("mmengine.registry").DefaultScope
        with _no_deprecation_warnings(), default_scope.overwrite_default_scope(library):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _no_deprecation_warnings() -> Iterator[None]:
    """Ignore what the libraries say about their own use of Python and of each other: their users can't change it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # mmcv's way to say that a class has moved, and mmseg's to say so of its own calls.
        warnings.simplefilter("ignore", ImportWarning)
        warnings.filterwarnings("ignore", message="``build_loss`` would be deprecated")
        yield


@contextmanager
def _advice_on_missing() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ImportError(
            f"'{package}' is not installed, which detection and segmentation need: {INSTALLATION}"
        ) from error


def _check_release(version: str) -> None:
    """Say which releases go together; the libraries assert the same with less said, or not at all."""
    release = tuple(int(number) for number in version.split(".")[:2])
    # Only the fork's distributions are called so. Whoever has neither, mmcv alone say, is told of the first set.
    forked = any(_is_installed(name) for name in ("onedl-mmdetection", "onedl-mmsegmentation"))
    first, end = _FORK if forked else _OPENMMLAB
    if first <= release < end:
        return
    which = "onedl-mmdetection and onedl-mmsegmentation" if forked else "mmdet 3.3.0 and mmsegmentation 1.2.2"
    wanted = f">={'.'.join(map(str, first))}.0,<{'.'.join(map(str, end))}.0"
    raise ImportError(
        f"mmcv {version} does not go with {which}, which want mmcv {wanted}: {FORK if forked else INSTALLATION}"
    )


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
