"""The module that takes the place of mmcv's compiled one."""

from __future__ import annotations

import importlib.machinery
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from lightning_modules.openmmlab import boxes, deformable, focal_loss, region_pooling


class StandInModule(ModuleType):
    """``mmcv._ext`` on torch's and torchvision's kernels.

    mmcv asks for every operator when `mmcv.ops` is imported, also for those of point clouds and rotated boxes. One
    without a stand-in is a function that says so when it is called.
    """

    def __getattr__(self, operator: str) -> Callable[..., NoReturn]:
        if operator.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{operator}'")

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"mmcv's operator '{operator}' has no stand-in here: install an mmcv >=2.0.0,<2.2.0 with operators "
                "compiled for this release of torch in place of mmcv-lite"
            )

        missing.__name__ = operator
        return missing


def stand_in_module() -> StandInModule:
    """A fresh module of all stand-ins, not yet in `sys.modules`."""
    module = StandInModule("mmcv._ext", "Stand-ins for mmcv's compiled operators.")
    # mmengine asks for operators by `find_spec`, which refuses a module without a spec; no loader reads as: none.
    module.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", loader=None)
    for operator in (
        boxes.bbox_overlaps,
        boxes.nms,
        boxes.softnms,
        boxes.nms_match,
        region_pooling.roi_align_forward,
        region_pooling.roi_align_backward,
        region_pooling.roi_pool_forward,
        region_pooling.roi_pool_backward,
        focal_loss.sigmoid_focal_loss_forward,
        focal_loss.sigmoid_focal_loss_backward,
        focal_loss.softmax_focal_loss_forward,
        focal_loss.softmax_focal_loss_backward,
        deformable.deform_conv_forward,
        deformable.deform_conv_backward_input,
        deformable.deform_conv_backward_parameters,
        deformable.modulated_deform_conv_forward,
        deformable.modulated_deform_conv_backward,
        deformable.ms_deform_attn_forward,
        deformable.ms_deform_attn_backward,
    ):
        setattr(module, operator.__name__, operator)
    return module
