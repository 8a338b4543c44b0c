import itertools
import math

import pytest
import torch

from search.agents.catcher.evaluator import PrioritizedReplay, huber
from search.randomness import TrialRandom


def filled(errors, alpha=0.6):
    replay = PrioritizedReplay(1, alpha)
    replay.append(len(errors))
    replay.update(torch.arange(len(errors)).unsqueeze(0), torch.tensor([errors]))
    return replay


def test_huber_against_torch():
    errors = torch.linspace(-3, 3, 61)
    for delta in (0.5, 1.0):
        expected = torch.nn.functional.huber_loss(errors, torch.zeros(61), reduction="none", delta=delta)
        assert torch.allclose(huber(errors, delta), expected)


def test_probabilities_by_hand():
    """|errors| 1, 2, 5 with alpha 0.6, plus 1e-6 each."""
    powers = [(error + 1e-6) ** 0.6 for error in (1, 2, 5)]
    expected = [power / sum(powers) for power in powers]
    assert filled([1.0, -2.0, 5.0]).probabilities()[0].tolist() == pytest.approx(expected)


def test_new_entries_have_the_largest_priority():
    replay = filled([1.0, 3.0])
    replay.append(2)
    assert replay.priorities[0].tolist() == pytest.approx([1, 3, 3, 3], abs=1e-5)
    empty = PrioritizedReplay(2, 0.6)
    empty.append(3)
    assert empty.priorities.tolist() == [[1, 1, 1]] * 2


def test_importance_weights_by_hand():
    """(N P)^-beta, divided by the largest of the batch."""
    replay = filled([1.0, 2.0, 5.0])
    chosen, weights = replay.sample(TrialRandom(0), 1.0, beta=0.4)
    probabilities = replay.probabilities()[0]
    raw = [(3 * probabilities[i].item()) ** -0.4 for i in chosen[0]]
    assert weights[0].tolist() == pytest.approx([value / max(raw) for value in raw])
    assert replay.sample(TrialRandom(0), 1.0, beta=0.0)[1].tolist() == [[1, 1, 1]]


def test_a_batch_is_80_percent_rounded_up_without_repeats():
    replay = filled([float(k) for k in range(1, 13)])
    chosen, _ = replay.sample(TrialRandom(4), 0.8, 0.4)
    assert chosen.shape == (1, math.ceil(0.8 * 12))
    assert len(set(chosen[0].tolist())) == 10


def test_drawing_without_replacement_follows_the_priorities():
    """Every ordered pair of three entries against its probability P(i) * P(j) / (1 - P(i))."""
    replay = PrioritizedReplay(60_000, 1.0)
    replay.append(3)
    replay.update(torch.arange(3).expand(60_000, 3), torch.tensor([1.0, 2.0, 5.0]).expand(60_000, 3))
    chosen, _ = replay.sample(TrialRandom(0, 60_000), 0.5, 0.4)
    p = [1 / 8, 2 / 8, 5 / 8]
    for i, j in itertools.permutations(range(3), 2):
        observed = ((chosen[:, 0] == i) & (chosen[:, 1] == j)).double().mean().item()
        assert observed == pytest.approx(p[i] * p[j] / (1 - p[i]), abs=0.01)
