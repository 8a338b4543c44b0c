from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.depth_folder import DepthFolderDataModule, DepthPictures, find_pairs

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_nyu(root, n=6, height=40, width=48, lists=True):
    """Pictures that say in every pixel where it is: red the row, green the column, blue the picture; depth likewise."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    for k in range(n):
        picture = np.stack([rows, columns, np.full_like(rows, k)], axis=-1)
        save(root / "images" / f"{k}.png", picture.astype(np.uint8))
        save(root / "depths" / f"{k}.png", (rows + 2 * columns).astype(np.uint8))
    if lists:
        (root / "train.txt").write_text("\n".join(str(k) for k in range(n - 2)) + "\n")
        (root / "test.txt").write_text(f"{n - 2}\n{n - 1}\n")
    return root


def pixels(images):
    """Back from normalised images to whole numbers."""
    return np.rint((images.permute(0, 2, 3, 1).double().numpy() * STD + MEAN) * 255).astype(int)


@pytest.fixture
def nyu(tmp_path):
    return make_nyu(tmp_path / "nyu")


def test_pictures_and_depth_stay_together_through_crop_and_flip(nyu):
    data = DepthFolderDataModule(str(nyu), resolution=32, metres_per_unit=0.5)
    batches = data.training_set()
    raw = DepthPictures(batches.pictures.files, 32, 0.5)
    seen = set()
    for epoch in range(12):
        batches.set_epoch(epoch)
        images, (inverse_depth, mask) = batches.__getitems__([2, 0, 3])
        assert images.shape == (3, 3, 32, 32) and inverse_depth.shape == mask.shape == (3, 1, 32, 32)
        assert images.dtype == inverse_depth.dtype == torch.float32 and mask.dtype == torch.bool
        for k, shown, depth in zip([2, 0, 3], pixels(images), inverse_depth[:, 0].numpy(), strict=True):
            assert (shown[..., 2] == k).all()
            picture, whole = raw[k]
            places = [
                (left, flip)
                for left in range(picture.shape[1] - 31)
                for flip in (False, True)
                if np.array_equal(shown, picture[:, left : left + 32][:, :: -1 if flip else 1])
            ]
            ((left, flip),) = places
            np.testing.assert_array_equal(depth, whole[:, left : left + 32][:, :: -1 if flip else 1])
            seen.add((left, flip))
    assert {flip for _, flip in seen} == {False, True} and len({left for left, _ in seen}) >= 5


def test_metres_become_inverse_metres_and_zero_is_unknown(nyu):
    data = DepthFolderDataModule(str(nyu), resolution=32, metres_per_unit=0.5)
    _, (inverse_depth, mask) = data.validation_set().__getitems__([0, 1])
    stored = np.array(Image.open(nyu / "depths" / "4.png")).astype(float)
    # 40x48 becomes 32x38, of whose columns 3 to 34 are the centre; the nearest value is that under a pixel's middle
    rows = [int((y + 0.5) * 40 / 32) for y in range(32)]
    columns = [int((x + 0.5) * 48 / 38) for x in range(3, 35)]
    np.testing.assert_allclose(inverse_depth[0, 0], 1 / (stored[np.ix_(rows, columns)] * 0.5), rtol=1e-6)
    assert mask.all()
    (left,) = DepthPictures([(nyu / "images" / "4.png", nyu / "depths" / "4.png")], 32, 0.5)[0][1][:1, :1].flatten()
    assert left == 0  # the corner of the picture, where the stored depth is 0


def test_redweb_holds_relative_inverse_depth_of_eight_or_sixteen_bits(tmp_path):
    for k in range(20):
        depth = np.full((32, 64), 51 * (k % 6), dtype=np.uint8)
        save(tmp_path / "Imgs" / f"{k:02}.jpg", np.full((32, 64, 3), k, dtype=np.uint8))
        save(tmp_path / "RDs" / f"{k:02}.png", depth.astype(np.uint16) * 257 if k == 9 else depth)
    data = DepthFolderDataModule(str(tmp_path), resolution=32)
    assert len(data.training_set()) == 18 and len(data.validation_set()) == 2  # every tenth is held out
    _, (inverse_depth, mask) = data.validation_set().__getitems__([0, 1])
    np.testing.assert_allclose(inverse_depth[:, 0, 0, 0], [51 * 3 / 255, 51 * 1 / 255], rtol=1e-6)
    assert mask.all()
    _, (inverse_depth, mask) = data.training_set().__getitems__([0, 1])
    assert not mask[0].any() and mask[1].all()


def test_batches_are_a_function_of_seed_epoch_and_index(nyu):
    def batch(seed, epoch, indices):
        batches = DepthFolderDataModule(str(nyu), resolution=32, seed=seed).training_set()
        batches.set_epoch(epoch)
        return batches.__getitems__(indices)[0]

    reference = batch(1, 5, [0, 1, 2, 3])
    assert torch.equal(batch(1, 5, [3, 1]), reference[[3, 1]])
    assert not torch.equal(batch(2, 5, [0, 1, 2, 3]), reference)
    assert not torch.equal(batch(1, 6, [0, 1, 2, 3]), reference)


def loaded(nyu, epochs=2, **arguments):
    loader = DepthFolderDataModule(str(nyu), resolution=32, batch_size=2, **arguments).train_dataloader()
    passes = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        passes.append(list(loader))
    return passes


def test_the_loader_gives_every_image_once_in_an_order_of_its_epoch(nyu):
    state = torch.get_rng_state()
    first = loaded(nyu, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    order = [
        [int(pixels(images)[k, 0, 0, 2]) for images, _ in batches for k in range(len(images))] for batches in first
    ]
    assert [sorted(each) for each in order] == [[0, 1, 2, 3]] * 2
    again, workers, uncached = (
        loaded(nyu, seed=3, **extra) for extra in ({}, {"num_workers": 2}, {"cache_megabytes": 0})
    )
    for other in (again, workers, uncached):
        for ours, theirs in zip(chain(*first), chain(*other), strict=True):
            assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1][0], theirs[1][0])
    orders = {tuple(int(pixels(images)[0, 0, 0, 2]) for images, _ in loaded(nyu, 1, seed=seed)[0]) for seed in range(8)}
    assert len(orders) > 2


def test_small_sets_are_decoded_once_and_large_ones_whenever_asked(nyu):
    batches = {
        megabytes: DepthFolderDataModule(str(nyu), resolution=32, cache_megabytes=megabytes).training_set()
        for megabytes in (1, 0)
    }
    for path in (nyu / "images").iterdir():
        path.unlink()
    assert batches[1].__getitems__([0, 1, 2, 3])[0].isfinite().all()
    with pytest.raises(ValueError, match=r"0\.png cannot be read as an image"):
        batches[0].__getitems__([0])


def test_limits_and_unaugmented_training_images(nyu):
    data = DepthFolderDataModule(str(nyu), resolution=32, images=3, val_images=1)
    assert len(data.training_set()) == 3 and len(data.validation_set()) == 1
    plain = data.training_set(augmented=False)
    plain.set_epoch(0)
    before = plain.__getitems__([0, 1, 2])[0]
    plain.set_epoch(1)
    assert torch.equal(plain.__getitems__([0, 1, 2])[0], before)
    assert torch.equal(plain[1][0], before[1])


def test_the_folder_is_looked_for_here_and_then_below_catchmark_data(tmp_path, monkeypatch):
    make_nyu(tmp_path / "data" / "depth", n=4)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("CATCHMARK_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"no depth images in 'depth' in .*not set.*download ReDWeb V1"
    ) as caught:
        DepthFolderDataModule("depth").training_set()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("CATCHMARK_DATA", str(tmp_path / "data"))
    train, val, metric = find_pairs("depth")
    assert (len(train), len(val), metric) == (2, 2, True) and train[0][0].is_relative_to(tmp_path / "data")
    make_nyu(tmp_path / "here" / "depth", n=5)
    assert len(find_pairs("depth")[0]) == 3


def test_folders_with_faults_say_which(nyu):
    (nyu / "test.txt").write_text("4\n7\n")
    with pytest.raises(ValueError, match="'7' of the validation list lacks its picture or its depth map"):
        find_pairs(str(nyu))
    (nyu / "test.txt").unlink()
    with pytest.raises(ValueError, match=r"has train\.txt alone"):
        find_pairs(str(nyu))
    (nyu / "train.txt").unlink()
    with pytest.raises(ValueError, match="has no validation pairs"):  # six pairs have no tenth
        find_pairs(str(nyu))
    save(nyu / "depths" / "0.png", np.zeros((40, 48, 3), dtype=np.uint8))
    (nyu / "train.txt").write_text("0.png\n1.png\n")
    (nyu / "val.txt").write_text("2\n")
    with pytest.raises(ValueError, match=r"depths/0\.png has 3 channels, a depth map has one"):
        DepthFolderDataModule(str(nyu), resolution=32).training_set()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"resolution": 40}, "resolution is 40, a multiple of 32"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"images": 0}, "images is 0"),
        ({"metres_per_unit": 0.0}, r"metres_per_unit is 0\.0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthFolderDataModule(**arguments)


def test_real_pairs(real_data):
    root = str(real_data("images/nyuv2"))
    data = DepthFolderDataModule(root, resolution=64, images=16, val_images=4)
    assert [len(each) for each in find_pairs(root)[:2]] == [320, 80]
    images, (inverse_depth, mask) = data.training_set().__getitems__(range(16))
    assert abs(images.mean()) < 1.5 and 0.5 < images.std() < 2
    metres = 1 / inverse_depth[mask]
    assert mask.float().mean() > 0.9 and metres.min() > 0.03 and 0.5 < metres.median() < 8 and metres.max() < 10.01
