"""The ranking loss, computed a second time from the paper's equations and from the list of alternatives."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_modules.landmark_regularizer import LandmarkRegularizer, LandmarkSettings
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.supernet import Path
from lightning_modules.pair_penalties import PENALTIES
from lightning_modules.supernet_settings import SupernetSettings
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201

SCHEDULES = (
    "constant",
    "cosine_increase",
    "cosine_decrease",
    "step_increase",
    "step_decrease",
    "inverse_learning_rate",
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softplus(x, beta=1):
    return math.log(1 + math.exp(beta * x)) / beta


def relu(x):
    return max(0.0, x)


def sign(x):
    return float((x > 0) - (x < 0))


def cross_entropy(d):
    return -math.log(1 - sigmoid(d))


def focal(d):
    return -(sigmoid(d) ** 5) * math.log(1 - sigmoid(d))


# d: loss that should be smaller minus loss that should be larger; v: difference of the two landmarks' worth.
FORMULAS = {
    "hinge": lambda d, mean, v: relu(d),
    "inverse_hinge": lambda d, mean, v: relu(-d),
    "sign_hinge": lambda d, mean, v: relu(sign(d)),
    "sign_tanh_hinge": lambda d, mean, v: relu(sign(math.tanh(d))),
    "tanh_hinge": lambda d, mean, v: relu(math.tanh(d)),
    "softplus": lambda d, mean, v: softplus(d),
    "softplus_beta3": lambda d, mean, v: softplus(d, 3),
    "softplus_beta5": lambda d, mean, v: softplus(d, 5),
    "softplus_beta7": lambda d, mean, v: softplus(d, 7),
    "cross_entropy": lambda d, mean, v: cross_entropy(d),
    "focal": lambda d, mean, v: focal(d),
    "mixed_focal": lambda d, mean, v: focal(d) if d < 0 else cross_entropy(d),
    "norm_hinge": lambda d, mean, v: relu(sign(d) * mean),
    "worth_hinge": lambda d, mean, v: relu(d * v),
    "worth_softplus": lambda d, mean, v: softplus(d * v, 5),
    "worth_sigmoid_hinge": lambda d, mean, v: relu(0.5 - sigmoid(-d / v)),
    "worth_sigmoid_softplus": lambda d, mean, v: softplus(0.5 - sigmoid(-d / v), 5),
    "margin_hinge": lambda d, mean, v: relu(1 + d),
    "worth_tanh_hinge": lambda d, mean, v: relu(math.tanh(d) * math.tanh(v)),
    "worth_tanh": lambda d, mean, v: math.tanh(d) * math.tanh(v),
    "worth_sign_tanh_hinge": lambda d, mean, v: relu(math.tanh(d)),
    "squared": lambda d, mean, v: (d + v) ** 2,
}


def test_every_penalty_has_a_formula_here():
    assert set(FORMULAS) == set(PENALTIES)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("better, worse", [(0.7, 2.1), (2.1, 0.7), (1.4, 1.5), (1.5, 1.4), (0.2, 3.9), (1.0, 1.0)])
@pytest.mark.parametrize("worths", [(1.0, 0.0), (0.8, 0.55)])
def test_a_penalty_is_its_formula(name, better, worse, worths):
    found = PENALTIES[name](*(torch.tensor(each, dtype=torch.float64) for each in (better, worse, *worths)))
    expected = FORMULAS[name](better - worse, (better + worse) / 2, worths[0] - worths[1])
    assert float(found) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_gradient_of_a_penalty_is_the_slope_of_its_formula(name):
    for better, worse in [(0.7, 2.1), (2.1, 0.7), (1.4, 1.5), (1.5, 1.4)]:
        losses = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (better, worse)]
        worths = [torch.tensor(each, dtype=torch.float64) for each in (0.9, 0.4)]
        found = torch.autograd.grad(PENALTIES[name](*losses, *worths), losses)
        h = 1e-6
        for place in range(2):
            # The formula, a little above and below.
            shifted = [(better + each * (place == 0), worse + each * (place == 1)) for each in (h, -h)]
            above, below = (FORMULAS[name](b - w, (b + w) / 2, 0.5) for b, w in shifted)
            slope = (above - below) / (2 * h)
            assert float(found[place]) == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_stay_finite_however_far_the_losses_are_apart(name):
    for better, worse in [(60.0, 0.1), (0.1, 60.0), (1.0, 1.0)]:
        losses = [torch.tensor(each, requires_grad=True) for each in (better, worse)]
        penalty = PENALTIES[name](*losses, torch.tensor(0.5), torch.tensor(0.5))
        assert penalty.isfinite() and all(each.isfinite() for each in torch.autograd.grad(penalty, losses))


# ---- lambda ----------------------------------------------------------------------------------------------------------


RATES = SupernetSettings(learning_rate=0.025, final_learning_rate=0.001)


def of(epochs):
    return replace(RATES, epochs=epochs)


def published(schedule, moment, epochs, warmup, published_end):
    """Lambda / lambda_max by the schedules of the paper and its code, epochs after the warm-up counted from 0."""
    if moment < warmup:
        return 0.0
    t = moment - warmup
    if schedule == "cosine_increase":
        whole = epochs if published_end else epochs - warmup
        return 0.5 * (1 + math.cos(math.pi * (t / whole + 1)))
    if schedule == "step_increase":
        return (0, 0.01, 0.1, 1)[int(t / ((epochs - warmup) / 4))]
    lr = 0.001 + 0.024 * 0.5 * (1 + math.cos(math.pi * int(moment) / epochs))
    share = {
        "constant": 1.0,
        "cosine_decrease": 0.5 * (1 + math.cos(math.pi * t / (epochs - warmup))),
        "step_decrease": (1, 0.1, 0.01, 0.001)[int(t / ((epochs - warmup) / 4))],
        "inverse_learning_rate": 0.025 - lr + 0.001,
    }[schedule]
    return share * min(1.0, 25 * t / (epochs - warmup))  # 10 of 250 epochs are a 25th


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("epochs, warmup", [(400, 150), (60, 20), (24, 0)])
@pytest.mark.parametrize("published_end", [False, True])
def test_a_schedule_is_its_formula(schedule, epochs, warmup, published_end):
    settings = LandmarkSettings(schedule=schedule, warmup=warmup, coefficient=7.0, published_end=published_end)
    for moment in (k + part for k in range(epochs) for part in (0.0, 0.125, 0.9)):
        expected = 7 * published(schedule, moment, epochs, warmup, published_end)
        assert settings.coefficient_at(moment, of(epochs)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("epochs, warmup, end", [(400, 150, 6.913), (200, 100, 5.000), (400, 100, 8.536)])
def test_increasing_cosines_end_where_the_paper_or_the_public_code_does(epochs, warmup, end):
    published = LandmarkSettings(warmup=warmup, published_end=True)
    last = epochs - 0.5 / 97  # the middle of the last step
    assert published.coefficient_at(last, of(epochs)) == pytest.approx(end, abs=0.001)
    settings = LandmarkSettings(warmup=warmup)
    assert settings.coefficient_at(last, of(epochs)) == pytest.approx(10, rel=1e-6)
    rising = [settings.coefficient_at(epoch + 0.5, of(epochs)) for epoch in range(warmup, epochs)]
    assert rising[0] > 0 and all(a < b for a, b in itertools.pairwise(rising))


@pytest.mark.parametrize("epochs, warmup", [(400, 150), (9, 3), (3, 2)])
def test_a_schedule_weighs_as_much_in_a_short_training_as_in_a_long_one(epochs, warmup):
    """Means over the regularised steps: 1 - ramp / 2, a half, and the means of the steps' shares less the ramp."""
    expected = {
        "constant": 9.8,
        "cosine_increase": 5.0,
        "step_increase": 2.775,
        "step_decrease": 2.5775,  # the quarters' mean, 2.7775, less half the ramp
    }
    for schedule, mean in expected.items():
        settings = LandmarkSettings(schedule=schedule, warmup=warmup)
        assert settings.mean_coefficient(of(epochs)) == pytest.approx(mean, rel=1e-3), schedule
    assert LandmarkSettings(warmup=9).mean_coefficient(of(9)) == 0


