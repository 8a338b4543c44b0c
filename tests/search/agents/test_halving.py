"""Successive halving, Hyperband and ASHA by hand; what they promise as agents is in test_contract.py."""

import itertools
import math

import pytest
import torch

from search.agents.asha import ASHA
from search.agents.halving import Entry
from search.agents.hyperband import Hyperband
from search.agents.multi_objective_halving import MultiObjectiveHalving
from search.agents.successive_halving import SuccessiveHalving
from search.evaluation import Evaluation, Objective, Proposal
from search.statistics.pareto import crowding_distance, non_dominated_ranks

from .fidelity_search import step
from .toy_spaces import Grid


class Told:
    """Asks one at a time, tells what a function of architecture and epochs says, and remembers."""

    def __init__(self, agent, score, budget=1000):
        self.agent, self.score, self.asked = agent, score, []
        agent.begin_task(budget, True)

    def ask(self):
        ((proposal,),) = self.agent.propose(1)
        self.asked.append(proposal)
        return proposal

    def tell(self, proposal):
        score = self.score(proposal)
        evaluation = Evaluation.failed("broken") if score is None else Evaluation(score)
        reward = torch.tensor([[math.nan if score is None else score]], dtype=torch.float64)
        self.agent.observe([[proposal]], [[evaluation]], reward)

    def go(self, evaluations):
        for _ in range(evaluations):
            self.tell(self.ask())
        return self.asked[-evaluations:]


def levels(proposals):
    """Epochs, 0 for a full evaluation."""
    return [int(each.fidelity.get("epochs", 0)) for each in proposals]


def first_choice(proposal):
    """Ties are broken by what was asked first."""
    return float(proposal.architecture[0])


def test_a_bracket_of_successive_halving_by_hand():
    told = Told(SuccessiveHalving(Grid(), seed=3, levels=[2, 5, 9], eta=3.0), first_choice)
    asked = told.go(13)
    assert levels(asked) == [2] * 9 + [5] * 3 + [0]
    best = sorted(asked[:9], key=first_choice, reverse=True)  # stable
    assert [each.architecture for each in asked[9:12]] == [each.architecture for each in best[:3]]
    assert asked[12].architecture == best[0].architecture
    assert [each.parent for each in asked] == [None] * 9 + [each.architecture for each in asked[9:]]
    assert levels(told.go(13)) == levels(asked), "the next bracket"
    assert len({each.architecture for each in told.asked if each.fidelity.get("epochs") == 2}) == 18


def test_without_inheriting_no_parent_is_named():
    agent = SuccessiveHalving(Grid(), levels=[1, 2], eta=2.0, inherit=False)
    asked = Told(agent, first_choice).go(9)
    assert levels(asked) == [1, 1, 0] * 3 and all(each.parent is None for each in asked)
    assert agent.demands == {"epochs"} and SuccessiveHalving(Grid(), fidelity="resolution").demands == {
        "resolution",
        "parent",
    }


@pytest.mark.parametrize("budget, begin", [(40, 27), (39, 26), (6, 3), (5, 2), (1, 1)])
def test_a_bracket_comes_to_its_end_within_the_budget(budget, begin):
    """Of four levels and eta 3: 27 + 9 + 3 + 1 = 40."""
    asked = Told(SuccessiveHalving(Grid(), levels=[1, 3, 9, 27]), first_choice, budget).go(min(budget, 60))
    assert levels(asked).index(3) == begin if budget > 1 else levels(asked) == [1]
    assert (0 in levels(asked)) == (budget >= 4)


def test_failures_never_go_up():
    def score(proposal):
        return None if proposal.architecture[0] > 1 else first_choice(proposal)

    told = Told(SuccessiveHalving(Grid(), seed=1, levels=[1, 2], eta=2.0, width=8), score)
    asked = told.go(120)
    full = [each for each in asked if not each.fidelity]
    assert full and all(each.architecture[0] <= 1 for each in full)
    lost = Told(SuccessiveHalving(Grid(), levels=[1, 2], eta=2.0), lambda proposal: None)
    assert levels(lost.go(10)) == [1] * 10, "where all fail, new ones begin"


def test_workers_that_wait_for_nobody_begin_the_next_bracket():
    told = Told(SuccessiveHalving(Grid(), levels=[1, 2], eta=2.0, width=4), first_choice)
    asked = [told.ask() for _ in range(6)]
    assert levels(asked) == [1] * 6
    for each in asked[:3]:
        told.tell(each)
    assert levels([told.ask()]) == [1], "one of the first bracket is missing"
    told.tell(asked[3])
    best = sorted(asked[:4], key=first_choice, reverse=True)[:2]
    assert [told.ask().architecture for _ in range(2)] == [each.architecture for each in best]


def test_the_brackets_of_hyperband():
    """Li et al., table 1, has eta 3 and 81 epochs; their widths, but for a bracket here ending where it has one."""
    agent = Hyperband(Grid(8, 6), levels=[1, 3, 9, 27, 81])
    assert [agent.shape(k) for k in range(5)] == [(0, 81), (1, 34), (2, 15), (3, 8), (4, 5)]
    assert agent.shape(5) == agent.shape(0)
    asked = Told(agent, first_choice).go(sum(agent.length(*agent.shape(k)) for k in range(5)))
    counted = [(level, len(list(run))) for level, run in itertools.groupby(levels(asked))]
    first = [(1, 81), (3, 27), (9, 9), (27, 3), (0, 1)]
    assert counted[:9] == [*first, (3, 34), (9, 11), (27, 3), (0, 1)]
    assert counted[-1] == (0, 2 + 5), "the fourth ends in full, the fifth is in full all along"
    narrow = Hyperband(Grid(), levels=[1, 3, 9], width=18)
    assert [narrow.shape(k)[1] for k in range(3)] == [18, 9, 6]


