"""What the executor on Ray gains and costs, and whether a long search grows slower.

    python experiments/benchmarks/executor.py [--plot growth.svg] [--times nasbench101_sample.npz] [--only sleep ...]

``sleep``: a search whose evaluations only wait, in this process and on 2 workers. Bound: 1.9 times as fast.
``throughput``: evaluations a second where an evaluation does nothing, with every one of them in the journal at once.
``memory``: resident memory of the driving process over 10,000 such evaluations on Ray. Bound: flat.
``growth``: time a step and size of the journal over 10,000 evaluations in this process, with a plot. Bounds: the time
is flat, the size a line.
``schedule``: 64 workers simulated, without training: the share of their time that they work, where the search asks
anew whenever one finishes, and where it asks for 64 and waits for the slowest. Times are log-normal, or the measured
training times of a file: its column ``final_training_time_s``.
"""

from __future__ import annotations

import argparse
import heapq
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from search.agents.regularized_evolution import RegularizedEvolution
from search.evaluation import Evaluation, Proposal
from search.executors.base import Executor
from search.executors.ray import RayExecutor
from search.loop.run_search import run_search
from search.loop.search import Listener, Search, Stage
from search.runs.journal import Journal, Record
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import OneByOne, Task

MEBIBYTE = 2**20


class Waiting(OneByOne):
    """Evaluations that take so many seconds and do nothing."""

    def __init__(self, seconds: float):
        self.space, self.seconds = NASBench201(), seconds

    def evaluate_one(self, proposal: Proposal) -> Evaluation:
        """Wait."""
        if self.seconds:
            time.sleep(self.seconds)
        return Evaluation(float(sum(proposal.architecture)))


class Watch(Listener):
    """Notes the time of every step, and now and then the size of the journal and of this process.

    Attributes:
        steps: seconds of each step, which is an evaluation and its commit.
        journal: MiB of the journal, every so many evaluations.
        log: MiB of SQLite's log beside it, of what is not folded in yet.
        memory: MiB of this process.
    """

    def __init__(self, path: Path, every: int):
        self.path, self.every, self.count = path, every, 0
        self.steps: list[float] = []
        self.journal: list[float] = []
        self.log: list[float] = []
        self.memory: list[float] = []
        self.began = time.perf_counter()

    def evaluated(self, search: Search, records: Sequence[Record]) -> None:
        """Take the time, count, and look around now and then."""
        self.steps.append(time.perf_counter() - self.began)
        self.count += len(records)
        if self.count % self.every == 0:
            self.journal.append(self.path.stat().st_size / MEBIBYTE)
            self.log.append(0.0)
            with suppress(OSError):
                self.log[-1] = self.path.with_name(f"{self.path.name}-wal").stat().st_size / MEBIBYTE
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE)
        self.began = time.perf_counter()


def timed_search(task: Task, budget: int, executor: Executor | None, every: int) -> tuple[float, Watch]:
    """Seconds of a search with its journal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        journal, watch = Journal(path), Watch(path, every)
        stage = Stage("waiting", lambda: task, budget, adapting=True)
        search = Search("waiting/evolution", RegularizedEvolution(task.space), [stage], 0, executor=executor)
        began = time.perf_counter()
        run_search(search, journal, [watch])
        seconds = time.perf_counter() - began
        journal.close()
    return seconds, watch


def warm(executor: Executor) -> None:
    """Wait until every worker has started and evaluated."""
    executor.begin(Waiting(0.2))
    for number in range(2 * executor.workers):
        executor.submit((0, number), Proposal((0,) * 6))
    for _ in range(2 * executor.workers):
        executor.wait()


def measure_sleep(executor: Executor, seconds: float, budget: int, repeats: int) -> None:
    """Print how much faster workers are where an evaluation only waits."""
    ratios = []
    for _ in range(repeats):
        alone, _ = timed_search(Waiting(seconds), budget, None, budget)
        together, _ = timed_search(Waiting(seconds), budget, executor, budget)
        ratios.append(alone / together)
    print(
        f"sleep: {budget} evaluations of {seconds:g} s, {executor.workers} workers: {statistics.median(ratios):.2f} "
        f"times as fast as one process (median of {repeats}, {min(ratios):.2f} to {max(ratios):.2f})"
    )


def measure_throughput(executor: Executor, budget: int) -> None:
    """Print evaluations a second."""
    for name, where in (("in this process", None), (f"on {executor.workers} workers", executor)):
        seconds, _ = timed_search(Waiting(0.0), budget, where, budget)
        print(f"throughput: {budget / seconds:.0f} evaluations a second {name}, each committed to the journal")


def measure_memory(executor: Executor, budget: int) -> None:
    """Print the driving process's memory over a long search on Ray."""
    every = budget // 10
    seconds, watch = timed_search(Waiting(0.0), budget, executor, every)
    print(f"memory: driver's MiB after every {every} of {budget} evaluations ({seconds:.0f} s):")
    print(
        "  " + " ".join(f"{value:.0f}" for value in watch.memory), f"grown by {watch.memory[-1] - watch.memory[0]:.1f}"
    )


