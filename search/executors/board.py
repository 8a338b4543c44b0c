"""A folder through which a run hands jobs to whatever processes have joined it, on this machine or on others.

Everything is a file that is written aside and renamed, which a shared file system does in one stroke:

* ``held/NAME``: a task, or other work, pickled; jobs name it.
* ``jobs/KEY.todo`` waits. Whoever renames it to ``jobs/KEY.busy-WORKER`` does it, and touches that file meanwhile.
* ``answers/KEY-WORKER`` is what came of it, which counts from when ``busy`` becomes ``jobs/KEY.done-WORKER``. A worker
  that was given up finds no ``busy`` of its own to rename: what it found is dropped, so no job counts twice.
* ``leader`` is touched by the process that leads, and ``over`` made when there is nothing more to do.

Times are compared as the file system gives them, whatever the clocks of machines say. What is pickled is read only from
a folder of one's own that nobody else may write.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, RunError, one_line

TODO, BUSY, DONE = "todo", "busy", "done"
_LEADER, _OVER = "leader", "over"


@dataclass(frozen=True)
class Claim:
    """A job that a worker has taken.

    Attributes:
        key: of the job.
        file: that says so while it is there.
        held: the task or work that it is a job of.
        order: the proposal, or the job.
    """

    key: str
    file: Path
    held: str
    order: Any


class Board:
    """The folder.

    Args:
        folder: it is made if absent.

    Raises:
        CatchmarkError: it is somebody else's, or others may write it.
        RunError: it can't be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("held", "jobs", "answers"):
                (folder / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder} can't be written ({error.strerror})") from error
        for place in (folder, *(folder / name for name in ("held", "jobs", "answers"))):
            status = place.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise CatchmarkError(
                    f"{place} belongs to somebody else, or others may write it: what lies in it would be executed; "
                    "join runs of your own in a folder that only you may write"
                )

    # ---- the leader ------------------------------------------------------------------------------------------------

    def hold(self, name: str, content: bytes) -> None:
        """Put up what jobs are of, unless one of that name is there."""
        if not (self.folder / "held" / name).is_file():
            self._write(self.folder / "held" / name, content)

    def post(self, held: str, order: Any) -> str:
        """Put up a job, unless it is there already in any state, from before this process led; its key."""
        content = _pickled((held, order))
        key = hashlib.sha256(content).hexdigest()[:32]
        if not any(self._of(key)):
            self._write(self.folder / "jobs" / f"{key}.{TODO}", content)
        return key

    def keep_only(self, held: str) -> None:
        """Take down the jobs of anything else, which another leader may have left."""
        for file in (self.folder / "jobs").iterdir():
            with suppress(FileNotFoundError):
                if _unpickled(file.read_bytes())[0] != held:
                    self.forget(file.name.partition(".")[0])

    def beat(self) -> None:
        """The leader is there."""
        (self.folder / _LEADER).touch()

    def answers(self) -> dict[str, Any]:
        """What came of the jobs that are done, by key."""
        found = {}
        for file in self._jobs(DONE):
            key, worker = file.name.partition(".")[0], file.name.rpartition("-")[2]
            found[key] = _unpickled((self.folder / "answers" / f"{key}-{worker}").read_bytes())
        return found

    def overdue(self, seconds: float) -> list[str]:
        """Keys of jobs whose worker has not touched them for so long."""
        now = (self.folder / _LEADER).stat().st_mtime
        late = []
        for file in self._jobs(BUSY):
            with suppress(FileNotFoundError):  # it is done by now
                if now - file.stat().st_mtime > seconds:
                    late.append(file.name.partition(".")[0])
        return late

    def take_back(self, key: str) -> bool:
        """Let a job wait again; False where its worker has just finished it."""
        for file in self._of(key):
            if f".{BUSY}-" in file.name:
                with suppress(FileNotFoundError):
                    os.rename(file, self.folder / "jobs" / f"{key}.{TODO}")
                    return True
        return False

    def forget(self, key: str) -> None:
        """A job's answer is safe elsewhere, or nobody wants it."""
        for file in [*self._of(key), *(self.folder / "answers").glob(f"{key}-*")]:
            file.unlink(missing_ok=True)

    def finish(self) -> None:
        """There is nothing more to do, and nothing that was put up is of use."""
        (self.folder / _OVER).touch()
        for name in ("held", "jobs", "answers"):
            for file in (self.folder / name).iterdir():
                file.unlink(missing_ok=True)

    # ---- workers ---------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""
        return (self.folder / _OVER).is_file()

    def claim(self, worker: str) -> Claim | None:
        """Take a job that waits, the longest waiting first; None where none does."""
        for file in sorted(self._jobs(TODO), key=_age):
            mine = file.with_name(f"{file.stem}.{BUSY}-{worker}")
            try:
                os.utime(file)  # before it is busy: it may have waited for long
                os.rename(file, mine)
            except FileNotFoundError:
                continue  # somebody was quicker
            with suppress(FileNotFoundError):  # taken back at once
                held, order = _unpickled(mine.read_bytes())
                return Claim(file.stem, mine, held, order)
        return None

    def held(self, name: str) -> Any:
        """The task or work of that name."""
        return _unpickled((self.folder / "held" / name).read_bytes())

    def touch(self, claim: Claim) -> bool:
        """A worker is still at it; False where the job was taken back."""
        try:
            os.utime(claim.file)
        except FileNotFoundError:
            return False
        return True

    def answer(self, claim: Claim, worker: str, content: Any) -> bool:
        """What came of a job; False where it was taken back, and this does not count."""
        place = self.folder / "answers" / f"{claim.key}-{worker}"
        self._write(place, _pickled(content))
        try:
            os.rename(claim.file, claim.file.with_name(f"{claim.key}.{DONE}-{worker}"))
        except FileNotFoundError:
            place.unlink(missing_ok=True)
            return False
        return True

    # ---- files -----------------------------------------------------------------------------------------------------

    def _of(self, key: str) -> list[Path]:
        return list((self.folder / "jobs").glob(f"{key}.*"))

    def _jobs(self, state: str) -> list[Path]:
        return [file for file in (self.folder / "jobs").iterdir() if file.suffix.startswith(f".{state}")]

    def _write(self, place: Path, content: bytes) -> None:
        """A file that is there whole or not at all."""
        part = self.folder / f".{place.name}.{os.getpid()}.{time.monotonic_ns()}.part"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, place)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RunError(f"{place} could not be written ({one_line(error)})") from error


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _pickled(content: Any) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(content)


def _unpickled(content: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(content)
