"""Modules with choices run slices of their weights, and what is cut out of them computes the same."""

import copy
import itertools
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_modules.networks.batch_statistics import BatchStatistics, fix, recalibrated
from lightning_modules.networks.choices import (
    Choice,
    ChoiceModule,
    ChoiceSupernet,
    DepthChoice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLayerNorm,
    ElasticLinear,
    ElasticParameter,
    OperationChoice,
    SelfAttention,
    Value,
    cut,
    cut_weights,
    find_choices,
)
from lightning_modules.networks.supernet import Path


class Added(nn.Module):
    """A learned tensor, added to what comes."""

    def __init__(self, width):
        super().__init__()
        self.offset = ElasticParameter(width, 1, 1)

    def forward(self, x):
        return x + self.offset()


class Split(nn.Module):
    """A user's own module that computes with a value."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x):
        return x.view(len(x), int(self.parts), -1).mean(1)


def conv(width=None, kernel=3, **options):
    return ElasticConv2d(4 if width is None else width, 4 if width is None else width, kernel, **options)


def kinds():
    """Every kind of module on its own, with something to read."""
    images, words = torch.randn(3, 4, 6, 7), torch.randn(3, 5, 8)
    width, heads = Choice([2, 4]), Choice([1, 2, 3])
    inside = ElasticConv2d(4, width, 1)
    return {
        "out channels": (ElasticConv2d(4, Choice([2, 3, 6]), 3, stride=2), images),
        "in channels": (nn.Sequential(inside, ElasticConv2d(width, 5, (3, 1), bias=False)), images),
        "kernel": (conv(kernel=Choice([3, 5, 7]), dilation=2), images),
        "depthwise": (nn.Sequential(inside, conv(width, Choice([1, 3]), groups="depthwise")), images),
        "linear": (nn.Sequential(ElasticLinear(8, width), ElasticLinear(width, width * 1.5)), words),
        "layer norm": (nn.Sequential(ElasticLinear(8, width), ElasticLayerNorm(width)), words),
        "batch norm": (nn.Sequential(inside, ElasticBatchNorm2d(width)), images),
        "parameter": (nn.Sequential(inside, Added(width)), images),
        "attention": (SelfAttention(8, heads, 3), words),
        "attention of a width": (nn.Sequential(ElasticLinear(8, width), SelfAttention(width, heads, 2)), words),
        "operation": (OperationChoice({"conv": conv(), "skip": nn.Identity(), "pool": nn.AvgPool2d(3, 1, 1)}), images),
        "operation of choices": (OperationChoice({"a": conv(kernel=Choice([1, 3])), "b": nn.Identity()}), images),
        "depth": (DepthChoice([conv(), nn.BatchNorm2d(4), conv(kernel=Choice([3, 5]))], [0, 1, 3]), images),
        "own": (Split(Choice([1, 2, 4])), images),
    }


def storages(network):
    return {each.untyped_storage().data_ptr() for each in network.state_dict().values()}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("affine", [True, False])
def test_a_path_computes_what_is_cut_out_of_it(kind, affine):
    network, inputs = kinds()[kind]
    found = find_choices(network)
    supernet = ChoiceSupernet(network, lambda width: BatchStatistics(width, affine))
    for norm in (each for each in network.modules() if isinstance(each, (BatchStatistics, nn.LayerNorm))):
        for parameter in norm.parameters():
            nn.init.normal_(parameter)  # scales and shifts that could be told apart
    outputs = []
    for choices in itertools.product(*(range(len(each.choice.options)) for each in found)):
        outputs.append(supernet(inputs, Path(choices)))
        plain = cut(supernet.network, choices)
        assert torch.allclose(plain(inputs), outputs[-1], atol=1e-6)
        for part in plain.modules():
            assert not any(isinstance(each, (ChoiceModule, Value)) for each in (part, *vars(part).values()))
        assert not storages(plain) & storages(supernet)
    different = {tuple(each.flatten().tolist()) for each in outputs}
    assert len(different) > 1


def test_a_convolution_runs_the_first_channels_and_the_middle_of_the_kernel():
    layer = ElasticConv2d(Choice([2, 4], "in"), Choice([3, 6], "out"), Choice([3, 5], "kernel"), stride=2)
    supernet, images = ChoiceSupernet(layer), torch.randn(2, 2, 9, 9)
    by_hand = functional.conv2d(images, layer.weight[:3, :2, 1:4, 1:4], layer.bias[:3], stride=2, padding=1)
    assert torch.allclose(supernet(images, Path((0, 0, 0))), by_hand, atol=1e-6)


def test_attention_is_that_of_the_first_heads():
    layer, words = SelfAttention(6, Choice([2, 3]), 4), torch.randn(2, 5, 6)
    by_hand = layer.out.bias
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        query, key, value = (
            words @ part.weight[rows].T + part.bias[rows] for part in (layer.query, layer.key, layer.value)
        )
        weights = (query @ key.transpose(1, 2) / 2).softmax(-1)  # the square root of four features a head
        by_hand = by_hand + weights @ value @ layer.out.weight[:, rows].T
    assert torch.allclose(ChoiceSupernet(layer)(words, Path((0,))), by_hand, atol=1e-6)


def test_gradients_reach_active_slices_alone():
    width, kernel = Choice([2, 4]), Choice([1, 3])
    first, norm, second = ElasticConv2d(3, width, kernel), ElasticBatchNorm2d(width), ElasticConv2d(width, 2, 1)
    last = OperationChoice({"conv": nn.Conv2d(2, 2, 1), "skip": nn.Conv2d(2, 2, 1)})
    supernet = ChoiceSupernet(nn.Sequential(first, norm, nn.ReLU(), second, last), lambda n: BatchStatistics(n, True))
    assert [each.name for each in find_choices(supernet.network)] == ["0.out_channels", "0.kernel_size", "4"]
    supernet(torch.randn(3, 3, 5, 5), Path((0, 0, 0))).square().sum().backward()
    assert first.weight.grad[:2, :, 1, 1].all() and first.weight.grad.count_nonzero() == 2 * 3
    assert second.weight.grad[:, :2].all() and not second.weight.grad[:, 2:].any()
    assert norm.norm.bias.grad[:2].any() and not norm.norm.bias.grad[2:].any()
    assert last.options["conv"].weight.grad.all() and last.options["skip"].weight.grad is None


def test_paths_with_weights_add_up_operations_and_depths():
    options = {"conv": conv(), "skip": nn.Identity()}
    operation, blocks = OperationChoice(options), [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)]
    supernet = ChoiceSupernet(nn.Sequential(operation, DepthChoice(blocks, [1, 2])))
    images, weights = torch.randn(2, 4, 3, 3), (torch.tensor([0.25, 0.75]), torch.tensor([0.5, 2.0]))
    middle = 0.25 * options["conv"](images) + 0.75 * images
    by_hand = 0.5 * blocks[0](middle) + 2.0 * blocks[1](blocks[0](middle))
    assert torch.allclose(supernet(images, Path(None, weights)), by_hand, atol=1e-6)
    chosen = 2.0 * blocks[1](blocks[0](0.75 * images))
    assert torch.allclose(supernet(images, Path((1, 1), weights)), chosen, atol=1e-6)
    few = Path(None, weights, active=((1,), (0,)))
    assert torch.allclose(supernet(images, few), 0.5 * blocks[0](0.75 * images), atol=1e-6)


def test_numbers_refuse_paths_with_weights():
    supernet = ChoiceSupernet(ElasticLinear(2, Choice([1, 2], "width")))
    with pytest.raises(ValueError, match="'width' is a number, which paths with weights can't decide"):
        supernet(torch.zeros(1, 2), Path(None, (torch.ones(2),)))


def test_outside_of_a_supernet_the_largest_runs():
    network, images = ElasticConv2d(3, Choice([4, 2]), 1), torch.randn(2, 3, 2, 2)
    assert network(images).shape == (2, 4, 2, 2)
    find_choices(network)
    assert cut(network, (1,))(images).shape == (2, 2, 2, 2)


@torch.no_grad()
def test_statistics_of_one_width_are_recalibrated():
    width = Choice([2, 4])
    supernet = ChoiceSupernet(
        nn.Sequential(ElasticConv2d(3, width, 1), ElasticBatchNorm2d(width)), lambda n: BatchStatistics(n, True)
    )
    images, path = torch.randn(6, 3, 4, 4), Path((0,))
    with recalibrated(supernet):
        supernet(images, path)
        fix(supernet)
        one = supernet(images[:1], path)
    x = supernet.network[0](images)  # the path stays that of the last pass
    mean, deviation = x.mean((0, 2, 3)), (x.var((0, 2, 3)) + 1e-5).sqrt()
    by_hand = (x[:1] - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
    assert torch.allclose(one, by_hand, atol=1e-5)


def test_running_statistics_of_a_slice():
    """Without a supernet's normalisation the first statistics go with the first channels."""
    width = Choice([2, 4])
    supernet = ChoiceSupernet(ElasticBatchNorm2d(width))
    plain, images = nn.BatchNorm2d(2), torch.randn(5, 2, 3, 3) + 1
    supernet(images, Path((0,)))
    plain(images)
    norm = supernet.network.norm
    assert torch.allclose(norm.running_mean[:2], plain.running_mean) and not norm.running_mean[2:].any()
    plain.eval(), supernet.eval()
    assert torch.allclose(supernet(images, Path((0,))), plain(images), atol=1e-6)


