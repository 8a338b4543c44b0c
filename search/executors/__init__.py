"""Where evaluations run: in this process, or on the workers of an executor."""

from search.executors.inline import evaluate_all

__all__ = ["evaluate_all"]
