"""Training a supernet: shared weights, a path sampler, and, if wanted, landmark regularisation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from lightning_modules.averaging import follow
from lightning_modules.imitation import imitation_loss, loss_and_outputs
from lightning_modules.landmark_regularizer import LandmarkRegularizer
from lightning_modules.networks.batch_statistics import fix, recalibrated, several_ranks
from lightning_modules.networks.supernet import Path, Supernet
from lightning_modules.objectives.base import Objective
from lightning_modules.objectives.classification import ClassificationObjective
from lightning_modules.path_samplers.base import ArchitectureStep, PathSampler
from lightning_modules.supernet_settings import SupernetSettings


@dataclass
class Mean:
    """A mean over steps that stays on the device."""

    total: Tensor
    count: int = 0

    def add(self, value: Tensor) -> None:
        """One more value."""
        self.total += value.detach()
        self.count += 1

    @property
    def value(self) -> Tensor:
        """The mean so far."""
        return self.total / max(1, self.count)


class SupernetModule(LightningModule):
    """One step: the loss of a sampled path, the landmarks' penalty, one step of the weights, one of the sampler.

    Operations that a path leaves out get a gradient of zero, so momentum and weight decay act on them too, as in the
    published searches. That every parameter has a gradient in every step also makes the gradients of all ranks one
    vector, which is averaged at once: distributed data parallelism has nothing to find out.

    Args:
        supernet: the shared weights.
        sampler: decides which path a step trains.
        regularizer: ranks landmarks; None for none.
        objective: what to learn and to rank by; None for classification.
        settings: of the optimisation.
        seed: of paths and landmark pairs.
    """

    def __init__(
        self,
        supernet: Supernet,
        sampler: PathSampler,
        regularizer: LandmarkRegularizer | None = None,
        objective: Objective | None = None,
        settings: SupernetSettings = SupernetSettings(),  # noqa: B008 - frozen
        seed: int = 0,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.supernet, self.sampler, self.regularizer = supernet, sampler, regularizer
        self.objective = ClassificationObjective() if objective is None else objective
        self.settings, self.seed = settings, seed
        self.averaged = copy.deepcopy(supernet).requires_grad_(False) if settings.average else None
        # What is no part of the shared gradient: a wrapper for distributed training would refuse the CPU's share of it.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in [*self.named_parameters(), *self.named_buffers()] if not name.startswith("supernet.")
        ]
        self._loss, self._penalty = Mean(torch.zeros(())), Mean(torch.zeros(()))
        self._coefficients: list[float] = []  # of every step of the epoch

    @property
    def evaluated(self) -> Supernet:
        """The supernet whose weights architectures are evaluated with."""
        return self.supernet if self.averaged is None else self.averaged

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of the shared weights; a sampler has an optimiser of its own."""
        return self.settings.make_optimizer(self._learned())

    def _learned(self) -> list[nn.Parameter]:
        """The weights that are not frozen."""
        return [parameter for parameter in self.supernet.parameters() if parameter.requires_grad]

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Gradients are averaged here; without this a wrapper would wait for those of other paths.

        At every step, for Lightning turns the wrapper's own averaging on again behind each.
        """
        if isinstance(self.trainer.model, nn.parallel.DistributedDataParallel):
            self.trainer.model.require_backward_grad_sync = False

    def on_train_epoch_start(self) -> None:
        """Set the epoch's learning rate, and give every weight a gradient, whatever the paths."""
        for parameter in self._learned():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for group in self._optimizer().param_groups:
            group["lr"] = self.settings.learning_rate_at(self.current_epoch)
        self._loss, self._penalty = (Mean(torch.zeros((), device=self.device)) for _ in range(2))
        self._coefficients = []

    def _optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        return optimizer

    def path_loss(self, path: Path, batch: Any) -> Tensor:
        """The loss of a path on a batch."""
        return self.objective.loss(partial(self.supernet, path=path), batch)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """One step of the weights, and one of the sampler."""
        step, optimizer = self.global_step, self._optimizer()
        optimizer.zero_grad(set_to_none=False)
        self._train_paths(self.sampler.paths(self.seed, step), batch["train"])
        epochs, batches = self.settings.epochs, max(1, int(self.trainer.num_training_batches))
        # In the middle of a step, so that the mean over steps is that of the schedule.
        self._regularise(batch["held_out"], step, self.current_epoch + (batch_index + 0.5) / batches)
        average_gradients(self.supernet.parameters())
        nn.utils.clip_grad_norm_(self.supernet.parameters(), self.settings.gradient_clip, foreach=True)
        optimizer.step()
        if self.averaged is not None:
            follow(self.averaged.parameters(), self.supernet.parameters(), self.settings.average, step)
        if not self.sampler.learns_at(step, self.current_epoch):
            return
        self.sampler.learn(
            ArchitectureStep(
                supernet=self.supernet,
                train_loss=lambda path: self.path_loss(path, batch["train"]),
                held_out_loss=lambda path: self.path_loss(path, batch["held_out"]),
                average=average_gradients,
                seed=self.seed,
                step=step,
                progress=(self.current_epoch + batch_index / batches) / epochs,
                learning_rate=self.settings.learning_rate_at(self.current_epoch),
            )
        )

    def _train_paths(self, paths: Sequence[Path], batch: Any) -> None:
        """Add the gradient of the mean loss of some paths, one after another: only one needs memory at a time."""
        teacher: Tensor | None = None
        for path in paths:
            if len(paths) == 1 or not self.sampler.distillation:
                loss = self.path_loss(path, batch)
            else:
                loss, outputs = loss_and_outputs(self.objective, partial(self.supernet, path=path), batch)
                if teacher is None:
                    teacher = outputs.detach()
                else:
                    loss = torch.lerp(loss, imitation_loss(outputs, teacher), self.sampler.distillation)
            self.manual_backward(loss / len(paths))
            self._loss.add(loss)

    def _regularise(self, batch: Any, step: int, moment: float) -> None:
        """Add the gradient of the landmarks' penalty; ``moment`` is how many epochs have passed."""
        if self.regularizer is None:
            return
        coefficient = self.regularizer.active(step, moment, self.settings)
        self._coefficients.append(coefficient)
        if not coefficient:
            return
        share, objective = self.regularizer.settings.batch_share, self.objective
        part = batch if share == 1 else objective.first(batch, max(2, round(share * objective.images(batch))))
        penalty = self.regularizer.penalty(
            self.regularizer.pairs(self.seed, step),
            # Of the joint batch: whether an order is wrong must be the same on every rank.
            lambda choices: mean_over_ranks(self.path_loss(self.sampler.path_of(choices), part)),
        )
        self._penalty.add(penalty)
        # Where the order holds, the hinge has no gradient: a CPU can look, an accelerator would have to be waited for.
        if penalty.requires_grad and (penalty.is_cuda or bool(penalty.detach() != 0)):
            self.manual_backward(coefficient * penalty)

    def epoch_values(self) -> dict[str, float]:
        """The epoch's mean loss and, with landmarks, their mean penalty and its mean weight, over all ranks."""
        means = {"loss": self._loss, "landmark_penalty": self._penalty}
        values = {name: float(mean_over_ranks(mean.value)) for name, mean in means.items() if mean.count}
        if self._penalty.count:
            values["landmark_coefficient"] = sum(self._coefficients) / len(self._coefficients)
        return values

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and penalty, and tell the sampler."""
        self.log("train_loss", self._loss.value, sync_dist=True)
        if self._penalty.count:
            self.log("landmark_penalty", self._penalty.value, sync_dist=True)

        @cache
        def batches() -> list[Any]:
            return self.trainer.datamodule.evaluation_batches()  # type: ignore[attr-defined]

        def evaluate(archs: Sequence[tuple[int, ...]]) -> list[float]:
            scores = [each.score for each in evaluate_paths(self, archs, batches())]
            # Whatever the last bits of other devices, all ranks go on with the same sampler.
            return self.trainer.strategy.broadcast(scores)

        self.sampler.epoch_ended(evaluate, self.seed, self.current_epoch, self.settings.epochs)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over all ranks, in one message."""
    if not several_ranks():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:  # as of the logits, where a path carries nothing
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    # A sampler's logits live on the CPU, which NCCL does not reach.
    message = flat.cuda() if dist.get_backend() == "nccl" else flat
    dist.all_reduce(message)
    flat.copy_(message).div_(dist.get_world_size())
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_over_ranks(loss: Tensor) -> Tensor:
    """The mean of a loss over all ranks; its gradient goes back to each of them."""
    return all_reduce(loss) / dist.get_world_size() if several_ranks() else loss


