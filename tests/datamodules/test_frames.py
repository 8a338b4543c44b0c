import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.frames import FramesDataModule
from datamodules.moving_squares import moving_squares


def numbered(count, height=4, width=6, first=0):
    """Frames that say which they are."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    frames += np.arange(first, first + count, dtype=np.uint8)[:, None, None, None]
    return frames


def numbers(batch):
    """Which frames a batch has: ``[batch, time]``."""
    return (255 * batch[:, :, 0, 0, 0]).round().int().tolist()


@pytest.fixture
def clip(tmp_path):
    np.savez(tmp_path / "clip.npz", frames=numbered(20))
    return tmp_path / "clip.npz"


def test_sequences_are_consecutive_and_the_end_is_held_out(clip):
    data = FramesDataModule(clip, length=4, batch_size=3, held_out=8)
    train = [row for batch in data.train_dataloader() for row in numbers(batch)]
    assert sorted(train) == [list(range(k, k + 4)) for k in range(9)] != train
    assert [row for batch in data.val_dataloader() for row in numbers(batch)] == [[12, 13, 14, 15], [16, 17, 18, 19]]
    batch = next(iter(data.val_dataloader()))
    assert batch.dtype == torch.float32 and batch.shape == (2, 4, 3, 4, 6) and batch.max() <= 1
    assert len(FramesDataModule(clip, length=4, held_out=0.4, val_step=1, train_step=2).validation_set()) == 5
    assert len(FramesDataModule(clip, length=4, held_out=8, train_step=2).training_set()) == 5
    assert len(FramesDataModule(clip, length=4, held_out=8, val_sequences=1).validation_set()) == 1


def test_an_epoch_is_a_function_of_seed_and_number(clip):
    def epochs(seed):
        data = FramesDataModule(clip, length=4, held_out=8, train_sequences=5)
        data.reseed(seed)
        loader = data.train_dataloader()
        found = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found.append([row for batch in loader for row in numbers(batch)])
        return found

    one = epochs(1)
    assert one == epochs(1) != epochs(2) and one[0] != one[1] and all(len(epoch) == 5 for epoch in one)
    more = FramesDataModule(clip, length=4, held_out=8, train_sequences=20)
    drawn = [row for batch in more.train_dataloader() for row in numbers(batch)]
    assert len(drawn) == 20 and {tuple(row) for row in drawn} == {tuple(range(k, k + 4)) for k in range(9)}


def test_crops_lie_anywhere_in_training_and_in_the_middle_of_validation(tmp_path):
    place = np.zeros((12, 9, 7, 3), dtype=np.uint8)
    place[..., 0], place[..., 1] = np.arange(9)[:, None], np.arange(7)  # each pixel says where it is
    np.save(tmp_path / "place.npy", place)

    def corners(batch):
        return [(round(255 * float(each[0, 0, 0])), round(255 * float(each[1, 0, 0]))) for each in batch[:, 0]]

    data = FramesDataModule(tmp_path / "place.npy", length=2, held_out=3, crop=[5, 4], train_sequences=200, seed=1)
    training = data.training_set()
    first = corners(training.__getitems__(list(range(200))))
    assert {top for top, _ in first} == set(range(5)) and {left for _, left in first} == set(range(4))
    training.set_epoch(1)
    assert corners(training.__getitems__(list(range(200)))) != first
    assert set(corners(data.validation_set().__getitems__([0]))) == {(2, 1)}
    (batch,) = data.val_dataloader()
    assert batch.shape == (1, 2, 3, 5, 4) and torch.equal(batch[:, 0], batch[:, 1])
    with pytest.raises(ValueError, match=r"crop is \[10, 4\], frames have \[9, 7\] pixels"):
        FramesDataModule(tmp_path / "place.npy", length=2, held_out=3, crop=[10, 4]).training_set()


def test_other_batches_are_of_the_same_videos(clip):
    data = FramesDataModule(clip, length=4, held_out=8)
    other = data.with_settings(2, 6, 1)
    assert other.videos[0] is data.videos[0] and data.train_sequences is None
    assert [len(batch) for batch in other.train_dataloader()] == [2, 2, 2] and len(other.validation_set()) == 1


def test_folders_are_videos_and_no_sequence_crosses_from_one_to_the_next(tmp_path):
    for drive in range(2):
        (tmp_path / "drives" / f"drive_{drive}").mkdir(parents=True)
        for k, frame in enumerate(numbered(10, 30, 40, first=10 * drive)):
            Image.fromarray(frame).save(tmp_path / "drives" / f"drive_{drive}" / f"{k:03}.png")
    data = FramesDataModule(tmp_path / "drives", length=3, held_out=0.4, height=6, width=8, train_step=3)
    assert sorted(numbers(torch.cat(list(data.train_dataloader())))) == [
        [0, 1, 2],
        [3, 4, 5],
        [10, 11, 12],
        [13, 14, 15],
    ]
    assert numbers(torch.cat(list(data.val_dataloader()))) == [[6, 7, 8], [16, 17, 18]]
    one = FramesDataModule(tmp_path / "drives" / "drive_0", length=3, held_out=3)
    assert [video.shape for video in one.videos] == [(10, 30, 40, 3)]
    np.save(tmp_path / "clip.npy", one.videos[0])
    assert np.array_equal(FramesDataModule(tmp_path / "clip.npy", length=3, held_out=3).videos[0], one.videos[0])


def test_frames_cover_their_new_size_and_lose_both_sides_alike(tmp_path):
    wide = np.zeros((6, 8, 32, 3), dtype=np.uint8)
    wide[:, :, 8:24] = 200  # the middle half
    np.save(tmp_path / "wide.npy", wide)
    (video,) = FramesDataModule(tmp_path / "wide.npy", length=2, held_out=2, height=4, width=8).videos
    assert video.shape == (6, 4, 8, 3) and video.min() >= 170


def test_squares_fly_straight_on_and_stay_inside():
    video = moving_squares(40, 16, 20, squares=1)
    assert np.array_equal(video, moving_squares(40, 16, 20, squares=1))
    assert not np.array_equal(video, moving_squares(40, 16, 20, squares=1, seed=1))
    places = np.array([np.argwhere((frame > 50).any(-1)).mean(0) for frame in video])
    assert {int((frame > 50).any(-1).sum()) for frame in video} == {16}  # a whole square in every frame
    steps = np.abs(np.diff(places, axis=0))
    assert steps.max() <= 2 and (steps.sum(1) > 0).mean() > 0.8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"length": 1}, "length is out of range, at least 2"),
        ({"height": 8}, "give both or neither"),
        ({"held_out": 0}, "held_out is 0"),
        ({"train_sequences": 0}, "train_sequences"),
        ({"frames": "nowhere.npz"}, "no frames 'nowhere.npz'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words, clip):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        FramesDataModule(**{"frames": clip, **arguments})


def test_what_is_no_video_is_refused(clip, tmp_path):
    with pytest.raises(ValueError, match="of a video of 20 frames 4 are held out"):
        FramesDataModule(clip).training_set()
    np.savez(tmp_path / "other.npz", frame=numbered(20))
    with pytest.raises(ValueError, match=r"no array 'frames'.*frame"):
        FramesDataModule(tmp_path / "other.npz").training_set()
    np.save(tmp_path / "grey.npy", np.zeros((20, 4, 4)))
    with pytest.raises(ValueError, match="frames are float64"):
        FramesDataModule(tmp_path / "grey.npy").training_set()
    (tmp_path / "damaged.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="is no NumPy file, or damaged"):
        FramesDataModule(tmp_path / "damaged.npz").training_set()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no pictures"):
        FramesDataModule(tmp_path / "empty").training_set()


def test_the_road_clip_moves_as_much_as_it_is_known_to(real_data):
    (video,) = FramesDataModule(real_data("road_clip.npz"), held_out=21).videos
    pixels = video.astype(np.float64) / 255
    assert np.square(np.diff(pixels, axis=0)).mean() == pytest.approx(0.005848, abs=5e-7)
