import numpy as np
import torch
from sklearn.datasets import load_digits

from datamodules.digits import DigitsDataModule, load_digits_arrays


def test_split_is_stratified_complete_and_always_the_same():
    arrays = load_digits_arrays()
    assert len(arrays.train_images) + len(arrays.val_images) == 1797
    for digit in range(10):
        count = int((load_digits().target == digit).sum())
        assert (arrays.val_labels == digit).sum() == count // 3
        assert (arrays.train_labels == digit).sum() == count - count // 3
    original = np.rint(load_digits().images * 255 / 16).astype(np.uint8).reshape(1797, 64)
    ours = np.concatenate([arrays.train_images, arrays.val_images]).reshape(1797, 64)
    assert sorted(map(bytes, original)) == sorted(map(bytes, ours))
    np.testing.assert_array_equal(arrays.val_images, load_digits_arrays().val_images)


def test_labels_belong_to_their_images():
    """A nearest-neighbour rule, which knows nothing of our code, reads almost every validation digit right."""
    arrays = load_digits_arrays()
    train = torch.from_numpy(arrays.train_images.reshape(-1, 64)).float()
    val = torch.from_numpy(arrays.val_images.reshape(-1, 64)).float()
    predicted = arrays.train_labels[torch.cdist(val, train).argmin(1).numpy()]
    assert (predicted == arrays.val_labels).mean() > 0.97


def test_data_module_resizes_and_never_mirrors():
    data = DigitsDataModule(resolution=16, batch_size=32)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (32, 1, 16, 16) and labels.shape == (32,)
    assert (data.num_classes, data.in_channels, data.arrays.name) == (10, 1, "digits")
    assert not data.train_dataloader().dataset.flip
    assert not data.with_arrays(data.arrays).train_dataloader().dataset.flip