def test_only_every_so_many_steps_are_regularised_and_weigh_as_much_in_all():
    settings = LandmarkSettings(schedule="constant", warmup=2, every=3)
    regularizer = LandmarkRegularizer([(0,), (1,)], [1.0, 2.0], settings)
    weights = [regularizer.active(step, 20.5, of(30)) for step in range(9)]
    assert weights == [30, 0, 0] * 3
    assert [regularizer.active(step, 1.5, of(30)) for step in range(9)] == [0.0] * 9


# ---- pairs -----------------------------------------------------------------------------------------------------------

WORTH = (3.0, 1.0, 5.0, 2.0, 4.0)
TIES = (3.0, 1.0, 3.0, 2.0, 1.0)


def make(worth=WORTH, **settings):
    return LandmarkRegularizer([(k,) for k in range(len(worth))], worth, LandmarkSettings(**settings))


def uniform_pairs(count):
    return {pair: 1.0 for pair in itertools.combinations(range(count), 2)}


def published_pairs(count):
    """a in 0 .. n-2, then b in a+1 .. n-1, both uniform: by multiplication."""
    return {(a, b): 1 / (count - 1) / (count - 1 - a) for a, b in itertools.combinations(range(count), 2)}


def triple_pairs(count):
    found = Counter()
    for low, middle, high in itertools.combinations(range(count), 3):
        found[low, middle] += 1
        found[middle, high] += 1
    return found


