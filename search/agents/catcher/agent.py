"""The CATCHer: one search step of CATCH's Algorithm 1, for many trials at once.

How data walks: `ask` encodes the history into a context z, lets the controller propose candidates given z, and the
evaluator choose among them. `tell` extends the history, renormalises its rewards, and takes a few steps on the joint
objective (eq. 2): PPO's surrogate + the evaluator's Huber loss + 0.1 KL, all of which reach the encoder through z.
Meta-training and adaptation are this same step on other tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from search.agents.base import MetaAgent
from search.agents.catcher.codes import Codes
from search.agents.catcher.controller import Controller, ppo_loss
from search.agents.catcher.encoder import ContextEncoder, kl_to_standard_normal
from search.agents.catcher.evaluator import Evaluator, PrioritizedReplay, huber
from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.stacked import clip_gradients_per_trial
from search.attributes.base import Attribute
from search.spaces.base import SearchSpace
from search.statistics.places import places
from search.training.tensor_files import load_tensors

PRETRAINED = Path(__file__).parent / "pretrained"
"""Weights that ship with the package, ``AGENT_SPACE.pt``; the README beside them says how each was made."""
AttributesFor = Literal["nothing", "features", "filter", "both"]
"""What a CATCHer does with the attributes of architectures; see `CATCHer`."""
_DRAWN = 4
"""Candidates drawn for each that is kept where attributes filter them (assumed)."""
_PARENTS = 3
"""Best networks whose mutations are candidates (assumed)."""


def normalise(rewards: Tensor, how: str) -> Tensor:
    """Rewards relative to their history (CATCH, sec. 3.1).

    Args:
        rewards: float64 ``[trials, n]``.
        how: ``zscore``, (r - mean) / std; or ``rank``, the normal quantile of each reward's rank, ties sharing the mean
            rank.

    Returns:
        ``[trials, n]``, float32 for ``rank``; all zero where all rewards are equal.
    """
    if how == "zscore":
        return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, correction=0, keepdim=True) + 1e-8)
    return torch.special.ndtri(places(rewards, rewards).float() / rewards.shape[1])


def read_weights(init: str, agent: str, space: SearchSpace) -> dict[str, Any]:
    """What a weights file holds.

    Args:
        init: its path, or ``pretrained`` for the one that ships.
        agent: the class that asks.
        space: what it searches.

    Raises:
        ValueError: there is no such file, or it is not a weights file.
    """
    path = Path(init)
    if init == "pretrained":
        path = PRETRAINED / f"{agent}_{space.name}.pt"
        if not path.is_file():
            shipped = ", ".join(" on ".join(each.stem.split("_", 1)) for each in sorted(PRETRAINED.glob("*.pt")))
            raise ValueError(f"init is 'pretrained', but no {agent} for {space.name} ships, only: {shipped}")
    try:
        return load_tensors(path)
    except OSError as error:
        raise ValueError(
            f"init: '{path}' can't be read ({error.strerror}); 'pretrained' stands for the weights that ship"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"init: '{path}' is not a weights file, or damaged: one holds tensors and plain values only"
        ) from error


@contextmanager
def few_threads(trials: int) -> Iterator[None]:
    """One thread for a few trials' small matrices: waking a second costs more than it computes.

    The number of threads depends on the number of trials only, so that a run gives the same numbers every time.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if trials < 16 else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class CATCHer(MetaAgent):
    """Context-based meta-reinforcement-learning search agent (CATCH, Chen et al., ECCV 2020).

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        settings: hyper-parameters, each with its source.
        context: where z comes from: ``posterior``, the paper's method; ``zero`` and ``random`` are the ablations
            CATCH-zero and CATCH-random of sec. 5.
        init: a weights file of a meta-trained CATCHer to start from, or ``pretrained`` for the one that ships
            with the package; without one it searches from scratch.
        attributes: what is known of architectures before their evaluation, by name; None for those of the recipe.
        attributes_for: what to do with them; not in the paper. ``nothing``; ``features``: encoder and evaluator read
            them beside the decisions; ``filter``: of four times as many candidates the quarter is kept whose attributes
            are best, by the mean of their normal quantiles; or ``both``.
    """

    caches = frozenset({"attributes", "codes"})

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        settings: CatcherSettings = CatcherSettings(),  # noqa: B008 - frozen
        context: Literal["posterior", "zero", "random"] = "posterior",
        init: str | None = None,
        attributes: dict[str, Attribute] | None = None,
        attributes_for: AttributesFor = "nothing",
    ):
        super().__init__(space, trials, seed)
        if attributes_for not in get_args(AttributesFor):
            allowed = ", ".join(get_args(AttributesFor))
            raise ValueError(f"{type(self).__name__}: attributes_for is '{attributes_for}', allowed: {allowed}")
        self.attributes = {} if attributes_for == "nothing" else attributes
        self.attributes_for = attributes_for
        self.settings, self.context = settings, context
        self.dtype = torch.float64 if settings.double else torch.float32
        self.codes = Codes(space, self.attributes, attributes_for in ("features", "both"))
        code_length = len(self.codes)
        self.encoder = ContextEncoder(self.rng, code_length, settings, self.dtype)
        self.controller = Controller(space, self.rng, settings, self.dtype)
        self.evaluator = Evaluator(self.rng, code_length, settings, self.dtype)
        self.networks = nn.ModuleDict(
            {"encoder": self.encoder, "controller": self.controller, "evaluator": self.evaluator}
        )
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(self.encoder.parameters()), "lr": settings.encoder_learning_rate},
                {"params": list(self.controller.parameters()), "lr": settings.controller_learning_rate},
                {"params": list(self.evaluator.parameters()), "lr": settings.evaluator_learning_rate},
            ],
            fused=True,
        )
        self.begin_task(budget=50, adapting=True)
        self._start_from(init)

    def _start_from(self, init: str | None) -> None:
        """Load a weights file, once the recipe's attributes are known that its networks may read."""
        if init is not None and not (self.attributes is None and self.attributes_for != "nothing"):
            self.load_weights(read_weights(init, type(self).__name__, self.space))

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Small networks; in float64, so that a batch of trials and each alone agree to the digit."""
        return {
            "settings": {
                "hidden": 16,
                "candidates": 8,
                "policy_updates": 1,
                "evaluator_updates": 1,
                "double": True,
            }
        }

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Empty the history and the memory and reset epsilon (CATCH, sec. 4.1); the networks carry over."""
        self.budget, self.adapting = budget, adapting
        steps = len(self.space.decisions)
        self.archs = torch.zeros(self.trials, 0, steps, dtype=torch.long)
        self.rewards = torch.zeros(self.trials, 0, dtype=torch.float64)
        self.behaviour_log_probs = torch.zeros(self.trials, 0, steps, dtype=self.dtype)
        self.replay = PrioritizedReplay(self.trials, self.settings.replay_alpha)
        super().begin_task(budget, adapting)
        # What was asked and not told yet, in order of asking.
        self._pending = torch.zeros(self.trials, 0, steps, dtype=torch.long)
        self._pending_log_probs = torch.zeros(self.trials, 0, steps, dtype=self.dtype)

    # ---- asking ----------------------------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Probability of a random candidate at this point of the task: linear from its start to its end."""
        settings = self.settings
        start, end = (
            (settings.epsilon_start_adapting, settings.epsilon_end_adapting)
            if self.adapting
            else (settings.epsilon_start, settings.epsilon_end)
        )
        return start + (end - start) * self._progress()

    def _progress(self) -> float:
        """How far into the task's budget the search is, from 0 (first step after the random networks) to 1."""
        initial = self.settings.initial_networks
        return min(1.0, max(0.0, (self.archs.shape[1] - initial) / max(1, self.budget - initial - 1)))

    def ask(self, n: int = 1) -> Tensor:
        """Random networks while the history is being opened, then the evaluator's choice among candidates.

        A network that was asked or told is not asked again while a candidate is new. Networks may be asked while others
        are not told yet: the proposal rests on what has been told.
        """
        with torch.no_grad(), few_threads(self.trials):
            archs, log_probs = self._propose(n)
        self._pending = torch.cat([self._pending, archs], 1)
        self._pending_log_probs = torch.cat([self._pending_log_probs, log_probs], 1)
        return archs

    def _propose(self, n: int) -> tuple[Tensor, Tensor]:
        """Networks to ask for, and the log-probability of each of their choices: both ``[trials, n, decisions]``."""
        if self.archs.shape[1] < self.settings.initial_networks:
            archs = self.space.sample(self.rng, n)
            return archs, self._uniform_log_probs(archs)
        z = self._context()
        few = self.settings.candidates
        count = max(self.settings.candidates_adapting or few if self.adapting else few, 2 * n)
        candidates = self._sifted(self.candidates(z, count * self._drawn))
        scores = self.preference(candidates, z)
        fallback = self._fallback(n)
        # Two architectures of one network are one evaluation.
        numbers = self.space.code(self.space.canonical(candidates))
        known = self.space.code(self.space.canonical(torch.cat([self.archs, self._pending], 1)))
        fresh = ~(numbers.unsqueeze(2) == known.unsqueeze(1)).any(2)
        asked = []
        for k in range(n):
            explore = self.rng.uniform(1) < self.epsilon
            lottery = self.rng.uniform(candidates.shape[1])
            preference = torch.where(explore, lottery, scores).masked_fill(~fresh, -torch.inf)
            best = preference.argmax(1, keepdim=True)
            index = best.unsqueeze(-1).expand(-1, -1, candidates.shape[-1])
            exhausted = ~fresh.any(1).view(-1, 1, 1)
            asked.append(torch.where(exhausted, fallback[:, k : k + 1], candidates.gather(1, index)))
            fresh = fresh & (numbers != numbers.gather(1, best))
        archs = torch.cat(asked, 1)
        log_probs, _ = self.controller.log_probs(z.unsqueeze(1).expand(-1, n, -1), archs)
        return archs, log_probs

    def _context(self) -> Tensor:
        """A draw from the posterior given the history, from the prior while there is none: ``[trials, latent]``."""
        if not self.archs.shape[1]:
            empty = torch.zeros(self.trials, 1, self.settings.latent, dtype=self.dtype)
            spread = torch.full_like(empty, float(self.context != "zero"))
            return self._draw_context(empty, spread).squeeze(1)
        mean, variance = self._posterior(*self._history())
        return self._draw_context(mean[:, -1:], variance[:, -1:]).squeeze(1)

    @property
    def _drawn(self) -> int:
        """Candidates drawn for each that the evaluator sees."""
        return _DRAWN if self.attributes and self.attributes_for in ("filter", "both") else 1

    def _sifted(self, candidates: Tensor) -> Tensor:
        """Of ``[trials, more, decisions]`` the share whose attributes are best."""
        if self._drawn == 1:
            return candidates
        best = self.codes.promise(candidates).topk(candidates.shape[1] // self._drawn, dim=1).indices
        return candidates.gather(1, best.unsqueeze(-1).expand(-1, -1, candidates.shape[-1]))

    def _fallback(self, n: int) -> Tensor:
        """What is asked where the policy has nothing new left to propose: ``[trials, n, decisions]``."""
        if self.settings.fallback == "random":
            return self.space.sample(self.rng, n)
        best = self.rewards.argmax(1).view(-1, 1, 1).expand(-1, n, self.archs.shape[-1])
        return self.space.mutate(self.archs.gather(1, best), self.rng)

    def candidates(self, z: Tensor, count: int) -> Tensor:
        """What the evaluator chooses among: samples of the controller (CATCH, sec. 3.2), and mutants if set.

        Args:
            z: the context ``[trials, latent]``.
            count: how many.

        Returns:
            Int64 ``[trials, count, decisions]``.
        """
        mutants = int(self.settings.mutations_adapting * count) if self.adapting else 0
        proposed = self.controller.sample(z, self.rng, count - mutants)
        return torch.cat([proposed, self._mutants(mutants, _PARENTS)], 1) if mutants else proposed

    def _mutants(self, count: int, parents: int) -> Tensor:
        """One-step mutations of so many best networks, in turn: int64 ``[trials, count, decisions]``."""
        best = self.rewards.topk(min(parents, self.rewards.shape[1]), dim=1).indices
        places = best[:, torch.arange(count) % best.shape[1]]
        return self.space.mutate(
            self.archs.gather(1, places.unsqueeze(-1).expand(-1, -1, self.archs.shape[-1])), self.rng
        )

    def preference(self, candidates: Tensor, z: Tensor) -> Tensor:
        """How much each candidate is worth evaluating: the evaluator's prediction (CATCH, sec. 3.3).

        Args:
            candidates: int64 ``[trials, count, decisions]``.
            z: the context ``[trials, latent]``.

        Returns:
            Float64 ``[trials, count]``.
        """
        codes = self.codes(candidates).to(self.dtype)
        return self.evaluator(codes, z.unsqueeze(1).expand(-1, codes.shape[1], -1)).double()

    def _uniform_log_probs(self, archs: Tensor) -> Tensor:
        """Log-probability of each action under uniform choice among the valid ones: ``[trials, n, decisions]``."""
        return torch.stack(
            [-self.space.valid_choices(archs[..., :t]).sum(-1).to(self.dtype).log() for t in range(archs.shape[-1])],
            dim=-1,
        )

    # ---- learning --------------------------------------------------------------------------------------------------

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Extend the history; once it is open, take a few steps on the joint objective."""
        log_probs = self._settle(archs)
        self.archs = torch.cat([self.archs, archs], 1)
        self.rewards = torch.cat([self.rewards, rewards], 1)
        self.behaviour_log_probs = torch.cat([self.behaviour_log_probs, log_probs], 1)
        self.replay.append(archs.shape[1])
        if self.archs.shape[1] >= self.settings.initial_networks:
            with few_threads(self.trials):
                self._train()

    def _settle(self, archs: Tensor) -> Tensor:
        """Networks are pending no more; the log-probabilities with which they were asked, ``[trials, n, decisions]``.

        Networks from elsewhere have those of being drawn at random.
        """
        log_probs = []
        for told in archs.unbind(1):
            asked = (self._pending == told.unsqueeze(1)).all(-1).all(0).nonzero()
            if len(asked) == 0:
                log_probs.append(self._uniform_log_probs(told.unsqueeze(1)))
                continue
            place = int(asked[0])
            log_probs.append(self._pending_log_probs[:, place : place + 1])
            left = torch.arange(self._pending.shape[1]) != place
            self._pending, self._pending_log_probs = self._pending[:, left], self._pending_log_probs[:, left]
        return torch.cat(log_probs, 1)

    def _train(self) -> None:
        for update in range(max(self.settings.policy_updates, self.settings.evaluator_updates)):
            loss = self.joint_loss(
                policy=update < self.settings.policy_updates, evaluator=update < self.settings.evaluator_updates
            )
            self._step(self.optimizer, loss)

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step down a loss ``[trials]``; no trial's gradient reaches another's weights."""
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        clip_gradients_per_trial(list(self.networks.parameters()), self.settings.gradient_clip)
        optimizer.step()

    def joint_loss(self, policy: bool = True, evaluator: bool = True) -> Tensor:
        """One draw of the joint objective on the present history (CATCH, eq. 2), to be minimised: ``[trials]``.

        Every network is seen in a context drawn afresh from the posterior given the networks before it: the
        (network, context, reward) tuple of sec. 3.3, with the gradient still attached.

        Args:
            policy: include PPO's surrogate and the entropy bonus.
            evaluator: include the Huber loss on a prioritised batch, and update that batch's priorities.
        """
        settings = self.settings
        codes, rewards = self._history()
        mean, variance = self._posterior(codes, rewards)
        held = codes.shape[1]
        prefix = torch.arange(held).clamp(min=min(settings.initial_networks, held)) - 1
        contexts = self._draw_context(mean[:, prefix], variance[:, prefix])
        loss = torch.zeros(self.trials, dtype=self.dtype)
        if evaluator:
            beta = settings.replay_beta + (1 - settings.replay_beta) * self._progress()
            chosen, weights = self.replay.sample(self.rng, settings.replay_fraction, beta)

            def pick(values: Tensor) -> Tensor:
                return values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

            errors = self.evaluator(pick(codes), pick(contexts)) - rewards.gather(1, chosen)
            loss = loss + (weights.to(self.dtype) * huber(errors, settings.huber_delta)).mean(1)
            self.replay.update(chosen, errors.detach())
        if policy:
            recent = slice(-settings.policy_window, None)
            log_probs, entropy = self.controller.log_probs(contexts[:, recent], self.archs[:, recent])
            loss = loss + ppo_loss(log_probs, self.behaviour_log_probs[:, recent], rewards[:, recent], settings.clip)
            loss = loss - settings.entropy_weight * entropy.mean((1, 2))
        if self.context == "posterior":
            predicted = chosen.shape[1] if evaluator else held
            loss = loss + self._kl_penalty(mean, variance, predicted, min(settings.initial_networks, held))
        return loss

    def _kl_penalty(self, mean: Tensor, variance: Tensor, predicted: int, smallest: int) -> Tensor:
        """The KL term of an objective: ``[trials]``.

        Args:
            mean: of the posterior after each prefix of the history, ``[trials, n, latent]``.
            variance: likewise.
            predicted: rewards of whose loss the objective takes the mean.
            smallest: networks in the shortest history that a context is drawn from.
        """
        settings = self.settings
        prefixes = slice(smallest - 1, None) if settings.kl_prefixes == "all" else slice(-1, None)
        kl = kl_to_standard_normal(mean[:, prefixes], variance[:, prefixes]).mean(1)
        return settings.kl_weight / (predicted if settings.kl_per_reward else 1) * kl

    def _history(self) -> tuple[Tensor, Tensor]:
        """Codes ``[trials, n, code]`` and normalised rewards ``[trials, n]`` of every network so far."""
        rewards = normalise(self.rewards, self.settings.normalisation)
        return self.codes(self.archs).to(self.dtype), rewards.to(self.dtype)

    def _posterior(self, codes: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of z after each prefix of the history: ``[trials, n, latent]``."""
        if self.context == "posterior":
            return self.encoder(codes, rewards)
        shape = (*rewards.shape, self.settings.latent)
        return torch.zeros(shape, dtype=self.dtype), torch.full(
            shape, float(self.context == "random"), dtype=self.dtype
        )

    def _draw_context(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Z = mean + std * eps by reparameterisation: ``[trials, n, latent]``."""
        return mean + variance.sqrt() * self.rng.normal(*mean.shape[1:]).to(self.dtype)

    # ---- carrying over ---------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Any]:
        """The three networks, with what is needed to refuse them where they do not fit."""
        return {
            "space": self.space.name,
            "sizes": list(self.space.sizes),
            "settings": asdict(self.settings),
            "context": self.context,
            "attributes": list(self.codes.names),
            "networks": {name: value.clone() for name, value in self.networks.state_dict().items()},
        }

    def load_weights(self, weights: dict[str, Any], first: int = 0) -> None:
        """Start from meta-trained networks; their trials are dealt out to this agent's in turn."""
        if not isinstance(weights, dict) or not {"space", "sizes", "settings", "networks"} <= weights.keys():
            raise ValueError("this file does not hold the weights of a CATCHer")
        if weights["space"] != self.space.name or weights["sizes"] != list(self.space.sizes):
            raise ValueError(
                f"these CATCHer weights belong to the space '{weights['space']}', this search is on '{self.space.name}'"
            )
        for name in ("latent", "hidden", "layers", "prior_factor"):
            theirs, ours = weights["settings"].get(name, False), getattr(self.settings, name)
            if theirs != ours:
                raise ValueError(f"these CATCHer weights have {name}={theirs}, this agent has {name}={ours}")
        if weights.get("attributes", []) != self.codes.names:
            theirs, ours = (", ".join(each) or "none" for each in (weights.get("attributes", []), self.codes.names))
            raise ValueError(f"these CATCHer weights read the attributes: {theirs}; this agent reads: {ours}")
        own = self.networks.state_dict()
        if {name: value.shape[1:] for name, value in weights["networks"].items()} != {
            name: value.shape[1:] for name, value in own.items()
        }:
            raise ValueError(f"these weights belong to another kind of agent than {type(self).__name__}")
        self.networks.load_state_dict(
            {
                name: value[(first + torch.arange(self.trials)) % len(value)].to(self.dtype)
                for name, value in weights["networks"].items()
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, history, priorities and random state."""
        return {
            **super().state_dict(),
            "networks": {name: value.clone() for name, value in self.networks.state_dict().items()},
            # Adam hands out its live moments; a saved state must not change as the search goes on.
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "budget": self.budget,
            "adapting": self.adapting,
            "archs": self.archs,
            "rewards": self.rewards,
            "behaviour_log_probs": self.behaviour_log_probs,
            "priorities": self.replay.priorities,
            "pending": self._pending,
            "pending_log_probs": self._pending_log_probs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.budget, self.adapting = state["budget"], state["adapting"]
        self.archs, self.rewards = state["archs"], state["rewards"]
        self.behaviour_log_probs = state["behaviour_log_probs"]
        self.replay.priorities = state["priorities"]
        self._pending, self._pending_log_probs = state["pending"], state["pending_log_probs"]
