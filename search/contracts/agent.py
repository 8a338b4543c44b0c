"""What every agent promises, on every space."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.contracts.contract import (
    Broken,
    Contract,
    Subject,
    ensure,
    not_restored,
    refused,
    through_a_file,
    toy_factory,
)
from search.contracts.toy_spaces import Grid, MaskedSpace, integer_reward
from search.spaces.base import SearchSpace

BUDGET, TRIALS = 18, 2
BATCHES = (1, 3)
PART = {1: 11, 3: 12}
"""Where a search is interrupted, past half-way and at a whole number of batches."""
Reward = Callable[[SearchSpace, Tensor], Tensor]


class AgentSubject(Subject):
    """An agent on a space. Searches that nothing interrupts are kept, for most checks compare with one."""

    def begin(self, trials: int = TRIALS, seed: int = 0) -> Agent:
        """A fresh agent at the start of a task."""
        agent = self.make(self.space, trials, seed)
        agent.begin_task(BUDGET, adapting=True)
        return agent

    @functools.cached_property
    def _known(self) -> dict[tuple[int, int, int], Tensor]:
        return {}

    def reference(self, n: int = 1, seed: int = 0, trials: int = TRIALS) -> Tensor:
        """What an uninterrupted search asks: int64 ``[trials, BUDGET, decisions]``."""
        if (n, seed, trials) not in self._known:
            self._known[n, seed, trials] = advance(self.begin(trials, seed), BUDGET, n)
        return self._known[n, seed, trials]


def advance(agent: Agent, evaluations: int, n: int = 1, reward: Reward = integer_reward) -> Tensor:
    """Search on; the architectures asked, int64 ``[trials, evaluations, decisions]``."""
    asked = []
    for _ in range(evaluations // n):
        archs = agent.ask(n)
        ensure(
            isinstance(archs, Tensor) and archs.shape == (agent.trials, n, len(agent.space.decisions)),
            f"ask({n}) gives {_form(archs)}, [{agent.trials}, {n}, {len(agent.space.decisions)}] is needed",
            "ask(n) returns int64 [trials, n, decisions], a row for each trial",
        )
        asked.append(archs)
        agent.tell(archs, reward(agent.space, archs))
    return torch.cat(asked, dim=1)


def _form(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def with_failures(space: SearchSpace, archs: Tensor) -> Tensor:
    """About a third of the architectures fail, some of them first."""
    rewards = integer_reward(space, archs)
    return torch.where(rewards % 3 == 0, torch.nan, rewards)


def nothing_works(space: SearchSpace, archs: Tensor) -> Tensor:
    """Every architecture fails."""
    return torch.full(archs.shape[:-1], torch.nan, dtype=torch.float64)


def _same(one: Tensor, other: Tensor, what: str, cure: str) -> None:
    if not torch.equal(one, other):
        at = int((one != other).flatten(2).any(-1).any(0).nonzero()[0])
        raise Broken(f"{what}; evaluation {at + 1} is the first that differs", cure)


def _ensure_valid(subject: AgentSubject, asked: Tensor) -> None:
    good = subject.space.is_valid(asked)
    if not good.all():
        wrong = tuple(asked[~good][0].tolist())
        try:
            subject.space.check(wrong)
        except ValueError as error:
            raise Broken(
                f"it asks an architecture that the space rules out: {error}",
                "draw a choice only where space.valid_choices(prefix) is true; space.sample and space.mutate do",
            ) from None


def asks_valid_architectures(subject: AgentSubject) -> None:
    """Asks architectures of the space, int64 [trials, n, decisions]."""
    for n in BATCHES:
        asked = subject.reference(n)
        ensure(asked.dtype == torch.int64, f"ask gives {asked.dtype}", "choices are indices: int64")
        _ensure_valid(subject, asked)


def a_seed_decides_everything(subject: AgentSubject) -> None:
    """Asks the same again with the same seed, and something else with another."""
    torch.manual_seed(torch.seed() % 2**31)  # whoever draws from the global state draws something new
    again = advance(subject.begin(), BUDGET)
    _same(again, subject.reference(), "two searches with one seed differ", "draw every random number from self.rng")
    other = subject.reference(seed=1000, trials=1)
    ensure(
        not any(torch.equal(other[0], trial) for trial in again),
        "a search with another seed asks the very same",
        "hand seed on to super().__init__ and draw from self.rng",
    )


def a_trial_is_the_run_of_its_own_seed(subject: AgentSubject) -> None:
    """Its trial k asks what one trial of seed + k asks."""
    for n in BATCHES:
        together = subject.reference(n)
        for trial in range(TRIALS):
            _same(
                together[trial : trial + 1],
                subject.reference(n, seed=trial, trials=1),
                f"trial {trial} of {TRIALS} and the only trial of seed {trial} differ",
                "no trial may look at another; draw from self.rng, which has a stream for each",
            )


def resumes_past_half_way(subject: AgentSubject) -> None:
    """Goes on from a state exactly as if nothing had stopped it."""
    for n in BATCHES:
        part = PART[n]
        interrupted = subject.begin()
        before = advance(interrupted, part, n)
        resumed = subject.begin(seed=77)  # whatever the fresh agent drew must not matter
        resumed.load_state_dict(through_a_file(interrupted.state_dict()))
        lost = not_restored(interrupted, resumed)
        after = advance(resumed, BUDGET - part, n)
        _same(
            torch.cat([before, after], dim=1),
            subject.reference(n),
            f"after load_state_dict(state_dict()) it asks something else{lost}",
            "state_dict must hold all that changes in a search, beside what super() gives; load_state_dict sets it",
        )


def resumes_between_ask_and_tell(subject: AgentSubject) -> None:
    """Goes on from a state that was taken between ask and tell."""
    interrupted = subject.begin()
    advance(interrupted, 9)
    asked = interrupted.ask(3)
    resumed = subject.begin(seed=77)
    resumed.load_state_dict(through_a_file(interrupted.state_dict()))
    for agent in (interrupted, resumed):
        agent.tell(asked, integer_reward(subject.space, asked))
    _same(
        advance(interrupted, 6, n=3),
        advance(resumed, 6, n=3),
        "resumed between ask and tell it asks something else",
        "keep what ask leaves for tell in state_dict too",
    )


def a_state_does_not_change(subject: AgentSubject) -> None:
    """Gives a state that does not change as the search goes on."""
    agent = subject.begin()
    advance(agent, PART[1])
    state = agent.state_dict()
    first = advance(agent, BUDGET - PART[1])
    for _ in range(2):  # loading must not hand the state over to the agent either
        resumed = subject.begin(seed=77)
        resumed.load_state_dict(state)
        _same(
            advance(resumed, BUDGET - PART[1]),
            first,
            "a state changes after it was taken",
            "clone tensors and copy lists in both",
        )


def failures_count_as_the_worst_so_far(subject: AgentSubject) -> None:
    """Takes a failed evaluation for the worst reward so far."""
    for n in BATCHES:
        asked = advance(subject.begin(), BUDGET, n, with_failures)
        _ensure_valid(subject, asked)
        worst = [float("inf")] * TRIALS

        def spelled_out(space: SearchSpace, archs: Tensor, worst: list[float] = worst) -> Tensor:
            rewards = with_failures(space, archs)
            for trial, row in enumerate(rewards):
                worst[trial] = min([worst[trial], *(value for value in row.tolist() if value == value)])
                row[row.isnan()] = 0.0 if worst[trial] == float("inf") else worst[trial]
            return rewards

        _same(
            advance(subject.begin(), BUDGET, n, spelled_out),
            asked,
            "a reward of NaN changes more than the worst reward so far would",
            "learn in learn(archs, rewards), where tell has put a number in the place of NaN",
        )


def goes_on_where_everything_fails(subject: AgentSubject) -> None:
    """Goes on where every evaluation fails."""
    for n in BATCHES:
        _ensure_valid(subject, advance(subject.begin(), BUDGET, n, nothing_works))


def learns_from_architectures_it_did_not_ask(subject: AgentSubject) -> None:
    """Can be told of architectures that it did not ask."""
    space, agent = subject.space, subject.begin()
    foreign = space.sample(agent.rng, 4)
    agent.tell(foreign, integer_reward(space, foreign))
    asked = agent.ask(2)
    foreign = torch.cat([asked[:, 1:], space.sample(agent.rng, 4)], dim=1)  # one of the asked never comes back
    agent.tell(foreign, integer_reward(space, foreign))
    _ensure_valid(subject, advance(agent, 12, n=2))


def a_new_task_forgets_the_last(subject: AgentSubject) -> None:
    """Forgets how bad the last task was when another one begins."""
    told = []
    for failure in (torch.nan, 0.0):
        agent = subject.begin()
        advance(agent, 12, reward=lambda space, archs: integer_reward(space, archs) - 1e4)
        agent.begin_task(BUDGET, adapting=True)
        first = agent.ask(1)
        agent.tell(first, torch.full((TRIALS, 1), failure, dtype=torch.float64))
        told.append(advance(agent, BUDGET - 1))
    _same(told[0], told[1], "a failure on a new task counts as the worst of the old one", "call super().begin_task")


def refuses_rewards_that_do_not_match(subject: AgentSubject) -> None:
    """Refuses rewards that do not match the architectures."""
    agent = subject.begin()
    rewards = torch.zeros(TRIALS, 1, dtype=torch.float64)
    what, cure = "a reward for two architectures", "let Agent.tell check; override learn instead"
    refused(lambda: agent.tell(agent.ask(2), rewards), what, cure, "do not match")


def rewards_change_what_is_asked(subject: AgentSubject) -> None:
    """Asks something else where rewards are others, if it says that it learns."""
    if not subject.found.learns:  # type: ignore[attr-defined]
        return
    ensure(
        not torch.equal(
            subject.reference(),
            advance(subject.begin(), BUDGET, reward=lambda space, archs: integer_reward(space, archs, seed=1)),
        ),
        "the opposite rewards change nothing of what it asks",
        "use the rewards in learn, or say 'learns = False' in the class",
    )


def subjects(found: type, spaces: Mapping[str, SearchSpace] | None = None) -> list[AgentSubject]:
    """An agent on several spaces."""
    make = toy_factory(found, Callable[[SearchSpace, int, int], Agent])
    spaces = {"grid": Grid(), "masked": MaskedSpace()} if spaces is None else spaces
    return [AgentSubject(found, name, make, space) for name, space in spaces.items()]


CONTRACT = Contract(
    "agent",
    Agent,
    subjects,
    checks=(
        asks_valid_architectures,
        a_seed_decides_everything,
        a_trial_is_the_run_of_its_own_seed,
        resumes_past_half_way,
        resumes_between_ask_and_tell,
        failures_count_as_the_worst_so_far,
        goes_on_where_everything_fails,
        learns_from_architectures_it_did_not_ask,
    ),
    once=(
        a_state_does_not_change,
        a_new_task_forgets_the_last,
        refuses_rewards_that_do_not_match,
        rewards_change_what_is_asked,
    ),
)
