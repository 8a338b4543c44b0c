import itertools
import math
import re

import pytest
import torch

from search.randomness import TrialRandom
from search.spaces.head import Head
from search.spaces.residual_backbone import ResidualBackbone

CLASSIC = {
    "resnet18": ("basicblock_64_11-21-21-21", 11_689_512),
    "resnet34": ("basicblock_64_111-2111-211111-211", 21_797_672),
    "resnet50": ("bottleneck_64_111-2111-211111-211", 25_557_032),
    "resnet101": ("bottleneck_64_111-2111-2" + 22 * "1" + "-211", 44_549_160),
}
SMALL = {
    "base_channels": (8, 12, 16, 24),
    "depths": (4, 5, 6, 8, 10),
    "blocks_per_stage": (1, 2, 3),
    "stem": "small",
    "stem_stride": 2,
}
"""For images of 64 pixels on two cores."""
TOY = {"block_types": ("basicblock",), "base_channels": (4, 6), "depths": (4, 5, 6), "blocks_per_stage": (1, 2)}


def read(text):
    """Stages of a string as lists of (digit, how often the channels have doubled), written independently."""
    code, stages, doublings = text.split("_")[2], [[]], 0
    for k, letter in enumerate(code):
        if letter == "-":
            assert code[k + 1] in "12"
            doublings += 1
            continue
        if letter == "2":
            stages.append([])
        stages[-1].append((letter, doublings))
    return stages


def legal_strings(space):
    """Every string of a space, by brute force over all strings of digits and doublings."""
    found = set()
    for depth in space.depths:
        for digits in itertools.product("12", repeat=depth - 1):
            for doubled in itertools.product((0, 1), repeat=depth - 1):
                if sum(doubled) not in space.doublings or 1 + digits.count("2") not in space.stages:
                    continue
                code = "1" + "".join("-" * d + digit for digit, d in zip(digits, doubled, strict=True))
                stages = read(f"x_1_{code}")
                sizes = [len(stage) for stage in stages]
                if not all(size in space.blocks_per_stage for k, size in enumerate(sizes) if k != 2):
                    continue
                before, good = 0, True
                for number, stage in enumerate(stages, start=1):
                    steps = []
                    for position, (_, total) in enumerate(stage):
                        if total > before:
                            steps.append(position)
                        before = total
                    good &= set(steps) <= {0, math.ceil(len(stage) / 2)} and before <= number
                if good:
                    found.add(code)
    return {f"{block}_{base}_{code}" for block in space.block_types for base in space.base_channels for code in found}


@pytest.fixture(scope="module")
def space():
    return ResidualBackbone()


def some(space, n, seed=0):
    return [tuple(arch) for arch in space.sample(TrialRandom(seed), n)[0].tolist()]


# ---- known networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_resnets_belong_to_the_space(space, name):
    text, parameters = CLASSIC[name]
    arch = space.parse(text)
    assert space.format(arch) == text
    with torch.device("meta"):
        network = space.build(arch, Head(1000))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network.backbone.strides == (4, 8, 16, 32) and network.num_classes == 1000


def test_a_network_of_five_stages_that_doubles_where_it_likes(space):
    text = "bottleneck_48_11-1211-21-12-21"
    arch = space.parse(text)
    layout = space.layout(arch)
    assert layout.blocks == (3, 3, 3, 1, 2) and space.format(arch) == text
    assert layout.widths == ((48, 48, 96), (96, 96, 96), (192, 192, 384), (384,), (768, 768))
    with torch.device("meta"):
        backbone = space.build(arch).backbone
    assert backbone.channels == (384, 384, 1536, 1536, 3072) and backbone.strides == (4, 8, 16, 32, 64)
    assert [(edge.source, edge.target, edge.label) for edge in space.diagram(arch)] == [
        ("in", "stem", "48 channels"),
        ("stem", "stage 1 (1/4)", "bottleneck 2 x 48, 1 x 96"),
        ("stage 1 (1/4)", "stage 2 (1/8)", "3 x 96"),
        ("stage 2 (1/8)", "stage 3 (1/16)", "2 x 192, 1 x 384"),
        ("stage 3 (1/16)", "stage 4 (1/32)", "1 x 384"),
        ("stage 4 (1/32)", "stage 5 (1/64)", "2 x 768"),
    ]


def test_a_code_recalled_from_sm_nas_can_be_read():
    text = "basicblock_64_1-21-21-12"
    space = ResidualBackbone(depths=(7, 8))
    assert space.format(space.parse(text)) == text


# ---- which architectures there are -----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"stages": (4,)}, {"stages": (5,), "depths": (5, 6)}, {"doublings": (2, 4, 5)}])
def test_a_toy_space_holds_every_string_that_the_rules_allow(more):
    space = ResidualBackbone(**TOY | more)
    architectures = list(space.enumerate())
    texts = [space.format(arch) for arch in architectures]
    assert len(set(texts)) == len(texts) > 50
    assert set(texts) == legal_strings(space)
    assert [space.parse(text) for text in texts] == architectures