class Waiting(nn.Module):
    """Lets each of two threads reach it before either goes on."""

    def __init__(self, barrier):
        super().__init__()
        self.barrier = barrier

    def forward(self, x):
        self.barrier.wait(timeout=30)
        return x


def test_passes_of_two_threads_keep_their_paths():
    barrier = threading.Barrier(2)
    layers = [ElasticLinear(3, 3), Waiting(barrier), ElasticLinear(3, Choice([1, 2]))]
    supernet, found = ChoiceSupernet(nn.Sequential(*layers)), {}

    def run(choice):
        found[choice] = supernet(torch.zeros(1, 3), Path((choice,))).shape

    threads = [threading.Thread(target=run, args=(choice,)) for choice in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: (1, 1), 1: (1, 2)}


def test_a_copy_is_a_supernet_of_its_own():
    width = Choice([1, 2])
    supernet = ChoiceSupernet(nn.Sequential(ElasticLinear(2, width), ElasticLinear(width, 3)))
    copied, words = copy.deepcopy(supernet), torch.randn(1, 2)
    large = supernet(words, Path((1,)))
    assert not torch.equal(copied(words, Path((0,))), large)
    assert torch.equal(copied(words, Path((1,))), large)
    assert copied.network[0].values()["out_features"].selection is copied.selection is not supernet.selection