def test_asha_promotes_as_soon_as_it_can():
    told = Told(ASHA(Grid(), seed=2, levels=[1, 2, 4], eta=2.0), first_choice)
    rungs = {1: [], 2: [], 0: []}
    for proposal in told.go(60):
        level, below = levels([proposal])[0], {2: 1, 0: 2}.get(levels([proposal])[0])
        # By the definition, from what was told before: the highest level that has somebody to send.
        may = {up: [each for each in top_half(rungs[low]) if each not in rungs[up]] for up, low in ((0, 2), (2, 1))}
        expected = next((up for up in (0, 2) if may[up]), 1)
        assert level == expected
        if below is not None:
            assert proposal.architecture == may[level][0] == proposal.parent
        rungs[level].append(proposal.architecture)
    assert len(rungs[1]) > len(rungs[2]) > len(rungs[0]) >= len(rungs[2]) // 2


def top_half(rung):
    return sorted(rung, key=lambda arch: arch[0], reverse=True)[: len(rung) // 2]


def test_the_front_goes_up_where_there_are_several_objectives():
    agent = MultiObjectiveHalving(
        Grid(2, 5), levels=[1, 2], eta=2.0, objectives={"a": "max", "b": Objective("min", 6.0)}, score_metric="a"
    )
    agent.begin_task(100, True)
    points = [(1.0, 1.0), (3.0, 3.0), (2.0, 4.0), (9.0, 7.0), (0.5, 5.0), (4.0, 5.9), (3.5, 5.0), (0.0, 0.5)]
    proposals = agent.propose(len(points))[0]
    evaluations = [Evaluation(a, {"b": b}) for a, b in points]
    agent.observe([proposals], [evaluations], torch.zeros(1, len(points)))
    up = [each.architecture for each in agent.propose(4)[0]]
    # On the front that keeps the limit lie (1, 1), (3, 3), (4, 5.9), (3.5, 5), (0, .5): its ends first, then by room:
    # (1, 1) has 3/4 + 2.5/5.4, (3, 3) has 2.5/4 + 4/5.4, (3.5, 5) has 1/4 + 2.9/5.4.
    assert up == [proposals[k].architecture for k in (5, 7, 1, 0)]
    assert levels(agent.propose(1)[0]) == [1], "a fifth does not: half have gone"


@pytest.mark.parametrize("limited", [False, True])
def test_the_order_is_that_of_nsga2(limited):
    """Fronts are taken away only as far as needed; ranks of all say the same."""
    agent = MultiObjectiveHalving(Grid(), objectives={"a": "max", "b": "max"})
    draw = torch.Generator().manual_seed(3)
    values = torch.randint(0, 12, (60, 2), generator=draw).double()
    violation = torch.randint(0, 3, (60,), generator=draw).double() * limited
    rung = [
        Entry((k,), row, missed)
        for k, (row, missed) in enumerate(zip(values.tolist(), violation.tolist(), strict=True))
    ]
    ranks = non_dominated_ranks(values, ["max", "max"], violation)
    room = crowding_distance(values, ranks)
    order = sorted(range(60), key=lambda k: (int(ranks[k]), -float(room[k])))
    for count in (1, 7, 20, 60):
        assert [entry.architecture[0] for entry in agent.best(rung, count)] == order[:count]


def test_what_other_agents_asked_for_stands_on_no_rung():
    told = Told(SuccessiveHalving(Grid(), levels=[1, 2], eta=2.0), first_choice)
    proposal = told.ask()
    for foreign in (
        Proposal((4,) * 6),
        Proposal(proposal.architecture),
        Proposal(proposal.architecture, fidelity={"epochs": 7}),
    ):
        told.tell(foreign)
    assert levels([told.ask()]) == [1], "nothing is known of the first yet"


def test_low_fidelities_may_mislead_and_the_budget_is_a_cost():
    """Each step of the search on a known task is charged: the costs add up to what the levels say."""
    agent, spent = SuccessiveHalving(Grid(), trials=2, levels=[1, 3, 9]), [0.0, 0.0]
    agent.begin_task(1000, True)
    for _ in range(13):
        step(agent, spent)
    assert spent == pytest.approx([(9 * 1 + 3 * 2 + 1 * 6) / 9] * 2)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"levels": [3]}, r"levels is \[3\], at least two rising numbers"),
        ({"levels": [3, 3]}, "at least two rising numbers"),
        ({"levels": [0, 3]}, "above 0 are needed"),
        ({"eta": 1.0}, "eta is 1.0, it must be above 1"),
        ({"tries": 0}, "tries is 0"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_what_it_can_not_do_is_refused(arguments, words):
    with pytest.raises(ValueError, match=f"Hyperband: {words}|Hyperband: .*{words}"):
        Hyperband(Grid(), **arguments)
