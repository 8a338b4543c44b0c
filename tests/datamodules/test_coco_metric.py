"""The quicker evaluation of boxes against the usual one, on the same detections."""

import importlib.util

import numpy as np
import pytest

from experiments.benchmarks.coco_evaluation import evaluate, made_detections

INSTALLED = importlib.util.find_spec("faster_coco_eval") is not None


@pytest.mark.skipif(not INSTALLED, reason="faster-coco-eval is not installed: the extra 'coco' brings it")
def test_both_libraries_find_the_same():
    truth, found = made_detections(images=12, categories=5, boxes=9, seed=3)
    usual, _ = evaluate("pycocotools", truth, found)
    quick, _ = evaluate("faster_coco_eval", truth, found)
    assert 0.05 < usual[0] < 0.95 and (usual > -1).all()
    np.testing.assert_allclose(quick, usual, rtol=0, atol=1e-12)


def test_mmdets_metric_is_left_as_it_was():
    from datamodules.coco_metric import box_metric

    metric = box_metric({"classes": ("cat", "dog")})
    from mmdet.evaluation.metrics import coco_metric

    before = coco_metric.COCOeval
    boxes = np.array([[2.0, 3, 30, 40]])
    truth = {
        "width": 64,
        "height": 64,
        "img_id": 1,
        "anns": [{"bbox": [2, 3, 30, 40], "bbox_label": 1, "ignore_flag": 0}],
    }
    found = {"img_id": 1, "bboxes": boxes, "scores": np.array([0.9]), "labels": np.array([1])}
    assert metric.compute_metrics([(truth, found)])["bbox_mAP"] == 1
    assert coco_metric.COCOeval is before
    assert (type(metric).__name__ == "FastCocoMetric") is INSTALLED
