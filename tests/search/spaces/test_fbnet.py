"""FBNet's space: the published sizes, exactly."""

import math

import pytest
import torch
from torch import nn

from lightning_modules.networks.cost.complexity import count_flops, count_parameters
from search.randomness import TrialRandom
from search.spaces.fbnet import PUBLISHED, FBNet
from search.spaces.head import Head

SPACE = FBNet()
# Conv and FC weights; all parameters with BN's scales and shifts and the classifier's bias; millions of multiply-adds.
# An independent program counted them from mobile-vision's definitions; that repository says 4.27, 4.77 and 5.53
# million, and 244.5, 291.1 and 378.2 million.
SIZES = {
    "FBNet-A": (4_270_288, 4_304_584, 244.5),
    "FBNet-B": (4_766_672, 4_801_368, 291.0),
    "FBNet-C": (5_525_424, 5_570_664, 378.1),
}


def meta_network(architecture, head_channels=1984, **options):
    with torch.device("meta"):
        return SPACE.build(architecture, head_channels=head_channels, **options)


def test_the_space_has_as_many_architectures_as_fbnet_says():
    assert math.prod(SPACE.sizes) == 9**22 and len(SPACE.sizes) == 22


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_sizes(name):
    network = meta_network(*PUBLISHED[name])
    weights, parameters, millions = SIZES[name]
    assert count_parameters(network) == parameters
    assert sum(m.weight.numel() for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))) == weights
    multiply_adds = count_flops(network, (3, 224, 224)) - 1000  # less one for each bias of the classifier
    assert round(multiply_adds / 1e6, 1) == millions


@pytest.mark.parametrize(("choice", "expansion", "kernel"), [(7, 6, 5), (2, 3, 3), (0, 1, 3), (8, 0, 0)])
def test_networks_of_one_operation_are_counted_by_hand(choice, expansion, kernel):
    """Every layer's weights and normalisations added up on paper."""
    stages = [(16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)]
    total, last = 27 * 16 + 2 * 16, 16
    for channels, layers, stride in stages:
        for layer in range(layers):
            middle = expansion * last
            if expansion:
                total += (last * middle + 2 * middle) * (expansion > 1)
                total += middle * kernel**2 + 2 * middle + middle * channels + 2 * channels
            elif last != channels or (stride == 2 and layer == 0):
                total += last * channels + 2 * channels
            last = channels
    total += 352 * 1984 + 2 * 1984 + 1984 * 1000 + 1000
    assert count_parameters(meta_network((choice,) * 22)) == total


def test_a_skip_has_no_place_within_its_stage():
    archs = SPACE.sample(TrialRandom(1), 300)[0]
    archs = torch.where(torch.rand(archs.shape, generator=torch.Generator().manual_seed(0)) < 0.4, 8, archs)
    canonical = SPACE.canonical(archs)
    assert torch.equal(SPACE.canonical(canonical), canonical) and not torch.equal(canonical, archs)
    for arch, other in zip(archs.tolist(), canonical.tolist(), strict=True):
        begin = 0
        for count in SPACE.layers:
            rest = arch[begin + 1 : begin + count]
            kept = [choice for choice in rest if choice != 8]
            assert other[begin] == arch[begin]
            assert other[begin + 1 : begin + count] == kept + [8] * (len(rest) - len(kept))
            begin += count


def test_architectures_with_one_canonical_form_compute_the_same():
    space = FBNet([1, 3])
    one, other = (7, 2, 8, 3), (7, 2, 3, 8)
    assert space.canonical(torch.tensor([one])).tolist() == [list(other)]
    options = {"head": Head(5), "width_multiplier": 0.5, "head_channels": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = [space.build(arch, **options).eval() for arch in (one, other)]
    state = {key.replace("layers.3.", "layers.2."): value for key, value in networks[0].state_dict().items()}
    networks[1].load_state_dict(state)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(networks[0](images), networks[1](images))


@pytest.mark.parametrize("layers", [[], [1, 0], [1] * 8])
def test_other_stages_are_refused(layers):
    with pytest.raises(ValueError, match="fbnet: layers is"):
        FBNet(layers)
