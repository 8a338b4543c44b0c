"""The phase before the targets: agents practise on cheap tasks (CATCH, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.agents.base import MetaAgent
from search.loop.search import Stage
from search.spaces.base import SearchSpace
from search.tasks.base import TaskPool
from search.training.tensor_files import load_tensors, save_tensors

PHASE = "meta_training"
"""The first part of the name of every search that meta-trains."""


@dataclass
class MetaTraining:
    """What agents are meta-trained on, and for how long.

    Attributes:
        pool: where the tasks come from.
        agents: names of the agents that are meta-trained; each on the same tasks.
        epochs: meta-epochs, a new task each. CATCH, sec. 4.2.1: 25.
        networks: networks evaluated a meta-epoch. CATCH, sec. 4.2.1: 20.
        trials: independent meta-trainings of each agent, dealt out to the trials of a search in turn. Intervals and
            tests are over these, so five trials of each of 100 say more than 25 of each of 20.
    """

    pool: Callable[[SearchSpace], TaskPool]
    agents: list[str]
    epochs: int = 25
    networks: int = 20
    trials: int = 1

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """Cheap arguments, as a recipe gives them."""
        return {"epochs": 2, "networks": 6, "trials": 1}

    def __post_init__(self) -> None:
        """Refuse a phase that could not take place."""
        for name in ("epochs", "networks", "trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not self.agents:
            raise ValueError("agents is empty, at least one agent must be meta-trained")
        if len(set(self.agents)) < len(self.agents):
            raise ValueError(f"agents names one twice: {', '.join(self.agents)}")


@dataclass(frozen=True)
class MetaPhase:
    """One agent's meta-training.

    Attributes:
        agent: its name.
        target: the only target it is for; None where it is for all.
        settings: the recipe's.
        pool: the tasks.
    """

    agent: str
    target: str | None
    settings: MetaTraining
    pool: TaskPool

    @property
    def label(self) -> str:
        """Names the phase among the others of a run."""
        return self.agent if self.target is None else f"{self.agent} for {self.target}"

    @property
    def search(self) -> str:
        """The name of its search."""
        return f"{PHASE}/{self.label}"

    @property
    def evaluations(self) -> int:
        """All trials together."""
        return self.settings.trials * self.settings.epochs * self.settings.networks

    def serves(self, target: str, agent: str) -> bool:
        """Whether this agent's search on this target starts from here."""
        return agent == self.agent and self.target in (None, target)

    def _stage_label(self, index: int, seed: int) -> str:
        return f"{index + 1}: {self.pool.describe(index, seed)}"

    def sources(self, seed: int) -> dict[str, str]:
        """By each stage's label, what its evaluations are paid for together with."""
        return {self._stage_label(index, seed): self.pool.source(index, seed) for index in range(self.settings.epochs)}

    def stages(self, seed: int) -> list[Stage]:
        """The tasks in order; equal for every agent of a pool."""
        return [
            Stage(
                self._stage_label(index, seed),
                lambda index=index: self.pool.draw(index, seed),  # type: ignore[misc]
                self.settings.networks,
                adapting=False,
            )
            for index in range(self.settings.epochs)
        ]

    def save_weights(self, folder: Path, agent: MetaAgent) -> None:
        """Keep what the agent learned in the run's folder."""
        path = self._weights_path(folder)
        path.parent.mkdir(exist_ok=True)
        save_tensors(path, agent.weights())

    def start(self, folder: Path, agent: MetaAgent) -> None:
        """Let an agent begin with what was learned."""
        agent.load_weights(load_tensors(self._weights_path(folder)))

    def _weights_path(self, folder: Path) -> Path:
        return folder / "weights" / f"{self.label}.pt"


def phases(
    shared: tuple[MetaTraining, TaskPool] | None,
    by_target: Mapping[str | None, Sequence[tuple[MetaTraining, TaskPool]]],
) -> list[MetaPhase]:
    """Every agent's meta-training, in the order in which they run; under None those for all targets."""
    each: list[tuple[str | None, MetaTraining, TaskPool]] = [] if shared is None else [(None, *shared)]
    each += [(target, *training) for target, trainings in by_target.items() for training in trainings]
    return [MetaPhase(agent, target, settings, pool) for target, settings, pool in each for agent in settings.agents]
