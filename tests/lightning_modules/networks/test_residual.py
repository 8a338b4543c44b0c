import pytest
import torch
from torchvision import models

from lightning_modules.networks.residual import BasicBlock, Bottleneck, ResidualFeatures, ResidualNetwork

CLASSIC = {
    "resnet18": ("basicblock", (2, 2, 2, 2), 11_689_512),
    "resnet34": ("basicblock", (3, 4, 6, 3), 21_797_672),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 25_557_032),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 44_549_160),
}
"""Block, blocks of each stage, and the published number of parameters."""


def classic_widths(name):
    return [[64 * 2**stage] * count for stage, count in enumerate(CLASSIC[name][1])]


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_resnets_have_torchvisions_parameters(name):
    with torch.device("meta"):
        ours = ResidualNetwork(ResidualFeatures(CLASSIC[name][0], classic_widths(name)), 1000)
        theirs = getattr(models, name)()
    shapes = {key.removeprefix("backbone."): value.shape for key, value in ours.state_dict().items()}
    assert list(shapes.items()) == [(key, value.shape) for key, value in theirs.state_dict().items()]
    assert sum(parameter.numel() for parameter in ours.parameters()) == CLASSIC[name][2]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_classic_resnets_compute_what_torchvisions_do(name):
    theirs = seeded(getattr(models, name)).eval()
    # Statistics and scales away from 0 and 1, or a normalisation at the wrong place would go unnoticed.
    generator = torch.Generator().manual_seed(1)
    for key, value in theirs.state_dict().items():
        if "bn" in key and value.is_floating_point():
            value += 0.3 * torch.rand(value.shape, generator=generator)
    ours = ResidualNetwork(ResidualFeatures(CLASSIC[name][0], classic_widths(name)), 1000).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    pictures = images(2, 3, 75, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(pictures), theirs(pictures), rtol=1e-4, atol=1e-4)


def test_weights_start_as_torchvisions_do():
    ours = seeded(lambda: ResidualNetwork(ResidualFeatures("basicblock", classic_widths("resnet18")), 1000))
    theirs = seeded(models.resnet18).state_dict()
    for (key, mine), reference in zip(ours.state_dict().items(), theirs.values(), strict=True):
        assert float(mine.float().std(correction=0)) == pytest.approx(
            float(reference.float().std(correction=0)), rel=0.06
        ), key


@pytest.mark.parametrize("block, expansion", [("basicblock", 1), ("bottleneck", 4)])
@pytest.mark.parametrize("stem, stem_stride, stride", [("imagenet", None, 4), ("small", None, 1), ("small", 2, 2)])
def test_maps_have_the_declared_channels_and_strides(block, expansion, stem, stem_stride, stride):
    widths = [[4], [4, 8, 8], [8], [16, 32], [32, 32]]
    backbone = ResidualFeatures(block, widths, in_channels=2, stem=stem, stem_stride=stem_stride)
    assert backbone.in_channels == 2
    assert backbone.channels == tuple(expansion * stage[-1] for stage in widths)
    assert backbone.strides == tuple(stride * 2**k for k in range(5))
    for size in ((64, 64), (61, 97), (65, 33)):
        maps = backbone(images(2, 2, *size))
        assert [tuple(features.shape) for features in maps] == [
            (2, channels, -(-size[0] // s), -(-size[1] // s))
            for channels, s in zip(backbone.channels, backbone.strides, strict=True)
        ]


def test_strides_are_true():
    """A pixel of the image moves what lies near it in a map of that stride, and nothing far away."""
    backbone = seeded(lambda: ResidualFeatures("basicblock", [[4]], stem="imagenet")).eval()
    with torch.no_grad():
        blank = images(1, 3, 128, 128)
        touched = blank.clone()
        touched[..., 40, 80] += 10
        moved = (backbone(touched)[0] - backbone(blank)[0]).abs().sum((0, 1))
    rows, columns = moved.nonzero().T
    assert abs(float(rows.double().mean()) - 40 / 4) <= 1 and abs(float(columns.double().mean()) - 80 / 4) <= 1
    assert int(moved.argmax()) // 32 in (9, 10, 11)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_zero_initialised_branches_leave_the_shortcut_alone(block):
    name = "basicblock" if block is BasicBlock else "bottleneck"
    backbone = seeded(lambda: ResidualFeatures(name, [[4, 4], [8]], zero_init_residual=True))
    second = backbone.layer1[1]
    x = images(2, 4 * block.expansion, 8, 8).relu()
    assert torch.equal(second(x), x)
    plain = seeded(lambda: ResidualFeatures(name, [[4, 4], [8]])).layer1[1]
    assert not torch.equal(plain(x), x)


def test_without_classes_the_network_gives_the_mean_of_its_last_map():
    network = seeded(lambda: ResidualNetwork(ResidualFeatures("basicblock", [[4], [8]]), 0)).eval()
    pictures = images(2, 3, 32, 32)
    torch.testing.assert_close(network(pictures), network.backbone(pictures)[-1].mean((2, 3)))
    assert network.num_classes == 0


def test_wrong_arguments_are_refused():
    with pytest.raises(
        ValueError, match="block is 'bottelneck', allowed: basicblock, bottleneck; did you mean 'bottlene"
    ):
        ResidualFeatures("bottelneck", [[4]])
    with pytest.raises(ValueError, match="stem is 'smal', allowed: imagenet, small; did you mean 'small'"):
        ResidualFeatures("basicblock", [[4]], stem="smal")
    with pytest.raises(ValueError, match="stem_stride is 3, allowed for the stem 'small': 1, 2"):
        ResidualFeatures("basicblock", [[4]], stem="small", stem_stride=3)
    with pytest.raises(ValueError, match="stem_stride is 2, the stem 'imagenet' has 4"):
        ResidualFeatures("basicblock", [[4]], stem_stride=2)
    with pytest.raises(ValueError, match="every stage needs at least one block"):
        ResidualFeatures("basicblock", [[4], []])
    with pytest.raises(ValueError, match="num_classes is -1"):
        ResidualNetwork(ResidualFeatures("basicblock", [[4]]), -1)
