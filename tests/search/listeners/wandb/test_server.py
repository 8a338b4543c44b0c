"""W&B online: against a stand-in for its server, which is killed, and sends an agent of a sweep to work."""

import json
import signal
from pathlib import Path

import pytest

from tests.processes import PATIENCE
from tests.search.listeners.wandb.server import Server
from tests.search.listeners.wandb.test_searches import check_points, in_a_process, journalled

ROOT = Path(__file__).parents[4]
TIMEOUTS = {"WANDB_INIT_TIMEOUT": str(PATIENCE), "WANDB_FINISH_TIMEOUT": str(PATIENCE)}


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    yield server
    server.end()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def on(server, folder, code, **environment):
    """Run searches that log to the server."""
    return in_a_process(
        folder.parent, code.format(folder=str(folder)), **{**server.environment, **TIMEOUTS, **environment}
    )


def check_run(run, folder, search, exitcode=0):
    """What the server has of a search is what its journal has."""
    points = [
        {key: value for key, value in run["history"][at].items() if key[0] != "_" and key != "evaluations"}
        for at in sorted(run["history"])
    ]
    check_points(points, journalled(folder, search))
    target, agent = search.split("/")
    assert (run["groupName"], run["displayName"]) == ("quickstart", f"quickstart/{search}")
    assert run["jobType"] == target and run["tags"] == ["grid", agent, target, "seed 3"]
    config = {key: entry["value"] for key, entry in json.loads(run["config"]).items() if key != "_wandb"}
    assert (config["search"], config["agent"], config["target"]) == (search, agent, target)
    assert run["exitcode"] == exitcode


def by_search(server):
    """The server's runs."""
    runs = {run["displayName"].partition("/")[2]: run for run in server.state.runs.values()}
    assert len(runs) == len(server.state.runs)
    return runs


def test_every_search_is_a_run_of_the_server(server, folder):
    finished = on(server, folder, "run(Path({folder!r}), ['a/random', 'b/random'])")
    assert (finished.returncode, finished.stderr) == (0, "")
    runs = by_search(server)
    assert set(runs) == {"a/random", "b/random"}
    for search, run in runs.items():
        check_run(run, folder, search)
        best = max(
            (r for r in journalled(folder, search) if r.evaluation.status == "ok"), key=lambda r: r.evaluation.score
        )
        assert run["summary"]["best_score"] == best.evaluation.score
        assert run["summary"]["evaluations"]["nrows"] == 7
    assert {each["artifactTypeName"] for each in server.state.artifacts} == {"run_table", "architecture"}
    assert not [each for each in server.state.unknown if "otel" not in each]


def test_a_resumed_search_goes_on_in_its_run(server, folder):
    """Also after ``kill -9``, when the server knows nothing of the end."""
    on(server, folder, "run(Path({folder!r}), stopper=Stopper(3, stop))")
    (stopped,) = by_search(server).values()
    assert len(stopped["history"]) == 3 and stopped["exitcode"] == 1
    killed = on(server, folder, "run(Path({folder!r}), stopper=Stopper(1, lambda: os.kill(os.getpid(), 9)))")
    assert killed.returncode == -signal.SIGKILL
    assert on(server, folder, "run(Path({folder!r}))").returncode == 0
    (run,) = by_search(server).values()
    check_run(run, folder, "target/random")


GONE = """
class Impatient(Stopper):
    def evaluated(self, search, records):
        os.environ["WANDB_FINISH_TIMEOUT"] = "1"  # for the second search, which reads it when it begins
        super().evaluated(search, records)

run(Path({folder!r}), ["a/random", "b/random"], stopper=Impatient(10, lambda: os.kill(%d, 9)))
"""


def test_a_server_that_goes_away_costs_nothing(server, folder):
    """It is killed in the middle of the second search. That one goes on, and is sent when the run is resumed."""
    finished = on(server, folder, GONE % server.process.pid)
    server.process.wait()
    assert finished.returncode == 0
    (line,) = finished.stderr.splitlines()
    assert line.startswith("W&B: logging of this search has stopped (") and "the search goes on" in line
    assert line.endswith(f"and 'catchmark run --resume {folder}' logs it again")
    for search in ("a/random", "b/random"):
        assert len(journalled(folder, search)) == 7
    server.begin()
    runs = by_search(server)
    check_run(runs["a/random"], folder, "a/random")
    assert runs["b/random"]["exitcode"] is None
    assert on(server, folder, "run(Path({folder!r}), ['a/random', 'b/random'])").stderr == ""
    for search, run in by_search(server).items():
        check_run(run, folder, search)
