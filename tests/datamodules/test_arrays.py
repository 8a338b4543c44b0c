import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from datamodules.arrays import ArrayDataModule
from datamodules.batches import ImageBatches
from datamodules.digits import DigitsDataModule
from datamodules.image_arrays import ImageArrays, resize


def make_arrays(n=50, m=20, resolution=8, channels=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (resolution, resolution, channels)
    return ImageArrays(
        rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        np.arange(n) % classes,
        rng.integers(0, 256, (m, *shape), dtype=np.uint8),
        np.arange(m) % classes,
        tuple("abcdefgh"[:classes]),
        "noise",
    )


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def test_arrays_know_their_shape():
    arrays = make_arrays()
    assert (arrays.num_classes, arrays.in_channels, arrays.resolution) == (4, 3, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((50, 8, 8, 3), np.float32)}, "train images are float32"),
        ({"val_images": np.zeros((20, 8, 8), np.uint8)}, r"val images are uint8 \[20, 8, 8\]"),
        ({"train_labels": np.zeros(49, np.int64)}, r"int64 \[50\] is needed"),
        ({"val_labels": np.full(20, 4)}, "val labels run from 4 to 4"),
        ({"val_images": np.zeros((20, 9, 9, 3), np.uint8)}, "both must have one shape"),
        ({"train_images": np.zeros((0, 8, 8, 3), np.uint8), "train_labels": np.zeros(0, np.int64)}, "no images"),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ImageArrays(**(vars(make_arrays()) | change))


