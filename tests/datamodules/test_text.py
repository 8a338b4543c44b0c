import itertools

import pytest
import torch

from datamodules.text import PYTHON_TOPICS, Streams, TextDataModule, TextWindows, python_topics
from datamodules.three_parts import ThreePartsDataModule


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ptb.train.txt").write_text("the cat sat\non the mat the end\n" * 10)
    (tmp_path / "ptb.valid.txt").write_text("the dog sat\n" * 10)
    (tmp_path / "ptb.test.txt").write_text("never read")
    return tmp_path


def test_words_are_numbered_by_their_frequency(folder):
    data = TextDataModule(folder, level="word", length=3, batch_size=2)
    assert data.vocabulary[:3] == ["<unk>", "the", "<eos>"] and data.num_classes == 8
    words, following = data.training_set(augmented=False)[0]
    assert [data.vocabulary[k] for k in words] == ["the", "cat", "sat"]
    assert [data.vocabulary[k] for k in following] == ["cat", "sat", "<eos>"]
    words, _ = data.validation_set()[0]
    assert [data.vocabulary[k] for k in words] == ["the", "<unk>", "sat"]  # the dog is not in the training text
    few = TextDataModule(folder, level="word", length=3, batch_size=2, words=2)
    assert few.vocabulary == ["<unk>", "the", "<eos>"]


def test_the_end_of_a_text_is_held_out(tmp_path):
    (tmp_path / "text.txt").write_text("abcdefghij" * 10)
    data = TextDataModule(tmp_path / "text.txt", length=4, batch_size=2, held_out=0.2, characters=80)
    assert data.vocabulary == ["<unk>", *"abcdefghij"]
    train, held_out = data.training_set(augmented=False), data.validation_set()
    assert len(train.words) == 64 and len(held_out.words) == 16
    assert torch.equal(torch.cat([train.words, held_out.words]), 1 + torch.arange(80) % 10)


def test_each_place_of_a_batch_reads_on_where_it_was():
    windows = TextWindows(torch.arange(101), 5)
    order = Streams(windows, 3)
    assert len(windows) == 20 and len(order) == 18 and sorted(order) == list(range(18))
    batches = [windows.__getitems__(list(order)[k : k + 3]) for k in range(0, 18, 3)]
    for (words, following), (after, _) in itertools.pairwise(batches):
        assert torch.equal(following[:, :-1], words[:, 1:]) and torch.equal(following[:, -1], after[:, 0])
    with pytest.raises(ValueError, match="batch_size is 30, and the text has 20 windows of 5"):
        Streams(windows, 30)


def test_epochs_begin_elsewhere_and_seeds_decide_where(tmp_path):
    (tmp_path / "text.txt").write_text("".join(chr(97 + k * k % 23) for k in range(400)))

    def epochs(seed):
        data = TextDataModule(tmp_path / "text.txt", length=7, batch_size=3, seed=seed)
        loader = data.train_dataloader()
        found = []
        for epoch in range(4):
            loader.sampler.set_epoch(epoch)
            found.append(torch.cat([words for words, _ in loader]))
        return data, found

    data, first = epochs(1)
    _, again = epochs(1)
    _, other = epochs(2)
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))
    assert len({tuple(each.flatten().tolist()) for each in first}) > 1
    (words, _), *_ = data.val_dataloader()
    assert words.shape == (3, 7)


def test_the_text_of_python_is_there_and_can_be_parted_for_a_supernet():
    assert len(python_topics()) > 200_000
    data = TextDataModule(PYTHON_TOPICS, length=10, batch_size=4, characters=20_000)
    parts = ThreePartsDataModule(data, evaluation_images=50)
    assert parts.num_classes == data.num_classes > 40
    batch = next(iter(parts.train_dataloader()))[0]
    assert batch["train"][0].shape == batch["held_out"][1].shape == (4, 10)
    assert sum(len(words) for words, _ in parts.evaluation_batches()) == 50


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text": "nowhere.txt"}, "there is no 'nowhere.txt'"),
        ({"level": "letter"}, "level is 'letter', allowed: word, character"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"length": 0}, "length is 0"),
    ],
)
def test_what_is_no_text_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TextDataModule(**settings)


def test_a_folder_needs_one_file_a_part(folder):
    (folder / "more.valid.txt").write_text("x")
    with pytest.raises(ValueError, match=r"has 2 files '\*valid\*.txt', one is needed"):
        TextDataModule(folder)
    with pytest.raises(ValueError, match="the validation text has 40 words, windows 30"):
        (folder / "more.valid.txt").unlink()
        _ = TextDataModule(folder, level="word", length=30).vocabulary
