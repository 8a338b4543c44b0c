"""Images that a space can't take are refused before anything is trained, in a line that names what it takes."""

import pytest
import torch
from torch import nn

from datamodules.digits import DigitsDataModule
from search.errors import CatchmarkError
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.spaces.base import Decision, SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.tasks.image_sizes import check_image_size
from search.tasks.subtask_pool import SubtaskPool
from search.tasks.trained import TrainedTask

built = []


class Whole(nn.Module):
    """Pools without padding, so that small images vanish."""

    def __init__(self, head, pools):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(head.in_channels, 4, 3), *[nn.MaxPool2d(2) for _ in range(pools)])
        self.output = nn.Linear(4, head.classes)

    def forward(self, images):
        return self.output(self.body(images).mean((2, 3)))


class Pooling(SearchSpace):
    """One to three poolings: images of 3 x 3 + 2 x 7 = 10 pixels are the smallest that all take."""

    name = "pooling"
    decisions = (Decision("pools", ("1", "2", "3")),)

    def build(self, architecture, head):
        built.append(self)
        return Whole(head, 1 + self.check(architecture)[0])


class Even(Pooling):
    """Of sides that four divides."""

    image_multiple = 4


ARGUMENTS = {"num_classes": 10, "in_channels": 1}


def refusal(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_small_images_are_refused_with_the_size_that_is_taken():
    said = refusal(lambda: TrainedTask(Pooling(), DigitsDataModule(resolution=8)))
    assert "pooling: networks take no images of 8x8 pixels" in said and "12x12 are taken" in said
    TrainedTask(Pooling(), DigitsDataModule(resolution=12))
    said = refusal(lambda: SubtaskPool(Pooling(), DigitsDataModule(), [2], [16, 8]))
    assert "no images of 8x8" in said


def test_sides_must_be_multiples():
    said = refusal(lambda: check_image_size(Even(), (16, 18), ARGUMENTS))
    assert "no images of 18x16 pixels; height and width must be multiples of 4" in said
    assert "12x12 are taken" in refusal(lambda: check_image_size(Even(), (4, 8), ARGUMENTS))
    check_image_size(Even(), (12, 16), ARGUMENTS)


def test_random_states_stay_and_large_images_are_not_tried():
    space, before = Pooling(), torch.random.get_rng_state()
    check_image_size(space, (30, 31), ARGUMENTS)
    assert space in built and torch.equal(torch.random.get_rng_state(), before)
    built.clear()
    check_image_size(space, (128, 128), ARGUMENTS)
    assert not built
    first, second = Pooling(), Pooling()
    for each in (first, second):
        check_image_size(each, (29, 29), ARGUMENTS)
    assert first in built and second not in built  # it is known of another that is alike
    check_image_size(NASBench201(), (1, 1), {"num_classes": 10, "in_channels": 3})  # padded everywhere


def test_what_cannot_be_tried_is_let_be():
    class Odd(Pooling):
        def build(self, architecture, head):
            raise RuntimeError("it needs more than that")

    check_image_size(Odd(), (8, 8), ARGUMENTS)


def test_a_recipe_is_refused_when_it_is_read(tmp_path):
    data = {"class_path": "DigitsDataModule", "init_args": {"resolution": 8}}
    recipe = {
        "space": "DepthFusion",
        "targets": {"digits": {"class_path": "TrainedTask", "init_args": {"data": data}}},
        "agents": {"random": "RandomSearch"},
    }
    (tmp_path / "r.yaml").write_text(dump_yaml(recipe))
    with pytest.raises(CatchmarkError, match=r"no images of 8x8 pixels; .* multiples of 32") as caught:
        load_recipe(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)
