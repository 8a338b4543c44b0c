"""What a pass through all operations of FBNet's supernet costs, beside one through a single path.

    python experiments/benchmarks/fbnet_step.py [--width 0.25] [--resolution 16] [--batch 32] [--skeleton cifar]

Milliseconds of processor time, forward and backward, on one thread of the CPU; the median over repeats, with the
fastest and the slowest. A single path is the mean over nine that have each operation in each layer once. ``one by one``
calls every operation for itself, ``together`` runs convolutions of the same kind as one, as the supernet does. At lower
temperatures fewer operations weigh enough to run. Memory is what the backward pass needs of activations, by image.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.fbnet import FBNetSuperLayer
from lightning_modules.networks.supernet import Path, Supernet
from lightning_modules.path_samplers.additive_cost import PriceByName
from lightning_modules.path_samplers.fbnet import FBNetSampler
from search.spaces.fbnet import FBNet
from search.spaces.head import Head

TEMPERATURES = (5.0, 0.5, 0.1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skeleton", default="cifar")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = FBNet()
    supernet = space.build_supernet(BatchStatistics, Head(10), chosen.skeleton, chosen.width, 128)
    supernet = supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(chosen.batch, 3, chosen.resolution, chosen.resolution)
    images = images.to(memory_format=torch.channels_last)
    measure = functools.partial(_milliseconds, supernet, images)
    singles = [Path(tuple((t + shift) % 9 for t in range(22))) for shift in range(9)]
    measure(singles[0])  # warms up
    alone = [statistics.mean(measure(path) for path in singles) for _ in range(chosen.repeats)]
    single = statistics.median(alone)
    print(f"a single path{'':21} {_shown(alone)}  {_memory(supernet, images, singles):.2f} MiB an image")
    for temperature in TEMPERATURES:
        sampler = FBNetSampler(space, functools.partial(PriceByName, prices={}), temperature=temperature)
        path = sampler.path(0, 0)
        assert path.active is not None
        share = sum(map(len, path.active)) / 22
        times = {
            name: [measure(path, together) for _ in range(chosen.repeats)]
            for name, together in (("one by one", False), ("together", True))
        }
        for name, each in times.items():
            print(
                f"temperature {temperature:3}, {share:.1f} of 9, {name:10} {_shown(each)}  "
                f"{statistics.median(each) / single:.1f} x a single path"
            )
        print(f"{'':34} {_memory(supernet, images, [path]):.2f} MiB an image, together")


def _milliseconds(supernet: Supernet, images: Tensor, path: Path, together: bool = True) -> float:
    kept = FBNetSuperLayer._weighted
    if not together:
        FBNetSuperLayer._weighted = _one_by_one  # type: ignore[method-assign]
    try:
        began = time.process_time()
        supernet(images, path).square().mean().backward()
        return 1000 * (time.process_time() - began)
    finally:
        FBNetSuperLayer._weighted = kept  # type: ignore[method-assign]


def _one_by_one(layer: FBNetSuperLayer, x: Tensor, weights: Tensor, active: Sequence[int]) -> Tensor:
    terms: list[Tensor] = [layer.operations[k](x) * weights[k] for k in active]
    return functools.reduce(torch.add, terms)


def _memory(supernet: nn.Module, images: Tensor, paths: Sequence[Path]) -> float:
    """MiB of saved activations an image, the mean over paths."""
    own = {each.untyped_storage().data_ptr() for each in supernet.parameters()}
    total = 0
    for path in paths:
        saved: dict[int, int] = {}

        def keep(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _ = supernet(images, path).square().mean()
        total += sum(size for place, size in saved.items() if place not in own)
    return total / len(paths) / len(images) / 2**20


def _shown(times: Sequence[float]) -> str:
    return f"{statistics.median(times):7.1f} ms [{min(times):.1f}, {max(times):.1f}]"


if __name__ == "__main__":
    main()
