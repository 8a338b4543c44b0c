"""A reward for being wired as experts are: learned by apprenticeship, added to a score, charged of a relaxation."""

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import spearmanr

from lightning_modules.path_samplers.priced_gumbel import PricedGumbelSampler
from search.attributes.table_column import TableColumn
from search.attributes.topology import RESNET, Topology
from search.contracts.toy_spaces import Grid
from search.randomness import TrialRandom
from search.rewards.apprenticeship import MirrorStimuli, TopologyFeatures
from search.rewards.scaled_attribute import ScaledAttribute, TopologyReward
from search.spaces.base import Edge
from search.spaces.darts import DARTS
from search.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
BOTTLENECK = "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
TASK = SimpleNamespace(space=SPACE)
"""Terms ask a task for its space alone."""


def test_features_by_hand():
    """ResNet's cell: 1 <- 0 and 2 <- 1 are convolutions, 3 <- 0 and 3 <- 2 are skips."""
    counts = TopologyFeatures(SPACE, gamma=0.5).counts(SPACE.parse(RESNET))
    assert counts == {
        "nor_conv_3x3": 0.5 + 0.25,
        "skip_connect": 0.125 * 2,
        "passes over 0": 0.5 + 0.25 + 0.125,
        "passes over 2": 0.125,
        "nor_conv_3x3 from 0 to 1": 0.5,
        "nor_conv_3x3 from 1 to 2": 0.25,
        "skip_connect from 0 to 3": 0.125,
        "skip_connect from 2 to 3": 0.125,
    }


def test_cells_of_one_drawing_have_features_of_their_own():
    counts = TopologyFeatures(DARTS()).counts(DARTS().draw(0))
    assert any(name.startswith("normal ") for name in counts) and any(name.startswith("reduce ") for name in counts)
    assert sum(value for name, value in counts.items() if "passes over" in name) == pytest.approx(
        2 * 2 * sum(0.9**node for node in (2, 3, 4, 5))
    )


@pytest.mark.parametrize("expert", [RESNET, BOTTLENECK])
def test_the_expert_has_the_largest_reward_of_500_random_architectures(expert):
    function = MirrorStimuli(SPACE, [SPACE.parse(expert)], seed=3)
    fresh = [tuple(each) for each in SPACE.sample(TrialRandom(77), 500)[0].tolist()]
    others = [each for each in fresh if each != SPACE.parse(expert)]
    assert float(function([SPACE.parse(expert)])[0]) > float(function(others).max())
    scaled = function(function.random)
    assert scaled.min() >= 0 and scaled.max() <= 1


def test_several_experts_are_all_far_above_random_ones():
    function = MirrorStimuli(SPACE, [SPACE.parse(RESNET), SPACE.parse(BOTTLENECK)])
    both = function([SPACE.parse(RESNET), SPACE.parse(BOTTLENECK)])
    assert float(both.min()) > float(function(function.random).quantile(0.99))


@pytest.mark.parametrize("seed", range(3))
def test_it_recovers_planted_weights(seed):
    """Experts are the best 30 of 2,000 architectures by a planted ``w . mu``; what is learned ranks others alike."""
    features = TopologyFeatures(SPACE)
    archs = [tuple(each) for each in SPACE.sample(TrialRandom(50 + seed), 2400)[0].tolist()]
    matrix = features.matrix(archs)
    planted = matrix @ torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(seed)).double()
    best = planted[:2000].topk(30).indices.tolist()
    function = MirrorStimuli(SPACE, [archs[k] for k in best])
    agreement = spearmanr(function(archs[2000:]), planted[2000:]).statistic
    print(f"planted weights: Spearman {agreement:.2f}")
    assert agreement > 0.6


def test_prices_add_up_to_minus_the_function():
    topology = Topology(SPACE, [RESNET])
    constant, prices = topology.constant(), topology.prices()
    for architecture in SPACE.sample(TrialRandom(4), 30)[0].tolist():
        total = constant + sum(float(own[choice]) for own, choice in zip(prices, architecture, strict=True))
        assert total == pytest.approx(-topology.measure([tuple(architecture)])[0])


class Mixed(Grid):
    """One arrow, whose label two decisions make together."""

    def diagram(self, architecture):
        return [Edge("0", "1", f"label {architecture[0] * architecture[1]}")]

    def parse(self, text):
        return tuple(map(int, text))


def test_where_choices_do_not_add_up_there_is_no_price():
    with pytest.raises(ValueError, match="no sum over the choices of the space 'grid'"):
        Topology(Mixed(2, 3), ["22"]).prices()


def test_a_sampler_that_learns_from_the_price_alone_finds_the_expert():
    sampler = PricedGumbelSampler(
        SPACE, lambda space: Topology(space, [RESNET]), strength=1.0, learning_rate=0.1, weight_decay=0.0
    )
    optimizer = torch.optim.Adam(sampler.logits, lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        sampler.penalty([logits.softmax(-1) for logits in sampler.logits]).backward()
        optimizer.step()
    assert SPACE.format(tuple(int(logits.argmax()) for logits in sampler.logits)) == RESNET


def test_terms_of_one_strength_span_one_range():
    def column(space):
        return TableColumn(space, "nasbench201.npz", "flops_m", "min")

    random = SPACE.sample(TrialRandom(0), 500)[0]
    for term in (ScaledAttribute(TASK, column, 30.0), TopologyReward(TASK, [RESNET], 30.0)):
        values = term.values(random).values
        assert float(values.min()) >= 0 and float(values.max()) == pytest.approx(30.0, abs=4.0)
    flops = ScaledAttribute(TASK, column, 30.0)
    smallest = torch.zeros(1, 6, dtype=torch.long)
    resnet = torch.tensor([SPACE.parse(RESNET)])
    assert float(flops.values(smallest).values) > float(flops.values(resnet).values)
    assert float(TopologyReward(TASK, [RESNET], 30.0).values(resnet).values) == pytest.approx(30.0)


def test_they_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="experts"):
        MirrorStimuli(SPACE, [])
    with pytest.raises(ValueError, match="gamma"):
        TopologyFeatures(SPACE, gamma=0.0)
    with pytest.raises(ValueError, match="strength is -1"):
        TopologyReward(TASK, [RESNET], -1.0)
    with pytest.raises(ValueError, match="nor_conv_5x5"):
        Topology(SPACE, [RESNET.replace("3x3", "5x5")])
