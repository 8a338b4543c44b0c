"""Agents led through a task by hand, for tests of those that carry something over."""

import torch

from .toy_spaces import integer_reward


def other_reward(space, archs):
    return integer_reward(space, archs, seed=1)


def walk(agent, evaluations, n=1, adapting=True, reward=integer_reward):
    """All that it asks: int64 ``[trials, evaluations, decisions]``."""
    agent.begin_task(evaluations, adapting=adapting)
    asked = []
    for _ in range(evaluations // n):
        asked.append(agent.ask(n))
        agent.tell(asked[-1], reward(agent.space, asked[-1]))
    return torch.cat(asked, 1)