@dataclass(frozen=True)
class SharedScore:
    """What an architecture is worth with shared weights.

    Attributes:
        score: of the objective, higher is better.
        loss: of the objective.
    """

    score: float
    loss: float


@torch.no_grad()
def evaluate_paths(
    module: SupernetModule,
    archs: Sequence[tuple[int, ...]],
    batches: Sequence[Any],
    calibration: Sequence[Any] = (),
) -> list[SharedScore]:
    """Scores of architectures with shared weights.

    Args:
        module: whose supernet, sampler and objective.
        archs: what to evaluate.
        batches: as the objective reads them.
        calibration: batches whose mean statistics normalise the evaluation; none for the statistics of each batch, as
            in Landmark Regularization.
    """
    supernet, objective = module.evaluated, module.objective
    device = next(supernet.parameters()).device
    batches, calibration = (
        [module.transfer_batch_to_device(batch, device, 0) for batch in each] for each in (batches, calibration)
    )
    results: list[Tensor] = []
    for choices in archs:
        network = partial(supernet, path=module.sampler.path_of(choices))
        with recalibrated(supernet):
            for batch in calibration:
                objective.loss(network, batch)
            fix(supernet)
            results.append(torch.stack(objective.score(network, batches)))
    # One transfer for all of them: nothing above waits for the device.
    table = torch.stack(results).tolist() if results else []
    return [SharedScore(score, loss) for score, loss in table]
