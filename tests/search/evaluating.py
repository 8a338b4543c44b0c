"""Evaluations without a loop around them."""

from search.evaluation import Proposal


def evaluate(task, architecture, seed=0):
    """The answer to one proposal."""
    return next(iter(task.evaluate([Proposal(architecture, seed)])))


def evaluate_many(task, architectures):
    """The answers to some, all asked together."""
    return task.evaluate([Proposal(architecture) for architecture in architectures])
