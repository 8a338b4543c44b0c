"""Processes that need no fresh interpreter: forked from a server that has imported everything.

There is one server for all tests, also those of several processes of pytest-xdist: the first who needs it starts it,
and it ends with the tests.

Torch and Lightning take seconds to import; a child of a process that has them is there in a hundredth of one. It
has its own folder, environment, arguments, ``__main__`` and standard streams, and ends as any process does; that it has
modules before it imports them is the one difference. A test of what is imported, or of how an interpreter or a command
starts, starts one of its own.
"""

import atexit
import ctypes
import fcntl
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path

from tests.processes import alive, wait_until

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
TEMPORARY = tempfile.gettempdir()
"""As they were before any test changed them."""

# ---- in the server -------------------------------------------------------------------------------------------------


def serve(path, tests):
    """Fork a process for every line that describes one; for a line with its number, say how it ended.

    A line of code is run here.

    Args:
        path: the socket at which lines come, and on which each is answered by one.
        tests: the number of the process that it ends with.
    """
    _import_everything()
    gc.collect()
    gc.freeze()  # a child that collects garbage does not copy, nor look at, what it shares
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as waiting:
        listener.bind(path)
        listener.listen()
        waiting.register(listener, selectors.EVENT_READ)
        print("ready", flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who has started it may be gone before it
        while alive(tests):
            for key, _ in waiting.select(timeout=1):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    waiting.register(connection, selectors.EVENT_READ, connection.makefile("rw"))
                elif line := key.data.readline():
                    print(_answer(json.loads(line), waiting), file=key.data, flush=True)
                else:
                    waiting.unregister(key.fileobj)
                    key.data.close(), key.fileobj.close()
    shutil.rmtree(Path(path).parent)


def _answer(order, waiting):
    if isinstance(order, str):
        exec(order, {})
        return "ready"
    if isinstance(order, int):
        return os.waitstatus_to_exitcode(os.waitpid(order, 0)[1])
    if (child := os.fork()) == 0:
        for key in waiting.get_map().values():
            os.close(key.fd)
        _live(order)
    return child


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

    def __init__(self, tests):
        self.started = set()
        self._socket = socket.socket(socket.AF_UNIX)
        (folder := Path(TEMPORARY, f"catchmark-{tests}")).mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._socket.connect(str(folder / "socket"))
            except (FileNotFoundError, ConnectionRefusedError):  # the latter left by tests that were killed
                (folder / "socket").unlink(missing_ok=True)
                _start(folder, tests)
                self._socket.connect(str(folder / "socket"))
        self._lines = self._socket.makefile("rw")

    def _read(self):
        line = self._lines.readline()
        assert line, "the server has died"
        return line.strip()

    def _write(self, what):
        print(json.dumps(what), file=self._lines, flush=True)

    def _order(self, what):
        self._write(what)
        return int(self._read())

    def prepare(self, code):
        """Run some code in the server itself: what it imports, all processes that are started later have."""
        self._write(code)
        assert self._read() == "ready"

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
        self._lines.close()
        self._socket.close()


def _start(folder, tests):
    """Start the server, and wait until it listens."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"from tests.forks import serve; serve({str(folder / 'socket')!r}, {tests})"],
        cwd=folder,
        # Strings hash otherwise than in the tests themselves: an order that comes from a set would show.
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "12345"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "ready\n" in iter(process.stdout.readline, ""), "the server has died"
    process.stdout.close()


@functools.cache
def server():
    """The server of these tests, from when it is first asked for until they end."""
    made = Server(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid())
    atexit.register(made.close)
    return made
