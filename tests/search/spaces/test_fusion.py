"""The space of multimodal fusion: its sizes, which are published, and its networks."""

import itertools

import pytest
import torch

from lightning_modules.networks.fusion import ConvolutionStages, Fusion
from search.randomness import TrialRandom
from search.spaces.fusion import FusionSpace
from search.spaces.head import Head
from search.spaces.modality import ConvolutionFeatures, GivenFeatures

NTU = FusionSpace(GivenFeatures([128, 256, 1024, 512]), GivenFeatures([512, 1024, 2048, 2048]))
SMALL = FusionSpace(GivenFeatures([2, 3]), GivenFeatures([4]), layers=3)


def architecture_of(space, *layers):
    """Layers as the paper writes them."""
    flat = [choice for layer in layers for choice in layer]
    return (len(layers) - 1, *flat, *[0] * (len(space.decisions) - 1 - len(flat)))


def count(space):
    """How many architectures there are: prefixes by what they allow, counted without listing them."""
    total = 0
    for depth in range(space.sizes[0]):
        ways, prefix = 1, torch.tensor([depth])
        for _ in space.decisions[1:]:
            ways *= int(space.valid_choices(prefix).sum())
            prefix = torch.cat([prefix, torch.zeros(1, dtype=torch.long)])
        total += ways
    return total


@pytest.mark.parametrize("space, published", [(NTU, 1_082_400), (FusionSpace(), 837_930)])
def test_there_are_as_many_architectures_as_in_the_paper(space, published):
    assert count(space) == published


def test_every_network_is_one_architecture():
    written = {
        architecture_of(SMALL, *layers)
        for depth in (1, 2, 3)
        for layers in itertools.product(itertools.product(range(2), range(1), range(2)), repeat=depth)
    }
    assert set(SMALL.enumerate()) == written and len(written) == count(SMALL) == 4 + 4**2 + 4**3


def test_the_papers_fusion_for_ntu_has_its_size():
    arch = architecture_of(NTU, (3, 0, 0), (1, 3, 0), (1, 1, 1), (3, 3, 0))
    network = NTU.build(arch, Head(60), width=128)
    assert [each[0].in_features for each in network.layers.values()] == [1024, 2432, 1408, 2688]
    assert sum(each.numel() for each in network.parameters()) == 974_908
    bigger = NTU.build(arch, Head(60), width=128, norm=True, alphas=True)
    assert sum(each.numel() for each in bigger.parameters()) == 974_908 + 4 * 2 * 128 + 4
    assert network((torch.randn(2, 1920), torch.randn(2, 5632))).shape == (2, 60)


def test_layers_that_are_not_there_are_on_their_first_choice():
    archs = NTU.sample(TrialRandom(0), 300)[0]
    for depth, *choices in archs.tolist():
        assert not any(choices[3 * (depth + 1) :])
    assert archs[:, 0].bincount().min() > 50  # the number of layers is uniform, as in random search of the paper's code
    with pytest.raises(ValueError, match="'first 2'"):
        NTU.check((0, 1, 1, 1, 1, *[0] * 8))


def test_the_diagram_has_every_layer_that_is_there():
    edges = NTU.diagram(architecture_of(NTU, (3, 0, 0), (1, 3, 1)))
    assert [(edge.source, edge.target, edge.label) for edge in edges] == [
        ("first 3", "fusion 1", "relu"),
        ("second 0", "fusion 1", "relu"),
        ("fusion 1", "fusion 2", "sigmoid"),
        ("first 1", "fusion 2", "sigmoid"),
        ("second 3", "fusion 2", "sigmoid"),
        ("fusion 2", "out", "linear"),
    ]


def test_layers_may_read_all_features():
    network = SMALL.build_fusion([Fusion((0, 1), (0,))], Head(3), width=5)
    assert network.layers["0_relu"][0].in_features == 9


def test_a_network_with_given_weights_is_frozen(tmp_path):
    trained = ConvolutionStages(1, 2, 3)
    trained(torch.randn(8, 1, 16, 16))  # its normalisation has seen something
    torch.save(trained.state_dict(), tmp_path / "image.pt")
    given = ConvolutionFeatures(2, 3, str(tmp_path / "image.pt"))
    space = FusionSpace(ConvolutionFeatures(2, 2), given)
    network = space.build(space.draw("frozen"), Head(4, in_channels=1)).train()
    inputs = torch.randn(6, 1, 16, 16)
    torch.nn.functional.cross_entropy(network((inputs, inputs)), torch.arange(6) % 4).backward()
    assert all(each.grad is None for each in network.second.parameters())
    assert any(each.grad is not None for each in network.first.parameters())
    trained.eval()
    for one, other in zip(network.second(inputs), trained(inputs), strict=True):
        assert torch.equal(one, other)  # in evaluation mode, whatever the mode of the whole
    with pytest.raises(ValueError, match="does not fit 2 stages"):
        ConvolutionFeatures(2, 2, str(tmp_path / "image.pt")).build(1)


@pytest.mark.parametrize("wrong", [{"nonlinearities": ["tanh"]}, {"nonlinearities": []}, {"layers": 0}])
def test_what_can_not_be_chosen_from_is_refused(wrong):
    with pytest.raises(ValueError, match="fusion: "):
        FusionSpace(**wrong)
