"""Naive transfer: fit predictors to source evaluations and walk down their ranking, whatever the target says.

The baseline that any claim of transfer must beat: it spends the same source evaluations and adapts to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from search.agents.base import MetaAgent
from search.agents.catcher.agent import normalise
from search.agents.catcher.codes import Codes
from search.agents.catcher.sources import SourceProcesses, random_part
from search.agents.whole_space import MOST_ARCHITECTURES, codes_of_all, combinations, decode
from search.randomness import TrialRandom, derive_seed
from search.spaces.base import SearchSpace

_TRIES = 32
"""Draws for each architecture in a larger space; that all of them are known already is as good as impossible there."""


class NaiveTransfer(MetaAgent):
    """Random source evaluations, a model on one-hot codes for each task, and their ranking from the top down.

    On a source task it asks random architectures. On a target task it asks the architectures of the whole space in the
    order of their predicted scores; the target's rewards change nothing. A model is fitted to each source task, to
    normal quantiles of the rewards' ranks within the task, and the predictions are averaged: on NAS-Bench-201 and
    TransNAS-Bench-101 that is a stronger baseline than one model for all tasks. Each meta-trained trial has models
    of its own; trials that start from the same ones ask the same. With nothing learned it asks at random. Within a
    task no architecture is asked twice while a new one is left.

    Args:
        space: what can be asked; meta-training needs one of at most 2^20 combinations of choices.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        trees: of each forest. scikit-learn's default.
        model: ``forest``, a random forest; or ``gp``, a Gaussian process with a length scale for each decision, which
            of a few hundred random networks makes the better ranking of NAS-Bench-201.
        active: share of a source task's evaluations, the last ones, that are not random: they go where the models of
            those so far, of this task and those before, expect most. What matters on a target is the order of the best.
    """

    caches = frozenset({"_order"})
    learns = False  # not from a target: it follows what the sources showed

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        trees: int = 100,
        model: Literal["forest", "gp"] = "forest",
        active: float = 0.0,
    ):
        super().__init__(space, trials, seed)
        if not 0 <= active < 1:
            raise ValueError(f"NaiveTransfer: active is {active}, it must be at least 0 and below 1")
        self.active = active
        if model not in ("forest", "gp"):
            raise ValueError(f"NaiveTransfer: model is '{model}', allowed: forest, gp")
        self.model = model
        if trees < 1:
            raise ValueError(f"NaiveTransfer: trees is {trees}, it must be at least 1")
        self.trees = trees
        self._all = codes_of_all(space)
        # Codes and rewards, [trials, n] each, of every source task.
        self._sources: list[tuple[Tensor, Tensor]] = []
        # Places in `_all`, the best first: int32 [meta-trained trials, size]; None until there is something to rank by.
        self._ranking: Tensor | None = None
        self.begin_task(budget=50, adapting=True)

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"trees": 10}

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Forget what was asked; on a target, rank by what the source tasks gave.

        Raises:
            ValueError: a source task on a space that is too large to rank.
        """
        super().begin_task(budget, adapting)
        if not adapting and self._all is None:
            raise ValueError(
                f"NaiveTransfer: the space '{self.space.name}' has {combinations(self.space)} combinations of "
                f"choices, at most {MOST_ARCHITECTURES} can be ranked; leave this agent out of meta_training.agents"
            )
        self.adapting, self.budget = adapting, budget
        self._known = torch.zeros(self.trials, 0, dtype=torch.long)  # codes asked and told
        self._order: Tensor | None = None  # codes in the order of asking, [trials, size]
        self._shuffled_at: dict[str, int] | None = None  # the random state before a random order was drawn
        self._active_at = 0  # evaluations of a source task that its order was made of; 0 where it is random
        if adapting:
            self._fit()
        else:
            empty = torch.zeros(self.trials, 0)
            self._sources.append((empty.long(), empty.double()))

    # ---- asking ----------------------------------------------------------------------------------------------------

    def ask(self, n: int = 1) -> Tensor:
        """The first ``n`` new architectures of the order: int64 ``[trials, n, decisions]``."""
        # The codes of a larger space tell its architectures apart, but may not lead back to them.
        drawn = self.space.sample(self.rng, n * _TRIES) if self._all is None else None
        codes = self._candidates(n) if drawn is None else self.space.code(drawn)
        repeated = (codes.unsqueeze(2) == codes.unsqueeze(1)).tril(-1).any(2)
        old = repeated | (codes.unsqueeze(2) == self._known.unsqueeze(1)).any(2)
        # New ones first, both parts in their order; a space that is used up is walked down again.
        places = old.int().argsort(dim=1, stable=True)[:, torch.arange(n) % codes.shape[1]]
        chosen = codes.gather(1, places)
        self._known = torch.cat([self._known, chosen], dim=1)
        return decode(self.space, chosen) if drawn is None else drawn[torch.arange(self.trials)[:, None], places]

    def _candidates(self, n: int) -> Tensor:
        """Codes of a space that can be ranked ``[trials, m]``, at least ``n`` of them new where it has so many."""
        assert self._all is not None
        if self._is_active():
            self._active_at = self._sources[-1][0].shape[1]
            self._order = self._all[self._expected_of_source()]
        if self._order is None:
            ranked = self._ranked() if self.adapting else None
            if ranked is not None:
                self._order = self._all[ranked]
            else:
                self._shuffled_at = self.rng.state_dict()
                self._order = self._all[self.rng.permutation(len(self._all))]
        return self._order[:, : self._known.shape[1] + n]

    def _is_active(self) -> bool:
        """Whether the random part of a source task has just been told."""
        if self.adapting or self._active_at or not self.active:
            return False
        return self._sources[-1][0].shape[1] >= random_part(self.budget, self.active)

    def _expected_of_source(self) -> Tensor:
        """Places in `_all` by what the sources say so far, the best first: int64 ``[trials, size]``."""
        *before, (codes, rewards) = self._sources
        return self._rank([*before, (codes[:, : self._active_at], rewards[:, : self._active_at])])

    def _ranked(self) -> Tensor | None:
        """Places in `_all` as each trial ranks them, the best first: int64 ``[trials, size]``; None with no sources."""
        if self._ranking is None:
            return None
        return self._ranking.long()[torch.arange(self.trials) % len(self._ranking)]

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Remember what is known; on a source task the rewards too."""
        codes = self.space.code(self.space.canonical(archs))
        foreign = ~(codes.unsqueeze(2) == self._known.unsqueeze(1)).any(2).all(0)
        self._known = torch.cat([self._known, codes[:, foreign]], dim=1)
        if not self.adapting:
            before_codes, before_rewards = self._sources[-1]
            self._sources[-1] = torch.cat([before_codes, codes], 1), torch.cat([before_rewards, rewards], 1)
            self._ranking = None

    # ---- carrying over ---------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """Rank the space for each trial by the mean of a model for each source task; once for the same evaluations."""
        sources = [(codes, rewards) for codes, rewards in self._sources if codes.shape[1]]
        if self._ranking is None and sources:
            self._ranking = self._rank(sources).int()

    def _rank(self, sources: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Places in `_all` by the mean of a model for each of these, the best first: int64 ``[trials, size]``."""
        ranks = [normalise(rewards, "rank").double() for _, rewards in sources]
        rankings = []
        predictions = self._by_forests if self.model == "forest" else self._by_processes
        for trial, predicted in enumerate(predictions([codes for codes, _ in sources], ranks)):
            seed = derive_seed(self.rng.seed + trial, "naive transfer")
            shuffled = TrialRandom(seed).permutation(len(predicted))[0]  # equal predictions in random order
            rankings.append(shuffled[predicted[shuffled].argsort(descending=True, stable=True)])
        return torch.stack(rankings)

    def _by_forests(self, codes: Sequence[Tensor], scores: Sequence[Tensor]) -> Iterator[Tensor]:
        """For one trial after another the mean prediction of a forest for each source task: float64 ``[size]``.

        Args:
            codes: ``[trials, n]`` of each source task.
            scores: float64 ``[trials, n]`` likewise.
        """
        from sklearn.ensemble import RandomForestRegressor

        assert self._all is not None
        space_features = self.space.one_hot(decode(self.space, self._all)).numpy()
        for trial in range(self.trials):
            seed = derive_seed(self.rng.seed + trial, "naive transfer")
            predicted = torch.zeros(len(self._all), dtype=torch.float64)
            for known, wanted in zip(codes, scores, strict=True):
                forest = RandomForestRegressor(self.trees, random_state=seed)
                forest.fit(self.space.one_hot(decode(self.space, known[trial])).numpy(), wanted[trial].numpy())
                predicted += torch.from_numpy(forest.predict(space_features)) / len(codes)
            yield predicted

    def _by_processes(self, codes: Sequence[Tensor], scores: Sequence[Tensor]) -> Iterator[Tensor]:
        """The same by a Gaussian process for each source task."""
        assert self._all is not None
        processes = SourceProcesses(Codes(self.space))
        for known, wanted in zip(codes, scores, strict=True):
            processes.learn(decode(self.space, known), wanted)
        everything = decode(self.space, self._all)[None]
        for trial in range(self.trials):
            yield processes.expected(everything, [trial])[0]

    def weights(self) -> dict[str, Any]:
        """The space ranked by each trial's models; no ranking where there was no source task."""
        self._fit()
        ranking = torch.zeros(0, 0, dtype=torch.int32) if self._ranking is None else self._ranking.clone()
        return {"space": self.space.name, "sizes": list(self.space.sizes), "ranking": ranking}

    def load_weights(self, weights: dict[str, Any], first: int = 0) -> None:
        """Start from rankings; they are dealt out to this agent's trials in turn."""
        self._check_weights(weights, "ranking")
        ranking = weights["ranking"]
        self._sources, self._order = [], None
        self._ranking = ranking.roll(-first, 0) if len(ranking) else None

    def _check_weights(self, weights: dict[str, Any], what: str) -> None:
        """Refuse weights of another kind of agent, which lack ``what``, or of another space."""
        if not isinstance(weights, dict) or not {"space", "sizes", what} <= weights.keys():
            raise ValueError(f"this file does not hold the weights of a {type(self).__name__}")
        if weights["space"] != self.space.name or weights["sizes"] != list(self.space.sizes):
            raise ValueError(
                f"these {type(self).__name__} weights belong to the space '{weights['space']}', this search is on "
                f"'{self.space.name}'"
            )

    def state_dict(self) -> dict[str, Any]:
        """The source evaluations, the ranking, and what was asked of the present task."""
        return super().state_dict() | {
            "sources": [[codes, rewards] for codes, rewards in self._sources],
            "ranking": self._ranking,
            "adapting": self.adapting,
            "known": self._known,
            "shuffled_at": self._shuffled_at,
            "budget": self.budget,
            "active_at": self._active_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._sources = [(codes, rewards) for codes, rewards in state["sources"]]
        self._ranking, self.adapting, self._known = state["ranking"], state["adapting"], state["known"]
        self._order, self._shuffled_at = None, state["shuffled_at"]
        self.budget, self._active_at = state.get("budget", 50), state.get("active_at", 0)
        if self._active_at:
            assert self._all is not None
            self._order = self._all[self._expected_of_source()]
        elif self._shuffled_at is not None:
            assert self._all is not None
            random = TrialRandom(0)
            random.load_state_dict(self._shuffled_at)
            self._order = self._all[random.permutation(len(self._all))]
