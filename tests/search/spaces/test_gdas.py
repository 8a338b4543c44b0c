"""GDAS' spaces: published networks to the digit, both rules, and a supernet by architectures and by edges."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_modules.networks.cost.complexity import count_parameters
from lightning_modules.networks.darts_cells import EDGES, OPERATION_NAMES
from lightning_modules.networks.gdas_cells import FixedReductionCell
from lightning_modules.networks.supernet import Path
from search.randomness import TrialRandom
from search.spaces.darts import DARTS
from search.spaces.gdas import PUBLISHED, PUBLISHED_FRC, FixedReduction, GDASCells
from search.spaces.head import Head

OPERATIONS = len(OPERATION_NAMES)
SMALL = {"channels": 4, "cells": 3}


def meta_network(space, text, classes=10, **options):
    with torch.device("meta"):
        return space.build(space.parse(text), Head(classes), **options)


def some(space, n, seed=2):
    return [tuple(arch) for arch in space.sample(TrialRandom(seed), n)[0].tolist()]


def images(seed=1, size=8):
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ---- published networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"), [("GDAS_V1", 3_368_782), ("DARTS_V1", 3_169_414), ("DARTS_V2", 3_349_342)]
)
def test_published_cells_have_the_parameters_of_the_public_code(name, parameters):
    assert count_parameters(meta_network(GDASCells(), PUBLISHED[name])) == parameters
    assert DARTS().format(DARTS().parse(PUBLISHED[name])) == PUBLISHED[name]  # they are points of DARTS' space too


def test_the_fixed_reduction_cell_has_the_parameters_of_the_public_code():
    space, text = FixedReduction(), PUBLISHED_FRC["GDAS_F1"]
    network = meta_network(space, text)
    assert count_parameters(network) == 2_543_014
    # The cell by hand: 72 channels, long convolutions in eight groups.
    (cell, _) = [module for module in network.modules() if isinstance(module, FixedReductionCell)]
    assert count_parameters(cell) == 2 * (2 * 72 * (72 // 8) * 3 + 72 * 72 + 2 * 2 * 72 + 2 * 72)


@pytest.mark.parametrize(
    ("space", "text", "channels", "parameters"),
    [
        (GDASCells(), PUBLISHED["GDAS_V1"], 50, 5_345_075),
        (FixedReduction(), PUBLISHED_FRC["GDAS_F1"], 52, 4_430_386),
        (GDASCells(), PUBLISHED["DARTS_V2"], 48, 4_718_752),
    ],
    ids=["GDAS_V1", "GDAS_F1", "DARTS_V2"],
)
def test_the_networks_for_imagenet_have_the_parameters_of_the_public_code(space, text, channels, parameters):
    network = meta_network(space, text, 1000, channels=channels, cells=14, stem="imagenet", auxiliary=False)
    assert count_parameters(network) == parameters


def test_the_auxiliary_head_reads_the_second_reduction_cell():
    for stem, size in (("cifar", 32), ("imagenet", 224)):
        network = meta_network(GDASCells(), PUBLISHED["GDAS_V1"], 10, cells=3, stem=stem, auxiliary=True)
        plain = meta_network(GDASCells(), PUBLISHED["GDAS_V1"], 10, cells=3, stem=stem)
        # 16 C channels through a 1x1 and a 2x2 convolution, each with its normalisation, and a linear layer.
        head = 16 * 36 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 769 * 10
        assert count_parameters(network) - count_parameters(plain) == head
        seen = {}
        second = network.blocks[2]
        second.register_forward_hook(lambda _, __, output, seen=seen: seen.update(output=output))
        network.auxiliary.register_forward_hook(lambda _, inputs, __, seen=seen: seen.update(input=inputs[0]))
        logits, auxiliary = network.with_auxiliary(torch.zeros(2, 3, size, size, device="meta"))
        assert seen["input"] is seen["output"] and seen["input"].shape[-1] == (8 if stem == "cifar" else 7)
        assert logits.shape == auxiliary.shape == (2, 10)


def test_an_auxiliary_head_changes_nothing_of_the_network():
    space, arch = FixedReduction(), some(FixedReduction(), 1)[0]
    networks = []
    for auxiliary in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            networks.append(space.build(arch, Head(5), auxiliary=auxiliary, **SMALL).eval())
    plain, with_head = networks
    assert torch.equal(with_head(images()), plain(images()))
    assert torch.equal(with_head.with_auxiliary(images())[0], plain(images()))


# ---- the spaces ------------------------------------------------------------------------------------------------------


def test_the_fixed_reduction_leaves_as_many_cells_as_gdas_counts():
    space = FixedReduction()
    assert len(space.sizes) == 12 and math.prod(space.sizes) == 180 * 7**8 == 1_037_664_180
    with pytest.raises(ValueError, match="gdas_frc: the reduction cell is fixed"):
        space.from_genotype([("skip_connect", 0)] * 8, [("skip_connect", 0)])
    with pytest.raises(ValueError, match=r"gdas_frc: .* must read as in normal=\[op~0,op~1,...\]$"):
        space.parse(PUBLISHED["GDAS_V1"])


def test_one_input_twice_adds_every_pair_of_its_operations():
    space = FixedReduction(same_input=True)
    # Of a node with n inputs: all pairs of different (input, operation) terms, in no order.
    expected = [math.comb(7 * inputs, 2) for inputs in (2, 3, 4, 5)]
    for node in range(4):
        tail = (0, 0, 1) * 4
        product = itertools.product(*(range(size) for size in space.sizes[3 * node : 3 * node + 3]))
        archs = torch.tensor([[*tail[: 3 * node], *own, *tail[3 * node + 3 :]] for own in product])
        assert int(space.is_valid(archs).sum()) == expected[node]
    arch = space.parse(
        "normal=[sep_conv_3x3~1,skip_connect~1,skip_connect~0,sep_conv_3x3~2,skip_connect~0,sep_conv_3x3~2,"
        "skip_connect~0,sep_conv_3x3~2]"
    )
    assert space.genotype(arch)["normal"][:2] == [("skip_connect", 1), ("sep_conv_3x3", 1)]
    for each in [arch, *some(space, 100)]:
        assert space.parse(space.format(each)) == each
    with pytest.raises(ValueError, match="must read two different ones"):
        FixedReduction().parse(space.format(arch))


# ---- the supernet ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [FixedReduction(), GDASCells(same_input=True)], ids=["FRC", "same input"])
def test_a_path_computes_what_the_stand_alone_network_computes(space):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        supernet = space.build_supernet(head=Head(5), **SMALL)
    outputs = set()
    for arch in some(space, 10):
        with torch.random.fork_rng(devices=[]):
            network = space.build(arch, Head(5), **SMALL).train()
        supernet.train().hand_down(arch, network)
        output = supernet(images(), Path(arch))
        assert torch.equal(network(images()), output), space.format(arch)
        outputs.add(tuple(output.flatten().tolist()))
    assert len(outputs) == 10


@pytest.mark.parametrize("space", [FixedReduction(), GDASCells()], ids=["FRC", "both cells"])
def test_edges_with_two_operations_a_node_are_an_architecture(space):
    """An architecture's own edges at weight 1 and none on all others is the architecture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        supernet = space.build_supernet(head=Head(5), **SMALL)
    for arch in some(space, 5):
        active, terms = [], []
        for nodes in space.cells(arch).values():
            for node, choice in enumerate(nodes, start=2):
                own = dict(zip(choice.sources, choice.operations, strict=True))
                active += [
                    (OPERATION_NAMES.index(own[source]) if source in own else OPERATIONS,) for source in range(node)
                ]
        terms = tuple(functional.one_hot(torch.tensor(choice), OPERATIONS + 1).float() for (choice,) in active)
        assert len(active) == len(EDGES) * len(space.cell_names)
        with torch.no_grad():
            whole = supernet(images(), Path(arch))
            for some_active in (tuple(active), None):  # with and without telling what weighs nothing
                by_edges = supernet(images(), Path(None, terms, some_active))
                torch.testing.assert_close(by_edges, whole, rtol=1e-4, atol=1e-5)


