"""What Lightning is told of the ranks that train together, whatever launched them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
from typing import Any

from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment

from search.training.launch import Launch

_PR_SET_PDEATHSIG = 1
"""Of Linux' ``prctl``: which signal a process gets when its parent ends."""


class RankEnvironment(ClusterEnvironment):
    """The ranks of a launch.

    Lightning's own ones for torchrun and SLURM would also decide what a signal does, and refuse what they don't expect.

    Args:
        launch: a single process's own where it is to train alone.
    """

    def __init__(self, launch: Launch):
        super().__init__()
        self.launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        """They are all there."""
        return True

    @property
    def main_address(self) -> str:
        """Of rank 0."""
        return self.launch.address or "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Not used: the process group is there before Lightning asks."""
        return self.launch.port

    @staticmethod
    def detect() -> bool:
        """Only by being named."""
        return False

    def world_size(self) -> int:
        """How many ranks there are."""
        return self.launch.ranks

    def set_world_size(self, size: int) -> None:
        """The launcher has decided."""

    def global_rank(self) -> int:
        """This one."""
        return self.launch.rank

    def set_global_rank(self, rank: int) -> None:
        """The launcher has decided."""

    def local_rank(self) -> int:
        """This one on its node."""
        return self.launch.local_rank

    def node_rank(self) -> int:
        """The node."""
        return self.launch.node


class OwnProcesses(LightningEnvironment):
    """Processes on one machine that a Trainer starts by itself, and that end when the one that started them does.

    Lightning's own environment takes a port that was free a moment ago, or the one that an earlier training or a
    launcher has left in the environment, together with ranks and addresses. Here the process that starts the others
    listens first, at a port that the system gives it, and hands that on to rank 0: nobody else can take it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starter = 0
        self._listener: socket.socket | None = None
        self._store: Any = None

    @property
    def _started(self) -> bool:
        """Whether this is one of the processes, not the one that starts them."""
        parent = multiprocessing.parent_process()
        return parent is not None and parent.pid == self._starter

    @property
    def main_address(self) -> str:
        """Of this machine, for this machine."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where they meet; Lightning asks right before it starts the others, and right before each of them connects."""
        if not self._started:
            self._starter, self._listener = os.getpid(), socket.create_server((self.main_address, 0))
            self._main_port = self._listener.getsockname()[1]
            return self._main_port
        _end_with(self._starter)
        if self.global_rank() == 0 and self._store is None:
            assert self._listener is not None
            from torch.distributed import TCPStore

            # Of several tenants: the process group's store finds that this process listens already, and joins it.
            self._store = TCPStore(
                self.main_address,
                self._main_port,
                is_master=True,
                wait_for_workers=False,
                multi_tenant=True,
                master_listen_fd=self._listener.detach(),
            )
        return self._main_port

    def local_rank(self) -> int:
        """This one; the process that starts the others answers for the first."""
        return super().local_rank() if self._started else 0

    def node_rank(self) -> int:
        """There is one node."""
        return 0

    def teardown(self) -> None:
        """A training is over: leave the others. One that has failed does not wait for what they still expect of it."""
        import torch.distributed as dist

        super().teardown()
        # A process that was spawned would now and then be aborted by what the group's threads do while it ends.
        if self._started and dist.is_initialized() and sys.exc_info()[0] is None:
            dist.destroy_process_group()
            self._store = None


def _end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, whatever it is at: it may be waiting for the others."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it had ended before
        os.kill(os.getpid(), signal.SIGKILL)
