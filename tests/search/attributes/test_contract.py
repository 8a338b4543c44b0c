"""What every attribute promises, on every space that it takes. A new one is covered the moment its file exists."""

import functools

import pytest
import torch

from search.attributes.base import Attribute
from search.attributes.latency_table import TableLatency
from search.attributes.network import NetworkAttribute
from search.attributes.proxy import Proxy
from search.contracts import attribute as contract
from search.contracts import space as space_contract
from search.randomness import TrialRandom
from search.recipes.catalogue import find_classes
from search.spaces.base import SearchSpace
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201

ATTRIBUTES = find_classes("search.attributes", Attribute)
SPACES = find_classes("search.spaces", SearchSpace)
OF_ONE_SPACE = {"TableLatency", "FewShotLatency", "TableColumn", "CombinedRanks"}


def spaces_of(name, kind):
    """Proxies compute, which takes its time: on other spaces they are measured together, in test_proxies.py."""
    if (own := kind.toy_space()) is not None:
        return [type(own).__name__]
    if name in OF_ONE_SPACE or issubclass(kind, Proxy):
        return ["NASBench201"]
    return [each for each, space in SPACES.items() if not (space.reads_text and getattr(kind, "shows_images", False))]


PAIRS = [(attribute, space) for attribute, kind in ATTRIBUTES.items() for space in spaces_of(attribute, kind)]
CHECKS = contract.CONTRACT.checks


ANY_SPACE = [attribute for attribute in ATTRIBUTES if len(spaces_of(attribute, ATTRIBUTES[attribute])) > 1]


def checks_of(attribute_name, space_name):
    """All of them on NAS-Bench-201, an attribute's own space and those of text; on each other one a third, in turn.

    So every two of attribute, space and check meet.
    """
    if attribute_name not in ANY_SPACE or space_name == "NASBench201" or SPACES[space_name].reads_text:
        return CHECKS
    turn = ANY_SPACE.index(attribute_name) + list(SPACES).index(space_name)
    return [check for c, check in enumerate(CHECKS) if (turn + c) % 3 == 0]


@functools.cache
def space_of(name):
    return space_contract.subjects(SPACES[name])[0].space


@functools.cache
def subject_of(attribute_name, space_name):
    return contract.subjects(ATTRIBUTES[attribute_name], {space_name: space_of(space_name)})[0]


def make(attribute_name, space):
    return contract.subjects(ATTRIBUTES[attribute_name], {space.name: space})[0].attribute()


