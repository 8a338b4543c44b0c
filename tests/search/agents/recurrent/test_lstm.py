"""The stacked LSTM is PyTorch's, trial by trial; a policy's probabilities are those of its samples."""

import pytest
import torch
from torch import nn

from search.agents.recurrent.lstm import StackedLSTM
from search.agents.recurrent.policy import RecurrentPolicy
from search.contracts.toy_spaces import MaskedSpace
from search.randomness import TrialRandom

from ..toy_spaces import Grid, Staircase


def torch_lstm(stacked, trial):
    """PyTorch's LSTM with one trial's weights; its gates stand in the order of ours: input, forget, cell, output."""
    inputs = stacked.read[0].shape[1]
    lstm = nn.LSTM(inputs, stacked.hidden, stacked.layers, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for layer in range(stacked.layers):
            getattr(lstm, f"weight_ih_l{layer}").copy_(stacked.read[layer][trial].T)
            getattr(lstm, f"weight_hh_l{layer}").copy_(stacked.recur[layer][trial].T)
            getattr(lstm, f"bias_ih_l{layer}").copy_(stacked.bias[layer][trial, 0])
            getattr(lstm, f"bias_hh_l{layer}").zero_()
    return lstm


@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_pytorchs_lstm(layers):
    stacked = StackedLSTM(TrialRandom(3, 2), inputs=5, hidden=4, layers=layers, scale=0.7)
    sequences = TrialRandom(8, 2).normal(3, 6, 5)
    together = stacked(sequences)
    state = stacked.start(2, 3)
    for step in range(6):
        output, state = stacked.step(sequences[:, :, step], state)
        torch.testing.assert_close(output, together[:, :, step])
    for trial in range(2):
        expected, _ = torch_lstm(stacked, trial)(sequences[trial])
        torch.testing.assert_close(together[trial], expected)


@pytest.mark.parametrize("space", [Grid(2, 3), Staircase(), MaskedSpace()], ids=lambda space: space.name)
def test_probabilities_sum_to_one_and_are_those_of_the_samples(space):
    policy = RecurrentPolicy(space, TrialRandom(0, 2), hidden=5, layers=1, scale=1.0)
    everything = torch.tensor(list(space.enumerate()))
    log_probs, entropies = policy.log_probs(everything.expand(2, -1, -1))
    probabilities = log_probs.sum(-1).exp()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, dtype=torch.float64))
    # The chain rule: the entropy of the whole is the mean of the sum of what each decision's is.
    whole = -(probabilities * log_probs.sum(-1)).sum(1)
    torch.testing.assert_close((probabilities * entropies.sum(-1)).sum(1), whole)
    drawn = policy.sample(TrialRandom(4, 2), 4000)
    places = torch.searchsorted(space.code(everything), space.code(drawn))
    for trial in range(2):
        seen = places[trial].bincount(minlength=len(everything)) / 4000
        likely = probabilities[trial] > 0.01
        error = (probabilities[trial] * (1 - probabilities[trial]) / 4000).sqrt()
        assert likely.any()
        assert ((seen - probabilities[trial])[likely].abs() < 5 * error[likely]).all()


def test_a_decision_sees_those_before_it():
    policy = RecurrentPolicy(Grid(3, 2), TrialRandom(0), hidden=5, layers=1, scale=1.0)
    archs = torch.tensor([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    last = policy.log_probs(archs)[0][0, :, 2].tolist()
    assert len(set(last)) == 3
