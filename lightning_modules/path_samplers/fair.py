"""Strict fairness: every step trains each choice of every decision once."""

from __future__ import annotations

import numpy as np
import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.uniform import UniformSampler


class FairSampler(UniformSampler):
    """FairNAS (Chu, Zhang and Xu, ICCV 2021): as many paths a step as a decision has choices, none of which meet.

    Uniform single paths train every choice equally often on average, but not after any number of steps; here they do
    after each. Published gradients are summed over a step's paths; here they are averaged, so that a learning rate
    means what it means for one path. A step costs so many passes, and one moves the weights once: for equal cost it
    takes as many fewer steps.

    Where decisions have different numbers of choices, there are as many paths as the largest number, and the choices of
    a smaller decision differ in how often they are trained by at most one. Where not every choice may follow every
    other, each path takes the choice that this step has trained least, of those that may follow its own.

    Architectures are chosen by evolution on the shared weights, as by `UniformSampler`.

    Args:
        space: what can be sampled.
        population: of the evolution that chooses at the end.
        tournament: architectures of which the best becomes a parent.
        budget: architectures that the evolution evaluates.
    """

    def paths(self, seed: int, step: int) -> list[Path]:
        """The paths of a step."""
        sizes = self.space.sizes
        rng = np.random.default_rng(np.random.SeedSequence((seed, step, 0xFA18)))
        begun: list[tuple[int, ...]] = [()] * max(sizes)
        for size in sizes:
            trained = np.zeros(size, dtype=np.int64)
            for number in rng.permutation(len(begun)):
                valid = self.space.valid_choices(torch.tensor(begun[number], dtype=torch.long)).numpy()
                least = np.where(valid, trained, np.iinfo(np.int64).max)
                choice = int(rng.choice(np.flatnonzero(least == least.min())))
                trained[choice] += 1
                begun[number] = (*begun[number], choice)
        return [Path(choices) for choices in begun]