def some(space, n=2):
    return space.sample(TrialRandom(3), n)[0]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Files that an attribute keeps go into the current folder."""
    monkeypatch.chdir(tmp_path)


def test_there_are_attributes():
    assert {"Parameters", "Flops", "TableLatency", "OperatorLatency", "Synflow", "CombinedRanks"} <= set(ATTRIBUTES)
    assert all(kind.__doc__ for kind in ATTRIBUTES.values())


@pytest.mark.parametrize(("attribute_name", "space_name"), PAIRS)
def test_every_promise_is_kept(attribute_name, space_name):
    for check in checks_of(attribute_name, space_name):
        check(subject_of(attribute_name, space_name))


def test_every_two_of_attribute_space_and_check_meet():
    met = [(*pair, check) for pair in PAIRS for check in checks_of(*pair)]
    assert {each[:2] for each in met} == set(PAIRS)
    assert {each[::2] for each in met} == {(attribute, check) for attribute in ATTRIBUTES for check in CHECKS}
    assert {each[1:] for each in met} == {(space, check) for _, space in PAIRS for check in CHECKS}


class Counting(Attribute):
    """How often it was asked."""

    name = "times asked"

    def __init__(self, space):
        super().__init__(space)
        self.asked = []

    def measure(self, architectures):
        self.asked += architectures
        return [float(len(self.asked))] * len(architectures)


def test_a_network_is_measured_once_however_it_is_written():
    space = NASBench101()
    archs = space.sample(TrialRandom(0), 200)[0]
    canonical = space.canonical(archs)
    twin = next(k for k in range(200) if (archs[k] != canonical[k]).any())
    attribute = Counting(space)
    pair = torch.stack([archs[twin], canonical[twin]])
    assert attribute.values(pair).tolist() == [1.0, 1.0] and attribute.asked == [tuple(canonical[twin].tolist())]
    attribute.values(torch.cat([pair, pair]))
    assert len(attribute.asked) == 1
    attribute = Counting(space)
    attribute.remember(tuple(archs[twin].tolist()), 7.5)
    assert attribute.values(pair).tolist() == [7.5, 7.5] and not attribute.asked


def test_too_few_values_are_refused():
    class Short(Counting):
        def measure(self, architectures):
            return [1.0]

    with pytest.raises(ValueError, match="shorter"):
        Short(NASBench201()).values(torch.zeros(2, 6, dtype=torch.long) + torch.tensor([[0], [1]]))


# ---- their values --------------------------------------------------------------------------------------------------


def test_sizes_are_those_that_the_benchmark_published(real_data):
    from search.tables.table import read_columns

    space = NASBench201()
    table = read_columns(real_data("nasbench201.npz"), ["params_m", "flops_m"])
    rows = [0, 857, 6111, 9930]
    archs = torch.from_numpy(table.arch[rows]).long()
    parameters = ATTRIBUTES["Parameters"](space).values(archs)
    flops = ATTRIBUTES["Flops"](space, unused=True).values(archs)
    assert parameters.tolist() == pytest.approx((1e6 * table.columns["params_m"][rows]).tolist(), rel=1e-5)
    assert flops.tolist() == pytest.approx((1e6 * table.columns["flops_m"][rows]).tolist(), rel=1e-4)


def test_a_table_latency_is_the_table_s(real_data):
    import numpy as np

    space = NASBench201()
    with np.load(real_data("nasbench201_latency.npz")) as arrays:
        devices, latency = list(arrays["devices"]), arrays["latency_ms"]
    archs = some(space, 5)
    expected = [latency[space.index(tuple(arch)), devices.index("fpga")] for arch in archs.tolist()]
    assert TableLatency(space, "fpga").values(archs).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"no device 'fgpa'.*'fpga'"):
        TableLatency(space, "fgpa")
    with pytest.raises(ValueError, match="its latencies are of the space"):
        TableLatency(NASBench101(), "fpga")


def test_an_operator_latency_is_measured_once_and_then_looked_up(tmp_path):
    space = NASBench201()
    made, file = ATTRIBUTES["OperatorLatency"], tmp_path / "mine.json"
    settings = made.toy()["settings"]
    archs = torch.tensor([[3] * 6, [2] * 6, [3, 1, 0, 1, 0, 1]])
    values, written = made(space, str(file), settings=settings).values(archs), file.read_bytes()
    assert torch.equal(made(space, str(file), settings=settings).values(archs), values)
    assert file.read_bytes() == written
    with pytest.raises(ValueError, match="lookup: there is no folder"):
        made(space, str(tmp_path / "nowhere" / "a.json"))


def test_a_toy_leaves_nothing_where_it_is_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = NASBench201()
    values = [make("OperatorLatency", space).values(torch.tensor([[3] * 6])) for _ in range(2)]
    assert torch.equal(*values) and not list(tmp_path.iterdir())


class GradientNorm(NetworkAttribute):
    """The norm of the loss's gradient on one batch, as a stranger's file would have it."""

    name = "gradient norm"

    def read(self, network):
        images, labels = self.batch()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        return float(sum(parameter.grad.square().sum() for parameter in network.parameters()).sqrt())


def test_an_attribute_may_need_data_a_seed_and_a_device():
    from datamodules.digits import DigitsDataModule

    space, archs = NASBench201(), torch.tensor([[3] * 6, [2] * 6])
    build = {"num_classes": 10, "in_channels": 1, "channels": 4, "cells": 1}

    def norms(seed, archs):
        return GradientNorm(space, build, seed, "cpu", DigitsDataModule(batch_size=16)).values(archs)

    one = norms(0, archs)
    assert torch.equal(one.flip(0), norms(0, archs.flip(0)))  # neither order nor what came before matters
    assert (one != norms(1, archs)).all() and (one > 0).all()
    with pytest.raises(ValueError, match="GradientNorm needs a batch: name 'data'"):
        GradientNorm(space, build, device="cpu").values(archs)
