"""``catchmark train`` on several ranks: all of them train, and rank 0 does the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from search.deploy.choice import Choice, build_task
from search.deploy.shared_start import SharedStart, digest_of
from search.distributed.joint_calls import JointCalls, Order, Together
from search.distributed.shared_files import see_checkpoint, see_weights
from search.loop.search import Listener
from search.recipes.build import build, description_of
from search.spaces.base import SearchSpace
from search.training.launch import Launch
from search.training.tensor_files import load_tensors
from search.training.trainer_arguments import arguments_of_rank, is_joint


class JointFit(JointCalls):
    """The full training of a network, as all ranks see it.

    A rank other than 0 builds what rank 0 has chosen; it does not look into the run, which may still be going on.

    Args:
        launch: of this process.
        choice: on rank 0, what to train.
        together: on rank 0, makes a joint call.

    Raises:
        CatchmarkError: the task is not made for that many ranks.
    """

    def __init__(self, launch: Launch, choice: Choice | None = None, together: Together | None = None):
        self.launch, self._together = launch, together
        if choice is not None:
            if not is_joint(choice.task.trainer):
                self.nothing = "the task that is trained has no trainer: {strategy: ddp}"
            self._prepare(choice)

    def fit(self, choice: Choice, checkpoint: Path, done: int, log: Listener, quiet: bool) -> None:
        """Train as `search.deploy.training.fit` does, with every rank where the task says so."""
        from search.deploy.training import fit

        own = partial(fit, choice, checkpoint, done, log, quiet)
        if self.nothing or self._together is None:
            own()
            return
        order = {
            "space": description_of(choice.space),
            "task": description_of(choice.task),
            "architecture": list(choice.architecture),
            "seed": choice.seed,
            "keep": choice.keep,
            "shared": None if choice.shared is None else choice.shared.described(),
            "checkpoint": str(checkpoint),
            "done": done,
        }
        self._together(order, own)

    def find(self, order: Order) -> Callable[[], str | None]:
        """Another rank's part in the training."""
        from search.deploy.training import SHARED, epochs_of, fit

        choice, checkpoint = self._choice(order), Path(order["checkpoint"])
        if order["done"]:
            see_checkpoint(checkpoint, order["done"], partial(epochs_of, checkpoint), self.launch)
        elif choice.shared is not None:
            shared = checkpoint.with_name(SHARED)
            see_weights(shared, choice.shared.digest, lambda: digest_of(load_tensors(shared)), self.launch)
        return partial(fit, choice, checkpoint, order["done"], quiet=True)

    def _choice(self, order: dict[str, Any]) -> Choice:
        space = build(order["space"], SearchSpace, "space")
        task = build_task(order["task"], "task", space)
        shared = order["shared"]
        choice = Choice(
            space,
            space.check(order["architecture"]),
            task,
            order["seed"],
            None,
            None,
            None,
            keep=order["keep"],
            shared=None if shared is None else SharedStart(**shared | {"fresh": tuple(shared["fresh"])}),
        )
        self._prepare(choice)
        return choice

    def _prepare(self, choice: Choice) -> None:
        arguments_of_rank(choice.task.trainer, self.launch, "task")  # refused before anything is trained
