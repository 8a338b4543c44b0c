"""Processes for the ranks of a test, with the environment that ``srun`` would give them."""

import os
import random
from contextlib import ExitStack

from search.runs.journal import Journal
from tests.forks import COMMAND_LINE, ROOT
from tests.processes import alive, kept_port, wait_until
from tests.search.distributed.recipes import SEARCH

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_", "WANDB_"))
} | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)}


def start_command(server, folder, words, environment, namespace=None):
    """Start ``catchmark`` in a folder, its output in a file named by its rank; the process's number."""
    output = folder / f"{environment.get('SLURM_PROCID', 0)}.out"
    return server.start(
        COMMAND_LINE,
        words,
        folder=folder,
        environment=ENVIRONMENT | environment,
        stdout=output,
        namespace=namespace,
    )


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
            start_command(
                self.server,
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
