"""The training set in parts, and joint batches of which each rank gets its share."""

import itertools

import pytest
import torch
import torch.distributed as dist
from pytorch_lightning import LightningDataModule
from torch.testing._internal.distributed.fake_pg import FakeStore

from datamodules.digits import DigitsDataModule
from datamodules.three_parts import JointBatches, ThreePartsDataModule

IMAGES = 1201
"""Digits to train on: 1,797 less a third of each class."""


def parts_of(**settings):
    return ThreePartsDataModule(DigitsDataModule(batch_size=32), **{"evaluation_images": 100} | settings)


class Numbers:
    """A source whose batch is the images' numbers and the epoch."""

    def __init__(self, count=50):
        self.count, self.epoch = count, 0

    def __len__(self):
        return self.count

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitems__(self, indices):
        return torch.tensor(indices), self.epoch


def as_rank(rank, ranks):
    """The real thing but for its messages, which go nowhere."""
    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())


@pytest.fixture
def ranks():
    yield as_rank
    if dist.is_initialized():
        dist.destroy_process_group()


# ---- the split -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share, count", [(0.5, None), (0.25, None), (0.6, 301)])
def test_the_parts_are_disjoint_and_complete(share, count):
    data = parts_of(held_out_share=share, images=count)
    parts = [data.evaluation, data.held_out, data.weights]
    total = IMAGES if count is None else count
    held_out = round(total * share)
    assert [len(part) for part in parts] == [100, held_out - 100, total - held_out]
    together = torch.cat(parts).sort().values
    assert len(together.unique()) == total and 0 <= together[0] and together[-1] < IMAGES
    if count is None:
        assert torch.equal(together, torch.arange(IMAGES))


def test_the_split_belongs_to_its_seed_and_not_to_that_of_the_order():
    first, again, other = parts_of(seed=3), parts_of(seed=3), parts_of(seed=4)
    torch.manual_seed(5)
    again.reseed(77)
    for name in ("evaluation", "held_out", "weights"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_parts_hold_every_class_about_alike():
    data = parts_of()
    labels = data.data.training_set().labels
    for part in (data.held_out, data.weights):
        assert labels[part].bincount(minlength=10).min() > 0.06 * len(part)


def test_what_is_known_of_the_data():
    data = parts_of()
    assert (data.num_classes, data.in_channels, data.input_shape) == (10, 1, (1, 8, 8))


# ---- joint batches ---------------------------------------------------------------------------------------------------


def numbers_of(stream):
    return [numbers.tolist() for numbers, _ in stream]


def test_a_pass_takes_images_once_and_leaves_an_incomplete_batch_out():
    stream = JointBatches(Numbers(), range(10, 45), 8, 0, 0)
    batches = numbers_of(stream)
    assert len(stream) == len(batches) == 4 and {len(each) for each in batches} == {8}
    flat = [number for numbers in batches for number in numbers]
    assert len(set(flat)) == 32 and set(flat) <= set(range(10, 45))


def test_the_order_is_a_function_of_seed_stream_and_epoch():
    def order(seed, stream, epoch):
        batches = JointBatches(Numbers(), range(40), 8, seed, stream)
        batches.set_epoch(epoch)
        return numbers_of(batches)

    keys = [(seed, stream, epoch) for seed in (0, 5) for stream in (0, 1) for epoch in (0, 1, 2)]
    first = {key: order(*key) for key in keys}
    torch.manual_seed(1)
    assert {key: order(*key) for key in reversed(keys)} == first
    assert len({str(each) for each in first.values()}) == len(keys)
    stream = JointBatches(Numbers(), range(40), 8, 0, 0)
    assert numbers_of(stream) == numbers_of(stream) == first[0, 0, 0]  # a second pass without a new epoch


def test_the_epoch_reaches_the_augmentation():
    source = Numbers()
    stream = JointBatches(source, range(20), 5, 0, 0)
    stream.set_epoch(4)
    assert {epoch for _, epoch in stream} == {4}


@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_ranks_interleave_to_the_joint_batch(count, ranks):
    def batches(epoch):
        stream = JointBatches(Numbers(), range(7, 50), 8, 3, 1)
        stream.set_epoch(epoch)
        return [numbers for numbers, _ in stream]

    joint, shares = batches(2), []
    for rank in range(count):
        ranks(rank, count)
        shares.append(batches(2))
        dist.destroy_process_group()
    for whole, *parts in zip(joint, *shares, strict=True):
        assert torch.equal(torch.stack(parts, dim=1).flatten(), whole)


def test_a_batch_that_ranks_cannot_share_is_refused(ranks):
    ranks(0, 3)
    with pytest.raises(ValueError, match="batch_size is 8, it must be a multiple of the 3 ranks"):
        list(JointBatches(Numbers(), range(40), 8, 0, 0))


def test_a_part_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size is 32, but this part of the data has 20 images"):
        parts_of(images=140, held_out_share=6 / 7, evaluation_images=60).train_dataloader()


# ---- what a supernet gets --------------------------------------------------------------------------------------------


def epoch_of(data, epoch):
    loader = data.train_dataloader()
    for stream in loader.flattened:
        stream.sampler.set_epoch(epoch)
    return [batch for batch, *_ in loader]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a[part][k], b[part][k]) for a, b in zip(one, other, strict=True) for part in a for k in (0, 1)
    )


