"""The agent that searches by a predictor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.agents.base import Agent
from search.agents.catcher.agent import normalise
from search.agents.predictor.acquisition import Acquisition, acquire, most_promising
from search.agents.predictor.base import Examples, Model, Predictor
from search.agents.predictor.candidates import Candidates, Neighbourhood, Pool, WholeSpace
from search.agents.predictor.encodings import Encoding
from search.agents.predictor.gaussian_process import GaussianProcess
from search.agents.whole_space import combinations
from search.attributes.base import Attribute
from search.randomness import derive_seed
from search.spaces.base import SearchSpace


class PredictorAgent(Agent):
    """Fits a predictor to what was evaluated and asks what it holds most promising.

    The first ``initial`` architectures are random, or those whose attributes look best. Before each later one the
    predictor, fitted to all evaluations so far or to those that there were when it was last fitted, says of each
    candidate what it may give and how surely, and the acquisition says which is worth an evaluation. No network is
    asked twice while there is another: neither an architecture of the same canonical form, nor one whose graph says
    the same (`SearchSpace.identity`).

    With BANANAS's parts it is BANANAS, with NASBOWL's it is NASBOWL but for details that ``docs/methods/predictors.md``
    names.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        predictor: what learns; a Gaussian process if None.
        encodings: what it reads of an architecture; the predictor's own if None.
        acquisition: what to make of a prediction: ``improvement``, ``confidence``, ``in turn`` (of these two),
            ``thompson`` or ``mean``.
        confidence: standard deviations above the mean, of ``confidence``.
        initial: random architectures before the first prediction.
        candidates: to choose from where the space is too large to be looked at as a whole.
        parents: how many of the best so far are mutated into half of these.
        whole: spaces of at most so many combinations of choices are looked at as a whole.
        normalisation: of rewards: ``rank``, normal quantiles of their ranks, or ``zscore``.
        attributes: further features, by name; None for those of the recipe, and nothing where it has none.
        opening: of the first ``initial``: ``random``, or ``attributes``: each the best of ``candidates`` random
            architectures by the mean of its attributes' normal quantiles.
    """

    batched = False  # a hundred trials take nearly a hundred times as long as one
    caches = frozenset({"_pool", "_model", "_features", "_predicted", "attributes"})

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        predictor: Predictor | None = None,
        encodings: list[Encoding] | None = None,
        acquisition: Acquisition = "in turn",
        confidence: float = 1.0,
        initial: int = 5,
        candidates: int = 200,
        parents: int = 5,
        whole: int = 50_000,
        normalisation: str = "rank",
        attributes: dict[str, Attribute] | None = None,
        opening: str = "random",
    ):
        super().__init__(space, trials, seed)
        if min(initial, candidates, parents) < 1:
            raise ValueError(
                f"PredictorAgent: initial is {initial}, candidates {candidates}, parents {parents}; each must be at "
                "least 1"
            )
        if normalisation not in ("rank", "zscore"):
            raise ValueError(f"PredictorAgent: normalisation is '{normalisation}', allowed: rank, zscore")
        if opening not in ("random", "attributes"):
            raise ValueError(f"PredictorAgent: opening is '{opening}', allowed: random, attributes")
        self.opening = opening
        self.predictor = GaussianProcess() if predictor is None else predictor
        self.encodings = self.predictor.encodings() if encodings is None else list(encodings)
        if not self.encodings:
            raise ValueError("PredictorAgent: encodings is empty, one at least is needed")
        self.acquisition, self.confidence, self.initial = acquisition, confidence, initial
        self.count, self.parents, self.whole, self.normalisation = candidates, parents, whole, normalisation
        self.attributes = None if attributes is None else dict(attributes)
        self._pool: Pool | None = None
        self._forget()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Few candidates, a predictor that is cheap."""
        predictor = {"class_path": "GaussianProcess", "init_args": GaussianProcess.toy()}
        return {"predictor": predictor, "encodings": ["OneHotEncoding"], "candidates": 8, "whole": 0, "initial": 5}

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start with nothing known."""
        super().begin_task(budget, adapting)
        self._forget()

    def _forget(self) -> None:
        decisions = len(self.space.decisions)
        self.archs = torch.zeros(self.trials, 0, decisions, dtype=torch.long)
        self.rewards = torch.zeros(self.trials, 0, dtype=torch.float64)
        self.pending = torch.zeros(self.trials, 0, decisions, dtype=torch.long)  # asked, not told
        self.fitted = 0  # evaluations that the model was fitted to
        self._drop_caches()

    def _drop_caches(self) -> None:
        self._model: Model | None = None
        self._features: Tensor | None = None
        self._predicted: tuple[Candidates, Tensor, Tensor] | None = None  # what the model said of which candidates

    @property
    def pool(self) -> Pool:
        """The candidates; encoded when they are first wanted."""
        if self._pool is None:
            if combinations(self.space) <= self.whole:
                self._pool = WholeSpace(self.space, self.encodings, self.attributes or {})
            else:
                self._pool = Neighbourhood(self.space, self.encodings, self.attributes or {}, self.count)
        return self._pool

    # ---- asking ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def ask(self, n: int = 1) -> Tensor:
        """The opening at first, then the most promising: int64 ``[trials, n, decisions]``."""
        asked = []
        for _ in range(n):
            told = self.archs.shape[1]
            best = self.rewards.topk(min(self.parents, told), dim=1).indices if told >= self.initial else None
            candidates = self.pool.candidates(_taken(self.archs, best), self.rng)
            worth = self._promise(candidates) if best is None else self._worth(candidates)
            asked.append(self._choose(candidates, worth))
            self.pending = torch.cat([self.pending, asked[-1]], 1)
        return torch.cat(asked, 1)

    def _promise(self, candidates: Candidates) -> Tensor:
        """What each candidate is worth while nothing is known but attributes: ``[trials, m]``."""
        count = candidates.names.shape[1]
        if self.opening == "random" or not self.attributes:
            return torch.zeros(self.trials, count, dtype=torch.float64)
        promise = candidates.features[..., -len(self.attributes) :].mean(-1).double().expand(self.trials, -1)
        # Of a sample: of a whole space all trials would begin with the same few.
        lots = self.rng.uniform(count)
        drawn = lots >= lots.topk(min(self.count, count), dim=1).values[:, -1:]
        return promise.masked_fill(~drawn, -torch.inf)

    def _worth(self, candidates: Candidates) -> Tensor:
        """What each candidate is worth: ``[trials, m]``."""
        examples = self._known()
        model = self._fitted(examples)
        if self.predictor.conditions:
            model.condition(examples)
            if self.pending.shape[1]:  # believed to give what is predicted of them, so that a batch spreads out
                features = self.pool.features(self.pending)
                believed = torch.cat([examples.targets, model.predict(features)[0]], 1)
                known = torch.cat([examples.features, features], 1)
                model.condition(self._examples_of(known, believed))
        if self.predictor.conditions or self._predicted is None or self._predicted[0] is not candidates:
            self._predicted = (candidates, *model.predict(candidates.features))
        _, mean, deviation = self._predicted
        return acquire(self.acquisition, mean, deviation, examples.targets, self.rng, self.confidence)

    def _fitted(self, examples: Examples) -> Model:
        """The model, fitted anew where it is time; a resumed search fits again what had been fitted."""
        count = examples.targets.shape[1]
        if not self.fitted or count - self.fitted >= self.predictor.refit:
            self.fitted, self._model, self._predicted = count, None, None
        if self._model is None:
            first = self.rewards[:, : self.fitted]
            targets = normalise(first, self.normalisation).double()
            self._model = self.predictor.fit(self._examples_of(examples.features[:, : self.fitted], targets))
        return self._model

    def _known(self) -> Examples:
        """All evaluations."""
        done = 0 if self._features is None else self._features.shape[1]
        if done < self.archs.shape[1]:
            features = self.pool.features(self.archs[:, done:])
            self._features = features if self._features is None else torch.cat([self._features, features], 1)
        assert self._features is not None
        return self._examples_of(self._features, normalise(self.rewards, self.normalisation).double())

    def _examples_of(self, features: Tensor, targets: Tensor) -> Examples:
        seeds = [derive_seed(self.rng.seed + trial, "predictor", self.fitted) for trial in range(self.trials)]
        return Examples(features, targets, self.pool.blocks, self.pool.groups, tuple(seeds))

    def _choose(self, candidates: Candidates, worth: Tensor) -> Tensor:
        """The best new candidate of each trial, of equal ones any: int64 ``[trials, 1, decisions]``."""
        known = self.pool.names(torch.cat([self.archs, self.pending], 1))
        names = candidates.names.expand(self.trials, -1)
        chosen = most_promising(worth, names, known, self.rng)
        archs = candidates.archs.expand(self.trials, -1, -1)
        return archs[torch.arange(self.trials), chosen].unsqueeze(1)

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Remember; the predictor is fitted when it is next asked."""
        for place in range(archs.shape[1]):
            self._settle(archs[:, place])
        self.archs = torch.cat([self.archs, archs], 1)
        self.rewards = torch.cat([self.rewards, rewards], 1)

    def _settle(self, archs: Tensor) -> None:
        """Take what was told off the pending, where all trials were told what they had asked together."""
        same = (self.pending == archs.unsqueeze(1)).all(-1).all(0)
        if same.any():
            keep = torch.ones_like(same)
            keep[same.nonzero()[0, 0]] = False
            self.pending = self.pending[:, keep]

    def state_dict(self) -> dict[str, Any]:
        """Evaluations, what is pending, and how many of them the model was fitted to."""
        return super().state_dict() | {
            "archs": self.archs.clone(),
            "rewards": self.rewards.clone(),
            "pending": self.pending.clone(),
            "fitted": self.fitted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self.archs, self.rewards = state["archs"].clone(), state["rewards"].clone()
        self.pending, self.fitted = state["pending"].clone(), state["fitted"]
        self._drop_caches()


def _taken(archs: Tensor, places: Tensor | None) -> Tensor:
    """Some architectures of each trial; none without places."""
    if places is None:
        return archs[:, :0]
    return archs.gather(1, places.unsqueeze(-1).expand(-1, -1, archs.shape[-1]))
