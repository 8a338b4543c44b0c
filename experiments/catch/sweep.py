"""Chooses the assumed hyper-parameters of both CATCHers on source tasks only, and prints the table of the README.

Each data set of NAS-Bench-201 is left out in turn: agents are meta-trained on the 12-epoch columns of the other two and
search its 12-epoch column. No column of 200 epochs, on which the figures report, is read.

    python experiments/catch/sweep.py nasbench201.npz [--trials 48] [--only bayes] [--noise 0.5]

On these columns good agents find the best in nearly every trial, which tells them apart no more. ``--noise`` adds to
each different network's score a number from a normal distribution, of so many standard deviations of the thousand best:
the best is then a lucky one, as in a column of single trainings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from search.agents.adaptive_transfer import AdaptiveTransfer
from search.agents.base import MetaAgent
from search.agents.catcher.agent import CATCHer
from search.agents.catcher.bayesian import BayesianCATCHer, BayesianSettings
from search.agents.catcher.settings import CatcherSettings
from search.agents.predictor.candidates import WholeSpace
from search.agents.predictor.encodings import OneHotEncoding
from search.randomness import TrialRandom
from search.spaces.nasbench201 import NASBench201
from search.tasks.table import TableTask

SPACE = NASBench201()
SOURCES = ("cifar10_valid", "cifar100", "imagenet16_120")
META_TRIALS = 8
PAPER = CatcherSettings()
BAYES = BayesianCATCHer(SPACE).settings
PRACTICE = BayesianSettings()


class Noisy:
    """A column with noise; equal cells share their score.

    Args:
        task: of the column.
        share: standard deviation of the noise, over that of the thousand best scores.
        seed: of the noise.
    """

    def __init__(self, task: TableTask, share: float, seed: int):
        self._networks = WholeSpace(SPACE, [OneHotEncoding()], {})
        all_of_them = self._networks.candidates(torch.zeros(1, 0, len(SPACE.sizes), dtype=torch.long), TrialRandom(0))
        scores = task.scores(all_of_them.archs)[0]
        spread = share * scores.topk(1000).values.std()
        noise = torch.randn(len(scores), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self._names, order = all_of_them.names[0].sort()
        self._scores = (scores + spread * noise)[order]

    def scores(self, archs: torch.Tensor) -> torch.Tensor:
        """As `TableTask.scores`."""
        return self._scores[torch.searchsorted(self._names, self._networks.names(archs))]

    def all_scores(self) -> torch.Tensor:
        """Of each different network."""
        return self._scores


def search(agent: MetaAgent, task: TableTask | Noisy, budget: int, adapting: bool) -> torch.Tensor:
    """Best score after each evaluation: float64 ``[trials, budget]``."""
    agent.begin_task(budget, adapting)
    scores = []
    for _ in range(budget):
        archs = agent.ask(1)
        scores.append(task.scores(archs))
        agent.tell(archs, scores[-1])
    return torch.cat(scores, 1).cummax(1).values


def left_out(
    make: Callable[[int, int], MetaAgent], tasks: dict[str, TableTask | Noisy], epochs: int, trials: int
) -> list[str]:
    """One row of the table: geometric mean rank after 1 to 50 evaluations, and how often the best was found.

    Args:
        make: an agent from (trials, seed).
        tasks: the source tasks by name.
        epochs: meta-epochs; 500 source evaluations are spread over them, none if 0.
        trials: searches a left-out task.
    """
    log_ranks, found = [], []
    for number, (name, target) in enumerate(tasks.items()):
        agent = make(trials, 1000 * number)
        if epochs:
            meta = make(META_TRIALS, 1000 * number + 500)
            others = [task for other, task in tasks.items() if other != name]
            for epoch in range(epochs):
                search(meta, others[epoch % len(others)], 500 // epochs, adapting=False)
            agent.load_weights(meta.weights())
        best = search(agent, target, 50, adapting=True)[:, [0, 4, 9, 19, 49]]
        every = target.all_scores()
        assert every is not None
        ranks = 1 + torch.searchsorted(-every.sort(descending=True).values, -best.contiguous())
        log_ranks.append(ranks.double().log())
        found.append((ranks[:, -1] == 1).double().mean().item())
    means = torch.cat(log_ranks).mean(0).exp()
    return [f"{value:.2f}" for value in means.tolist()] + [" / ".join(f"{share:.2f}" for share in found)]


def variants() -> dict[str, tuple[Callable[[int, int], MetaAgent], int]]:
    """What is tried: each row changes one thing of the defaults."""
    rows: dict[str, tuple[Callable[[int, int], MetaAgent], int]] = {}

    def paper(label: str, epochs: int, **changes: Any) -> None:
        settings = replace(PAPER, **changes)
        rows[label] = (lambda trials, seed: CATCHer(SPACE, trials, seed, settings), epochs)

    def bayesian(label: str, practice: BayesianSettings = PRACTICE, context: Any = "posterior", **changes: Any) -> None:
        settings = replace(BAYES, **changes)
        rows[label] = (
            lambda trials, seed: BayesianCATCHer(SPACE, trials, seed, settings, practice, context),
            0 if "scratch" in label else 2,
        )

    for phase, epochs in (("scratch", 0), ("meta", 25)):
        paper(f"{phase}: defaults", epochs)
        paper(f"{phase}: z-scored rewards", epochs, normalisation="zscore")
        paper(f"{phase}: hidden 32", epochs, hidden=32)
        paper(f"{phase}: controller 1e-3", epochs, controller_learning_rate=1e-3)
        paper(f"{phase}: evaluator 1e-3", epochs, evaluator_learning_rate=1e-3)
        paper(f"{phase}: entropy 0.01", epochs, entropy_weight=0.01)
        paper(f"{phase}: 100 candidates", epochs, candidates=100)
        paper(f"{phase}: epsilon from 0.5", epochs, epsilon_start_adapting=0.5)
        paper(f"{phase}: 3 random networks", epochs, initial_networks=3)
    paper("meta: 200 candidates on a target", 25, candidates_adapting=200)
    paper("meta: 400 candidates on a target", 25, candidates_adapting=400)
    paper("meta: 200, half of them mutants", 25, candidates_adapting=200, mutations_adapting=0.5)
    floor: dict[str, Any] = {"candidates_adapting": 200, "uniform_floor": 0.1, "fallback": "mutation"}
    paper("meta: 200, floor 0.1", 25, **floor)
    paper("meta: 200, half of them mutants, floor 0.1", 25, mutations_adapting=0.5, **floor)
    bayesian("bayes scratch: defaults")
    bayesian("bayes scratch: 100 candidates", candidates=100)
    bayesian("bayes: defaults")
    bayesian("bayes: 100 candidates", candidates=100)
    bayesian("bayes: hidden 64", hidden=64)
    bayesian("bayes: no mutations", replace(PRACTICE, mutations=0.0))
    bayesian("bayes: 1 update a network", replace(PRACTICE, updates_per_network=1))
    bayesian("bayes: 6 updates a network", replace(PRACTICE, updates_per_network=6))
    bayesian("bayes: z-scored rewards", normalisation="zscore")
    bayesian("bayes: KL weight 0.01", kl_weight=0.01)
    bayesian("bayes: context of zeros", context="zero")
    bayesian("bayes: confidence 2", replace(PRACTICE, confidence=2.0))
    bayesian("bayes: adapts on rewards", replace(PRACTICE, adapts_on="rewards"))
    bayesian("bayes: whole space", replace(PRACTICE, whole=20_000))
    sources = replace(PRACTICE, prior="sources", opening="prior", whole=20_000)
    bayesian("bayes: sources as prior, ranks", sources)
    bayesian("bayes: sources as prior, rewards", replace(sources, adapts_on="rewards"))
    for on in ("ranks", "rewards"):
        rows[f"adaptive transfer, {on}"] = (
            lambda trials, seed, on=on: AdaptiveTransfer(SPACE, trials, seed, model="gp", adapts_on=on),  # type: ignore[misc]
            2,
        )
    return rows


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="the NAS-Bench-201 table; 'catchmark data nasbench201' makes it")
    parser.add_argument("--trials", type=int, default=48, help="searches a left-out task (default: %(default)s)")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--noise", type=float, default=0.0, help="on left-out columns and sources (default: none)")
    chosen = parser.parse_args()
    tasks: dict[str, TableTask | Noisy] = {}
    for number, name in enumerate(SOURCES):
        task = TableTask(SPACE, chosen.table, name, "val", "acc", 12)
        tasks[name] = Noisy(task, chosen.noise, number) if chosen.noise else task
    print(
        "| variant | rank@1 | @5 | @10 | @20 | @50 | best found, C10 / C100 / IN16 | seconds |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for label, (make, epochs) in variants().items():
        if label.startswith(chosen.only):
            start = time.monotonic()
            cells = left_out(make, tasks, epochs, chosen.trials)
            print("| " + " | ".join([label, *cells, f"{time.monotonic() - start:.0f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
