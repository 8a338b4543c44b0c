"""W&B: what is logged is read back from the files it leaves, and whatever happens to W&B, the search goes on."""

import json
import math
import os
import pty
import signal
import struct
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from search.agents.random_search import RandomSearch
from search.errors import CatchmarkError
from search.evaluation import Evaluation
from search.listeners.wandb.connection import WandbConnection
from search.listeners.wandb.searches import SearchRuns
from search.loop.run_search import run_search
from search.loop.search import Search, Stage
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests import forks
from tests.processes import kept_port
from tests.search.agents.toy_spaces import Grid
from tests.search.stopper import Stopper

CONFIG = {"seed": 3, "budget": 7, "agents": {"random": {"class_path": "search.agents.random_search.RandomSearch"}}}
SPACE = Grid()


class Toy(OneByOne):
    """A third of the evaluations fail, among them the first; some metrics are no numbers."""

    def __init__(self):
        self.space, self.count = SPACE, 0

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        if sum(architecture) % 3 == 0:
            return Evaluation.failed("divisible by 3", 0.5)
        return Evaluation(
            sum(architecture) + seed / 2**31, {"loss": 1 / (1 + seed), "flops": math.nan if seed % 2 else 3.0}, 2.0
        )


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in list(os.environ):
        if name.startswith("WANDB"):
            monkeypatch.delenv(name)


def stop():
    raise KeyboardInterrupt


def run(folder, names=("target/random",), trials=1, stopper=None, adapting=True, budget=7):
    """What the command line does: one log for all searches of a run, closed at the end."""
    journal = Journal(folder / "journal.sqlite")
    log = SearchRuns(WandbConnection(folder, "quickstart"), SPACE, CONFIG)
    try:
        for name in names:
            agent = RandomSearch(SPACE, trials, seed=1)
            stage = Stage("a stage", Toy, budget, adapting)
            search = Search(name, agent, [stage], 7, batch=2, most_failures=99)
            run_search(search, journal, [log, *([stopper] if stopper else [])])
    except KeyboardInterrupt:
        assert stopper is not None
    finally:
        log.close()
        journal.close()


def journalled(folder, name="target/random"):
    journal = Journal(folder / "journal.sqlite", writable=False)
    records = list(journal.records(name))
    journal.close()
    return records


# ---- reading what W&B wrote --------------------------------------------------------------------------------------


