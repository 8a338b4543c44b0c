import pytest
import torch
from torch import nn

from lightning_modules.networks.auxiliary import AuxiliaryHead
from lightning_modules.networks.drop_path import DropPath, set_drop_path
from search.spaces.gdas import PUBLISHED_FRC, FixedReduction
from search.spaces.head import Head


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_whole_images_are_dropped_and_the_mean_stays():
    drop, x = DropPath(), torch.ones(4000, 2, 3)
    assert drop(x) is x
    drop.probability = 0.2
    y = drop(x).flatten(1)
    assert (y == y[:, :1]).all() and set(y[:, 0].tolist()) == {0.0, 1.25}
    assert float((y[:, 0] == 0).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert drop.eval()(x) is x


def test_every_operation_of_a_cell_but_the_identity_can_be_dropped():
    space = FixedReduction()
    network = space.build(space.parse(PUBLISHED_FRC["GDAS_F1"]), Head(5), channels=4, cells=3)
    assert set_drop_path(network, 0.999999) == 3  # one for each cell
    (normal, *_) = (block.cell for block in network.blocks)
    one, two = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    first, *others = normal(one, two)
    assert torch.equal(first, one + two)  # two identities
    assert all(torch.equal(other, one) for other in others)  # an identity, and a convolution that was dropped
    assert not any(
        float(each.abs().sum()) for each in network.blocks[1].cell(one.repeat(1, 2, 1, 1), two.repeat(1, 2, 1, 1))
    )
    assert set_drop_path(nn.Linear(2, 2), 0.5) == 0


@pytest.mark.parametrize("size", [1, 2, 4, 7, 8, 12])
def test_the_auxiliary_head_takes_maps_of_any_size(size):
    head = AuxiliaryHead(8, 5, stride=2 if size == 7 else 3)
    assert head(torch.randn(3, 8, size, size)).shape == (3, 5)


def test_the_auxiliary_head_of_eight_pixels_is_the_published_one():
    head, x = AuxiliaryHead(8, 5).eval(), torch.randn(3, 8, 8, 8)
    pooled = torch.stack(
        [torch.stack([x.relu()[:, :, i : i + 5, j : j + 5].mean((2, 3)) for j in (0, 3)], -1) for i in (0, 3)], -2
    )
    torch.testing.assert_close(head(x), head.classifier(head.features(pooled).flatten(1)))