def assert_distributed(drawn, probabilities, worth):
    """Chi-square against exact probabilities of (worse, better) places; pairs of equal worth are drawn again."""
    allowed = {pair: p for pair, p in probabilities.items() if p and worth[pair[0]] < worth[pair[1]]}
    counted = Counter((worse, better) for better, worse in drawn)
    assert set(counted) <= set(allowed)
    total = sum(allowed.values())
    expected = [len(drawn) * p / total for p in allowed.values()]
    assert stats.chisquare([counted[pair] for pair in allowed], expected).pvalue > 1e-3


@pytest.mark.parametrize("worth", [WORTH, TIES], ids=["all different", "ties"])
@pytest.mark.parametrize("pairing, exact", [("uniform", uniform_pairs), ("published", published_pairs)])
def test_pairs_are_distributed_as_promised(pairing, exact, worth):
    regularizer = make(worth, pairing=pairing)
    drawn = [pair for step in range(4000) for pair in regularizer.pairs(5, step)]
    assert len(drawn) == 4000
    assert_distributed(drawn, exact(len(worth)), sorted(worth))


def test_published_pairs_favour_good_landmarks():
    mean_worth = {
        pairing: np.mean([sum(pair) for step in range(2000) for pair in make(pairing=pairing).pairs(1, step)])
        for pairing in ("uniform", "published")
    }
    exact = sum((a + b) * p for (a, b), p in published_pairs(5).items())
    assert mean_worth["uniform"] == pytest.approx(4.0, abs=0.15)  # two of the places 0 .. 4
    assert mean_worth["published"] == pytest.approx(exact, abs=0.15) and exact > 4.7


def test_triples_compare_the_first_two_and_the_last_two_of_three():
    regularizer = make(triples=True, pairs=2)
    drawn = [regularizer.pairs(3, step) for step in range(3000)]
    for (middle, low), (high, again) in drawn:
        assert low < middle == again < high
    assert_distributed([pair for pairs in drawn for pair in pairs], triple_pairs(5), range(5))


def test_one_triple_a_step_compares_its_better_two_as_well():
    drawn = [pair for step in range(200) for pair in make(triples=True).pairs(3, step)]
    assert 4 in {better for better, _ in drawn}


def test_all_pairs_are_those_of_different_worth():
    assert sorted(make(pairs=0).pairs(0, 0)) == sorted((b, w) for w, b in itertools.combinations(range(5), 2))
    worth = sorted(TIES)
    expected = [(b, w) for w, b in itertools.combinations(range(5), 2) if worth[b] > worth[w]]
    assert sorted(make(TIES, pairs=0).pairs(9, 9)) == sorted(expected) and len(expected) == 8


@pytest.mark.parametrize("settings", [{"pairs": 0}, {"pairs": 40}, {"pairs": 40, "triples": True}])
def test_of_several_opinions_pairs_count_that_all_agree_on(settings):
    opinions = [(0.0, 1.0), (1.0, 0.0), (2.0, 2.0), (3.0, 1.5), (2.0, 3.0)]
    regularizer = LandmarkRegularizer([(k,) for k in range(5)], opinions, LandmarkSettings(**settings))
    agreed = {
        (better, worse)
        for better, worse in itertools.permutations(range(5), 2)
        if all(b > w for b, w in zip(opinions[better], opinions[worse], strict=True))
    }
    if settings.get("triples"):
        agreed.remove((4, 0))  # the best and the worst are never neighbours
    pairs = [pair for step in range(20) for pair in regularizer.pairs(0, step)]
    assert {(regularizer.landmarks[b][0], regularizer.landmarks[w][0]) for b, w in pairs} == agreed
    assert regularizer.worth == sorted(sum(each) / 2 for each in opinions)


@pytest.mark.parametrize(
    ("opinions", "triples"), [([(0, 1), (1, 0), (3, -1)], False), ([(0, 0), (3, -1), (2, 2)], True)]
)
def test_opinions_that_agree_on_no_usable_pair_are_refused(opinions, triples):
    """Of a triple its best and its worst are not compared, and here these alone are agreed on."""
    with pytest.raises(ValueError, match="opinions agree on no pair"):
        LandmarkRegularizer([(k,) for k in range(3)], opinions, LandmarkSettings(triples=triples))