def test_the_docstring_says_the_size_of_the_space(space):
    """Counted by the patterns of stages that have one block or more, apart from how the mask does it."""

    def places(several):
        count = 0
        for chosen in itertools.product(*[((), (0,), (1,), (0, 1))] * len(several)):
            total, good = 0, True
            for number, (steps, many) in enumerate(zip(chosen, several, strict=True), start=1):
                good &= (many or 1 not in steps) and not (number == 1 and 0 in steps)
                total += len(steps)
                good &= total <= number
            count += good and total in (3, 4)
        return count

    patterns = {
        pattern: places(pattern) for stages in (4, 5) for pattern in itertools.product((False, True), repeat=stages)
    }
    size = 0
    for depth in space.depths:
        for stages in space.stages:
            for counts in itertools.product(space.blocks_per_stage, repeat=stages - 1):
                blocks = (*counts[:2], depth - sum(counts), *counts[2:])
                if blocks[2] >= 1:
                    size += patterns[tuple(block > 1 for block in blocks)]
    size *= len(space.block_types) * len(space.base_channels)
    assert f"{size:,} architectures" in ResidualBackbone.__doc__


@pytest.mark.parametrize("arguments", [{}, SMALL])
def test_random_architectures_obey_the_rules_and_are_read_back(arguments):
    space = ResidualBackbone(**arguments)
    seen = set()
    for arch in some(space, 300):
        text = space.format(arch)
        stages = read(text)
        assert space.parse(text) == arch
        assert sum(map(len, stages)) in space.depths and len(stages) in space.stages
        assert all(len(stage) in space.blocks_per_stage for k, stage in enumerate(stages) if k != 2)
        assert stages[-1][-1][1] in space.doublings
        assert all(stage[-1][1] <= number for number, stage in enumerate(stages, start=1))
        layout = space.layout(arch)
        assert layout.widths == tuple(
            tuple(layout.base_channels * 2**doublings for _, doublings in stage) for stage in stages
        )
        seen.add((len(stages), stages[-1][-1][1]))
    assert seen == {(4, 3), (4, 4), (5, 3), (5, 4)}


@pytest.mark.parametrize("arguments", [{}, SMALL, TOY])
def test_no_prefix_is_a_dead_end(arguments):
    """Whatever valid choices are made, the last ones or the first ones included, the next decision has one."""
    space = ResidualBackbone(**arguments)
    for pick in (lambda valid: valid.long().argmax(-1), lambda valid: _last(valid)):
        prefix = torch.cartesian_prod(*(torch.arange(size) for size in space.sizes[:4]))
        for t in range(len(space.sizes)):
            if t < 4:
                valid = space.valid_choices(prefix[:, :t])
                prefix = prefix[valid.gather(-1, prefix[:, t : t + 1]).squeeze(-1)]
                continue
            valid = space.valid_choices(prefix[:, :t])
            assert valid.any(-1).all()
            prefix = torch.cat([prefix[:, :t], pick(valid).unsqueeze(-1)], -1)
        assert space.is_valid(prefix).all() and len(prefix) > 0


def _last(valid):
    return valid.shape[-1] - 1 - valid.flip(-1).long().argmax(-1)


def test_the_mask_is_the_same_for_one_prefix_and_for_many():
    space = ResidualBackbone(**SMALL)
    archs = space.sample(TrialRandom(4, trials=2), 15)
    for t in range(len(space.sizes) + 1)[:-1]:
        together = space.valid_choices(archs[..., :t])
        for trial, k in itertools.product(range(2), range(15)):
            assert torch.equal(space.valid_choices(archs[trial, k, :t]), together[trial, k])


def test_every_valid_architecture_is_within_mutations_of_every_other():
    space = ResidualBackbone(**TOY)
    everything = set(space.enumerate())
    reached = {next(iter(everything))}
    rng = TrialRandom(0)
    frontier = torch.tensor(sorted(reached))
    for _ in range(60):
        mutants = space.mutate(frontier.repeat(4, 1).unsqueeze(0), rng)[0]
        assert space.is_valid(mutants).all()
        reached |= set(map(tuple, mutants.tolist()))
        frontier = torch.tensor(sorted(reached))
    assert reached == everything


