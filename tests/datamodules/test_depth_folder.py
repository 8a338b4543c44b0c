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


def depth_pair(root, picture=(64, 48), depth=(64, 48), turned=1, depth_turned=1, suffix="png"):
    """Five pairs for training and one for validation, the last of which has these sizes and EXIF data."""
    for k in range(6):
        last = k == 5
        for folder, size, orientation in (("images", picture, turned), ("depths", depth, depth_turned)):
            width, height = size if last else (64, 48)
            ramp = np.add.outer(np.arange(height), 2 * np.arange(width)).astype(np.uint8)
            exif = Image.Exif()
            exif[0x0112] = orientation if last else 1
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(ramp).save(root / folder / f"{k}.{suffix}", exif=exif)
    (root / "train.txt").write_text("\n".join("01234"))
    (root / "Valid.txt").write_text("5")
    return DepthFolderDataModule(str(root), resolution=32)


@pytest.mark.parametrize("depth", [(64, 48), (32, 24), (128, 96), (21, 16), (43, 32), (1000, 750)])
def test_a_depth_map_may_have_another_resolution(tmp_path, depth):
    assert depth_pair(tmp_path, depth=depth).num_classes == 0


@pytest.mark.parametrize(
    "pair, message",
    [
        ({"depth": (48, 64)}, r"depths/5\.png has 48x64 pixels and 5\.png 64x48, a depth map must have its picture's"),
        ({"depth": (64, 64)}, r"5\.png has 64x64 pixels"),
        ({"depth": (32, 23)}, r"5\.png has 32x23 pixels"),
        ({"turned": 6}, r"5\.png has 64x48 pixels and 5\.png 48x64"),  # the map lies as the picture is stored
        ({"turned": 3}, r"EXIF data turn .*images/5\.png and .*depths/5\.png differently; save both upright"),
        ({"turned": 2}, "differently"),
        ({"depth_turned": 3}, "differently"),
        ({"picture": (48, 48), "depth": (48, 48), "turned": 8}, "differently"),
        ({"turned": 5, "depth_turned": 7}, "differently"),
    ],
)
def test_a_depth_map_that_does_not_lie_on_its_picture_is_refused_before_a_search(tmp_path, pair, message):
    data = depth_pair(tmp_path, **pair)
    with pytest.raises(ValueError, match=message) as caught:
        _ = data.num_classes
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_photograph_and_depth_map_are_turned_together(tmp_path, suffix):
    for name, pair in {
        "both": {"turned": 6, "depth_turned": 6},
        "upright": {"turned": 6, "depth": (48, 64)},
        "neither": {"picture": (48, 64), "depth": (48, 64)},
    }.items():
        data = depth_pair(tmp_path / name, suffix=suffix, **pair)
        picture, depth = data.val_pictures[0]
        assert picture.shape[:2] == depth.shape == (43, 32)
        if name != "upright":  # there the ramp of the map is another
            far = np.where(depth > 0, 1 / np.maximum(depth, 1e-6), 0) * 255 / 10
            assert np.corrcoef(picture[..., 0].ravel(), far.ravel())[0, 1] > 0.99


def test_deep_photographs_are_scaled_and_deep_depth_maps_keep_their_values(tmp_path):
    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint16)
    for k in range(3):
        save(tmp_path / "images" / f"{k}.png", ramp * 64)  # of 12 bits
        save(tmp_path / "depths" / f"{k}.png", ramp * 1000 + 5 + k)
    (tmp_path / "train.txt").write_text("0\n1")
    (tmp_path / "val.txt").write_text("2")
    data = DepthFolderDataModule(str(tmp_path), resolution=32, metres_per_unit=0.001)
    picture, depth = data.val_pictures[0]
    np.testing.assert_array_equal(picture, np.repeat(ramp[..., None] * 4, 3, 2))
    np.testing.assert_allclose(1 / depth, (ramp * 1000.0 + 7) * 0.001, rtol=1e-5)


def test_depth_maps_of_other_kinds(tmp_path):
    data = depth_pair(tmp_path)
    grey = Image.open(tmp_path / "depths" / "5.png")
    expected = data.val_pictures[0][1]
    palette = Image.fromarray(255 - np.asarray(grey))
    palette.putpalette([255 - index // 3 for index in range(768)])
    palette.save(tmp_path / "depths" / "5.png")
    np.testing.assert_array_equal(DepthFolderDataModule(str(tmp_path), resolution=32).val_pictures[0][1], expected)
    Image.fromarray(np.asarray(grey).astype(np.int32)).save(tmp_path / "depths" / "5.tif")
    np.testing.assert_array_equal(DepthFolderDataModule(str(tmp_path), resolution=32).val_pictures[0][1], expected)
    for image, message in (
        (
            Image.fromarray(np.asarray(grey).astype(np.float32)),
            r"5\.tif .*floating-point numbers; save it with 8 or 16",
        ),
        (grey.convert("1"), r"5\.tif has 1 bit"),
        (grey.convert("LA"), r"5\.tif has 2 channels"),
    ):
        image.save(tmp_path / "depths" / "5.tif")
        with pytest.raises(ValueError, match=message):
            _ = DepthFolderDataModule(str(tmp_path), resolution=32).num_classes


def test_damaged_pairs_are_named_before_a_search(tmp_path):
    depth_pair(tmp_path)
    for folder in ("images", "depths"):
        whole = (tmp_path / folder / "5.png").read_bytes()
        for content in (b"", b"no picture", whole[:-60]):
            (tmp_path / folder / "5.png").write_bytes(content)
            with pytest.raises(ValueError, match=rf"{folder}/5\.png cannot be read as an image"):
                _ = DepthFolderDataModule(str(tmp_path), resolution=32).num_classes
        (tmp_path / folder / "5.png").write_bytes(whole)
    assert DepthFolderDataModule(str(tmp_path), resolution=32).num_classes == 0


def test_the_lists_of_splits_go_by_many_names(tmp_path):
    depth_pair(tmp_path)
    (tmp_path / "test.txt").write_text("0")
    assert [path.stem for path, _ in find_pairs(str(tmp_path))[1]] == ["5"]  # of Valid.txt
    (tmp_path / "val.txt").write_text("1")
    with pytest.raises(ValueError, match=r"has val\.txt and Valid\.txt, one of them is needed"):
        find_pairs(str(tmp_path))


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
