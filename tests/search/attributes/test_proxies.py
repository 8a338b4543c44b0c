"""Every proxy against a slow computation of its definition on small networks."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.digits import DigitsDataModule
from search.attributes.az_nas import (
    Expressivity,
    Progressivity,
    Trainability,
    block_maps,
    conduction,
    entropy,
    redraw,
)
from search.attributes.fisher import Fisher
from search.attributes.gradient_norm import GradientNorm
from search.attributes.grasp import Grasp
from search.attributes.jacov import Jacov
from search.attributes.nwot import Nwot
from search.attributes.plain import Plain
from search.attributes.probe import Probe
from search.attributes.proxy import Proxy
from search.attributes.short_training import ShortTraining
from search.attributes.snip import Snip
from search.attributes.synflow import Synflow
from search.attributes.together import measure_together
from search.attributes.weight_norm import WeightNorm
from search.attributes.zen import Zen
from search.attributes.zico import ZiCo
from search.contracts import space as space_contract
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace
from search.spaces.depth_fusion import DepthFusion
from search.spaces.nasbench201 import NASBench201

SPACE = NASBench201()


def small(seed=0, norm=True):
    """Two convolutions, rectified, and a classifier of three classes, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3) if norm else nn.Identity(), nn.ReLU()]
        layers += [
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        return nn.Sequential(*layers, nn.Linear(4, 3)).double()


def batch(number=0, images=5):
    generator = torch.Generator().manual_seed(number)
    return (
        torch.randn(images, 2, 6, 6, dtype=torch.float64, generator=generator),
        torch.randint(0, 3, (images,), generator=generator),
    )


def probe_of(network, shape=(2, 6, 6)):
    return Probe(network, 3, batch, shape)


def weights_of(network):
    return [layer.weight for layer in network if isinstance(layer, (nn.Conv2d, nn.Linear))]


def loss_of(network, number=0):
    images, labels = batch(number)
    return nn.functional.cross_entropy(network(images), labels)


def numeric_gradient(network, function, epsilon=1e-5):
    """Of a number by each weight, by central differences."""
    found = []
    for weight in weights_of(network):
        gradient = torch.zeros_like(weight)
        for place in itertools.product(*map(range, weight.shape)):
            with torch.no_grad():
                kept = float(weight[place])
                weight[place] = kept + epsilon
                above = float(function())
                weight[place] = kept - epsilon
                gradient[place] = (above - float(function())) / (2 * epsilon)
                weight[place] = kept
        found.append(gradient)
    return found


# ---- gradients by weights ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def differences():
    network = small()
    return network, numeric_gradient(network, lambda: loss_of(network))


def test_sums_over_gradients_are_those_of_finite_differences(differences):
    network, gradients = differences
    pairs = list(zip([w.detach() for w in weights_of(network)], gradients, strict=True))
    probe = probe_of(network)
    assert Snip(SPACE).score(probe) == pytest.approx(sum(float((w * g).abs().sum()) for w, g in pairs), rel=1e-6)
    assert Plain(SPACE).score(probe) == pytest.approx(sum(float((w * g).sum()) for w, g in pairs), rel=1e-5)
    assert GradientNorm(SPACE).score(probe) == pytest.approx(sum(float(g.norm()) for _, g in pairs), rel=1e-6)
    expected = sum(math.sqrt(float((w**2).sum())) for w, _ in pairs)
    assert WeightNorm(SPACE).score(probe) == pytest.approx(expected)


def test_grasp_is_how_the_gradient_changes_along_itself():
    """H g by a central difference of the gradient along g."""
    network, step = small(), 1e-4
    weights = weights_of(network)
    gradient = torch.autograd.grad(loss_of(network), weights)

    def moved(sign):
        with torch.no_grad():
            for weight, g in zip(weights, gradient, strict=True):
                weight += sign * step * g
        found = torch.autograd.grad(loss_of(network), weights)
        with torch.no_grad():
            for weight, g in zip(weights, gradient, strict=True):
                weight -= sign * step * g
        return found

    product = [(a - b) / (2 * step) for a, b in zip(moved(1), moved(-1), strict=True)]
    expected = -sum(float((w.detach() * p).sum()) for w, p in zip(weights, product, strict=True))
    assert Grasp(SPACE).score(probe_of(network)) == pytest.approx(expected, rel=1e-4) and expected != 0


def test_fisher_by_a_gate_of_1_on_every_channel():
    """Saliency of channel c for image i: the loss's derivative by a gate that multiplies it."""
    network = small()
    images, labels = batch()
    expected = 0.0
    for place, layer in enumerate(network):
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            continue
        channels = layer.weight.shape[0]
        gates = torch.ones(len(images), channels, dtype=torch.float64, requires_grad=True)
        x = network[: place + 1](images)
        x = network[place + 1 :](x * gates.reshape(*gates.shape, *([1] * (x.dim() - 2))))
        (saliency,) = torch.autograd.grad(nn.functional.cross_entropy(x, labels), gates)
        for channel in range(channels):
            expected += 0.5 * float((saliency[:, channel] ** 2).mean()) * layer.weight[channel].numel()
    assert Fisher(SPACE).score(probe_of(network)) == pytest.approx(expected)


def test_zico_by_loops_over_weights():
    network = small()
    batches = [numeric_gradient(network, lambda number=number: loss_of(network, number)) for number in range(3)]
    expected = 0.0
    for layer in zip(*batches, strict=True):
        total = 0.0
        for values in zip(*(each.flatten().tolist() for each in layer), strict=True):
            if (deviation := float(np.std(values))) > 1e-9:
                total += float(np.mean(np.abs(values))) / deviation
        expected += math.log(total)
    assert ZiCo(SPACE, batches=3).score(probe_of(network)) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="batches is 1"):
        ZiCo(SPACE, batches=1)


