"""The score of a fusion after training it, and what it has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lightning_modules.networks.fusion import Fusion, LateFusion
from search.evaluation import Evaluation
from search.randomness import derive_seed
from search.spaces.fusion import FusionSpace
from search.spaces.head import head_of
from search.tasks.trained import TrainedTask
from search.training.fit import fit
from search.training.isolation import isolated, quiet_lightning, seed_global_streams

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule

FIRST, SECOND, LATE, ALL = "first modality alone", "second modality alone", "late fusion", "all features at once"


class FusionTask(TrainedTask):
    """`TrainedTask` that, of a `FusionSpace`, also measures what fusion has to beat.

    `references` are trained as long as an architecture is, with the same width: either modality alone (one layer on its
    last feature), the mean of what these two hold probable, and one layer on all features of both. On any other space
    there are none, and this is `TrainedTask`.
    """

    def references(self, seed: int) -> Mapping[str, Evaluation]:
        """Each of them, trained once."""
        if not isinstance(self.space, FusionSpace):
            return {}
        first, second = (tuple(range(len(each.sizes))) for each in (self.space.first, self.space.second))
        plans = {FIRST: Fusion(first[-1:], ()), SECOND: Fusion((), second[-1:]), ALL: Fusion(first, second)}
        modules, found = dict[str, "LightningModule"](), dict[str, Evaluation]()
        for name, layer in plans.items():
            own = derive_seed(seed, name)
            fitted = fit(partial(self._start_fusion, [layer], own), self.data, self.plan(own))
            modules[name], found[name] = fitted.module, self._answer(fitted.metrics)
        found[LATE] = self._answer(self._late(modules[FIRST], modules[SECOND], seed))
        return {name: found[name] for name in (FIRST, SECOND, LATE, ALL)}

    def _start_fusion(self, layers: Sequence[Fusion], seed: int) -> LightningModule:
        """A module of fusion layers that are no architecture."""
        assert isinstance(self.space, FusionSpace)
        head, options = head_of(self.build_arguments())
        seed_global_streams(derive_seed(seed, "network"))
        return self.wrap(self.space.build_fusion(layers, head, **options))

    def _late(self, one: LightningModule, other: LightningModule, seed: int) -> dict[str, float]:
        """What is measured of the mean of two trained networks."""
        from search.training.watch import logged_by, make_trainer

        with isolated(), quiet_lightning():
            exclusive = getattr(one, "exclusive", True)
            module = self.wrap(LateFusion(one.network, other.network, exclusive))  # type: ignore[arg-type]
            trainer = make_trainer(self.plan(seed))
            try:
                trainer.validate(module, datamodule=self.data, verbose=False)
            finally:
                self.data.trainer = None
            return logged_by(trainer)

    def _answer(self, metrics: Mapping[str, float]) -> Evaluation:
        """The score, and what is measured on other data than the score."""
        return Evaluation(
            metrics[self.score], {name: each for name, each in metrics.items() if name.startswith("test_")}
        )
