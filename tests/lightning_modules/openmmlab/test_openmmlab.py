"""Stand-ins for mmcv's compiled operators against loops over boxes, bins and samples, and models that use them."""

import importlib.metadata
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_modules.openmmlab import prepare, scope

ROOT = Path(__file__).parents[3]
FORKED = any(each.name == "onedl-mmdetection" for each in importlib.metadata.distributions())
"""Whether the tests run on the maintained fork of the libraries."""
RELEASE = "2.3.6" if FORKED else "2.1.0"
"""Of an mmcv that goes with what is installed."""


@pytest.fixture(scope="module")
def ops():
    prepare()
    # Within a scope for the quiet alone: mmcv imports what torch deprecates.
    with scope("mmdet"):
        import mmcv.ops

    return mmcv.ops


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


# ---- references ----------------------------------------------------------------------------------------------------


def random_boxes(generator, n, dtype=torch.float32):
    corner = 40 * torch.rand(n, 2, generator=generator, dtype=dtype)
    size = 1 + 30 * torch.rand(n, 2, generator=generator, dtype=dtype)
    return torch.cat([corner, corner + size], dim=1), torch.rand(n, generator=generator, dtype=dtype)


def iou(a, b, offset=0):
    """Of two boxes given as lists of four numbers."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return common / (sum(areas) - common)


def greedy_suppression(boxes, scores, threshold, offset):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def soft_suppression(boxes, scores, threshold, sigma, min_score, method, offset):
    scores, left, rows = dict(enumerate(scores)), set(range(len(scores))), []
    while left:
        best = max(left, key=scores.__getitem__)
        left.remove(best)
        rows.append((best, scores[best]))
        for i in list(left):
            overlap = iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                scores[i] *= math.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                scores[i] *= 1 - overlap if method == "linear" else 0
            if scores[i] < min_score:
                left.remove(i)
    return rows


def bilinear(plane, y, x):
    """A sample of ``[height, width]``: nothing beyond one cell outside, the edge's value up to there."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (1 - x + left) + plane[bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def roi_align(features, rois, size, scale, sampling, aligned):
    output = np.zeros((len(rois), features.shape[1], *size))
    for n, (image, *box) in enumerate(rois):
        left, top, right, bottom = (edge * scale - (0.5 if aligned else 0) for edge in box)
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        down = sampling or math.ceil(height / size[0])
        across = sampling or math.ceil(width / size[1])
        for channel, plane in enumerate(features[int(image)]):
            for i in range(size[0]):
                for j in range(size[1]):
                    samples = [
                        bilinear(
                            plane,
                            top + (i + (v + 0.5) / down) * height / size[0],
                            left + (j + (h + 0.5) / across) * width / size[1],
                        )
                        for v in range(down)
                        for h in range(across)
                    ]
                    output[n, channel, i, j] = np.mean(samples)
    return output


def roi_pool(features, rois, size, scale):
    output = np.zeros((len(rois), features.shape[1], *size))
    limits = features.shape[2:]
    for n, (image, left, top, right, bottom) in enumerate(rois):
        start = (top * scale, left * scale)
        step = [(end + 1) * scale - begin for end, begin in zip((bottom, right), start, strict=True)]
        if min(step) <= 0:
            continue
        for i in range(size[0]):
            for j in range(size[1]):
                window = []
                for bin_, begin, extent, bins, limit in zip((i, j), start, step, size, limits, strict=True):
                    first = math.floor(begin + bin_ * extent / bins)
                    last = math.ceil(begin + (bin_ + 1) * extent / bins)
                    window.append(slice(min(max(first, 0), limit), min(max(last, 0), limit)))
                cells = features[int(image)][:, window[0], window[1]]
                output[n, :, i, j] = cells.max(axis=(1, 2)) if cells.size else 0
    return output