def test_a_cell_without_any_edge_gives_zeros_of_the_right_size():
    space = GDASCells()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = space.build_supernet(head=Head(5), **SMALL)
    edges = len(EDGES) * 2
    none = functional.one_hot(torch.tensor(OPERATIONS), OPERATIONS + 1).float()
    logits = supernet(images(size=9), Path(None, (none,) * edges, ((OPERATIONS,),) * edges))
    torch.testing.assert_close(logits, supernet.network.classifier.bias.expand(4, 5))


def test_an_edge_gets_the_gradient_of_its_operation_alone():
    space = FixedReduction()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = space.build_supernet(head=Head(5), **SMALL)
    relaxation = space.relaxation()
    logits = [torch.zeros(shape, requires_grad=True) for shape in relaxation.shapes()]
    generator = torch.Generator().manual_seed(3)
    noise = [torch.randn(each.shape, generator=generator) for each in logits]
    path = relaxation.path(logits, noise, 2.0, hard=True)
    for weights, (choice,), some_noise in zip(path.weights, path.active, noise, strict=True):
        assert choice == int(some_noise.argmax()) and weights.tolist() == [float(k == choice) for k in range(8)]
    loss = nn.functional.cross_entropy(supernet(images(), path), torch.arange(4))
    gradients = torch.autograd.grad(loss, path.weights, allow_unused=True)
    for gradient, (choice,) in zip(gradients, path.active, strict=True):
        if choice == OPERATIONS:
            assert gradient is None
        else:
            assert gradient.nonzero().flatten().tolist() == [choice]