def test_shared_weights_are_handed_on_as_copies():
    supernet = ChoiceSupernet(nn.Sequential(ElasticLinear(2, Choice([1, 2])), nn.Tanh()))
    weights = cut_weights(supernet, (0,))
    assert {key: value.tolist() for key, value in weights.items()} == {
        "0.weight": supernet.network[0].weight[:1].tolist(),
        "0.bias": supernet.network[0].bias[:1].tolist(),
    }
    weights["0.weight"].zero_()
    assert supernet.network[0].weight[:1].all()


def test_choices_are_named_by_paths_and_know_when_they_are_there():
    shared = Choice([1, 2], "shared")
    blocks = [nn.Sequential(ElasticLinear(2, 2), ElasticLinear(2, Choice([2]))), ElasticLinear(2, shared)]
    network = nn.Sequential(DepthChoice(blocks), OperationChoice({"a": ElasticLinear(shared, 1), "b": nn.Identity()}))
    found = find_choices(network)
    assert [each.name for each in found] == ["0", "0.0.1.out_features", "shared", "1"]
    depth, _, _, operation = (each.choice for each in found)
    assert found[1].uses == [()]  # one block is always there
    assert found[2].uses == [((depth, frozenset({1})),), ((operation, frozenset({0})),)]
    assert [each.choice.place for each in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Choice([]), "one or more, all different"),
        (lambda: Choice([1, 1]), "one or more, all different"),
        (lambda: Choice(["a|b"]), "can't be in it"),
        (lambda: Choice([1, 2], "a=b"), "can't be in it"),
        (lambda: DepthChoice([nn.Identity()], [1, 2]), "depths are"),
        (lambda: ElasticConv2d(Choice([1]), Choice([1]), 3, groups="depthwise"), "one number, or one Choice"),
        (lambda: find_choices(nn.Sequential(*(ElasticLinear(1, Choice([1, 2], "a")) for _ in range(2)))), "called 'a'"),
        (lambda: ChoiceSupernet(nn.Linear(1, 1)), "Linear has no choices"),
        (lambda: ChoiceSupernet(nn.Sequential(nn.BatchNorm1d(1)), BatchStatistics), "use BatchNorm2d"),
        (lambda: Choice([1, 2], "lost").at((0,)), "'lost' has no place"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
