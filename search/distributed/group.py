"""The process group of one evaluation: made for it, and gone with it."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from search.errors import RunError
from search.training.launch import Launch

LEAVING_SECONDS = 300.0
"""How long a rank may take to come back from an evaluation that has failed elsewhere: it may be reading data."""
LOST_SECONDS = 30.0
"""The same where another rank is gone, and with it the run."""
_JOINING = timedelta(seconds=60)
"""How long ranks that have all said that they are ready may take to connect."""


class Group:
    """The process group of one evaluation, and what watches over it.

    Args:
        launch: of this process.
        port: of the store through which ranks find each other; None to make it.
    """

    def __init__(self, launch: Launch, port: int | None = None):
        # Imported while there is a group, its functions would keep that as their default, open for ever.
        import torch.distributed.nn  # noqa: F401

        self._launch, self._inside = launch, False
        self._timers: list[threading.Timer] = []
        self._store: Any = dist.TCPStore(
            launch.address, port or 0, is_master=port is None, timeout=_JOINING, wait_for_workers=False
        )
        self.port = self._store.port

    def join(self, backend: str) -> None:
        """Connect with every other rank."""
        self._inside = True
        dist.init_process_group(backend, store=self._store, rank=self._launch.rank, world_size=self._launch.ranks)

    def abandon(self, seconds: float, why: str) -> None:
        """Called in another thread: what this rank waits for will not come, and it may take so long to notice.

        gloo needs no telling: its connections break when the rank that failed leaves. NCCL does. A process that does
        not come back even so ends without ceremony; the journal has everything at any moment.
        """

        def end() -> None:
            print(f"catchmark: {why}, and rank {self._launch.rank} does not come back: it ends", file=sys.stderr)
            sys.stderr.flush()
            os._exit(RunError.exit_code)

        if self._inside:
            with suppress(Exception):
                if dist.group.WORLD is not None and "nccl" in dist.get_backend_config():
                    dist.group.WORLD.abort()
            self._timers.append(threading.Timer(seconds, end))
            self._timers[-1].daemon = True
            self._timers[-1].start()

    def close(self) -> None:
        """Leave, and close every connection: others may wait at its other end."""
        group = dist.group.WORLD if dist.is_initialized() else None
        with suppress(Exception):
            if group is not None:
                dist.destroy_process_group()
        self._store = None
        gc.collect()  # a Trainer and its module refer to each other, and to the group
        # Last, and from here: its end waits for gloo's threads, which may be waiting for Python's lock. That is let go
        # of where Python drops the last reference, and held where a wrapper of DDP does, in the collection above.
        del group
        self._inside = False
        for timer in self._timers:
            timer.cancel()
