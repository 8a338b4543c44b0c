"""A stand-in for W&B's server, in a process of its own that can be killed: it takes what W&B's client sends.

It knows the requests that runs, their files and artifacts, and sweeps come to, keeps them in a file, and is started
again from that file. What the client does is the client's own; nothing of it is replaced.

    python server.py FOLDER [PORT]
"""

import gzip
import json
import signal
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

LOG = "requests.jsonl"


class State:
    """What was sent so far."""

    def __init__(self, folder):
        self.file, self.lock = folder / LOG, Lock()
        self.runs = {}
        self.artifacts, self.unknown = [], []
        self.sweep, self.waiting, self.agents = None, [], []
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                self.take(*json.loads(line))

    def note(self, *event):
        """Take something, and keep it."""
        with self.lock:
            with open(self.file, "a") as file:
                file.write(json.dumps(event) + "\n")
            self.take(*event)

    def take(self, kind, content, run=""):
        """Take something that was kept."""
        if kind == "run":
            about = self.run(content["name"])
            about |= {key: value for key, value in content.items() if value is not None}
        elif kind == "stream":
            about = self.run(run)
            if content.get("exitcode") is not None:
                about["exitcode"] = content["exitcode"]
            for name, file in (content.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    for at, line in enumerate(file["content"], file["offset"]):
                        about["history"][at] = json.loads(line)
                elif name == "wandb-summary.json":
                    about["summary"] = json.loads(file["content"][-1])
        elif kind == "artifact":
            self.artifacts.append(content)
        elif kind == "unknown":
            self.unknown.append(content)

    def run(self, name):
        """What is known of a run."""
        return self.runs.setdefault(name, {"history": {}, "exitcode": None, "summary": {}})


class Handler(BaseHTTPRequestHandler):
    """One request after another, on a connection that stays."""

    protocol_version = "HTTP/1.1"
    state: State

    def answer(self):
        """Whatever the method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        content = {}
        if self.path == "/graphql":
            request = json.loads(body)
            content = {"data": self.graphql(request["query"], request.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.state.note("stream", json.loads(body), self.path.split("/")[-2])
            content = {"exitcode": None, "limits": {}}
        elif self.path == "/sweep":  # from a test: what the agent is to run
            asked = json.loads(body)
            self.state.sweep, self.state.waiting = asked["config"], asked["runs"]
        elif not self.path.startswith("/upload/"):
            self.state.note("unknown", self.path)
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        """Nothing on the terminal."""

    def graphql(self, query, values):
        """The data of an answer."""
        name = query.split("(")[0].split("{")[0].split()[-1]
        answer = getattr(self, f"on_{name}", None)
        if answer is None:
            self.state.note("unknown", name)
            return {}
        return answer(values)

    # ---- runs ------------------------------------------------------------------------------------------------------

    def on_ServerFeaturesQuery(self, values):
        return {"serverInfo": {"features": []}}

    def on_Viewer(self, values):
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def on_RunResumeStatus(self, values):
        run, bucket = self.state.runs.get(values["name"]), None
        if run is not None:
            tail = [json.dumps(run["history"][max(run["history"])])] if run["history"] else []
            bucket = {
                "id": values["name"],
                "name": values["name"],
                "displayName": run.get("displayName"),
                "summaryMetrics": json.dumps(run["summary"]),
                "historyLineCount": len(run["history"]),
                "logLineCount": 0,
                "eventsLineCount": 0,
                "historyTail": json.dumps(tail),
                "eventsTail": "[]",
                "config": run.get("config", "{}"),
                "tags": run.get("tags", []),
                "notes": None,
                "wandbConfig": '{"t": 1}',
            }
        return {"model": {"id": "p", "name": values["project"], "entity": {"id": "e", "name": "me"}, "bucket": bucket}}

    def on_UpsertBucket(self, values):
        inserted = values["name"] not in self.state.runs
        self.state.note("run", values)
        run = self.state.run(values["name"])
        project = {"id": "p", "name": values["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": values["name"],
            "name": values["name"],
            "displayName": run.get("displayName"),
            "description": None,
            "config": run.get("config", "{}"),
            "sweepName": run.get("sweep"),
            "historyLineCount": len(run["history"]),
            "project": project,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, values):
        return {
            "createRunFiles": {
                "runID": values["run"],
                "uploadHeaders": [],
                "files": [{"name": name, "uploadUrl": self.upload(name)} for name in values["files"]],
            }
        }

    # ---- sweeps ----------------------------------------------------------------------------------------------------

    def on_SweepWithRuns(self, values):
        return {
            "project": {
                "sweep": {"id": "s", "name": values["sweep"], "config": self.state.sweep, "runs": {"edges": []}}
            }
        }

    def on_CreateAgent(self, values):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def on_Heartbeat(self, values):
        """One run at a time: the next when none is under way, and in the end the word to leave."""
        commands = []
        if not json.loads(values["runState"]):
            commands = [self.state.waiting.pop(0) if self.state.waiting else {"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    # ---- artifacts -------------------------------------------------------------------------------------------------

    def on_ArtifactType(self, values):
        return {"project": {"artifact": None}}

    def on_CreateArtifact(self, values):
        self.state.note("artifact", values["input"])
        sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
        # Committed: it has everything already, and nothing is to be uploaded.
        return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}}

    def upload(self, name):
        """Where a file is sent to."""
        return f"http://{self.headers['Host']}/upload/{name}"


def serve(folder, port):
    """Until killed."""
    Handler.state = State(folder)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.handle_error = lambda *_: None  # a client that hangs up is none
    print(server.server_address[1], flush=True)
    server.serve_forever()


class Server:
    """The stand-in as a test sees it.

    Args:
        folder: where it keeps what it is sent.
    """

    def __init__(self, folder):
        self.folder, self.port = folder, 0
        self.begin()

    def begin(self):
        """Start it, or start it again where it was."""
        command = [sys.executable, str(Path(__file__)), str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def end(self):
        """``kill -9``."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    @property
    def environment(self):
        """How a W&B client finds it."""
        return {
            "WANDB_BASE_URL": f"http://127.0.0.1:{self.port}",
            "WANDB_API_KEY": "0123456789" * 4,
            "WANDB_MODE": "online",
        }

    @property
    def state(self):
        """What it was sent."""
        return State(self.folder)

    def post(self, path, content):
        """Tell it something."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(content).encode())
        with urllib.request.urlopen(request) as answer:
            answer.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
