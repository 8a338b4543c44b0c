import itertools
import warnings
from collections import Counter

import pytest
import torch
from torch import nn

from lightning_modules.networks.cost.complexity import count_parameters
from lightning_modules.networks.mobile_encoder import MobileEncoder
from lightning_modules.networks.supernet import Path
from lightning_modules.objectives.depth import TrimmedSSILoss
from search.randomness import TrialRandom
from search.spaces.base import Edge
from search.spaces.depth_fusion import OPERATION_NAMES, UPSAMPLING_NAMES, DepthFusion
from search.spaces.head import Head

VARIANTS = [(1, True), (2, True), (1, False), (2, False)]
SMALL = {"channels": 6, "width": 4}


@pytest.fixture(params=VARIANTS, ids=lambda each: f"v{each[0]}-{'sync' if each[1] else 'nonsync'}")
def space(request):
    return DepthFusion(*request.param)


def reaches(cell):
    """Whether a walk along edges that carry something leads from an input, node 0 or 1, to node 3."""
    arrows = {pair for pair, choice in zip([(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)], cell, strict=True) if choice}
    reached = {0, 1}
    for _ in range(2):
        reached |= {target for source, target in arrows if source in reached}
    return 3 in reached


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def samples(space, n, seed=1):
    return [tuple(arch) for arch in space.sample(TrialRandom(seed), n)[0].tolist()]


def test_the_synchronised_spaces_are_what_brute_force_gives():
    """3,125 and 12,500 cells, less those whose output no input reaches."""
    cells = [cell for cell in itertools.product(range(5), repeat=5) if reaches(cell)]
    assert len(cells) == 3096
    assert list(DepthFusion().enumerate()) == cells
    assert list(DepthFusion(2).enumerate()) == [(*cell, k) for cell in cells for k in range(4)]
    assert torch.tensor(DepthFusion(2).sizes).prod() == 12_500


def test_independent_cells_each_obey_the_constraint():
    for version, cell_size, total in ((1, 5, 9.5e13), (2, 6, 2.4e16)):
        space, single = DepthFusion(version, False), DepthFusion(version)
        assert float(torch.tensor(space.sizes).double().prod()) == pytest.approx(total, rel=0.02)
        archs = samples(space, 2000)
        cells = [arch[k : k + cell_size] for arch in archs for k in range(0, 4 * cell_size, cell_size)]
        assert all(reaches(cell[:5]) for cell in cells)
        assert len(set(cells)) > 1500  # the four cells are drawn apart from one another
        # An invalid cell is refused in every place, and each place takes what the single cell takes.
        dead = (0,) * 5 + (0,) * (cell_size - 5)
        for place in range(4):
            broken = list(archs[0])
            broken[place * cell_size : (place + 1) * cell_size] = dead
            assert not space.is_valid(torch.tensor(broken))
            with pytest.raises(ValueError, match=f"'cell {place + 1} 3<-1' .* is 0, allowed: "):
                space.check(broken)
        random = torch.randint(0, 2, (500, cell_size), generator=torch.Generator().manual_seed(0)) * 2
        alone = single.is_valid(random)
        assert alone.any() and not alone.all()
        others = torch.tensor(archs[0]).expand(500, -1).clone()
        others[:, 2 * cell_size : 3 * cell_size] = random
        assert torch.equal(space.is_valid(others), alone)


def test_variants_have_names_of_their_own_and_others_do_not_exist():
    assert [DepthFusion(*each).name for each in VARIANTS] == [
        "depth_fusion_v1_sync",
        "depth_fusion_v2_sync",
        "depth_fusion_v1_nonsync",
        "depth_fusion_v2_nonsync",
    ]
    with pytest.raises(ValueError, match="version is 3, allowed: 1"):
        DepthFusion(3)


def test_strings_and_diagrams_of_every_variant(space):
    for arch in samples(space, 30):
        assert space.parse(space.format(arch)) == arch
        labels = Counter(edge.label for edge in space.diagram(arch))
        per_cell = 6 if space.version == 2 else 5
        expected = Counter()
        for t, choice in enumerate(arch):
            names = UPSAMPLING_NAMES if t % per_cell == 5 else OPERATION_NAMES
            expected[names[choice]] += 1
        if space.version == 1:
            expected["bilinear"] += len(arch) // 5
        del expected["none"]
        assert labels == expected