# ---- patterns and inputs -------------------------------------------------------------------------------------------


def test_nwot_by_counting_units():
    network = small()
    images, _ = batch()
    patterns, x = [], images
    for layer in network:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            patterns.append((x > 0).flatten(1).tolist())
    kernel = np.zeros((5, 5))
    for i, j in itertools.product(range(5), repeat=2):
        for pattern in patterns:
            kernel[i, j] += sum(a == b for a, b in zip(pattern[i], pattern[j], strict=True))
    assert Nwot(SPACE).score(probe_of(network)) == pytest.approx(np.linalg.slogdet(kernel)[1])


def test_nwot_may_count_units_that_nothing_comes_of():
    """Node 1 goes nowhere: two edges to it and from it rectify, for nothing, in each of three cells."""
    arch, head = (3, 0, 0, 3, 0, 0), {"num_classes": 3, "in_channels": 2, "channels": 2, "cells": 1}

    def seen(arch, **settings):
        attribute = Nwot(SPACE, head, **settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = SPACE.build_from(arch, head).double()
        probe = probe_of(network)
        return attribute.score(probe), probe.agreement, probe.agreement_of_all

    value, some, every = seen(arch)
    assert float((every - some)[0, 0]) == 2 * 36 + 4 * 9 + 8 * 4  # channels times places after each halving
    assert seen(arch, unused=True)[0] == pytest.approx(float(torch.linalg.slogdet(every).logabsdet)) != value
    _, some, every = seen((0, 0, 0, 3, 0, 0))
    assert torch.equal(some, every)


class Rectified(nn.Module):
    """The same rectification, said in different ways."""

    def __init__(self, rectify):
        super().__init__()
        self.layer, self.rectify = nn.Linear(72, 9).double(), rectify

    def forward(self, images):
        return self.rectify(self.layer(images.flatten(1)))


@pytest.mark.parametrize(
    "rectify", [nn.ReLU(), nn.ReLU(inplace=True), torch.relu, nn.functional.relu, lambda x: x.relu(), nn.ReLU6()]
)
def test_units_are_seen_however_they_are_rectified(rectify):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Rectified(rectify)
    on = (network.layer(batch()[0].flatten(1)) > 0).double()
    assert torch.equal(probe_of(network).agreement, on @ on.T + (1 - on) @ (1 - on).T)


def test_images_that_no_unit_tells_apart_have_no_value():
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 3).double())
    attribute = Nwot(SPACE)
    assert math.isnan(attribute.score_of(probe_of(network)))