@pytest.mark.parametrize("worth", [WORTH, TIES], ids=["all different", "ties"])
def test_of_a_group_all_pairs_of_different_worth_count(worth):
    regularizer, ranks = make(worth, group=3), sorted(worth)
    seen = Counter()
    for step in range(3000):
        pairs = regularizer.pairs(3, step)
        drawn = {place for pair in pairs for place in pair}
        assert all(ranks[better] > ranks[worse] for better, worse in pairs)
        if len(drawn) == 3:
            seen[tuple(sorted(drawn))] += 1
            assert len(pairs) == sum(ranks[a] != ranks[b] for a, b in itertools.combinations(drawn, 2))
    groups = [
        each
        for each in itertools.combinations(range(5), 3)
        if len({ranks[place] for place in each}) > 1  # else one has no partner, and is not in any pair
    ]
    assert set(seen) == set(groups) and stats.chisquare(list(seen.values())).pvalue > 1e-3


def test_a_group_takes_the_place_of_pairs_however_many_these_are():
    for pairs in (0, 1, 7):
        assert [make(group=2, pairs=pairs).pairs(1, step) for step in range(9)] == [
            make(group=2).pairs(1, step) for step in range(9)
        ]
    assert all(len(make(group=2, pairs=0).pairs(1, step)) == 1 for step in range(9))


def test_pairs_are_a_pure_function_of_seed_and_step():
    first = [make(pairs=3).pairs(2**31 - 1, step) for step in range(40)]
    torch.manual_seed(1)
    regularizer = make(pairs=3)
    assert [regularizer.pairs(2**31 - 1, step) for step in reversed(range(40))] == first[::-1]
    assert len({tuple(pairs) for pairs in first}) > 30
    assert first != [regularizer.pairs(0, step) for step in range(40)]


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_landmarks_are_sorted_by_worth_whatever_their_order():
    regularizer = make()
    assert regularizer.landmarks == [(1,), (3,), (0,), (4,), (2,)] and regularizer.worth == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("weigh", [False, True])
def test_the_penalty_of_all_pairs_is_the_mean_of_equation_4(weigh):
    losses = {(0,): 0.9, (1,): 0.4, (2,): 1.2, (3,): 0.7, (4,): 0.3}
    regularizer, asked = make(pairs=0, weigh_by_worth=weigh), []

    def loss_of(choices):
        asked.append(choices)
        return torch.tensor(losses[choices], dtype=torch.float64)

    expected = [
        relu(losses[i,] - losses[j,]) * ((WORTH[i] - WORTH[j]) / 4 if weigh else 1)
        for i, j in itertools.permutations(range(5), 2)
        if WORTH[i] > WORTH[j]
    ]
    assert float(regularizer.penalty(regularizer.pairs(0, 0), loss_of)) == pytest.approx(sum(expected) / 10)
    assert sum(expected) > 0 and sorted(asked) == sorted(losses)  # each landmark runs once, though in four pairs


def test_over_a_group_the_squared_penalty_is_a_regression_of_the_centred_losses():
    """Its truths are normal quantiles of ranks, ties in the middle, times the spread."""
    losses = torch.tensor([0.9, 0.4, 1.2, 0.7, 0.3], dtype=torch.float64, requires_grad=True)
    regularizer = make(WORTH, group=5, penalty="squared", truths="quantiles", spread=0.3)
    found = regularizer.penalty(regularizer.pairs(0, 0), lambda choices: losses[choices[0]])
    wanted = -0.3 * torch.tensor(stats.norm.ppf((stats.rankdata(WORTH) - 0.5) / 5))
    off = (losses - losses.mean()) - (wanted - wanted.mean())
    expected = 2 * 5 * (off**2).sum() / 2 / 10  # the sum over all pairs is n times that of squares; their mean over 10
    torch.testing.assert_close(found, expected)
    (slope,) = torch.autograd.grad(found, losses)
    torch.testing.assert_close(slope, off.detach())


def test_one_landmark_that_hardly_learns_does_not_take_up_the_quantiles():
    worth = (10.0, 90.0, 91.0, 92.0)
    seen = {}
    for truths in ("range", "quantiles"):
        regularizer = make(worth, pairs=0, penalty="squared", truths=truths)
        same = regularizer.penalty([(3, 1)], lambda choices: torch.tensor(1.0))
        seen[truths] = float(same) ** 0.5
    assert seen["range"] == pytest.approx(2 / 82) and seen["quantiles"] == pytest.approx(1.4690, abs=1e-3)


