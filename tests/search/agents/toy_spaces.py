"""Small spaces for the agents' tests, and rewards on them that are exact in floating point."""

import torch

from search.spaces.base import Decision, SearchSpace


class Grid(SearchSpace):
    """`decisions` decisions of `choices` choices each, all combinations valid."""

    name = "grid"

    def __init__(self, decisions=6, choices=5):
        names = tuple("abcdefghij"[:choices])
        self.decisions = tuple(Decision(f"decision {t}", names) for t in range(decisions))

    def build(self, architecture, **head):
        raise NotImplementedError


class Staircase(SearchSpace):
    """Masked: a choice is never below the one before it by more than one."""

    name = "staircase"
    decisions = tuple(Decision(f"step {t}", tuple(f"height {k}" for k in range(4))) for t in range(5))

    def valid_choices(self, prefix):
        if prefix.shape[-1] == 0:
            return torch.ones(*prefix.shape[:-1], 4, dtype=torch.bool)
        return torch.arange(4) >= prefix[..., -1:] - 1

    def build(self, architecture, **head):
        raise NotImplementedError


def integer_reward(space, archs, seed=0):
    """Additive, plus an interaction of every pair of choices; whole numbers, so no rounding depends on batch shapes.

    int64 ``[..., decisions]`` to float64 ``[...]``.
    """
    generator = torch.Generator().manual_seed(seed)
    length = space.offsets[-1]
    single = torch.randint(-50, 50, (length,), generator=generator).double()
    pairs = torch.randint(-10, 10, (length, length), generator=generator).double()
    code = space.one_hot(archs).double()
    return code @ single + ((code @ pairs) * code).sum(-1)


def best_reward(space, seed=0):
    """The highest `integer_reward` of a small space."""
    return integer_reward(space, torch.tensor(list(space.enumerate())), seed).max().item()
