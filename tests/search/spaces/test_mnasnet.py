"""MnasNet's space: the published networks, torchvision's, and how many architectures there are."""

import itertools
import math

import pytest
import torch
import torchvision
from torch import nn

from lightning_modules.networks.cost.complexity import count_flops
from lightning_modules.networks.mnasnet import STAGES, build_mnasnet
from search.spaces.head import Head
from search.spaces.mnasnet import LAYERS, PARTS, PUBLISHED, WIDTHS, MnasNet


def counted(network):
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "multiplications"),
    [("MnasNet-A1", 3_887_038, 311.6e6), ("MnasNet-B1", 4_383_312, 314.4e6), ("MnasNet-small", 2_030_264, 68.3e6)],
)
def test_published_networks_have_their_published_size(name, parameters, multiplications):
    """A1: 3.9 and 312 million; B1: 4.4 and 315 (MnasNet, table 1); the small one as its code gives it."""
    architecture, arguments = PUBLISHED[name]
    with torch.device("meta"):
        network = MnasNet().build(architecture, **arguments)
    assert counted(network) == parameters
    assert count_flops(network, (3, 224, 224)) == pytest.approx(multiplications, abs=0.06e6)


@pytest.mark.parametrize(
    ("theirs", "width", "parameters"),
    [
        ("mnasnet0_5", 0.5, 2_218_512),
        ("mnasnet0_75", 0.75, 3_170_208),
        ("mnasnet1_0", 1.0, 4_383_312),
        ("mnasnet1_3", 1.3, 6_282_256),
    ],
)
def test_b1_is_torchvisions_at_every_width(theirs, width, parameters):
    """The same tensors in the same order; where they hold the same numbers, so do the outputs."""
    space, (architecture, arguments) = MnasNet(), PUBLISHED["MnasNet-B1"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other = getattr(torchvision.models, theirs)().eval()
        network = space.build(architecture, width_multiplier=width, **arguments).eval()
        for module in (*network.modules(), *other.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-5
                nn.init.uniform_(module.weight, 0.5, 1.5)
        images = torch.randn(2, 3, 64, 64)
    assert counted(network) == counted(other) == parameters
    values = other.state_dict().values()
    state = network.state_dict()
    assert [each.shape for each in state.values()] == [each.shape for each in values]
    network.load_state_dict(dict(zip(state, values, strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(network(images), other(images))


def valid_blocks(stage, before):
    """Blocks of a stage by their filters' place, counted by hand; ``before`` is the width that the stage reads."""
    channels, layers, stride = STAGES[stage]
    counts = []
    for width in WIDTHS:
        rounded = int(channels * width + 4) // 8 * 8
        count = 0
        for (operation, _), more in itertools.product(itertools.product(range(4), range(2)), LAYERS):
            if layers + more < 1:
                continue
            skips = operation >= 2 and (layers + more > 1 or (stride == 1 and rounded == before))
            count += (2 if operation >= 2 else 1) * (3 if skips else 1)
        counts.append(count)
    return counts


@pytest.mark.parametrize("blocks", [5, 7])
def test_the_number_of_architectures(blocks):
    """432 combinations a block (the paper's S); what the masks leave, by a walk over the widths."""
    space = MnasNet(blocks)
    assert math.prod(space.sizes) == 432**blocks
    own = torch.cartesian_prod(*(torch.arange(len(choices)) for _, choices in PARTS))
    for number, stage in enumerate(space.stages):
        widths = [32] if number == 0 else [int(STAGES[stage - 1][0] * width + 4) // 8 * 8 for width in WIDTHS]
        for place, before in enumerate(widths):
            prefix = [0] * (6 * number)
            if number:
                prefix[6 * (number - 1) + 2] = place
            valid = torch.ones(len(own), dtype=torch.bool)
            whole = torch.cat([torch.tensor(prefix, dtype=torch.long).expand(len(own), -1), own], dim=1)
            for t in range(6 * number, 6 * number + 6):
                valid &= space.valid_choices(whole[:, :t]).gather(1, whole[:, t : t + 1]).squeeze(1)
            assert [int(valid[own[:, 2] == filters].sum()) for filters in range(3)] == valid_blocks(stage, before)
    assert 432**5 == pytest.approx(1.5e13, rel=0.01)


def test_what_is_left_open_makes_a_difference():
    """Two architectures that differ in squeezing or skipping alone are different networks."""
    space = MnasNet()
    base, _ = PUBLISHED["MnasNet-A1"]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def output(architecture):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = space.build(architecture, Head(10), width_multiplier=0.25, skeleton="cifar").eval()
        with torch.no_grad():
            for parameter in network.parameters():  # the same numbers, whichever layers there are
                parameter.copy_(torch.linspace(-0.3, 0.3, parameter.numel()).view_as(parameter))
            return network(images)

    for place, choices in ((6 * 2 + 4, (0, 1)), (6 * 2 + 5, (0, 1, 2))):
        outputs = [output((*base[:place], choice, *base[place + 1 :])) for choice in choices]
        for one, other in itertools.combinations(outputs, 2):
            assert not torch.allclose(one, other)


def test_one_block_repeated():
    space = MnasNet(7, repeated=True)
    blocks = space.blocks(
        space.parse(
            "block operation=mbconv3|block kernel=5x5|block filters=1|block layers=+0|"
            "block squeeze=0.25|block skip=pool"
        )
    )
    assert [block.channels for block in blocks] == [16, 24, 32, 64, 96, 160, 320]
    assert {(block.operation, block.kernel, block.excite, block.shortcut) for block in blocks} == {
        ("mbconv3", 5, True, "pool")
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"skeleton": "coco"}, "skeleton"), ({"width_multiplier": 0}, "width_multiplier"), ({"widths": [8]}, "widths")],
    ids=str,
)
def test_it_refuses_what_makes_no_network(arguments, words):
    with pytest.raises(ValueError, match=words):
        MnasNet().build(PUBLISHED["MnasNet-A1"][0], **arguments)
    with pytest.raises(ValueError, match="blocks is 8"):
        MnasNet(8)
    assert build_mnasnet([], 2).classifier.out_features == 2
