"""Pairs of modalities: by label, from tables, spoken and written digits, and their features."""

import numpy as np
import pytest
import torch

from datamodules.pair_features import DigitFeaturesDataModule, UnimodalTraining, features_of
from datamodules.pairs import Pairs, PairsDataModule, pair_by_label
from datamodules.spoken_written import SpokenWrittenDigits

COUNTS = (60, 20, 20)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Six people say each digit four times; a spectrogram's first cell says who, its second what."""
    label, speaker = np.repeat(np.arange(10), 24), np.tile(np.repeat(np.arange(6), 4), 10)
    mel = np.random.default_rng(0).integers(0, 255, (240, 64, 64)).astype(np.uint8)
    mel[:, :2, :2], mel[:, :2, 2:4] = 10 * speaker[:, None, None], 10 * label[:, None, None]
    path = tmp_path_factory.mktemp("sound") / "sound.npz"
    np.savez(path, log_mel=mel, label=label.astype(np.int8), speaker=speaker.astype(np.int8))
    return str(path)


def test_pairs_have_the_same_class_and_use_everything_evenly():
    first, second = np.array([0, 1, 1, 2, 2, 2, 7]), np.array([2, 1, 0, 0, 1, 8])
    pairs, labels = pair_by_label(first, second, 31, seed=3)
    assert (first[pairs[:, 0]] == labels).all() and (second[pairs[:, 1]] == labels).all()
    assert sorted(np.bincount(labels)) == [10, 10, 11]
    used = np.bincount(pairs[:, 0], minlength=7)
    assert used[6] == 0 and np.ptp(used[1:3]) <= 1 and np.ptp(used[3:6]) <= 1
    assert np.array_equal(pair_by_label(first, second, 31, 3)[0], pairs)
    assert not np.array_equal(pair_by_label(first, second, 31, 4)[0], pairs)
    with pytest.raises(ValueError, match="no class is in both"):
        pair_by_label(np.array([0]), np.array([1]), 3, 0)


def test_speakers_and_pictures_are_held_out(sound):
    splits, told = SpokenWrittenDigits(sound, test_speaker=1, val_speaker=3, counts=COUNTS, seed=2).load()
    assert "speaker 3" in told
    people, pictures = {}, {}
    for name, split in splits.items():
        heard = np.rint((split.first + 0.5) * 128 / 10).astype(int)[:, 0, 0]
        people[name] = set(heard[:, 0].tolist())
        assert (heard[split.pairs[:, 0], 1] == split.labels).all()
        pictures[name] = {each.tobytes() for each in split.second}
        assert len(split.labels) == dict(zip(splits, COUNTS, strict=True))[name]
    assert people == {"train": {0, 2, 4, 5}, "val": {3}, "test": {1}}
    assert sum(map(len, pictures.values())) == len(set().union(*pictures.values())) == 1797


def test_without_recordings_halves_of_pictures_stand_in_and_it_says_so():
    with pytest.warns(UserWarning, match=r"no file of spoken digits 'not_there\.npz'"):
        splits, told = SpokenWrittenDigits("not_there.npz", noise=0.0, counts=COUNTS).load()
    assert told.startswith("left and right halves")
    train = splits["train"]
    assert train.first.shape[1:] == train.second.shape[1:] == (1, 8, 4)
    assert (train.pairs[:, 0] == train.pairs[:, 1]).all()  # halves of one picture


def test_noise_is_as_large_as_it_says(sound):
    clean, noisy = (SpokenWrittenDigits(sound, noise, counts=COUNTS).load()[0]["train"] for noise in (0.0, 0.4))
    assert (noisy.second - clean.second).std() == pytest.approx(0.4, rel=0.02)
    assert np.array_equal(noisy.pairs, clean.pairs)


def test_features_are_those_of_networks_that_learned(sound):
    digits = SpokenWrittenDigits(sound, 0.0, counts=(200, 100, 50))
    training = UnimodalTraining(channels=4, epochs=3, batch_size=16, learning_rate=0.01)
    data = DigitFeaturesDataModule(digits, training, batch_size=32)
    before = torch.get_rng_state()
    raw, split = digits.load()[0]["val"], data.splits["val"]
    assert torch.equal(torch.get_rng_state(), before)
    assert split.first.shape[1] == 4 + 8 + 16 + 32 + 64 and split.second.shape[1] == 4 + 8 + 16
    network = data.networks[1]
    with torch.no_grad():
        wanted = [each.mean((2, 3)) for each in network.features(torch.from_numpy(raw.second))]
        right = network(torch.from_numpy(raw.second)[raw.pairs[:, 1]]).argmax(1).numpy() == raw.labels
    assert np.array_equal(split.second, torch.cat(wanted, 1).numpy()) and right.mean() > 0.25  # of ten classes
    again = DigitFeaturesDataModule(digits, training).splits["val"]
    assert np.array_equal(again.first, split.first)  # a pure function of the seed
    assert features_of(network.features, raw.second[:3]).shape == (3, 28)
    ((one, other), labels), *_ = data.val_dataloader()
    assert torch.equal(one[5], torch.from_numpy(split.first[split.pairs[5, 0]])) and int(labels[5]) == split.labels[5]
    assert torch.equal(other[5], torch.from_numpy(split.second[split.pairs[5, 1]])) and data.num_classes == 10


def archive(**changed):
    rows = {"first": np.ones((4, 2)), "second": np.ones((4, 3)), "y": np.array([0, 1, 2, 1])}
    arrays = {f"{kind}_{split}": value for split in ("train", "val") for kind, value in rows.items()}
    return {name: value for name, value in (arrays | changed).items() if value is not None}


def test_a_table_of_pairs_may_name_rows_of_its_own(tmp_path):
    pairs = np.array([[0, 3], [2, 1]])
    np.savez(
        tmp_path / "own.npz",
        **archive(pairs_train=pairs, y_train=np.array([1, 4]), first_train=np.arange(8).reshape(4, 2)),
    )
    data = PairsDataModule(str(tmp_path / "own.npz"), batch_size=2)
    (one, other), labels = data.training_set().__getitems__([1])
    assert one.tolist() == [[4, 5]] and other.shape == (1, 3) and labels.tolist() == [4] and data.num_classes == 5
    with pytest.raises(ValueError, match="no test pairs"):
        data.test_dataloader()


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "short.npz", **archive(second_val=None))
    with pytest.raises(ValueError, match="no array 'second_val'"):
        _ = PairsDataModule(str(tmp_path / "short.npz")).splits
    with pytest.raises(FileNotFoundError, match=r"no table of pairs 'nowhere\.npz'"):
        _ = PairsDataModule("nowhere.npz").splits
    with pytest.raises(ValueError, match=r"a pair names \[0, 3\]"):
        Pairs(np.ones((2, 1)), np.ones((3, 1)), np.array([[0, 3]]), np.array([1]))
    with pytest.raises(ValueError, match="two different ones"):
        SpokenWrittenDigits(test_speaker=2, val_speaker=2)
