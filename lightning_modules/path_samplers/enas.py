"""A controller that learns by policy gradient: ENAS."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import Choices, Evaluate, Space, best_of, check_at_least
from lightning_modules.path_samplers.learned import LearnedSampler

_PATH_STREAM, _TRAINING_STREAM, _CHOICE_STREAM = 1, 2, 3
"""Keep the draws of a path, of the controller's training and of the final choice apart."""
_TRIES = 100


class Controller(nn.Module):
    """An LSTM that makes one decision after the other, each given those before it (ENAS, sec. 2).

    Initial weights depend on ``seed`` alone, never on the global random state.

    Args:
        sizes: number of choices of each decision.
        hidden: of the LSTM.
        layers: of the LSTM.
        temperature: divides the raw logits.
        tanh_constant: the logits lie within plus and minus this.
        seed: of the initial weights.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        hidden: int = 32,
        layers: int = 2,
        temperature: float = 5.0,
        tanh_constant: float = 2.5,
        seed: int = 0,
    ):
        super().__init__()
        self.temperature, self.tanh_constant = temperature, tanh_constant
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first = nn.Parameter(0.1 * torch.randn(hidden))
            self.embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes[:-1])
            self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
            self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)

    def log_probs(self, archs: Tensor) -> list[Tensor]:
        """Log-probabilities of every choice, given the decisions before it.

        Args:
            archs: int64 ``[n, t]``, the first ``t`` decisions.

        Returns:
            One ``[n, choices]`` for each of the first ``t + 1`` decisions, or for all of them where none is left.
        """
        known = min(archs.shape[1], len(self.embeddings))
        inputs = [self.first.expand(len(archs), -1)]
        inputs += [embedding(archs[:, t]) for t, embedding in zip(range(known), self.embeddings, strict=False)]
        states, _ = self.lstm(torch.stack(inputs, dim=1))
        return [
            (self.tanh_constant * (head(states[:, t]) / self.temperature).tanh()).log_softmax(-1)
            for t, head in zip(range(known + 1), self.heads, strict=False)
        ]

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` architectures: int64 ``[n, decisions]``."""
        archs = torch.zeros(n, 0, dtype=torch.int64)
        for _ in self.heads:
            # The whole prefix runs again: at a handful of decisions that costs less than carrying the state along.
            drawn = torch.multinomial(self.log_probs(archs)[-1].exp(), 1, generator=generator)
            archs = torch.cat([archs, drawn], dim=1)
        return archs


