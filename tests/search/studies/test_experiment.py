"""Which meta-training an agent starts a target from."""

import pytest
import torch

from search.agents.catcher.agent import CATCHer
from search.agents.catcher.settings import CatcherSettings
from search.agents.random_search import RandomSearch
from search.errors import CatchmarkError
from search.evaluation import Evaluation
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from search.studies.meta_training import MetaTraining
from search.tasks.base import OneByOne, TaskPool
from tests.search.agents.toy_spaces import Grid, integer_reward

SETTINGS = CatcherSettings(hidden=8, initial_networks=2, candidates=4, policy_updates=1, evaluator_updates=1)


class Toy(OneByOne):
    """Rewards of one kind on the small grid."""

    instant = True

    def __init__(self, space, kind):
        self.space, self.kind = space, kind

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        return Evaluation(float(integer_reward(self.space, torch.tensor(architecture), self.kind)))


class Pool(TaskPool):
    def __init__(self, space, first):
        self.space, self.first = space, first

    def draw(self, index, seed):
        return Toy(self.space, self.first + index)


def catcher(space, trials, seed):
    return CATCHer(space, trials, seed, SETTINGS)


def experiment(by_target, targets=("a", "b"), agents=("catch", "other"), **more):
    return Experiment(
        Grid(3, 3),
        {name: lambda space, k=k: Toy(space, k) for k, name in enumerate(targets)},
        {"random": RandomSearch} | dict.fromkeys(agents, catcher),
        budget=5,
        trials=2,
        meta_training_for={key: [settings] for key, settings in by_target.items()},
        **more,
    )


def training(first, agents):
    return MetaTraining(lambda space: Pool(space, first), list(agents), epochs=2, networks=4)


def test_all_stands_for_every_target_and_is_made_once(tmp_path):
    made = experiment({"all": training(10, ["catch"]), "b": training(20, ["other"])})
    assert [phase.label for phase in made.phases] == ["catch", "other for b"]
    assert [(phase.serves("a", phase.agent), phase.serves("b", phase.agent)) for phase in made.phases] == [
        (True, True),
        (False, True),
    ]
    journal = Journal(tmp_path / "journal.sqlite")
    summary = made.run(tmp_path, journal)
    journal.close()
    assert sorted(summary["meta_training"]) == ["catch", "other for b"]
    assert sorted(path.stem for path in (tmp_path / "weights").iterdir()) == ["catch", "other for b"]


def test_an_agent_is_meta_trained_once_for_a_target():
    with pytest.raises(CatchmarkError, match=r"meta_training_for\.b\.agents: 'catch' is meta-trained for all targets"):
        experiment({"all": training(10, ["catch"]), "b": training(20, ["catch"])})


def test_no_target_is_called_all():
    with pytest.raises(CatchmarkError, match="'all', the word stands for every target"):
        experiment({}, targets=("a", "all"))


def test_an_unknown_target_is_refused():
    with pytest.raises(CatchmarkError, match=r"meta_training_for\.c: there is no such target; targets: a, b, or all"):
        experiment({"c": training(10, ["catch"])})
