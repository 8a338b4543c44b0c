from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from datamodules.arrays import ArrayDataModule
from datamodules.digits import DigitsDataModule
from search.evaluation import Proposal
from search.spaces.base import SearchSpace
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201
from search.tasks.base import TaskPool
from search.tasks.subtask_pool import SubtaskPool

BUILD = {"channels": 4, "cells": 1}


def make_pool(**arguments):
    settings = {
        "classes": [3, 5],
        "resolutions": [8, 12],
        "epochs": 1,
        "build": BUILD,
        "trainer": {"accelerator": "cpu"},
    }
    return SubtaskPool(NASBench201(), DigitsDataModule(batch_size=64), **(settings | arguments))


def test_a_task_is_a_pure_function_of_index_and_seed():
    pool, other = make_pool(examples_per_class=20), make_pool(examples_per_class=20)
    other.draw(3, 1)  # what was drawn before must not matter
    a, b = pool.draw(7, 1).data.arrays, other.draw(7, 1).data.arrays
    assert a.name == b.name == pool.describe(7, 1)
    np.testing.assert_array_equal(a.train_images, b.train_images)
    np.testing.assert_array_equal(a.val_labels, b.val_labels)
    assert len({pool.describe(index, 1) for index in range(10)}) > 8
    assert pool.describe(0, 1) != pool.describe(0, 2)


def test_numbers_classes_and_resolutions_are_drawn_evenly():
    pool = make_pool()
    texts = [pool.describe(index, 0) for index in range(400)]
    counts = Counter(text.split()[0] for text in texts)
    resolutions = Counter(text.split()[-1] for text in texts)
    assert set(counts) == {"3", "5"} and set(resolutions) == {"8x8", "12x12"}
    # 400 fair coins: 200 +- 5 standard deviations of 10
    assert 150 < counts["3"] < 250 and 150 < resolutions["8x8"] < 250
    members = Counter(name for text in texts for name in text[text.index("(") + 1 : text.index(")")].split(", "))
    # 160 of each expected, standard deviation below 10
    assert len(members) == 10 and all(110 < count < 210 for count in members.values())


def test_description_and_data_agree():
    pool = make_pool(examples_per_class=15)
    for index in range(6):
        text, arrays = pool.describe(index, 4), pool.draw(index, 4).data.arrays
        names = ", ".join(arrays.classes)
        assert text == f"{arrays.num_classes} classes ({names}) of digits at {arrays.resolution}x{arrays.resolution}"
        assert np.bincount(arrays.train_labels).tolist() == [15] * arrays.num_classes


def test_a_drawn_task_trains_with_the_settings_of_its_pool():
    pool = make_pool(classes=[3], resolutions=[12])
    task = pool.draw(0, 0)
    assert task.data.batch_size == 64 and not task.data.flip and task.epochs == 1
    network = task.space.build((3,) * 6, Head(3, 1), **BUILD)
    evaluation = task.evaluate_one(Proposal((3,) * 6))
    assert evaluation.status == "ok"
    assert evaluation.metrics["parameters"] == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": []}, r"classes is \[\]"),
        ({"classes": [1, 5]}, r"classes is \[1, 5\], one or more numbers of at least 2"),
        ({"resolutions": []}, r"resolutions is \[\]"),
        ({"resolutions": [0]}, r"resolutions is \[0\]"),
        ({"examples_per_class": 0}, "examples_per_class is 0"),
    ],
)
def test_impossible_pools_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_pool(**arguments)


def test_more_classes_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"classes is \[5, 11\], but digits has only 10 classes"):
        make_pool(classes=[5, 11])


def test_images_that_are_not_there_are_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no images '.*absent\.npz'"):
        SubtaskPool(NASBench201(), ArrayDataModule(tmp_path / "absent.npz"), classes=[5], resolutions=[8])


def test_a_recipe_names_the_pool_and_its_data():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--pool", type=Callable[[SearchSpace], TaskPool])
    config = parser.parse_object(
        {
            "pool": {
                "class_path": "search.tasks.subtask_pool.SubtaskPool",
                "init_args": {
                    "data": {"class_path": "datamodules.digits.DigitsDataModule", "init_args": {"batch_size": 32}},
                    "classes": [3, 5],
                    "resolutions": [8],
                    "module": {
                        "class_path": "lightning_modules.classification.ClassificationModule",
                        "init_args": {"learning_rate": 0.05},
                    },
                    "build": BUILD,
                    "epochs": 2,
                },
            }
        }
    )
    pool = parser.instantiate(config).pool(NASBench201())
    assert isinstance(pool, SubtaskPool) and pool.classes == [3, 5]
    task = pool.draw(0, 0)
    assert task.epochs == 2 and task.data.batch_size == 32 and task.data.num_classes in (3, 5)