def read(file):
    """The messages of a ``.wandb`` file: LevelDB's log format, after seven bytes of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, message, messages = file.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # the end of a block has no room for a header
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        message, at = message + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or its last part
            messages.append(Record.FromString(message))
            message = b""
    return messages


def read_whole(file):
    """The same once W&B's own process, which goes on for a moment after a run has ended, has written all of it.

    The file of a run that was killed has no end: it is whole when it has not grown for a second.
    """
    from google.protobuf.message import DecodeError

    size, since = -1, 0
    while True:
        try:
            messages = read(file)
        except DecodeError:  # the last message is written in part
            messages = []
        if messages and messages[-1].WhichOneof("record_type") == "exit":
            return messages
        size, since = file.stat().st_size, since + 1 if file.stat().st_size == size else 0
        if since == 20:
            return read(file)
        time.sleep(0.05)


def items(entries):
    """Key and value pairs, the values as they are in JSON."""
    return {"/".join(each.nested_key) or each.key: each.value_json for each in entries}


class Logged:
    """A W&B run as its folder has it."""

    def __init__(self, folder):
        self.folder = folder
        messages = read_whole(next(folder.glob("run-*.wandb")))

        def of(kind):
            return [getattr(each, kind) for each in messages if each.WhichOneof("record_type") == kind]

        self.text = "".join(map(str, messages))
        self.run = of("run")[0]
        self.config = {key: json.loads(value) for key, value in items(self.run.config.update).items()}
        self.raw_history = [items(each.item) for each in of("history")]
        self.history = [{key: json.loads(value) for key, value in row.items()} for row in self.raw_history]
        self.artifacts = {each.name: each for each in of("artifact")}
        self.summary = {}
        for each in of("summary"):
            self.summary |= items(each.update)
        self.exits = of("exit")

    @property
    def points(self):
        """The history, less what W&B adds."""
        return [{key: value for key, value in row.items() if key[0] != "_"} for row in self.history]

    @property
    def table(self):
        return json.loads(next(self.folder.glob("files/media/table/evaluations_*.table.json")).read_text())

    def artifact_file(self, name):
        (content,) = self.artifacts[name].manifest.contents
        return content.path, Path(content.local_path)


def logged(folder):
    """The W&B runs of a run folder, in the order in which they began."""
    return [Logged(each) for each in sorted((folder / "wandb").glob("offline-run-*"))]


def check_points(points, records):
    """Every evaluation is a point, with the journal's values."""
    best, expected = -math.inf, []
    for number, record in enumerate(records, 1):
        evaluation = record.evaluation
        point = {"evaluation": number, "cost_seconds": evaluation.cost_seconds, "stage": "a stage"}
        point["failed"] = 1 if evaluation.status == "failed" else 0
        if evaluation.status == "ok":
            best = max(best, evaluation.score)
            point["score"] = evaluation.score
            point["metrics/loss"] = evaluation.metrics["loss"]
            if evaluation.metrics["flops"] == 3.0:
                point["metrics/flops"] = 3.0
        if best > -math.inf:
            point["best_score"] = best
        expected.append(point)
    assert [{key: value for key, value in each.items() if not key.startswith("evaluations")} for each in points] == (
        expected
    )
    assert 0 < sum(point["failed"] for point in expected) < len(expected)


def check_whole(folder, name="target/random", count=7):
    """The one W&B run of a search has everything."""
    (run,) = [each for each in logged(folder) if each.config["search"] == name]
    records = journalled(folder, name)
    assert len(records) == count
    check_points(run.points, records)
    assert len(run.table["data"]) == count and len(run.exits) == 1
    assert (run.folder / "complete").exists()
    return run


# ---- content -----------------------------------------------------------------------------------------------------


def test_a_search_is_logged_whole(tmp_path):
    run(tmp_path)
    records = journalled(tmp_path)
    logged_run = check_whole(tmp_path)
    about = logged_run.run
    assert (about.project, about.run_group, about.job_type) == ("catchmark", "quickstart", "target")
    assert about.display_name == "quickstart/target/random"
    assert list(about.tags) == ["grid", "random", "target", "seed 3"]
    config = {key: value for key, value in logged_run.config.items() if key != "_wandb"}
    assert config == CONFIG | {"search": "target/random", "agent": "random", "target": "target"}
    for row in logged_run.raw_history:
        assert not any(word in value for value in row.values() for word in ("NaN", "Infinity"))

    assert logged_run.table["columns"] == [
        *("stage", "step", "slot", "trial", "architecture", "score", "cost_seconds", "status", "reason")
    ]
    assert logged_run.table["data"] == [
        [
            *("a stage", each.step, each.slot, each.trial, SPACE.format(each.architecture)),
            each.evaluation.score if each.evaluation.status == "ok" else None,
            *(each.evaluation.cost_seconds, each.evaluation.status, each.evaluation.reason),
        ]
        for each in records
    ]

    best = max((each for each in records if each.evaluation.status == "ok"), key=lambda each: each.evaluation.score)
    path, file = logged_run.artifact_file(f"architecture-{about.run_id}")
    assert logged_run.artifacts[f"architecture-{about.run_id}"].type == "architecture"
    assert path == "architecture.json" and file.is_relative_to(tmp_path)  # the run's folder has all that is to be sent
    assert json.loads(file.read_text()) == {
        "space": "grid",
        "architecture": SPACE.format(best.architecture),
        "choices": list(best.architecture),
        "score": best.evaluation.score,
    }
    assert json.loads(logged_run.summary["best_architecture"]) == SPACE.format(best.architecture)


