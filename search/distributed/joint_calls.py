"""What several ranks do together, as each of them sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Order = dict[str, Any]
"""Names a joint call, in values that JSON carries."""
Result = TypeVar("Result")


class RankFailed(RuntimeError):
    """A joint call has failed, and it was another rank that failed first.

    Args:
        rank: which.
        reason: in one line.
    """

    def __init__(self, rank: int, reason: str):
        super().__init__(f"{reason} (rank {rank})")


class RankTraceback(Exception):
    """Where in its code another rank failed: the cause of a `RankFailed`."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def no_failure(result: object) -> None:
    """What returns has not failed."""


class Together(Protocol):
    """Makes a joint call, on rank 0."""

    def __call__(
        self, order: Order, own: Callable[[], Result], failure: Callable[[Result], str | None] = no_failure
    ) -> Result:
        """Do something on every rank, in a process group of its own.

        Args:
            order: what the others are to do.
            own: the same on rank 0.
            failure: says of what ``own`` gave why it is a failure, if it is one.

        Returns:
            What ``own`` gave.

        Raises:
            RankFailed: another rank failed before this one.
            CatchmarkError: another rank says that what was given is wrong.
            RunError: another rank is gone.
            KeyboardInterrupt: another rank was interrupted.
        """
        ...


class JointCalls(ABC):
    """The joint calls of a command, on any rank.

    Attributes:
        nothing: why there are none; empty where there may be some.
    """

    nothing: str = ""

    @abstractmethod
    def find(self, order: Order) -> Callable[[], str | None]:
        """What a rank is to do for an order of rank 0; that returns why it has failed, if it has.

        Raises:
            CatchmarkError: what rank 0 sees is not what this rank sees.
        """
