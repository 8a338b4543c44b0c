"""Training in two stages, the first of which tells whether the second is worth it (FastDenseNAS, Nekrasov 2019)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from search.evaluation import Architecture
from search.randomness import derive_seed
from search.spaces.base import SearchSpace
from search.spaces.fast_dense import FastDense
from search.tasks.trained import TrainedTask
from search.training.fit import Fitted, fit
from search.training.isolation import isolated, seed_global_streams
from search.training.plan import FitPlan, TrainingStage
from search.training.trainer_arguments import TINY_TRAINER

if TYPE_CHECKING:  # jsonargparse resolves these names too, and only when a recipe names this task
    from pytorch_lightning import Callback, LightningDataModule, LightningModule

    from datamodules.encoded_crops import EncodedCrops


class TwoStageTask(TrainedTask):
    """First the decoder alone, on what a frozen encoder makes of some crops; then, perhaps, the whole network.

    The encoder's feature maps of the first stage's crops, their labels and what a teacher says of them are the same for
    every child, and computed once. Every child begins with the same encoder.

    A proposal's ``stop_below`` is looked at once, between the stages: a child whose score is then lower has ended, and
    that is its score. The task itself knows no other child's score, for it answers the same whenever it is asked; it is
    the agent that compares (`RunningMeanStop`). Beside the score stand ``first_stage``, the score between the stages,
    and how many ``stages`` there were.

    ``catchmark train`` trains the whole network for ``epochs``, from the same encoder, without the first stage.

    Args:
        space: builds networks with an ``encoder`` and a ``decoder``.
        data: of the second stage and of every validation, as for `EncoderDecoderModule`.
        module: wraps a network into a Lightning module that can ``freeze_encoder()``: `EncoderDecoderModule`.
        epochs: of the second stage.
        first_epochs: of the first stage.
        first_data: where crops of the first stage come from, all of one size; None for ``data``.
        crops: how many there are (4,000 in the paper).
        first_batch_size: crops a step of the first stage.
        precompute: compute the encoder's maps once; without it the first stage sees other crops in every epoch, an
            epoch of ``first_data``, and no teacher.
        teacher: a network from normalised images to logits of the same classes, of any size, such as
            `search.deploy.teacher.FoundNetwork`; None for none.
        encoder_seed: of the encoder's initial weights, where ``build`` names no file of them, and of the crops.
        build: arguments of ``space.build``.
        score: the logged metric to maximise.
        score_name: the axis label of plots.
        trainer: further arguments of Lightning's Trainer.
        time_limit_seconds: of both stages together, as in `TrainedTask`.
        threads: as in `TrainedTask`.
        channels_last: as in `TrainedTask`.
        objectives: as in `TrainedTask`.
        callbacks: as in `TrainedTask`.

    Raises:
        ValueError: an argument is out of range, or a teacher has nothing to teach on.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: LightningDataModule,
        module: Callable[[nn.Module], LightningModule],
        epochs: int = 1,
        first_epochs: int = 5,
        first_data: LightningDataModule | None = None,
        crops: int = 4000,
        first_batch_size: int = 64,
        precompute: bool = True,
        teacher: nn.Module | None = None,
        encoder_seed: int = 0,
        build: dict[str, Any] | None = None,
        score: str = "val_reward",
        score_name: str | None = "geometric mean of IoU, accuracy and weighted IoU (%)",
        trainer: dict[str, Any] | None = None,
        time_limit_seconds: float | None = None,
        threads: int | None = None,
        channels_last: bool = False,
        objectives: dict[str, Any] | None = None,
        callbacks: list[Callback] | None = None,
    ):
        super().__init__(
            space,
            data,
            module,
            epochs,
            build,
            score,
            score_name,
            trainer,
            time_limit_seconds,
            threads,
            channels_last,
            objectives=objectives,
            callbacks=callbacks,
        )
        for name, value in (("first_epochs", first_epochs), ("crops", crops), ("first_batch_size", first_batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}, at least 1 is needed")
        if teacher is not None and not precompute:
            raise ValueError("a teacher teaches on precomputed crops: say precompute: true, or leave it out")
        self.first_epochs, self.first_data, self.crops = first_epochs, first_data or data, crops
        self.first_batch_size, self.precompute, self.teacher = first_batch_size, precompute, teacher
        self.encoder_seed = encoder_seed
        self.honours = frozenset({"stop_below"})
        # What is computed once, on first use.
        self._begun_encoder: nn.Module | None = None
        self._encoded: EncodedCrops | None = None

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A step of each stage on scenes of digits."""
        data = {"class_path": "DigitScenesSegmentation", "init_args": {"scenes": 4, "val_scenes": 2, "batch_size": 4}}
        return {
            "data": data,
            "module": "EncoderDecoderModule",
            "epochs": 1,
            "first_epochs": 1,
            "crops": 4,
            "first_batch_size": 4,
            "threads": 1,
            "teacher": None,
            "trainer": dict(TINY_TRAINER),
        }

    @classmethod
    def toy_space(cls) -> SearchSpace:
        """One whose networks have an encoder and a decoder."""
        return FastDense()

    def fitted(
        self, architecture: Architecture, plan: FitPlan, parent: Path | None, watched: list[dict[str, float]]
    ) -> Fitted:
        """Both stages, or the first one; arguments as for `TrainedTask`."""
        below, stop = plan.stop.below, replace(plan.stop, below=None)
        first = replace(
            plan,
            stages=[TrainingStage(self.first_epochs)],
            stop=stop,
            leave=None,
            preset={"check_val_every_n_epoch": self.first_epochs},
            callbacks=copy.deepcopy(plan.callbacks),
        )
        data = self._encoded_data() if self.precompute else self.first_data
        with _noted(watched) as history:
            begun = fit(partial(self._start_frozen, architecture, plan.seed), data, first, history)
        score = begun.metrics.get(self.score)
        if score is None:  # who asks says so
            return begun
        known = {"first_stage": score, "stages": 1.0}
        if below is not None and score < below:
            return replace(begun, metrics=begun.metrics | known)
        second = replace(
            plan,
            stop=stop,
            seed=derive_seed(plan.seed, "second stage"),
            preset={"check_val_every_n_epoch": self.epochs},
        )
        with _noted(watched) as history:
            ended = fit(partial(self._go_on, begun.module), self.data, second, history)
        return Fitted(ended.module, ended.metrics | known | {"stages": 2.0}, begun.epochs + ended.epochs)

    def _start_frozen(self, architecture: Architecture, seed: int) -> LightningModule:
        module: Any = self.start(architecture, seed)
        module.freeze_encoder()
        return module

    def _go_on(self, begun: LightningModule) -> LightningModule:
        network: Any = begun.network
        return self.wrap(network.requires_grad_(True))

    # ---- what all children share -----------------------------------------------------------------------------------

    def _build(self, architecture: Architecture, seed: int) -> nn.Module:
        network: Any = super()._build(architecture, seed)
        network.encoder.load_state_dict(self._encoder().state_dict())
        return network

    def _encoder(self) -> nn.Module:
        """The encoder that every child begins with."""
        if self._begun_encoder is None:
            with isolated():
                seed_global_streams(derive_seed(self.encoder_seed, "encoder"))
                network: Any = self.space.build_from(self.space.draw("encoder"), self.build_arguments())
                self._begun_encoder = network.encoder
        return self._begun_encoder

    def _encoded_data(self) -> LightningDataModule:
        """The data of the first stage."""
        from datamodules.encoded_crops import EncodedCropsDataModule, encode_crops

        if self._encoded is None:
            encoder, device = self._encoder(), self._device()
            with isolated():
                seed_global_streams(derive_seed(self.encoder_seed, "crops"))
                reseed: Any = getattr(self.first_data, "reseed", None)
                if callable(reseed):
                    reseed(derive_seed(self.encoder_seed, "crops"))
                # A picture may be scaled to less than a crop.
                least = tuple(getattr(self.first_data, "crop", (1, 1)))
                self._encoded = encode_crops(self.first_data, encoder, self.crops, self.teacher, device, least)
        return EncodedCropsDataModule(self._encoded, self.data, self.first_batch_size)

    def _device(self) -> torch.device:
        """Where crops are encoded: as the Trainer would choose."""
        gpu = torch.cuda.is_available() and self.trainer.get("accelerator", "auto") != "cpu"
        return torch.device("cuda" if gpu else "cpu")

    def __getstate__(self) -> dict[str, Any]:
        """All but what is computed anew: a worker's copy of it would be sent with every task."""
        return {**vars(self), "_begun_encoder": None, "_encoded": None}


class _noted:
    """A list of its own for one of several fits, which ends up behind those before, also where the fit fails."""

    def __init__(self, all_of_them: list[dict[str, float]]):
        self._all, self._own = all_of_them, list[dict[str, float]]()

    def __enter__(self) -> list[dict[str, float]]:
        return self._own

    def __exit__(self, *_: object) -> None:
        self._all += self._own
