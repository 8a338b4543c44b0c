"""What all W&B runs of one run folder share: their mode, their ids, and what happens where W&B fails."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from search.errors import CatchmarkError, nearest, one_line
from search.loop.search import Listener

_START_SECONDS, _FINISH_SECONDS = 30, 120
"""How long an online run may wait for W&B's server when it starts and when it ends."""

_COMPLETE = "complete"
"""Name of the file that marks a W&B run's folder as holding all that there is to log."""

_MODES = ("offline", "online", "disabled", "shared", "dryrun", "run")
_ONLINE = ("online", "shared", "run")


class WandbConnection:
    """Starts W&B runs, and lets each of them fail without the search.

    Args:
        folder: the run's folder; W&B writes to ``wandb/`` in it, and nowhere else.
        recipe: the recipe's name: the group of all its W&B runs.

    Raises:
        CatchmarkError: ``WANDB_MODE`` is none of W&B's modes.
    """

    def __init__(self, folder: Path, recipe: str):
        self.folder, self.recipe = folder.resolve() / "wandb", recipe
        self.mode = os.environ.get("WANDB_MODE") or "offline"
        if self.mode not in _MODES:
            raise CatchmarkError(f"the environment variable WANDB_MODE is '{self.mode}'{nearest(self.mode, _MODES)}")

    @contextmanager
    def guarded(self, subject: str, abandon: Callable[[], None], again: bool = False) -> Iterator[None]:
        """Let W&B fail without the search, and keep in the run's folder what it would put into the home directory.

        Args:
            subject: what is logged, for the message.
            abandon: called where W&B has failed.
            again: whether a resumed run logs it again.
        """
        ours = {
            "WANDB_DATA_DIR": str(self.folder / "data"),
            "WANDB_CACHE_DIR": str(self.folder / "cache"),
            "WANDB_SILENT": "true",
            # Offline is offline: W&B's own reports of its errors would be sent all the same.
            "WANDB_ERROR_REPORTING": "false",
        }
        ours = {name: value for name, value in ours.items() if name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        except Exception as error:
            abandon()
            cure = f", and 'catchmark run --resume {self.folder.parent}' logs it again" if again else ""
            what = f"logging of {subject} has stopped ({one_line(error)})"
            self.say(f"{what}; the search goes on, its journal has it all{cure}")
        finally:
            for name in ours:
                del os.environ[name]

    def identity(self, *parts: object) -> str:
        """A W&B id: the same part of the same run folder is the same W&B run, however often it is resumed."""
        file = self.folder / "identity"
        if not file.exists():
            # A name or a path would not do: two machines may start the same recipe in the same second.
            self.folder.mkdir(exist_ok=True)
            partial = file.with_suffix(".partial")
            partial.write_text(uuid.uuid4().hex)
            os.replace(partial, file)
        return hashlib.sha256("/".join([file.read_text(), *map(str, parts)]).encode()).hexdigest()[:16]

    def earlier(self, identity: str) -> list[Path]:
        """Folders of earlier attempts at a W&B run."""
        return list(self.folder.glob(f"*run-*-{identity}*"))

    def is_complete(self, earlier: Sequence[Path]) -> bool:
        """Whether one of these holds all that there is to log."""
        return any((each / _COMPLETE).exists() for each in earlier)

    def replace(self, earlier: Sequence[Path]) -> None:
        """Remove earlier attempts that were not sent yet: a newer one has all of it, and both would be sent."""
        for folder in earlier:
            if folder.name.startswith("offline-") and not list(folder.glob("*.synced")):
                shutil.rmtree(folder, ignore_errors=True)

    def start(
        self, identity: str, name: str, job_type: str, tags: Sequence[str], config: dict[str, Any], **settings: Any
    ) -> Any:
        """Start a W&B run, or go on with it; offline where online is not possible.

        Args:
            identity: its id.
            name: for people; the recipe's name goes before it.
            job_type: what kind of run of its group it is.
            tags: to filter by.
            config: what it is a run of.
            **settings: further ones of W&B.
        """
        import wandb

        arguments: dict[str, Any] = dict(
            project=os.environ.get("WANDB_PROJECT", "catchmark"),
            name=f"{self.recipe}/{name}",
            id=identity,
            group=self.recipe,
            job_type=job_type,
            tags=[tag[:64] for tag in tags],  # W&B refuses longer ones
            config=config,
            dir=str(self.folder.parent),
            resume="allow",
            # No terminal output, machine statistics, source code or list of packages: a start takes milliseconds.
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                save_code=False,
                reinit="create_new",  # several may be under way at a time
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", _START_SECONDS)),
                finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", _FINISH_SECONDS)),
                finish_timeout_raises=True,
                **settings,
            ),
        )
        there = set(self.earlier(identity))
        try:
            # Asked for here, for `init` would stop and wait for someone to type a key.
            if self.mode in _ONLINE and not wandb.login(prompt=False, verify=False):
                raise ValueError("no API key: set WANDB_API_KEY, or run 'wandb login'")
            return wandb.init(mode=self.mode if self.mode in _ONLINE else "offline", **arguments)  # type: ignore[arg-type]
        except Exception as error:
            # No key, no network, a full quota: the search matters more, and offline data can be sent later.
            if self.mode in _ONLINE:
                self.say(
                    f"WANDB_MODE={self.mode} is not possible now ({one_line(error)}); logging offline, "
                    f"send it later with: wandb sync {self.folder}/offline-run-*"
                )
                self.mode = "offline"
            # Or W&B takes the id to be in use by the run that has just failed to start; and where its own process has
            # died since the last run, it starts another one.
            with suppress(Exception):
                wandb.teardown()
            for folder in set(self.earlier(identity)) - there:
                if not list(folder.glob("*.wandb")):  # nobody could send it
                    shutil.rmtree(folder, ignore_errors=True)
            return wandb.init(mode="offline", **arguments)

    def finish(self, run: Any, failed: bool = False) -> None:
        """Finish a W&B run that holds all that there is to log.

        Args:
            run: from `start`.
            failed: whether what it is about has failed.
        """
        folder = Path(run.dir).parent
        run.finish(exit_code=int(failed))
        (folder / _COMPLETE).touch()

    def say(self, text: str) -> None:
        """A line for the user."""
        print(f"W&B: {text}", file=sys.stderr, flush=True)


class OneRun(Listener):
    """A listener that has one W&B run at a time; what W&B does to that run does not stop the search.

    Args:
        connection: to W&B.
        subject: what is logged, for the message where W&B fails.
        again: whether a resumed run logs it again.
    """

    def __init__(self, connection: WandbConnection, subject: str, again: bool = False):
        self.connection, self._subject, self._again = connection, subject, again
        self._run: Any = None

    def guarded(self) -> AbstractContextManager[None]:
        """Within it W&B may fail."""
        return self.connection.guarded(self._subject, self._abandon, self._again)

    def close(self) -> None:
        """Finish a W&B run that was cut short."""
        if self._run is not None:
            with self.guarded():
                self._run.finish(exit_code=1)
            self._abandon()

    def _abandon(self) -> None:
        self._run = None
