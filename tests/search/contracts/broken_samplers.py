"""Path samplers with a fault each, by the promise that they break."""

import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import PathSampler, best_of, distinct
from search.spaces.base import SearchSpace


class Learner(PathSampler):
    """In order: prefers the choices of paths with a low loss."""

    def __init__(self, space: SearchSpace):
        super().__init__(space)
        self.register_buffer("favours", torch.zeros(sum(space.sizes)))

    def path(self, seed, step, index=0):
        drawn = [self.space.draw("learner", seed, step, index, k) for k in range(2)]
        return Path(max(drawn, key=lambda choices: float(self.favour(choices))))

    def favour(self, choices):
        return sum(self.favours[t + choice] for t, choice in enumerate(choices))

    def learn(self, step):
        path = self.path(step.seed, step.step)
        with torch.no_grad():
            for t, choice in enumerate(path.choices):
                self.favours[t + choice] -= step.held_out_loss(path)

    def choose(self, evaluate, count, seed):
        return best_of(distinct(self.space, 20, "choose", seed), evaluate)[:count]


class GlobalPath(Learner):
    def path(self, seed, step, index=0):
        return Path(self.space.draw(int(torch.randint(10**6, ()))))


class Drawing(Learner):
    def choose(self, evaluate, count, seed):
        torch.rand(())
        return super().choose(evaluate, count, seed)


class AlwaysTheSame(Learner):
    def path(self, seed, step, index=0):
        return Path(self.space.draw("one"))


class CallsItselfRelaxed(Learner):
    relaxed = True


class OutOfRange(Learner):
    def path(self, seed, step, index=0):
        return Path(tuple(choice + 9 for choice in super().path(seed, step, index).choices))


class Unnormalised(Learner):
    def path(self, seed, step, index=0):
        return Path(super().path(seed, step, index).choices, [torch.ones(size) for size in self.space.sizes])


class WorstFirst(Learner):
    def choose(self, evaluate, count, seed):
        return super().choose(evaluate, 20, seed)[::-1][:count]


class Repeats(Learner):
    def choose(self, evaluate, count, seed):
        return super().choose(evaluate, count, seed)[:1] * count


class EvaluatesTwice(Learner):
    def choose(self, evaluate, count, seed):
        super().choose(evaluate, count, seed)
        return super().choose(evaluate, count, seed)


class Forgetful(Learner):
    def __init__(self, space: SearchSpace):
        super().__init__(space)
        del self.favours
        self.favours = torch.zeros(sum(space.sizes))


class LearnsByChance(Learner):
    def learn(self, step):
        self.favours += torch.rand_like(self.favours)


class FailsOnNaN(Learner):
    def choose(self, evaluate, count, seed):
        candidates = distinct(self.space, 20, "choose", seed)
        scores = evaluate(candidates)
        return [candidates[scores.index(score)] for score in sorted(scores, reverse=True) if score == score][:count]


class InventsMore(Learner):
    def choose(self, evaluate, count, seed):
        return [*super().choose(evaluate, count, seed), *[(0,) * len(self.space.sizes)] * 2]


class CountsChoices(Learner):
    def penalty(self, weights):
        return torch.tensor(float(sum(int(each.argmax()) for each in weights)))


class OnePenaltyEach(Learner):
    def penalty(self, weights):
        return torch.stack([each.max() for each in weights])


class WrongSizes(Learner):
    def path_of(self, choices):
        return Path((*choices, 0))


BROKEN = {
    "a_path_is_a_pure_function": [GlobalPath],
    "drawing_leaves_states_alone": [Drawing],
    "steps_and_seeds_differ": [AlwaysTheSame, CallsItselfRelaxed],
    "paths_are_valid": [OutOfRange, Unnormalised],
    "chooses_different_architectures_best_first": [WorstFirst, Repeats],
    "never_evaluates_twice": [EvaluatesTwice],
    "continues_from_a_checkpoint": [Forgetful],
    "two_trainings_agree": [LearnsByChance],
    "scores_that_are_no_numbers_stop_nothing": [FailsOnNaN],
    "a_small_space_ends_its_choice": [InventsMore],
    "the_penalty_is_a_number": [CountsChoices, OnePenaltyEach],
    "a_real_supernet_runs_every_path": [WrongSizes],
}
GOOD = [Learner]
