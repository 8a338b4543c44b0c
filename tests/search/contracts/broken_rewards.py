"""Terms of a reward with a fault each, by the promise that they break."""

import torch

from search.rewards.base import RewardTerm, Weighed


class FewChoices(RewardTerm):
    """In order: less of a small sum of choices."""

    name, quantity, described = "choices", "sum of choices", "choices^-1"

    def measure(self, archs):
        return archs.sum(-1).double()

    def weigh(self, measured):
        return 1 / (1 + measured)


class Nameless(FewChoices):
    name = ""


class NoDirection(FewChoices):
    direction = "less"


class Integers(FewChoices):
    def measure(self, archs):
        return archs.sum(-1)


class Infinite(FewChoices):
    def weigh(self, measured):
        return measured * torch.inf


class ByPlace(FewChoices):
    def values(self, archs):
        measured = self.measure(archs)
        return Weighed(measured, self.weigh(measured) + torch.arange(len(archs)) * 1e-12)


class WantsMore(FewChoices):
    def weigh(self, measured):
        return measured


class Draws(FewChoices):
    def measure(self, archs):
        torch.rand(1)
        return super().measure(archs)


BROKEN = {
    "says_what_it_is": [Nameless, NoDirection],
    "values_are_numbers": [Integers, Infinite],
    "a_value_does_not_depend_on_others": [ByPlace],
    "what_is_wanted_is_worth_more": [WantsMore],
    "random_states_stay": [Draws],
}
GOOD = [FewChoices]
