"""What trainings ask of data, beside what Lightning does."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class WholeTrainingSet(Protocol):
    """Data whose training set can be had as one, to be divided."""

    batch_size: int

    def training_set(self, augmented: bool = True) -> Any:
        """All training images; whole batches come from its ``__getitems__``, an epoch's from its ``set_epoch``."""
        ...

    def reseed(self, seed: int) -> None:
        """Set the seed of order and augmentation."""
        ...


@runtime_checkable
class TestedData(Protocol):
    """Data with images that choose nothing: no architecture, no epoch. A full training is reported on them.

    Of a data module that does not say ``has_test``, its own ``test_dataloader`` is taken for one of such images.
    """

    @property
    def has_test(self) -> bool:
        """Whether there are any."""
        ...

    def test_dataloader(self) -> Any:
        """Batches of them, in order, as validation has them."""
        ...


@runtime_checkable
class NamedClasses(Protocol):
    """Data whose classes have names, for tables, pictures and exported files."""

    classes: list[str]
    """The name of each class, in the order of the labels."""


@runtime_checkable
class SupernetData(Protocol):
    """Data in the parts that weight sharing needs.

    Batches are whatever the objective of the training reads.
    """

    def reseed(self, seed: int) -> None:
        """Set the seed of order and augmentation."""
        ...

    def train_dataloader(self) -> Any:
        """Batches ``{"train": what the weights learn from, "held_out": what they do not}``."""
        ...

    def evaluation_batches(self) -> list[Any]:
        """What architectures are evaluated on: of neither of the two."""
        ...

    def calibration_batches(self, count: int) -> list[Any]:
        """So many batches of the weights' own to recalibrate normalisation on."""
        ...
