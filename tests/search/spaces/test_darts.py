import ast
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.networks.cost.complexity import count_parameters
from lightning_modules.networks.supernet import Path
from search.randomness import TrialRandom
from search.spaces.base import Edge
from search.spaces.darts import DARTS
from search.spaces.head import Head

SPACE = DARTS()

# Published cells: the public code of DARTS, PC-DARTS (CIFAR-10) and P-DARTS.
DARTS_V1 = (
    [
        *(("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)),
        *(("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2)),
    ],
    [
        *(("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0)),
        *(("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0)),
    ],
)
DARTS_V2 = (
    [
        *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)),
    ],
    [
        *(("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1)),
        *(("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)),
    ],
)
PC_DARTS = (
    [
        *(("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1)),
        *(("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1)),
    ],
    [
        *(("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2)),
        *(("sep_conv_3x3", 0), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2)),
    ],
)
P_DARTS = (
    [
        *(("skip_connect", 0), ("dil_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 0), ("dil_conv_5x5", 4)),
    ],
    [
        *(("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 2)),
        *(("max_pool_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_3x3", 1), ("dil_conv_5x5", 3)),
    ],
)
V2_TEXT = (
    "normal=[sep_conv_3x3~0,sep_conv_3x3~1,sep_conv_3x3~0,sep_conv_3x3~1,skip_connect~0,sep_conv_3x3~1,"
    "skip_connect~0,dil_conv_3x3~2]|reduce=[max_pool_3x3~0,max_pool_3x3~1,max_pool_3x3~1,skip_connect~2,"
    "max_pool_3x3~0,skip_connect~2,max_pool_3x3~1,skip_connect~2]"
)


def some(n, seed=2):
    return [tuple(arch) for arch in SPACE.sample(TrialRandom(seed), n)[0].tolist()]


def meta_network(architecture, **head):
    with torch.device("meta"):
        return SPACE.build_from(architecture, head)


# ---- genotypes -------------------------------------------------------------------------------------------------------


def test_the_space_has_as_many_cells_as_darts_counts():
    # DARTS, appendix A.1: the product of (k + 1) k / 2 * 7^2 over k = 1, 2, 3, 4, about 10^9 cells, squared.
    cells = math.prod((k + 1) * k // 2 * 7**2 for k in range(1, 5))
    assert math.prod(SPACE.sizes) == cells**2 and len(SPACE.sizes) == 24
    assert cells**2 < 2**63  # so that `code` has room


def test_a_published_genotype_is_read_and_written():
    arch = SPACE.from_genotype(*DARTS_V2)
    assert SPACE.format(arch) == V2_TEXT and SPACE.parse(V2_TEXT) == arch
    names = [decision.choices[choice] for decision, choice in zip(SPACE.decisions, arch, strict=True)]
    assert names[:6] == ["0,1", "sep_conv_3x3", "sep_conv_3x3", "0,1", "sep_conv_3x3", "sep_conv_3x3"]
    assert names[9:12] == ["0,2", "skip_connect", "dil_conv_3x3"]
    assert names[12 + 9 :] == ["1,2", "max_pool_3x3", "skip_connect"]
    for text in (V2_TEXT.replace("skip_connect~0,sep_conv_3x3~1", "sep_conv_3x3~1,skip_connect~0"), V2_TEXT):
        assert SPACE.parse(text) == arch  # either order within a node


def test_genotypes_are_read_back():
    for arch in some(200):
        genotype = SPACE.genotype(arch)
        assert SPACE.from_genotype(**genotype) == arch
        backwards = {
            cell: [term for node in range(4) for term in reversed(terms[2 * node : 2 * node + 2])]
            for cell, terms in genotype.items()
        }
        assert SPACE.from_genotype(**backwards) == arch


def test_a_genotype_of_another_space_is_refused():
    normal, reduce = DARTS_V2
    with pytest.raises(ValueError, match=r"darts: the cell 'reduce' has 7 operations, 8 are needed"):
        SPACE.from_genotype(normal, reduce[:-1])
    same = [*normal[:2], ("sep_conv_3x3", 1), ("sep_conv_3x3", 1), *normal[4:]]
    with pytest.raises(ValueError, match=r"node 3 of the cell 'normal' reads the nodes 1 and 1, .* of 0 to 2"):
        SPACE.from_genotype(same, reduce)
    ahead = [*normal[:6], ("skip_connect", 0), ("skip_connect", 5)]
    with pytest.raises(ValueError, match=r"node 5 of the cell 'normal' reads the nodes 0 and 5, .* of 0 to 4"):
        SPACE.from_genotype(ahead, reduce)
    with pytest.raises(ValueError, match=r"node 2 of the cell 'reduce' .* 'max_pool', .*did you mean 'max_pool_3x3'"):
        SPACE.from_genotype(normal, [("max_pool", 0), *reduce[1:]])
    with pytest.raises(ValueError, match=r"darts: 'dil_conv_3x3' of .* must be an operation, '~' and a node's number"):
        SPACE.parse(V2_TEXT.replace("dil_conv_3x3~2", "dil_conv_3x3"))


def test_the_diagram_has_an_arrow_an_operation():
    edges = SPACE.diagram(SPACE.from_genotype(*DARTS_V2))
    assert len(edges) == 16
    assert (
        Edge("normal 2", "normal 5", "dil_conv_3x3") in edges and Edge("reduce 2", "reduce 5", "skip_connect") in edges
    )


# ---- parameters ------------------------------------------------------------------------------------------------------


def count_by_hand(genotype, channels, cells, classes=10):
    """Weights of every layer added up on paper; a normalisation has two a channel."""

    def weights(name, c, stride):
        kernel = int(name[-1]) if "conv" in name else 0
        once = c * kernel**2 + c * c + 2 * c
        if name == "skip_connect":
            return 0 if stride == 1 else c * c + 2 * c
        return {"sep": 2 * once, "dil": once}.get(name[:3], 0)

    stem = 3 * channels
    total, before_last, last = 27 * stem + 2 * stem, stem, stem
    for position in range(cells):
        reduction = position in (cells // 3, 2 * cells // 3)
        channels *= 1 + reduction
        # 1x1 convolutions, the halving one too: its two halves have half the outputs each.
        total += (before_last + last) * channels + 4 * channels
        terms = genotype[reduction]
        total += sum(weights(name, channels, 2 if reduction and source < 2 else 1) for name, source in terms)
        before_last, last = last, 4 * channels
    return total + (last + 1) * classes


@pytest.mark.parametrize(
    ("genotype", "published"),
    # To a tenth of a million: DARTS reports 3.3 (second order), PC-DARTS 3.6, P-DARTS 3.4.
    [(DARTS_V2, 3.3), (PC_DARTS, 3.6), (P_DARTS, 3.4), (DARTS_V1, None)],
    ids=["DARTS_V2", "PC_DARTS", "P_DARTS", "DARTS_V1"],
)
def test_parameters_of_published_cells(genotype, published):
    network = meta_network(SPACE.from_genotype(*genotype))
    assert count_parameters(network) == count_by_hand(genotype, 36, 20)
    if published is not None:
        assert round(count_parameters(network) / 1e6, 1) == published
    if genotype is DARTS_V2:
        assert count_parameters(network) == 3_349_342  # the public code's own count, without the auxiliary head


def test_the_network_for_imagenet_has_its_published_parameters():
    network = meta_network(SPACE.from_genotype(*DARTS_V2), num_classes=1000, channels=48, cells=14, stem="imagenet")
    assert count_parameters(network) == 4_718_752  # the public code's own count; DARTS reports 4.7 million
    assert network.features(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 768, 7, 7)
    with pytest.raises(ValueError, match="stem is 'image'"):
        SPACE.build(SPACE.from_genotype(*DARTS_V2), stem="image")


def test_parameters_of_random_cells_and_other_sizes():
    for arch in some(20):
        network = meta_network(arch, num_classes=7, channels=8, cells=5)
        assert count_parameters(network) == count_by_hand(list(SPACE.genotype(arch).values()), 8, 5, 7)


def test_parameters_of_nas_bench_301(real_data):
    with np.load(real_data("zero_cost_proxies.npz"), allow_pickle=False) as arrays:
        rows = np.flatnonzero(arrays["space"] == "nasbench301")[::20]
        codes = [ast.literal_eval(text) for text in arrays["arch"][rows].tolist()]
        millions = arrays["values"][rows, arrays["columns"].tolist().index("params")]
    assert len(rows) > 30
    names = SPACE.decisions[1].choices
    for code, expected in zip(codes, millions.tolist(), strict=True):
        arch = SPACE.from_genotype(*([(names[operation], source) for source, operation in cell] for cell in code))
        network = meta_network(arch, channels=32, cells=8)
        # The table's networks learn no scale and shift within an operation.
        learnt = sum(
            count_parameters(module)
            for name, module in network.named_modules()
            if isinstance(module, nn.BatchNorm2d) and ".operations." in name
        )
        assert count_parameters(network) - learnt == round(1e6 * expected)


# ---- the supernet ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supernet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return SPACE.build_supernet(head=Head(5), channels=4, cells=4)


def test_a_path_computes_what_the_stand_alone_network_computes(supernet):
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    outputs = []
    for arch in some(30):
        with torch.random.fork_rng(devices=[]):
            network = SPACE.build(arch, Head(5), channels=4, cells=4).train()
        supernet.train().hand_down(arch, network)
        outputs.append(supernet(images, Path(arch)))
        assert torch.equal(network(images), outputs[-1]), SPACE.format(arch)
    assert len({tuple(output.flatten().tolist()) for output in outputs}) == 30


def test_weights_of_another_architecture_do_not_fit(supernet):
    arch, other = SPACE.from_genotype(*DARTS_V1), SPACE.from_genotype(*DARTS_V2)
    with torch.random.fork_rng(devices=[]):
        network = SPACE.build(other, Head(5), channels=4, cells=4)
    with pytest.raises(ValueError, match="is not the stand-alone network of"):
        supernet.hand_down(arch, network)


def test_a_supernet_without_running_statistics_hands_down_its_weights():
    with torch.random.fork_rng(devices=[]):
        supernet = SPACE.build_supernet(
            lambda width: nn.BatchNorm2d(width, affine=False, track_running_stats=False), Head(5, 1), 4, 3
        )
        arch = SPACE.from_genotype(*PC_DARTS)
        network = SPACE.build(arch, Head(5, 1), 4, 3).train()
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    supernet.hand_down(arch, network)
    torch.testing.assert_close(network(images), supernet(images, Path(arch)))


def test_both_cells_of_the_relaxation_learn(supernet):
    weights = tuple(torch.full((size,), 1 / size, requires_grad=True) for size in SPACE.sizes)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    loss = nn.functional.cross_entropy(supernet(images, Path(None, weights)), torch.arange(4))
    gradients = torch.autograd.grad(loss, weights)
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)
