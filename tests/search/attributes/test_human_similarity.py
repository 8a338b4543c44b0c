import pytest
import torch

from datamodules.stimuli import load_stimuli
from lightning_modules.similarity import human_model_similarity
from search.attributes.human_similarity import HumanSimilarity
from search.randomness import derive_seed
from search.spaces.nasbench201 import NASBench201
from search.spaces.prednet import PredNetSpace

ARCHS = torch.tensor([[3] * 6, [2, 3, 1, 3, 0, 3], [0] * 6])
BUILD = {"channels": 4, "cells": 1, "num_classes": 10}


def test_it_is_that_of_the_features_before_the_classifier():
    space = NASBench201()
    found = HumanSimilarity(space, BUILD, stimuli="digits").values(ARCHS)
    stimuli, features = load_stimuli("digits"), []
    torch.manual_seed(derive_seed(0, *ARCHS[0].tolist()))
    network = space.build_from(tuple(ARCHS[0].tolist()), BUILD)
    linear = next(each for each in network.modules() if isinstance(each, torch.nn.Linear))
    linear.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach()))
    network(stimuli.batch(32, 32))
    assert found[0] == pytest.approx(human_model_similarity(features[0], stimuli.reference), abs=1e-9)
    assert found[0] != found[1] and (found.abs() <= 1).all()
    assert found[2] == pytest.approx(0, abs=0.5)  # of a network without any path something is known all the same


def test_it_may_look_at_a_prednet_in_any_size():
    space = PredNetSpace(**PredNetSpace.toy())
    archs = torch.tensor([space.draw("prednet", k) for k in range(2)])
    small, large = (
        HumanSimilarity(space, space.toy_build(), stimuli="digits", size=size).values(archs) for size in ([8, 8], None)
    )
    assert small.isfinite().all() and large.isfinite().all() and (small != large).any()
    with pytest.raises(ValueError, match="size is"):
        HumanSimilarity(space, stimuli="digits", size=[0, 8])


def test_untrained_networks_are_below_the_ceiling_of_people(real_data):
    path = str(real_data("human_it_92.npz"))
    found = HumanSimilarity(NASBench201(), BUILD, stimuli=path).values(ARCHS[:2])
    assert (found < 0.37).all() and (found > -0.2).all()