def test_jacov_by_one_image_after_another():
    network = small(norm=False)  # without it an image's gradient is its own
    gradients = []
    for image in batch()[0]:
        image = image[None].clone().requires_grad_()
        gradients.append(torch.autograd.grad(network(image).sum(), image)[0].flatten().numpy())
    eigenvalues = np.linalg.eigvals(np.corrcoef(gradients)).real
    expected = -sum(math.log(v + 1e-5) + 1 / (v + 1e-5) for v in eigenvalues)
    assert Jacov(SPACE).score(probe_of(network)) == pytest.approx(expected, rel=1e-6)


# ---- without data --------------------------------------------------------------------------------------------------


def test_synflow_of_two_linear_layers_by_hand():
    """R is 1' |B| |A| 1, and the sum of |w dR/dw| over a layer is R: R twice in all."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        network[3].weight.copy_(torch.tensor([[-4.0, 2.0]]))
    total = 4 * (1 + 2) + 2 * (0.5 + 3)
    probe = Probe(network, 0, batch, (2, 1, 1))
    assert Synflow(SPACE).score(probe) == pytest.approx(math.log(2 * total))
    assert network[3].weight.tolist() == [[-4.0, 2.0]] and isinstance(network[2], nn.BatchNorm1d)


class HalfUsed(nn.Module):
    """A layer that carries, and one that does not."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 3, bias=False), nn.Linear(2, 3)

    def forward(self, images):
        return self.used(images.flatten(1))


def test_synflow_counts_layers_that_carry_and_no_others():
    network = HalfUsed()
    total = float(network.used.weight.detach().abs().sum())
    assert Synflow(SPACE).score(Probe(network, 0, batch, (2, 1, 1))) == pytest.approx(math.log(total))


def test_zen_does_not_see_the_scale_of_weights_before_a_normalisation():
    """It is made of drawn weights: what the network starts from changes nothing, its depth does."""
    one, two = Zen(SPACE, images=4), small(1).float()
    value = one.score(probe_of(small(0).float()))
    assert one.score(probe_of(two)) == value and math.isfinite(value)
    deeper = small(0).float()
    deeper.insert(2, nn.Conv2d(3, 3, 1, bias=False))
    assert one.score(probe_of(deeper)) != value


def test_zen_by_hand_of_a_linear_network():
    """Without a normalisation: the mean over images of the summed absolute change of the map, whose size is gamma's."""
    network = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    network[1].forward = lambda x: x.mean((2, 3))
    values = [Zen(SPACE, images=4, gamma=gamma).score(probe_of(network)) for gamma in (0.01, 0.02)]
    assert values[1] - values[0] == pytest.approx(math.log(2), rel=1e-3)
    generator = probe_of(network).generator("zen")
    weight = torch.randn(3, 2, 1, 1, generator=generator)
    torch.randn(2, 3, generator=generator)
    torch.randn(4, 2, 6, 6, generator=generator)
    other = torch.randn(4, 2, 6, 6, generator=generator)
    change = nn.functional.conv2d(0.01 * other, weight).abs().sum((1, 2, 3)).mean()
    assert values[0] == pytest.approx(math.log(float(change)), rel=1e-3)


def test_entropy_of_known_features():
    generator = torch.Generator().manual_seed(0)
    axes, _ = torch.linalg.qr(torch.randn(64, 4, dtype=torch.float64, generator=generator) - 0.0)
    axes = axes - axes.mean(0)
    axes, _ = torch.linalg.qr(axes)  # orthonormal, of mean 0
    spread = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    features = (axes * spread).reshape(4, 4, 4, 4).permute(0, 3, 1, 2)
    shares = np.array([4, 1, 1]) / 6
    assert entropy(features) == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-6)


