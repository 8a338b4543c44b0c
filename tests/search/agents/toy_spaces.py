"""Small spaces for the agents' tests, and rewards on them that are exact in floating point."""

from search.contracts.toy_spaces import Grid, Staircase, best_reward, integer_reward

__all__ = ["Grid", "Staircase", "best_reward", "integer_reward"]
