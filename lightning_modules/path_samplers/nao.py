"""A pool of architectures that a predictor improves: NAO."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import (
    Choices,
    Evaluate,
    PathSampler,
    Space,
    best_first,
    check_at_least,
    distinct,
)
from lightning_modules.path_samplers.nao_model import EncoderPredictorDecoder, fit

_POOL_STREAM, _MODEL_STREAM = 1, 2
"""Keep draws from the pool apart from the seeds of the model."""


class NAOSampler(PathSampler):
    """Neural architecture optimisation with weight sharing (NAO, Luo et al., NeurIPS 2018).

    Paths are uniform during warm-up. When it ends, and regularly from then on, the shared weights rank a pool of
    architectures (at first random ones), an encoder, predictor and decoder learn from the ranking, the best of the
    pool move along the predictor's gradient, and the pool is renewed: the best, the new, and random ones. From then
    on paths are uniform over the pool.

    Defaults are Landmark Regularization's for cell benchmarks, read in its code, unless another source is named. The
    model starts afresh each time (assumed: the pool then is the whole state). It stays on the CPU, where its short
    sequences are quick.

    Attributes:
        topped_up: how many random architectures stood in for new ones in the last renewal, because no step size led
            to as many as wanted.

    Args:
        space: what can be sampled.
        warmup: epochs of uniform paths (NAS-Bench-201: 100).
        every: epochs between two renewals (40; ImageNet: 20).
        seed_architectures: best of the pool that move (100; ImageNet: 50).
        new: decoded architectures wanted from them (300; ImageNet: 10).
        keep: best that stay in the pool (100).
        random: random architectures in a renewed pool (400; ImageNet: 20). The first pool is ``random`` and
            ``seed_architectures`` together (assumed).
        step_sizes: the gradient is followed 1, 2, ... up to this far, until there are enough new architectures (50).
        hidden: of encoder and decoder (16).
        embedding: of a token (48, assumed: see `EncoderPredictorDecoder`).
        predictor_width: of the predictor (64).
        dropout: of all three (0.1).
        predictor_epochs: of the model's training (1,000).
        batch_size: of the same (100).
        learning_rate: of the same, Adam (1e-3).
        weight_decay: of the same (1e-4).
        gradient_clip: of the same (5).
        trade_off: weight of the predictor's squared error against the decoder's likelihood (0.8).

    Raises:
        ValueError: a number is below what makes sense.
    """

    def __init__(
        self,
        space: Space,
        warmup: int = 100,
        every: int = 40,
        seed_architectures: int = 100,
        new: int = 300,
        keep: int = 100,
        random: int = 400,
        step_sizes: int = 50,
        hidden: int = 16,
        embedding: int = 48,
        predictor_width: int = 64,
        dropout: float = 0.1,
        predictor_epochs: int = 1000,
        batch_size: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        gradient_clip: float = 5.0,
        trade_off: float = 0.8,
    ):
        super().__init__(space)
        check_at_least(0, warmup=warmup, new=new, random=random, predictor_epochs=predictor_epochs)
        check_at_least(1, every=every, keep=keep, seed_architectures=seed_architectures)
        check_at_least(1, step_sizes=step_sizes, batch_size=batch_size)
        if not 0 <= trade_off <= 1:
            raise ValueError(f"trade_off is {trade_off}, it must be between 0 (decoder only) and 1 (predictor only)")
        self.warmup, self.every, self.step_sizes = warmup, every, step_sizes
        self.seed_architectures, self.new, self.keep, self.random = seed_architectures, new, keep, random
        self.model_settings: dict[str, Any] = {
            "hidden": hidden,
            "embedding": embedding,
            "predictor_width": predictor_width,
            "dropout": dropout,
        }
        self.fit_settings: dict[str, Any] = {
            "epochs": predictor_epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "gradient_clip": gradient_clip,
            "trade_off": trade_off,
        }
        self.topped_up = 0
        self._pool: list[Choices] = []

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {
            "warmup": 1,
            "every": 1,
            "seed_architectures": 4,
            "new": 4,
            "keep": 4,
            "random": 6,
            "step_sizes": 3,
            "predictor_epochs": 3,
            "hidden": 4,
            "embedding": 4,
            "predictor_width": 4,
        }

    @property
    def pool(self) -> tuple[Choices, ...]:
        """What paths are drawn from; empty during warm-up."""
        return tuple(self._pool)

    def path(self, seed: int, step: int, index: int = 0) -> Path:
        """A random architecture: of the space during warm-up, of the pool afterwards."""
        if not self._pool:
            # The same draw as that of `UniformSampler`, whose trained weights may be this sampler's warm-up.
            return Path(self.space.draw("path", seed, step, index))
        generator = np.random.default_rng(np.random.SeedSequence((seed, step, index, _POOL_STREAM)))
        return Path(self._pool[int(generator.integers(len(self._pool)))])

    def epoch_ended(self, evaluate: Evaluate, seed: int, epoch: int, epochs: int) -> None:
        """Renew the pool where warm-up is over and the time has come.

        Not after the last epoch: no path would be drawn from that pool any more.
        """
        done = epoch + 1
        if not self.warmup <= done < epochs or (done - self.warmup) % self.every:
            return
        worth = self._evaluated(evaluate, seed)
        new = self._improved(worth, seed, done)
        self.topped_up = self.new - len(new)
        kept = best_first(worth)[: self.keep]
        wanted = self.topped_up + self.random
        fresh = distinct(self.space, wanted, "nao random", seed, done, besides={*kept, *new})
        self._pool = [*kept, *new, *fresh]

    def choose(self, evaluate: Evaluate, count: int, seed: int) -> list[Choices]:
        """The best of the pool and of the architectures that a last predictor makes of it."""
        worth = self._evaluated(evaluate, seed)
        new = self._improved(worth, seed, 0)
        if new:
            worth |= zip(new, evaluate(new), strict=True)
        return best_first(worth)[:count]

    def _evaluated(self, evaluate: Evaluate, seed: int) -> dict[Choices, float]:
        """The pool, or the first one, and the worth of its architectures."""
        pool = self._pool or distinct(self.space, self.seed_architectures + self.random, "nao pool", seed)
        return dict(zip(pool, evaluate(pool), strict=True))

    def _improved(self, worth: dict[Choices, float], seed: int, epoch: int) -> list[Choices]:
        """What the predictor makes of the best: valid, not among those of known worth, at most as many as wanted."""
        # One that diverged teaches nothing, and would leave no scale to the others.
        known = [choices for choices in best_first(worth) if math.isfinite(worth[choices])]
        if not known or not self.new:
            return []
        model_seed, fit_seed = np.random.SeedSequence((seed, epoch, _MODEL_STREAM)).generate_state(2).tolist()
        # The end of an epoch may lie within a validation, under inference mode, whose tensors cannot be trained.
        with torch.inference_mode(False):
            archs = torch.tensor(known)
            model = EncoderPredictorDecoder(self.space.sizes, **self.model_settings, seed=model_seed)
            targets = torch.tensor([worth[choices] for choices in known], dtype=torch.float64)
            fit(model, archs, targets, **self.fit_settings, seed=fit_seed)
            reached = model.ascended(archs[: self.seed_architectures], range(1, self.step_sizes + 1))
        candidates = reached.flatten(0, 1)
        valid = candidates[self.space.is_valid(candidates)].tolist()
        new = dict.fromkeys(tuple(choices) for choices in valid)  # in order: short steps first, of the best first
        return [choices for choices in new if choices not in worth][: self.new]

    def get_extra_state(self) -> dict[str, Any]:
        """The pool, int64 ``[architectures, decisions]``."""
        return {"pool": torch.tensor(self._pool, dtype=torch.int64).reshape(-1, len(self.space.sizes))}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Draw from that pool."""
        self._pool = [tuple(choices) for choices in state["pool"].tolist()]
