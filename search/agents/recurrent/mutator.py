"""RENAS' controller: which decision of an architecture to change, and to what (Chen et al., CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from search.agents.recurrent.lstm import Stacked, StackedLSTM, rows
from search.agents.recurrent.policy import entropy
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace


class Mutator(Stacked):
    """A bidirectional LSTM reads an architecture; of each group of decisions one is chosen, and its new choice.

    Both are softmaxes over what the LSTM says of the decisions: where to change among those that have a second valid
    choice, and what to among the valid choices but the present one. A later decision that a change rules out is drawn
    anew, uniformly, as `SearchSpace.mutate` does.

    Args:
        space: decisions and masks.
        rng: initial weights.
        group: decisions of a group, of which one changes: RENAS has one for each node of a cell. The last group may be
            smaller.
        hidden: units of each layer, of each direction, and of the vectors that stand for choices.
        layers: of the LSTMs.
        scale: initial weights are uniform in [-scale, scale].
    """

    def __init__(self, space: SearchSpace, rng: TrialRandom, group: int, hidden: int, layers: int, scale: float):
        super().__init__(rng, scale)
        self.space = space
        steps, choices = len(space.sizes), space.offsets[-1]
        self.groups = [range(first, min(first + group, steps)) for first in range(0, steps, group)]
        self.embedding = self.weight(choices, hidden)
        self.onward = StackedLSTM(rng, hidden, hidden, layers, scale)
        self.backward = StackedLSTM(rng, hidden, hidden, layers, scale)
        self.where = self.weight(2 * hidden, 1)
        self.what, self.what_bias = self.weight(2 * hidden, choices), self.weight(1, choices)

    def _read(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Logits where to change ``[trials, n, decisions]``, and what to ``[trials, n, decisions, all choices]``."""
        trials, n, steps = parents.shape
        tokens = rows(self.embedding, parents + torch.tensor(self.space.offsets[:-1]))
        both = torch.cat([self.onward(tokens), self.backward(tokens.flip(2)).flip(2)], dim=-1)
        flat = both.reshape(trials, n * steps, -1)
        what = torch.baddbmm(self.what_bias, flat, self.what)
        return torch.bmm(flat, self.where).reshape(trials, n, steps), what.reshape(trials, n, steps, -1)

    def _can_change(self, parents: Tensor) -> Tensor:
        """Decisions that have a second valid choice: bool ``[trials, n, decisions]``."""
        return torch.stack(
            [self._others(parents, parents, t).any(-1) for t in range(parents.shape[-1])],
            dim=-1,
        )

    def _others(self, children: Tensor, parents: Tensor, t: int) -> Tensor:
        """Valid choices of a child's decision but its parent's: bool ``[trials, n, choices]``."""
        return self.space.valid_choices(children[..., :t]).scatter(-1, parents[..., t : t + 1], False)

    def _where_log_probs(self, logits: Tensor, can: Tensor) -> list[Tensor]:
        """For each group the log-probabilities of its decisions; uniform where none can change."""
        found = []
        for group in self.groups:
            own, allowed = logits[..., group.start : group.stop], can[..., group.start : group.stop]
            none = ~allowed.any(-1, keepdim=True)
            found.append(torch.where(none, 0.0, own).masked_fill(~allowed & ~none, -torch.inf).log_softmax(-1))
        return found

    @torch.no_grad()
    def mutate(self, parents: Tensor, rng: TrialRandom, uniform: bool) -> tuple[Tensor, Tensor]:
        """Children of architectures.

        Args:
            parents: int64 ``[trials, n, decisions]``.
            rng: one stream a trial.
            uniform: choose uniformly, in the place of what has been learned.

        Returns:
            Children, the same shape, and for each group the decision that was chosen: int64 ``[trials, n, groups]``.
        """
        where_logits, what_logits = self._read(parents)
        if uniform:
            where_logits, what_logits = torch.zeros_like(where_logits), torch.zeros_like(what_logits)
        where_log_probs = self._where_log_probs(where_logits, self._can_change(parents))
        where = torch.stack(
            [
                group.start + rng.categorical(log_probs.exp())
                for group, log_probs in zip(self.groups, where_log_probs, strict=True)
            ],
            dim=-1,
        )
        children = parents[..., :0]
        for t in range(parents.shape[-1]):
            allowed, old = self.space.valid_choices(children), parents[..., t : t + 1]
            others = self._others(children, parents, t)
            forced = (where == t).any(-1, keepdim=True) & others.any(-1, keepdim=True)
            start, stop = self.space.offsets[t : t + 2]
            weights = what_logits[..., t, start:stop].masked_fill(~others, -torch.inf).softmax(-1)
            drawn = rng.categorical(torch.where(forced, weights, allowed.double())).unsqueeze(-1)
            keep = allowed.gather(-1, old) & ~forced
            children = torch.cat([children, torch.where(keep, old, drawn)], dim=-1)
        return children, where

    def log_probs(self, parents: Tensor, where: Tensor, children: Tensor) -> tuple[Tensor, Tensor]:
        """How likely the controller is to choose as it did.

        Args:
            parents: int64 ``[trials, n, decisions]``.
            where: as `mutate` gives it.
            children: likewise.

        Returns:
            Log-probabilities ``[trials, n, 2 * groups]``, where and what to, and entropies of the same choices.
        """
        where_logits, what_logits = self._read(parents)
        taken, entropies = [], []
        found = self._where_log_probs(where_logits, self._can_change(parents))
        for g, (group, log_probs) in enumerate(zip(self.groups, found, strict=True)):
            taken.append(log_probs.gather(-1, where[..., g : g + 1] - group.start).squeeze(-1))
            entropies.append(entropy(log_probs))
            what, spread = torch.zeros_like(taken[-1]), torch.zeros_like(taken[-1])
            for t in group:
                others = self._others(children, parents, t)
                chosen = (where[..., g] == t) & others.any(-1)
                start, stop = self.space.offsets[t : t + 2]
                masked = torch.where(chosen.unsqueeze(-1), others, True)
                own = what_logits[..., t, start:stop].masked_fill(~masked, -torch.inf).log_softmax(-1)
                picked = own.gather(-1, children[..., t : t + 1]).squeeze(-1)
                what = torch.where(chosen, picked, what)
                spread = torch.where(chosen, entropy(own), spread)
            taken.append(what)
            entropies.append(spread)
        return torch.stack(taken, dim=-1), torch.stack(entropies, dim=-1)
