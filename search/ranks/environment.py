"""What Lightning is told of the ranks that train together, whatever launched them."""

from __future__ import annotations

from pytorch_lightning.plugins.environments import ClusterEnvironment

from search.launch import Launch


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
