"""Sequential model-based search: its surrogate, its schedule, how architectures grow, and that it learns."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from search.agents.random_search import RandomSearch
from search.agents.sequence_surrogate import SequenceSurrogate
from search.agents.sequential_model_based import SequentialModelBased
from search.evaluation import Evaluation
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.randomness import TrialRandom
from search.runs.journal import Journal
from search.spaces.fusion import FusionSpace
from search.spaces.modality import GivenFeatures
from search.tasks.base import OneByOne
from tests.processes import killed_in

from .toy_spaces import Grid, integer_reward
from .walking import walk

NTU = FusionSpace(GivenFeatures([1] * 4), GivenFeatures([1] * 4))
PAPER = {"highest": 10.0, "lowest": 0.2, "raw": True, "hidden": 8, "epochs": 3}


def as_torch_has_it(surrogate, trial):
    """The same network out of PyTorch's own layers."""
    own = {name: value[trial] for name, value in surrogate.parameters.items()}
    inputs, hidden = own["encode"].shape
    encode, recur, decode = nn.Linear(inputs, hidden), nn.LSTM(hidden, hidden, batch_first=True), nn.Linear(hidden, 1)
    order = [0, 1, 3, 2]  # PyTorch has the new content before the output gate

    def gates(value):
        return torch.cat([value.chunk(4, -1)[k] for k in order], -1).T

    with torch.no_grad():
        encode.weight.copy_(own["encode"].T), encode.bias.copy_(own["encode_bias"][0])
        recur.weight_ih_l0.copy_(gates(own["read"])), recur.weight_hh_l0.copy_(gates(own["recur"]))
        recur.bias_ih_l0.copy_(gates(own["read_bias"])[:, 0]), recur.bias_hh_l0.copy_(gates(own["recur_bias"])[:, 0])
        decode.weight.copy_(own["decode"].T), decode.bias.copy_(own["decode_bias"][0])
    return nn.ModuleList([encode, recur, decode])


def values(layers, rows):
    encode, recur, decode = layers
    return decode(recur(encode(rows).sigmoid())[0][:, -1]).sigmoid().squeeze(-1)


def test_the_surrogate_is_pytorchs_lstm_trained_by_its_adam():
    rows, targets = torch.rand(2, 6, 3, 2), torch.rand(2, 6)
    lengths, there = torch.tensor([[1, 1, 2, 2, 3, 3]] * 2), torch.ones(2, 6, dtype=torch.bool)
    there[0, 4:] = False  # the first trial has nothing of three layers
    surrogate = SequenceSurrogate(TrialRandom(3, 2), 2, 5)
    twins = [as_torch_has_it(surrogate, trial) for trial in range(2)]
    surrogate.fit(rows, lengths, targets, there, 4, 0.05)
    found = surrogate.predict(rows, lengths)
    for trial, twin in enumerate(twins):
        optimizer = torch.optim.Adam(twin.parameters(), lr=0.05)
        for _ in range(4):
            for length in (1, 2, 3) if trial else (1, 2):
                mine = lengths[trial] == length
                optimizer.zero_grad()
                (values(twin, rows[trial, mine, :length]) - targets[trial, mine]).square().mean().backward()
                optimizer.step()
        for length in (1, 2, 3):
            mine = lengths[trial] == length
            with torch.no_grad():
                assert found[trial, mine].tolist() == pytest.approx(
                    values(twin, rows[trial, mine, :length]).tolist(), abs=1e-5
                )


def test_it_trains_as_many_as_the_paper_and_the_temperature_is_its_formula():
    agent = SequentialModelBased(NTU, **PAPER)
    agent.begin_task(197, adapting=True)
    assert (agent.opening, agent.kept) == (32, 15) and 32 + 11 * agent.kept == 197
    for step in range(12):
        assert agent.temperature(step) == pytest.approx(9.8 * math.exp(-((step + 1) ** 2) / 16) + 0.2)
    assert [agent.layer(step) for step in range(12)] == [0, 1, 2, 3] * 3


