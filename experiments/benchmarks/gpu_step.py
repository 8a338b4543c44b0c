"""A supernet's step on this machine's device, in several ways: images a second, and the share of the memory bound.

A step of such small networks moves far more bytes than it computes, so what bounds it is the memory's bandwidth. The
bound counts what every layer must at least read and write, once forwards and once backwards, and what the optimiser
moves; the bandwidth is that of copying a large tensor. `gpu.py` prints the table.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_modules.landmark_regularizer import LandmarkRegularizer, LandmarkSettings
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.cells import ReLUConvNorm
from lightning_modules.networks.supernet import Path
from search.spaces.nasbench201 import NASBench201

_WEIGHT_PASSES = 12
"""Times that the bytes of all weights are moved in a step: forwards and backwards, gradients zeroed, written and
clipped, and SGD with momentum, which reads three and writes two of them."""


@dataclass(frozen=True)
class Size:
    """Of the supernet and of the measurement."""

    channels: int = 16
    cells: int = 5
    resolution: int = 32
    batch: int = 256
    steps: int = 30
    copied: int = 2**28  # bytes of the tensor whose copying says what the memory can do

    @classmethod
    def toy(cls) -> Size:
        """A moment on a processor."""
        return cls(channels=4, cells=1, resolution=8, batch=8, steps=2, copied=2**22)


@dataclass(frozen=True)
class Variant:
    """A way to take the step."""

    name: str
    landmarks: bool = False
    half: bool = False  # bfloat16 where it is safe
    channels_last: bool = False
    compiled: bool = False  # each operation by itself: paths change from step to step


VARIANTS = (
    Variant("plain"),
    Variant("landmarks", landmarks=True),
    Variant("channels-last", channels_last=True),
    Variant("bf16", half=True),
    Variant("bf16, channels-last", half=True, channels_last=True),
    Variant("bf16, channels-last, landmarks", landmarks=True, half=True, channels_last=True),
    Variant("compiled parts", compiled=True),
    Variant("compiled parts, bf16, channels-last", half=True, channels_last=True, compiled=True),
)


def bandwidth(device: torch.device, copied: int) -> float:
    """Bytes a second that the device's memory moves, read and written, in copying a tensor of so many bytes."""
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = min(_seconds(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * copied / seconds


def measure(variant: Variant, size: Size, device: torch.device, memory: float) -> dict[str, float]:
    """``images_per_second``, ``milliseconds`` a step, and ``share`` of the memory bound that these are."""
    step, passes = _step(variant, size, device)
    for number in range(size.steps):  # every operation once or more, so that all that compiles has been compiled
        step(number)
    seconds = _seconds(lambda: [step(number) for number in range(size.steps, 2 * size.steps)], device) / size.steps
    return {
        "milliseconds": 1e3 * seconds,
        "images_per_second": size.batch / seconds,
        "share": passes() / memory / seconds,
    }


def _step(variant: Variant, size: Size, device: torch.device) -> tuple[Callable[[int], None], Callable[[], float]]:
    """Takes the step of a number, and says how many bytes one must move on average."""
    space = NASBench201()
    torch.manual_seed(0)
    supernet = space.build_supernet(BatchStatistics, channels=size.channels, cells=size.cells).to(device)
    images = torch.randn(size.batch, 3, size.resolution, size.resolution, device=device)
    labels = torch.randint(10, (size.batch,), device=device)
    if variant.channels_last:
        supernet = supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    if variant.compiled:
        for part in supernet.modules():
            if isinstance(part, ReLUConvNorm):
                part.compile()
    for parameter in supernet.parameters():  # whatever the paths, as in a training
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=5e-4, fused=True)
    archs = [space.draw("landmark", k) for k in range(30)]
    regularizer = LandmarkRegularizer(archs, [float(k) for k in range(30)], LandmarkSettings(warmup=0))

    def loss_of(arch: tuple[int, ...]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=variant.half):
            return nn.functional.cross_entropy(supernet(images, Path(arch)).float(), labels)

    def networks(number: int) -> list[tuple[int, ...]]:
        pairs = regularizer.pairs(0, number) if variant.landmarks else []
        return [space.draw("path", 0, number, 0), *(regularizer.landmarks[k] for pair in pairs for k in pair)]

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=False)
        path, *landmarks = networks(number)
        loss_of(path).backward()
        if landmarks:
            better, worse = landmarks
            (10 * torch.relu(loss_of(better) - loss_of(worse))).backward()
        nn.utils.clip_grad_norm_(supernet.parameters(), 5, foreach=True)
        optimizer.step()

    def least_bytes() -> float:
        weights = sum(each.numel() * each.element_size() for each in supernet.parameters())
        with _counted(supernet) as moved, torch.no_grad():
            for number in range(size.steps):
                for arch in networks(number):
                    loss_of(arch)
        return sum(moved) / size.steps + _WEIGHT_PASSES * weights

    return step, least_bytes


@contextlib.contextmanager
def _counted(network: nn.Module) -> Iterator[list[float]]:
    """Collects the bytes that each layer which runs must move: its input three times, its output twice."""
    moved: list[float] = []

    def count(part: nn.Module, given: tuple[object, ...], made: object) -> None:
        tensors = [each for each in given if isinstance(each, Tensor)]
        moved.append(3.0 * sum(each.numel() * each.element_size() for each in tensors))
        if isinstance(made, Tensor):
            moved.append(2.0 * made.numel() * made.element_size())

    hooks = [part.register_forward_hook(count) for part in network.modules() if not any(part.children())]
    try:
        yield moved
    finally:
        for hook in hooks:
            hook.remove()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
