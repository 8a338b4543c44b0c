"""Evolution with a learned mutation: its probabilities are those of its draws, and it learns a planted problem."""

from collections import Counter

import pytest
import torch

from search.agents.recurrent.evolution import ReinforcedEvolution
from search.agents.recurrent.mutator import Mutator
from search.contracts.toy_spaces import MaskedSpace
from search.evaluation import Evaluation
from search.randomness import TrialRandom
from search.spaces.renas import PARTS, RENAS

from ..toy_spaces import Grid, Staircase, integer_reward


@pytest.mark.parametrize("space", [Grid(4, 3), Staircase(), MaskedSpace()], ids=lambda space: space.name)
@pytest.mark.parametrize("uniform", [True, False])
def test_children_come_up_as_often_as_the_controller_says(space, uniform):
    """One group, so each child is one choice of where and one of what to; repairs of later decisions are left out."""
    mutator = Mutator(space, TrialRandom(2), len(space.decisions), hidden=4, layers=1, scale=1.0)
    parent = space.sample(TrialRandom(5), 1)
    children, where = mutator.mutate(parent.expand(1, 6000, -1), TrialRandom(3), uniform)
    assert space.is_valid(children).all()
    log_probs, entropies = mutator.log_probs(parent.expand(1, 6000, -1), where, children)
    old, new = parent[0, 0].tolist(), children[0].tolist()
    for t, child in zip(where[0, :, 0].tolist(), new, strict=True):
        assert child[:t] == old[:t] and child[t] != old[t]
    seen = Counter((t, child[t]) for t, child in zip(where[0, :, 0].tolist(), new, strict=True))
    if uniform:
        others = [int(space.valid_choices(parent[0, 0, :t]).sum()) - 1 for t in range(len(old))]
        free = [t for t, count in enumerate(others) if count]
        expected = {(t, choice): 1 / len(free) / others[t] for t, choice in seen}
    else:
        expected = {
            (t, child[t]): log_prob
            for t, child, log_prob in zip(
                where[0, :, 0].tolist(), new, log_probs[0].sum(-1).exp().tolist(), strict=True
            )
        }
        assert (entropies > 0).any()
    assert sum(expected.values()) == pytest.approx(1, abs=0.02)  # rare ones may not have come up
    for key, share in expected.items():
        assert abs(seen[key] / 6000 - share) < 5 * (share * (1 - share) / 6000) ** 0.5 + 1e-3


def test_one_decision_of_every_group_changes():
    space = RENAS()
    agent = ReinforcedEvolution(space, 2, 0, group=PARTS, population=4, tournament=1, hidden=4)
    agent.begin_task(20, adapting=True)
    first = agent.ask(4)
    agent.tell(first, integer_reward(space, first))
    children = agent.ask(30)
    parents = agent.state_dict()["pending"]["parent"]
    changed = (children != parents).reshape(2, 30, 5, PARTS).sum(-1)
    assert (changed == 1).all()


def test_it_learns_which_of_four_parts_to_change():
    """Three parts are right once they are 0, each worth 10; the fourth is worth nothing, and can't be made worse.

    Once the population has the three right, only changes of the fourth are harmless.
    """
    space = Grid(4, 4)

    def planted(archs):
        return 10.0 * (archs[..., [0, 1, 3]] == 0).sum(-1).double()

    agent = ReinforcedEvolution(space, 4, 0, population=10, tournament=5, hidden=6, learning_rate=0.03)
    agent.begin_task(300, adapting=True)
    for _ in range(30):
        archs = agent.ask(10)
        agent.tell(archs, planted(archs))
    children = agent.ask(100)
    pending = agent.state_dict()["pending"]
    assert torch.equal(pending["child"], children)
    share = (pending["where"] == 2).double().mean((1, 2))
    print("changes of the harmless part:", share.tolist())
    assert share.min() > 0.4 and share.mean() > 0.7  # drawn uniformly it would be a quarter


def test_the_worst_of_a_sample_dies_and_the_best_of_one_is_the_parent():
    space = Grid(3, 4)
    agent = ReinforcedEvolution(space, 1, 0, population=5, tournament=200, hidden=4)
    agent.begin_task(20, adapting=True)
    first = torch.tensor([[[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3], [0, 1, 2]]])
    agent.tell(first, torch.tensor([[5.0, 1.0, 4.0, 2.0, 3.0]]))
    assert (agent.ask(3) != first[:, :1]).sum(-1).tolist() == [[1, 1, 1]]  # a sample of 200 has every member
    agent.tell(torch.tensor([[[3, 2, 1]]]), torch.tensor([[2.5]]))
    assert agent.state_dict()["fitness"].tolist() == [[5.0, 4.0, 2.0, 3.0, 2.5]]


def test_a_child_names_its_parent_where_weights_are_inherited():
    space = Grid(4, 3)
    agent = ReinforcedEvolution(space, 2, 0, inherit=True, population=4, hidden=4)
    assert agent.demands == {"parent"} and ReinforcedEvolution(space).demands == frozenset()
    agent.begin_task(20, adapting=True)
    known = [set(), set()]
    for n in (3, 3, 2):
        rows = agent.propose(n)
        for trial, row in enumerate(rows):
            for proposal in row:
                if proposal.parent is None:
                    assert len(known[trial]) < 4
                    continue
                assert proposal.parent in known[trial]
                assert sum(a != b for a, b in zip(proposal.parent, proposal.architecture, strict=True)) == 1
            known[trial] |= {proposal.architecture for proposal in row}
        rewards = torch.tensor([[float(sum(each.architecture)) for each in row] for row in rows])
        agent.observe(rows, [[Evaluation(1.0) for _ in row] for row in rows], rewards)
    assert all(each.parent is not None for row in agent.propose(2) for each in row)


@pytest.mark.parametrize(
    "arguments",
    [{"mutation": "any"}, {"credit": "child"}, {"population": 0}, {"group": 0}, {"learning_rate": 0.0}],
    ids=str,
)
def test_it_refuses_what_makes_no_sense(arguments):
    with pytest.raises(ValueError, match=rf"ReinforcedEvolution: .*{next(iter(arguments))}"):
        ReinforcedEvolution(Grid(), **arguments)
