"""Evaluations without a loop around them."""

from search.evaluation import Proposal


def answer(task, proposal):
    """The answer to one proposal."""
    return next(iter(task.evaluate([proposal])))


def evaluate(task, architecture, seed=0):
    """The answer to a proposal of an architecture and a seed."""
    return answer(task, Proposal(architecture, seed))


def evaluate_many(task, architectures):
    """The answers to some, all asked together."""
    return task.evaluate([Proposal(architecture) for architecture in architectures])