@pytest.mark.parametrize("decision", ["block", "base channels", "depth", "stages", "blocks of stage 2"])
def test_a_neighbour_may_differ_in_any_kind_of_decision(decision):
    """A local search reaches deeper networks and a fifth stage, not only other widths."""
    space = ResidualBackbone(**SMALL)
    archs = torch.tensor(some(space, 200))
    found, valid = space.neighbours(archs)
    position = [one.name for one in space.decisions].index(decision)
    changed = found[..., position] != archs[:, None, position]
    assert (changed & valid).any()
    for arch in found[changed & valid][:20].tolist():
        assert space.parse(space.format(tuple(arch))) == tuple(arch)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("basicblock_64_11-21-21-2-1-", "must read as in basicblock_64_11-21-21-21"),
        ("basicblock_64_11--21-21-21", "single '-'"),
        ("basicblock_64_21-21-21-21", "the first a 1"),
        ("basicblock_64", "must read as in"),
        ("basicblok_64_11-21-21-21", "the block of .* is basicblok, allowed: .*did you mean 'basicblock'"),
        ("basicblock_65_11-21-21-21", "the base channel of .* is 65, allowed: 48, 56, 64, 72"),
        ("basicblock_64_11-21-21-211", "the number of blocks of .* is 9, allowed: 8, 12"),
        ("basicblock_64_11-21-2111", "the number of stages of .* is 3, allowed: 4, 5"),
        ("basicblock_64_11111-2-2-2", "the number of blocks of stage 1 of .* is 5, allowed: 1, 2, 3, 4, 6, 8"),
        ("basicblock_64_1-2-2111-12", "in stage 3 of .* double before block 1 and 5 of 5, allowed: 1, 4"),
        ("basicblock_64_1-1-2-12121", "have doubled 3 times by the end of stage 2, allowed: up to 2"),
        ("basicblock_64_11-21-2121", "the number of doublings of .* is 2, allowed: 3, 4"),
    ],
)
def test_illegal_codes_are_refused(space, text, message):
    with pytest.raises(ValueError, match=f"residual_backbone: .*{message}"):
        space.parse(text)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"stages": (3, 4)}, r"stages is \[3, 4\], allowed: different numbers, 4 to 5"),
        ({"base_channels": ()}, r"base_channels is \[\], allowed: different numbers, 1 or more"),
        ({"depths": (8, 8)}, r"depths is \[8, 8\]"),
        ({"depths": (3, 8)}, "depths: 3 blocks do not fill 4 stages, 4 do"),
        ({"depths": (8,), "blocks_per_stage": (3,)}, "depths: 8 blocks do not fill 4 stages, 10 do"),
        ({"doublings": (4,)}, "doublings: 4 do not fit into 4 stages of one block; .* 3 or less"),
        ({"doublings": (3, 6)}, r"doublings is \[3, 6\], allowed: different numbers, 0 to 5"),
        ({"block_types": ("basicblok",)}, "'basicblok' is not one of basicblock, bottleneck; did you mean 'basicblock"),
        ({"block_types": ()}, r"block_types is \[\]"),
        ({"stem": "imagnet"}, "stem is 'imagnet', allowed: imagenet, small; did you mean 'imagenet'"),
        ({"stem_stride": 2}, "stem_stride is 2, the stem 'imagenet' has 4"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidualBackbone(**arguments)


# ---- networks --------------------------------------------------------------------------------------------------------


def test_every_backbone_builds_and_gives_what_it_declares():
    space = ResidualBackbone(**SMALL)
    pictures = torch.rand(1, 3, 64, 64)
    drawn = some(space, 150, seed=7)
    many = some(space, 5000, seed=8)  # among which is every choice that a decision can have: all are drawn
    assert [*map(set, zip(*drawn, strict=True))] == [*map(set, zip(*many, strict=True))]
    for arch in drawn:
        _check_shapes(space.build(arch, width=0.5).backbone, pictures, space.layout(arch), 0.5)


def test_deep_backbones_build_and_give_what_they_declare(space):
    pictures = torch.rand(1, 3, 64, 64)
    for arch in some(space, 20, seed=8):
        _check_shapes(space.build(arch, width=1 / 16).backbone, pictures, space.layout(arch), 1 / 16)


def _check_shapes(backbone, pictures, layout, width):
    with torch.no_grad():
        maps = backbone.eval()(pictures)
    assert len(maps) == len(layout.blocks) == len(backbone.strides) == len(backbone.channels)
    for features, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert features.shape == (1, channels, math.ceil(64 / stride), math.ceil(64 / stride))
    expansion = {"basicblock": 1, "bottleneck": 4}[layout.block]
    scale = round(layout.base_channels * width) / layout.base_channels
    assert backbone.channels == tuple(round(expansion * scale * stage[-1]) for stage in layout.widths)
    names = [name for name in backbone.state_dict() if re.fullmatch(r"layer\d\.\d+\.conv1\.weight", name)]
    assert len(names) == sum(layout.blocks)


def test_settings_of_a_network_may_override_the_spaces():
    space = ResidualBackbone(**SMALL)
    arch = some(space, 1)[0]
    assert space.build(arch).backbone.strides[0] == 2
    assert space.build(arch, stem="small").backbone.strides[0] == 1
    assert space.build(arch, stem_stride=1).backbone.strides[0] == 1
    assert space.build(arch, stem="imagenet").backbone.strides[0] == 4
    network = space.build(arch, Head(0, 1), zero_init_residual=True)
    assert network.num_classes == 0 and network.backbone.in_channels == 1
    assert float(network.backbone.layer1[0].last_norm.weight.detach().abs().sum()) == 0
    with pytest.raises(ValueError, match=r"width is 0\.01, which leaves no channel of"):
        space.build(arch, width=0.01)


def test_a_recipe_can_set_the_space():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(ResidualBackbone, "space")
    settings = parser.parse_object({"space": {k: list(v) if isinstance(v, tuple) else v for k, v in SMALL.items()}})
    space = parser.instantiate(settings).space
    assert space.base_channels == (8, 12, 16, 24) and space.stem == "small"