def test_a_diagram_by_hand():
    space = DepthFusion(2)
    arch = space.parse(
        "2<-0=none|2<-1=nor_conv_3x3|3<-0=skip_connect|3<-1=none|3<-2=avg_pool_3x3|upsampling=pixel_shuffle"
    )
    assert space.diagram(arch) == [
        Edge("1", "2", "nor_conv_3x3"),
        Edge("0", "3", "skip_connect"),
        Edge("2", "3", "avg_pool_3x3"),
        Edge("3", "out", "pixel_shuffle"),
    ]
    apart = DepthFusion(1, False)
    chain = [(edge.source, edge.target) for edge in apart.diagram((0, 0, 1, 0, 0) * 4)]
    assert chain[:3] == [("cell 1: 0", "cell 1: 3"), ("cell 1: 3", "cell 2: 0"), ("cell 2: 0", "cell 2: 3")]
    assert chain[-1] == ("cell 4: 3", "out")


def test_a_path_computes_what_the_stand_alone_network_computes(space):
    """For 20 random architectures, handed the shared weights; exactly, in both modes of normalisation."""
    supernet = seeded(lambda: space.build_supernet(nn.BatchNorm2d, **SMALL))
    images = torch.randn(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for arch in samples(space, 20):
        network = seeded(lambda arch=arch: space.build(arch, **SMALL), seed=9)
        assert not torch.equal(network(images), supernet(images, Path(arch)))
        supernet.hand_down(arch, network)
        outputs.append(supernet(images, Path(arch)))
        assert outputs[-1].shape == (3, 1, 32, 64)
        assert torch.equal(network(images), outputs[-1])
        supernet.hand_down(arch, network)  # the running statistics that the passes above moved
        network.eval(), supernet.eval()
        assert torch.equal(network(images), supernet(images, Path(arch)))
        supernet.train()
    assert len({tuple(output.flatten().tolist()) for output in outputs}) > 10


def test_handed_down_weights_are_all_there_are(space):
    arch = samples(space, 1)[0]
    supernet = space.build_supernet(lambda channels: nn.BatchNorm2d(channels, track_running_stats=False), **SMALL)
    supernet.hand_down(arch, space.build(arch, **SMALL))
    with pytest.raises(ValueError, match="is not the stand-alone network of"):
        supernet.hand_down(arch, space.build(arch, **SMALL | {"channels": 8}))


def test_classes_are_not_told_apart(space):
    with pytest.raises(ValueError, match="depth_fusion: its networks give inverse depth, and the data have 3 classes"):
        space.build(samples(space, 1)[0], Head(3), **SMALL)


def one_hot(space, arch):
    return tuple(
        nn.functional.one_hot(torch.tensor(c), size).float() for c, size in zip(arch, space.sizes, strict=True)
    )


def test_a_relaxation_onto_one_architecture_is_that_architecture(space):
    supernet = seeded(lambda: space.build_supernet(nn.BatchNorm2d, **SMALL)).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for arch in samples(space, 5):
        weights = one_hot(space, arch)
        expected = supernet(images, Path(arch))
        torch.testing.assert_close(supernet(images, Path(None, weights)), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(supernet(images, Path(arch, weights)), expected)
        halved = tuple(0.5 * each for each in weights)
        assert not torch.allclose(supernet(images, Path(arch, halved)), expected)


def test_a_relaxation_is_the_weighted_sum_and_every_weight_learns(space):
    supernet = seeded(lambda: space.build_supernet(nn.BatchNorm2d, **SMALL))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    weights = tuple(torch.rand(size, generator=generator).requires_grad_() for size in space.sizes)
    loss = supernet(images, Path(None, weights)).square().mean()
    gradients = torch.autograd.grad(loss, weights, retain_graph=True)
    for decision, gradient in zip(space.decisions, gradients, strict=True):
        carries = torch.tensor([name != "none" for name in decision.choices])
        assert ((gradient != 0) == carries).all(), decision.name

    arch = samples(space, 1)[0]
    chosen = tuple(weight.detach().clone().requires_grad_() for weight in weights)
    supernet(images, Path(arch, chosen)).square().mean().backward()
    for t, weight in enumerate(chosen):
        if weight.grad is not None:
            assert set(weight.grad.nonzero().flatten().tolist()) <= {arch[t]}
    assert any(weight.grad is not None and weight.grad.any() for weight in chosen)


def test_a_path_runs_and_trains_nothing_but_its_own_operations():
    space = DepthFusion(2, False)
    supernet = seeded(lambda: space.build_supernet(nn.BatchNorm2d, **SMALL))
    arch = (0, 0, 2, 0, 0, 0) + (0, 0, 3, 0, 0, 2) * 3
    supernet(torch.randn(2, 3, 32, 32), Path(arch)).sum().backward()
    touched = {
        name for name, p in supernet.named_parameters() if p.grad is not None and (".cells" in name or "upsam" in name)
    }
    cells = {f"network.cells.{k}.operations.2.{2 if k == 0 else 3}.{part}" for k in range(4) for part in ("1", "2")}
    assert {name.rpartition(".")[0] for name in touched if "cells" in name} == cells
    assert {name for name in touched if "upsam" in name} == {
        f"network.upsamplings.{k}.operations.2.weight" for k in (1, 2, 3)
    }


def test_size_by_hand():
    """At 6 channels and width 4: an edge of 1x1 has 6 x 6 + 12 parameters, one of 3x3 nine times 36 and 12."""
    space = DepthFusion(2, False)
    base = count_parameters(space.build((0, 0, 1, 0, 0, 0) * 4, **SMALL))
    projections = 9 * 6 * (4 + 8 + 16 + 32)
    head = (9 * 6 * 3 + 3) + (9 * 3 * 32 + 32) + (32 + 1)
    blocks = sum(9 * i * o + 9 * o * o + i * o + 4 * o for i, o in ((4, 4), (4, 8), (8, 16), (16, 32)))
    assert base == projections + head + blocks + (27 * 4 + 2 * 4)
    arch = (2, 3, 1, 0, 4, 0, *(0, 0, 3, 0, 0, 1), *(0, 0, 2, 0, 0, 2), *(0, 0, 1, 0, 0, 3))
    extra = 2 * (36 + 12) + 2 * (9 * 36 + 12) + 16 * 36 + (6 * 24 + 48)
    assert count_parameters(space.build(arch, **SMALL)) == base + extra


def test_a_mobile_encoder_keeps_given_weights_and_their_statistics(tmp_path):
    encoder = seeded(lambda: MobileEncoder("efficientnet_lite0"))
    with torch.no_grad():
        for norm in encoder.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_var.uniform_(0.5, 2)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pth")
    options = {"channels": 6, "backbone": "efficientnet_lite0", "weights": str(tmp_path / "encoder.pth")}
    network = DepthFusion().build((0, 2, 1, 0, 3), frozen=True, **options).train()
    learned = {name.partition(".")[0] for name, each in network.named_parameters() if each.requires_grad}
    assert learned == {"projections", "cells", "head"}
    images = torch.rand(2, 3, 64, 64)
    for ours, theirs in zip(network.backbone(images), encoder.eval()(images), strict=True):
        torch.testing.assert_close(ours, theirs)
    network(images).mean().backward()
    assert all((each.grad is None) != each.requires_grad for each in network.parameters())
    tuned = DepthFusion().build((0, 2, 1, 0, 3), **options)
    assert all(each.requires_grad for each in tuned.parameters())
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        sized = DepthFusion().build((0, 2, 1, 0, 3), **options)
    assert count_parameters(sized) == count_parameters(tuned)


def test_maps_of_any_size_begin_as_maps_of_a_usual_size():
    """Bottlenecks end without an activation: whatever leaves them, what the cells see is the same."""
    torch.manual_seed(0)
    space, options = DepthFusion(), {"channels": 6, "backbone": "efficientnet_lite0", "frozen": True}
    images = torch.rand(4, 3, 64, 64)
    for build in (lambda: space.build((1, 2, 1, 4, 3), **options), lambda: space.build_supernet(**options).network):
        network = build().train()
        for project, maps in zip(network.projections, network.backbone(images), strict=True):
            torch.testing.assert_close(project(maps), project(1e3 * maps), rtol=1e-2, atol=1e-2)


def test_a_flat_start_turns_the_right_way_round_in_its_first_step():
    """What is bright is near. A random start knows nothing of that: far and near may be the wrong way round."""
    images = torch.linspace(0.2, 1, 8).view(8, 1, 1, 1) * torch.linspace(0, 1, 64).expand(8, 3, 64, 64) + 0.1
    nearness, known = images[:, :1].clone(), torch.ones(8, 1, 64, 64, dtype=torch.bool)
    options, found = {"channels": 4, "backbone": "residual", "width": 4}, {True: [], False: []}
    for flat, seed in itertools.product(found, range(8)):
        network = seeded(lambda flat=flat: DepthFusion().build((1, 2, 1, 4, 3), flat_start=flat, **options), seed)
        assert (network(images).std() == 0) == flat, "the same everywhere"
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        TrimmedSSILoss()(network(images), (nearness, known)).backward()
        optimizer.step()
        found[flat].append(float(torch.corrcoef(torch.stack([network(images).flatten(), nearness.flatten()]))[0, 1]))
    assert min(found[True]) > 0.2 and min(found[False]) < 0, found


def test_weights_that_are_not_there_are_named_with_a_cure(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no backbone weights 'nowhere.pth'.*download torchvision's"):
        DepthFusion().build((0, 0, 1, 0, 0), backbone="resnext101_32x8d", weights="nowhere.pth")
    with pytest.raises(ValueError, match=r"backbone is 'resnext101_32x8', .*did you mean 'resnext101_32x8d'"):
        DepthFusion().build((0, 0, 1, 0, 0), backbone="resnext101_32x8")
