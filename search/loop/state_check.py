"""Whether an agent's `state_dict` is all that there is to it, found out at the start of a search.

What an agent keeps elsewhere is lost when its run is killed, and the resumed run would go on otherwise. So a copy of
the fresh agent is given the first states that are saved, as a resumed run would be, and compared with the agent.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from search.agents.base import Agent
from search.errors import RunError, one_line
from search.evaluation import Evaluation
from search.randomness import derive_seed
from search.runs.journal import from_bytes, to_bytes
from search.training.isolation import isolated, seed_global_streams

_LAST_STEP = 16
"""Steps after which a search has shown what its agent keeps."""
_PROBE = 16
"""Steps that two copies of an agent are led on, to see whether they ask for the same."""


class StateCheck:
    """Compares an agent with what its states make of a fresh one; cheap, and leaves the agent as it is.

    An attribute that a state does not bring back may be a cache (`Agent.caches`), or of no consequence. So an agent is
    refused only where, led on from here, it asks for something else than the copy, or its state can't be kept or read.

    Args:
        name: of the search.
        agent: as a resumed run would make it.
        batch: how many proposals a trial are asked for at once.
    """

    def __init__(self, name: str, agent: Agent, batch: int):
        self._who, self._batch, self._next = f"{name}: the agent {type(agent).__name__}", batch, 1
        self._fresh = _copy(agent)

    def look(self, agent: Agent, step: int, sample: Evaluation, left: int) -> None:
        """Look at an agent whose state is about to be saved; in the first steps, ever more rarely.

        Args:
            agent: the agent.
            step: steps that it has been told of.
            sample: an evaluation of the kind that it is told of.
            left: evaluations a trial that the search has left.

        Raises:
            RunError: a run that was killed could not go on with such a state.
        """
        if self._fresh is None or step < self._next:
            return
        self._next = 4 * step
        copied = self._restored(agent)
        kept = {name: value for name, value in vars(agent).items() if name not in agent.caches}
        missing = [name for name, value in kept.items() if known_to_differ(value, vars(copied).get(name))]
        if missing and not self._ask_alike(agent, copied, min(_PROBE, left // self._batch), sample):
            own = type(agent).state_dict is not Agent.state_dict
            raise RunError(
                f"{self._who} keeps {', '.join(sorted(missing))}, which its state_dict "
                f"{'leaves out' if own else '(that of Agent, it has none of its own) does not know'}: a run that was "
                "killed could not go on as it would have; add it to state_dict and load_state_dict"
            )
        if step >= _LAST_STEP:
            self._fresh = None

    def _restored(self, agent: Agent) -> Agent:
        """The fresh agent with the other's state, as a journal hands it back."""
        assert self._fresh is not None
        try:
            state = from_bytes(to_bytes(agent.state_dict()))
        except Exception as error:
            raise RunError(
                f"{self._who} has a state_dict that can't be kept: it may hold tensors, numbers, strings, lists and "
                f"dicts of them only ({one_line(error)[:200]})"
            ) from error
        try:
            self._fresh.load_state_dict(copy.deepcopy(state))
            again = self._fresh.state_dict()
        except Exception as error:
            raise RunError(
                f"{self._who} can't load what its state_dict gives: {type(error).__name__}: {one_line(error)}"
            ) from error
        if lost := [key for key in state if known_to_differ(state[key], again.get(key))]:
            raise RunError(f"{self._who} has a load_state_dict that does not bring back {', '.join(map(str, lost))}")
        return self._fresh

    def _ask_alike(self, agent: Agent, copied: Agent, steps: int, sample: Evaluation) -> bool:
        """Whether the agent and its copy ask for the same from here on; True where that can't be found out."""
        asked: list[list[Any]] = []
        for each in (agent, copied):
            led = _copy(each)
            asked.append([])
            try:
                with isolated():
                    seed_global_streams(0)
                    for _ in range(steps if led is not None else 0):
                        assert led is not None
                        proposals = led.propose(self._batch)
                        asked[-1].append(proposals)
                        answers = [
                            [replace(sample, score=derive_seed(*one.architecture) / 2**31) for one in row]
                            for row in proposals
                        ]
                        scores = torch.tensor([[one.score for one in row] for row in answers], dtype=torch.float64)
                        led.observe(proposals, answers, scores)
            except Exception:
                if each is agent:
                    return True
                asked[-1].append("an exception")
        return asked[0] == asked[1]


def _copy(agent: Agent) -> Agent | None:
    """An agent of its own on the same space; None where it can't be copied."""
    try:
        return copy.deepcopy(agent, {id(agent.space): agent.space})
    except Exception:  # it may hold anything, such as an open file
        return None


def known_to_differ(ours: Any, theirs: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether two values are known to differ; of what can't be compared it is not known.

    Args:
        ours: anything.
        theirs: anything else.
        seen: the numbers of the objects around them: some hold themselves.
    """
    if ours is theirs or id(ours) in seen:
        return False
    if isinstance(ours, (bool, int, float, str, bytes, complex)) or ours is None or theirs is None:
        return bool(type(ours) is not type(theirs) or (ours != theirs and ours == ours))
    if isinstance(ours, torch.Tensor):
        if not isinstance(theirs, torch.Tensor) or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return True
        return not torch.equal(ours, theirs) and not torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True)
    if isinstance(ours, np.ndarray):
        return not np.array_equal(ours, theirs, equal_nan=ours.dtype.kind in "fc")
    seen = seen | {id(ours)}
    if isinstance(ours, (list, tuple, deque)):
        if not isinstance(theirs, type(ours)) or len(ours) != len(theirs):
            return True
        return any(known_to_differ(a, b, seen) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, Mapping):
        if not isinstance(theirs, Mapping) or list(ours) != list(theirs):
            return True
        return any(known_to_differ(value, theirs[key], seen) for key, value in ours.items())
    if isinstance(ours, (set, frozenset)):
        return bool(ours != theirs)
    if type(ours) is not type(theirs):
        return True
    return known_to_differ(_inside(ours), _inside(theirs), seen)


def _inside(value: Any) -> Any:
    """What an object holds, as far as it can be said."""
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, torch.Generator):
        return value.get_state()
    if callable(getattr(value, "state_dict", None)):
        return value.state_dict()
    return vars(value) if hasattr(value, "__dict__") and not callable(value) else None
