"""Attributes with a fault each, by the promise that they break."""

import torch

from search.attributes.base import Attribute


class Skips(Attribute):
    """In order: how many edges are skips."""

    name = "skips"
    unit = "edges"
    direction = "min"

    def measure(self, architectures):
        return [float(sum(choice == 1 for choice in each)) for each in architectures]


class Nameless(Skips):
    name = ""


class Better(Skips):
    direction = "better"


class Halved(Skips):
    def values(self, archs):
        return super().values(archs).half()


class Flat(Skips):
    def values(self, archs):
        return super().values(archs).flatten()


class Endless(Skips):
    def measure(self, architectures):
        return [float("inf")] * len(architectures)


class Nothing(Skips):
    def measure(self, architectures):
        return [float("nan")] * len(architectures)


class TooFew(Skips):
    def measure(self, architectures):
        return super().measure(architectures)[:1]


class ByChance(Skips):
    def measure(self, architectures):
        return torch.rand(len(architectures)).tolist()


class Relative(Skips):
    """To the others that it is asked for."""

    def measure(self, architectures):
        found = super().measure(architectures)
        return [each - sum(found) for each in found]


class ByPlace(Skips):
    def measure(self, architectures):
        return [float(k) for k, _ in enumerate(architectures)]


class Forgetful(Skips):
    def values(self, archs):
        self._known.clear()
        return super().values(archs)


class NeverRemembers(Skips):
    def remember(self, architecture, value):
        pass


BROKEN = {
    "says_what_it_is": [Nameless, Better],
    "gives_a_value_for_each": [Halved, Flat, Endless, Nothing, TooFew],
    "the_same_again": [ByChance],
    "company_makes_no_difference": [Relative, ByPlace],
    "random_states_stay": [ByChance],
    "a_network_is_measured_once": [Forgetful, NeverRemembers],
}
GOOD = [Skips]
