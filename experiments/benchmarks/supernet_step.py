"""How fast a supernet learns, with and without landmarks, beside a plain loop.

    python experiments/benchmarks/supernet_step.py [--steps 30] [--repeats 3] [--channels 16] [--cells 5] [--batch 64]

Images are random numbers of CIFAR-10's shape that lie on the device. For each sampler it prints milliseconds a step and
images a second: the median over the repeats, with the fastest and the slowest. ``landmarks`` has every step compare a
pair on the whole batch, as the paper has it behind its warm-up; ``landmarks, lean`` compares two pairs on a quarter of
the batch, in every fifth step. Paths differ much in cost, so take enough steps. The reference trains the same paths and
pairs in a plain eager loop with one backward pass for each of its losses, as the public code does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lightning_modules.landmark_regularizer import LandmarkRegularizer, LandmarkSettings
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import PathSampler
from lightning_modules.path_samplers.gumbel import GumbelSampler
from lightning_modules.path_samplers.uniform import UniformSampler
from lightning_modules.supernet import SupernetModule
from lightning_modules.supernet_settings import SupernetSettings
from search.spaces.nasbench201 import NASBench201
from search.training.isolation import quiet_lightning

LEAN = {"pairs": 2, "batch_share": 0.25, "every": 5}


class _Batches:
    """The same batch over and over: what is measured is the step."""

    def __init__(self, batch: dict[str, tuple[Tensor, Tensor]], steps: int):
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        return iter([self.batch] * self.steps)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--precision", default="32-true")
    chosen = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; C={chosen.channels}, N={chosen.cells}, {chosen.resolution} pixels, precision {chosen.precision}")
    for batch_size in chosen.batch:
        for sampler in (UniformSampler, GumbelSampler):
            plain = 0.0
            for label, landmarks in (("without landmarks", None), ("landmarks", {}), ("landmarks, lean", LEAN)):
                times = [_ours(sampler, landmarks, batch_size, chosen, device) for _ in range(chosen.repeats)]
                line, middle = _shown(times, batch_size)
                plain = plain or middle
                print(
                    f"batch {batch_size:3} {sampler.__name__:15} {label:18} {line}  {middle / plain:.2f} x plain step"
                )
        for label, with_landmarks in (("without landmarks", False), ("landmarks", True)):
            times = [_reference(with_landmarks, batch_size, chosen, device) for _ in range(chosen.repeats)]
            print(f"batch {batch_size:3} {'reference loop':15} {label:18} {_shown(times, batch_size)[0]}")


def _shown(times: list[float], batch_size: int) -> tuple[str, float]:
    middle = statistics.median(times)
    spread = f"[{1e3 * min(times):.1f}, {1e3 * max(times):.1f}]"
    return f"{1e3 * middle:7.1f} ms {spread:16} {batch_size / middle:7.0f} images/s", middle


def _batch(batch_size: int, chosen: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, chosen.resolution, chosen.resolution, generator=generator)
    labels = torch.randint(10, (batch_size,), generator=generator)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def _supernet(chosen: argparse.Namespace, channels_last: bool) -> nn.Module:
    torch.manual_seed(0)
    supernet = NASBench201().build_supernet(BatchStatistics, channels=chosen.channels, cells=chosen.cells)
    return supernet.to(memory_format=torch.channels_last) if channels_last else supernet


def _landmarks() -> tuple[list[tuple[int, ...]], list[float]]:
    space = NASBench201()
    archs = [space.draw("landmark", k) for k in range(30)]
    return archs, [float(k) for k in range(30)]


def _synchronised(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _ours(
    make: type[PathSampler],
    landmarks: dict[str, float] | None,
    batch_size: int,
    chosen: argparse.Namespace,
    device: torch.device,
) -> float:
    """Seconds a step of the module under Lightning's Trainer: a second epoch, for the first one warms up."""
    from pytorch_lightning import Callback, Trainer

    regularizer = None
    if landmarks is not None:
        archs, worth = _landmarks()
        settings = LandmarkSettings(warmup=0, schedule="cosine_decrease", **landmarks)  # type: ignore[arg-type]
        regularizer = LandmarkRegularizer(archs, worth, settings)
    module = SupernetModule(
        _supernet(chosen, True), make(NASBench201()), regularizer, settings=SupernetSettings(epochs=400)
    )
    marks: list[float] = []

    class Clock(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: object) -> None:
            _synchronised(lambda: None, device)
            marks.append(time.perf_counter())

        on_train_epoch_end = on_train_epoch_start

    batch = _batch(batch_size, chosen, device)
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            precision=chosen.precision,
            callbacks=[Clock()],
        )
        trainer.fit(module, _Batches({"train": batch, "held_out": batch}, chosen.steps))
    return (marks[3] - marks[2]) / chosen.steps


def _reference(with_landmarks: bool, batch_size: int, chosen: argparse.Namespace, device: torch.device) -> float:
    """Seconds a step of the plain loop."""
    supernet, space = _supernet(chosen, False).to(device), NASBench201()
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=5e-4)
    images, labels = _batch(batch_size, chosen, device)
    images = images.contiguous()
    regularizer = LandmarkRegularizer(*_landmarks(), LandmarkSettings(warmup=0))

    def loss_of(arch: tuple[int, ...]) -> Tensor:
        return nn.functional.cross_entropy(supernet(images, Path(arch)), labels)

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=False)
        loss_of(space.draw("path", 0, number, 0)).backward()
        if with_landmarks:
            ((better, worse),) = regularizer.pairs(0, number)
            pair = loss_of(regularizer.landmarks[better]) - loss_of(regularizer.landmarks[worse])
            (10 * torch.relu(pair)).backward()
        nn.utils.clip_grad_norm_(supernet.parameters(), 5)
        optimizer.step()

    for number in range(3):
        step(number)

    def epoch() -> None:
        # The second epoch's steps, which are those that ours are timed on: as many passes through the same paths.
        for number in range(chosen.steps, 2 * chosen.steps):
            step(number)

    return _synchronised(epoch, device) / chosen.steps


if __name__ == "__main__":
    main()
