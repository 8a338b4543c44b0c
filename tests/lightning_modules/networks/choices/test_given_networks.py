"""Networks that somebody else wrote: what is coupled is found, and every path computes what a plain network does."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models.densenet import DenseNet
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, ResNet

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.choices import ChoiceSupernet, cut, find_choices, with_depth_choices, with_width_choices
from lightning_modules.networks.choices.torchvision_network import TorchvisionNetwork
from lightning_modules.networks.supernet import Path

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MOBILE = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2]]


def names(network):
    return {each.name: each.choice.options for each in find_choices(network)}


def test_widths_of_a_residual_sum_are_one_decision():
    with torch.device("meta"):
        found = names(with_width_choices(resnet18(), [0.5, 0.75, 1.0]))
    # The four sums, and the inside of each of the eight blocks; of a stage's blocks the sum is that of the first.
    sums = {"conv1.out_channels": 64, **{f"layer{k}.0.conv2.out_channels": 2 ** (k + 5) for k in (2, 3, 4)}}
    insides = {f"layer{k}.{block}.conv1.out_channels": 2 ** (k + 5) for k in (1, 2, 3, 4) for block in (0, 1)}
    assert found == {name: (n // 2, 3 * n // 4, n) for name, n in (sums | insides).items()}


def test_widths_of_depthwise_convolutions_are_those_before_them():
    with torch.device("meta"):
        found = names(with_width_choices(mobilenet_v2(inverted_residual_setting=MOBILE), [0.5, 1.0]))
    assert found == {
        "features.0.0.out_channels": (16, 32),  # the stem, and the depthwise convolution behind it
        "features.1.conv.1.out_channels": (8, 16),
        **{
            f"features.{k}.conv.0.0.out_channels": (n // 2, n)
            for k, n in ((2, 96), (3, 144), (4, 144), (5, 192), (6, 192))
        },
        "features.2.conv.2.out_channels": (12, 24),
        "features.4.conv.2.out_channels": (16, 32),
        "features.7.0.out_channels": (640, 1280),
    }


def test_depths_are_those_of_blocks_that_keep_the_shape():
    assert names(with_depth_choices(ResNet(BasicBlock, [2, 1, 3, 2]))) == {
        "layer1": (1, 2),
        "layer3": (1, 2, 3),
        "layer4": (1, 2),
    }
    network = with_depth_choices(mobilenet_v2(inverted_residual_setting=MOBILE))
    assert names(network) == {"features.2": (1, 2), "features.3": (1, 2, 3)}
    assert [type(each).__name__ for each in network.features][1:4] == ["InvertedResidual", "DepthChoice", "DepthChoice"]
    assert isinstance(network.features[3].blocks[2], InvertedResidual)


def test_what_is_concatenated_keeps_its_width():
    network = with_width_choices(DenseNet(growth_rate=4, block_config=(2,), num_init_features=8, bn_size=2), [0.5, 1.0])
    assert names(network) == {f"features.denseblock1.denselayer{k}.conv1.out_channels": (4, 8) for k in (1, 2)}


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResNet(BasicBlock, [2, 2, 1, 1], num_classes=5),
        lambda: mobilenet_v2(num_classes=5, inverted_residual_setting=MOBILE, width_mult=0.5),
    ],
)
def test_every_path_is_a_plain_network(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make()
        before = network.eval()(IMAGES)
        network = with_width_choices(with_depth_choices(network), [0.5, 1.0])
    assert torch.allclose(network(IMAGES), before, atol=1e-5)  # the largest path is the network that was given
    found = find_choices(network)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    supernet = ChoiceSupernet(network.train(), partial(BatchStatistics, affine=True))
    sizes = set()
    for choices in (
        [0] * len(found),
        [len(each.choice.options) - 1 for each in found],
        [k % 2 for k in range(len(found))],
    ):
        plain = cut(supernet.network, choices)
        assert torch.allclose(plain(IMAGES), supernet(IMAGES, Path(tuple(choices))), atol=1e-5)
        sizes.add(sum(each.numel() for each in plain.parameters()))
    assert len(sizes) == 3


class Flat(nn.Module):
    """A classifier that reads every place of its last feature map."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(4 * 9, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, images):
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.norm(self.first(images)), 3))


def test_a_linear_layer_reads_all_places_of_the_channels_that_are_there():
    network = with_width_choices(Flat(), [0.5, 1.0])
    assert names(network) == {"first.out_channels": (2, 4), "classifier.1.out_features": (3, 6)}
    plain = cut(network, (0, 1))
    assert plain.classifier[1].in_features == 18
    by_hand = nn.functional.linear(torch.ones(1, 18), network.classifier[1].weight[:, :18], network.classifier[1].bias)
    assert torch.allclose(plain.classifier[1](torch.ones(1, 18)), by_hand, atol=1e-6)
    assert plain(IMAGES).shape == (2, 2)


class Odd(nn.Module):
    """Control flow that depends on a tensor."""

    def forward(self, images):
        return images if images.sum() > 0 else -images


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: with_width_choices(Odd(), [0.5, 1.0]), "Odd can't be traced"),
        (lambda: with_width_choices(nn.Sequential(nn.Conv2d(3, 4, 1)), [0.5, 1.0]), "nothing in Sequential"),
        (lambda: with_width_choices(Flat(), [0.5, 1.5]), "shares above 0"),
        (lambda: with_depth_choices(Flat()), "Flat has no row of blocks"),
    ],
)
def test_what_cannot_be_narrower_or_shorter_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_recipe_names_a_network_of_torchvision():
    network = TorchvisionNetwork("mobilenet_v2", [0.5, 1.0], 8, num_classes=4, in_channels=1)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    assert all(width % 8 == 0 for name, widths in names(network).items() if "out" in name for width in widths)


class Rows(nn.Module):
    """A linear layer on the rows of a picture, and one on features that follow each other place by place."""

    def __init__(self):
        super().__init__()
        self.first, self.rows = nn.Conv2d(3, 8, 1), nn.Linear(32, 4)
        self.second = nn.Conv2d(8, 6, 1)
        self.last = nn.Linear(6 * 32 * 4, 2)

    def forward(self, images):
        return self.last(torch.flatten(self.second(self.rows(self.first(images))), 1))


def test_rows_of_a_picture_are_no_channels():
    network = with_width_choices(Rows(), [0.5, 1.0])
    assert names(network) == {"second.out_channels": (3, 6)}
    assert cut(network, (0,))(IMAGES).shape == (2, 2)
