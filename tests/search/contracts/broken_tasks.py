"""Tasks and pools with a fault each, by the promise that they break."""

import math
import threading
from types import MappingProxyType

import torch

from search.contracts.toy_spaces import integer_reward
from search.evaluation import Evaluation
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne, TaskPool


class Sum(OneByOne):
    """In order: a reward that can be worked out, with a little noise."""

    score_name = "sum"

    def __init__(self, space: SearchSpace, seed: int = 0):
        self.space, self.seed = space, seed

    def evaluate_one(self, proposal):
        arch = torch.tensor(self.space.check(proposal.architecture))
        score = float(integer_reward(self.space, arch, self.seed)) + proposal.seed / 2**40
        return Evaluation(score, {"length": float(arch.sum())}, 1.0)


class Nameless(Sum):
    score_name = ""


class OwnSpace(Sum):
    def __init__(self, space: SearchSpace):
        super().__init__(type(space)())


class TensorScore(Sum):
    def evaluate_one(self, proposal):
        return Evaluation(torch.tensor(super().evaluate_one(proposal).score))


class Infinite(Sum):
    def evaluate_one(self, proposal):
        return Evaluation(math.inf)


class FailsWithoutReason(Sum):
    def evaluate_one(self, proposal):
        return Evaluation(math.nan, status="failed")


class AlwaysFails(Sum):
    def evaluate_one(self, proposal):
        return Evaluation.failed("no such file")


class OneTooFew(Sum):
    def evaluate(self, proposals):
        return list(super().evaluate(proposals))[1:]


class Noisy(Sum):
    def evaluate_one(self, proposal):
        return Evaluation(super().evaluate_one(proposal).score + float(torch.rand(())))


class Remembers(Sum):
    def __init__(self, space: SearchSpace):
        super().__init__(space)
        self.seen = 0

    def evaluate_one(self, proposal):
        self.seen += 1
        return Evaluation(super().evaluate_one(proposal).score + self.seen)


class Seeds(Sum):
    def evaluate_one(self, proposal):
        torch.manual_seed(proposal.seed)
        return super().evaluate_one(proposal)


class HoldsALock(Sum):
    def __init__(self, space: SearchSpace):
        super().__init__(space)
        self.lock = threading.Lock()


class UnknownObjective(Sum):
    objectives = MappingProxyType({"latency": "min"})


class TakesAnything(Sum):
    def evaluate_one(self, proposal):
        return Evaluation(float(sum(proposal.architecture)))


class OtherScores(Sum):
    def all_scores(self):
        return torch.zeros(len(list(self.space.enumerate())), dtype=torch.float64)


BROKEN = {
    "the_score_has_a_name": [Nameless, OwnSpace],
    "answers_in_numbers": [TensorScore, Infinite, FailsWithoutReason, AlwaysFails, OneTooFew],
    "the_same_again": [Noisy, Remembers],
    "random_states_stay": [Seeds],
    "workers_can_hold_a_copy": [HoldsALock],
    "objectives_are_measured": [UnknownObjective],
    "foreign_architectures_are_refused": [TakesAnything],
    "known_scores_are_the_scores": [OtherScores],
}
GOOD = [Sum]


class Sums(TaskPool):
    """In order: sums of several seeds."""

    def __init__(self, space: SearchSpace):
        self.space = space

    def draw(self, index, seed):
        return Sum(self.space, index + seed)

    def describe(self, index, seed):
        return f"sum {index + seed}"


class OnOtherSpaces(Sums):
    def draw(self, index, seed):
        return Sum(type(self.space)())


class Counts(Sums):
    def __init__(self, space: SearchSpace):
        super().__init__(space)
        self.drawn = 0

    def draw(self, index, seed):
        self.drawn += 1
        return Sum(self.space, self.drawn)


class DescribesByChance(Sums):
    def describe(self, index, seed):
        return f"sum {float(torch.rand(()))}"


BROKEN_POOLS = {
    "draws_tasks_of_the_space": [OnOtherSpaces],
    "draws_depend_on_index_and_seed": [Counts, DescribesByChance],
}
GOOD_POOLS = [Sums]
