import pytest
import torch

from search.randomness import TrialRandom
from search.spaces.head import Head
from search.spaces.hyperparameters import DecidesTraining, Hyperparameters
from search.spaces.nasbench201 import NASBench201
from search.spaces.prednet import PredNetSpace


def index(space, **chosen):
    """An architecture of first choices but for some, by name."""
    places = {decision.name.replace(" ", "_"): k for k, decision in enumerate(space.decisions)}
    architecture = [0] * len(places)
    for name, choice in chosen.items():
        decision = space.decisions[places[name]]
        architecture[places[name]] = decision.choices.index(str(choice))
    return tuple(architecture)


def test_the_published_network_belongs_to_it():
    space = PredNetSpace()
    threes = {
        name.replace(" ", "_"): 3
        for name in (d.name for d in space.decisions)
        if name[-1] in "1234" and "filter" in name
    }
    architecture = index(space, layers=4, epochs=150, batch_size=4, learning_rate=0.001, **threes)
    with torch.device("meta"):
        network = space.build(architecture, Head(0))
    assert sum(each.numel() for each in network.parameters()) == 6_915_948
    assert network.channels == (3, 48, 96, 192) and network.learning_rate == 0.001 and network.still_steps == 10
    data = {"batch_size": 4, "train_sequences": 100, "val_sequences": 100}
    assert space.training(architecture) == Hyperparameters(150, data)
    assert isinstance(space, DecidesTraining) and not isinstance(NASBench201(), DecidesTraining)
    assert space.most_epochs == 390


def test_its_choices_are_the_paper_s():
    space = PredNetSpace()
    assert dict(zip((d.name for d in space.decisions), space.sizes, strict=True)) == {
        "layers": 5,
        "channels": 1,
        **{f"target filter {layer}": 8 for layer in range(2, 7)},
        **{f"{kind} filter {layer}": 8 for kind in ("prediction", "representation") for layer in range(1, 7)},
        "epochs": 39,
        "batch size": 4,
        "training sequences": 19,
        "validation sequences": 19,
        "learning rate": 5,
    }


def test_filters_of_layers_that_are_not_there_are_fixed():
    space = PredNetSpace(layers=[2, 4])
    names = [decision.name for decision in space.decisions]
    archs = space.sample(TrialRandom(0), 200)[0]
    shallow, deep = archs[archs[:, 0] == 0], archs[archs[:, 0] == 1]
    above = [k for k, name in enumerate(names) if "filter" in name and name[-1] in "34"]
    there = [k for k, name in enumerate(names) if "filter" in name and name[-1] in "12"]
    assert len(above) == 6 and len(there) == 5
    assert not shallow[:, above].any() and all(shallow[:, k].unique().numel() == 8 for k in there)
    assert all(deep[:, k].unique().numel() == 8 for k in above)


def test_every_filter_has_the_size_that_was_chosen_for_it():
    space = PredNetSpace(layers=[2, 3], channels=[4], filters=[1, 2, 3, 4, 5, 6, 7, 8])
    chosen = {"target_filter_2": 2, "target_filter_3": 3, "prediction_filter_1": 4, "prediction_filter_2": 5}
    chosen |= {"prediction_filter_3": 6, "representation_filter_1": 7, "representation_filter_2": 8}
    network = space.build(index(space, layers=3, representation_filter_3=1, **chosen), Head(0, in_channels=1))
    assert network.channels == (1, 4, 8)
    sides = [[each.kernel_size[0] for each in part] for part in (network.targets, network.predictions, network.lstms)]
    assert sides == [[2, 3], [4, 5, 6], [7, 8, 1]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"layers": []}, r"layers is \[\]"),
        ({"filters": [3, 3]}, "filters"),
        ({"learning_rates": [0.0]}, "learning rate"),
    ],
)
def test_nothing_to_choose_from_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        PredNetSpace(**arguments)