def test_conduction_of_an_orthogonal_block_and_its_double():
    generator = torch.Generator().manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    images = torch.randn(50, 4, 8, 8, generator=generator, requires_grad=True)
    for scale in (1.0, 2.0):
        after = nn.functional.conv2d(images, scale * rotation[:, :, None, None])
        # The signs of 3,200 places are close to uncorrelated, so the matrix is close to scale times the rotation.
        assert conduction(images, after, generator) == pytest.approx(scale, rel=0.1)
    assert math.isnan(conduction(images, images, generator))
    assert conduction(images, torch.zeros(50, 4, 8, 8), generator) == 0.0
    halved = nn.functional.avg_pool2d(images, 2)
    # Each of four places gets a quarter of the sign, and they add up as orthogonal channels do: sqrt(4) / 4.
    assert conduction(images, halved, generator) == pytest.approx(0.5, rel=0.15)


def test_blocks_of_nas_bench_201_are_stem_cells_and_reductions():
    network = SPACE.build((3,) * 6, channels=4, cells=2)
    images = torch.randn(2, 3, 16, 16)
    expected = [network.stem(images)]
    for block in network.body:
        expected.append(block(expected[-1]))
    found = block_maps(network, images)
    assert len(found) == len(expected) == 9
    assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))


def test_az_nas_reads_three_numbers_off_one_pass():
    def fresh():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Probe(SPACE.build((3, 1, 2, 0, 4, 3), channels=4, cells=1), 3, batch, (3, 16, 16))

    probe = fresh()
    expressivity, progressivity, trainability = (
        kind(SPACE).score(probe) for kind in (Expressivity, Progressivity, Trainability)
    )
    assert Trainability(SPACE).score(fresh()) == trainability <= 0
    network, generator = fresh().copy(), fresh().generator("az-nas")
    redraw(network, generator)
    entropies = [entropy(each) for each in block_maps(network, fresh().noise(64, generator))]
    assert expressivity == pytest.approx(sum(entropies))
    assert progressivity == pytest.approx(min(b - a for a, b in itertools.pairwise(entropies)))


# ---- all of them ---------------------------------------------------------------------------------------------------

PROXIES = find_classes("search.attributes", Proxy)
SPACES = {name: space for name, space in find_classes("search.spaces", SearchSpace).items() if not space.reads_text}


def everything(space, data, names=PROXIES, **settings):
    kinds = [kind for name, kind in PROXIES.items() if name in names and (space.classifies or not kind.labels)]
    return {kind.__name__: kind(space, space.toy_build(), **{**kind.toy(), "data": data, **settings}) for kind in kinds}


@pytest.fixture(scope="module")
def digits():
    return DigitsDataModule(batch_size=6)


@pytest.mark.parametrize("name", SPACES)
def test_all_proxies_of_every_space_that_builds(name):
    space = space_contract.subjects(SPACES[name])[0].space
    data = DigitsDataModule(resolution=max(8, space.image_multiple), batch_size=4)
    values = measure_together(everything(space, data), space.draw("proxies", 1))
    lacking = {key for key, value in values.items() if math.isnan(value)}
    # A transformer has no batch normalisation to undo, nor maps of blocks; a perceptron has no maps.
    without = {"AutoFormer": {"Zen", "Progressivity"}, "MLP": {"Progressivity"}}.get(name, set())
    assert len(values) >= 6 and lacking <= {"Trainability", "Nwot", "Jacov"} | without, lacking


def test_together_they_give_bit_for_bit_what_each_gives_alone(digits):
    arch, names = (3, 1, 2, 0, 4, 3), list(PROXIES)
    together = measure_together(everything(SPACE, digits), arch)
    backwards = everything(SPACE, digits)
    turned = measure_together({name: backwards[name] for name in reversed(names)}, arch)
    alone = {name: float(each.values(torch.tensor(arch))) for name, each in everything(SPACE, digits).items()}
    assert together == turned == alone and not any(map(math.isnan, alone.values()))


