"""Agents with a fault each, by the promise that they break."""

import torch

from search.agents.base import Agent
from search.spaces.base import SearchSpace


class Climber(Agent):
    """In order: asks mutants of the best architecture so far."""

    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0):
        super().__init__(space, trials, seed)
        self.best = torch.zeros(trials, len(space.decisions), dtype=torch.long)
        self.score = torch.full((trials,), -torch.inf, dtype=torch.float64)

    def ask(self, n=1):
        mutants = self.space.mutate(self.best.unsqueeze(1).expand(-1, n, -1), self.rng)
        return torch.where(self.score.isinf()[:, None, None], self.space.sample(self.rng, n), mutants)

    def learn(self, archs, rewards):
        for trial in range(self.trials):
            for arch, reward in zip(archs[trial], rewards[trial], strict=True):
                if reward > self.score[trial]:
                    self.best[trial], self.score[trial] = arch, reward

    def begin_task(self, budget, adapting):
        super().begin_task(budget, adapting)
        self.score = torch.full_like(self.score, -torch.inf)

    def state_dict(self):
        return {**super().state_dict(), "best": self.best.clone(), "score": self.score.clone()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.best, self.score = state["best"].clone(), state["score"].clone()


class OutOfRange(Climber):
    def ask(self, n=1):
        return super().ask(n) + 7


class WithoutTrials(Climber):
    def ask(self, n=1):
        return super().ask(n)[0]


class GlobalRandom(Climber):
    def ask(self, n=1):
        return super().ask(n + int(torch.randint(3, ())))[:, -n:]


class FirstTrialOnly(Climber):
    def ask(self, n=1):
        return super().ask(n)[:1].expand(self.trials, -1, -1)


class Forgetful(Climber):
    def state_dict(self):
        return Agent.state_dict(self)

    def load_state_dict(self, state):
        Agent.load_state_dict(self, state)


class ForgetsWhatItAsked(Climber):
    asked = None

    def ask(self, n=1):
        self.asked = super().ask(n)
        return self.asked

    def learn(self, archs, rewards):
        if self.asked is None:
            self.best = torch.zeros_like(self.best)
        super().learn(archs, rewards)


class LiveState(Climber):
    def state_dict(self):
        return {**super().state_dict(), "best": self.best}


class OwnWorst(Climber):
    def tell(self, archs, rewards):
        super().tell(archs, rewards.nan_to_num(1e6))


class NeedsSuccess(Climber):
    def tell(self, archs, rewards):
        if rewards.isnan().all():
            raise RuntimeError("nothing to learn from")
        super().tell(archs, rewards)


class OnlyItsOwn(Climber):
    def __init__(self, space: SearchSpace, trials: int = 1, seed: int = 0):
        super().__init__(space, trials, seed)
        self.own = set()

    def ask(self, n=1):
        asked = super().ask(n)
        self.own |= set(map(tuple, asked.flatten(0, 1).tolist()))
        return asked

    def learn(self, archs, rewards):
        if not set(map(tuple, archs.flatten(0, 1).tolist())) <= self.own:
            raise KeyError("never asked")
        super().learn(archs, rewards)


class OldWorst(Climber):
    def begin_task(self, budget, adapting):
        self.score = torch.full_like(self.score, -torch.inf)


class TakesAnything(Climber):
    def tell(self, archs, rewards):
        pass


class LearnsNothing(Climber):
    def learn(self, archs, rewards):
        pass


BROKEN = {
    "asks_valid_architectures": [OutOfRange, WithoutTrials],
    "a_seed_decides_everything": [GlobalRandom],
    "a_trial_is_the_run_of_its_own_seed": [FirstTrialOnly],
    "resumes_past_half_way": [Forgetful],
    "resumes_between_ask_and_tell": [ForgetsWhatItAsked],
    "a_state_does_not_change": [LiveState],
    "failures_count_as_the_worst_so_far": [OwnWorst],
    "goes_on_where_everything_fails": [NeedsSuccess],
    "learns_from_architectures_it_did_not_ask": [OnlyItsOwn],
    "a_new_task_forgets_the_last": [OldWorst],
    "refuses_rewards_that_do_not_match": [TakesAnything],
    "rewards_change_what_is_asked": [LearnsNothing],
}
GOOD = [Climber]
