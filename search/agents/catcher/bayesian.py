"""A CATCHer that practises on stored source evaluations and adapts by exact Bayesian inference.

Three things differ from the paper's agent, which stays beside it unchanged.

In meta-training, source evaluations are the scarce good, and Algorithm 1 uses each only while its own task lasts, with
a controller that soon proposes little new. Here every source task is a set of random networks with their rewards, kept
and practised on: some of a task's networks are the context, others what the evaluator must predict and the controller
imitate in proportion to their worth (advantage-weighted regression, Peng et al. 2019). PEARL uses its replay buffer so.

In adaptation, the evaluator's prediction is the mean of a Gaussian process whose kernel was learned in practice too
(after few-shot Bayesian optimisation, Wistuba & Grabocka 2021, with a kernel on architectures). A few dozen evaluations
are conditioned on exactly, where gradient steps would use them poorly; and how far the sources can be trusted on this
target is inferred with them.

The network to evaluate is chosen by expected improvement and upper confidence bound in turn, among the controller's
proposals and one-step mutations of the best networks: the controller knows good regions, the neighbourhood of a good
network holds the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from search.agents.catcher.agent import AttributesFor, CATCHer, few_threads, normalise
from search.agents.catcher.gaussian_process import ArchitectureKernel, first_of, log_expected_improvement, posterior
from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.sources import SourceProcesses, random_part
from search.agents.predictor.candidates import WholeSpace
from search.agents.predictor.encodings import OneHotEncoding
from search.agents.whole_space import combinations
from search.attributes.base import Attribute
from search.spaces.base import SearchSpace
from search.statistics.places import places

_NUMBERS = 2**23
"""Covariances held at once where a space is looked at as a whole: 64 MB of them."""
_SAMPLE = 1024
"""Networks that the active part of a source task is chosen from where a space is not looked at as a whole (assumed)."""
_STRIDE = 7919
"""A prime: multiples of it, modulo a smaller number, visit every context size equally often and in no simple order."""


@dataclass(frozen=True)
class BayesianSettings:
    """What this variant adds; all of it chosen on source tasks, see ``experiments/catch/README.md``.

    Attributes:
        updates_per_network: practice updates after a source task, for each network it evaluated.
        learning_rate: of practice, Adam; falls to a twentieth by a cosine within each task's practice.
        batch: networks predicted and imitated in an update.
        smallest_context: networks in the smallest context practised on.
        largest_context: networks in the largest; a task's remaining networks are predicted.
        temperature: of the imitation weights exp(normalised reward / temperature): lower follows the best more closely.
        mutations: share of the candidates that are one-step mutations of the best networks so far.
        parents: how many best networks are mutated.
        confidence: standard deviations above the mean of the upper confidence bound.
        adapts_on: what the process is conditioned on in a search: ``ranks``, as in practice, which stretch the top of
            a history of good networks; or ``rewards``, standardised, so that the size of an improvement counts. Then
            those more than three standard deviations below the mean are taken to be just there, and the evaluator's
            expectations are centred on the history's. Better with ``sources`` as prior, not with the ``evaluator``.
        prior: the mean of the process: what the ``evaluator`` expects, in the context; or what ``sources`` show, the
            mean over source tasks of a Gaussian process on each one's evaluations, in practice without the task
            practised on; or ``weighted_sources``, the same mean, but a target's evaluations weigh the sources against
            each other.
        opening: how a search begins that has learned from sources: with ``random`` networks, as the paper's does, or
            with the best by the ``prior``.
        whole: a space of at most so many combinations of choices is looked at as a whole on a target, each network
            once.
        one_network: what makes two architectures one network there: an equal ``graph``, or only an equal ``canonical``
            form, for rewards that graphs do not decide, such as latencies of which each form has its own.
        active: share of a source task's evaluations, the last ones, that are not random: they go where the processes
            of those so far, of this task and those before, expect most. What matters on a target is the order of the
            best. Needs sources as ``prior``.
    """

    updates_per_network: int = 3
    learning_rate: float = 1e-3
    batch: int = 64
    smallest_context: int = 3
    largest_context: int = 50
    temperature: float = 0.5
    mutations: float = 0.5
    parents: int = 3
    confidence: float = 1.0
    adapts_on: Literal["ranks", "rewards"] = "ranks"
    prior: Literal["evaluator", "sources", "weighted_sources"] = "evaluator"
    opening: Literal["random", "prior"] = "random"
    whole: int = 0
    one_network: Literal["graph", "canonical"] = "graph"
    active: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if not 0 <= self.mutations <= 1:
            raise ValueError(f"mutations is {self.mutations}, it must lie in [0, 1]")
        for name, allowed in (
            ("adapts_on", ("ranks", "rewards")),
            ("prior", ("evaluator", "sources", "weighted_sources")),
            ("opening", ("random", "prior")),
            ("one_network", ("graph", "canonical")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is '{getattr(self, name)}', allowed: {', '.join(allowed)}")
        if not 0 <= self.active < 1:
            raise ValueError(f"active is {self.active}, it must be at least 0 and below 1")
        if self.active and self.prior == "evaluator":
            raise ValueError(
                "active asks what sources expect, and prior is 'evaluator'; allowed: sources, weighted_sources"
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, it must be above 0")
        for name in ("updates_per_network", "batch", "parents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not 1 <= self.smallest_context <= self.largest_context:
            raise ValueError(
                f"smallest_context is {self.smallest_context} and largest_context {self.largest_context}; they must be "
                "at least 1, and in this order"
            )


class BayesianCATCHer(CATCHer):
    """CATCHer that practises on stored source evaluations and adapts as a Gaussian process with a learned prior.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        settings: hyper-parameters shared with the CATCHer; the defaults here are this variant's own. Those of PPO,
            prioritised replay and epsilon have no effect: on a target nothing is learned by gradient.
        bayesian: what this variant adds.
        context: as in `CATCHer`.
        init: as in `CATCHer`.
        attributes: as in `CATCHer`.
        attributes_for: as in `CATCHer`; as features the process reads them too.
    """

    caches = CATCHer.caches | {"_pool", "_expected"}

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        settings: CatcherSettings = CatcherSettings(hidden=32, initial_networks=3, candidates=300),  # noqa: B008
        bayesian: BayesianSettings = BayesianSettings(),
        context: Literal["posterior", "zero", "random"] = "posterior",
        init: str | None = None,
        attributes: dict[str, Attribute] | None = None,
        attributes_for: AttributesFor = "nothing",
    ):
        self.bayesian = bayesian
        self.archive: list[tuple[Tensor, Tensor]] = []
        self.informed = False
        self._expected: Tensor | None = None  # of all networks of the space, by the sources
        super().__init__(space, trials, seed, settings, context, None, attributes, attributes_for)
        self._pool: WholeSpace | None = None
        self.sources, self.starts = SourceProcesses(self.codes), torch.arange(trials)
        self.kernel = ArchitectureKernel(self.codes, trials, self.dtype, bayesian.prior == "weighted_sources")
        self.networks["kernel"] = self.kernel
        with torch.no_grad():  # an agent that has learned from no task expects the same of every network
            self.evaluator.mlp.weights[-1] *= 0.01
        self._start_from(init)

    def begin_task(self, budget: int, adapting: bool) -> None:
        """As the CATCHer; what a source task's active part asks is not settled yet."""
        super().begin_task(budget, adapting)
        self._queue: Tensor | None = None  # what it asks next: int64 [trials, some, decisions]

    # ---- asking ----------------------------------------------------------------------------------------------------

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small networks, little practice."""
        return {
            "settings": {"hidden": 16, "initial_networks": 3, "candidates": 40},
            "bayesian": {"updates_per_network": 1},
        }

    @property
    def pool(self) -> WholeSpace | None:
        """All networks, where they are looked at as a whole; read when they are first wanted."""
        if self._pool is None and combinations(self.space) <= self.bayesian.whole:
            self._pool = WholeSpace(self.space, [OneHotEncoding()], {}, self.bayesian.one_network == "graph")
        return self._pool

    def _coded(self, archs: Tensor) -> Tensor:
        """What process and evaluator read of architectures: ``[..., code]``."""
        return self.codes(archs).to(self.dtype)

    def _propose(self, n: int) -> tuple[Tensor, Tensor]:
        opened = self.archs.shape[1] >= self.settings.initial_networks
        if self.adapting and (opened or (self.informed and self.bayesian.opening == "prior")):
            return self._propose_of_all(self.pool, n) if self.pool else super()._propose(n)
        archs = self._next_promising(n) if self._is_active() else self.space.sample(self.rng, n)
        return archs, self._uniform_log_probs(archs)

    def _is_active(self) -> bool:
        """Whether the random part of a source task has been told."""
        if self.adapting or not self.bayesian.active:
            return False
        return self.archs.shape[1] >= random_part(self.budget, self.bayesian.active)

    def _next_promising(self, n: int) -> Tensor:
        """The next of a source task's active part, random ones once that is through: ``[trials, n, decisions]``."""
        if self._queue is None:
            self._queue = self._most_promising(self.budget - self.archs.shape[1])
        asked, self._queue = self._queue[:, :n], self._queue[:, n:]
        missing = n - asked.shape[1]
        return torch.cat([asked, self.space.sample(self.rng, missing)], 1) if missing else asked

    def _most_promising(self, count: int) -> Tensor:
        """Of a whole space, or else of a sample, the new ones that the sources so far expect most of."""
        sources = self.sources.and_one_more(self.archs, self.rewards)
        told = torch.cat([self.archs, self._pending], 1)
        if self.pool:
            everything = self.pool.candidates(told[:, :0], self.rng)
            archs, names, known = everything.archs, everything.names, self.pool.names(told)
        else:
            archs = self.space.sample(self.rng, _SAMPLE)
            names, known = (self.space.code(self.space.canonical(each)) for each in (archs, told))
        chosen = []
        for trial, expected in enumerate(sources.expected(archs, range(self.trials))):
            row = trial % len(archs)
            seen, order = set(known[trial].tolist()), expected.argsort(descending=True, stable=True).tolist()
            name_of = names[row].tolist()
            new: list[int] = []
            for place in order:
                if len(new) == count:
                    break
                if name_of[place] not in seen:
                    seen.add(name_of[place])
                    new.append(place)
            # Where all are known, from the top once more.
            again = [order[k % len(order)] for k in range(count - len(new))]
            chosen.append(archs[row, new + again])
        return torch.stack(chosen)

    def _propose_of_all(self, pool: WholeSpace, n: int) -> tuple[Tensor, Tensor]:
        """The best new ones of a whole space."""
        told = torch.cat([self.archs, self._pending], 1)
        everything, known = pool.candidates(told[:, :0], self.rng), pool.names(told)
        archs, names = everything.archs, everything.names[0]
        if self._expected is None:  # once for trials that start from the same processes
            self._expected = self._expected_of(archs, slice(len(self.starts.unique())))
        z, asked = self._context(), []
        lots = (self.rng.uniform(1) * len(names)).long()[:, 0].tolist()
        part = max(1, _NUMBERS // (len(names) * (1 + self.archs.shape[1])))
        promising = torch.ones(len(names), dtype=torch.bool)
        if self._drawn > 1:
            promise = self.codes.promise(archs)[0]
            promising = promise >= promise.topk(len(names) // self._drawn).values[-1]
        for first in range(0, self.trials, part):
            rows = slice(first, min(self.trials, first + part))
            expected = self._expected[torch.arange(self.trials)[rows] % len(self._expected)]
            for k, worth in enumerate(self._preference(archs, z, expected, rows), first):
                worth = worth.masked_fill(torch.isin(names, known[k]) | ~promising, -torch.inf)
                # Of equal ones any: which is asked must not hang on the order of the space.
                order = worth.roll(-lots[k]).argsort(descending=True, stable=True)[:n]
                asked.append(archs[0, (order + lots[k]) % len(names)])
        chosen = torch.stack(asked)
        log_probs, _ = self.controller.log_probs(z.unsqueeze(1).expand(-1, n, -1), chosen)
        return chosen, log_probs

    @property
    def epsilon(self) -> float:
        """Nothing is asked at random: the uncertainty of a prediction says where to explore."""
        return 0.0

    def candidates(self, z: Tensor, count: int) -> Tensor:
        """The controller's proposals, and mutations of the best networks so far."""
        mutants = int(self.bayesian.mutations * count)
        if not self.archs.shape[1]:
            return self.controller.sample(z, self.rng, count)
        proposed = self.controller.sample(z, self.rng, count - mutants)
        return torch.cat([proposed, self._mutants(mutants, self.bayesian.parents)], 1)

    def preference(self, candidates: Tensor, z: Tensor) -> Tensor:
        """Expected improvement and upper confidence bound in turn, float64 ``[trials, count]``.

        The first refines what is known to be good, the second learns what is not known; which of them serves a target
        better differs from target to target (hence portfolios of both, Hoffman et al. 2011).
        """
        return self._preference(candidates, z, self._expected_of(candidates))

    def _preference(self, candidates: Tensor, z: Tensor, expected: Tensor, rows: slice = slice(None)) -> Tensor:
        """What candidates of some trials, or of all alike, are worth.

        Args:
            candidates: int64 ``[trials or 1, count, decisions]``.
            z: the contexts of all trials ``[trials, latent]``.
            expected: what sources say of the candidates ``[trials, count]``.
            rows: which trials.
        """
        archs, told = self.archs[rows], self.rewards[rows]
        prior = self._prior(candidates, z[rows], expected, rows)
        if not told.shape[1]:
            return first_of(prior).double()
        known = self._prior(archs, z[rows], self._expected_of(archs, rows), rows)
        if self.bayesian.adapts_on == "rewards":
            rewards = standardised(told).to(self.dtype)
            centre = first_of(known).mean(1, keepdim=True)
            known, prior = _lowered(known, centre), _lowered(prior, centre)
        else:
            rewards = normalise(told, self.settings.normalisation).to(self.dtype)
        asked = self._coded(candidates)
        mean, variance = posterior(self.kernel.of_trials(rows), self._coded(archs), known, rewards, asked, prior)
        if rewards.shape[1] % 2:
            return mean + self.bayesian.confidence * variance.sqrt()
        return log_expected_improvement(mean, variance, rewards.double().amax(1, keepdim=True))

    def _prior(self, archs: Tensor, z: Tensor, expected: Tensor, rows: slice = slice(None)) -> Tensor:
        """The mean of the process at ``[trials or 1, n, decisions]`` in contexts: ``[trials, n]``.

        Where sources are weighed, followed by what each of them says otherwise: ``[trials, n, 1 + sources]``.

        Args:
            archs: the networks.
            z: the contexts ``[trials, latent]``.
            expected: what sources say of the networks, in the same shape.
            rows: which trials these are.
        """
        if self.bayesian.prior != "evaluator":
            return expected.to(self.dtype)
        codes = self._coded(archs).expand(len(z), -1, -1)
        return self.evaluator(codes, z.unsqueeze(1).expand(-1, codes.shape[1], -1), rows)

    def _expected_of(self, archs: Tensor, rows: slice = slice(None)) -> Tensor:
        """What sources say of architectures ``[trials or 1, n, decisions]``: ``[trials, n]``, or as `_prior` has it."""
        return self._asked_of_sources(archs, self.starts[rows].tolist())

    def _asked_of_sources(self, archs: Tensor, starts: Sequence[int], without: int | None = None) -> Tensor:
        """The same by the processes of some meta-trained trials, perhaps without those of one task."""
        if self.bayesian.prior == "evaluator":
            return torch.zeros(len(starts), archs.shape[1], dtype=torch.float64)
        weighted = self.bayesian.prior == "weighted_sources"
        return (self.sources.opinions if weighted else self.sources.expected)(archs, starts, without)

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Extend the history; when a source task is complete, store it and practise."""
        self._settle(archs)
        self.archs = torch.cat([self.archs, archs], 1)
        self.rewards = torch.cat([self.rewards, rewards], 1)
        if not self.adapting and self.archs.shape[1] >= self.budget:
            self.archive.append((self.archs, self.rewards))
            self.informed, self.starts, self._expected = True, torch.arange(self.trials), None
            with few_threads(self.trials):
                if self.bayesian.prior != "evaluator":
                    self.sources.learn(self.archs, self.rewards)
                self._practise(self.bayesian.updates_per_network * self.archs.shape[1])

    def _practise(self, updates: int) -> None:
        """Take ``updates`` steps on the stored tasks, one task after another."""
        rate = self.bayesian.learning_rate
        optimizer = torch.optim.Adam(self.networks.parameters(), lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, rate / 20)
        worths = [normalise(rewards, self.settings.normalisation) for _, rewards in self.archive]
        others = [self._asked_of_sources(archs, range(self.trials), k) for k, (archs, _) in enumerate(self.archive)]
        for update in range(updates):
            task = update % len(self.archive)
            loss = self.practice_loss(*self.archive[task], worths[task], update, others[task])
            self._step(optimizer, loss)
            schedule.step()

    def practice_loss(
        self, archs: Tensor, rewards: Tensor, worth: Tensor, update: int, others_expect: Tensor | None = None
    ) -> Tensor:
        """One draw of the objective on a stored task, to be minimised: ``[trials]``.

        A random part of the task's networks is the context, with rewards normalised within it, as they will be in a
        search that has seen just these. The Gaussian process conditioned on them must predict where the rewards of
        other networks fall among them, and the controller is to imitate the better of those.

        Args:
            archs: int64 ``[trials, n, decisions]``.
            rewards: float64 ``[trials, n]``.
            worth: the same normalised over the whole task, ``[trials, n]``.
            update: decides how large the context is, the same for all trials; which networks fill it is drawn.
            others_expect: what the other tasks' processes expect of the networks, as `_prior` has it.
        """
        held = archs.shape[1]
        smallest = min(self.bayesian.smallest_context, max(1, held // 2))
        largest = max(smallest, min(self.bayesian.largest_context, held // 2))
        size = smallest + update * _STRIDE % (largest - smallest + 1)
        expect = torch.zeros(rewards.shape, dtype=torch.float64) if others_expect is None else others_expect
        order = self.rng.permutation(held)
        rows = torch.arange(self.trials).unsqueeze(1)
        chosen, others = order[:, :size], order[:, size : size + self.bayesian.batch]
        context = archs[rows, chosen]
        codes = self.codes(context).to(self.dtype)
        known = normalise(rewards[rows, chosen], self.settings.normalisation).to(self.dtype)
        mean, variance = self._posterior(codes, known)
        z = self._draw_context(mean[:, -1:], variance[:, -1:]).squeeze(1)

        networks = archs[rows, others]
        targets = normalise_among(rewards[rows, others], rewards[rows, chosen], self.settings.normalisation)
        predicted, uncertainty = posterior(
            self.kernel,
            self._coded(context),
            self._prior(context, z, expect[rows, chosen]),
            known,
            self._coded(networks),
            self._prior(networks, z, expect[rows, others]),
        )
        uncertainty = uncertainty + self.kernel.noise()
        surprise = 0.5 * ((targets - predicted).square() / uncertainty + uncertainty.log()).mean(1)

        log_probs, _ = self.controller.log_probs(z.unsqueeze(1).expand(-1, networks.shape[1], -1), networks)
        imitation = (worth[rows, others].to(self.dtype) / self.bayesian.temperature).softmax(1)
        loss = surprise.to(self.dtype) - (imitation * log_probs.sum(-1)).sum(1)
        if self.context == "posterior":
            smallest = min(self.bayesian.smallest_context, size)
            loss = loss + self._kl_penalty(mean, variance, networks.shape[1], smallest)
        return loss

    # ---- carrying over ---------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Any]:
        """Those of the CATCHer, and the processes of the source tasks."""
        return {**super().weights(), "sources": self.sources.state_dict()}

    def load_weights(self, weights: dict[str, Any], first: int = 0) -> None:
        """Start from what was meta-trained; its trials are dealt out to this agent's in turn."""
        sources = weights.get("sources", []) if isinstance(weights, dict) else []
        if self.bayesian.prior != "evaluator" and not sources:
            raise ValueError(f"these weights hold no source tasks, which prior: {self.bayesian.prior} looks at")
        if sources and ("kernel.log_differences" in weights["networks"]) != (self.bayesian.prior == "weighted_sources"):
            theirs = "sources" if self.bayesian.prior == "weighted_sources" else "weighted_sources"
            raise ValueError(f"these weights are of prior: {theirs}, this agent has prior: {self.bayesian.prior}")
        super().load_weights(weights, first)
        self.sources.load_state_dict(sources)
        count = len(sources[0]["archs"]) if sources else 1
        self.starts, self.informed, self._expected = (first + torch.arange(self.trials)) % count, True, None

    def state_dict(self) -> dict[str, Any]:
        """The CATCHer's state, the stored tasks and their processes."""
        return {
            **super().state_dict(),
            "archive": [list(task) for task in self.archive],
            "sources": self.sources.state_dict(),
            "starts": self.starts.clone(),
            "informed": self.informed,
            "queue": self._queue,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self.archive = [(archs, rewards) for archs, rewards in state["archive"]]
        self.sources.load_state_dict(state["sources"])
        self.starts, self.informed, self._expected = state["starts"].clone(), state["informed"], None
        self._queue = state.get("queue")


def _lowered(means: Tensor, by: Tensor) -> Tensor:
    """The mean function less so much, ``[trials, 1]``; what sources say otherwise stays."""
    return means - by if means.dim() == 2 else torch.cat([means[..., :1] - by.unsqueeze(2), means[..., 1:]], 2)


def standardised(rewards: Tensor) -> Tensor:
    """Rewards by mean and standard deviation, once more when the worst are drawn up to -3: both ``[trials, n]``.

    A few networks that hardly learn would otherwise be all that the standard deviation sees.
    """
    return normalise(normalise(rewards, "zscore").clamp(min=-3.0), "zscore")


def normalise_among(rewards: Tensor, history: Tensor, how: str) -> Tensor:
    """Rewards on the scale of a history that they are not part of.

    Args:
        rewards: float64 ``[trials, m]``.
        history: float64 ``[trials, n]``.
        how: ``rank``, the normal quantile of the place among the history; or ``zscore``, by its mean and standard
            deviation, no further than 3 away.

    Returns:
        Float64 ``[trials, m]``.
    """
    if how == "zscore":
        mean, deviation = history.mean(1, keepdim=True), history.std(1, correction=0, keepdim=True)
        return ((rewards - mean) / (deviation + 1e-8)).clamp(-3, 3)
    return torch.special.ndtri((places(rewards, history) + 0.5) / (history.shape[1] + 1))
