"""An agent whose state is not all there is to it is named at the start of a search, and no other agent is."""

import random

import pytest
import torch

from search.agents.base import Agent
from search.agents.random_search import RandomSearch
from search.errors import RunError
from search.evaluation import Evaluation
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.recipes.catalogue import find_classes
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests.search.agents.toy_agents import toy_options
from tests.search.agents.toy_spaces import Grid, integer_reward

AGENTS = find_classes("search.agents", Agent)


class Toy(OneByOne):
    instant = True
    honours = frozenset({"epochs", "parent", "stop_below"})  # agents ask for these; they change nothing

    def __init__(self):
        self.space = Grid()

    def evaluate_one(self, proposal):
        return Evaluation(float(integer_reward(self.space, torch.tensor(proposal.architecture))))


class Climber(Agent):
    """Mutates the best architecture so far; forgets it when it is resumed."""

    def __init__(self, space, trials=1, seed=0):
        super().__init__(space, trials, seed)
        self.best, self.rewards = None, torch.full((trials,), -torch.inf, dtype=torch.float64)

    def ask(self, n=1):
        if self.best is None:
            return self.space.sample(self.rng, n)
        return self.space.mutate(self.best[:, None].expand(-1, n, -1), self.rng)

    def learn(self, archs, rewards):
        reward, place = rewards.max(1)
        found = archs[torch.arange(self.trials), place]
        better = reward > self.rewards
        self.best = found if self.best is None else torch.where(better[:, None], found, self.best)
        self.rewards = torch.maximum(reward, self.rewards)


class Saving(Climber):
    """Saves what it has to, and never brings it back."""

    def state_dict(self):
        return super().state_dict() | {"best": self.best, "rewards": self.rewards}


class HalfSaving(Saving):
    """Leaves out one of two."""

    def state_dict(self):
        state = super().state_dict()
        return {key: value for key, value in state.items() if key != "best"}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.rewards = state["rewards"].clone()


class Careful(Saving):
    """All is in its state but a cache, which is made again where it is missing."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.cache = None

    def ask(self, n=1):
        self.cache = (self.cache or 0) + 1
        return super().ask(n)

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.best, self.rewards = state["best"], state["rewards"]


class Dice(RandomSearch):
    """Draws from a generator that nobody saves."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.dice = random.Random(3)

    def ask(self, n=1):
        archs = super().ask(n)
        archs[..., 0] = self.dice.randrange(self.space.sizes[0])
        return archs


class Unkept(Careful):
    def state_dict(self):
        return super().state_dict() | {"rng object": self.rng}


class Unreadable(Careful):
    def load_state_dict(self, state):
        raise KeyError("members")


class Late(RandomSearch):
    """Begins to keep something after a while."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.asked = 0

    def ask(self, n=1):
        self.asked += n
        archs = super().ask(n)
        return archs if self.asked < 6 else torch.full_like(archs, self.asked % 4)


class Unlike(Agent):
    """A copy of it is of no use."""

    def ask(self, n=1):
        return self.space.sample(self.rng, n)

    def __deepcopy__(self, memo):
        raise TypeError("one of a kind")


def search_on(agent, path, batch=1, evaluations=24):
    search = Search("toy/mine", agent, [Stage("toy", Toy, evaluations, True)], 0, batch, saving_share=1e9)
    journal = Journal(path)
    try:
        run_search(search, journal)
        return [record.architecture for record in journal.records("toy/mine")]
    finally:
        journal.close()


@pytest.mark.parametrize(
    "kind, words",
    [
        (Climber, r"Climber keeps best, rewards, which its state_dict \(that of Agent, it has none of its own\)"),
        (Saving, "Saving has a load_state_dict that does not bring back best, rewards"),
        (HalfSaving, "HalfSaving keeps best, which its state_dict leaves out: a run that was killed could not go on"),
        (Dice, "Dice keeps dice, which"),
        (Unkept, "Unkept has a state_dict that can't be kept: it may hold tensors, numbers"),
        (Unreadable, "Unreadable can't load what its state_dict gives: KeyError: 'members'"),
        (Late, "Late keeps asked, which"),
    ],
)
@pytest.mark.parametrize("trials", [1, 3])
def test_a_forgotten_state_is_named_at_the_start(kind, words, trials, tmp_path):
    with pytest.raises(RunError, match=f"toy/mine: the agent {words}") as caught:
        search_on(kind(Grid(), trials, 0), tmp_path / "journal.sqlite")
    assert "\n" not in str(caught.value)
    journal = Journal(tmp_path / "journal.sqlite", writable=False)
    assert journal.outcome("toy/mine").evaluations <= 5 * trials, "a few evaluations in, not after a kill"
    journal.close()


KINDS = [Careful, Unlike, *AGENTS.values()]


@pytest.mark.parametrize(("kind", "batch"), [(kind, (1, 3)[k % 2]) for k, kind in enumerate(KINDS)])
def test_other_agents_are_left_alone(kind, batch, tmp_path):
    """And ask for what they ask for without a search around them."""
    options = toy_options(kind)
    agent = kind(Grid(), trials=2, seed=5, **options)
    found = search_on(agent, tmp_path / "journal.sqlite", batch)
    alone = kind(Grid(), trials=2, seed=5, **options)
    alone.begin_task(24, True)
    asked = []
    for _ in range(24 // batch):
        archs = alone.ask(batch)
        alone.tell(archs, integer_reward(Grid(), archs))
        asked += [tuple(archs[trial, slot].tolist()) for slot in range(batch) for trial in range(2)]
    assert found == asked
