"""A table that has several numbers of epochs answers at each, and charges each its share."""

import numpy as np
import pytest

from search.agents.successive_halving import SuccessiveHalving
from search.errors import CatchmarkError, RunError
from search.evaluation import Proposal
from search.executors.inline import evaluate_all
from search.runs.journal import Journal
from search.spaces.base import Decision, SearchSpace
from search.studies.experiment import Experiment
from search.tables.table import write_table
from search.tasks.table import CostModel, TableTask


class Two(SearchSpace):
    """Nine networks."""

    name = "two"
    decisions = (Decision("a", ("x", "y", "z")), Decision("b", ("x", "y", "z")))

    def build(self, architecture, head=None):
        raise NotImplementedError


ARCHS = np.array(list(Two().enumerate()), dtype=np.int8)


def value(arch, epochs):
    return 10.0 * arch[0] + arch[1] + epochs / 100


@pytest.fixture
def table(tmp_path):
    columns = {f"c_val_acc_{e}ep": [value(arch, e) for arch in ARCHS.tolist()] for e in (4, 12, 36)}
    columns["c_val_acc_12ep"][3] = np.nan
    columns["flops_m"] = [1.0 + arch[0] for arch in ARCHS.tolist()]
    return str(write_table(tmp_path / "t.npz", ARCHS, columns, "two"))


def task(table, **arguments):
    return TableTask(Two(), table, "c", "val", "acc", 36, **{"cost_seconds": 72.0, "fidelities": [12, 4]} | arguments)


def test_it_answers_at_each_number_of_epochs(table):
    arch = (2, 1)
    proposals = [
        Proposal(arch),
        Proposal(arch, fidelity={"epochs": 4}),
        Proposal(arch, fidelity={"epochs": 12}),
        Proposal(arch, fidelity={"epochs": 36}),
        Proposal(arch, fidelity={"epochs": 12}, parent=arch),
        Proposal(arch, parent=arch),
        Proposal(arch, fidelity={"epochs": 4}, parent=arch),
        Proposal((1, 0), fidelity={"epochs": 12}),
    ]
    answers = list(evaluate_all(task(table), proposals))
    assert [each.score for each in answers[:7]] == pytest.approx([value(arch, e) for e in (36, 4, 12, 36, 12, 36, 4)])
    # Two seconds an epoch; going on costs the epochs from the next lower of the fidelities on.
    assert [each.cost_seconds for each in answers] == pytest.approx([72, 8, 24, 72, 24 - 8, 72 - 24, 8, 24])
    assert answers[7].status == "failed" and answers[7].reason.endswith("of a=y|b=x after 12 epochs")


def test_the_shares_are_those_of_the_architecture_s_own_cost(table):
    priced = task(table, cost_seconds=CostModel(72.0, flops_share=1.0))
    for arch in ((0, 1), (2, 1)):
        short, full = evaluate_all(priced, [Proposal(arch, fidelity={"epochs": 4}), Proposal(arch)])
        assert full.cost_seconds == pytest.approx(72 * (1 + arch[0]) / 2)
        assert short.cost_seconds == pytest.approx(full.cost_seconds / 9)


@pytest.mark.parametrize(
    "proposal, words",
    [
        (Proposal((0, 0), fidelity={"epochs": 5}), r"asks for 5 epochs, the target's fidelities are \[4, 12, 36\]"),
        (Proposal((0, 0), parent=(1, 1)), r"asks for the weights of \(1, 1\), a table knows nothing of inheriting"),
        (Proposal((0, 0), fidelity={"resolution": 8}), "asks for resolution, which TableTask does not honour"),
    ],
)
def test_what_it_does_not_have_is_refused_in_one_line(table, proposal, words):
    with pytest.raises(RunError, match=words) as caught:
        list(evaluate_all(task(table), [proposal]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fidelities", [[36], [0], [40], [4, 50]])
def test_fidelities_are_lower_than_the_task_s_own(table, fidelities):
    with pytest.raises(ValueError, match=r"fidelities is .*, numbers from 1 to below epochs \(36\) are allowed"):
        task(table, fidelities=fidelities)


def test_a_column_that_is_not_there_is_named(table):
    with pytest.raises(ValueError, match="no column 'c_val_acc_5ep'; the nearest are"):
        task(table, fidelities=[5])


# ---- searches ------------------------------------------------------------------------------------------------------


def halving(space, trials, seed):
    return SuccessiveHalving(space, trials, seed, levels=[4, 36], eta=2.0, width=4)


def test_an_agent_of_several_fidelities_is_refused_where_a_target_has_one(table):
    plain = task(table, fidelities=[])
    words = (
        "agents.halving: SuccessiveHalving asks for epochs, parent, which the target 'plain' \\(TableTask\\) does not "
        "honour; it honours nothing but full evaluations"
    )
    with pytest.raises(CatchmarkError, match=words) as caught:
        Experiment(Two(), {"plain": lambda space: plain}, {"halving": halving}, budget=6)
    assert "\n" not in str(caught.value)


class Fading(TableTask):
    """After four epochs everything scores a hundred more than in the end, the worst most."""

    def evaluate(self, proposals):
        for proposal, found in zip(proposals, super().evaluate(proposals), strict=True):
            yield found if not proposal.fidelity else type(found)(200.0 - found.score, {}, found.cost_seconds)


def test_a_score_of_less_than_a_full_evaluation_is_never_the_best(table, tmp_path):
    """Nor in curves, nor on the way, nor where it is the highest by far."""
    made = Fading(Two(), table, "c", "val", "acc", 36, cost_seconds=36.0, fidelities=[4])
    experiment = Experiment(Two(), {"fading": lambda space: made}, {"halving": halving}, budget=12, trials=2)
    journal = Journal(tmp_path / "journal.sqlite")
    summary = experiment.run(tmp_path, journal)["targets"]["fading"]["agents"]["halving"]
    records = list(journal.records("fading/halving"))
    journal.close()
    full = [record for record in records if not record.proposal.fidelity]
    assert len(full) == 2 * 4 and summary["partial"] == 2 * 8
    assert max(record.evaluation.score for record in records) > 100
    assert summary["best"]["score"] == max(record.evaluation.score for record in full) < 40
    assert summary["curve_mean"][:4] == [None] * 4 and max(summary["curve_mean"][4:]) < 40
    assert summary["regret"] >= 0 and summary["evaluations"] == 12
    # A second an epoch: four times 4 epochs, and 32 more of two of them.
    assert summary["cost_seconds"] == pytest.approx(2 * 2 * (4 * 4 + 2 * 32))


def test_time_decides_where_time_is_limited(table, tmp_path):
    """With seconds for 1.5 full evaluations both agents spend what they have, in evaluations of their own."""
    made = task(table, cost_seconds=36.0, fidelities=[4])
    agents = {"halving": halving}
    experiment = Experiment(Two(), {"t": lambda space: made}, agents, budget=50, budget_seconds=54.0)
    journal = Journal(tmp_path / "journal.sqlite")
    summary = experiment.run(tmp_path, journal)["targets"]["t"]["agents"]["halving"]
    journal.close()
    assert summary["evaluations"] == 5 and summary["cost_seconds"] == pytest.approx(4 * 4 + 32)
