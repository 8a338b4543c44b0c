"""``catchmark status``: where runs stand, told without disturbing them."""

import os
import re

import search
from search.cli import main
from search.runs.locking import FileLock, holder_of


def test_a_run_that_goes_on_one_that_stopped_and_one_that_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = {}

    def evaluate(architecture):
        if stops and len(said) == 0:
            assert main(["status"]) == 0
            said["meanwhile"] = capsys.readouterr().out
            raise KeyboardInterrupt
        return architecture.count(3)

    stops = False
    search.find("NASBench201", evaluate, 6, "RandomSearch", folder="runs/done", quiet=True)
    stops = True
    try:
        search.find("NASBench201", evaluate, 8, "RandomSearch", folder="runs/half", quiet=True)
    except KeyboardInterrupt:
        pass
    assert re.search(rf"^runs/half +running +{os.getpid()} +0 of 8 +.* ago$", said["meanwhile"], re.M)
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "journal.sqlite").write_bytes(b"no database")
    assert main(["status", "runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "process", "done", "last", "written"] and len(lines) == 4
    assert re.search(r"^runs/done +finished +6 +", "\n".join(lines), re.M)
    assert re.search(r"^runs/half +stopped +0 of 8 +", "\n".join(lines), re.M)
    assert lines[1].startswith("runs/torn") and "damaged" in lines[1]  # the last written comes first


def test_nothing_there(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no run below {tmp_path}\n"
    assert main(["status", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_who_holds_a_lock(tmp_path):
    path = tmp_path / "a.lock"
    assert holder_of(path) is None
    lock = FileLock(path)
    assert holder_of(path) == os.getpid()
    lock.release()
    assert holder_of(path) is None  # this process lives, and holds it no more
    path.write_text("999999999\n")
    assert holder_of(path) is None
    path.write_text("who?")
    assert holder_of(path) is None
