"""COCO's evaluation of boxes by pycocotools and by faster-coco-eval: the work of each, and how far they differ.

    python experiments/benchmarks/coco_evaluation.py [--images 5000] [--categories 80] [--boxes 7]
        [--found 50] [--times 5]

Boxes are made: true ones of COCO's sizes, some of them crowds, and detections that are those with errors, beside others
that are wrong altogether. The defaults are about what a detector gives for COCO's 5,000 validation images. Processor
seconds of all threads are counted, which other programs on the machine hardly change; the two libraries take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import statistics
import time
from typing import Any

import numpy as np

LIBRARIES = ("pycocotools", "faster_coco_eval")


def made_detections(
    images: int, categories: int, boxes: int, found: int | None = None, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and detections in COCO's format.

    Args:
        images: how many, 640 by 480 each.
        categories: how many.
        boxes: true ones an image.
        found: detections an image, at least as many; None for twice as many.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for image in range(1, images + 1):
        sizes = np.exp(rng.uniform(np.log(12), np.log(300), (boxes, 2)))
        corners = rng.uniform(0, 1, (boxes, 2)) * (np.array([640, 480]) - sizes).clip(0)
        kinds = rng.integers(1, categories + 1, boxes)
        for corner, size, kind in zip(corners, sizes, kinds, strict=True):
            crowd = int(rng.random() < 0.02)
            box = [*map(float, corner), *map(float, size)]
            about = {"id": len(truth) + 1, "image_id": image, "category_id": int(kind), "iscrowd": crowd}
            truth.append(about | {"bbox": box, "area": float(size.prod())})
        for number in range(found or 2 * boxes):
            near = number % boxes if rng.random() < 0.5 else None
            if near is None:
                box, kind = [*rng.uniform(0, 300, 2), *rng.uniform(10, 200, 2)], rng.integers(1, categories + 1)
            else:
                shift = rng.normal(0, 0.1, 4) * np.tile(sizes[near], 2)
                box, kind = np.concatenate([corners[near], sizes[near]]) + shift, kinds[near]
            score = float(rng.random() * (0.5 if near is None else 1))
            about = {"image_id": image, "category_id": int(kind), "score": score}
            detections.append(about | {"bbox": [float(value) for value in box]})
    described = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(1, images + 1)],
        "categories": [{"id": kind, "name": str(kind)} for kind in range(1, categories + 1)],
        "annotations": truth,
    }
    return described, detections


def evaluate(library: str, truth: dict[str, Any], detections: list[dict[str, Any]]) -> tuple[np.ndarray, float]:
    """What one library finds, through mmdet's class for annotations as in `datamodules.coco_metric`.

    Returns:
        The twelve numbers of COCO, and the processor seconds that they took, annotations not read.
    """
    from lightning_modules.openmmlab import prepare

    prepare()
    from mmdet.datasets.api_wrappers import COCO

    if library == "pycocotools":
        evaluator = importlib.import_module("pycocotools.cocoeval").COCOeval
    else:
        evaluator = importlib.import_module("faster_coco_eval").COCOeval_faster
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = truth
        index.createIndex()
        found = index.loadRes([dict(each) for each in detections])
        since = time.process_time()
        evaluation = evaluator(index, found, "bbox")
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
        seconds = time.process_time() - since
    return np.asarray(evaluation.stats[:12], dtype=float), seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--categories", type=int, default=80)
    parser.add_argument("--boxes", type=int, default=7)
    parser.add_argument("--found", type=int, default=50)
    parser.add_argument("--times", type=int, default=5)
    chosen = parser.parse_args()
    truth, detections = made_detections(chosen.images, chosen.categories, chosen.boxes, chosen.found)
    print(f"{len(truth):,} boxes, {len(detections):,} detections in {chosen.images:,} images")
    values = {}
    there = [library for library in LIBRARIES if importlib.util.find_spec(library) is not None]
    runs = [{library: evaluate(library, truth, detections) for library in there} for _ in range(chosen.times)]
    for library in LIBRARIES:
        if library not in there:
            print(f"{library}: not installed")
            continue
        values[library] = runs[0][library][0]
        taken = [each[library][1] for each in runs]
        spread = f"median of {chosen.times}, {min(taken):.2f} to {max(taken):.2f}"
        score = 100 * values[library][0]
        print(f"{library}: {statistics.median(taken):.2f} processor seconds ({spread}), mAP {score:.3f}")
    if len(values) == len(LIBRARIES):
        largest = np.abs(np.subtract(*values.values())).max()
        print(f"largest difference of the twelve numbers: {largest:.1e}")


if __name__ == "__main__":
    main()
