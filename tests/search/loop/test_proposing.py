"""What an agent asks for is looked at before anybody pays for it: who, which trial, which decision."""

import pytest
import torch

from search.agents.base import Agent
from search.agents.random_search import RandomSearch
from search.errors import RunError
from search.evaluation import Evaluation, Proposal
from search.loop.proposing import ask
from search.tasks.base import OneByOne
from tests.search.agents.toy_spaces import Grid
from tests.search.spaces.masked_space import MaskedSpace


class Saying(RandomSearch):
    """Asks for whatever it was told to."""

    answer = None

    def ask(self, n=1):
        return self.answer(super().ask(n))


class Proposing(RandomSearch):
    answer = None

    def propose(self, n=1):
        return self.answer


def changed(archs, *place, to):
    archs[place] = to
    return archs


@pytest.mark.parametrize(
    "answer, words",
    [
        (
            lambda archs: archs[0],
            r"ask\(2\) of the agent Saying gives torch.int64 \[2, 6\], torch.int64 \[3, 2, 6\]",
        ),
        (lambda archs: archs[:, :1], r"gives torch.int64 \[3, 1, 6\], torch.int64 \[3, 2, 6\] is needed"),
        (lambda archs: archs.float(), r"gives torch.float32 \[3, 2, 6\], torch.int64 \[3, 2, 6\] is needed"),
        (lambda archs: archs.tolist(), r"gives a list, torch.int64 \[3, 2, 6\] is needed"),
        (lambda archs: None, "gives a NoneType"),
        (
            lambda archs: changed(archs, 1, 1, 4, to=77),
            r"Saying asks in trial 1 for what is no architecture: grid: decision 'decision 4' of .* is 77, allowed",
        ),
    ],
)
def test_an_ask_that_is_none_is_named(answer, words):
    agent = Saying(Grid(), trials=3)
    agent.answer = answer
    with pytest.raises(RunError, match=f"^t/a: .*{words}") as caught:
        ask("t/a", agent, 2)
    assert "\n" not in str(caught.value)


def test_a_choice_that_an_earlier_one_rules_out_is_named():
    space = MaskedSpace()
    bad = next(
        arch for arch in torch.cartesian_prod(*(torch.arange(size) for size in space.sizes)) if not space.is_valid(arch)
    )
    agent = Saying(space, trials=2)
    agent.answer = lambda archs: changed(archs, 1, 0, to=bad)
    with pytest.raises(
        RunError, match=r"asks in trial 1 for what is no architecture: .*decision '.*' of .* is .*, allowed"
    ):
        ask("t/a", agent, 1)


GOOD = Proposal((0,) * 6)


@pytest.mark.parametrize(
    "answer, words",
    [
        (None, "proposes a NoneType, lists of Proposals are needed"),
        ([[GOOD]], "proposes 1 trials of 1 proposals, 2 of 1 are needed"),
        ([[GOOD], [GOOD, GOOD]], "proposes 2 trials of 1, 2 proposals, 2 of 1 are needed"),
        ([[GOOD], [(0,) * 6]], "proposes a tuple in trial 1, a Proposal is needed"),
        ([[GOOD], [Proposal((0,) * 5)]], "asks in trial 1 for what is no architecture: .* has 5 decisions"),
        ([[GOOD], [Proposal((0,) * 6, parent=(9,) * 6)]], "proposes what can't be done: grid: decision"),
        ([[GOOD], [Proposal((0,) * 6, stop_below="low")]], "proposes what can't be done: could not convert"),
        ([[GOOD], [Proposal((0,) * 6, fidelity={"epochs": float("nan")})]], "proposes epochs nan, a number is needed"),
    ],
)
def test_a_proposal_that_is_none_is_named(answer, words):
    agent = Proposing(Grid(), trials=2)
    agent.answer = answer
    with pytest.raises(RunError, match=f"t/a: the agent Proposing {words}"):
        ask("t/a", agent, 1)


def test_demands_become_plain_numbers():
    agent = Proposing(Grid(), trials=1)
    agent.answer = [[Proposal((0,) * 6, fidelity={"epochs": torch.tensor(3)}, stop_below=1)]]
    assert repr(ask("t/a", agent, 1)) == repr([[Proposal((0,) * 6, fidelity={"epochs": 3.0}, stop_below=1.0)]])


def test_an_agent_that_proposes_needs_no_ask():
    class Only(Agent):
        def propose(self, n=1):
            return [[Proposal((2,) * 6)] * n for _ in range(self.trials)]

    assert Only(Grid(), trials=3).ask(2).tolist() == [[[2] * 6] * 2] * 3


def test_a_proposal_travels_as_plain_values():
    asked = Proposal((1, 2), 3, {"epochs": 2.0}, (0, 1), 0.5, "/there", "/here")
    assert Proposal.from_plain(asked.plain()) == asked
    assert asked.demands == {"epochs", "parent", "stop_below"} and not Proposal((1, 2)).demands


def test_a_task_answers_one_by_one():
    class Sum(OneByOne):
        def evaluate_one(self, proposal):
            return Evaluation(float(sum(proposal.architecture)))

    assert [each.score for each in Sum().evaluate([Proposal((1, 2)), Proposal((3, 4))])] == [3.0, 7.0]
