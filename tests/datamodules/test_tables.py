"""Tables: what a network reads of a row, beside what is counted by hand."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes

from datamodules.csv_table import CsvDataModule
from datamodules.diabetes import DiabetesDataModule

ROWS = 40


@pytest.fixture
def table(tmp_path):
    """Sizes, colours and codes of things of two kinds; a size and a colour are missing."""
    rng = np.random.default_rng(0)
    sizes, colours = rng.normal(50, 20, ROWS).round(2), rng.choice(["red", "green", "blue"], ROWS)
    lines = ["id,size,colour,code,kind,price"]
    for k in range(ROWS):
        size, colour = "" if k == 3 else sizes[k], "NA" if k == 5 else colours[k]
        lines.append(f"{k},{size},{colour},{k % 3},{'egg, boiled' if k % 4 else 'hen'!s},{10 * k + 5}")
    text = "\n".join(lines).replace("egg, boiled", '"egg, boiled"')
    path = tmp_path / "things.csv"
    path.write_text(text + "\n\n")
    return path, sizes, colours


def data(path, **arguments):
    return CsvDataModule(
        str(path), **({"target": "kind", "left_out": ["id", "price"], "categories": ["code"]} | arguments)
    )


def rows_of(module):
    """Features and targets of all training rows and of all validation rows."""
    return [each.__getitems__(list(range(len(each)))) for each in (module.training_set(), module.validation_set())]


def test_numbers_are_standardised_by_training_rows_and_categories_switched(table):
    path, sizes, colours = table
    module = data(path, left_out=["price"])  # `id` says which row is which
    (train, labels), (val, val_labels) = rows_of(module)
    names = module.features
    assert module.classes == ["egg, boiled", "hen"] and module.num_classes == 2 and module.in_channels == len(names)
    whole = [*range(ROWS)]
    # Which rows are for training is read off the standardised `id`, whose order is kept: undo it by its own ranks.
    held_out = 6 + 2
    assert len(train) == ROWS - held_out and len(val) == held_out
    assert val_labels.tolist().count(1) == 2  # a fifth of each class
    place = names.index("id")
    for wanted in (names.index("size"), place):
        assert abs(float(train[:, wanted].mean())) < 1e-6
    ids = _undo(train[:, place], val[:, place])
    trained, validated = ids
    assert sorted([*trained, *validated]) == whole
    known = [k for k in trained if k != 3]
    mean, std = sizes[known].mean(), sizes[known].std()
    for rows, features in ((trained, train), (validated, val)):
        expected = [(sizes[k] - mean) / std if k != 3 else 0.0 for k in rows]
        np.testing.assert_allclose(features[:, names.index("size")], expected, atol=1e-5)
        for colour in ("red", "green", "blue"):
            switched = features[:, names.index(f"colour is {colour}")].tolist()
            assert switched == [float(k != 5 and colours[k] == colour) for k in rows]
        for code in "012":
            assert features[:, names.index(f"code is {code}")].tolist() == [float(k % 3 == int(code)) for k in rows]
    for name, row in (("size is missing", 3), ("colour is missing", 5)):
        assert (name in names) == (row in trained)
        if name in names:
            assert train[:, names.index(name)].tolist() == [float(k == row) for k in trained]
    assert labels.tolist() == [int(k % 4 == 0) for k in trained]


def _undo(train, val):
    """The numbers 0 to n - 1 that were standardised, by solving for shift and scale."""
    both = torch.cat([train, val]).double()
    low, high = both.min(), both.max()
    return [((part.double() - low) / (high - low) * (ROWS - 1)).round().long().tolist() for part in (train, val)]


def test_a_regression_gives_targets_that_lead_back(table):
    path, *_ = table
    module = data(path, target="price", task="regression", left_out=["id"])
    (_, train), (_, val) = rows_of(module)
    assert module.num_classes == 1 and module.classes == [] and train.dtype == torch.float32
    assert abs(float(train.mean())) < 1e-6 and abs(float(train.std(correction=0)) - 1) < 1e-5
    prices = torch.cat([train, val]).double() * module.target_scale + module.target_mean
    np.testing.assert_allclose(sorted(prices.tolist()), [10 * k + 5 for k in range(ROWS)], atol=1e-3)


def test_the_division_is_that_of_its_seed(table):
    path, *_ = table
    first, again, other = (data(path, split_seed=seed, seed=k) for k, seed in enumerate((0, 0, 1)))
    assert torch.equal(rows_of(first)[1][0], rows_of(again)[1][0])
    assert not torch.equal(rows_of(first)[1][0], rows_of(other)[1][0])


def test_batches_are_shuffled_by_the_seed_and_hold_every_row_once(table):
    path, *_ = table
    module = data(path, left_out=["price"], batch_size=8)
    loader = module.train_dataloader()
    seen = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        seen.append(torch.cat([rows for rows, _ in loader]))
    assert not torch.equal(*seen)
    whole = rows_of(module)[0][0]
    for each in seen:
        assert torch.equal(each[each[:, 0].argsort()], whole[whole[:, 0].argsort()])


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_told(tmp_path, delimiter):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(delimiter.join(row) for row in [("a", "b"), *[(str(k), "xy"[k % 2]) for k in range(12)]]))
    assert CsvDataModule(str(path), "b").classes == ["x", "y"]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, {"target": "kid"}, r"target: .* has no column 'kid'; did you mean 'kind'"),
        (None, {"left_out": ["idd"]}, r"left_out: .* no column 'idd'"),
        (None, {"categories": ["colr"]}, r"categories: .* no column 'colr'"),
        (None, {"target": "price"}, r"class '5' of 'price' has a single row.*task: regression"),
        (None, {"task": "regression"}, r"'kind' is not all numbers"),
        (None, {"left_out": ["id", "price", "size", "colour", "code"], "categories": []}, "no column beside 'kind'"),
        (lambda text: text.replace("size", "id", 1), {}, r"names 'id' twice"),
        (lambda text: text.replace("id,", ",", 1), {}, r"a column without a name"),
        (lambda text: text + "1,2\n", {}, r"line \d+: 2 cells, the first line has 6"),
        (lambda text: "", {}, "is empty"),
        (lambda text: text.split("\n")[0], {}, "has 0 rows"),
        (lambda text: text.replace(",hen,", ",,"), {}, "row 1 has no 'kind'"),
        (lambda text: text.replace(",hen,", ',"egg, boiled",'), {}, "'egg, boiled' in every row"),
    ],
)
def test_what_is_wrong_is_named(table, change, arguments, message):
    path, *_ = table
    if change is not None:
        path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        _ = data(path, **arguments).in_channels
    assert "\n" not in str(caught.value)


def test_a_name_a_row_is_no_category(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["name,kind", *(f"n{k},{k % 2}" for k in range(200))]))
    with pytest.raises(ValueError, match="column 'name' has 160 different texts in 160 training rows"):
        _ = CsvDataModule(str(path), "kind").in_channels
    with pytest.raises(FileNotFoundError, match=r"no table 'nowhere\.csv'"):
        _ = CsvDataModule("nowhere.csv", "kind").in_channels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"task": "ranking"}, "task is 'ranking'"), ({"val_share": 1.0}, "val_share is 1.0"), ({"split_seed": -1}, "-1")],
)
def test_arguments_out_of_range(table, arguments, message):
    with pytest.raises(ValueError, match=message):
        data(table[0], **arguments)


def test_diabetes_is_that_of_scikit_learn():
    module = DiabetesDataModule()
    raw = load_diabetes(scaled=False)
    (train, targets), (val, val_targets) = rows_of(module)
    assert len(train) + len(val) == 442 and len(val) == 88 and train.shape[1] == 11  # sex is two switches
    progression = torch.cat([targets, val_targets]).double() * module.target_scale + module.target_mean
    np.testing.assert_allclose(sorted(progression.tolist()), sorted(raw.target), atol=1e-3)
    assert module.features[:3] == ["age", "sex is 1.0", "sex is 2.0"]
