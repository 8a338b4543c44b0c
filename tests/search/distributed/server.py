"""Processes for the ranks of a test: forked from a server that has imported everything, with the environment that
``srun`` would give them.
"""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path

from search.cli import main
from search.runs.journal import Journal
from tests.processes import PATIENCE, alive, kept_port, wait_until
from tests.search.distributed.recipes import SEARCH, STUDY, TROUBLE

ROOT = Path(__file__).parents[3]


def serve():
    """Fork a process for every line of the input that describes one; for a line with its number, say how it ended."""
    import pytorch_lightning.strategies  # noqa: F401
    import scipy.special  # noqa: F401

    import search.deploy.joint_training
    import search.deploy.trained_folder
    import search.deploy.training
    import search.reports.experiment
    import search.reports.line_chart
    import search.reports.supernet_study
    import search.reports.trained_network
    import search.studies.supernet_watch
    import search.training.watch  # noqa: F401
    from search.distributed import follower, joint_fit, leader  # noqa: F401

    for recipe in (SEARCH, TROUBLE, STUDY):
        Path("recipe.yaml").write_text(recipe)
        main(["run", "recipe.yaml", "--dry-run"])
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
            continue
        folder, words, environment, namespace = order
        if (child := os.fork()) == 0:
            code = 99
            try:
                output = os.open(
                    f"{folder}/{environment.get('SLURM_PROCID', 0)}.out", os.O_RDWR | os.O_APPEND | os.O_CREAT
                )
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.chdir(folder)
                os.environ.update(environment)
                if namespace:
                    enter(namespace)
                code = main(words)
            except SystemExit as end:
                code = end.code
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)


def enter(namespace):
    """Go to another network namespace: another host, as far as the network goes."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


class Server:
    """A process that has imported everything and forks others."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.search.distributed.server import serve; serve()"],
            cwd=folder,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started = set()
        while self.read() != "ready":
            pass

    def read(self):
        line = self.process.stdout.readline()
        assert line, "the server has died"
        return line.strip()

    def order(self, what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return int(self.read())

    def start(self, folder, words, environment, namespace=None):
        child = self.order([str(folder), list(map(str, words)), environment, namespace])
        self.started.add(child)
        return child

    def wait(self, child):
        wait_until(lambda: not alive(child))
        self.started.discard(child)
        return self.order(child)

    def close(self):
        for child in self.started:
            os.kill(child, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE)


ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_", "WANDB_"))
} | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)}


class Job:
    """A folder, and the ranks that work in it as ``srun`` would start them."""

    def __init__(self, server, folder, recipe=SEARCH):
        self.server, self.folder, self.number = server, folder, random.randrange(10**6)
        self.keeping = ExitStack()  # until nobody knows this any more
        self.port = self.keeping.enter_context(kept_port())
        self.notes = folder / "notes"
        self.notes.mkdir(parents=True)
        self.write(recipe)

    def write(self, recipe):
        (self.folder / "recipe.yaml").write_text(recipe)

    def start(self, *words, command=("run", "recipe.yaml"), ranks=2, namespaces=None, per_rank=((), ()), **environment):
        """Start every rank; their processes' numbers."""
        return [
            self.server.start(
                self.folder,
                [*command, "--quiet", *words, *per_rank[at]],
                {
                    "NOTES": str(self.notes),
                    "SLURM_JOB_ID": str(self.number),
                    **({} if ranks == 1 else self.place(at, ranks)),
                    **environment,
                },
                None if namespaces is None else namespaces[at],
            )
            for at in range(ranks)
        ]

    def place(self, at, ranks):
        return {
            "SLURM_NTASKS": str(ranks),
            "SLURM_PROCID": str(at),
            "SLURM_LOCALID": "0",
            "SLURM_NNODES": str(ranks),
            "SLURM_JOB_NODELIST": "localhost",
            "MASTER_PORT": str(self.port),
        }

    def run(self, *words, **options):
        """The exit code of every rank."""
        return [self.server.wait(child) for child in self.start(*words, **options)]

    def said(self):
        return {at: (self.folder / f"{at}.out").read_text() for at in range(2) if (self.folder / f"{at}.out").exists()}

    def until_held(self, children):
        """Wait until the rank that is to stop and wait does so; nobody ends before it is made to."""
        wait_until(lambda: (self.notes / "held").exists() or not all(map(alive, children)), self.said)
        assert all(map(alive, children)), self.said()

    @property
    def run_folders(self):
        return [path.parent for path in self.folder.glob("runs/recipe/*/journal.sqlite") if "latest" not in path.parts]

    def records(self):
        (folder,) = self.run_folders
        journal = Journal(folder / "journal.sqlite", writable=False)
        try:
            return [record for name in journal.searches() for record in journal.records(name)]
        finally:
            journal.close()
