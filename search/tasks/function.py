"""A function of the user's own as a task: `search.find` searches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Optional

from search.errors import RunError, explain
from search.evaluation import Architecture, Evaluation, Proposal
from search.spaces.base import SearchSpace
from search.tasks.base import OneByOne

Answer = float | Mapping[str, float] | Evaluation
"""What a function may return: the score; or metrics by name, of which ``score`` is the score; or a whole evaluation."""


class FunctionTask(OneByOne):
    """Whatever a Python function says an architecture is worth, the higher the better.

    A recipe is text and can't hold the function: whoever builds the task sets ``function``. Without it, as where a run
    is read again, nothing can be evaluated, and everything that was evaluated is still known.

    Args:
        space: of the architectures.
        score_name: what the score is, with its unit; the axis label of every plot.
        objectives: what is wanted of the score and the metrics that the function gives, each ``max`` or ``min``, each
            perhaps with a hard limit: ``{latency_ms: {direction: min, limit: 5.0}}``.

    Attributes:
        function: takes an architecture; an error that it raises is a failed evaluation with that reason.
    """

    def __init__(
        self,
        space: SearchSpace,
        score_name: str = "score",
        objectives: Optional[dict[str, Any]] = None,  # noqa: UP045 - jsonargparse reads it on Python 3.10
    ):
        self.space, self.score_name = space, score_name
        self.objectives = objectives or {}
        self.function: Callable[[Architecture], Answer] | None = None

    @classmethod
    def toy(cls) -> None:
        """A recipe has no function."""

    def open(self) -> None:
        """Refuse to go on without the function."""
        if self.function is None:
            raise RunError(
                "the function that was searched is not kept, only what it said; go on by calling search.find again "
                "with the function and folder= this run's folder"
            )

    def evaluate_one(self, proposal: Proposal) -> Evaluation:
        """Call the function."""
        self.open()
        assert self.function is not None
        began = time.monotonic()
        try:
            answer = self.function(proposal.architecture)
            if isinstance(answer, Evaluation):
                return answer
            metrics = dict(answer) if isinstance(answer, Mapping) else {"score": answer}
            values = {str(name): float(value) for name, value in metrics.items()}
            return Evaluation(values.pop("score"), values, time.monotonic() - began)
        except KeyError as error:
            reason = f"the function gave no {error}" if error.args == ("score",) else explain(error)
        except Exception as error:
            reason = explain(error)
        return Evaluation.failed(reason, time.monotonic() - began)
