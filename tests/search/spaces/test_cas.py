"""CAS's two spaces: their sizes, their cells, and what their networks give."""

import math

import pytest
import torch

from lightning_modules.networks.cas import BACKBONE_OPERATIONS, SCALE_OPERATIONS, PictureMean
from lightning_modules.networks.cost.complexity import count_parameters
from search.spaces.cas import CASBackbone, CASMultiScale
from search.spaces.head import Head

SMALL = {"channels": 4, "cells": 1, "head_channels": 8}


def test_the_spaces_have_the_sizes_of_darts_cells():
    assert math.prod(CASBackbone().sizes) == (180 * 7**8) ** 2
    assert math.prod(CASMultiScale().sizes) == 180 * 7**8


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("space", [CASBackbone(), CASMultiScale()], ids=lambda space: space.name)
def test_logits_have_the_size_of_the_images(space, stages):
    network = space.build(space.draw("size"), Head(5, 1), stages=stages, **SMALL)
    assert network(torch.randn(2, 1, 45, 70)).shape == (2, 5, 45, 70)
    assert len(network.blocks) == stages + stages - 1
    assert space.build(space.draw("size"), Head(0, 1), stages=stages, **SMALL)(torch.randn(2, 1, 40, 40)).shape[1] == 1


def test_reduction_cells_double_the_channels_and_halve_the_resolution():
    space, shapes = CASBackbone(), []
    network = space.build(space.of_one_operation("conv_3x3"), channels=2, cells=2, head_channels=8)
    for block in network.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append((output.shape[1], output.shape[2])))
    network(torch.randn(2, 3, 64, 96))
    sizes = [(8, 16), (16, 8), (32, 4), (64, 2)]
    assert shapes == [sizes[0]] * 2 + [sizes[1]] * 3 + [sizes[2]] * 3 + [sizes[3]] * 3


def test_a_network_of_separable_convolutions_is_counted_by_hand():
    """With a normal cell between reductions, all of them on their two inputs; biases are the classifier's alone."""
    c, head, classes = 4, 8, 5
    network = CASBackbone().build(CASBackbone().of_one_operation("sep_conv_3x3"), Head(classes), stages=2, **SMALL)
    total = 27 * c + 9 * c * c * 2 + 3 * 2 * c
    before, last = c, c
    for width in (c, 2 * c, 2 * c):
        total += (before + last) * width + 4 * width  # what fits the inputs, with scales and shifts
        total += 8 * 2 * (9 * width + width * width + 2 * width)
        before, last = last, 4 * width
    width = head // 4
    total += last * head + 2 * head + 4 * 2 * c * width + 2 * width + (head + width) * classes + classes
    assert count_parameters(network) == total


def test_the_backbone_behind_the_scales_is_the_one_that_is_named():
    backbone = CASBackbone()
    arch = backbone.draw("named")
    space = CASMultiScale(backbone.format(arch))
    assert space.backbone == arch
    named, alone = space.build(space.draw("x"), Head(5), **SMALL), backbone.build(arch, Head(5), **SMALL)
    for key, value in alone.blocks.state_dict().items():
        assert named.blocks.state_dict()[key].shape == value.shape
    assert len(named.blocks.state_dict()) == len(alone.blocks.state_dict())
    with pytest.raises(ValueError, match="cas_backbone: 'nonsense'"):
        CASMultiScale("nonsense")


def test_drawings_name_nodes_and_operations():
    space = CASBackbone()
    edges = space.diagram(space.of_one_operation("dil_conv_3x3_4"))
    assert len(edges) == 16 and {edge.label for edge in edges} == {"dil_conv_3x3_4"}
    assert edges[0].source == "normal 0" and edges[-1].target == "reduction 5"
    assert tuple(BACKBONE_OPERATIONS) == space.decisions[1].choices
    assert tuple(SCALE_OPERATIONS) == CASMultiScale().decisions[1].choices


def test_the_mean_of_a_picture_is_the_same_at_every_pixel():
    part = PictureMean(3, lambda channels: torch.nn.Identity())
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("oc,bc->bo", part.convolution.weight[:, :, 0, 0], x.mean((2, 3)).relu())
    assert part(x).shape == x.shape
    torch.testing.assert_close(part(x)[:, :, 3, 1], expected)
    with pytest.raises(ValueError, match="stages 5"):
        CASBackbone().build(CASBackbone().draw(0), stages=5)