def test_validation_batches_are_the_images_normalised():
    arrays = make_arrays(m=23)
    data = ArrayDataModule(arrays, batch_size=5, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    expected = (arrays.val_images / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert images.dtype == torch.float32 and images.is_contiguous()
    np.testing.assert_allclose(images.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)
    np.testing.assert_array_equal(labels.numpy(), arrays.val_labels)


def test_measured_normalisation_gives_mean_zero_and_deviation_one():
    arrays = make_arrays()
    data = ArrayDataModule(arrays, batch_size=16, flip=False, padding=0)
    images, _ = epoch_of(data.train_dataloader(), 0)
    np.testing.assert_allclose(images.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((0, 2, 3), correction=0), 1, atol=1e-5)
    np.testing.assert_allclose(data.normalisation[0], (arrays.train_images / 255).mean((0, 1, 2)), rtol=1e-12)


def test_a_channel_without_contrast_stays_finite():
    arrays = make_arrays()
    arrays.train_images[..., 1] = 7
    images, _ = epoch_of(ArrayDataModule(arrays).train_dataloader(), 0)
    assert images.isfinite().all()


def test_normalisation_needs_one_value_a_channel():
    with pytest.raises(ValueError, match="mean has 1 values, one for each of 3 channels"):
        ArrayDataModule(make_arrays(), mean=[0.5]).train_dataloader()


def test_every_image_comes_once_an_epoch_with_its_label():
    arrays = make_arrays(n=53)
    data = ArrayDataModule(arrays, batch_size=10, flip=False, padding=0, mean=[0.0] * 3, std=[1.0] * 3)
    loader = data.train_dataloader()
    assert len(loader) == 6
    seen = []
    for image, label in zip(*epoch_of(loader, 3), strict=True):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        (index,) = np.flatnonzero((arrays.train_images == pixels).all((1, 2, 3)))
        assert arrays.train_labels[index] == label
        seen.append(index)
    assert sorted(seen) == list(range(53)) and seen != list(range(53))


def test_augmented_images_are_shifted_and_mirrored_copies():
    """Each training image must be one of the 2 x 5 x 5 crops of its padded original, found here by trying them all."""
    arrays = make_arrays(n=200, resolution=6, channels=2)
    batches = ImageBatches(arrays.train_images, arrays.train_labels, [0.0] * 2, [1.0] * 2, padding=2, flip=True, seed=5)
    images, labels = batches.__getitems__(list(range(200)))
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    padded = np.pad(arrays.train_images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = []
    for k in range(200):
        for top in range(5):
            for left in range(5):
                crop = padded[k, top : top + 6, left : left + 6]
                if np.array_equal(crop, pixels[k]):
                    found.append((top, left, False))
                elif np.array_equal(crop[:, ::-1], pixels[k]):
                    found.append((top, left, True))
    assert len(found) == 200
    assert {top for top, _, _ in found} == {left for _, left, _ in found} == set(range(5))
    assert 70 < sum(mirrored for _, _, mirrored in found) < 130  # 200 fair coins: 100 +- 4 standard deviations
    assert len({(top, left) for top, left, _ in found}) == 25  # rows and columns are drawn apart
    np.testing.assert_array_equal(labels.numpy(), arrays.train_labels)


def test_one_seed_gives_one_run_and_epochs_differ():
    arrays = make_arrays()
    a, b, c = (ArrayDataModule(arrays, batch_size=16, padding=1, seed=seed).train_dataloader() for seed in (1, 1, 2))
    torch.manual_seed(123)  # the global state must not matter
    first = epoch_of(a, 4)
    assert torch.equal(first[0], epoch_of(b, 4)[0]) and torch.equal(first[1], epoch_of(b, 4)[1])
    assert not torch.equal(first[0], epoch_of(a, 5)[0])
    assert not torch.equal(first[0], epoch_of(c, 4)[0])
    assert torch.equal(first[0], epoch_of(a, 4)[0]), "going back to an epoch gives it again"


def test_loading_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    data = ArrayDataModule(make_arrays())
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(state, torch.get_rng_state())


def test_worker_processes_make_the_same_batches():
    arrays = make_arrays()
    alone = epoch_of(ArrayDataModule(arrays, batch_size=16, seed=3).train_dataloader(), 2)
    helped = epoch_of(ArrayDataModule(arrays, batch_size=16, seed=3, num_workers=2).train_dataloader(), 2)
    assert torch.equal(alone[0], helped[0]) and torch.equal(alone[1], helped[1])


def test_augmentation_of_an_image_does_not_depend_on_its_batch():
    """Ranks and batch sizes see the same crops, because a crop belongs to (seed, epoch, image)."""
    arrays = make_arrays()
    batches = ImageBatches(arrays.train_images, arrays.train_labels, [0.0] * 3, [1.0] * 3, padding=1, flip=True, seed=0)
    assert torch.equal(batches.__getitems__([7, 3, 11])[0][1], batches[3][0])


def test_padding_follows_the_resolution_unless_given():
    data = ArrayDataModule(make_arrays(resolution=32))
    assert data.train_dataloader().dataset.padding == 4
    assert data.with_arrays(make_arrays(resolution=16)).train_dataloader().dataset.padding == 2
    assert ArrayDataModule(make_arrays(), padding=0).train_dataloader().dataset.padding == 0


@pytest.mark.parametrize(
    ("arguments", "message"), [({"batch_size": 0}, "batch_size"), ({"padding": -1}, "padding"), ({"seed": -1}, "seed")]
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ArrayDataModule(make_arrays(), **arguments)


def test_resize_keeps_constants_averages_and_ramps():
    constant = np.full((2, 8, 8, 3), 91, np.uint8)
    assert (resize(constant, 5) == 91).all() and resize(constant, 5).shape == (2, 5, 5, 3)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    # Antialiased: the shrunk image keeps the mean and loses the contrast of the noise; every 4th pixel would keep both.
    small = resize(noise, 8).astype(float)
    np.testing.assert_allclose(small.mean((1, 2, 3)), noise.mean((1, 2, 3)), atol=4)
    assert small.std() < 0.4 * noise.std()
    ramp = np.broadcast_to((np.arange(8) * 16).astype(np.uint8)[None, None, :, None], (1, 8, 8, 1)).copy()
    grown = resize(ramp, 16)[0, 0, :, 0].astype(float)
    # Pixel k of the larger image lies at (k + 1/2) / 2 - 1/2 of the smaller one.
    np.testing.assert_allclose(grown, np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7) * 16, atol=0.51)
    assert resize(noise, 32) is noise


def test_an_iterator_made_before_its_epoch_is_announced_gives_that_epoch():
    """A training that goes on from a checkpoint makes its first iterator too early."""
    batches = []
    for announce_first in (True, False):
        loader = DigitsDataModule(batch_size=32, padding=2, seed=3).train_dataloader()
        if announce_first:
            loader.sampler.set_epoch(5)
            iterator = iter(loader)
        else:
            iterator = iter(loader)
            loader.sampler.set_epoch(5)
        batches.append(next(iterator))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*batches, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_rest_of_one_image_is_left_out_and_any_other_kept(workers):
    # 1,201 digits: the rest of one is in 8, 16, 20 and 120, none in 1 and 1201, others in 7 and 128.
    for batch_size in (8, 16, 20, 120, 1200, 1, 7, 128, 1201, 2000):
        data = DigitsDataModule(batch_size=batch_size, num_workers=workers if batch_size > 100 else 0)
        samples, sizes = data.training_set(), []
        order = list(data.train_dataloader().sampler)
        for place, (images, labels) in enumerate(data.train_dataloader()):
            there = order[place * batch_size : (place + 1) * batch_size]
            assert torch.equal(images, samples.__getitems__(there)[0]) and len(labels) == len(there)
            sizes.append(len(labels))
        full, rest = divmod(1201, batch_size)
        assert sizes == [batch_size] * full + [rest] * (rest > (batch_size > 1))


def test_a_network_that_shrinks_an_image_to_one_value_trains_on_a_rest_of_one():
    norm = torch.nn.BatchNorm2d(1)
    for images, _ in DigitsDataModule(batch_size=16).train_dataloader():
        assert norm(images.mean((2, 3), keepdim=True)).isfinite().all()


def test_a_single_training_image_is_refused_unless_a_batch_shall_be_one():
    with pytest.raises(ValueError, match="there is 1 training image, and a network cannot normalise over a batch of"):
        _ = ArrayDataModule(make_arrays(n=1), batch_size=2).num_classes
    (batch,) = ArrayDataModule(make_arrays(n=1), batch_size=1).train_dataloader()
    assert len(batch[1]) == 1
    assert len(list(ArrayDataModule(make_arrays(n=2), batch_size=2).train_dataloader())) == 1
    assert [len(labels) for _, labels in ArrayDataModule(make_arrays(n=33), batch_size=32).train_dataloader()] == [32]


def test_the_rest_is_that_of_each_rank():
    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())  # real but for messages, which go nowhere
    try:
        for images, sizes in ((33, [16]), (34, [16]), (35, [16, 2])):
            data = ArrayDataModule(make_arrays(n=images), batch_size=16)
            assert [len(labels) for _, labels in data.train_dataloader()] == sizes
    finally:
        dist.destroy_process_group()
