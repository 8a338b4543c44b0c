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


def drawn(beta, trials=20_000, entries=20):
    """Many draws of four fifths of one memory: errors, which are drawn ``[trials, entries]`` and their weights."""
    errors = TrialRandom(3).normal(entries)[0].abs() * 0.5
    replay = PrioritizedReplay(trials, 0.6)
    replay.append(entries)
    replay.update(torch.arange(entries).expand(trials, entries), errors.expand(trials, entries))
    chosen, weights = replay.sample(TrialRandom(1, trials), 0.8, beta)
    effective = torch.zeros(trials, entries, dtype=torch.float64).scatter(1, chosen, weights)
    return errors, chosen, effective


def test_a_full_correction_gives_every_entry_the_same_weight_on_average():
    errors, chosen, effective = drawn(beta=1.0)
    # Each entry counts as in the mean over the whole memory: 16 of 20, whatever its error.
    mean, error = effective.mean(0), effective.std(0) / len(effective) ** 0.5
    assert ((mean - 0.8).abs() < 5 * error + 1e-9).all()
    # So the batch's mean of any values is that of the memory.
    batches = (effective * errors).sum(1) / chosen.shape[1]
    assert batches.mean().item() == pytest.approx(
        errors.mean().item(), abs=5 * batches.std().item() / len(batches) ** 0.5
    )


def test_a_partial_correction_still_stresses_large_errors():
    errors, _, effective = drawn(beta=0.4)
    order = errors.argsort()
    mean = effective.mean(0)[order]
    assert mean[-5:].mean() > mean[:5].mean() + 0.05
    _, _, unweighted = drawn(beta=0.0)
    assert set(unweighted.unique().tolist()) == {0.0, 1.0}


def test_a_whole_memory_needs_no_correction():
    assert filled([1.0, 2.0, 5.0]).sample(TrialRandom(0), 1.0, beta=1.0)[1].tolist() == [[1, 1, 1]]


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
