import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from lightning_modules.networks.prednet import Filters, PredNet, SameConvolution


def seeded(*arguments, **named):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PredNet(*arguments, **named)


def frames(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_the_published_network_has_the_known_number_of_parameters():
    with torch.device("meta"):
        assert sum(each.numel() for each in PredNet().parameters()) == 6_915_948


# ---- the same in NumPy, one number after another ---------------------------------------------------------------------


def convolve(layer, x):
    """A convolution written out: scipy's full correlation, cut to what keeps height and width."""
    weight, bias = (each.detach().double().numpy() for each in (layer.weight, layer.bias))
    before, (height, width) = (weight.shape[2] - 1) // 2, x.shape[1:]
    behind = weight.shape[2] - 1 - before
    padded = np.pad(x, ((0, 0), (before, behind), (before, behind)))
    return np.stack(
        [
            sum(correlate2d(padded[i], weight[o, i], mode="valid") for i in range(len(x))) + bias[o]
            for o in range(len(weight))
        ]
    ).reshape(len(weight), height, width)


def watched(network, sequence):
    """Predictions of a sequence ``[time, channels, height, width]``, as PredNet's equations have them."""
    channels, count = network.channels, len(network.channels)
    sides = [sequence.shape[2:]]
    for _ in channels[1:]:
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    r = [np.zeros((own, *side)) for own, side in zip(channels, sides, strict=True)]
    c, e = [each.copy() for each in r], [np.concatenate([each, each]) for each in r]
    predictions = []
    for frame in sequence:
        for layer in reversed(range(count)):
            seen = [r[layer], e[layer]]
            if layer + 1 < count:
                above = np.kron(r[layer + 1], np.ones((1, 2, 2)))
                seen.append(above[:, : sides[layer][0], : sides[layer][1]])
            gates = convolve(network.lstms[layer], np.concatenate(seen)).reshape(4, *r[layer].shape)
            keep, write, show = (np.clip(0.2 * gate + 0.5, 0, 1) for gate in gates[:3])
            c[layer] = keep * c[layer] + write * np.tanh(gates[3])
            r[layer] = show * np.tanh(c[layer])
        target = frame
        for layer in range(count):
            guess = np.maximum(convolve(network.predictions[layer], r[layer]), 0)
            if layer == 0:
                guess = np.minimum(guess, 1)
                predictions.append(guess)
            e[layer] = np.concatenate([np.maximum(guess - target, 0), np.maximum(target - guess, 0)])
            if layer + 1 < count:
                found = np.maximum(convolve(network.targets[layer], e[layer]), 0)
                odd = [(0, 0), *((0, side % 2) for side in sides[layer])]
                found = np.pad(found, odd, constant_values=-np.inf)
                target = found.reshape(len(found), found.shape[1] // 2, 2, found.shape[2] // 2, 2).max((2, 4))
    return np.stack(predictions), r


@pytest.mark.parametrize("size", [(8, 12), (7, 10)])
def test_it_is_what_its_equations_say(size):
    network = seeded((3, 4, 5), Filters((2, 3), (3, 1, 2), (1, 3, 4))).double()
    sequence = frames(4, 3, *size).double()
    expected, representations = watched(network, sequence.numpy())
    with torch.no_grad():
        found = network(sequence[None])[0]
        state = [state for _, state in network.watch(sequence[None])][-1]
    np.testing.assert_allclose(found, expected, atol=1e-10)
    for mine, theirs in zip(state.representations, representations, strict=True):
        np.testing.assert_allclose(mine[0], theirs, atol=1e-10)
    assert expected[1:].std() > 1e-3


def test_what_comes_later_changes_no_earlier_prediction():
    network, sequence = seeded((3, 4)), frames(2, 5, 3, 8, 8)
    changed = sequence.clone()
    changed[:, 3] = 0
    one, other = network(sequence), network(changed)
    assert torch.equal(one[:, :4], other[:, :4]) and not torch.equal(one[:, 4], other[:, 4])


def test_a_still_image_is_shown_again_and_again():
    network, images = seeded((3, 4, 5), still_steps=4), frames(3, 3, 8, 8)
    sequence = images[:, None].expand(-1, 4, -1, -1, -1)
    assert torch.equal(network(images), network(sequence)[:, -1])
    states = [state for _, state in network.watch(sequence)]
    whole = torch.cat([each.flatten(1) for each in states[-1].representations], 1)
    assert torch.equal(network.representation(images), whole)
    assert torch.equal(network.highest_representation(images), states[-1].representations[-1].flatten(1))


@pytest.mark.parametrize("size", range(1, 9))
def test_filters_of_every_size_keep_height_and_width(size):
    assert SameConvolution(1, 2, size)(torch.ones(1, 1, 5, 6)).shape == (1, 2, 5, 6)


def test_filters_for_other_layers_are_refused():
    with pytest.raises(ValueError, match=r"filters are for \(3, 3, 3\) layers, channels for 2"):
        PredNet((3, 4), Filters.all(3, 3))
    with pytest.raises(ValueError, match="at least 1"):
        PredNet((3, 0))
