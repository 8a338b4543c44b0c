"""Deformable convolution and attention in the signatures of mmcv's operators, which fill the buffers they are given."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torchvision  # noqa: F401  its kernels are under torch.ops once it is imported
from torch import Tensor


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry: int
) -> None:
    """Fill `output` with a deformable convolution (Deformable Convolutional Networks, Dai et al. 2017, sec. 2.1).

    Args:
        input: ``[images, channels, height, width]``.
        weight: ``[filters, channels / groups, kernel height, kernel width]``.
        offset: ``[images, groups of offsets * 2 * kernel cells, output height, output width]``, row then column.
        output: ``[images, filters, output height, output width]``.
        columns: scratch space of the compiled operator.
        ones: scratch space of the compiled operator.
        **geometry: of the convolution, in mmcv's names.
    """
    unused = _unused_mask_and_bias(input, weight)
    output.copy_(torch.ops.torchvision.deform_conv2d(input, weight, offset, *unused, *_plain_geometry(geometry), False))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Fill `grad_input` and `grad_offset`; arguments as for `deform_conv_forward`."""
    by_input, _, by_offset, _, _ = _plain_backward(input, offset, weight, grad_output, geometry)
    grad_input.copy_(by_input)
    grad_offset.copy_(by_offset)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **geometry: int,
) -> None:
    """Add `scale` times the derivative to `grad_weight`, from which the shape of the weight is known, and no more."""
    # The derivative by the weight does not depend on the weight.
    grad_weight += scale * _plain_backward(input, offset, torch.zeros_like(grad_weight), grad_output, geometry)[1]


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fill `output` with a modulated deformable convolution (Deformable ConvNets v2, Zhu et al. 2019, eq. 1).

    Args:
        input: ``[images, channels, height, width]``.
        weight: ``[filters, channels / groups, kernel height, kernel width]``.
        bias: ``[filters]``, or empty.
        ones: scratch space of the compiled operator.
        offset: ``[images, groups of offsets * 2 * kernel cells, output height, output width]``, row then column.
        mask: ``[images, groups of offsets * kernel cells, output height, output width]``.
        output: ``[images, filters, output height, output width]``.
        columns: scratch space of the compiled operator.
        with_bias: whether there is a bias.
        **geometry: of the convolution, in mmcv's names.
    """
    bias = bias if with_bias else weight.new_zeros(len(weight))
    output.copy_(
        torch.ops.torchvision.deform_conv2d(input, weight, offset, mask, bias, *_modulated_geometry(geometry), True)
    )


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fill all gradients; arguments as for `modulated_deform_conv_forward`."""
    gradients = torch.ops.torchvision._deform_conv2d_backward(
        grad_output,
        input,
        weight,
        offset,
        mask,
        bias if with_bias else weight.new_zeros(len(weight)),
        *_modulated_geometry(geometry),
        True,
    )
    buffers = [grad_input, grad_weight, grad_offset, grad_mask]
    for buffer, gradient in zip([*buffers, grad_bias] if with_bias else buffers, gradients, strict=False):
        buffer.copy_(gradient)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Attention to a few points of several feature maps (Deformable DETR, Zhu et al. 2021, eq. 3).

    This is mmcv's own fallback: on CPUs mmcv takes it itself, on GPUs it calls this.

    Args:
        value: ``[images, keys, heads, head channels]``.
        value_spatial_shapes: int64 ``[levels, 2]``, height and width.
        value_level_start_index: int64 ``[levels]``.
        sampling_locations: ``[images, queries, heads, levels, points, 2]``, column then row in 0 to 1.
        attention_weights: ``[images, queries, heads, levels, points]``.
        im2col_step: of the compiled operator.

    Returns:
        ``[images, queries, heads * head channels]``.
    """
    module = importlib.import_module("mmcv.ops.multi_scale_deform_attn")
    return module.multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the three gradients; arguments as for `ms_deform_attn_forward`."""
    leaves = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            leaves[0], value_spatial_shapes, value_level_start_index, leaves[1], leaves[2], im2col_step
        )
    gradients = torch.autograd.grad(output, leaves, grad_output)
    for buffer, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        buffer.copy_(gradient)


def _plain_backward(
    input: Tensor, offset: Tensor, weight: Tensor, grad_output: Tensor, geometry: dict[str, int]
) -> tuple[Any, ...]:
    unused = _unused_mask_and_bias(input, weight)
    return torch.ops.torchvision._deform_conv2d_backward(
        grad_output, input, weight, offset, *unused, *_plain_geometry(geometry), False
    )


def _unused_mask_and_bias(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The kernels check shapes of what they leave out."""
    return input.new_zeros(len(input), 1), weight.new_zeros(len(weight))


def _plain_geometry(geometry: dict[str, int]) -> list[int]:
    """The geometry of `deform_conv` in torchvision's order."""
    order = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
    return [geometry[name] for name in order]


def _modulated_geometry(geometry: dict[str, int]) -> list[int]:
    """The geometry of `modulated_deform_conv` in torchvision's order."""
    order = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "group", "deformable_group")
    return [geometry[name] for name in order]
