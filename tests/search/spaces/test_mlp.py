"""Perceptrons: their sizes counted by hand, and the layers that a drawing shows."""

import itertools
import math

import pytest
import torch

from search.spaces.head import Head
from search.spaces.mlp import MLP


def test_the_number_of_architectures_and_their_parameters():
    space = MLP(depths=[1, 3], widths=[4, 8], activations=["relu"], normalisations=["none", "layer"], dropouts=[0.0])
    architectures = list(space.enumerate())
    assert len(architectures) == 2 * (2 + 2**3)
    for architecture in architectures:
        widths = [6, *space.hidden(architecture), 3]
        normalised = architecture[2] == 1
        expected = sum((a + 1) * b for a, b in itertools.pairwise(widths)) + normalised * 2 * sum(widths[1:-1])
        network = space.build(architecture, Head(3, in_channels=6))
        assert sum(each.numel() for each in network.parameters()) == expected
    assert math.prod(MLP().sizes) > 28_080 == 4 * 3 * 3 * (5 + 5**2 + 5**3 + 5**4)


def test_rows_are_images_of_one_pixel_and_an_image_is_its_mean():
    space = MLP()
    network = space.build(space.draw(1), Head(2, in_channels=5)).eval()
    images = torch.randn(4, 5, 3, 7)
    rows = images.mean((2, 3))
    torch.testing.assert_close(network(images), network(rows))
    torch.testing.assert_close(network(rows[:, :, None, None]), network(rows))


def test_what_is_decided_is_built():
    space = MLP(dropouts=[0.0, 0.3])
    architecture = space.parse(
        "depth=2|activation=tanh|normalisation=batch|dropout=0.3|width of layer 1=64|width of layer 2=16|"
        "width of layer 3=16|width of layer 4=16"
    )
    kinds = [type(layer).__name__ for layer in space.build(architecture, Head(1, in_channels=3)).hidden]
    assert kinds == ["Linear", "BatchNorm1d", "Tanh", "Dropout"] * 2
    assert [edge.label for edge in space.diagram(architecture)] == [
        "linear 64, tanh, batch norm, dropout 0.3",
        "linear 16, tanh, batch norm, dropout 0.3",
        "linear",
    ]
    with pytest.raises(ValueError, match="width of layer 3"):
        space.check((*architecture[:-2], 1, 0))  # there is no such layer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": []}, "depths is"),
        ({"widths": [0]}, "at least 1"),
        ({"activations": ["rellu"]}, "did you mean 'relu'"),
        ({"normalisations": ["batch", "batch"]}, "different ones"),
        ({"dropouts": [1.0]}, "dropouts are"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)
