"""Search spaces with a fault each, by the promise that they break."""

import torch
from torch import nn

from search.contracts.toy_spaces import MaskedSpace
from search.spaces.base import Decision, Edge
from search.spaces.head import OWN_HEAD


class TwiceTheSameName(MaskedSpace):
    decisions = (*MaskedSpace.decisions[:-1], Decision("width", ("relu", "tanh")))


class OneForAll(MaskedSpace):
    def valid_choices(self, prefix):
        return super().valid_choices(prefix)[..., :1]


class LeavesNothing(MaskedSpace):
    def valid_choices(self, prefix):
        return super().valid_choices(prefix) & (prefix.shape[-1] != 2)


class Enumerated(MaskedSpace):
    def enumerate(self):
        return iter(list(super().enumerate())[1:])


class TakesAnything(MaskedSpace):
    def is_valid(self, archs):
        return torch.ones(archs.shape[:-1], dtype=torch.bool)


class SharedCode(MaskedSpace):
    def code(self, archs):
        return super().code(archs) // 2


class GlobalSamples(MaskedSpace):
    def sample(self, rng, n):
        return super().sample(rng, n + int(torch.randint(9, ())))[:, -n:]


class Uneven(MaskedSpace):
    def sample(self, rng, n):
        archs = super().sample(rng, 2 * n)
        return torch.where(archs[:, ::2, -1:] == 1, archs[:, 1::2], archs[:, ::2])


class SameMutants(MaskedSpace):
    def mutate(self, archs, rng):
        return archs


class OnlyTheFirst(MaskedSpace):
    def mutate(self, archs, rng):
        mutants = super().mutate(archs, rng)
        first = archs.clone()
        first[..., -1] = 1 - first[..., -1]
        return torch.where((mutants != archs)[..., :1], first, mutants)


class ChangesTheRest(MaskedSpace):
    def mutate(self, archs, rng):
        mutants = super().mutate(archs, rng)
        mutants[..., -1] = 1 - archs[..., -1]
        return mutants


class FewNeighbours(MaskedSpace):
    def neighbours(self, archs):
        found, valid = super().neighbours(archs)
        return found, valid & (torch.arange(found.shape[1]) > 1)


class OtherCode(MaskedSpace):
    def one_hot(self, archs):
        return 1 - super().one_hot(archs)


class HalfDistance(MaskedSpace):
    def distance(self, a, b):
        return super().distance(a, b) // 2


class OneString(MaskedSpace):
    def format(self, architecture):
        return super().format((*architecture[:-1], 0))


class Lenient(MaskedSpace):
    def parse(self, text):
        try:
            return super().parse(text)
        except ValueError:
            return self.draw("any")


class Silent(MaskedSpace):
    def check(self, architecture):
        if not self.is_valid(torch.tensor(architecture)):
            raise ValueError("masked: wrong")
        return tuple(architecture)


class Loops(MaskedSpace):
    def diagram(self, architecture):
        return [Edge("in", "in", "around")]


class GreyOnly(MaskedSpace):
    def example_input(self, head=OWN_HEAD):
        return torch.zeros(4, 1, 32, 32)


class NoLogits(MaskedSpace):
    def build(self, architecture, head=OWN_HEAD):
        return super().build(architecture, head)[:-2]


class WrongClasses(MaskedSpace):
    def build(self, architecture, head=OWN_HEAD):
        return super().build(architecture)


class FixedSize(MaskedSpace):
    def build(self, architecture, head=OWN_HEAD):
        self.check(architecture)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, head.classes_or(10)))


class OwnSeed(MaskedSpace):
    def build(self, architecture, head=OWN_HEAD):
        torch.manual_seed(0)
        return super().build(architecture, head)


class LooksAtValues(MaskedSpace):
    def build(self, architecture, head=OWN_HEAD):
        assert torch.tensor(architecture).tolist()
        return super().build(architecture, head)


class BuildsAnything(MaskedSpace):
    def build(self, architecture, head=OWN_HEAD):
        return super().build((0,) * len(self.decisions), head)


BROKEN = {
    "decisions_have_different_names_and_choices": [TwiceTheSameName],
    "masks_have_the_size_of_their_decision": [OneForAll, LeavesNothing],
    "enumerates_its_architectures": [Enumerated],
    "refuses_choices_out_of_range": [TakesAnything],
    "every_code_is_its_own": [SharedCode],
    "samples_are_valid": [GlobalSamples],
    "sampled_choices_are_uniform": [Uneven],
    "mutants_are_valid": [SameMutants],
    "mutations_hit_every_decision_equally": [OnlyTheFirst],
    "mutations_keep_what_may_stay": [ChangesTheRest],
    "neighbours_are_one_decision_away": [FewNeighbours],
    "one_hot_is_a_naive_loop": [OtherCode],
    "distance_counts_differing_decisions": [HalfDistance],
    "strings_are_read_back": [OneString],
    "damaged_strings_are_refused": [Lenient],
    "check_names_what_is_wrong": [Silent],
    "the_diagram_joins_named_nodes": [Loops],
    "an_example_has_the_channels_that_are_asked_for": [GreyOnly],
    "networks_learn": [NoLogits, WrongClasses],
    "images_of_every_size_are_taken_or_refused": [FixedSize],
    "a_network_is_a_function_of_the_random_state": [OwnSeed],
    "sizes_can_be_counted_without_weights": [LooksAtValues],
    "a_wrong_architecture_is_not_built": [BuildsAnything],
}
GOOD = [MaskedSpace]
