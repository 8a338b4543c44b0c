"""How long one forward pass takes, measured.

A latency is a property of a network *and* of everything in `LatencySettings`: numbers of two settings, or of two
machines, can't be compared. What else the machine does at the time goes into the number too, so passes are timed one by
one, in rounds, and what counts is the median of the rounds' medians.
"""

from __future__ import annotations

import copy
import platform
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LatencySettings:
    """What a latency depends on besides the network and the machine, and how carefully it is measured.

    Attributes:
        batch: images a pass.
        resolution: height and width of an image in pixels: one number for squares, or both.
        channels: of an image.
        device: ``cpu``, or ``cuda``, or one of several GPUs such as ``cuda:1``.
        threads: of the CPU for a pass; without effect on a GPU.
        precision: type of weights and images. The network is cast as a whole; nothing is left in float32.
        channels_last: lay images and weights out pixel by pixel.
        warmup: passes before the first that is timed.
        repeats: passes a round; assumed.
        rounds: of whose medians the median counts: what disturbs less than half of them leaves no trace; assumed.

    Raises:
        ValueError: a number or word is none of those allowed.
    """

    batch: int = 1
    resolution: int | Sequence[int] = 224
    channels: int = 3
    device: str = "cpu"
    threads: int = 1
    precision: Precision = "float32"
    channels_last: bool = False
    warmup: int = 5
    repeats: int = 11
    rounds: int = 5

    def __post_init__(self) -> None:
        """Refuse what can't be measured."""
        for name in ("batch", "channels", "threads", "repeats", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, at least 1 is needed")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}, at least 0 is needed")
        sides = [self.resolution] if isinstance(self.resolution, int) else list(self.resolution)
        if len(sides) not in (1, 2) or min(sides) < 1:
            raise ValueError(f"resolution is {self.resolution}: one number of pixels is needed, or height and width")
        object.__setattr__(self, "resolution", (sides[0], sides[-1]))
        if self.precision not in Precision.__args__:  # type: ignore[attr-defined]
            allowed = ", ".join(Precision.__args__)  # type: ignore[attr-defined]
            raise ValueError(f"precision is '{self.precision}', allowed: {allowed}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device is '{self.device}', allowed: cpu, cuda, and cuda:0, cuda:1, ... of several GPUs")

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Of a batch: (images, channels, height, width)."""
        assert not isinstance(self.resolution, int)
        return self.batch, self.channels, self.resolution[0], self.resolution[1]

    @property
    def dtype(self) -> torch.dtype:
        """Torch's name of the precision."""
        return getattr(torch, self.precision)

    def described(self) -> dict[str, object]:
        """All that a latency depends on: two numbers can be compared where these are equal, on one machine."""
        kind = torch.device(self.device).type
        return {
            "device": kind,
            "threads": self.threads if kind == "cpu" else None,
            "batch": self.batch,
            "channels": self.channels,
            "resolution": list(self.input_shape[2:]),
            "precision": self.precision,
            "channels_last": self.channels_last,
        }

    def check_device(self) -> None:
        """Raises a ValueError where this machine has no such device."""
        device = torch.device(self.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
            raise ValueError(f"device is '{self.device}', this machine has: {', '.join(there)}")


@dataclass(frozen=True)
class Latency:
    """A measured latency.

    Attributes:
        milliseconds: of one pass on a whole batch: the median of the rounds' medians.
        spread: between the slowest and the fastest round's median, as a share of ``milliseconds``. Large where the
            machine was busy.
        settings: how it was measured.
        hardware: what it was measured on.
    """

    milliseconds: float
    spread: float
    settings: LatencySettings
    hardware: str

    def __str__(self) -> str:
        """One line, with all that the number depends on."""
        batch, channels, height, width = self.settings.input_shape
        return (
            f"{self.milliseconds:.3g} ms (rounds spread {100 * self.spread:.1f} %) a batch of {batch} x {channels} x "
            f"{height} x {width}, {self.settings.precision}, {self.hardware}"
        )


def measure_latency(network: nn.Module, settings: LatencySettings) -> Latency:
    """Time a network's forward pass.

    A copy of the network is timed, in evaluation mode and without gradients, on random images; batch normalisation is
    not folded into convolutions. The network itself, threads and random states are left as they were.

    Args:
        network: takes float ``[batch, channels, height, width]``.
        settings: how to measure.

    Raises:
        ValueError: this machine has no such device.
    """
    settings.check_device()
    with measuring(settings):
        timed, images = prepare(network, settings, settings.device)
        stopwatch = Stopwatch(settings)
        for _ in range(settings.warmup):
            timed(images)
        rounds = []
        for _ in range(settings.rounds):
            marks = []
            for _ in range(settings.repeats):
                began = stopwatch.read()
                timed(images)
                marks.append((began, stopwatch.read()))
            rounds.append([stopwatch.milliseconds(*mark) for mark in marks])
    return Latency(*median_of_medians(rounds), settings, hardware_name(torch.device(settings.device)))


def prepare(network: nn.Module, settings: LatencySettings, device: str) -> tuple[nn.Module, Tensor]:
    """A copy of a network in evaluation mode, and a batch of random images for it.

    Args:
        network: stays as it is.
        settings: decide type, layout and shape.
        device: where both go; on ``meta`` a pass computes nothing.
    """
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    copied = copy.deepcopy(network).eval()
    copied = copied.to(device=device, dtype=settings.dtype, memory_format=layout)  # type: ignore[call-overload]
    images = torch.rand(settings.input_shape, generator=torch.Generator().manual_seed(0))
    return copied, images.to(device=device, dtype=settings.dtype, memory_format=layout)


@contextmanager
def measuring(settings: LatencySettings) -> Iterator[None]:
    """The conditions of every measurement; threads, flags and random states are put back afterwards."""
    device, threads, benchmark = torch.device(settings.device), torch.get_num_threads(), torch.backends.cudnn.benchmark
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        stack.callback(setattr, torch.backends.cudnn, "benchmark", benchmark)
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        torch.set_num_threads(settings.threads)
        # cuDNN's own trials of algorithms choose among near equals by chance: another one in the next measurement.
        torch.backends.cudnn.benchmark = False
        yield


class Stopwatch:
    """The clock of a device, to be read before and after what is timed.

    A GPU's is its own: a reading queues up behind the work. On a CPU a single thread's own time counts, which stands
    still while another process has the core; several threads wait for each other, so there it is the wall's.

    Args:
        settings: of what is timed.
    """

    def __init__(self, settings: LatencySettings):
        self._gpu = torch.device(settings.device).type == "cuda"
        self._clock = time.thread_time if settings.threads == 1 else time.perf_counter

    def read(self) -> Any:
        """A reading, for `milliseconds`."""
        if not self._gpu:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, began: Any, ended: Any) -> float:
        """Between two readings; waits until a GPU has come to the second."""
        if not self._gpu:
            return 1e3 * (ended - began)
        ended.synchronize()
        return began.elapsed_time(ended)


def median_of_medians(rounds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The median of the rounds' medians, and how far these are apart as a share of it."""
    medians = [statistics.median(times) for times in rounds]
    middle = statistics.median(medians)
    return middle, (max(medians) - min(medians)) / middle if middle > 0 else 0.0


def hardware_name(device: torch.device) -> str:
    """What the maker calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), "") or platform.processor() or platform.machine()