@pytest.fixture(scope="module")
def small():
    """A real supernet, a batch, and a function to the loss of an architecture on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = NASBench201().build_supernet(lambda width: BatchStatistics(width, True), Head(4, 1), 4, 1)
        images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 4
    return supernet, lambda choices: nn.functional.cross_entropy(supernet(images, Path(choices)), labels)


GOOD, BAD = (3, 1, 3, 2, 4, 3), (1, 4, 2, 0, 3, 1)


def gradient_of(supernet, value):
    gradients = torch.autograd.grad(value, list(supernet.parameters()), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
            for parameter, gradient in zip(supernet.parameters(), gradients, strict=True)
        ]
    )


def test_the_hinge_has_a_gradient_exactly_where_the_order_is_wrong(small):
    supernet, loss_of = small
    losses = {arch: float(loss_of(arch).detach()) for arch in (GOOD, BAD)}
    assert abs(losses[GOOD] - losses[BAD]) > 1e-4
    for worths in ((1.0, 2.0), (2.0, 1.0)):
        regularizer = LandmarkRegularizer([GOOD, BAD], worths)
        better, worse = sorted((GOOD, BAD), key=dict(zip((GOOD, BAD), worths, strict=True)).get, reverse=True)
        penalty = regularizer.penalty(regularizer.pairs(0, 0), loss_of)
        gradient = gradient_of(supernet, penalty)
        if losses[better] < losses[worse]:
            assert float(penalty.detach()) == 0 and not gradient.any()
        else:
            assert float(penalty.detach()) == pytest.approx(losses[better] - losses[worse], rel=1e-3)
            expected = gradient_of(supernet, loss_of(better)) - gradient_of(supernet, loss_of(worse))
            torch.testing.assert_close(gradient, expected)
            assert gradient.norm() > 1e-3


def test_following_the_gradient_puts_landmarks_in_order():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = NASBench201().build_supernet(lambda width: BatchStatistics(width), Head(4, 1), 4, 1)
        images, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 4
    archs = [(3, 1, 3, 2, 4, 3), (1, 4, 2, 0, 3, 1), (2, 2, 3, 1, 1, 4), (4, 3, 0, 2, 3, 2)]

    def loss_of(choices):
        return nn.functional.cross_entropy(supernet(images, Path(choices)), labels)

    # Worth in the order of the losses at the start: every pair is wrong.
    regularizer = LandmarkRegularizer(
        archs, [float(loss_of(arch).detach()) for arch in archs], LandmarkSettings(pairs=0)
    )
    optimizer = torch.optim.SGD(supernet.parameters(), 0.1)
    assert float(regularizer.penalty(regularizer.pairs(0, 0), loss_of).detach()) > 0.01
    for step in range(60):
        optimizer.zero_grad()
        regularizer.penalty(regularizer.pairs(0, step), loss_of).backward()
        optimizer.step()
    losses = [float(loss_of(arch).detach()) for arch in regularizer.landmarks]
    assert losses == sorted(losses, reverse=True)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"penalty": "hing"}, "penalty is 'hing', allowed: hinge"),
        ({"batch_share": 0.0}, "batch_share is 0.0"),
        ({"batch_share": 1.5}, "batch_share is 1.5"),
        ({"every": 0}, "every is 0"),
        ({"pairs": -1}, "pairs -1"),
        ({"warmup": -1}, "warmup -1"),
        ({"coefficient": -2.0}, "-2.0"),
        ({"group": 1}, "group is 1"),
        ({"group": 3, "triples": True}, "group is 3, .* triples"),
        ({"truths": "ranks"}, "truths is 'ranks', allowed: range, quantiles"),
        ({"spread": 0.0}, "spread is 0.0"),
    ],
)
def test_settings_refuse_what_makes_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        LandmarkSettings(**settings)


@pytest.mark.parametrize(
    "worth, settings, message",
    [
        ([1.0], {}, "1 numbers"),
        ([1.0, 2.0, 3.0], {"group": 4}, "a group of 4 was asked for, of 3"),
        ([1.0, 1.0, 1.0], {}, "at least two of different"),
        ([1.0, float("nan"), 2.0], {}, "at least two of different, known"),
        ([1.0, float("inf"), 2.0], {}, "known"),
    ],
)
def test_landmarks_without_an_order_are_refused(worth, settings, message):
    with pytest.raises(ValueError, match=message):
        LandmarkRegularizer([(0,), (1,), (2,)], worth, LandmarkSettings(**settings))


def test_triples_need_three_landmarks():
    with pytest.raises(ValueError, match="triples need at least three"):
        make((1.0, 2.0), triples=True)