def test_training_batches_come_from_their_own_parts_and_the_shorter_part_ends_an_epoch():
    data = ThreePartsDataModule(DigitsDataModule(batch_size=32, padding=0), evaluation_images=100)
    plain = data.data.training_set(augmented=False)
    owners = {plain.__getitems__([k])[0].numpy().tobytes(): k for k in range(IMAGES)}
    batches = epoch_of(data, 0)
    assert len(batches) == 500 // 32  # of 600 held out, less 100 for evaluation; the weights have 601
    for name, part in (("train", data.weights), ("held_out", data.held_out)):
        found = [owners[image.numpy().tobytes()] for batch in batches for image in batch[name][0][:, None]]
        assert set(found) <= set(part.tolist()) and len(found) == len(batches) * 32
        labels = torch.cat([batch[name][1] for batch in batches])
        assert torch.equal(labels, plain.labels[torch.tensor(found)])


def test_the_longer_part_may_be_an_epoch_and_the_other_come_again_in_another_order():
    data = ThreePartsDataModule(
        DigitsDataModule(batch_size=32, padding=0), 0.25, evaluation_images=100, mode="max_size_cycle"
    )
    assert len(data.weights) == 901 and len(data.held_out) == 200
    batches = epoch_of(data, 0)
    assert len(batches) == 901 // 32
    images = torch.cat([batch["train"][0] for batch in batches]).flatten(1)
    assert len(images.unique(dim=0)) > 0.99 * len(images)  # a few digits are the same
    passes = [torch.cat([batch["held_out"][0] for batch in batches[k : k + 6]]).flatten(1) for k in (0, 6, 12)]
    for one, other in itertools.pairwise(passes):
        assert not torch.equal(one, other) and len(torch.cat([one, other]).unique(dim=0)) <= 200
    plain = ThreePartsDataModule(DigitsDataModule(batch_size=32, padding=0), 0.25, evaluation_images=100)
    assert same(epoch_of(plain, 0), batches[:6])  # of 200 that are held out


def test_epochs_and_seeds_change_order_and_augmentation():
    data = parts_of()
    first = epoch_of(data, 0)
    assert same(first, epoch_of(data, 0)) and not same(first, epoch_of(data, 1))
    data.reseed(9)
    other = epoch_of(data, 0)
    assert not same(first, other)
    data.reseed(0)
    assert same(first, epoch_of(data, 0))
    fresh = parts_of()
    fresh.reseed(9)
    assert same(other, epoch_of(fresh, 0))


def test_evaluation_images_are_as_they_are_and_in_a_fixed_order():
    data = parts_of()
    batches = data.evaluation_batches(batch_size=30)
    expected = data.data.training_set(augmented=False).__getitems__(data.evaluation.tolist())
    epoch_of(data, 3)
    for batch in (batches, data.evaluation_batches(batch_size=50)):
        assert torch.equal(torch.cat([images for images, _ in batch]), expected[0])
        assert torch.equal(torch.cat([labels for _, labels in batch]), expected[1])


def test_evaluation_batches_are_of_equal_size_but_for_an_image():
    sizes = [len(labels) for _, labels in parts_of(evaluation_images=101).evaluation_batches(batch_size=50)]
    assert sum(sizes) == 101 and max(sizes) - min(sizes) <= 1 and max(sizes) <= 50


def test_calibration_images_are_the_weights_own():
    data = parts_of()
    (images, labels), (more, _) = data.calibration_batches(2, batch_size=40)
    expected = data.data.training_set(augmented=False).__getitems__(data.weights[:80].tolist())
    assert torch.equal(torch.cat([images, more]), expected[0]) and torch.equal(labels, expected[1][:40])
    assert data.calibration_batches(0) == []
    # Of 601 images in batches of 100 or 200 one is over.
    for count, size, sizes in ((9, 100, [100] * 6), (9, 200, [200] * 3), (1, 601, [601]), (9, 299, [299, 299, 3])):
        assert [len(labels) for _, labels in data.calibration_batches(count, size)] == sizes


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"held_out_share": 0.0}, "held_out_share is 0.0, it must lie between 0 and 1"),
        ({"held_out_share": 1.0}, "held_out_share is 1.0"),
        ({"mode": "longest"}, "mode is 'longest', allowed: min_size, max_size_cycle"),
        ({"images": 0}, "images is 0, the training set has 1201"),
        ({"images": 1202}, "images is 1202, the training set has 1201"),
        ({"evaluation_images": 0}, "evaluation_images is 0, of 600 that are held out"),
        ({"evaluation_images": 1}, "evaluation_images is 1, of 600 that are held out; at least 2 and not all of"),
        ({"evaluation_images": 600}, "evaluation_images is 600, of 600 that are held out"),
    ],
)
def test_a_split_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        parts_of(**settings)


def test_a_data_module_without_a_training_set_is_refused():
    with pytest.raises(ValueError, match="data is a LightningDataModule, which has no training_set"):
        ThreePartsDataModule(LightningDataModule())


def test_shares_of_a_training_set_are_numbers_of_images():
    by_share = ThreePartsDataModule(DigitsDataModule(), evaluation_images=0.2, images=0.5)
    total = len(DigitsDataModule().training_set())
    count = round(total * 0.5)
    held_out = round(count * 0.5)
    assert len(by_share.evaluation) == round(0.2 * held_out)
    by_number = ThreePartsDataModule(DigitsDataModule(), evaluation_images=len(by_share.evaluation), images=count)
    assert torch.equal(by_number.weights, by_share.weights) and torch.equal(by_number.held_out, by_share.held_out)
