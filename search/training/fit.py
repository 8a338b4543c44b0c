"""The one isolated fit of a Lightning module: of a child network, a supernet and a final network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from search.randomness import derive_seed
from search.training.isolation import isolated, quiet_lightning, seed_global_streams
from search.training.plan import FitPlan

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule


@dataclass(frozen=True)
class Fitted:
    """What a training gave.

    Attributes:
        module: trained.
        metrics: what was logged last, by name.
        epochs: that it took.
    """

    module: LightningModule
    metrics: dict[str, float]
    epochs: int


def fit(
    make: Callable[[], LightningModule],
    data: LightningDataModule,
    plan: FitPlan,
    history: list[dict[str, float]] | None = None,
) -> Fitted:
    """Train to the end of a plan, and leave no trace in the process.

    Args:
        make: makes the module; it may use the global random streams, which are put back.
        data: trained on. Where it has ``reseed(seed)``, it is told a seed; otherwise it draws from torch's random
            state, which is seeded.
        plan: how to train.
        history: filled, epoch by epoch, with what `search.training.watch.Watch` notes; also by a fit that fails.

    Raises:
        Diverged: and the plan says that this ends it.
        OutOfTime: the plan's deadline has passed.
        CatchmarkError: the plan is for other processes than there are, or for another machine.
        KeyboardInterrupt: the process was told to end.
    """
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from search.training.watch import check_finite, logged_by, make_trainer

    history = [] if history is None else history
    with isolated(), quiet_lightning():
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        trainer = make_trainer(plan, history)
        try:
            module = make()
            seed_global_streams(derive_seed(plan.seed, "training"))
            reseed: Any = getattr(data, "reseed", None)
            if callable(reseed):
                reseed(derive_seed(plan.seed, "data"))
            trainer.fit(module, datamodule=data, ckpt_path=plan.resume, weights_only=True)
            metrics, epochs = logged_by(trainer), len(history) or plan.epochs
            check_finite(plan.stop, metrics, epochs)
        except SystemExit as error:
            # Lightning turns Ctrl+C into SystemExit, and a scheduler's word to end into one of its own.
            if isinstance(error, SIGTERMException) or isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        finally:
            data.trainer = None  # or the network stays in memory
        return Fitted(module, metrics, epochs)


def check_plan(plan: FitPlan) -> None:
    """Refuse what the Trainer refuses, such as an accelerator that this machine does not have.

    Raises:
        CatchmarkError: it does.
    """
    from search.training.watch import make_trainer

    with isolated(), quiet_lightning():
        make_trainer(plan)
