"""FBNet's network: convolutions run as one give what each gives; what is too light to matter may be left out."""

from functools import partial

import pytest
import torch
from torch import nn

from lightning_modules.networks.batch_statistics import BatchStatistics, fix, recalibrated
from lightning_modules.networks.fbnet import OPERATIONS, FBNetNetwork, FBNetSuperLayer, Shape, shapes_of
from lightning_modules.networks.mobile_blocks import ChannelShuffle, InvertedResidual
from lightning_modules.networks.supernet import Path, Selection

SHAPES = [Shape(4, 4, 1), Shape(4, 6, 1), Shape(4, 6, 2)]
NORMS = {
    "batch": BatchStatistics,
    "affine": partial(BatchStatistics, affine=True),
    "running": nn.BatchNorm2d,
}


def layer_of(shape, norm, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = FBNetSuperLayer(Selection(), 0, shape, norm)
        for parameter in layer.parameters():
            if parameter.ndim == 1:  # a scale of 1 would hide a wrong one
                nn.init.uniform_(parameter, 0.5, 1.5)
    return layer


def images(seed=0, size=7):
    return torch.randn(3, 4, size, size + 1, generator=torch.Generator().manual_seed(seed))


def relaxed(layer, x, weights, active=None):
    layer.selection.path = Path(None, (weights,), None if active is None else (active,))
    return layer(x)


# ---- the sum of all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("active", [range(9), (0, 1, 4), (2, 3, 6, 7), (3, 8), (8,), (5,)], ids=str)
def test_together_they_give_what_each_gives_and_so_do_their_gradients(norm, shape, active):
    layer, x = layer_of(shape, NORMS[norm]), images().requires_grad_()
    weights = torch.rand(9, generator=torch.Generator().manual_seed(1)).requires_grad_()
    inputs = [x, weights, *layer.parameters()]

    def gradients(output):
        slope = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
        return torch.autograd.grad((output * slope).sum(), inputs, allow_unused=True)

    together = relaxed(layer, x, weights, tuple(active))
    one_by_one = sum(weights[k] * layer.operations[k](x) for k in active)
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    for ours, expected in zip(gradients(together), gradients(one_by_one), strict=True):
        assert (ours is None) == (expected is None)
        if ours is not None:
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_statistics_are_recorded_and_fixed_in_a_relaxed_pass_too():
    layer, weights = layer_of(SHAPES[0], NORMS["affine"]), torch.full((9,), 1 / 9)
    with torch.no_grad(), recalibrated(layer):
        relaxed(layer, images(1), weights)
        fix(layer)
        alone = relaxed(layer, images(2)[:1], weights)
        assert torch.allclose(alone, relaxed(layer, images(2), weights)[:1], atol=1e-5)
    assert not torch.allclose(alone, relaxed(layer, images(2), weights)[:1], atol=1e-3)


def test_what_is_left_out_changes_the_output_by_less_than_rounding():
    layer, x = layer_of(SHAPES[0], NORMS["batch"]).double(), images().double()
    weights = torch.tensor([0.5, 2**-25, 0.0, 2**-25, 0.3, 2**-26, 2**-25, 0.0, 0.2], dtype=torch.float64)
    everything, some = relaxed(layer, x, weights), relaxed(layer, x, weights, (0, 4, 8))
    assert 0 < (everything - some).abs().max() < 2**-22 * everything.abs().max()  # four terms of as many roundings
    ran = []
    for k, operation in enumerate(layer.operations):
        operation.register_forward_hook(lambda *_, k=k: ran.append(k))
    relaxed(layer, x, weights, (8,))
    assert ran == [8]


# ---- the blocks -----------------------------------------------------------------------------------------------------


def test_a_shuffle_deals_channels_out_in_turn():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert ChannelShuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_a_block_is_what_its_formula_says():
    """Identity normalisation, so that the convolutions can be written out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = InvertedResidual(4, 4, 1, 3, 3, norm=lambda channels: nn.Identity())
    x, f = images(), nn.functional
    wide = f.conv2d(x, block.widen[0].weight).relu()
    deep = torch.stack(
        [f.conv2d(wide[:, k : k + 1], block.depthwise[0].weight[k : k + 1], padding=1)[:, 0] for k in range(12)], dim=1
    ).relu()
    torch.testing.assert_close(block(x), x + torch.einsum("oc,bchw->bohw", block.narrow[0].weight[:, :, 0, 0], deep))


def test_two_groups_see_each_other_through_the_shuffle():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = InvertedResidual(4, 4, 1, 3, 1, 2, norm=lambda channels: nn.Identity())
    x = images().requires_grad_()
    output = block(x) - x
    reach = torch.autograd.grad(output[:, 0].sum(), x)[0].abs().sum((0, 2, 3)) > 0
    assert reach.tolist() == [True, False, True, False]  # one of each half
    assert isinstance(block.widen, nn.Identity)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_operation_has_the_shape_of_its_layer(name, shape):
    output = OPERATIONS[name](*shape, nn.BatchNorm2d)(images())
    size = (7, 8) if shape.stride == 1 else (4, 4)
    assert output.shape == (3, shape.out_channels, *size)


def test_widths_are_even_and_the_skeletons_divide_the_resolution():
    stem, shapes = shapes_of((1, 2, 1), "imagenet", 0.3)
    assert stem == 4 and shapes == [(4, 4, 1), (4, 8, 2), (8, 8, 1), (8, 10, 2)]
    for skeleton, size in (("imagenet", 1), ("cifar", 4)):
        with torch.device("meta"):
            network = FBNetNetwork(lambda number, shape: OPERATIONS["skip"](*shape), 10, skeleton=skeleton, width=0.1)
            assert network.features(torch.zeros(2, 3, 32, 32)).shape == (2, 1984, size, size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skeleton": "image"}, "skeleton is 'image', allowed: imagenet, cifar"),
        ({"width": 0}, "width_multiplier is 0"),
        ({"head_channels": 0}, "head_channels is 0"),
    ],
)
def test_wrong_numbers_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FBNetNetwork(lambda number, shape: OPERATIONS["skip"](*shape), 10, **settings)
