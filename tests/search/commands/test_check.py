"""``catchmark check`` on classes as a user has them: one file in the current folder."""

import sys

import pytest

from search.cli import main

AGENT = '''
"""An agent of mine."""

import torch

from search.agents.base import Agent
from search.spaces.base import SearchSpace


class Forgetful(Agent):
    """Remembers the best architecture, but not in its state."""

    best = None
    score = -1e9

    def ask(self, n=1):
        fresh = self.space.sample(self.rng, n)
        return fresh if self.best is None else self.space.mutate(self.best.expand(-1, n, -1), self.rng)

    def learn(self, archs, rewards):
        best = rewards.argmax(1, keepdim=True)
        if self.best is None or rewards.max() > self.score:
            self.best, self.score = archs.gather(1, best[..., None].expand(-1, -1, archs.shape[-1])), rewards.max()


class Mindful(Forgetful):
    """Remembers it there too, trial by trial."""

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0):
        super().__init__(space, trials, seed)
        self.best = torch.zeros(trials, 1, len(space.decisions), dtype=torch.long)
        self.score = torch.full((trials,), -torch.inf, dtype=torch.float64)

    def begin_task(self, budget, adapting):
        super().begin_task(budget, adapting)
        self.score = torch.full_like(self.score, -torch.inf)

    def learn(self, archs, rewards):
        for trial in range(self.trials):
            for arch, reward in zip(archs[trial], rewards[trial]):
                if reward > self.score[trial]:
                    self.best[trial, 0], self.score[trial] = arch, reward

    def state_dict(self):
        return {**super().state_dict(), "best": self.best.clone(), "score": self.score.clone()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.best, self.score = state["best"].clone(), state["score"].clone()


class Unfinished(Agent):
    """Can't ask."""


class Untyped(Mindful):
    """A recipe can't know what it takes."""

    def __init__(self, space, trials=1, seed=0):
        super().__init__(space, trials, seed)
'''


@pytest.fixture(autouse=True)
def my_file(tmp_path, monkeypatch):
    (tmp_path / "my_file.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("my_file", None)


def test_a_class_in_order_is_told_so(capsys):
    assert main(["check", "my_file.Mindful"]) == 0
    said = capsys.readouterr().out
    assert "✗" not in said and "✓ Goes on from a state exactly as if nothing had stopped it" in said


def test_a_forgotten_state_is_named_with_its_cure(capsys):
    assert main(["check", "my_file.Forgetful"]) == 1
    said = capsys.readouterr().out
    assert "✗ Goes on from a state exactly as if nothing had stopped it" in said
    assert "not restored: 'best', 'score'" in said and "cure: state_dict must hold all that changes" in said


def test_an_argument_without_a_type_is_named(capsys):
    assert main(["check", "my_file.Untyped"]) == 1
    said = capsys.readouterr().out
    assert "✗ can be made" in said and "the argument 'space' of Untyped has no type" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_file.Unfinished", "is abstract, it lacks: ask"),
        ("my_file.Mindfull", "did you mean 'Mindful'?"),
        ("my_file.torch", "has no class 'torch'"),
        ("no_file.Mindful", "can't import 'no_file'"),
        (
            "search.errors.CatchmarkError",
            "is no plugin; it must be derived from one of: search.spaces.base.SearchSpace",
        ),
    ],
)
def test_what_can_not_be_checked_is_refused_in_one_line(name, words, capsys):
    assert main(["check", name]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