def measure_growth(budget: int, plot: Path | None) -> None:
    """Print, and draw, time a step and size of the journal over a long search in this process."""
    every = max(1, budget // 20)
    _, watch = timed_search(Waiting(0.0), budget, None, every)
    half = len(watch.steps) // 2
    first, second = (1e3 * statistics.median(steps) for steps in (watch.steps[:half], watch.steps[half:]))
    per_evaluation = np.polyfit(np.arange(1, len(watch.journal) + 1) * every, np.array(watch.journal) * MEBIBYTE, 1)[0]
    print(
        f"growth: a step takes {first:.2f} ms (median) in the first half of {budget} evaluations, {second:.2f} ms in "
        f"the second; the journal grows by {per_evaluation:.0f} bytes an evaluation to {watch.journal[-1]:.2f} MiB, "
        f"with at most {max(watch.log):.2f} MiB of SQLite's log beside it"
    )
    if plot is not None:
        plot.write_text(growth_svg(watch), encoding="utf-8")
        print(f"growth: drawn in {plot}")


def growth_svg(watch: Watch) -> str:
    """Time a step and size of the journal against evaluations: two panels, each with what it shows above its axis."""
    from search.reports.svg import GRID, INK, MUTED, SERIES, house_style, new_figure, to_svg

    made = watch.every * np.arange(1, len(watch.journal) + 1)
    parts = 1e3 * np.array(watch.steps[: len(made) * watch.every]).reshape(len(made), watch.every)
    low, median, high = np.percentile(parts, [10, 50, 90], axis=1)
    with house_style():
        figure = new_figure(9.2, 3.4)
        left, right = (figure.add_axes((x, 0.16, 0.4, 0.66)) for x in (0.055, 0.555))
        _panel(left, f"time a step: median and middle 80% of {watch.every} steps, ms", made[-1], 1.15 * high.max())
        left.fill_between(made, low, high, color=SERIES[0], alpha=0.16, linewidth=0)
        left.plot(made, median, "o-", color=SERIES[0], markersize=3.5, linewidth=1.9)
        total = np.array(watch.journal) + watch.log
        _panel(right, "size on disk, MiB", made[-1], 1.15 * total.max())
        right.plot(made, total, "s:", color=MUTED, markersize=3, linewidth=1.4)
        right.plot(made, watch.journal, "o-", color=SERIES[0], markersize=3.5, linewidth=1.9)
        for values, words in ((total, "with SQLite's log"), (watch.journal, "the journal")):
            place = {"xytext": (0, 7), "textcoords": "offset points", "ha": "right"}
            right.annotate(words, (made[-1], values[-1]), color=INK, fontsize=9, **place)
        for axes in (left, right):
            axes.grid(axis="y", color=GRID, linewidth=0.8)
        return to_svg(figure, f"Time a step and size of the journal over {made[-1]} evaluations")


def _panel(axes: Any, words: str, evaluations: int, high: float) -> None:
    """Set up a panel; both axes begin at 0, so that what is flat looks flat."""
    axes.set(xlim=(0, 1.02 * evaluations), ylim=(0, high), xlabel="evaluations made so far")
    axes.set_title(words, loc="left", fontsize=9.5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def utilisation(times: np.ndarray, workers: int, asynchronous: bool) -> float:
    """The share of the workers' time that they work, until the last evaluation is there.

    Args:
        times: seconds of each evaluation in the order of asking, ``[n]``.
        workers: evaluations at a time.
        asynchronous: whether a free worker gets the next evaluation at once, or with all the others.
    """
    if asynchronous:
        free = [0.0] * workers
        for each in times.tolist():
            heapq.heappush(free, heapq.heappop(free) + each)
        end = max(free)
    else:
        end = sum(float(times[k : k + workers].max()) for k in range(0, len(times), workers))
    return float(times.sum()) / (workers * end)


def measure_schedule(times_file: Path | None, workers: int, budget: int) -> None:
    """Print the utilisation of simulated workers."""
    generator = np.random.default_rng(0)
    if times_file is None:
        name, times = "log-normal times (sigma 0.5)", generator.lognormal(0.0, 0.5, budget)
    else:
        with np.load(times_file, allow_pickle=False) as content:
            measured = content["final_training_time_s"]
        measured = measured[np.isfinite(measured) & (measured > 0)]
        name, times = f"measured training times of {times_file.name}", generator.choice(measured, budget)
    asynchronous, synchronous = (utilisation(times, workers, kind) for kind in (True, False))
    print(
        f"schedule: {workers} workers, {budget} evaluations, {name}: at work {asynchronous:.1%} of the time asked "
        f"anew one by one, {synchronous:.1%} asked all at once"
    )


PARTS = ("sleep", "throughput", "memory", "growth", "schedule")


def main() -> None:
    """Print one part after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="SVG file for the picture of 'growth'")
    parser.add_argument("--times", type=Path, help="NAS-Bench-101's training times, for 'schedule'")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--evaluations", type=int, default=10_000, help="of 'memory' and 'growth'")
    parser.add_argument("--seconds", type=float, default=0.1, help="of an evaluation in 'sleep'")
    parser.add_argument("--repeats", type=int, default=3, help="of 'sleep'")
    chosen = parser.parse_args()
    if {"sleep", "throughput", "memory"} & set(chosen.only):
        with RayExecutor(2) as executor:
            warm(executor)
            if "sleep" in chosen.only:
                measure_sleep(executor, chosen.seconds, 100, chosen.repeats)
            if "throughput" in chosen.only:
                measure_throughput(executor, 2_000)
            if "memory" in chosen.only:
                measure_memory(executor, chosen.evaluations)
    if "growth" in chosen.only:
        measure_growth(chosen.evaluations, chosen.plot)
    if "schedule" in chosen.only:
        measure_schedule(chosen.times, 64, 2_048)


if __name__ == "__main__":
    main()
