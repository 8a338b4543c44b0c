"""NAS-FPN's pyramids: the size of the space, the published cells, and mmdet's own neck as the measure."""

import math

import pytest
import torch
from torch import nn

from lightning_modules.networks.merging_cells import PUBLISHED, MergingCell, MergingCellFPN, resized, unread_maps
from lightning_modules.openmmlab import scope
from search.spaces.nas_fpn import NASFPN, PUBLISHED_STRING

SPACE = NASFPN()
RESNET50 = [256, 512, 1024, 2048]


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def theirs(channels=256, repeats=7, in_channels=RESNET50):
    with scope("mmdet"):
        from mmdet.models.necks import NASFPN as Theirs

        return Theirs(list(in_channels), channels, 5, repeats, start_level=1, norm_cfg={"type": "BN"})


def test_the_space_has_as_many_architectures_as_its_rules_allow():
    reads = math.prod(math.comb(5 + cell, 2) for cell in range(7))
    size = reads * 2**7 * 5**2 * math.factorial(5)
    assert len(SPACE.decisions) == 21 and math.isclose(size, 3.0e15, rel_tol=0.01)
    level = [decision.name for decision in SPACE.decisions].index("cell 5 level")
    prefix = torch.tensor(SPACE.of_cells(PUBLISHED)[:level])
    # Cells 3 and 4 have made P3 and P4; what cells 1 and 2 made binds nobody.
    assert SPACE.valid_choices(prefix).tolist() == [False, False, True, True, True]


def test_the_published_pyramid_is_a_point_of_the_space():
    assert SPACE.format(SPACE.of_cells(PUBLISHED)) == PUBLISHED_STRING
    assert tuple(SPACE.cells(SPACE.parse(PUBLISHED_STRING))) == PUBLISHED
    assert unread_maps(PUBLISHED) == [[], [], [], [], [2], [4], []]
    for wrong, words in {
        "P4=max(1,3)": "must read as in",
        "P4=sum(3,1)": "in ascending order",
        "P4=sum(0,5)": "reads 0",
    }.items():
        with pytest.raises(ValueError, match=words):
            SPACE.parse(PUBLISHED_STRING.replace("P4=attention(1,3)", wrong))
    with pytest.raises(ValueError, match="cell 7 level"):
        SPACE.parse(PUBLISHED_STRING.replace("P6=", "P5="))


def test_the_published_neck_has_its_number_of_weights():
    with torch.device("meta"):
        ours = MergingCellFPN(RESNET50, form="mmdet")
        assert count(ours) == count(theirs()) == 29_990_144
        assert count(MergingCellFPN(RESNET50)) == 29_858_816
    # Biases of convolutions that normalisation follows; counts that leave them out have 29,977,600.
    biases = [each.bias for each in ours.modules() if isinstance(each, nn.Conv2d) and each.bias is not None]
    assert count(ours) - sum(each.numel() for each in biases) == 29_977_600


@pytest.mark.parametrize("size", [(16, 24), (20, 28)])  # of the map at stride 8: windows that fit, and that do not
def test_with_the_same_weights_it_computes_what_mmdets_neck_computes(size):
    torch.manual_seed(0)
    channels = [6, 8, 10, 12]
    other, neck = theirs(8, 2, channels).eval(), MergingCellFPN(channels, 8, stack_times=2, form="mmdet").eval()
    weights = list(other.state_dict().values())
    with torch.no_grad():
        for value in weights:
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    mine = neck.state_dict()
    assert [each.shape for each in mine.values()] == [each.shape for each in weights]
    neck.load_state_dict(dict(zip(mine, weights, strict=True)))
    height, width = size
    maps = [torch.randn(2, each, 2 * height // 2**k, 2 * width // 2**k) for k, each in enumerate(channels)]
    for one, two in zip(neck(maps), other(maps), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_published_attention_weighs_the_finer_map_by_the_coarser_ones_maximum():
    torch.manual_seed(0)
    cells = tuple(MergingCell(0, 2, level, "sum") for level in (3, 4, 5, 6, 7))
    cells = (MergingCell(0, 2, 4, "attention"), MergingCell(1, 5, 4, "attention"), *cells)
    pyramid = MergingCellFPN([4, 4, 4], 4, stack_times=1, start_level=0, cells=cells).pyramids[0].eval()
    maps = [torch.randn(1, 4, 16 // 2**k, 16 // 2**k) for k in range(5)]
    made = []
    pyramid.convolutions[1].register_forward_hook(lambda module, inputs, output: made.append((inputs[0], output)))
    pyramid.convolutions[0].register_forward_hook(lambda module, inputs, output: made.append((inputs[0], output)))
    pyramid(maps)
    fine = torch.nn.functional.max_pool2d(maps[0], 2)
    coarse = maps[2].repeat_interleave(2, -1).repeat_interleave(2, -2)
    expected = coarse + fine * coarse.amax((2, 3), keepdim=True).sigmoid()
    torch.testing.assert_close(made[0][0], expected)
    # Of two maps of one level the first counts as the coarser.
    expected = maps[1] + made[0][1] * maps[1].amax((2, 3), keepdim=True).sigmoid()
    torch.testing.assert_close(made[1][0], expected)


def test_it_can_be_read_behind_any_repeat():
    torch.manual_seed(0)
    neck = MergingCellFPN([4, 4, 4, 4], 4, stack_times=3, anytime=True).eval()
    maps = [torch.randn(1, 4, 32 // 2**k, 32 // 2**k) for k in range(4)]
    levels = neck.levels(maps)
    for repeats, pyramid in enumerate(neck.pyramids, start=1):
        levels, neck.read_after = pyramid(levels), repeats
        assert all(torch.equal(one, two) for one, two in zip(neck(maps), levels, strict=True))
    # In training each is read in turn, at random.
    run = []
    for number, pyramid in enumerate(neck.pyramids):
        pyramid.register_forward_hook(lambda *_, number=number: run.append(number))
    neck.train()
    for _ in range(60):
        neck([each.expand(2, -1, -1, -1) for each in maps])
    assert run.count(0) == 60 > run.count(1) > run.count(2) > 5


def test_maps_become_larger_by_repetition_and_smaller_by_maxima():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert resized(x, (4, 6))[0, 0].tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert resized(x, (1, 1)).item() == 5 and resized(x, (2, 3)) is x


def test_what_makes_no_pyramid_is_refused():
    with pytest.raises(ValueError, match="makes 5 levels of 1 to 5 maps"):
        MergingCellFPN([4] * 8)
    with pytest.raises(ValueError, match="one map each of the levels"):
        MergingCellFPN([4] * 4, cells=PUBLISHED[:-1])
    with pytest.raises(ValueError, match="cell 0 is"):
        MergingCellFPN([4] * 4, cells=[(3, 1, 4, "sum"), *PUBLISHED[1:]])
    with pytest.raises(ValueError, match="'max' is not one of sum, attention"):
        MergingCellFPN([4] * 4, cells=[(1, 3, 4, "max"), *PUBLISHED[1:]])
