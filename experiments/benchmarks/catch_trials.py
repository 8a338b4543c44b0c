"""How long 500 CATCHer trials take together, beside the same trials one after another; and what opening a table costs.

    python experiments/benchmarks/catch_trials.py nasbench201.npz [--trials 500] [--alone 10] [--repeats 3]

Every search goes through the loop and the journal, as in a run of a recipe. The agents start from weights of one short
meta-training: what the weights are does not change how long a search takes. "Alone" is extrapolated from a few trials.
Bound: 500 trials x 50 evaluations in 90 s on 2 cores, at least 20 times faster than alone; a table opens in 20 ms and
50 MB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BUDGET = 50

_OPEN = """
import resource, sys, time
import numpy, torch
from search.spaces.nasbench201 import NASBench201
from search.tasks.table import TableTask
def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
space, before = NASBench201(), used()
times = []
for _ in range(20):
    start = time.perf_counter()
    TableTask(space, sys.argv[1], "cifar10_valid", "val", "acc", 200)
    times.append(time.perf_counter() - start)
print(times[0] * 1e3, sorted(times)[10] * 1e3, used() - before)
"""


def table_row(table: str) -> str:
    """Opening the table in a fresh process: first time, median of 20, and how much the process grew."""
    command = [sys.executable, "-c", _OPEN, table]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own words
    first, median, grown = (float(word) for word in words.split())
    return f"table opened: first {first:.1f} ms, median of 20 {median:.1f} ms, memory +{grown:.0f} MiB"


def timed_search(make: Callable[[int, int], object], table: str, trials: int, seed: int) -> float:
    """Seconds of one search with its journal, the agent being built included."""
    from search.loop.run_search import run_search
    from search.loop.search import Search, Stage
    from search.runs.journal import Journal
    from search.spaces.nasbench201 import NASBench201
    from search.tasks.table import TableTask

    task = TableTask(NASBench201(), table, "cifar10_valid", "val", "acc", 200)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.sqlite")
        start = time.perf_counter()
        agent = make(trials, seed)
        stage = Stage("cifar10", lambda: task, BUDGET, adapting=True)
        run_search(Search("cifar10/catch", agent, [stage], seed), journal)  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
        journal.close()
    return seconds


def main() -> None:
    """Print one row an agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="the NAS-Bench-201 table; 'catchmark data nasbench201' makes it")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--alone", type=int, default=10, help="trials run one after another")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    print(table_row(chosen.table))

    import torch

    from search.agents.catcher.agent import CATCHer
    from search.agents.catcher.bayesian import BayesianCATCHer
    from search.spaces.nasbench201 import NASBench201

    space = NASBench201()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {BUDGET} evaluations a trial")
    for kind in (CATCHer, BayesianCATCHer):
        weights = kind(space, 1, 0).weights()

        def make(trials: int, seed: int, kind: type[CATCHer] = kind, weights: dict = weights) -> CATCHer:
            agent = kind(space, trials, seed)
            agent.load_weights(weights)
            return agent

        together = [timed_search(make, chosen.table, chosen.trials, 1000 * k) for k in range(chosen.repeats)]
        one_by_one = [timed_search(make, chosen.table, 1, k) for k in range(chosen.alone)]
        alone = statistics.mean(one_by_one) * chosen.trials
        spread = f"{min(together):.1f} to {max(together):.1f}"
        print(
            f"{kind.__name__}: {chosen.trials} trials together {statistics.median(together):.1f} s ({spread}, "
            f"{chosen.repeats} runs), alone {statistics.mean(one_by_one):.2f} s a trial, so {alone:.0f} s for all: "
            f"{alone / statistics.median(together):.0f} times faster"
        )
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
