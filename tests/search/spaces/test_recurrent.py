"""Recurrent cells: published ones, a cell as a naive loop, weight sharing, and a search with a known answer."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_modules.networks.cost.complexity import count_parameters
from lightning_modules.networks.recurrent_cells import Masks, RecurrentCell, recurrent_nodes
from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import ArchitectureStep
from lightning_modules.path_samplers.darts import DARTSSampler
from lightning_modules.path_samplers.gdas import GDASSampler
from search.attributes.flops import Flops
from search.attributes.zen import Zen
from search.randomness import TrialRandom
from search.spaces.base import Edge
from search.spaces.head import Head
from search.spaces.recurrent import PUBLISHED, RecurrentCells

SPACE = RecurrentCells()
BY_HAND = {
    "tanh": lambda x: 2 / (1 + (-2 * x).exp()) - 1,
    "relu": lambda x: x * (x > 0),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "identity": lambda x: x,
}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def some(space, n, seed=2):
    return [tuple(arch) for arch in space.sample(TrialRandom(seed), n)[0].tolist()]


def words(batch=3, time=6, vocabulary=11, seed=1):
    return torch.randint(vocabulary, (batch, time), generator=torch.Generator().manual_seed(seed))


# ---- genotypes and sizes ---------------------------------------------------------------------------------------------


def test_published_cells_are_read_and_written():
    assert math.prod(SPACE.sizes) == math.factorial(8) * 4**8
    for text in PUBLISHED.values():
        assert SPACE.format(SPACE.parse(text)) == text
    arch = SPACE.parse(PUBLISHED["DARTS_V2"])
    assert SPACE.genotype(arch)[5] == ("sigmoid", 5) and SPACE.from_genotype(SPACE.genotype(arch)) == arch
    assert Edge("5", "6", "sigmoid") in SPACE.diagram(arch)
    with pytest.raises(ValueError, match=r"recurrent: node 1 has the activation 'sigmoids', .*did you mean 'sigmoid'"):
        SPACE.parse(PUBLISHED["DARTS_V2"].replace("sigmoid~0", "sigmoids~0"))
    with pytest.raises(ValueError, match=r"recurrent: decision 'node 1 reads' .* is 1, allowed: \[0\]"):
        SPACE.parse(PUBLISHED["DARTS_V2"].replace("sigmoid~0", "sigmoid~1"))


def test_the_network_for_the_penn_treebank_has_its_published_size():
    with torch.device("meta"):
        network = SPACE.build(SPACE.parse(PUBLISHED["DARTS_V2"]))
    # Embedding, the classifier's shift, the first node and eight more; DARTS reports 23 million.
    expected = 10_000 * 850 + 10_000 + 1700 * 1700 + 8 * 850 * 1700
    assert count_parameters(network) == expected and round(expected / 1e6) == 23


@pytest.mark.parametrize(("vocabulary", "hidden"), [(10_000, 850), (90, 64), (7, 8)])
def test_the_plain_network_has_as_many_weights(vocabulary, hidden):
    arch = SPACE.parse(PUBLISHED["DARTS_V1"])
    with torch.device("meta"):
        searched = count_parameters(SPACE.build(arch, Head(vocabulary), hidden))
        plain = count_parameters(SPACE.build(arch, Head(vocabulary), hidden, cell="tanh"))
        wider = count_parameters(SPACE.build(arch, Head(vocabulary), hidden + 40, cell="tanh"))
    assert plain <= searched < wider and searched - plain < 0.03 * searched + vocabulary + 8 * hidden


def test_a_word_takes_a_multiply_add_a_weight():
    flops = Flops(SPACE, {"num_classes": 11, "hidden": 8})
    arch = some(SPACE, 1)[0]
    matrices = 16 * 16 + 8 * 8 * 16  # linear layers: the classifier shares the embedding's weights
    assert float(flops.values(torch.tensor(arch))) == matrices
    with pytest.raises(ValueError, match="Zen shows images, networks of 'recurrent' read text"):
        Zen(SPACE)


# ---- the cell --------------------------------------------------------------------------------------------------------


def test_a_cell_is_a_naive_loop_over_its_nodes():
    x, last = torch.randn(3, 5), torch.randn(3, 4)
    masks = Masks(torch.rand(3, 5), torch.rand(3, 4))
    for arch in some(SPACE, 20):
        cell = RecurrentCell(recurrent_nodes(arch), 5, 4)
        for used in (None, masks):
            keep_x, keep_h = (1, 1) if used is None else used
            first, *matrices = [matrix.weight * 20 for matrix in cell.matrices]
            with torch.no_grad():
                for matrix in cell.matrices:
                    matrix.weight.mul_(20)
            c, h = (torch.cat([x * keep_x, last * keep_h], 1) @ first.T).split(4, 1)
            states = [last + BY_HAND["sigmoid"](c) * (BY_HAND["tanh"](h) - last)]
            for (name, source), matrix in zip(SPACE.genotype(arch), matrices, strict=True):
                c, h = ((states[source] * keep_h) @ matrix.T).split(4, 1)
                states.append(states[source] + BY_HAND["sigmoid"](c) * (BY_HAND[name](h) - states[source]))
            torch.testing.assert_close(cell(x, last, used), sum(states[1:]) / 8, rtol=1e-4, atol=1e-5)
            with torch.no_grad():
                for matrix in cell.matrices:
                    matrix.weight.div_(20)


def test_a_state_can_be_handed_on():
    network = SPACE.build(some(SPACE, 1)[0], Head(11), hidden=6)
    whole = network.read(words())
    first = network.read(words()[:, :2])
    rest = network.read(words()[:, 2:], first.states[:, -1])
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole.logits)
    assert torch.equal(network(words()), whole.logits) and whole.logits.shape == (3, 6, 11)


def test_what_is_dropped_is_the_same_at_every_step_and_nothing_outside_of_training():
    drop = {"inputs": 0.5, "outputs": 0.5}
    network = SPACE.build(some(SPACE, 1)[0], Head(11), hidden=40, dropout=drop)
    reading = network.read(words())
    zeros = reading.dropped == 0
    assert (zeros == zeros[:, :1]).all() and 0.3 < float(zeros.float().mean()) < 0.7
    torch.testing.assert_close(reading.dropped[~zeros], 2 * reading.states[~zeros])
    assert not torch.equal(network(words()), network(words()))
    network.eval()
    plain = SPACE.build(some(SPACE, 1)[0], Head(11), hidden=40)
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(words()), plain(words()))
    for share in ({"words": 0.5}, {"cell": 0.5}, {"hidden": 0.5}):
        other = SPACE.build(some(SPACE, 1)[0], Head(11), hidden=40, dropout=share)
        assert not torch.equal(other(words()), other(words())) and torch.equal(other.eval()(words()), other(words()))
    with pytest.raises(ValueError, match=r"dropout.words is 1.0"):
        SPACE.build(some(SPACE, 1)[0], dropout={"words": 1.0})


# ---- the supernet ----------------------------------------------------------------------------------------------------


def supernet_of(space, hidden=6, scale=20.0):
    supernet = space.build_supernet(head=Head(11), hidden=hidden)
    with torch.no_grad():  # so that activations differ
        for matrix in supernet.network.cell.weights.matrices:
            matrix.weight.mul_(scale)
    return supernet


def test_a_path_computes_what_the_stand_alone_network_computes():
    supernet = supernet_of(SPACE)
    outputs = set()
    for arch in some(SPACE, 20):
        network = SPACE.build(arch, Head(11), hidden=6)
        supernet.hand_down(arch, network)
        output = supernet(words(), Path(arch))
        torch.testing.assert_close(output, network(words()))
        outputs.add(tuple(output.flatten().tolist()))
        hot = tuple(
            functional.one_hot(torch.tensor(choice), size).float()
            for choice, size in zip(arch, SPACE.sizes, strict=True)
        )
        for path in (Path(arch, hot), Path(None, hot)):
            torch.testing.assert_close(supernet(words(), path), output, rtol=1e-4, atol=1e-5)
    assert len(outputs) == 20
    # The same matrices whatever the architecture.
    with torch.device("meta"):
        assert count_parameters(SPACE.build_supernet(head=Head(11), hidden=6)) == count_parameters(
            SPACE.build(arch, Head(11), hidden=6)
        )


def test_every_weight_of_the_relaxation_gets_a_gradient():
    space = RecurrentCells(3)
    weights = [torch.rand(size, requires_grad=True) for size in space.sizes]
    supernet_of(space)(words(), Path(None, tuple(weights))).square().mean().backward()
    assert all((each.grad != 0).all() for each in weights)
    assert DARTSSampler(space).path(0, 0).choices is None


class Columns(nn.Module):
    """Choice ``c`` of decision ``t`` gives its own column of the input, times a shared weight."""

    def __init__(self, sizes):
        super().__init__()
        self.scale = nn.Parameter(torch.full((len(sizes), max(sizes)), 0.5))

    def forward(self, x, path):
        weights = [1.0] * len(self.scale)
        if path.weights is not None:
            weights = [own[choice] for own, choice in zip(path.weights, path.choices, strict=True)]
        chosen = enumerate(zip(path.choices, weights, strict=True))
        return sum(weight * self.scale[t, choice] * x[:, t, choice] for t, (choice, weight) in chosen)


def test_gdas_finds_the_cell_that_made_the_data():
    network, sampler, steps = Columns(SPACE.sizes), GDASSampler(SPACE, learning_rate=0.1, weight_decay=0.0), 300
    planted = SPACE.parse(PUBLISHED["DARTS_V2"])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)

    def loss(seed):
        x = torch.randn(64, *network.scale.shape, generator=torch.Generator().manual_seed(seed))
        y = sum(x[:, t, choice] for t, choice in enumerate(planted))
        return lambda path: nn.functional.mse_loss(network(x, path), y)

    for step in range(steps):
        optimizer.zero_grad()
        loss(2 * step)(sampler.path(0, step)).backward()
        optimizer.step()
        sampler.learn(
            ArchitectureStep(network, loss(2 * step), loss(2 * step + 1), lambda p: None, 0, step, step / steps, 0.02)
        )
    (found,) = sampler.choose(lambda archs: [], 1, 0)
    assert SPACE.format(found) == PUBLISHED["DARTS_V2"]
