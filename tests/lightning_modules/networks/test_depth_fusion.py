import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_modules.networks.cells import build_operation
from lightning_modules.networks.depth_fusion import (
    UPSAMPLINGS,
    DepthNetwork,
    FusionCell,
    ResidualBackbone,
    build_backbone,
)


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def make_network(build_cell=None, **arguments):
    build_cell = build_cell or (lambda fusion: FusionCell([nn.Identity()] * 5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = ResidualBackbone(4)
        return DepthNetwork(
            trunk, build_cell, lambda fusion: UPSAMPLINGS["bilinear"](6, nn.BatchNorm2d), 6, **arguments
        )


def test_a_cell_is_the_sum_written_out():
    names = ["nor_conv_1x1", "skip_connect", "avg_pool_3x3", "nor_conv_3x3", "nor_conv_1x1"]
    cell = FusionCell([build_operation(name, 5) for name in names])
    previous, skip = images(2, 2, 5, 8, 8)
    a, b, c, d, e = cell.operations
    node = a(previous) + b(skip)
    torch.testing.assert_close(cell(previous, skip), c(previous) + d(skip) + e(node))


def test_edges_that_carry_nothing_or_lead_nowhere_are_not_computed():
    ran = []

    class Named(nn.Module):
        def __init__(self, edge):
            super().__init__()
            self.edge = edge

        def forward(self, x):
            ran.append(self.edge)
            return x

    previous, skip = images(2, 1, 3, 4, 4)
    nothing = build_operation("none", 3)
    cell = FusionCell([Named(0), Named(1), Named(2), nothing, nothing])
    assert torch.equal(cell(previous, skip), previous) and ran == [2]
    ran.clear()
    cell = FusionCell([nothing, Named(1), nothing, nothing, Named(4)])
    assert torch.equal(cell(previous, skip), skip) and ran == [1, 4]


def test_a_node_without_input_is_zero_not_absent():
    """A normalised convolution of zeros is its shift."""
    nothing, convolution = build_operation("none", 3), build_operation("nor_conv_3x3", 3)
    nn.init.constant_(convolution[2].bias, 2.0)
    cell = FusionCell([nothing, nothing, nn.Identity(), nothing, convolution]).eval()
    previous, skip = images(2, 2, 3, 4, 4)
    torch.testing.assert_close(cell(previous, skip), previous + 2)


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_upsamplings_double_the_resolution(name):
    upsampling = UPSAMPLINGS[name](5, nn.BatchNorm2d)
    x = images(2, 5, 3, 4)
    assert upsampling(x).shape == (2, 5, 6, 8)
    if name in ("bilinear", "bicubic"):
        expected = functional.interpolate(x, scale_factor=2, mode=name, align_corners=False)
        assert torch.equal(upsampling(x), expected) and not list(upsampling.parameters())
    else:
        assert any(parameter.requires_grad for parameter in upsampling.parameters())


def test_pixel_shuffle_lays_four_channels_out_as_a_square():
    upsampling = UPSAMPLINGS["pixel_shuffle"](1, nn.BatchNorm2d).eval()
    with torch.no_grad():
        upsampling[0][1].weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1))
    out = upsampling(torch.tensor([[[[1.0, -1.0]]]]))
    torch.testing.assert_close(out, torch.tensor([[[[1.0, 2, 0, 0], [3, 4, 0, 0]]]]), rtol=1e-4, atol=1e-4)


def test_the_network_is_the_data_path_written_out():
    """Coarsest map first and twice; each fusion meets the map of its own resolution."""
    seen = []

    class Merge(nn.Module):
        def __init__(self, fusion):
            super().__init__()
            self.fusion = fusion

        def forward(self, previous, skip):
            seen.append((self.fusion, previous, skip))
            return previous - 2 * skip

    network = make_network(Merge)
    batch = images(2, 3, 64, 96)
    depth = network(batch)
    assert depth.shape == (2, 1, 64, 96) and (depth >= 0).all()
    network_maps = network.backbone(batch)
    assert [tuple(x.shape[1:]) for x in network_maps] == [(4, 16, 24), (8, 8, 12), (16, 4, 6), (32, 2, 3)]
    first, second, third, fourth = (
        functional.conv2d(x, projection.weight, padding=1)
        for x, projection in zip(network_maps, network.projections, strict=True)
    )

    def up(x):
        return functional.interpolate(x, scale_factor=2, mode="bilinear")

    x = up(fourth - 2 * fourth)
    for skip in (third, second, first):
        x = up(x - 2 * skip)
    assert [fusion for fusion, *_ in seen] == [0, 1, 2, 3]
    assert x.shape[2:] == (32, 48)
    a, _, b, _, c, _ = network.head
    torch.testing.assert_close(depth, functional.relu(c(functional.relu(b(up(a(x)))))))