# ---- decoding --------------------------------------------------------------------------------------------------------


def logits_of(relaxation, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in relaxation.shapes()]


def by_hand(logits, same_input):
    """The published rules, node by node, over plain softmaxes."""
    found, edge = [], 0
    for node in range(2, 6):
        softmaxes = [logits[edge + source].softmax(0).tolist()[:OPERATIONS] for source in range(node)]
        edge += node
        if same_input:  # GDAS: the two largest of all
            ranked = sorted(itertools.product(range(node), range(OPERATIONS)), key=lambda t: -softmaxes[t[0]][t[1]])
            terms = ranked[:2]
        else:  # DARTS: the two nodes whose best operation is likeliest, each with that
            best = sorted(range(node), key=lambda source: -max(softmaxes[source]))[:2]
            terms = [(source, softmaxes[source].index(max(softmaxes[source]))) for source in best]
        found.append(sorted(terms))
    return found


@pytest.mark.parametrize("same_input", [False, True], ids=["DARTS' rule", "GDAS' rule"])
def test_decoding_is_the_published_rule(same_input):
    space, twice = FixedReduction(same_input), 0
    relaxation = space.relaxation()
    for seed in range(30):
        logits = logits_of(relaxation, seed)
        (arch,) = relaxation.decode(logits, 1)
        expected = by_hand(logits, same_input)
        terms = [(source, OPERATION_NAMES.index(name)) for name, source in space.genotype(arch)["normal"]]
        assert [sorted(terms[2 * node : 2 * node + 2]) for node in range(4)] == expected
        twice += sum(first[0] == second[0] for first, second in expected)
    assert (twice > 5) == same_input  # the rules differ on such logits


def test_draws_and_ranks_go_by_the_product_of_softmaxes():
    space = FixedReduction()
    relaxation, logits = space.relaxation(), logits_of(space.relaxation(), 1)
    assert bool(space.is_valid(relaxation.sample(logits, 50, torch.Generator().manual_seed(0))).all())

    def likelihood(arch):
        total, edge = 0.0, 0
        for node, choice in enumerate(space.cells(arch)["normal"], start=2):
            for source, name in zip(choice.sources, choice.operations, strict=True):
                total += float(logits[edge + source].log_softmax(0)[OPERATION_NAMES.index(name)])
            edge += node
        return total

    decoded = relaxation.decode(logits, 20)
    worth = [likelihood(arch) for arch in decoded]
    assert worth == sorted(worth, reverse=True) and len(set(decoded)) == 20
    rivals = [*space.neighbours(torch.tensor([decoded[0]]))[0][0].tolist(), *map(list, some(space, 300))]
    better = {tuple(arch) for arch in rivals if likelihood(tuple(arch)) > worth[-1] + 1e-9}
    assert better and better <= set(decoded)
    # The first node's draws by brute force.
    scaled = [4 * each for each in logits]
    draws = relaxation.sample(scaled, 4000, torch.Generator().manual_seed(0))[:, :3]
    one, other = (each.double().softmax(0)[:OPERATIONS] for each in scaled[:2])
    expected = one.outer(other) / (one.sum() * other.sum())
    counts = torch.zeros(OPERATIONS, OPERATIONS).index_put_(
        (draws[:, 1], draws[:, 2]), torch.ones(4000), accumulate=True
    )
    torch.testing.assert_close(counts.double() / 4000, expected, atol=0.03, rtol=0)
