"""What workers on Ray evaluate in tests: well behaved and faulty tasks, which import no more than they need.

Every worker that dies is followed by one that imports all of it again.
"""

import json
import math
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne
from tests.processes import wait_until
from tests.search.agents.toy_spaces import Grid


def note(folder, *fields):
    """One line, in one write."""
    descriptor = os.open(Path(folder) / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, (json.dumps(fields) + "\n").encode())
    os.close(descriptor)


def notes(folder):
    file = Path(folder) / "notes"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def tries(folder, kind):
    """What was noted of evaluations whose first choice is this one."""
    return [each for each in notes(folder) if len(each) == 3 and each[1][0] == kind]


class Slow(OneByOne):
    """Takes a moment, and says in which process; from the tenth on it takes for ever, until let."""

    def __init__(self, space: SearchSpace, folder: str):
        self.space, self.folder = space, folder

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        note(self.folder, os.getpid(), list(architecture), seed)
        while len(notes(self.folder)) >= 10 and not (Path(self.folder) / "let").exists():
            time.sleep(0.05)
        return Evaluation(float(sum(choice * (k + 1) for k, choice in enumerate(architecture))), cost_seconds=1.0)


class Plain(OneByOne):
    """A function of architecture and seed, as far as anybody can see."""

    def __init__(self):
        self.space = Grid()

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        if seed % 4 == 0:
            return Evaluation.failed("no luck", 0.5)
        return Evaluation(math.sin(sum(architecture)) + seed / 3, {"seed": seed / 7}, 0.1)


class Faulty(OneByOne):
    """The first choice decides what goes wrong."""

    def __init__(self, folder):
        self.space, self.folder = Grid(), str(folder)

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        note(self.folder, os.getpid(), list(architecture), seed)
        kind = architecture[0]
        if kind == 1 and len(tries(self.folder, 1)) == 1:
            time.sleep(1000)  # until it is killed
        if kind == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == 3:
            child = subprocess.Popen(["sleep", "1000"])
            note(self.folder, child.pid)
            time.sleep(1000)
        if kind == 4:
            if seed == 1:
                return self.too_much()
            raise {2: ValueError("no such size"), 3: CatchmarkError("score 'x' is not logged"), 4: SystemExit(3)}[seed]
        return Evaluation(float(kind))

    def too_much(self):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        earlier = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, earlier[1]))
        try:
            return Evaluation(float(len(bytearray(2**32))))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, earlier)


class Unsendable(Plain):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Unwelcome(Plain):
    """Can be sent, but not be received."""

    def __reduce__(self):
        return int, ("this is no number",)


class Meeting(OneByOne):
    """The first evaluation ends when a second one has begun, the third with the fourth: alone it would wait in vain."""

    def __init__(self, space: SearchSpace, folder: str):
        self.space, self.folder = space, folder

    def evaluate_one(self, proposal):
        seed = proposal.seed
        note(self.folder, seed)
        number = notes(self.folder).index([seed]) + 1
        wait_until(lambda: len(notes(self.folder)) >= number + number % 2)
        return Evaluation(0.0, {"process": os.getpid()}, 1.0)


class Share(Plain):
    """Says what it has of the processor."""

    def evaluate_one(self, proposal):
        import torch

        environment, niceness = os.environ["OMP_NUM_THREADS"], os.getpriority(os.PRIO_PROCESS, 0)
        return Evaluation(
            float(torch.get_num_threads()), {"environment": float(environment), "niceness": float(niceness)}
        )


def evaluate(executor, task, *evaluations):
    """Some architectures by first choice and seed, all at once; what came of them by number."""
    executor.begin(task)
    for number, (kind, seed) in enumerate(evaluations):
        executor.submit((0, number), Proposal((kind, 0, 0, 0, 0, 0), seed))
    return dict(sorted((ticket[1], evaluation) for ticket, evaluation in (executor.wait() for _ in evaluations)))