def test_no_seed_starts_with_a_dead_head():
    for seed in range(20):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = DepthNetwork(
                ResidualBackbone(4),
                lambda fusion: FusionCell([build_operation("nor_conv_3x3", 6) for _ in range(5)]),
                lambda fusion: nn.Upsample(scale_factor=2),
                6,
            )
        assert (network(images(2, 3, 32, 32)) > 0).float().mean() > 0.5


@pytest.mark.parametrize(
    "shape, message", [((1, 3, 48, 64), "images are 48x64 pixels"), ((1, 3, 64, 33), "images are 64x33 pixels")]
)
def test_sizes_that_do_not_divide_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        make_network()(images(*shape))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "resnet"}, "backbone is 'resnet', allowed: residual, resnext101_32x8d"),
        ({"name": "residual", "width": 0}, "width is 0"),
        ({"name": "residual", "weights": "a.pth"}, "are for the backbone resnext101_32x8d"),
        ({"name": "resnext101_32x8d", "in_channels": 1}, "in_channels is 1"),
    ],
)
def test_wrong_backbones_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(**arguments)


# ---- the paper's backbone --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights with normalisation statistics of their own, and torchvision's network of them."""
    from torchvision.models import resnext101_32x8d

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = resnext101_32x8d(weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 2.0, 4.0)
    file = tmp_path_factory.mktemp("weights") / "resnext.pth"
    torch.save(network.state_dict(), file)
    yield file, network.eval()
    file.unlink()  # 340 MB


def test_resnext_computes_what_torchvision_computes_and_its_normalisation_is_frozen(weights):
    file, reference = weights
    backbone = build_backbone("resnext101_32x8d", weights=file)
    batch = images(1, 3, 32, 32)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    with torch.no_grad():
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(batch))))
        for stage, ours in zip(("layer1", "layer2", "layer3", "layer4"), backbone(batch), strict=True):
            x = getattr(reference, stage)(x)
            torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4)
    assert len(before) == 4 * 104 and all(torch.equal(before[name], value) for name, value in backbone.named_buffers())
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in build_backbone("resnext101_32x8d", weights=file).parameters())
    frozen = [module for module in reference.modules() if isinstance(module, nn.BatchNorm2d | nn.Linear)]
    left_out = sum(parameter.numel() for module in frozen for parameter in module.parameters())
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 88_791_336 - left_out


def test_random_resnext_takes_the_normalisation_of_a_supernet():
    def norm(channels):
        return nn.InstanceNorm2d(channels, affine=False)

    with torch.device("meta"):
        backbone = build_backbone("resnext101_32x8d", norm=norm)
        maps = backbone(torch.empty(2, 3, 64, 64))
    assert [tuple(x.shape) for x in maps] == [(2, 256, 16, 16), (2, 512, 8, 8), (2, 1024, 4, 4), (2, 2048, 2, 2)]
    kinds = [type(module) for module in backbone.modules() if "Norm" in type(module).__name__]
    assert kinds == [nn.InstanceNorm2d] * 104


def test_files_that_hold_something_else_are_refused(tmp_path):
    text, other, number = (tmp_path / name for name in ("text.pth", "other.pth", "number.pth"))
    text.write_text("not a checkpoint")
    torch.save({"conv1.weight": torch.zeros(1)}, other)
    torch.save(torch.zeros(1), number)
    for file, message in (
        (text, "cannot be read"),
        (other, "are not those of"),
        (number, "does not hold a state dict"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            build_backbone("resnext101_32x8d", weights=file)
        assert "\n" not in str(caught.value)


def test_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save(Trap(), tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        build_backbone("resnext101_32x8d", weights=tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