class ENASSampler(LearnedSampler):
    """Efficient neural architecture search (ENAS, Pham et al., ICML 2018).

    Paths are drawn from a controller. It learns at the end of each epoch by REINFORCE, from the worth of architectures
    with the shared weights, the same on every rank. That is ``steps * aggregate`` evaluations an epoch; an
    architecture drawn again within an epoch, whose worth cannot have changed, is not evaluated again.

    Defaults are those of the public NAS-Bench-201 code (AutoDL-Projects). That code rewards the accuracy, between 0
    and 1, on a single batch, and moves its baseline only between epochs; here the reward is whatever evaluation
    measures, and the moving average moves with each architecture, as ENAS defines it.

    On a space with ruled-out choices an invalid draw is made again. The controller stays on the CPU, where its short
    sequences are quick.

    Args:
        space: what can be sampled.
        hidden: of the controller's LSTM (32).
        layers: of the same (2).
        temperature: divides its raw logits (5).
        tanh_constant: bound of its logits (2.5).
        learning_rate: of its training, Adam (1e-3).
        betas: of Adam (0, 0.999).
        epsilon: of Adam (1e-3).
        steps: of the controller at the end of each epoch (50).
        aggregate: architectures a step (20).
        reward_scale: times worth is the reward (0.01: accuracy in % to the published range).
        baseline_decay: of the moving average of rewards that each reward is compared with (0.99).
        entropy_weight: rewards a controller that is not sure yet (1e-4).
        gradient_clip: largest norm of all gradients together (5).
        candidates: architectures drawn and evaluated at the end (100).

    Raises:
        ValueError: a number is below what makes sense.
    """

    def __init__(
        self,
        space: Space,
        hidden: int = 32,
        layers: int = 2,
        temperature: float = 5.0,
        tanh_constant: float = 2.5,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.0, 0.999),
        epsilon: float = 1e-3,
        steps: int = 50,
        aggregate: int = 20,
        reward_scale: float = 0.01,
        baseline_decay: float = 0.99,
        entropy_weight: float = 1e-4,
        gradient_clip: float = 5.0,
        candidates: int = 100,
    ):
        super().__init__(space)
        check_at_least(0, steps=steps)
        check_at_least(1, aggregate=aggregate, candidates=candidates)
        if not 0 <= baseline_decay < 1:
            raise ValueError(f"baseline_decay is {baseline_decay}, it must be at least 0 and below 1")
        self.steps, self.aggregate, self.candidates = steps, aggregate, candidates
        self.reward_scale, self.baseline_decay = reward_scale, baseline_decay
        self.entropy_weight, self.gradient_clip = entropy_weight, gradient_clip
        self.controller = Controller(space.sizes, hidden, layers, temperature, tanh_constant)
        self.baseline: Tensor
        self.register_buffer("baseline", torch.tensor(float("nan"), dtype=torch.float64))
        self._optimizer = torch.optim.Adam(
            self.controller.parameters(), lr=learning_rate, betas=(betas[0], betas[1]), eps=epsilon
        )

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments; the higher learning rate lets a few steps change what is chosen."""
        return {"learning_rate": 0.1, "steps": 2, "aggregate": 3, "candidates": 10}

    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """An architecture drawn from the controller."""
        (choices,) = self._drawn(1, seed, step, index, _PATH_STREAM)
        return Path(choices)

    def epoch_ended(self, evaluate: Evaluate, seed: int, epoch: int, epochs: int) -> None:
        """Train the controller."""
        worth: dict[Choices, float] = {}
        for step in range(self.steps):
            drawn = self._drawn(self.aggregate, seed, epoch, step, _TRAINING_STREAM)
            unknown = [choices for choices in dict.fromkeys(drawn) if choices not in worth]
            if unknown:
                worth |= zip(unknown, evaluate(unknown), strict=True)
            # The end of an epoch may lie within a validation, under inference mode, whose tensors cannot be trained.
            with torch.inference_mode(False), torch.enable_grad():
                self._reinforce(drawn, [self.reward_scale * worth[choices] for choices in drawn])

    def _reinforce(self, drawn: list[Choices], rewards: list[float]) -> None:
        """One step of the controller on the mean over architectures; those that diverged (NaN) are left out."""
        archs, reward = torch.tensor(drawn), torch.tensor(rewards, dtype=torch.float64)
        archs, reward = archs[reward.isfinite()], reward[reward.isfinite()]
        if not len(archs):
            return
        blocks = self.controller.log_probs(archs)
        log_prob = sum(block.gather(1, archs[:, t : t + 1]).squeeze(1) for t, block in enumerate(blocks))
        entropy = sum(-(block.exp() * block).sum(1) for block in blocks)
        assert isinstance(log_prob, Tensor) and isinstance(entropy, Tensor)
        baseline, advantages = float(self.baseline), []
        # One architecture after the other: the baseline moves before its reward is compared with it.
        for each in (reward + self.entropy_weight * entropy.detach()).tolist():
            decay = 0.0 if math.isnan(baseline) else self.baseline_decay
            baseline = each if decay == 0 else decay * baseline + (1 - decay) * each
            advantages.append(each - baseline)
        self.baseline.fill_(baseline)
        loss = -(log_prob * torch.tensor(advantages)).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.controller.parameters(), self.gradient_clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The best of many architectures drawn from the controller."""
        drawn = self._drawn(max(self.candidates, count), seed, _CHOICE_STREAM)
        return best_of(list(dict.fromkeys(drawn)), evaluate)[:count]

    def _drawn(self, count: int, *seed: int) -> list[Choices]:
        """Valid architectures, some perhaps the same: a function of the seed and the controller."""
        word = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(word)
        found: list[Choices] = []
        for _ in range(_TRIES):
            archs = self.controller.sample(count - len(found), generator)
            found += [tuple(choices) for choices in archs[self.space.is_valid(archs)].tolist()]
            if len(found) == count:
                return found
        raise RuntimeError(
            f"ENASSampler: {_TRIES} draws gave {len(found)} valid architectures out of {count}; the controller has "
            "come to prefer what the space rules out"
        )
