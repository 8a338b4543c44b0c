"""The one isolated fit of a Lightning module: of a child network, a supernet and a final network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from search.randomness import derive_seed
from search.training.isolation import isolated, quiet_lightning, seed_global_streams
from search.training.plan import FitPlan
from search.training.tensor_files import load_tensors, save_tensors

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule


_EPOCHS = "catchmark.epochs"
"""Where a file of trained weights says for how many epochs they were trained; no parameter is called that."""


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
            if plan.leave is not None and trainer.is_global_zero:
                save_tensors(plan.leave, {**module.state_dict(), _EPOCHS: plan.before + epochs})
        except SystemExit as error:
            # Lightning turns Ctrl+C into SystemExit, and a scheduler's word to end into one of its own.
            if isinstance(error, SIGTERMException) or isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        finally:
            data.trainer = None  # or the network stays in memory
        return Fitted(module, metrics, epochs)


def inherit(module: nn.Module, path: Path) -> int:
    """Begin with the weights of another network, wherever that has one of the same name and shape.

    Args:
        module: fresh.
        path: what a `FitPlan` has left.

    Returns:
        How many parameters and buffers were taken over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds anything but tensors and plain values.
    """
    weights, own = load_tensors(path), module.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if isinstance(value, torch.Tensor) and name in own and own[name].shape == value.shape
    }
    module.load_state_dict(own | fitting)
    return len(fitting)


def epochs_of(path: Path) -> int:
    """For how many epochs the weights were trained that a `FitPlan` has left; 0 where the file does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds anything but tensors and plain values.
    """
    epochs = load_tensors(path, mmap=True).get(_EPOCHS, 0)
    return epochs if isinstance(epochs, int) else 0


def check_plan(plan: FitPlan) -> None:
    """Refuse what the Trainer refuses, such as an accelerator that this machine does not have.

    Raises:
        CatchmarkError: it does.
    """
    from search.training.watch import make_trainer

    with isolated(), quiet_lightning():
        make_trainer(plan)
