import numpy as np
import pytest
import torch

from datamodules.digits import load_digits_arrays
from datamodules.subtasks import describe, subset


def test_subset_keeps_the_images_of_its_classes_under_new_labels():
    digits = load_digits_arrays()
    part = subset(digits, [7, 2, 5], resolution=8)
    assert part.classes == ("7", "2", "5")
    for label, digit in enumerate((7, 2, 5)):
        np.testing.assert_array_equal(
            part.train_images[part.train_labels == label], digits.train_images[digits.train_labels == digit]
        )
        np.testing.assert_array_equal(
            part.val_images[part.val_labels == label], digits.val_images[digits.val_labels == digit]
        )
    assert len(part.train_images) == np.isin(digits.train_labels, [2, 5, 7]).sum()


def test_subset_resizes():
    part = subset(load_digits_arrays(), [0, 1], resolution=12)
    assert part.train_images.shape[1:] == part.val_images.shape[1:] == (12, 12, 1)
    assert part.name == "2 classes (0, 1) of digits at 12x12"


def test_examples_are_drawn_by_the_generator_alone():
    digits = load_digits_arrays()

    def drawn(seed):
        return subset(digits, [3, 8], 8, examples_per_class=10, generator=torch.Generator().manual_seed(seed))

    assert np.bincount(drawn(0).train_labels).tolist() == np.bincount(drawn(0).val_labels).tolist() == [10, 10]
    np.testing.assert_array_equal(drawn(0).train_images, drawn(0).train_images)
    assert not np.array_equal(drawn(0).train_images, drawn(1).train_images)
    first = subset(digits, [3, 8], 8, examples_per_class=10)
    np.testing.assert_array_equal(
        first.train_images[first.train_labels == 0], digits.train_images[digits.train_labels == 3][:10]
    )


def test_source_is_left_as_it_was():
    digits = load_digits_arrays()
    before = digits.train_images.copy(), digits.train_labels.copy()
    part = subset(digits, [4, 9], 8)
    part.train_images[:] = 0
    np.testing.assert_array_equal(digits.train_images, before[0])
    np.testing.assert_array_equal(digits.train_labels, before[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [3, 3]}, "at least two different"),
        ({"classes": [3]}, "at least two different"),
        ({"classes": [3, 10, -1]}, r"classes \[10, -1\] are not in digits, which has 0 to 9"),
        ({"classes": [3, 4], "examples_per_class": 0}, "examples_per_class is 0"),
        ({"classes": [3, 4], "resolution": 0}, "resolution is 0"),
    ],
)
def test_impossible_subsets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        subset(load_digits_arrays(), **({"resolution": 8} | arguments))


def test_a_long_list_of_classes_is_shortened():
    digits = load_digits_arrays()
    assert describe(digits, list(range(10)), 8) == "10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9) of digits at 8x8"
    object.__setattr__(digits, "classes", tuple(str(k) for k in range(200)))
    assert describe(digits, range(40), 16).endswith("7, 8, and 31 more) of digits at 16x16")
