"""A search from Python in one call."""

import pytest

import search
from search.errors import CatchmarkError, RunError
from search.spaces.nasbench201 import NASBench201
from search.spaces.residual_backbone import ResidualBackbone

EVOLUTION = {"class_path": "RegularizedEvolution", "init_args": {"population": 4, "tournament": 2}}


def convolutions(architecture):
    """How many of a cell's edges are 3x3 convolutions; 6 at most."""
    return architecture.count(3)


def test_the_best_is_found_and_told(tmp_path):
    found = search.find(NASBench201(), convolutions, 30, folder=tmp_path / "mine", quiet=True)
    assert (found.score, found.architecture) == (6.0, (3,) * 6)
    assert found.space.format(found.architecture).count("nor_conv_3x3") == 6
    assert len(found.records) == 30 and "mine" in found.report.read_text()


def test_a_stopped_search_goes_on_and_asks_nothing_twice(tmp_path):
    asked = []

    def evaluate(architecture):
        asked.append(architecture)
        if len(asked) == stop:
            raise KeyboardInterrupt
        return {"score": convolutions(architecture), "skips": architecture.count(1)}

    arguments = {"budget": 12, "agent": EVOLUTION, "seed": 3, "quiet": True}
    stop = 0
    whole = search.find("NASBench201", evaluate, **arguments)
    assert [record.architecture for record in whole.records] == asked and whole.report is None
    asked.clear()
    stop = 8
    with pytest.raises(KeyboardInterrupt):
        search.find("NASBench201", evaluate, folder=tmp_path, **arguments)
    stop = 0
    found = search.find("NASBench201", evaluate, folder=tmp_path, **arguments)
    assert [record.architecture for record in found.records] == [record.architecture for record in whole.records]
    assert len(asked) == 13  # the one under way is asked again
    assert all(each.evaluation.metrics == {"skips": each.architecture.count(1)} for each in found.records)
    with pytest.raises(CatchmarkError, match="differs from the run's in: seed"):
        search.find("NASBench201", evaluate, folder=tmp_path, **{**arguments, "seed": 4})


def test_errors_of_the_function_are_failed_evaluations(tmp_path):
    def evaluate(architecture):
        if architecture[0] == 0:
            raise RuntimeError("no such bridge")
        return {"loss": 1.0} if architecture[0] == 1 else convolutions(architecture)

    arguments = {"budget": 25, "agent": "RandomSearch", "quiet": True}
    found = search.find("NASBench201", evaluate, **arguments)
    reasons = {
        each.evaluation.reason.partition(" (")[0] for each in found.records if each.evaluation.status == "failed"
    }
    assert reasons == {"RuntimeError: no such bridge", "the function gave no 'score'"}
    assert found.architecture[0] > 1
    with pytest.raises(RunError, match=r"10 evaluations in a row failed.*no such bridge"):
        search.find("NASBench201", lambda architecture: evaluate((0,)), **arguments)


def test_limits_hold():
    def evaluate(architecture):
        return {"score": convolutions(architecture), "size": convolutions(architecture)}

    limit = {"size": {"direction": "min", "limit": 2}}
    found = search.find("NASBench201", evaluate, 20, "LocalSearch", objectives=limit, quiet=True)
    assert found.score == 2.0 and any(record.evaluation.score > 2 for record in found.records)


def test_a_space_that_its_class_does_not_name_is_refused():
    with pytest.raises(CatchmarkError, match=r"give .*class_path.*ResidualBackbone"):
        search.find(ResidualBackbone(stages=(4,)), convolutions)


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="no attribute 'fnid'"):
        search.fnid  # noqa: B018
