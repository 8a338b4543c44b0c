import numpy as np
import pytest
import torch

from datamodules.stimuli import Stimuli, load_stimuli


def archive(path, **arrays):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez(path, **{"images": images, "brain": np.array([1.0, 2, 3, 4, 5, 6]), **arrays})
    return path


def test_digits_are_alike_within_a_digit():
    stimuli = load_stimuli("digits")
    assert stimuli.images.shape == (10, 8, 8, 3) and stimuli.subjects is None
    assert stimuli.reference[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert load_stimuli("digits") is stimuli


def test_an_archive_may_have_a_triangle_and_sessions_of_subjects(tmp_path):
    sessions = np.random.default_rng(1).random((3, 2, 4, 4))
    path = archive(tmp_path / "a.npz", sessions=sessions)
    stimuli = load_stimuli(path, "brain", "sessions")
    assert stimuli.reference[0].tolist() == [0, 1, 2, 3] and stimuli.reference[3].tolist() == [3, 5, 6, 0]
    np.testing.assert_allclose(stimuli.subjects, sessions.mean(1))
    assert load_stimuli(path, "brain", "absent").subjects is None


def test_pictures_are_seen_whole_whatever_the_network_wants():
    images = np.full((1, 10, 10, 3), 128, dtype=np.uint8)
    images[0, 2:8, 2:8] = (255, 0, 0)
    stimuli = Stimuli(images, torch.zeros(1, 1))
    wide = stimuli.batch(10, 20)
    assert wide.shape == (1, 3, 10, 20) and torch.equal(wide[0, :, :, 5:15], stimuli.batch(10, 10)[0])
    assert wide[0, :, :, :5].unique().tolist() == pytest.approx([128 / 255])
    grey = stimuli.batch(5, 5, 1)
    assert grey.shape == (1, 1, 5, 5) and float(grey[0, 0, 2, 2]) == pytest.approx(0.299, abs=0.02)
    normalised = stimuli.batch(10, 10, mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.1])
    assert normalised[0, :, 4, 4].tolist() == pytest.approx([1, -2, -5])
    with pytest.raises(ValueError, match="not of 2"):
        stimuli.batch(10, 10, 2)
    with pytest.raises(ValueError, match="std has 1 values, 3 are needed"):
        stimuli.batch(10, 10, std=[1.0])


def test_other_views_show_the_same_smaller_and_darker():
    images = np.full((1, 40, 40, 3), 100, dtype=np.uint8)
    images[0, 10:30, 10:30] = 200
    other = Stimuli(images, torch.zeros(1, 1)).other_views().images
    assert other.shape == images.shape and other[0, 0, 0].tolist() == [80, 80, 80]
    rows, columns = np.nonzero(other[0, ..., 0] > 119)
    assert abs(len(set(rows)) - 17) <= 1 and abs(len(set(columns)) - 17) <= 1
    assert rows.mean() < 19.5 and columns.mean() < 19.5


@pytest.mark.parametrize(
    ("arrays", "reference", "words"),
    [
        ({}, "brian", "has no array 'brian'.*brain"),
        ({"brain": np.zeros((3, 3))}, "brain", r"brain is \[3, 3\], \[4, 4\]"),
        ({"images": np.zeros((4, 8, 8, 3))}, "brain", "images are float64"),
        ({"human_it_sessions": np.zeros((2, 3, 3))}, "brain", r"\[subjects, 4, 4\] is needed"),
    ],
)
def test_what_does_not_fit_is_refused(arrays, reference, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        load_stimuli(archive(tmp_path / "a.npz", **arrays), reference)


def test_stimuli_that_are_not_there_are_named():
    with pytest.raises(FileNotFoundError, match=r"no stimuli 'nowhere.npz'.*bring an .npz archive"):
        load_stimuli("nowhere.npz")
