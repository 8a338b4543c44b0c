"""Spaces declared by the modules of a network: counts, masks, weight sharing, and networks of others."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.choices import (
    Choice,
    ChoiceModule,
    DepthChoice,
    ElasticConv2d,
    ElasticLinear,
    OperationChoice,
    with_width_choices,
)
from lightning_modules.networks.choices.small_network import SmallNetwork
from lightning_modules.networks.supernet import Path
from search.errors import CatchmarkError
from search.recipes.build import build, description_of
from search.recipes.trust import Trust
from search.spaces.autoformer import AutoFormer
from search.spaces.base import SearchSpace
from search.spaces.head import Head
from search.spaces.mobile_blocks import MobileBlocks
from search.spaces.module_space import ModuleSpace

TOYS = {
    "small": lambda: ModuleSpace(SmallNetwork),
    "autoformer": lambda: AutoFormer(**AutoFormer.toy()),
    "mobile": lambda: MobileBlocks(**MobileBlocks.toy()),
}


def size(network):
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("affine", [True, False])
def test_every_path_is_its_stand_alone_network(name, affine):
    space, generator = TOYS[name](), torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = space.build_supernet(partial(BatchStatistics, affine=affine), Head(3))
        for parameter in supernet.parameters():
            nn.init.normal_(parameter, std=0.5)
        networks = {}
        for architecture in {space.smallest(), space.largest(), *(space.draw(k) for k in range(6))}:
            networks[architecture] = space.build(architecture, Head(3))
    images, outputs = torch.randn(5, 3, 32, 32, generator=generator), []
    for architecture, network in networks.items():
        assert not any(isinstance(each, ChoiceModule) for each in network.modules())
        supernet.hand_down(architecture, network)
        outputs.append(supernet(images, Path(architecture)))
        assert torch.allclose(network(images), outputs[-1], atol=1e-5)
    assert len({tuple(each.flatten().tolist()) for each in outputs}) == len(networks) > 4


@pytest.mark.parametrize(
    ("name", "count"), [("small", 4 * 2 * (2 + 4)), ("autoformer", 2 * (4 + 16)), ("mobile", (2 * 20) ** 2)]
)
def test_toy_spaces_are_counted_and_enumerated(name, count):
    space = TOYS[name]()
    assert space.count() == count == sum(1 for _ in space.enumerate())
    some = list(itertools.islice(space.enumerate(), 0, None, 1 + count // 12))
    ends = space.smallest(), space.largest()
    with torch.device("meta"):
        sizes = [size(space.build(arch)) for arch in some]
        ends = [size(space.build(arch)) for arch in ends]
    assert ends[0] <= min(sizes) < max(sizes) <= ends[1]


def test_autoformer_is_as_large_as_its_page_says():
    space = AutoFormer()
    assert space.count() == 3 * sum((2 * 2) ** depth for depth in (12, 13, 14)) == 1_056_964_608
    assert len(space.decisions) == 2 + 2 * 14

    def by_hand(width, heads, ratio, depth):
        inner, middle = 64 * heads, int(width * ratio)
        attention = 3 * (width + 1) * inner + (inner + 1) * width
        block = 4 * width + attention + (width + 1) * middle + (middle + 1) * width
        return (3 * 16 * 16 + 1) * width + 14 * 14 * width + depth * block + 2 * width + 1000 * (width + 1)

    ends = space.smallest(), space.largest()
    with torch.device("meta"):
        ends = [size(space.build(arch)) for arch in ends]
    assert ends == [by_hand(192, 3, 3.5, 12), by_hand(240, 4, 4, 14)] == [5_273_512, 10_409_272]


def test_the_released_autoformer_is_a_network_of_wider_ranges():
    """AutoFormer-T (``experiments/subnet/AutoFormer-T.yaml``); 5.7 million parameters by the paper."""
    space, ratios = AutoFormer(ratios=(3.0, 3.5, 4.0)), (3.5, 3.5, 3, 3.5, 3, 3, 4, 4, 3.5, 4, 3.5, 4, 3.5)
    heads = (3,) * 10 + (4, 3, 3)
    wanted = {"features": "192", "depth": "13"}
    for block, (ratio, count) in enumerate(zip(ratios, heads, strict=True), start=1):
        wanted |= {f"block {block} ratio": f"{ratio:g}", f"block {block} heads": str(count)}
    arch = [each.choices.index(wanted.get(each.name, each.choices[0])) for each in space.decisions]
    with torch.device("meta"):
        network = space.build(arch)
    assert size(network) == 5_767_720 and len(network.blocks) == 13


def test_mobile_blocks_are_as_many_as_their_page_says():
    space = MobileBlocks()
    layers = sum((3 * 2) ** depth for depth in (2, 3, 4))
    assert space.count() == math.prod(n * layers for n in (2, 3, 3, 3, 3)) == 1_440_024_218_843_682_816
    assert f"{space.count():,}" in MobileBlocks.__doc__
    assert len(space.decisions) == 5 * (2 + 4 * 2)

    def by_hand(widths, depth, kernel, expansion, channels=16):
        count = (3 * 9 + 2) * channels
        for width in widths:
            for _ in range(depth):
                middle = channels * expansion
                count += (channels + 2 + kernel**2 + 2 + width) * middle + 2 * width
                channels = width
        return count + (channels + 2) * 960 + 1000 * 961

    ends = space.smallest(), space.largest()
    with torch.device("meta"):
        ends = [size(space.build(arch)) for arch in ends]
    assert ends == [by_hand((16, 24, 56, 72, 104), 2, 3, 3), by_hand((24, 40, 80, 112, 160), 4, 7, 6)]
    assert all(f"{each:,}" in MobileBlocks.__doc__ for each in ends)
    wide = dict(zip((each.name for each in space.decisions), space.smallest(), strict=True)) | {"stage 3 width": 1}
    network = space.build(space.check(wide.values()), Head(2))
    assert [each[-1].narrow[0].out_channels for each in network.stages] == [16, 24, 64, 72, 104]


def test_what_is_not_there_has_one_choice():
    blocks = [ElasticLinear(3, 3), nn.Sequential(ElasticLinear(3, Choice([3])), OperationChoice(
        {"a": nn.Identity(), "b": nn.Sequential(nn.Linear(3, 4), ElasticLinear(4, 3), DepthChoice([nn.Tanh()], [0, 1]))}
    ))]  # fmt: skip
    space = ModuleSpace(lambda: nn.Sequential(DepthChoice(blocks)), name="nested")
    assert [each.name for each in space.decisions] == ["0", "0.1.0.out_features", "0.1.1", "0.1.1.b.2"]
    # One block; two with the first operation; two with the second, of two depths.
    assert list(space.enumerate()) == [(0, 0, 0, 0), (1, 0, 0, 0), (1, 0, 1, 0), (1, 0, 1, 1)]
    assert space.count() == 4 and space.largest() == (1, 0, 1, 1) and space.smallest() == (0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"nested: decision '0.1.1' of \(0, 0, 1, 0\) is 1, allowed: \[0\]"):
        space.check((0, 0, 1, 0))


class Own(nn.Module):
    """Whose first choice depends on its head, which no space can have."""

    def __init__(self, num_classes: int = 4, in_channels: int = 3):
        super().__init__()
        self.layer = ElasticConv2d(in_channels, Choice([num_classes, 2 * num_classes]), 1)


class Plain(nn.Module):
    """Without a choice."""


def test_choices_that_depend_on_the_data_are_refused():
    space = ModuleSpace(Own)
    with pytest.raises(ValueError, match="own: the network has other choices"):
        space.build((0,), Head(7))


def test_a_network_without_choices_is_refused():
    with pytest.raises(ValueError, match="plain: the network has no choices"):
        ModuleSpace(Plain)


def test_a_network_that_is_there_is_copied_and_initialised_anew():
    given = with_width_choices(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)), [0.5, 1.0])
    before = given[0].weight.clone()
    space = ModuleSpace(given, classifies=False)
    assert space.name == "sequential" and [each.choices for each in space.decisions] == [("4", "8")]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = [space.build((0,)) for _ in range(2)]
    assert [type(each) for each in networks[0]] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert not torch.equal(networks[0][2].bias, networks[1][2].bias)
    assert torch.equal(given[0].weight, before) and networks[0][2].in_channels == 4


def described(path, **arguments):
    return {"class_path": "ModuleSpace", "init_args": {"network": {"class_path": path, "init_args": arguments}}}


def test_a_recipe_names_a_network_and_the_data_say_its_classes():
    path = f"{SmallNetwork.__module__}.SmallNetwork"
    space = build(described(path, widths=[4, 8]), SearchSpace, "space")
    assert space.decisions[0].choices == ("4", "8") and space.name == "small_network"
    network = space.build(space.largest(), Head(6, in_channels=1))
    assert (network.classifier.out_features, network.stem.in_channels, network.stem.out_channels) == (6, 1, 8)
    assert (
        build(described(path, num_classes=9), SearchSpace, "space").build(space.smallest()).classifier.out_features == 9
    )


def test_the_network_of_a_recipe_that_names_none_is_written_out():
    space = build("ModuleSpace", SearchSpace, "space")
    assert space.name == "small_network"
    again = build(description_of(space), SearchSpace, "space")
    assert again.decisions == space.decisions and "SmallNetwork" in str(description_of(space))


def test_a_network_is_named_by_its_import_path():
    with pytest.raises(CatchmarkError, match=r"network\.class_path: 'SmallNetwork' is no import path"):
        build(described("SmallNetwork"), SearchSpace, "space")


def test_a_file_of_a_stranger_chooses_no_class():
    with pytest.raises(
        CatchmarkError, match=r"space.init_args.network.class_path: 'os.path.Own' is not catchmark's own"
    ):
        build(described("os.path.Own"), SearchSpace, "space", Trust())