def test_one_network_is_built_for_all_of_them(digits, monkeypatch):
    built = []
    build = NASBench201.build
    monkeypatch.setattr(
        NASBench201, "build", lambda self, arch, *a, **k: built.append(arch) or build(self, arch, *a, **k)
    )
    attributes = everything(SPACE, digits, names=["Snip", "Fisher", "Nwot", "Synflow"])
    measure_together(attributes, (3,) * 6)
    assert built == [(3,) * 6]
    measure_together(attributes, (3,) * 6)
    assert len(built) == 1  # and it is remembered


def test_a_seed_draws_other_weights_and_another_batch(digits):
    arch = (3, 1, 2, 0, 4, 3)
    one, other = (measure_together(everything(SPACE, digits, seed=seed), arch) for seed in (0, 1))
    assert all(one[name] != other[name] for name in PROXIES)


def test_cells_that_compute_the_same_are_measured_once(digits):
    attribute = Snip(SPACE, SPACE.toy_build(), data=digits)
    dead_end, none = (3, 2, 0, 3, 0, 0), (0, 0, 0, 3, 0, 0)
    values = attribute.values(torch.tensor([dead_end, none]))
    assert values[0] == values[1] and len(attribute._known) == 1
    norm = WeightNorm(SPACE, SPACE.toy_build(), data=digits)
    assert norm.values(torch.tensor([dead_end, none])).diff() < 0  # weights that nothing comes of are weights


def test_what_needs_classes_says_so():
    with pytest.raises(ValueError, match=r"Snip needs a loss of classes, networks of 'depth_fusion_v1_sync' give none"):
        Snip(DepthFusion())
    with pytest.raises(ValueError, match="Snip needs a batch: name 'data'"):
        Snip(SPACE).values(torch.tensor([3] * 6))


def test_a_cell_that_connects_nothing_can_be_measured(digits):
    values = measure_together(everything(SPACE, digits), (0,) * 6)
    assert values["Trainability"] < -1e5 and values["GradientNorm"] == 0


# ---- a short training ------------------------------------------------------------------------------------------------


def test_a_short_training_is_sgd_with_nesterovs_momentum_and_a_cosine():
    """Written down again, step by step: two passes over three batches, then the mean loss of two others."""
    steps, momentum, decay = 6, 0.9, 0.01
    network = small(1)
    attribute = ShortTraining(SPACE, batches=3, passes=2, held_out=2, weight_decay=decay)
    found = attribute.score(probe_of(small(1)))
    velocity = [torch.zeros_like(each) for each in network.parameters()]
    for step in range(steps):
        network.zero_grad()
        loss_of(network, step % 3).backward()
        rate = 0.05 * (1 + math.cos(math.pi * step / steps)) / 2
        with torch.no_grad():
            for weight, speed in zip(network.parameters(), velocity, strict=True):
                gradient = weight.grad + decay * weight
                speed.mul_(momentum).add_(gradient)
                weight -= rate * (gradient + momentum * speed)
    expected = -sum(float(loss_of(network, number)) for number in (3, 4)) / 2
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_longer_training_learns_more_and_leaves_the_probe_as_it_was():
    data = DigitsDataModule(batch_size=32)
    arch = (3, 3, 3, 3, 3, 3)
    values = []
    for passes in (1, 6):
        attribute = ShortTraining(SPACE, {"channels": 4, "cells": 1}, data=data, batches=20, passes=passes, held_out=4)
        with attribute.probe(arch) as probe:
            before = [each.clone() for each in probe.network.parameters()]
            values.append(attribute.score_of(probe))
            assert all(map(torch.equal, before, probe.network.parameters()))
    assert values[1] > values[0] > -math.log(10)


@pytest.mark.parametrize(
    "wrong", [{"batches": 0}, {"held_out": 0}, {"passes": 0}, {"learning_rate": 0}, {"momentum": 1}]
)
def test_a_short_training_refuses_what_makes_no_sense(wrong):
    with pytest.raises(ValueError, match="must be"):
        ShortTraining(SPACE, **wrong)
