import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_modules.networks.depth_decoder import DecodedBackbone, DepthDecoder
from lightning_modules.networks.residual import ResidualFeatures


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(64, 64), (61, 97), (33, 20), (5, 7)])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_any_size_gives_positive_depth_at_the_images_resolution(size, stem):
    widths = [[4], [8], [8, 16], [16], [16]]
    network = seeded(lambda: DecodedBackbone(ResidualFeatures("basicblock", widths, stem=stem), 6)).eval()
    depth = network(images(2, 3, *size))
    assert depth.shape == (2, 1, *size) and (depth > 0).all() and depth.std() > 0


def test_the_decoder_is_the_sum_written_out():
    decoder = seeded(lambda: DepthDecoder((3, 5), 4)).eval()
    fine, coarse = images(1, 3, 7, 6), images(1, 5, 4, 3)
    top = decoder.fusions[1](decoder.projections[1](coarse))
    merged = decoder.projections[0](fine) + functional.interpolate(top, (7, 6), mode="bilinear")
    last = functional.interpolate(decoder.reduction(decoder.fusions[0](merged)), (28, 23), mode="bilinear")
    expected = functional.softplus(decoder.head[0](last))
    torch.testing.assert_close(decoder([fine, coarse], (28, 23)), expected)


def test_every_map_reaches_the_depth():
    decoder = seeded(lambda: DepthDecoder((3, 5, 7), 4)).eval()
    maps = [images(1, 3, 16, 16), images(1, 5, 8, 8), images(1, 7, 4, 4)]
    before = decoder(maps, (32, 32))
    for k in range(3):
        others = [features + (index == k) * images(*features.shape) for index, features in enumerate(maps)]
        assert not torch.allclose(decoder(others, (32, 32)), before, rtol=1e-3, atol=0)


def test_too_few_channels_are_refused():
    with pytest.raises(ValueError, match="decoder_channels is 1, at least 2"):
        DecodedBackbone(ResidualFeatures("basicblock", [[4]]), 1)


def test_weights_of_the_backbone_stay_under_its_name():
    backbone = ResidualFeatures("basicblock", [[4], [8]])
    names = dict(DecodedBackbone(backbone, 4).named_parameters())
    assert {name for name in names if name.split(".")[0] == "backbone"} == {
        f"backbone.{name}" for name, _ in backbone.named_parameters()
    }
    assert isinstance(names["decoder.head.0.weight"], nn.Parameter)
