import numpy as np
import pytest
import torch

from lightning_modules.objectives.depth import (
    LeastSquaresSSILoss,
    TrimmedSSILoss,
    count_images,
    disparity_rmse,
    gradient_term,
    least_squares_ssi,
    trimmed_ssi,
)

LOSSES = [trimmed_ssi, least_squares_ssi, disparity_rmse]


def make(batch=5, height=17, width=22, seed=0, known=0.7):
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.rand(2, batch, 1, height, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(batch, 1, height, width, generator=generator) < known
    return prediction, target, mask


def numpy_normalised(values, known):
    inside = sorted(values[known])
    median = inside[(len(inside) - 1) // 2]
    return (values - median) / np.mean([abs(value - median) for value in inside])


def numpy_gradient(residual, known):
    total = 0.0
    for step in (1, 2, 4, 8):
        r, m = residual[::step, ::step], known[::step, ::step]
        summed = 0.0
        for y in range(r.shape[0]):
            for x in range(r.shape[1]):
                if x + 1 < r.shape[1] and m[y, x] and m[y, x + 1]:
                    summed += abs(r[y, x + 1] - r[y, x])
                if y + 1 < r.shape[0] and m[y, x] and m[y + 1, x]:
                    summed += abs(r[y + 1, x] - r[y, x])
        total += summed / max(m.sum(), 1)
    return total


def numpy_trimmed(prediction, target, known):
    residual = numpy_normalised(prediction, known) - numpy_normalised(target, known)
    sizes = sorted(abs(residual[known]))
    data = sum(sizes[: int(len(sizes) * 0.8)]) / (2 * len(sizes))
    return data + 0.5 * numpy_gradient(residual, known)


def numpy_aligned_residual(prediction, target, known):
    columns = np.stack([prediction[known], np.ones(known.sum())], axis=1)
    solution, *_ = np.linalg.lstsq(columns, target[known], rcond=None)
    return columns @ solution - target[known]


def rows(prediction, target, mask):
    return zip(prediction[:, 0].numpy(), target[:, 0].numpy(), mask[:, 0].numpy(), strict=True)


def test_trimmed_loss_is_its_formula_image_by_image():
    for height, width in ((17, 22), (8, 8), (40, 3)):
        data = make(height=height, width=width)
        expected = [numpy_trimmed(*row) for row in rows(*data)]
        np.testing.assert_allclose(trimmed_ssi(*data), expected, rtol=1e-10)


def test_trimmed_loss_by_hand():
    """Five pixels, median 2 and mean deviation 6/5 on both sides but for one; the largest residual is left out."""
    target = torch.tensor([[[0.0, 1, 2, 3, 4]]])
    prediction = torch.tensor([[[1.0, 0, 2, 3, 4]]])  # normalised residuals: 1/1.2, 1/1.2, 0, 0, 0
    mask = torch.ones(1, 1, 5, dtype=torch.bool)
    torch.testing.assert_close(trimmed_ssi(prediction, target, mask, gradient_weight=0), torch.tensor([1 / 1.2 / 10]))
    torch.testing.assert_close(
        trimmed_ssi(prediction, target, mask, trim=0, gradient_weight=0), torch.tensor([2 / 1.2 / 10])
    )


def test_the_gradient_term_of_a_step_by_hand():
    residual = torch.zeros(1, 8, 8)
    residual[:, :, 4:] = 3.0
    known = torch.ones(1, 8, 8, dtype=torch.bool)
    # 8 of 64, 4 of 16, 2 of 4 and, at the last scale, no pairs.
    assert gradient_term(residual, known).item() == pytest.approx(3 * (8 / 64 + 4 / 16 + 2 / 4))
    assert gradient_term(residual, known, scales=1).item() == pytest.approx(3 * 8 / 64)
    known[:, :, 4] = False  # no pair crosses the step any more, but at the second scale it does so no more either
    assert gradient_term(residual, known, scales=2).item() == 0


def test_least_squares_loss_and_rmse_are_their_formulas():
    data = make()
    residuals = [numpy_aligned_residual(*row) for row in rows(*data)]
    np.testing.assert_allclose(least_squares_ssi(*data), [np.mean(r**2) / 2 for r in residuals], rtol=1e-10)
    np.testing.assert_allclose(disparity_rmse(*data), [np.sqrt(np.mean(r**2)) for r in residuals], rtol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_scale_and_shift_do_not_matter(loss):
    prediction, target, mask = make()
    scale = torch.tensor([1e-3, 0.5, 1.0, 7.0, 1e4], dtype=torch.float64).view(-1, 1, 1, 1)
    shift = torch.tensor([5.0, -3.0, 0.0, 100.0, -1e4], dtype=torch.float64).view(-1, 1, 1, 1)
    torch.testing.assert_close(
        loss(scale * prediction + shift, target, mask), loss(prediction, target, mask), rtol=1e-8, atol=1e-12
    )
    assert torch.equal(loss(prediction * 4, target, mask), loss(prediction, target, mask))  # a power of two: to the bit
    perfect = loss(3 * target + 2, target, mask)
    torch.testing.assert_close(perfect, torch.zeros_like(perfect), rtol=0, atol=1e-8)
    assert (loss(prediction, target, mask) > 1e-3).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_unknown_pixels_do_not_matter_whatever_they_hold(loss):
    prediction, target, mask = make()
    expected = loss(prediction, target, mask)
    for junk in (torch.inf, torch.nan, -1e30):
        assert torch.equal(loss(prediction, target.where(mask, junk), mask), expected)
    assert torch.equal(loss(prediction.where(mask, 1e9), target, mask), expected)
    known = torch.ones_like(mask)
    assert not torch.allclose(loss(prediction, target, known), expected)


@pytest.mark.parametrize("criterion", [TrimmedSSILoss(), LeastSquaresSSILoss()])
def test_images_without_known_pixels_add_nothing(criterion):
    prediction, target, mask = make(batch=4)
    mask[1] = False
    prediction.requires_grad_()
    with_empty = criterion(prediction, (target, mask))
    (gradient,) = torch.autograd.grad(with_empty, prediction)
    rest = [0, 2, 3]
    torch.testing.assert_close(with_empty, criterion(prediction[rest], (target[rest], mask[rest])))
    assert gradient.isfinite().all() and not gradient[1].any() and gradient[rest].flatten(1).any(1).all()
    assert int(count_images(mask)) == 3
    mask[:] = False
    nothing = criterion(prediction, (target, mask))
    (gradient,) = torch.autograd.grad(nothing, prediction)
    assert float(nothing.detach()) == 0 and not gradient.any()


@pytest.mark.parametrize("criterion", [TrimmedSSILoss(), LeastSquaresSSILoss()])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_predictions_and_targets_give_finite_gradients(criterion, value):
    prediction = torch.full((2, 1, 9, 9), value, requires_grad=True)
    target = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    target[1] = 0.3
    loss = criterion(prediction, (target, torch.ones(2, 1, 9, 9, dtype=torch.bool)))
    loss.backward()
    assert loss.isfinite() and prediction.grad.isfinite().all()
    if isinstance(criterion, LeastSquaresSSILoss):  # the best that a constant can do is the mean
        assert float(loss.detach()) == pytest.approx(float(target[0].var(correction=0)) / 4, rel=1e-4)


@pytest.mark.parametrize("loss", [trimmed_ssi, least_squares_ssi])
def test_gradients_are_those_of_finite_differences(loss):
    prediction, target, mask = make(batch=2, height=5, width=6)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, mask), prediction.requires_grad_())


def test_a_single_known_pixel_is_no_error():
    prediction, target, mask = make(batch=1)
    mask[:] = False
    mask[0, 0, 3, 3] = True
    for loss in LOSSES:
        assert loss(prediction, target, mask).item() == 0


def test_half_precision_is_summed_in_single():
    prediction, target, mask = make(height=64, width=64)
    half = (100 * prediction).half()
    torch.testing.assert_close(
        trimmed_ssi(half, target.float(), mask), trimmed_ssi(half.float(), target.float(), mask), rtol=0, atol=0
    )
    assert trimmed_ssi(half, target.float(), mask).dtype == torch.float32


def test_wrong_arguments_are_refused():
    prediction, target, mask = make()
    with pytest.raises(ValueError, match=r"shapes \[5, 1, 17, 22\], \[5, 17, 22\]"):
        trimmed_ssi(prediction, target[:, 0], mask)
    for arguments, message in (({"trim": 1.0}, "trim is 1.0"), ({"scales": 0}, "scales is 0")):
        with pytest.raises(ValueError, match=message):
            TrimmedSSILoss(**arguments)
