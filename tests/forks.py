"""Processes that need no fresh interpreter: forked from a server, one for all tests, that has imported everything.

Torch and Lightning take seconds to import; a child of a process that has them is there in a hundredth of one. It
has its own folder, environment, arguments, ``__main__`` and standard streams, and ends as any process does; that it has
modules before it imports them is the one difference. A test of what is imported, or of how an interpreter or a command
starts, starts one of its own.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path

from tests.processes import PATIENCE, alive, wait_until

ROOT = Path(__file__).parents[1]
COMMAND_LINE = "import sys; from search.cli import main; sys.exit(main())"
"""What ``catchmark`` runs."""
HEAVY = (
    "pytorch_lightning.strategies",
    "scipy.special",
    "torch.distributed",
    "search.deploy.joint_training",
    "search.deploy.trained_folder",
    "search.deploy.training",
    "search.distributed.follower",
    "search.distributed.joint_fit",
    "search.distributed.leader",
    "search.reports.experiment",
    "search.reports.line_chart",
    "search.reports.supernet_study",
    "search.reports.trained_network",
    "search.studies.supernet_watch",
    "search.training.watch",
)
"""What commands import late, beside what recipes name."""
ENVIRONMENT = dict(os.environ)
"""As it was before any test changed it."""

# ---- in the server -------------------------------------------------------------------------------------------------


def serve():
    """Fork a process for every line of the input that describes one; for a line with its number, say how it ended.

    A line of code is run here.
    """
    _import_everything()
    gc.collect()
    gc.freeze()  # a child that collects garbage does not copy, nor look at, what it shares
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, str):
            exec(order, {})
            print("ready", flush=True)
        elif isinstance(order, int):
            print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
        elif (child := os.fork()) == 0:
            _live(order)
        else:
            print(child, flush=True)


def _import_everything():
    """But for W&B: as it is imported it makes a folder, which the first child that ends would remove."""
    importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)  # as in conftest.py
    for name in HEAVY:
        importlib.import_module(name)
    from search.cli import main
    from tests.search.distributed.recipes import SEARCH, STUDY, TROUBLE

    path = [*sys.path]
    for recipe in (SEARCH, TROUBLE, STUDY):  # and what these name
        Path("recipe.yaml").write_text(recipe)
        main(["run", "recipe.yaml", "--dry-run"])
    sys.path[:] = path


def _live(order):
    """Be the process that is described, to its end."""
    code = 99
    try:
        for number, path in enumerate(order["streams"]):
            stream = os.open(path, os.O_RDWR | (os.O_APPEND | os.O_CREAT if number else 0), 0o666)
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        tempfile.tempdir = None  # which the environment says
        if order["namespace"]:
            _enter(order["namespace"])
        sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        sys.argv[:] = order["words"]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(order["code"], vars(main))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _enter(namespace):
    """Go to another network namespace: another host, as far as the network goes."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


# ---- in a test -----------------------------------------------------------------------------------------------------


class Server:
    """The process that has imported everything and forks others."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.forks import serve; serve()"],
            cwd=folder,
            # Strings hash otherwise than in the tests themselves: an order that comes from a set would show.
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "12345"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started = set()
        self._until_ready()

    def _until_ready(self):
        while self._read() != "ready":
            pass

    def _read(self):
        line = self.process.stdout.readline()
        assert line, "the server has died"
        return line.strip()

    def _order(self, what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return int(self._read())

    def prepare(self, code):
        """Run some code in the server itself: what it imports, all processes that are started later have."""
        print(json.dumps(code), file=self.process.stdin, flush=True)
        self._until_ready()

    def start(
        self,
        code,
        words=(),
        *,
        folder=".",
        environment=None,
        stdin=os.devnull,
        stdout=os.devnull,
        stderr=None,
        namespace=None,
    ):
        """Start a process.

        Args:
            code: that it runs.
            words: its arguments.
            folder: that it works in.
            environment: all of it; by default that of the test.
            stdin: the path of what it reads.
            stdout: the path of what its output is appended to.
            stderr: likewise; by default it goes where the output goes.
            namespace: the network namespace that it lives in.

        Returns:
            Its number.
        """
        child = self._order(
            {
                "code": code,
                "words": ["-c", *map(str, words)],
                "folder": os.path.abspath(folder),
                "environment": dict(os.environ if environment is None else environment),
                "streams": [os.path.abspath(path) for path in (stdin, stdout, stderr or stdout)],
                "namespace": namespace,
            }
        )
        self.started.add(child)
        return child

    def wait(self, child):
        """Wait for the end of a process; its exit code, negative where a signal ended it."""
        wait_until(lambda: not alive(child))
        self.started.discard(child)
        return self._order(child)

    def run(self, code, words=(), **options):
        """A process from its start to its end, as `subprocess.run` tells of it with its output captured as text."""
        with tempfile.TemporaryDirectory() as place:
            captured = {name: Path(place, name) for name in ("stdout", "stderr")}
            code = self.wait(self.start(code, words, **(captured | options)))
            said = [path.read_text() if path.exists() else "" for path in captured.values()]
        return subprocess.CompletedProcess(list(words), code, *said)

    def close(self):
        for child in self.started:
            os.kill(child, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE)
        self.process.stdout.close()


@functools.cache
def server():
    """The server of these tests, from when it is first asked for until they end."""
    folder = tempfile.TemporaryDirectory()
    made = Server(folder.name)
    atexit.register(folder.cleanup)
    atexit.register(made.close)
    return made