# ---- boxes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_keeps_what_a_greedy_loop_keeps(ops, generator, offset, threshold):
    boxes, scores = random_boxes(generator, 60)
    expected = greedy_suppression(boxes.tolist(), scores.tolist(), threshold, offset)
    rows, kept = ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == expected
    assert torch.equal(rows, torch.cat([boxes, scores[:, None]], dim=1)[expected])
    # Thresholds of the score and of the number are mmcv's own, on top.
    best = [i for i in expected if scores[i] > 0.3][:5]
    assert ops.nms(boxes, scores, threshold, offset=offset, score_threshold=0.3, max_num=5)[1].tolist() == best
    assert ops.nms(boxes.numpy(), scores.numpy(), threshold, offset=offset)[1].tolist() == expected


def test_offset_counts_the_last_pixel(ops):
    # One row of pixels in common: 11 of 11 + 11 - 11 with the last pixels, nothing without.
    boxes = torch.tensor([[0.0, 0, 10, 0], [0, 0, 10, 0.0]])
    assert len(ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5, offset=1)[1]) == 1
    boxes = torch.tensor([[0.0, 0, 9, 9], [10, 0, 19, 9]])
    assert len(ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.0, offset=0)[1]) == 2


def test_nms_of_half_precision_and_of_two_types(ops):
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.75, 0.25])
    assert ops.nms(boxes.half(), scores.half(), 0.5)[1].tolist() == [1, 2]
    assert ops.nms(boxes.bfloat16(), scores, 0.5)[1].tolist() == [1, 2]


def test_batched_nms_suppresses_within_a_class_only(ops, generator):
    boxes, scores = random_boxes(generator, 60)
    labels = torch.randint(3, (60,), generator=generator)
    kept = []
    for label in range(3):
        members = (labels == label).nonzero()[:, 0]
        chosen = greedy_suppression(boxes[members].tolist(), scores[members].tolist(), 0.3, 0)
        kept += members[chosen].tolist()
    expected = sorted(kept, key=lambda i: -scores[i])
    rows, indices = ops.batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.3})
    assert indices.tolist() == expected
    assert torch.equal(rows, torch.cat([boxes, scores[:, None]], dim=1)[expected])
    everything = greedy_suppression(boxes.tolist(), scores.tolist(), 0.3, 0)
    agnostic = ops.batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.3}, class_agnostic=True)
    assert agnostic[1].tolist() == everything


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_lowers_scores_as_a_loop_does(ops, generator, method, offset):
    boxes, scores = random_boxes(generator, 40)
    settings = {"iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.05}
    expected = soft_suppression(boxes.tolist(), scores.tolist(), *settings.values(), method, offset)
    assert 1 < len(expected) < 40
    before = scores.clone()
    rows, kept = ops.soft_nms(boxes, scores, **settings, method=method, offset=offset)
    assert kept.tolist() == [index for index, _ in expected]
    assert torch.equal(rows[:, :4], boxes[kept])
    assert rows[:, 4].tolist() == pytest.approx([score for _, score in expected], rel=1e-4)
    assert torch.equal(scores, before)


def test_soft_nms_of_boxes_without_area(ops):
    points = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5]])
    for method in ("naive", "linear", "gaussian"):
        assert ops.soft_nms(points, torch.tensor([0.5, 0.9]), method=method)[0][:, 4].tolist() == pytest.approx(
            [0.9, 0.5]
        )


def test_nms_match_groups_the_suppressed_by_their_suppressor(ops, generator):
    boxes, scores = random_boxes(generator, 40)
    left, expected = sorted(range(40), key=lambda i: -scores[i]), []
    while left:
        best = left[0]
        group = [i for i in left if i == best or iou(boxes[best].tolist(), boxes[i].tolist()) >= 0.4]
        expected.append(group)
        left = [i for i in left if i not in group]
    groups = ops.nms_match(torch.cat([boxes, scores[:, None]], dim=1), 0.4)
    assert [group.tolist() for group in groups] == expected
    assert any(len(group) > 1 for group in expected)


@pytest.mark.parametrize("offset", [0, 1])
def test_bbox_overlaps(ops, generator, offset):
    a, b = random_boxes(generator, 7)[0], random_boxes(generator, 7)[0]
    expected = np.array([[iou(x, y, offset) for y in b.tolist()] for x in a.tolist()])
    np.testing.assert_allclose(ops.bbox_overlaps(a, b, offset=offset), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        ops.bbox_overlaps(a, b, aligned=True, offset=offset), expected.diagonal(), rtol=1e-4, atol=1e-6
    )
    inside = torch.tensor([[2.0, 2, 4, 4]]), torch.tensor([[0.0, 0, 10, 10]])
    assert ops.bbox_overlaps(*inside, mode="iof").item() == 1


