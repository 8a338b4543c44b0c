"""Naive transfer to a device: quality as the sources showed it, latency from a few networks timed on the device.

The baseline of searches for networks that are both accurate and fast on a device whose latencies nobody has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search.agents.naive_transfer import NaiveTransfer
from search.attributes.few_shot_latency import latency_features, networks_to_time, other_devices, predict_latency
from search.rewards.latency import check_exponent
from search.spaces.base import SearchSpace
from search.tables.latency import read_latency


class LatencyTransfer(NaiveTransfer):
    """Walk down the predicted reward ``quality x latency^exponent``, whatever the target says.

    Quality is predicted as `NaiveTransfer` ranks, by a random forest on one-hot codes for each source task, but fitted
    to the rewards themselves, so source tasks should reward quality alone; each counts in shares of its mean reward.
    Latency is predicted as by `search.attributes.few_shot_latency.FewShotLatency`: each trial times ``samples``
    networks of its own on the target's device, before the first evaluation. They are not trained for it, and do not
    count as evaluations. The target latency of the reward changes no order. On a target without a device it walks down
    the predicted quality.

    Args:
        space: what can be asked; a space of the latency table where the target has a device.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        trees: of each forest. scikit-learn's default.
        exponent: w of the target's reward, at most 0.
        samples: networks that are timed.
        held_out: devices of the table whose latencies may not be used, beside the target's.
        latency_table: where networks are timed and the other devices' latencies are read (format:
            `search.tables.latency`).
        device: the target's; a study fills in that of its task.

    Raises:
        FileNotFoundError: there is a device, but not the table.
        ValueError: the table lacks a device, or a number is out of range.
    """

    caches = NaiveTransfer.caches | {"_found"}

    # Predicted quality, float32 [meta-trained trials, size]; None until there is something to predict from.
    _quality: Tensor | None = None
    # What `_ranked` has found, behind the quality that it is of: whoever corrects it asks again and again.
    _found: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        trees: int = 100,
        exponent: float = -0.07,
        samples: int = 10,
        held_out: Sequence[str] = (),
        latency_table: str = "nasbench201_latency.npz",
        device: str = "",
    ):
        super().__init__(space, trials, seed, trees)
        self._know_device(exponent, samples, held_out, latency_table, device)

    def _know_device(
        self, exponent: float, samples: int, held_out: Sequence[str], latency_table: str, device: str
    ) -> None:
        """Take in what is said of the target's device, and time networks on it."""
        check_exponent(exponent)
        self.exponent, self.samples, self.held_out = exponent, samples, tuple(held_out)
        self.latency_table, self.device = latency_table, device
        self._factors = self._time() if device or held_out else None

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Remember what is known; on a source task the rewards too."""
        super().learn(archs, rewards)
        if not self.adapting:
            self._quality = None

    def _time(self) -> Tensor | None:
        """Time a few networks for each trial: the factors of predicted rewards, float64 ``[trials, size]``.

        None where the target has no device; the table is looked at all the same, for a wrong name in ``held_out``.
        """
        table = read_latency(self.latency_table, self.space)
        sources = other_devices(table, self.device or self.held_out[0], self.held_out)
        if not self.device:
            return None
        features, column = latency_features(self.space, table, sources), table.devices.index(self.device)
        factors = []
        for trial in range(self.trials):
            networks = networks_to_time(features, self.samples, seed=self.rng.seed + trial)
            predicted = predict_latency(features, networks, table.milliseconds[networks, column])
            # Trial by trial, for vectorised powers round by the place in their batch.
            factors.append(predicted**self.exponent)
        return torch.stack(factors)

    def _ranked(self) -> Tensor | None:
        """In the order of the predicted reward."""
        quality = self._quality
        if quality is None:
            return None
        if self._found is None or self._found[0] is not quality:
            reward = quality[torch.arange(self.trials) % len(quality)].double()
            reward = reward if self._factors is None else reward * self._factors
            self._found = quality, reward.argsort(dim=1, descending=True, stable=True)
        return self._found[1]

    # ---- carrying over ---------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        sources = [(codes, rewards) for codes, rewards in self._sources if codes.shape[1]]
        if self._quality is not None or not sources:
            return
        shares = [rewards / rewards.abs().mean(1, keepdim=True).clamp(min=1e-12) for _, rewards in sources]
        self._quality = torch.stack(list(self._by_forests([codes for codes, _ in sources], shares))).float()

    def weights(self) -> dict[str, Any]:
        """The quality of each architecture by each trial's forests; none where there was no source task."""
        self._fit()
        quality = torch.zeros(0, 0) if self._quality is None else self._quality.clone()
        return {"space": self.space.name, "sizes": list(self.space.sizes), "quality": quality}

    def load_weights(self, weights: dict[str, Any], first: int = 0) -> None:
        """Start from predicted qualities; they are dealt out to this agent's trials in turn."""
        self._check_weights(weights, "quality")
        quality = weights["quality"]
        self._sources, self._order = [], None
        self._quality = quality.roll(-first, 0) if len(quality) else None

    def state_dict(self) -> dict[str, Any]:
        """The source evaluations, the predicted qualities, and what was asked of the present task."""
        return super().state_dict() | {"quality": self._quality}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._quality = state["quality"]
