"""Each target's best architecture tried on every target: is what is best on one the best on the others too?

CATCH compares networks searched for detection and segmentation with the one found for classification (sec. 4.3, "direct
transfer"). Winners are evaluated anew, with seeds that no search has used: the score that made an architecture the
best of many is better than what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.agents.base import Agent
from search.evaluation import Architecture
from search.loop.search import Search, Stage
from search.results.search import best_of_target
from search.runs.journal import Journal, Record
from search.spaces.base import SearchSpace
from search.statistics.rank_correlation import kendall_tau
from search.tasks.base import Task

EXCHANGE = "exchange"
"""The first part of the name of every search that tries winners elsewhere."""
FEWEST_IN_COMMON = 8
"""Architectures that two targets must have in common before their order is compared."""


@dataclass(frozen=True)
class Winner:
    """The best architecture of a target.

    Attributes:
        target: its name.
        agent: who found it.
        architecture: the choices.
        score: what it scored then.
    """

    target: str
    agent: str
    architecture: Architecture
    score: float


class _Listed(Agent):
    """Asks for given architectures in order."""

    def __init__(self, space: SearchSpace, architectures: Sequence[Architecture]):
        super().__init__(space)
        self._architectures, self._asked = architectures, 0

    def ask(self, n: int = 1) -> Tensor:
        archs = self._architectures[self._asked : self._asked + n]
        self._asked += len(archs)
        return torch.tensor([archs], dtype=torch.long)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"asked": self._asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._asked = state["asked"]


def find_winners(targets: Mapping[str, Mapping[str, Any]]) -> list[Winner]:
    """The best architecture of each target over all agents and trials; of equal ones the first.

    Targets on which nothing succeeded have none.

    Args:
        targets: by name what the summary says of them.
    """
    found = [(target, best_of_target(about["agents"])) for target, about in targets.items()]
    return [
        Winner(target, best[0], tuple(best[1]["choices"]), best[1]["score"])
        for target, best in found
        if best is not None
    ]


def exchange_search(
    space: SearchSpace, target: str, task: Task, winners: Sequence[Winner], repeats: int, seed: int, most_failures: int
) -> Search:
    """Every winner on one target, so many times each."""
    archs = [winner.architecture for _ in range(repeats) for winner in winners]
    stage = Stage(f"{target}, winners of all targets", lambda: task, len(archs), adapting=True)
    return Search(f"{EXCHANGE}/{target}", _Listed(space, archs), [stage], seed, most_failures=most_failures)


def summarise_exchange(
    journal: Journal, space: SearchSpace, winners: Sequence[Winner], targets: Sequence[str], agents: Sequence[str]
) -> dict[str, Any]:
    """What the exchange gave so far.

    Returns:
        ``winners``: by target its architecture and who found it; ``scores``: by target, and by the target whose winner
        was evaluated, the scores of every time, None where it failed; ``agreement``: for each two targets the number of
        ``architectures`` that both have evaluated in their searches, and ``kendall_tau`` of their mean scores there
        (None where there are too few, or all are worth the same).
    """
    return {
        "winners": {
            winner.target: {
                "architecture": space.format(winner.architecture),
                "choices": list(winner.architecture),
                "agent": winner.agent,
            }
            for winner in winners
        },
        "scores": {target: _scores(list(journal.records(f"{EXCHANGE}/{target}")), winners) for target in targets},
        "agreement": _agreement(journal, targets, agents),
    }


def _scores(records: Sequence[Record], winners: Sequence[Winner]) -> dict[str, list[float | None]]:
    scores: dict[str, list[float | None]] = {winner.target: [] for winner in winners}
    for record in records:
        score = record.evaluation.score
        # One by one they are steps, all at once they are slots of one step.
        scores[winners[(record.step + record.slot) % len(winners)].target].append(None if math.isnan(score) else score)
    return scores


def _agreement(journal: Journal, targets: Sequence[str], agents: Sequence[str]) -> list[dict[str, Any]]:
    """How alike the targets order the architectures that were evaluated on both."""
    by_target: dict[str, dict[Architecture, list[float]]] = {target: {} for target in targets}
    for target in targets:
        for agent in agents:
            for record in journal.records(f"{target}/{agent}"):
                if record.evaluation.status == "ok":
                    by_target[target].setdefault(record.architecture, []).append(record.evaluation.score)
    agreement = []
    for first, second in combinations(targets, 2):
        common = [arch for arch in by_target[first] if arch in by_target[second]]
        tau = None
        if len(common) >= FEWEST_IN_COMMON:
            means = [[float(np.mean(by_target[target][arch])) for arch in common] for target in (first, second)]
            if all(len(set(each)) > 1 for each in means):  # none of the two is a prediction
                tau = kendall_tau(*means)
        agreement.append({"targets": [first, second], "architectures": len(common), "kendall_tau": tau})
    return agreement


def exchange_table(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the report shows of ``summary["exchange"]``; None where no winner was tried elsewhere.

    Returns:
        ``targets``; ``rows``, for each winner its target, its mean score on each target and whether that is the highest
        there; ``words``, one sentence for each pair of targets.
    """
    scores, winners = summary["scores"], list(summary["winners"])
    means = {
        target: {
            winner: float(np.mean(good)) if (good := [s for s in by_winner.get(winner, []) if s is not None]) else None
            for winner in winners
        }
        for target, by_winner in scores.items()
    }
    if not any(mean is not None for by_winner in means.values() for mean in by_winner.values()):
        return None
    highest = {
        target: max((mean for mean in by_winner.values() if mean is not None), default=None)
        for target, by_winner in means.items()
    }
    rows = [
        (
            winner,
            summary["winners"][winner]["architecture"],
            [(mean := means[target][winner], mean is not None and mean == highest[target]) for target in scores],
        )
        for winner in winners
    ]
    return {"targets": list(scores), "rows": rows, "words": _words(summary, means, highest)}


def _words(
    summary: Mapping[str, Any],
    means: Mapping[str, Mapping[str, float | None]],
    highest: Mapping[str, float | None],
) -> list[str]:
    words = []
    for target, by_winner in means.items():
        if target not in by_winner or by_winner[target] is None or len(by_winner) < 2:
            continue
        better = [winner for winner, mean in by_winner.items() if mean == highest[target] and winner != target]
        choices = {winner: entry["choices"] for winner, entry in summary["winners"].items()}
        same = [winner for winner in better if choices[winner] == choices[target]]
        if by_winner[target] == highest[target] or same:
            words.append(f"On {target}, what its own search found is the best of the {len(by_winner)} winners.")
        else:
            words.append(f"On {target}, the winner of {better[0]} does better than what its own search found.")
    for pair in summary["agreement"]:
        first, second = pair["targets"]
        if pair["kendall_tau"] is not None:
            words.append(
                f"{first} and {second} order the {pair['architectures']} architectures that were tried on both with a "
                f"rank correlation (Kendall's tau) of {pair['kendall_tau']:.2f}."
            )
    return words
