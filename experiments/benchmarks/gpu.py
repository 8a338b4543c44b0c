"""The parts of `gpu.sh`, one after another while there is time, each whatever became of the one before.

    python experiments/benchmarks/gpu.py cifar10.npz OUT [--seconds 500] [--toy]

1. A path's loss and gradients on the device and on the processor; DDP with one process (NCCL on an accelerator) and a
   plain training, weight by weight.
2. `gpu_step.py`'s table.
3. SPOS with and without landmarks at full size (Landmark Regularization, Table 1, NAS-Bench-201), from where an earlier
   call stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path as FilePath

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.benchmarks import gpu_step
from lightning_modules.landmark_regularizer import LandmarkRegularizer, LandmarkSettings
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.uniform import UniformSampler
from lightning_modules.supernet import SupernetModule
from lightning_modules.supernet_settings import SupernetSettings
from search.spaces.nasbench201 import NASBench201
from search.training.isolation import quiet_lightning

ROOT = FilePath(__file__).resolve().parents[2]
_RECIPE = """\
base: {root}/experiments/landmark/table1_nasbench201.yaml
init_args:
  description: SPOS with and without landmarks at full size, on one accelerator, in as many calls as it takes.
  data: {{init_args: {{data: {{init_args: {{arrays: {arrays}}}}}}}}}
  methods: {{gdas: null, gdas_landmarks: null, nao: null, nao_landmarks: null}}
  trials: 1
"""


def main() -> int:
    """Run the parts; the exit code of the training, or 1 where an earlier part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--toy", action="store_true")
    chosen = parser.parse_args()
    until = time.monotonic() + chosen.seconds
    device = torch.device("cuda" if torch.cuda.is_available() and not chosen.toy else "cpu")
    size = gpu_step.Size.toy() if chosen.toy else gpu_step.Size()
    out = FilePath(chosen.out)
    print(torch.cuda.get_device_name() if device.type == "cuda" else "CPU", "torch", torch.__version__, flush=True)
    whole = [
        _tried("a path on the device and on the processor", lambda: compare_path(device)),
        _tried("DDP with one process", lambda: compare_ddp(device)),
        # Half of the time is the training's.
        _tried("steps", lambda: measure_steps(device, size, out, until - chosen.seconds / 2, chosen.toy)),
    ]
    code = train(FilePath(chosen.arrays), out, max(1.0, until - time.monotonic()), chosen.toy)
    return code or int(not all(whole))


def _tried(name: str, part: Callable[[], str]) -> bool:
    """Whether a part went well; prints what it says, or what it failed of."""
    began = time.monotonic()
    try:
        said = part()
    except Exception:  # whatever it is, the next part can still tell something
        traceback.print_exc()
        print(f"{name}: FAILED", flush=True)
        return False
    print(f"{name}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


def _module() -> SupernetModule:
    space = NASBench201()
    torch.manual_seed(0)
    supernet = space.build_supernet(BatchStatistics, channels=4, cells=1)
    archs = [space.draw("landmark", k) for k in range(4)]
    landmarks = LandmarkRegularizer(archs, [1.0, 2.0, 3.0, 4.0], LandmarkSettings(warmup=0, schedule="constant"))
    settings = SupernetSettings(epochs=1, learning_rate=0.01)
    return SupernetModule(supernet, UniformSampler(space), landmarks, settings=settings)


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 3, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)


def compare_path(device: torch.device) -> str:
    """Loss and gradients of a few paths, in float64, so that only a wrong result can differ."""
    largest = 0.0
    for number in range(4):
        found = []
        for place in (torch.device("cpu"), device):
            supernet = _module().supernet.double().to(place)
            images, labels = _batch()
            path = Path(NASBench201().draw("path", number))
            loss = nn.functional.cross_entropy(supernet(images.double().to(place), path), labels.to(place))
            gradients = torch.autograd.grad(loss, list(supernet.parameters()), allow_unused=True)
            known = [gradient.flatten().cpu() for gradient in gradients if gradient is not None]
            found.append(torch.cat([loss.detach().view(1).cpu(), *known]))
        largest = max(largest, float((found[0] - found[1]).abs().max()))
    if not largest < 1e-8:
        raise ArithmeticError(f"they differ by {largest:.2g}")
    return f"they differ by {largest:.1g} at most"


def compare_ddp(device: torch.device) -> str:
    """The weights behind some steps, of a plain training and of one that is distributed over this process alone."""
    from pytorch_lightning import Trainer

    found, environment = [], dict(os.environ)
    for strategy in ("auto", "ddp"):
        module, batch = _module(), _batch()
        with quiet_lightning():
            trainer = Trainer(
                max_epochs=1,
                accelerator=device.type,
                devices=1,
                strategy=strategy,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            trainer.fit(module, DataLoader([{"train": batch, "held_out": batch}] * 4, batch_size=None))
        found.append(nn.utils.parameters_to_vector(module.supernet.parameters()).detach().cpu())
    backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else "no backend"
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()  # Lightning leaves ranks there, by which the training would take itself for a launched one
    os.environ.update(environment)
    difference = float((found[0] - found[1]).abs().max())
    if not difference < 1e-4:
        raise ArithmeticError(f"{backend}: weights differ by {difference:.2g} from those of a plain training")
    return f"{backend}, weights differ by {difference:.1g} at most from those of a plain training"


def measure_steps(device: torch.device, size: gpu_step.Size, out: FilePath, until: float, toy: bool) -> str:
    """The table, printed row by row and kept in ``steps.json``; rows for which there is no time are left out."""
    memory = gpu_step.bandwidth(device, size.copied)
    print(f"copying moves {memory / 1e9:.0f} GB/s; {size}", flush=True)
    print("| step | images/s | ms | share of the memory bound |\n|---|---|---|---|", flush=True)
    rows = {}
    for variant in gpu_step.VARIANTS:
        if time.monotonic() > until or (toy and variant.compiled):  # a compiler may not be there, and takes its time
            continue
        try:
            found = rows[variant.name] = gpu_step.measure(variant, size, device, memory)
        except Exception as error:  # such as a compiler that is not there: the other rows can still be had
            print(f"| {variant.name} | failed: {type(error).__name__} | | |", flush=True)
            continue
        cells = f"{found['images_per_second']:.0f} | {found['milliseconds']:.2f} | {found['share']:.2f}"
        print(f"| {variant.name} | {cells} |", flush=True)
    (out / "steps.json").write_text(json.dumps({"bytes_per_second": memory, "steps": rows}, indent=1))
    return f"{len(rows)} of {len(gpu_step.VARIANTS)} ways"


def train(arrays: FilePath, out: FilePath, seconds: float, toy: bool) -> int:
    """Go on with the training for so many seconds; its exit code, 130 where there was no time to end."""
    from search.cli import main as catchmark

    recipe = out / "spos_gpu.yaml"
    recipe.write_text(_RECIPE.format(root=ROOT, arrays=arrays))
    runs = out / "runs"
    begun = next(runs.glob("*/latest"), None)
    words = ["run", str(recipe), *(["--tiny"] if toy else [])] if begun is None else ["run", "--resume", str(begun)]
    # As a cluster does it: what is under way is closed, and a later call goes on there.
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        return catchmark([*words, "--runs", str(runs), "--quiet"])
    finally:
        timer.cancel()


if __name__ == "__main__":
    raise SystemExit(main())