def test_the_first_step_is_every_single_layer_and_later_ones_change_one_layer_of_what_was_kept():
    agent = SequentialModelBased(NTU, keep=5, **PAPER)
    agent.begin_task(77, adapting=True)
    asked, before = [], None
    for step in range(10):
        archs = agent.ask(32 if step == 0 else 5)
        agent.tell(archs, integer_reward(NTU, archs))
        rows = archs[0].tolist()
        if step == 0:
            assert len({tuple(row) for row in rows}) == 32 and all(row[0] == 0 for row in rows)
        else:
            layer = step % 4
            for row in rows:
                near = [old for old in before if differs_in_layer(old, row, layer)]
                assert near, (step, row)
        assert not {tuple(row) for row in rows} & set(asked)
        before, asked = rows, asked + [tuple(row) for row in rows]
    assert max(arch[0] for arch in asked) == 3  # grown to the full length


def differs_in_layer(old, new, layer):
    """Whether one is the other with that layer set, or appended."""
    kept = [k for k in range(1, 13) if (k - 1) // 3 != layer]
    return all(old[k] == new[k] for k in kept) and (new[0] == old[0] >= layer or new[0] == old[0] + 1 == layer)


def test_a_child_inherits_from_what_it_was_grown_from():
    agent = SequentialModelBased(NTU, trials=2, keep=4, inherit=True, **PAPER)
    assert agent.demands == {"parent"} and not SequentialModelBased(NTU).demands
    agent.begin_task(48, adapting=True)
    first = agent.propose(32)
    assert all(each.parent is None for row in first for each in row)
    archs = torch.tensor([[each.architecture for each in row] for row in first])
    agent.tell(archs, integer_reward(NTU, archs))
    for row, known in zip(agent.propose(4), archs.tolist(), strict=True):
        for each in row:
            assert list(each.parent) in known and differs_in_layer(each.parent, each.architecture, 1)


def test_a_configuration_keeps_its_best_reward():
    agent = SequentialModelBased(Grid(2, 3), reward_range=(0, 10))
    agent.begin_task(9, adapting=True)
    archs = torch.tensor([[[0, 1], [2, 2], [0, 1]]])
    agent.tell(archs, torch.tensor([[3.0, 10.0, 7.0]], dtype=torch.float64))
    assert agent.predict(archs[:, :2]).tolist() == [[0.7, 1.0]]


def worth(space, archs):
    """A known answer: layers are best as (1, 2, sigmoid), and three are better than more or fewer."""
    rows = archs[..., 1:].unflatten(-1, (4, 3))
    there = torch.arange(4) <= archs[..., :1]
    good = (rows == torch.tensor([1, 2, 1])).sum(-1) * there
    return good.sum(-1).double() - 3.0 * (archs[..., 0] - 2).abs()


def test_it_finds_a_fusion_that_random_search_does_not():
    best = {}
    for name, agent in {
        "grown": SequentialModelBased(NTU, trials=3, seed=5, highest=0.3, lowest=0.02),
        "random": RandomSearch(NTU, trials=3, seed=5),
    }.items():
        best[name] = worth(NTU, walk(agent, 120, n=8, reward=worth)).max(1).values
    print(best)
    assert best["grown"].mean() > best["random"].mean() + 1 and best["grown"].max() == 9


class Mortal(OneByOne):
    """A known reward; the process dies in an evaluation."""

    def __init__(self, dies_at=None):
        self.space, self.dies_at, self.made = NTU, dies_at, 0

    def evaluate_one(self, proposal):
        self.made += 1
        if self.made == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if sum(proposal.architecture) % 7 == 0:
            return Evaluation.failed("one in seven")
        return Evaluation(float(worth(NTU, torch.tensor(proposal.architecture))), {}, 1.0)


def search_on(folder, dies_at=None):
    agent = SequentialModelBased(NTU, trials=2, seed=3, keep=4, epochs=4, hidden=8)
    journal = Journal(folder / "journal.sqlite")
    stage = Stage("task", lambda: Mortal(dies_at), 48, adapting=True)
    run_search(Search("search", agent, [stage], 3, 3), journal)
    records = [repr(record) for record in journal.records("search")]
    journal.close()
    return records


@pytest.mark.parametrize("dies", [(70, 20), (8, 81)])
def test_killed_it_goes_on_bit_for_bit(dies, tmp_path):
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    whole = search_on(tmp_path / "whole")
    for dies_at in dies:
        assert killed_in(search_on, tmp_path / "killed", dies_at)
    assert search_on(tmp_path / "killed") == whole and len(whole) == 2 * 48


@pytest.mark.parametrize(
    "wrong", [{"keep": 0}, {"lowest": 0.0}, {"lowest": 2.0, "highest": 1.0}, {"reward_range": (1, 1)}, {"hidden": 0}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="SequentialModelBased: "):
        SequentialModelBased(NTU, **wrong)