def test_no_boxes(ops):
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for offset in (0, 1):
        rows, kept = ops.nms(boxes, scores, 0.5, offset=offset)
        assert rows.shape == (0, 5) and kept.shape == (0,) and kept.dtype == torch.int64
        rows, kept = ops.soft_nms(boxes, scores, offset=offset)
        assert rows.shape == (0, 5) and kept.shape == (0,) and kept.dtype == torch.int64
    assert ops.nms_match(torch.zeros(0, 5), 0.5) == []
    features = torch.ones(1, 2, 5, 5, requires_grad=True)
    for pool in (ops.RoIAlign((3, 2)), ops.RoIPool((3, 2))):
        pooled = pool(features, torch.zeros(0, 5))
        assert pooled.shape == (0, 2, 3, 2)
        (gradient,) = torch.autograd.grad(pooled.sum(), features)
        assert torch.equal(gradient, torch.zeros_like(features))


# ---- regions -------------------------------------------------------------------------------------------------------

# Image, left, top, right, bottom: inside, over two edges, outside, less than a cell, and in the second image.
ROIS = [
    [0, 2.3, 1.7, 11.2, 8.9],
    [0, -6, -5, 7.5, 30],
    [0, 60, 60, 70, 70],
    [0, 5.1, 5.2, 5.6, 5.4],
    [1, 0, 0, 23, 15],
]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_roi_align_is_the_mean_of_bilinear_samples(ops, generator, aligned, sampling):
    features = torch.randn(2, 2, 8, 12, generator=generator, dtype=torch.float64)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    pool = ops.RoIAlign((3, 2), spatial_scale=0.5, sampling_ratio=sampling, aligned=aligned)
    expected = roi_align(features.numpy(), ROIS, (3, 2), 0.5, sampling, aligned)
    np.testing.assert_allclose(pool(features, rois), expected, atol=1e-10)
    np.testing.assert_allclose(pool(features.float(), rois.float()), expected, atol=1e-4)
    rounded = pool(features.bfloat16(), rois.bfloat16())
    assert rounded.dtype == torch.bfloat16
    np.testing.assert_allclose(
        rounded.float(), pool(features.bfloat16().float(), rois.bfloat16().float()), atol=1e-2, rtol=1e-2
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("deterministic", [False, True])
def test_roi_align_gradient(ops, generator, aligned, sampling, deterministic):
    features = torch.randn(2, 1, 8, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    pool = ops.RoIAlign((3, 2), spatial_scale=0.5, sampling_ratio=sampling, aligned=aligned)
    torch.use_deterministic_algorithms(deterministic)
    try:
        assert torch.autograd.gradcheck(lambda x: pool(x, rois), features)
    finally:
        torch.use_deterministic_algorithms(False)


def test_roi_align_by_maximum_says_what_to_do(ops):
    with pytest.raises(NotImplementedError, match="pool_mode='avg'"):
        ops.RoIAlign((2, 2), pool_mode="max")(torch.ones(1, 1, 4, 4), torch.tensor([[0, 0, 0, 2.0, 2]]))


@pytest.mark.parametrize("scale", [0.5, 0.3])
def test_roi_pool_is_the_maximum_of_bins_rounded_outwards(ops, generator, scale):
    features = torch.randn(2, 3, 8, 12, generator=generator, dtype=torch.float64)
    inverted = [0, 9, 9, 3, 3]
    rois = torch.tensor([*ROIS, inverted], dtype=torch.float64)
    pooled = ops.RoIPool((3, 2), scale)(features, rois)
    np.testing.assert_array_equal(pooled, roi_pool(features.numpy(), [*ROIS, inverted], (3, 2), scale))
    assert torch.equal(pooled[-1], torch.zeros(3, 3, 2, dtype=torch.float64))


def test_roi_pool_gradient(ops, generator):
    features = torch.randn(2, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ops.RoIPool((3, 2), 0.5)(x, rois), features)


# ---- focal losses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_sigmoid_focal_loss(ops, generator, gamma):
    logits = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    # The last one is background.
    target, weight = torch.tensor([0, 1, 2, 3, 1, 4]), torch.tensor([1.0, 2, 0.5, 3], dtype=torch.float64)
    expected = np.zeros((6, 4))
    for n in range(6):
        for c in range(4):
            p = 1 / (1 + math.exp(-logits[n, c]))
            truth, share = (p, 0.25) if c == target[n] else (1 - p, 0.75)
            expected[n, c] = -share * (1 - truth) ** gamma * math.log(truth)
    np.testing.assert_allclose(ops.sigmoid_focal_loss(logits, target, gamma, 0.25, None, "none"), expected)
    assert ops.sigmoid_focal_loss(logits, target, gamma, 0.25, None, "mean").item() == pytest.approx(expected.sum() / 6)
    weighted = expected * np.array([*weight.tolist(), 1])[target][:, None]
    np.testing.assert_allclose(ops.sigmoid_focal_loss(logits, target, gamma, 0.25, weight, "none"), weighted)
    logits.requires_grad_()
    for rest in ((weight, "none"), (None, "mean")):
        assert torch.autograd.gradcheck(
            lambda x, rest=rest: ops.sigmoid_focal_loss(x, target, gamma, 0.25, *rest), logits
        )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal_loss(ops, generator, gamma):
    logits = 3 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    target, weight = torch.tensor([0, 1, 2, 3, -1]), torch.tensor([1.0, 2, 0.5, 3], dtype=torch.float64)
    probabilities = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    expected = [
        -0.25 * weight[t].item() * (1 - p[t]) ** gamma * math.log(p[t]) if t >= 0 else 0
        for p, t in zip(probabilities, target.tolist(), strict=True)
    ]
    loss = ops.softmax_focal_loss(logits, target, gamma, 0.25, weight, "none")
    np.testing.assert_allclose(loss, expected)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.softmax_focal_loss(x, target, gamma, 0.25, weight, "mean"), logits)


def test_focal_losses_stay_finite_where_there_is_no_doubt(ops):
    for loss in (ops.sigmoid_focal_loss, ops.softmax_focal_loss):
        logits = torch.tensor([[200.0, -200], [-200, 200]], requires_grad=True)
        value = loss(logits, torch.tensor([0, 0]), 0.0, 0.25, None, "mean")
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite() and gradient.isfinite().all()


# ---- deformable operators ------------------------------------------------------------------------------------------


def test_deformable_convolution_moves_its_samples(ops, generator):
    images = torch.randn(2, 4, 7, 9, generator=generator)
    weight = torch.randn(6, 2, 3, 3, generator=generator)
    # Stride 2, padding 1 down and 2 across, dilation 1, two groups, one group of offsets.
    geometry = ((2, 2), (1, 2), (1, 1), 2, 1)
    expected = F.conv2d(images, weight, None, *geometry[:4])
    offset = torch.zeros(2, 18, *expected.shape[2:])
    torch.testing.assert_close(ops.deform_conv2d(images, offset, weight, *geometry), expected)
    # Half a pixel down: the mean of the image and of the image a pixel up.
    offset[:, 0::2] = 0.5
    moved = F.conv2d((images + F.pad(images, (0, 0, 0, 1))[:, :, 1:]) / 2, weight, None, *geometry[:4])
    result = ops.deform_conv2d(images, offset, weight, *geometry)
    # The first row of samples starts outside.
    torch.testing.assert_close(result[:, :, 1:], moved[:, :, 1:])
    mask, bias = torch.full((2, 9, *expected.shape[2:]), 0.25), torch.arange(6.0)
    modulated = ops.modulated_deform_conv2d(images, offset, mask, weight, bias, *geometry)
    torch.testing.assert_close(modulated, 0.25 * result + bias[:, None, None])
    torch.testing.assert_close(
        ops.modulated_deform_conv2d(images, offset, mask, weight, None, *geometry), 0.25 * result
    )


def test_gradients_of_deformable_operators(ops, generator):
    def leaf(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()

    images, weight, bias = leaf(2, 2, 4, 5), leaf(2, 1, 2, 2), leaf(2)
    # Two groups of offsets; no sample on a whole pixel, where the interpolation has a corner.
    offset, mask = leaf(2, 16, 3, 4), leaf(2, 8, 3, 4)
    geometry = (1, 0, 1, 2, 2)
    assert torch.autograd.gradcheck(lambda *x: ops.deform_conv2d(*x, *geometry), (images, offset, weight))
    assert torch.autograd.gradcheck(
        lambda *x: ops.modulated_deform_conv2d(*x, *geometry), (images, offset, mask, weight, bias)
    )
    assert torch.autograd.gradcheck(
        lambda *x: ops.modulated_deform_conv2d(*x, None, *geometry), (images, offset, mask, weight)
    )


def test_deformable_attention(ops, generator):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    shapes = torch.tensor([[4, 3], [2, 2]])
    value = torch.randn(1, 16, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    places = torch.rand(1, 5, 2, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 5, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([0, 12])

    def compiled(*leaves):
        return MultiScaleDeformableAttnFunction.apply(leaves[0], shapes, start, leaves[1], leaves[2], 64)

    expected = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    torch.testing.assert_close(compiled(value, places, weights), expected)
    assert torch.autograd.gradcheck(compiled, (value, places, weights))
    # The whole layer takes the fallback by itself.
    layer = ops.MultiScaleDeformableAttention(embed_dims=8, num_heads=2, num_levels=2, num_points=2, batch_first=True)
    query, points = torch.randn(1, 5, 8, generator=generator), torch.rand(1, 5, 2, 2, generator=generator)
    output = layer(
        query,
        value=torch.randn(1, 16, 8, generator=generator),
        reference_points=points,
        spatial_shapes=shapes,
        level_start_index=start,
    )
    assert output.shape == (1, 5, 8)


def test_an_operator_without_stand_in_names_itself_and_the_cure(ops):
    with pytest.raises(NotImplementedError, match=r"'knn_forward'.*install an mmcv >=2.0.0,<2.2.0"):
        sys.modules["mmcv._ext"].knn_forward(1, 2)
    with pytest.raises(NotImplementedError, match="'box_iou_rotated'"):
        ops.box_iou_rotated(torch.rand(2, 5), torch.rand(2, 5))


# ---- other installations -------------------------------------------------------------------------------------------


def run(script, *first_on_path):
    """Run a script in a fresh interpreter."""
    path = os.pathsep.join([*map(str, first_on_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)


def write_mmcv(folder, version=RELEASE, operators=None):
    (folder / "mmcv").mkdir()
    (folder / "mmcv" / "__init__.py").write_text(f"__version__ = '{version}'\n")
    if operators is not None:
        (folder / "mmcv" / "_ext.py").write_text(operators)


def write_distribution(folder, name):
    """So that a distribution of this name counts as installed."""
    (about := folder / f"{name.replace('-', '_')}-9.9.dist-info").mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")


def test_compiled_operators_stay(tmp_path):
    write_mmcv(tmp_path, operators="nms = 'compiled'\n")
    script = """
from lightning_modules.openmmlab import prepare
prepare(); prepare()
import sys
print(sys.modules["mmcv._ext"].nms, "torchvision" in sys.modules)
"""
    done = run(script, tmp_path)
    assert done.stdout.split() == ["compiled", "False"], done.stderr


def test_operators_compiled_for_another_torch_are_replaced(ops, monkeypatch):
    class BrokenOperators:
        """Finds compiled operators that do not load."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "mmcv._ext":
                raise ImportError("_ext.so: undefined symbol: _ZN3c106detail14torchCheckFail")

    monkeypatch.setattr(sys, "meta_path", [BrokenOperators, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    prepare()
    first = sys.modules["mmcv._ext"]
    prepare()
    assert sys.modules["mmcv._ext"] is first
    assert first.nms(torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9]]), torch.tensor([0.5, 0.6]), 0.5, 0).tolist() == [1]


@pytest.mark.parametrize("version", ["2.2.0", "1.7.1"])
@pytest.mark.parametrize("forked", sorted({FORKED, True}))
def test_an_mmcv_that_the_libraries_refuse(tmp_path, version, forked):
    write_mmcv(tmp_path, version=version)
    write_distribution(tmp_path, "onedl-mmdetection" if forked else "something")
    last = run("from lightning_modules.openmmlab import prepare\nprepare()", tmp_path).stderr.splitlines()[-1]
    assert last.startswith(
        f"ImportError: mmcv {version} does not go with {'onedl-mmdetection' if forked else 'mmdet 3.3.0'}"
    )
    assert ("onedl-mmcv==2.3.6" if forked else "mmcv-lite==2.1.0") in last


@pytest.mark.parametrize("library", ["onedl-mmdetection", "onedl-mmsegmentation"])
def test_the_forks_mmcv_goes_with_the_fork(tmp_path, library):
    write_mmcv(tmp_path, version="2.3.6", operators="")
    write_distribution(tmp_path, library)
    done = run("from lightning_modules.openmmlab import prepare\nprepare()\nprint('fine')", tmp_path)
    assert done.stdout.split() == ["fine"], done.stderr


@pytest.mark.parametrize("missing", ["mmcv", "mmdet", "mmseg"])
def test_an_absent_library_says_what_to_install(tmp_path, missing):
    write_mmcv(tmp_path, operators="")
    script = f"""
import sys
sys.modules["{missing}"] = None
from lightning_modules.openmmlab import prepare, scope
with scope("{"mmseg" if missing == "mmseg" else "mmdet"}"):
    pass
"""
    line = run(script, tmp_path).stderr.splitlines()[-1]
    assert line.startswith(f"ImportError: '{missing}' is not installed")
    assert "pip install mmengine==" in line and "mmdet==" in line and "mmsegmentation==" in line


def test_nothing_but_modules_changes():
    # The environment is left out: OpenCV, scikit-learn and torch write their own settings there when they are imported.
    script = """
import logging, random, signal, sys, warnings
import numpy, torch, cv2, torch.multiprocessing
from mmengine.registry import DefaultScope
from mmengine.logging import MMLogger
from lightning_modules.openmmlab import prepare, scope

def state():
    return {
        "path": list(sys.path), "filters": list(warnings.filters),
        "scope": DefaultScope.get_current_instance(), "level": MMLogger.get_current_instance().level,
        "root": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "random": random.getstate(), "torch": torch.get_rng_state().tolist(),
        "numpy": [str(part) for part in numpy.random.get_state()], "print": numpy.get_printoptions(),
        "type": torch.get_default_dtype(), "threads": (torch.get_num_threads(), cv2.getNumThreads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(), "cudnn": torch.backends.cudnn.benchmark,
        "start": torch.multiprocessing.get_start_method(allow_none=True), "interrupt": signal.getsignal(signal.SIGINT),
        "grad": torch.is_grad_enabled(), "excepthook": sys.excepthook,
    }

before = state()
prepare()
with scope("mmdet"):
    inside = state()
assert inside["scope"].scope_name == "mmdet" and inside["level"] == logging.WARNING
try:
    with scope("mmdet"):
        raise KeyError("a fault inside")
except KeyError:
    pass
after = state()
print([name for name in before if before[name] != after[name]])
"""
    done = run(script)
    assert done.stdout.strip() == "[]", done.stderr
    assert done.stderr == ""


# ---- models --------------------------------------------------------------------------------------------------------


def stock_model(library, name):
    """The model of a configuration shipped with a library, without pretrained weights and for one process."""
    import importlib

    from mmengine.config import Config

    folder = Path(importlib.import_module(library).__file__).parent / ".mim" / "configs" / "_base_" / "models"
    model = Config.fromfile(folder / f"{name}.py").model
    model.pop("pretrained", None)
    model.backbone.pop("init_cfg", None)
    model.backbone.norm_cfg = {"type": "BN", "requires_grad": True}
    return model


def images(generator):
    return [torch.randint(256, (3, 96, 128), generator=generator, dtype=torch.uint8) for _ in range(2)]


SHAPE = {"img_shape": (96, 128), "ori_shape": (96, 128), "scale_factor": (1.0, 1.0), "pad_shape": (96, 128)}


@pytest.mark.parametrize("name", ["faster-rcnn_r50_fpn", "retinanet_r50_fpn"])
def test_detectors_learn_and_predict(generator, name):
    with scope("mmdet"):
        from mmdet.registry import MODELS
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        model = stock_model("mmdet", name)
        two_stages = "roi_head" in model
        (model.roi_head if two_stages else model).bbox_head.num_classes = 3
        if two_stages:
            # Fewer regions of interest than the stock 512 and 1000, for speed.
            model.train_cfg.rcnn.sampler.num = model.test_cfg.rpn.max_per_img = 50
        # An untrained detector is sure of nothing.
        (model.test_cfg.rcnn if two_stages else model.test_cfg).score_thr = 0.0
        torch.manual_seed(0)
        detector = MODELS.build(model)
        detector.init_weights()
    samples = []
    for boxes in ([[10.0, 10, 60, 60], [50, 20, 120, 90]], []):
        sample = DetDataSample(metainfo=SHAPE)
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.arange(len(boxes), dtype=torch.int64)
        )
        samples.append(sample)
    data = {"inputs": images(generator), "data_samples": samples}
    losses = detector.train()(**detector.data_preprocessor(data, True), mode="loss")
    loss, _ = detector.parse_losses(losses)
    loss.backward()
    assert loss.isfinite() and loss > 0
    head = detector.roi_head if two_stages else detector.bbox_head
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in head.parameters())
    with torch.no_grad():
        predicted = detector.eval()(**detector.data_preprocessor(data, False), mode="predict")
    for sample in predicted:
        found = sample.pred_instances
        assert 0 < len(found) <= 100
        for label in found.labels.unique():
            boxes = found.bboxes[found.labels == label].double().tolist()
            scores = found.scores[found.labels == label].tolist()
            assert len(greedy_suppression(boxes, scores, 0.5 + 1e-4, 0)) == len(boxes)


def test_a_segmentor_learns_and_predicts(generator):
    with scope("mmseg"):
        from mmengine.structures import PixelData
        from mmseg.registry import MODELS
        from mmseg.structures import SegDataSample

        model = stock_model("mmseg", "bisenetv1_r18-d32")
        for head in (model.decode_head, *model.auxiliary_head, model.backbone.backbone_cfg):
            head.norm_cfg = {"type": "BN", "requires_grad": True}
        model.backbone.backbone_cfg.pop("init_cfg", None)
        model.data_preprocessor.size = (96, 128)
        torch.manual_seed(0)
        segmentor = MODELS.build(model)
        segmentor.init_weights()
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=SHAPE)
        sample.gt_sem_seg = PixelData(data=torch.randint(19, (1, 96, 128), generator=generator))
        samples.append(sample)
    data = {"inputs": images(generator), "data_samples": samples}
    losses = segmentor.train()(**segmentor.data_preprocessor(data, True), mode="loss")
    loss, _ = segmentor.parse_losses(losses)
    loss.backward()
    assert loss.isfinite() and loss > 0
    with torch.no_grad():
        predicted = segmentor.eval()(**segmentor.data_preprocessor(data, False), mode="predict")
    for sample in predicted:
        assert sample.pred_sem_seg.data.shape == (1, 96, 128) and 0 <= sample.pred_sem_seg.data.max() < 19


def test_names_of_the_other_library_by_prefix():
    from mmengine.registry import MODELS, DefaultScope

    outside = DefaultScope.get_current_instance()
    with scope("mmseg"):
        assert MODELS.build({"type": "mmdet.L1Loss"}).__module__ == "mmdet.models.losses.smooth_l1_loss"
        # Both libraries have one of this name.
        assert MODELS.build({"type": "CrossEntropyLoss"}).__module__ == "mmseg.models.losses.cross_entropy_loss"
        with scope("mmdet"):
            assert MODELS.build({"type": "CrossEntropyLoss"}).__module__ == "mmdet.models.losses.cross_entropy_loss"
        assert DefaultScope.get_current_instance().scope_name == "mmseg"
    assert DefaultScope.get_current_instance() is outside
