import pytest
import torch
from torch import nn

from lightning_modules.networks.prednet import PredNet
from lightning_modules.representations import represent
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
        self.auxiliary, self.unused = nn.Linear(4 * 36, 5), nn.Linear(1, 1)
        self.head = nn.Linear(4 * 36, 2)

    def forward(self, images):
        features = self.body(images)
        self.auxiliary(features.flip(1))
        return self.head(features)


IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_classifier_is_represented_by_what_it_classifies_by():
    network = Classifier().eval()
    found = represent(network, IMAGES, batch_size=2)
    assert torch.allclose(found, network.body(IMAGES)) and not found.requires_grad
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in network.modules())


def test_named_layers_stand_side_by_side():
    network = Classifier().eval()
    found = represent(network, IMAGES, ["head", "body.0"])
    assert torch.allclose(found, torch.cat([network(IMAGES), network.body[0](IMAGES).flatten(1)], 1))
    with pytest.raises(ValueError, match=r"no module 'haed'.*head"):
        represent(network, IMAGES, ["haed"])
    with pytest.raises(ValueError, match="nothing passed through 'unused'"):
        represent(network, IMAGES, ["unused"])


def test_a_network_without_linear_layers_is_represented_by_its_output_and_one_may_say_itself():
    network = nn.Sequential(nn.Conv2d(3, 2, 3))
    assert torch.allclose(represent(network, IMAGES), network(IMAGES).flatten(1))
    watching = PredNet((3, 4), still_steps=2)
    assert represent(watching, IMAGES).shape == (5, 3 * 8 * 8 + 4 * 4 * 4)
    assert torch.equal(represent(watching, IMAGES, ["predictions.1"]), represent(watching, IMAGES, ["predictions.1"]))


def test_a_network_of_a_space_is_represented_by_its_pooled_features():
    network = NASBench201().build((3,) * 6, Head(10), channels=4, cells=1).eval()
    assert represent(network, IMAGES).shape == (5, 16)  # the channels double twice
