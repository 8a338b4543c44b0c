"""Fusion layers, compared with the same arithmetic in NumPy."""

import numpy as np
import pytest
import torch

from lightning_modules.networks.fusion import (
    ConvolutionStages,
    FeatureColumns,
    Fusion,
    FusionNetwork,
    LateFusion,
    UnimodalClassifier,
    pooled,
)


def by_hand(network, first, second, sizes):
    """The logits, layer by layer."""
    cut = [
        np.split(each.numpy(), np.cumsum(own)[:-1], axis=1) for each, own in zip((first, second), sizes, strict=True)
    ]
    before = np.zeros((len(first), 0), dtype=np.float32)
    for place, layer in enumerate(network.plan):
        linear = network.layers[f"{place}_{layer.nonlinearity}"][0]
        share = 1 / (1 + np.exp(-network.alphas[place].item())) if network.alphas is not None else None
        a, b = cut[0][layer.first[0]], cut[1][layer.second[0]]
        a, b = (a, b) if share is None else (share * a, (1 - share) * b)
        z = np.concatenate([a, b, before], axis=1) @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        before = np.maximum(z, 0) if layer.nonlinearity == "relu" else 1 / (1 + np.exp(-z))
    return before @ network.classifier.weight.detach().numpy().T + network.classifier.bias.detach().numpy()


@pytest.mark.parametrize("alphas", [False, True])
def test_a_layer_reads_one_feature_of_each_and_the_layer_before(alphas):
    sizes = ((2, 3), (4, 5))
    layers = [Fusion((1,), (0,), "relu"), Fusion((0,), (1,), "sigmoid"), Fusion((0,), (0,), "relu")]
    torch.manual_seed(0)
    network = FusionNetwork(*map(FeatureColumns, sizes), layers, 6, width=7, alphas=alphas).eval()
    if alphas:
        for place, alpha in enumerate(network.alphas):
            alpha.data.fill_(place - 0.7)
    pair = torch.randn(8, 5), torch.randn(8, 9)
    assert network(pair).detach().numpy() == pytest.approx(by_hand(network, *pair, sizes), abs=1e-5)


def test_feature_maps_are_averaged_over_all_places():
    maps = torch.randn(2, 3, 4, 5)
    assert torch.allclose(pooled(maps), maps.mean((2, 3))) and pooled(maps[..., 0, 0]) is not None
    network = ConvolutionStages(1, 2, 5)
    assert [tuple(each.shape) for each in network(torch.zeros(2, 1, 8, 13))] == [
        (2, 2, 4, 7), (2, 4, 2, 4), (2, 8, 1, 2), (2, 16, 1, 1), (2, 32, 1, 1),
    ]  # fmt: skip
    assert UnimodalClassifier(network, 10)(torch.zeros(2, 1, 8, 13)).shape == (2, 10)


@pytest.mark.parametrize("exclusive", [True, False])
def test_late_fusion_is_the_mean_probability(exclusive):
    one, other = torch.randn(2, 5, 4).unbind(0)
    late = LateFusion(lambda _: one, lambda _: other, exclusive)
    squash = (lambda z: z.softmax(-1)) if exclusive else torch.sigmoid
    assert torch.allclose(squash(late(None)), (squash(one) + squash(other)) / 2, atol=1e-6)


def test_layers_of_the_same_place_shape_and_nonlinearity_have_the_same_name_and_shape():
    def shapes(*layers):
        network = FusionNetwork(FeatureColumns([2, 2]), FeatureColumns([3]), layers, 4, width=5)
        return {(name, tuple(value.shape)) for name, value in network.state_dict().items() if "layers" in name}

    one = shapes(Fusion((0,), (0,), "relu"), Fusion((0,), (0,), "sigmoid"))
    assert shapes(Fusion((1,), (0,), "relu")) < one  # another feature of that size
    assert not shapes(Fusion((0,), (0,), "sigmoid")) & one


@pytest.mark.parametrize("layers", [[], [Fusion((2,), (0,))], [Fusion((0,), (0,), "tanh")]])
def test_a_plan_that_can_not_be_built_is_refused(layers):
    with pytest.raises(ValueError, match="fusion layer"):
        FusionNetwork(FeatureColumns([2, 2]), FeatureColumns([3]), layers, 4)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match=r"features are \[4\], their sizes \[2, 3\] add up to \[5\]"):
        FeatureColumns([2, 3])(torch.zeros(1, 4))