def test_trials_are_averaged(tmp_path):
    run(tmp_path, trials=3)
    (logged_run,) = logged(tmp_path)
    records = journalled(tmp_path)
    assert len(logged_run.points) == 7 and len(logged_run.table["data"]) == 21
    best = [-math.inf] * 3
    for number, point in enumerate(logged_run.points):
        rows = records[3 * number : 3 * number + 3]
        assert {(each.step, each.slot) for each in rows} == {(number // 2, number % 2)}
        good = [each for each in rows if each.evaluation.status == "ok"]
        for each in good:
            best[each.trial] = max(best[each.trial], each.evaluation.score)
        found = [each for each in best if each > -math.inf]
        assert point["evaluation"] == number + 1 and point["failed"] == 3 - len(good)
        assert point["cost_seconds"] == sum(each.evaluation.cost_seconds for each in rows)
        for key, values in {"score": [each.evaluation.score for each in good], "best_score": found}.items():
            assert point.get(key) == (pytest.approx(sum(values) / len(values), rel=1e-12) if values else None)


def test_meta_training_has_no_best_architecture(tmp_path):
    """It walks over many tasks, whose scores do not compare."""
    run(tmp_path, ["meta_training/random"], adapting=False)
    logged_run = check_whole(tmp_path, "meta_training/random")
    assert logged_run.run.job_type == "meta_training"
    assert not any(name.startswith("architecture") for name in logged_run.artifacts)


def test_searches_are_runs_of_one_group(tmp_path):
    names = ["meta_training/random", "a/random", "b/random"]
    start = time.monotonic()
    run(tmp_path, names)
    print(f"three searches: {time.monotonic() - start:.2f} s")
    runs = [check_whole(tmp_path, name).run for name in names]
    assert len({each.run_id for each in runs}) == 3
    assert {each.run_group for each in runs} == {"quickstart"}
    assert [each.job_type for each in runs] == ["meta_training", "a", "b"]


def test_two_runs_of_one_recipe_are_different_runs(tmp_path):
    """Even under one name on two machines."""
    for each in ("here", "there"):
        (tmp_path / each / "20250101-000000").mkdir(parents=True)
        run(tmp_path / each / "20250101-000000")
    a, b = (logged(tmp_path / each / "20250101-000000")[0].run.run_id for each in ("here", "there"))
    assert a != b


def test_only_so_many_rows_of_a_large_search(tmp_path, monkeypatch):
    monkeypatch.setattr("search.listeners.wandb.searches._MOST_ROWS", 4)
    run(tmp_path)
    (logged_run,) = logged(tmp_path)
    assert len(logged_run.table["data"]) == 4 and len(logged_run.points) == 7
    best = max(each.evaluation.score for each in journalled(tmp_path) if each.evaluation.status == "ok")
    _, file = logged_run.artifact_file(f"architecture-{logged_run.run.run_id}")
    assert json.loads(file.read_text())["score"] == best


# ---- resuming ----------------------------------------------------------------------------------------------------


def test_a_resumed_run_logs_under_the_same_id_and_its_folder_has_everything(tmp_path):
    ids = []
    for after in (3, 2):
        run(tmp_path, stopper=Stopper(after, stop))
        (part,) = logged(tmp_path)  # what came before is in the newest folder too, and is sent once
        records = journalled(tmp_path)
        check_points(part.points, records[: len(part.points)])
        assert len(part.points) == len(records) < 7
        ids.append(part.run.run_id)
    run(tmp_path)
    ids.append(check_whole(tmp_path).run.run_id)
    assert len(set(ids)) == 1


def test_a_finished_search_is_not_logged_again(tmp_path):
    run(tmp_path, ["a/random"])
    before = sorted((tmp_path / "wandb").iterdir())
    run(tmp_path, ["a/random", "b/random"])
    assert len(logged(tmp_path)) == 2 and set(before) <= set((tmp_path / "wandb").iterdir())
    check_whole(tmp_path, "a/random")
    check_whole(tmp_path, "b/random")


def test_what_was_sent_already_is_kept(tmp_path):
    """`wandb sync` marks a folder that it has sent."""
    run(tmp_path, stopper=Stopper(3, stop))
    (sent,) = (tmp_path / "wandb").glob("offline-run-*")
    (sent / f"{next(sent.glob('*.wandb')).name}.synced").touch()
    time.sleep(1)  # a folder's name has the second in it
    run(tmp_path)
    assert sent.exists() and len(logged(tmp_path)) == 2
    assert logged(tmp_path)[0].run.run_id == logged(tmp_path)[1].run.run_id
    check_points(logged(tmp_path)[1].points, journalled(tmp_path))


# ---- in processes of their own -----------------------------------------------------------------------------------


IMPORTS = "import os, sys; from pathlib import Path; from tests.search.listeners.wandb.test_searches import *\n"


@contextmanager
def nothing_known_of_wandb(folder, **environment):
    """An environment with no W&B settings but these, and a home directory of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    settings = {"PYTHONPATH": str(forks.ROOT), "HOME": str(home), "NETRC": str(home / "netrc"), "OMP_NUM_THREADS": "1"}
    with kept_port() as nobody:  # whoever tries to reach W&B gets no further than this machine
        yield inherited | settings | {"WANDB_BASE_URL": f"http://127.0.0.1:{nobody}", **environment}


def in_a_process(folder, code, terminal=None, **environment):
    """Run some code with no W&B settings but these, perhaps on a terminal; exit code, output and errors.

    W&B is imported there: the process that it is forked from has not done so.
    """
    streams = {} if terminal is None else dict.fromkeys(("stdin", "stderr"), os.ttyname(terminal))
    with nothing_known_of_wandb(folder, **environment) as known:
        return forks.server().run(IMPORTS + code, folder=forks.ROOT, environment=known, **streams)


TWO_SEARCHES = "run(Path({folder!r}), ['a/random', 'b/random'])"


def whole_of_two(folder):
    for name in ("a/random", "b/random"):
        check_whole(folder, name)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_offline_is_the_default_and_leaves_the_home_directory_alone(tmp_path, folder):
    timed = "import time; start = time.monotonic(); import wandb; imported = time.monotonic()\n"
    timed += TWO_SEARCHES + "\nprint(f'import {{imported - start:.2f}} s, run {{time.monotonic() - imported:.2f}} s')"
    finished = in_a_process(tmp_path, timed.format(folder=str(folder)))
    assert (finished.returncode, finished.stderr) == (0, "")
    print(finished.stdout)
    whole_of_two(folder)
    assert list((tmp_path / "home").iterdir()) == []


def test_without_a_home_directory(tmp_path, folder):
    finished = in_a_process(tmp_path, TWO_SEARCHES.format(folder=str(folder)), HOME="/proc/nowhere")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    whole_of_two(folder)


def test_killed_and_resumed(tmp_path, folder):
    """`kill -9`: W&B gets no chance to write what it still holds; the journal has it."""
    code = f"run(Path({str(folder)!r}), stopper=Stopper(4, lambda: os.kill(os.getpid(), 9)))"
    assert in_a_process(tmp_path, code).returncode == -signal.SIGKILL
    assert len(journalled(folder)) == 4
    run(folder)
    check_whole(folder)


def test_online_without_a_key_asks_nobody(tmp_path, folder):
    """On a terminal W&B would wait for someone to type the key."""
    keyboard, terminal = pty.openpty()
    try:
        finished = in_a_process(tmp_path, TWO_SEARCHES.format(folder=str(folder)), terminal, WANDB_MODE="online")
        os.close(terminal)
        said = os.read(keyboard, 10_000).decode()
    finally:
        os.close(keyboard)
    assert finished.returncode == 0
    (line,) = said.splitlines()
    assert line.startswith("W&B: WANDB_MODE=online is not possible now (no API key: set WANDB_API_KEY, or run 'wandb ")
    assert f"wandb sync {folder}/wandb/offline-run-*" in line
    whole_of_two(folder)


def test_online_without_a_network(tmp_path, folder):
    start = time.monotonic()
    finished = in_a_process(
        tmp_path,
        TWO_SEARCHES.format(folder=str(folder)),
        WANDB_MODE="online",
        WANDB_API_KEY="0123456789" * 4,
        WANDB_INIT_TIMEOUT="1",
    )
    print(f"{time.monotonic() - start:.1f} s")
    assert finished.returncode == 0
    lines = [line for line in finished.stderr.splitlines() if line.startswith("W&B: ")]
    assert len(lines) == 1 and "WANDB_MODE=online is not possible now" in lines[0] and "logging offline" in lines[0]
    assert "Traceback" not in finished.stderr and len(finished.stderr.splitlines()) == 1, finished.stderr
    whole_of_two(folder)


def test_a_mode_that_does_not_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(CatchmarkError, match="WANDB_MODE is 'onlin'; did you mean 'online'"):
        WandbConnection(tmp_path, "quickstart")
    monkeypatch.setenv("WANDB_MODE", "?")
    with pytest.raises(CatchmarkError, match="WANDB_MODE is '\\?'; allowed: offline, online, disabled"):
        WandbConnection(tmp_path, "quickstart")


KILL_SERVICE = """
import subprocess
def kill():
    # As wide as it takes: where COLUMNS is set, a long path to the program would be cut.
    for process in subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
                                  capture_output=True, text=True).stdout.splitlines():
        if "wandb-core" in process:
            os.kill(int(process.split()[0]), 9)
run(Path({folder!r}), ["a/random"], stopper=Stopper(3, kill), budget=60)
"""


def test_a_search_outlives_wandb(tmp_path, folder):
    finished = in_a_process(tmp_path, KILL_SERVICE.format(folder=str(folder)))
    assert finished.returncode == 0
    assert len(journalled(folder, "a/random")) == 60
    lines = [line for line in finished.stderr.splitlines() if line.startswith("W&B: ")]
    assert len(lines) == 1 and "the search goes on, its journal has it all" in lines[0]
    run(folder, ["a/random"], budget=60)  # resuming logs again what was not logged to the end
    check_whole(folder, "a/random", 60)


def test_a_folder_that_wandb_cannot_write(tmp_path, folder):
    (folder / "wandb").write_text("a file where the folder should be")
    finished = in_a_process(tmp_path, TWO_SEARCHES.format(folder=str(folder)))
    assert finished.returncode == 0 and len(journalled(folder, "b/random")) == 7
    assert "Traceback" not in finished.stderr and len(finished.stderr.splitlines()) == 2, finished.stderr


DISABLED = """
from search.cli import main
Path({folder!r}, "recipe.yaml").write_text('''
space: NASBench201
targets: {{toy: {{class_path: tests.search.listeners.wandb.test_searches.SpacedToy}}}}
agents: {{random: RandomSearch}}
budget: 2
''')
os.chdir({folder!r})
assert main(["run", "recipe.yaml", "--quiet"]) == 0
print("wandb" in sys.modules, os.path.exists("runs/recipe/latest/wandb"))
"""


class SpacedToy(Toy):
    """`Toy` on the recipe's space."""

    def __init__(self, space: object):
        super().__init__()
        self.space = space

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        return Evaluation(float(sum(architecture)))


def test_disabled_means_not_even_imported(tmp_path, folder):
    finished = in_a_process(tmp_path, DISABLED.format(folder=str(folder)), WANDB_MODE="disabled")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == "False False"
