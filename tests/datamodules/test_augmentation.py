"""Augmentation is a function of (seed, epoch, image), does what torchvision's does, and mixes as it says."""

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule
from torchvision.transforms import v2

from datamodules.arrays import ArrayDataModule
from datamodules.augmentation import Augmentation, Augmenter
from datamodules.image_arrays import ImageArrays
from datamodules.imagenet import ImageFolderDataModule
from datamodules.randaugment import OPERATIONS, changed, randaugment
from lightning_modules.classification import ClassificationModule
from search.errors import CatchmarkError
from search.recipes.build import build

ALL = Augmentation(randaugment=2, cutout=4, erasing=0.5, mixup=0.4, cutmix=1.0)


def pictures(n=12, size=12, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def module(augmentation, seed=0, **settings):
    labels = np.arange(12) % 3
    arrays = ImageArrays(pictures(), labels, pictures(4), labels[:4], ("a", "b", "c"))
    return ArrayDataModule(arrays, batch_size=4, seed=seed, augmentation=augmentation, **settings)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [3, 9, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_are_torchvision_s(name, magnitude, channels):
    image = torch.from_numpy(pictures(1, 33, channels)[0]).permute(2, 0, 1).contiguous()
    published = v2.RandAugment()
    strengths, signed = published._AUGMENTATION_SPACE[name]
    amounts = strengths(31, 33, 33)
    amount = 0.0 if amounts is None else float(amounts[magnitude])
    for sign in (1, -1) if signed else (1,):
        expected = published._apply_image_or_video_transform(
            image, name, sign * amount, interpolation=v2.InterpolationMode.NEAREST, fill={torch.Tensor: None}
        )
        ours = changed(image, name, magnitude, sign < 0)
        assert (ours.int() - expected.int()).abs().max() <= 1  # its strengths are single precision, which rounds


def test_all_operations_are_drawn_and_no_global_state_is_touched():
    image = torch.from_numpy(pictures(1, 33)[0]).permute(2, 0, 1).contiguous()
    before = torch.random.get_rng_state()
    drawn = [randaugment(image, 1, 9, np.random.default_rng(seed)) for seed in range(300)]
    kinds = {changed(image, name, 9, negative).numpy().tobytes() for name in OPERATIONS for negative in (False, True)}
    assert {each.numpy().tobytes() for each in drawn} == kinds
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_batch_is_a_function_of_seed_and_epoch_and_of_the_images_in_it():
    ours, again, other = (module(ALL, seed).training_set() for seed in (1, 1, 2))
    first = ours.__getitems__([3, 5, 7])
    assert all(map(torch.equal, first, again.__getitems__([3, 5, 7])))
    assert not torch.equal(first[0], other.__getitems__([3, 5, 7])[0])
    ours.set_epoch(1)
    assert not torch.equal(first[0], ours.__getitems__([3, 5, 7])[0])
    ours.set_epoch(0)
    assert all(map(torch.equal, first, ours.__getitems__([3, 5, 7])))
    unmixed = module(Augmentation(randaugment=2, cutout=4, erasing=0.5)).training_set()
    alone, together = unmixed.__getitems__([5])[0][0], unmixed.__getitems__([3, 5])[0][1]
    assert torch.equal(alone, together)  # whatever batch it is in


def test_images_without_augmentation_stay_as_they_were():
    plain, off = (module(each).training_set().__getitems__([1, 2, 3]) for each in (None, Augmentation()))
    assert all(map(torch.equal, plain, off)) and plain[1].dtype == torch.int64
    data = module(ALL)
    (images, labels), (expected, _) = (each.validation_set().__getitems__([0, 1]) for each in (data, module(None)))
    assert torch.equal(images, expected) and labels.dtype == torch.int64


def test_mixup_is_the_line_between_two_images():
    images, labels = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    mixed, targets = Augmenter(Augmentation(mixup=1.0), 3, 7).batch(images.clone(), labels, range(5))
    shares = set()
    for place in range(5):
        own, other = images[place], images[place - 1]
        share = float(((mixed[place] - own) * (other - own)).sum() / (other - own).square().sum())
        assert torch.allclose(mixed[place], own + share * (other - own), atol=1e-5) and 0 < share < 1
        expected = torch.zeros(3)
        expected[labels[place]] += 1 - share
        expected[labels[place - 1]] += share
        assert torch.allclose(targets[place], expected, atol=1e-5)
        shares.add(round(share, 4))
    assert len(shares) == 5


def test_cutmix_targets_are_the_shares_of_the_pixels():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 10, 14).clone()
    labels = torch.arange(6)
    mixed, targets = Augmenter(Augmentation(cutmix=1.0), 6, 3).batch(images.clone(), labels, range(6))
    for place in range(6):
        other = (mixed[place] == (place - 1) % 6).all(0)
        assert ((mixed[place] == place).all(0) ^ other).all()
        rows, columns = other.any(1), other.any(0)
        assert torch.equal(other, rows[:, None] & columns[None])  # one rectangle
        assert targets[place, place - 1].item() == pytest.approx(other.float().mean().item(), abs=1e-6)
        assert targets[place].sum().item() == pytest.approx(1.0)
    assert 0 < targets.diagonal().mean() < 1


def test_with_both_images_have_the_one_or_the_other_and_some_neither():
    images = torch.rand(400, 1, 8, 8) + torch.arange(400.0).view(400, 1, 1, 1)
    chosen = Augmentation(mixup=1.0, cutmix=1.0, mixed=0.6)
    mixed, targets = Augmenter(chosen, 2, 0).batch(images.clone(), torch.arange(400) % 2, range(400))
    same = (mixed == images).flatten(1)
    untouched, partly = same.all(1), same.any(1) & ~same.all(1)
    assert ((targets[untouched].amax(1)) == 1).all()
    for count, share in ((untouched.sum(), 0.4), (partly.sum(), 0.3)):
        # four standard deviations; a few rectangles are empty, or the whole image
        assert abs(count.item() / 400 - share) < 4 * (share * (1 - share) / 400) ** 0.5 + 0.02


def test_cutout_erases_a_square_and_erasing_a_rectangle():
    images = torch.ones(200, 1, 16, 16)
    cut, _ = Augmenter(Augmentation(cutout=6), 2, 0).batch(images.clone(), torch.zeros(200).long(), range(200))
    gone = (cut == 0).flatten(1).sum(1)
    assert gone.max() == 36 and gone.min() >= 9  # at a corner a quarter of it is inside
    erased, _ = Augmenter(Augmentation(erasing=0.5), 2, 0).batch(images.clone(), torch.zeros(200).long(), range(200))
    shares = (erased == 0).flatten(1).float().mean(1)
    some = shares[shares > 0]
    assert abs(len(some) / 200 - 0.5) < 4 * 0.5 / 200**0.5
    assert some.min() > 0.005 and some.max() < 0.4  # 2 to 33%, rounded to whole pixels


@pytest.mark.parametrize("wrong", [{"magnitude": 31}, {"erasing": 1.5}, {"mixup": -0.1}, {"randaugment": -1}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"augmentation: {next(iter(wrong))} is "):
        Augmentation(**wrong)


def test_pictures_on_disk_go_through_the_same(tmp_path):
    from PIL import Image

    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for k, each in enumerate(pictures(3, 40)):
                Image.fromarray(each).save(tmp_path / split / label / f"{k}.png")
    settings = {"resolution": 16, "batch_size": 2, "seed": 4}
    threaded = ImageFolderDataModule(str(tmp_path), augmentation=ALL, threads=2, **settings).training_set()
    images, targets = threaded.__getitems__([0, 4])
    alone = ImageFolderDataModule(str(tmp_path), augmentation=ALL, **settings).training_set().__getitems__([0, 4])
    assert torch.equal(images, alone[0]) and targets.shape == (2, 2)
    plain = ImageFolderDataModule(str(tmp_path), **settings).training_set().__getitems__([0, 4])
    assert not torch.equal(plain[0], images) and plain[1].tolist() == [0, 1]


def test_soft_targets_are_learnt_from():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 3))
    images, targets = module(ALL).training_set().__getitems__([0, 1, 2])
    loss = ClassificationModule(network, label_smoothing=0.1).training_step((images, targets), 0)
    wanted = 0.9 * targets + 0.1 / 3
    expected = -(wanted * network(images).log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_recipe_names_it_and_a_wrong_key_is_refused():
    def described(**augmentation):
        given = {"class_path": "DigitsDataModule", "init_args": {"augmentation": augmentation}}
        return build(given, LightningDataModule, "data")

    assert described(randaugment=2, mixup=0.2).augmentation == Augmentation(randaugment=2, mixup=0.2)
    with pytest.raises(CatchmarkError, match=r"data.*mixap.*did you mean 'mixup'"):
        described(mixap=1.0)
    with pytest.raises(CatchmarkError, match="magnitude is 40"):
        described(magnitude=40)
