"""Drawing meta-training tasks out of table columns."""

import collections

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from search.spaces.base import Decision, SearchSpace
from search.tables.table import write_table
from search.tasks.base import TaskPool
from search.tasks.table_pool import TableColumn, TablePool
from tests.search.evaluating import evaluate


class Toy(SearchSpace):
    name = "toy"
    decisions = (Decision("a", ("x", "y")),)

    def build(self, architecture, **head):
        raise NotImplementedError


@pytest.fixture
def columns(tmp_path):
    values = {f"d{k}_val_acc_12ep": np.array([k, k + 0.5]) for k in range(5)}
    path = str(write_table(tmp_path / "t.npz", np.array([[0], [1]]), values, "toy"))
    return [TableColumn(path, f"d{k}", "val", "acc", 12) for k in range(5)]


def test_every_column_comes_up_evenly(columns):
    pool = TablePool(Toy(), columns)
    drawn = [pool.draw(index, seed=3).column for index in range(50)]
    assert set(collections.Counter(drawn).values()) == {10}
    rounds = [tuple(drawn[k : k + 5]) for k in range(0, 50, 5)]
    assert all(len(set(each)) == 5 for each in rounds) and len(set(rounds)) > 5


def test_a_draw_depends_on_nothing_but_index_and_seed(columns):
    forwards, backwards = TablePool(Toy(), columns), TablePool(Toy(), columns)
    want = [forwards.draw(index, seed=1).column for index in range(12)]
    assert [backwards.draw(index, seed=1).column for index in reversed(range(12))] == want[::-1]
    assert [forwards.draw(index, seed=2).column for index in range(12)] != want


def test_the_task_is_of_the_column(columns):
    pool = TablePool(Toy(), columns)
    for index in range(5):
        task = pool.draw(index, seed=0)
        k = int(task.column[1])
        assert [evaluate(task, (choice,), 0).score for choice in (0, 1)] == [k, k + 0.5]
        assert pool.describe(index, seed=0) == f"{columns[k].table}: {task.column}"
        assert pool.draw(index, seed=0) is task


def test_no_column(columns):
    with pytest.raises(ValueError, match="'tasks' is empty"):
        TablePool(Toy(), [])


def test_a_wrong_column_is_found_at_once(columns):
    with pytest.raises(ValueError, match="d7_val_acc_12ep"):
        TablePool(Toy(), [*columns, TableColumn(columns[0].table, "d7", "val", "acc", 12)])


def test_a_recipe_gives_columns_as_mappings(columns):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TaskPool, "pool")
    mapping = {"table": columns[0].table, "dataset": "d0", "split": "val", "metric": "acc", "epochs": 12}
    space = {"class_path": f"{Toy.__module__}.Toy"}
    recipe = {"class_path": "search.tasks.table_pool.TablePool", "init_args": {"space": space, "tasks": [mapping]}}
    pool = parser.instantiate(parser.parse_object({"pool": recipe})).pool
    assert pool.tasks == (columns[0],)
    assert TablePool(Toy(), [mapping]).tasks == (columns[0],)
