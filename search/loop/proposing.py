"""What agents ask for, checked: an agent is code that nobody here has read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from search.agents.base import Agent
from search.errors import CatchmarkError, RunError, one_line
from search.evaluation import Architecture, Proposal
from search.spaces.base import SearchSpace


def ask(name: str, agent: Agent, n: int, first: int = 0) -> list[list[Proposal]]:
    """What an agent asks for next.

    Args:
        name: of the search, for messages.
        agent: the agent.
        n: how many proposals a trial.
        first: the number of the agent's first trial, for messages.

    Returns:
        For each trial ``n`` proposals, in plain values.

    Raises:
        RunError: it asks for something else, or for architectures that the space does not have.
    """
    who = f"{name}: the agent {type(agent).__name__}"
    try:
        asked = agent.propose(n)
    except CatchmarkError as error:
        raise type(error)(f"{name}: {error}") from error
    try:
        rows = [list(row) for row in asked]
    except TypeError:
        raise RunError(f"{who} proposes a {type(asked).__name__}, lists of Proposals are needed") from None
    if len(rows) != agent.trials or any(len(row) != n for row in rows):
        shape = f"{len(rows)} trials of {', '.join(sorted({str(len(row)) for row in rows})) or 'no'} proposals"
        raise RunError(f"{who} proposes {shape}, {agent.trials} of {n} are needed")
    try:
        archs = torch.tensor([[proposal.architecture for proposal in row] for row in rows], dtype=torch.long)
        fits = archs.shape == (agent.trials, n, len(agent.space.decisions)) and bool(agent.space.is_valid(archs).all())
    except Exception:  # they may be objects of anybody's class
        fits = False
    if not fits:
        raise _misfit(who, agent.space, rows, first)
    # Most proposals are an architecture and nothing else.
    return [[_checked(who, agent.space, each) if each.demands else each for each in row] for row in rows]


def _misfit(who: str, space: SearchSpace, rows: Sequence[Sequence[Any]], first: int) -> RunError:
    """What to say of the first proposal that is none."""
    for trial, row in enumerate(rows, first):
        for proposal in row:
            if not isinstance(proposal, Proposal):
                return RunError(f"{who} proposes a {type(proposal).__name__} in trial {trial}, a Proposal is needed")
            try:
                space.check(proposal.architecture)
            except Exception as error:
                return RunError(f"{who} asks in trial {trial} for what is no architecture: {one_line(error)}")
    return RunError(f"{who} asks for architectures that differ in length")


def _checked(who: str, space: SearchSpace, proposal: Proposal) -> Proposal:
    """A proposal with plain numbers in everything that it demands."""
    try:
        parent: Architecture | None = None if proposal.parent is None else space.check(proposal.parent)
        stop = None if proposal.stop_below is None else float(proposal.stop_below) + 0.0
        fidelity = {str(name): float(value) for name, value in proposal.fidelity.items()}
    except (TypeError, ValueError) as error:
        raise RunError(f"{who} proposes what can't be done: {one_line(error)}") from error
    for key, value in {**fidelity, "stop_below": stop}.items():
        if value is not None and not math.isfinite(value):
            raise RunError(f"{who} proposes {key} {value}, a number is needed")
    return replace(proposal, parent=parent, stop_below=stop, fidelity=fidelity)
