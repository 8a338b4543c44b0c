"""FPN, the published pyramid and a found one under the same detector, each trained on several seeds; and read early.

    python experiments/nas_fpn/necks.py runs/coco_reduced/latest --seeds 3

Prints Markdown: mAP of each neck with the spread over seeds, and, of the published pyramid trained for it
(``anytime``), mAP and latency behind each repeat, which ``--figures`` draws. Settings are those of the run's target,
but for ``--epochs``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from lightning_modules.detection import DetectionModule
from search.deploy.choice import Request, choose
from search.randomness import derive_seed
from search.reports.line_chart import Line, line_chart
from search.reports.svg import kept_in
from search.spaces.nas_fpn import NASFPN, PUBLISHED_STRING
from search.tasks.trained import TrainedTask
from search.training.fit import fit
from search.training.isolation import seed_global_streams
from search.training.plan import TrainingStage


class BackboneAlone(nn.Module):
    """A network of the space without its neck: the detector's own stays.

    Args:
        network: of the space.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.backbone, self.num_classes = network.backbone, network.num_classes


FPN: dict[str, dict[str, Any]] = {
    "FPN": {},
    # The searched pyramids normalise behind each convolution; from fresh weights that alone is worth much.
    "FPN, batch normalisation": {"norm_cfg": {"type": "BN"}},
}
"""FPN as detectors have it and with the searched pyramids' normalisation, as arguments of mmdet's neck."""


def make(task: TrainedTask, text: str, seed: int, fpn: dict[str, Any] | None = None, **options: Any) -> LightningModule:
    """The detector around a pyramid, or around FPN of the same width, with fresh weights."""
    seed_global_streams(derive_seed(seed, "network"))
    space, build = task.space, task.build_arguments() | options
    network = space.build_from(space.parse(text), build)
    if fpn is None:
        return task.wrap(network)
    module: Any = task.wrap(network)
    width = build.get("channels", 256)
    overrides = module.overrides | {"neck": {"out_channels": width, "num_outs": 5} | fpn}
    return DetectionModule(
        BackboneAlone(network),
        module.detector,
        overrides,
        module.learning_rate,
        module.momentum,
        module.weight_decay,
        module.schedule,
    )


def trained(
    task: TrainedTask, maker: Callable[[], LightningModule], seed: int, epochs: int
) -> tuple[LightningModule, float]:
    """A detector, and its mAP on the validation images."""
    plan = replace(task.plan(seed), stages=[TrainingStage(epochs)], preset={"check_val_every_n_epoch": epochs})
    fitted = fit(maker, task.data, plan)
    return fitted.module, fitted.metrics[task.score]


def behind_each_repeat(module: Any, task: TrainedTask, size: int, passes: int = 20) -> list[tuple[float, float]]:
    """Precision and milliseconds of backbone and neck (median, one image) behind each repeat."""
    neck, found = module.model.neck, []
    trainer = Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        enable_checkpointing=False,
    )
    images = torch.zeros(1, 3, size, size)
    for repeats in range(1, neck.stack_times + 1):
        neck.read_after = repeats
        (metrics,) = trainer.validate(module, task.data, verbose=False)
        module.eval()
        times = []
        with torch.no_grad():
            for _ in range(passes):
                start = time.perf_counter()
                neck(module.model.backbone(images))
                times.append(1000 * (time.perf_counter() - start))
        found.append((metrics[task.score], statistics.median(times)))
    neck.read_after = neck.stack_times
    return found


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--architecture", help="in the place of the best of the run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="of the pyramid that is read early; 0 for none")
    parser.add_argument("--size", type=int, default=128, help="of the images that are timed, in pixels")
    parser.add_argument("--figures", type=Path, help="a folder for the anytime curve as SVG and PDF")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    choice = choose(Request(arguments.run, architecture=arguments.architecture))
    task, space = choice.task, choice.space
    assert isinstance(space, NASFPN)
    found = space.format(choice.architecture)
    print(f"found: {found}\n\n| neck | weights of the neck | mAP (%), mean [each seed] |\n|---|---|---|", flush=True)
    pyramids = {"published": PUBLISHED_STRING, "found": found}
    for name in [*FPN, *pyramids]:
        text, fpn = pyramids.get(name, PUBLISHED_STRING), FPN.get(name)
        scores, weights = [], 0
        for seed in range(1000, 1000 + arguments.seeds):
            maker = partial(make, task, text, seed, fpn)
            module, score = trained(task, maker, seed, arguments.epochs)
            scores.append(score)
            weights = sum(each.numel() for each in module.model.neck.parameters())
        listed = ", ".join(f"{score:.2f}" for score in scores)
        print(f"| {name} | {weights:,} | {statistics.mean(scores):.2f} [{listed}] |", flush=True)
    if not arguments.repeats:
        return
    print("\n| trained | repeat | mAP (%), mean [each seed] | ms |\n|---|---|---|---|", flush=True)
    lines = []
    for anytime in (True, False):
        rows, how = [], "to be read early" if anytime else "as usual"
        for seed in range(1000, 1000 + arguments.seeds):
            maker = partial(make, task, PUBLISHED_STRING, seed, repeats=arguments.repeats, anytime=anytime)
            module, _ = trained(task, maker, seed, arguments.epochs)
            rows.append(behind_each_repeat(module, task, arguments.size))
        for repeat, points in enumerate(zip(*rows, strict=True), start=1):
            listed = ", ".join(f"{score:.2f}" for score, _ in points)
            mean, milliseconds = statistics.mean(s for s, _ in points), statistics.median(t for _, t in points)
            print(f"| {how} | {repeat} | {mean:.2f} [{listed}] | {milliseconds:.2f} |", flush=True)
        scores = [[score for score, _ in each] for each in zip(*rows, strict=True)]
        means, band = [statistics.mean(each) for each in scores], [(min(each), max(each)) for each in scores]
        lines.append(Line(f"trained {how}", range(1, len(scores) + 1), means, band, color=len(lines)))
    if arguments.figures is None:
        return
    with kept_in(arguments.figures):
        line_chart(lines, "read behind repeat", "mAP (%), mean and range over seeds", points=True)


if __name__ == "__main__":
    main()
