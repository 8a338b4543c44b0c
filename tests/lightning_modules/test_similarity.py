import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from datamodules.stimuli import load_stimuli
from lightning_modules.similarity import (
    bootstrap_interval,
    check_matrix,
    dissimilarity,
    human_model_similarity,
    matching_accuracy,
    noise_ceiling,
    spearman,
    upper_triangle,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_dissimilarities_are_scipy_s(scale):
    activations = random(7, 3, 5) * 2 + 1
    expected = pdist(activations.flatten(1).double().numpy(), "correlation")
    found = dissimilarity(activations.double() * scale)
    assert found.dtype == torch.float64 and torch.equal(found, found.T) and not found.diagonal().any()
    np.testing.assert_allclose(found, squareform(expected), atol=1e-12)
    assert upper_triangle(found).tolist() == pytest.approx(expected.tolist())  # row by row, as scipy's


def test_a_stimulus_that_leaves_all_units_alike_is_far_from_all_others():
    activations = random(4, 10)
    activations[1] = 0.1
    matrix = dissimilarity(activations)
    assert matrix[1].tolist() == [1, 0, 1, 1] and (matrix[0, 2:] != 1).all()
    activations[1, 0] = float("nan")
    assert dissimilarity(activations)[1, 0].isnan() and np.isnan(human_model_similarity(activations, matrix))


def test_spearman_is_scipy_s_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.integers(0, 5, 30), rng.normal(size=30)
        expected = spearmanr(one, other).statistic
        assert spearman(torch.tensor(one), torch.tensor(other)) == pytest.approx(expected, abs=1e-12)
    assert spearman(torch.ones(4), torch.arange(4.0)) == 0.0
    with pytest.raises(ValueError, match=r"\[3\] and \[4\]"):
        spearman(torch.ones(3), torch.ones(4))


def test_neither_mean_nor_scale_of_an_activation_matters():
    """The published code subtracts means and normalises; so the similarity is the same without."""
    activations, reference = random(9, 20), dissimilarity(random(9, 4, seed=1))
    plain = human_model_similarity(activations, reference)
    moved = activations * torch.arange(1.0, 10)[:, None] + torch.arange(9.0)[:, None]
    assert human_model_similarity(moved, reference) == pytest.approx(plain, abs=1e-12)
    assert human_model_similarity(activations, dissimilarity(activations)) == pytest.approx(1)
    with pytest.raises(ValueError, match="of 5 stimuli"):
        human_model_similarity(activations[:5], reference)


def test_a_noise_ceiling_is_between_the_others_and_all():
    subjects = torch.stack([dissimilarity(random(8, 30) + 0.7 * random(8, 30, seed=k)) for k in range(1, 5)])
    pairs = [squareform(each.numpy(), checks=False) for each in subjects]
    low = np.mean([spearmanr(pairs[k], np.mean(pairs[:k] + pairs[k + 1 :], 0)).statistic for k in range(4)])
    high = np.mean([spearmanr(each, np.mean(pairs, 0)).statistic for each in pairs])
    assert noise_ceiling(subjects) == pytest.approx((low, high)) and 0 < low < high < 1
    with pytest.raises(ValueError, match="2 subjects"):
        noise_ceiling(subjects[:1])


def test_an_interval_over_stimuli_holds_what_it_is_about_and_shrinks_with_more_of_them():
    def interval(stimuli):
        signal = random(stimuli, 20)
        noisy = signal + 1.5 * random(stimuli, 20, seed=1)
        one, other = dissimilarity(signal), dissimilarity(noisy)
        return spearman(upper_triangle(one), upper_triangle(other)), bootstrap_interval(one, other, draws=200)

    (few, (low, high)), (many, (narrow_low, narrow_high)) = interval(12), interval(60)
    assert low < few < high and narrow_low < many < narrow_high
    assert 0 < narrow_high - narrow_low < 0.7 * (high - low)
    assert bootstrap_interval(torch.eye(4), torch.eye(4), draws=20) == (0.0, 0.0)  # all others are equally far
    same = dissimilarity(random(20, 9))
    assert bootstrap_interval(same, same, draws=20) == pytest.approx((1, 1))


def test_matching_finds_what_looks_alike():
    gallery = random(6, 10)
    assert matching_accuracy(gallery, 3 * gallery) == 100
    assert matching_accuracy(gallery, gallery[[0, 1, 2, 3, 5, 4]]) == pytest.approx(100 * 4 / 6)
    assert matching_accuracy(torch.ones(4, 3), torch.ones(4, 3)) == pytest.approx(25)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (torch.zeros(4, 4), "one distance for all pairs"),
        (torch.zeros(5), r"\[4, 4\] or its upper triangle \[6\]"),
        (torch.arange(16.0).view(4, 4), "not symmetric"),
        (torch.full((6,), torch.nan), "not finite"),
    ],
)
def test_what_is_no_matrix_of_distances_is_refused(matrix, words):
    with pytest.raises(ValueError, match=words):
        check_matrix(matrix, 4, "brain")


# ---- golden values ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def human(real_data):
    path = real_data("human_it_92.npz")
    with np.load(path) as arrays:
        return load_stimuli(str(path)), {name: arrays[name] for name in arrays.files if name != "images"}


def test_other_matrices_are_as_far_from_human_it_as_they_are_known_to_be(human):
    stimuli, arrays = human
    average = upper_triangle(stimuli.reference)
    expected = {"animacy": 0.5882, "FaceBodyManmadeNatobj": 0.4053, "monkeyIT": 0.4389, "EVA": 0.3542, "HMAX": 0.2217}
    expected |= {"V1": 0.0393, "Silhouette": 0.1247, "RADON": 0.0612}
    for name, matrix in zip(arrays["model_names"], arrays["model_rdms"], strict=True):
        pairs = upper_triangle(torch.from_numpy(matrix)).double()
        assert spearman(pairs, average) == pytest.approx(expected.pop(str(name)), abs=5e-5)
    assert not expected
    for name, value in {"human_it_average": 1, "human_it_published": 1, "monkey_it_published": 0.4389}.items():
        matrix = check_matrix(torch.from_numpy(arrays[name]), 92, name)
        assert spearman(upper_triangle(matrix), average) == pytest.approx(value, abs=5e-5)


def test_pixels_are_no_brain(human):
    stimuli, _ = human
    pixels = torch.from_numpy(stimuli.images).float()
    assert human_model_similarity(pixels, stimuli.reference) == pytest.approx(0.1065, abs=5e-5)
    assert human_model_similarity(pixels.mean(-1), stimuli.reference) == pytest.approx(0.0333, abs=5e-5)
    assert human_model_similarity(stimuli.batch(175, 175), stimuli.reference) == pytest.approx(0.1065, abs=1e-4)


def test_no_model_gets_above_the_ceiling_of_the_subjects(human):
    stimuli, _ = human
    mean_of_others = (0.4307 + 0.2961 + 0.4523 + 0.3352) / 4
    assert stimuli.subjects.shape == (4, 92, 92)
    lower, upper = noise_ceiling(stimuli.subjects)
    assert lower == pytest.approx(mean_of_others, abs=5e-5) and lower < upper < 1
