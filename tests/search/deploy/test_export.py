"""Exported files give what the network gives, and a file that does not is not left behind."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule
from torch import nn

from datamodules.preprocessing import Preprocessing
from search.cli import main
from search.deploy import export, load_network
from search.deploy.exported_inputs import Inputs
from search.deploy.usage import lines_of_use
from search.errors import CatchmarkError, RunError
from search.recipes.build import build as build_part
from search.runs.json_files import write_json
from search.spaces.base import SearchSpace
from search.spaces.nas_fpn import PUBLISHED_STRING
from search.training.tensor_files import save_tensors

CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
BASIC = "basicblock_8_11-21-21-21"
SPACES = {
    "cells": ("NASBench201", {}, CELL, {"num_classes": 7, "in_channels": 2, "channels": 4, "cells": 1}),
    "residual": (
        "ResidualBackbone",
        {"base_channels": [8], "depths": [8], "stages": [4]},
        BASIC,
        {"num_classes": 5, "in_channels": 3},
    ),
}
SPACES["colour"] = ("NASBench201", {}, CELL, {"num_classes": 5, "in_channels": 3, "channels": 4, "cells": 1})
SPACES["decoder"] = (
    "FastDense",
    {},
    "[[8,[0,0,5,2],[0,2,8,8],[0,5,1,4]],[[3,3],[3,2],[3,0]]]",
    {"num_classes": 5, "in_channels": 3, "width": 4, "encoder": "basicblock_4_1222"},
)
SPACES["pyramid"] = (
    "NASFPN",
    {},
    PUBLISHED_STRING,
    {"num_classes": 5, "in_channels": 3, "channels": 4, "repeats": 1, "backbone": "basicblock_4_1222"},
)
DEPTH = {"class_path": "DepthModule", "init_args": {"decoder": "fpn", "decoder_channels": 8}}


def write_folder(folder, space="cells", module="ClassificationModule", resolution=(16, 24)):
    """A folder as a training leaves it, without one: random weights and statistics."""
    name, arguments, architecture, build = SPACES[space]
    folder.mkdir()
    about = {
        "format": 1,
        "space": {"class_path": name, "init_args": arguments},
        "architecture": architecture,
        "build": build,
        "in_channels": build["in_channels"],
        "module": module,
        "task": {},
        "seed": 0,
        "resolution": list(resolution),
        "metrics": {},
    }
    write_json(folder / "network.json", about)
    made = build_part(about["space"], SearchSpace, "space")
    network = made.build_from(made.parse(architecture), build)
    wrapped = build_part(about["module"], Callable[[nn.Module], LightningModule], "module", given=[network])
    for each in wrapped.modules():
        if isinstance(each, nn.BatchNorm2d):  # as after training: neither zeros nor ones
            each.running_mean.uniform_(-0.3, 0.3)
            each.running_var.uniform_(0.5, 2)
    save_tensors(folder / "weights.pt", wrapped.state_dict())
    return folder


@pytest.fixture
def cells(tmp_path):
    return write_folder(tmp_path / "cells")


def close(ours, theirs):
    return bool((ours - theirs).abs().max() <= 1e-4 * ours.abs().max())


def test_onnx_of_a_classifier(cells, capsys):
    assert main(["export", str(cells)]) == 0
    out = capsys.readouterr().out
    assert f"{cells}/network.onnx: images of 16x24 to logits" in out and "checked: largest difference" in out
    session = onnxruntime.InferenceSession(str(cells / "network.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape == ["batch", 2, 16, 24]
    assert session.get_modelmeta().custom_metadata_map["architecture"] == CELL
    network = load_network(cells)
    for batch in (1, 5):
        images = torch.randn(batch, 2, 16, 24)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        assert logits.shape == (batch, 7) and close(network(images), torch.from_numpy(logits))


PREPROCESSING = Preprocessing("RGB", "centre", (32, 24), crop=0.875, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_the_file_says_what_it_takes_or_does_it_itself(tmp_path, capsys):
    folder = write_folder(tmp_path / "classifier", "colour", resolution=(32, 24))
    about = json.loads((folder / "network.json").read_text())
    assert main(["export", str(folder), "--with-preprocessing"]) == 2
    assert "does not say how its images are normalised" in capsys.readouterr().err
    classes = ["cat", "dog", "fox", "hen", "owl"]
    write_json(folder / "network.json", about | {"preprocessing": PREPROCESSING.described(), "classes": classes})
    assert main(["export", str(folder), "--format", "torch", "--with-preprocessing", "nchw"]) == 0
    assert "with 1 and 3 at a time" in capsys.readouterr().out
    files = {"metadata.json": ""}
    program = torch.export.load(folder / "network.pt2", extra_files=files).module()
    said = json.loads(files["metadata.json"])
    assert json.loads(said["classes"]) == classes and json.loads(said["mean"]) == [0.5, 0.4, 0.3]
    assert (said["colours"], said["resize"], said["normalised"]) == ("RGB", "centre", "by the file")
    pixels = torch.randint(256, (3, 3, 32, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (PREPROCESSING.mean, PREPROCESSING.std))
    with torch.no_grad():
        logits = load_network(folder)((pixels / 255 - mean) / std)
    assert all(close(logits[:count], program(pixels[:count])) for count in (1, 3))
    write_json(folder / "network.json", about | {"preprocessing": PREPROCESSING.described() | {"scale": 0}})
    assert main(["export", str(folder)]) == 2
    assert "network.json is damaged (preprocessing: crop, scale or bits is out of range)" in capsys.readouterr().err


@pytest.mark.parametrize("colours", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("resize", ["centre", "squeeze"])
@pytest.mark.parametrize("layout", [None, "nhwc", "nchw"])
def test_the_lines_of_use_make_a_picture_ready(colours, resize, layout, tmp_path, monkeypatch, capsys):
    """They run against a session that only looks at what it is given."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    channels = 1 if colours == "L" else 3
    values = {"mean": (0.5, 0.4, 0.3)[:channels], "std": (0.2, 0.3, 0.4)[:channels]}
    ready = replace(PREPROCESSING, colours=colours, resize=resize, **values)
    shape = (32, 24, channels) if layout == "nhwc" else (channels, 32, 24)
    lines = lines_of_use(tmp_path / "no.onnx", ("logits",), Inputs(shape, layout=layout), ["a", "b"], ready)
    assert len(lines.splitlines()) <= 14
    given = {}

    class Session:
        def run(self, names, inputs):
            given.update(inputs)
            return [np.array([[0.0, 1.0]])]

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path: Session())
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert capsys.readouterr().out == "b\n"
    sized = ready.read(tmp_path / "picture.png")
    ((name, array),) = given.items()
    if layout is None:
        assert name == "images" and array.dtype == np.float32
        np.testing.assert_allclose(array, ready.normalised(sized[None]).numpy(), atol=1e-5)
    else:
        expected = sized if layout == "nhwc" else sized.transpose(2, 0, 1)
        assert name == "pictures" and array.dtype == np.uint8 and np.array_equal(array[0], expected)


def test_torch_program_of_one_batch_size_and_resolution(cells, tmp_path):
    out = tmp_path / "program.pt2"
    words = ["--format", "torch", "--batch", "3", "--resolution", "12", "--out", str(out)]
    assert main(["export", str(cells), *words]) == 0
    program, images = torch.export.load(out).module(), torch.randn(3, 2, 12, 12)
    assert close(load_network(cells)(images), program(images))
    with pytest.raises(Exception, match=r"shape|size"):
        program(torch.randn(4, 2, 12, 12))


def test_onnx_of_a_dense_network_is_its_backbone(tmp_path):
    folder = write_folder(tmp_path / "depth", "residual", DEPTH, resolution=(33, 47))
    exported = export.export_network(folder)
    assert exported.outputs == ("stride_4", "stride_8", "stride_16", "stride_32") and exported.difference <= 1e-4
    images = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        maps = load_network(folder).backbone(images)
    assert [each.shape[2:] for each in maps] == [(9, 12), (5, 6), (3, 3), (2, 2)]
    session = onnxruntime.InferenceSession(str(folder / "backbone.onnx"), providers=["CPUExecutionProvider"])
    theirs = [torch.from_numpy(session.run([name], {"images": images.numpy()})[0]) for name in exported.outputs]
    assert all(close(ours, each) for ours, each in zip(maps, theirs, strict=True))


def test_a_depth_network_and_a_classifiers_backbone_can_be_asked_for(tmp_path):
    depth = write_folder(tmp_path / "depth", "residual", DEPTH, resolution=(32, 32))
    assert export.export_network(depth, form="torch", part="network").path.name == "network.pt2"
    folder = write_folder(tmp_path / "classifier", "residual", resolution=(32, 32))
    assert export.export_network(folder, form="torch", part="backbone").outputs[0] == "stride_4"
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = load_network(folder).backbone(images)
    theirs = torch.export.load(folder / "backbone.pt2").module()(images)
    assert all(close(ours, each) for ours, each in zip(maps, theirs, strict=True))


def test_the_network_of_a_detector_is_refused(tmp_path):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    module = {"class_path": "DetectionModule", "init_args": {"detector": "retinanet"}}
    folder = write_folder(tmp_path / "detector", "residual", module, resolution=(32, 32))
    with pytest.raises(CatchmarkError, match="post-processing that can't be exported; use --part backbone"):
        export.export_network(folder, part="network")
    assert export.export_network(folder, form="torch").outputs[-1] == "stride_32"


def test_a_searched_decoder_is_exported_whole(tmp_path):
    folder = write_folder(tmp_path / "decoder", "decoder", "EncoderDecoderModule", resolution=(64, 96))
    exported = export.export_network(folder, form="torch", batch=1)
    assert exported.path.name == "network.pt2" and exported.difference <= 1e-4


def test_a_searched_pyramid_goes_with_its_backbone(tmp_path):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    module = {"class_path": "DetectionModule", "init_args": {"detector": "retinanet"}}
    folder = write_folder(tmp_path / "detector", "pyramid", module, resolution=(128, 128))
    exported = export.export_network(folder, form="torch", batch=1)
    assert exported.path.name == "pyramid.pt2" and exported.difference <= 1e-4
    assert exported.outputs == ("stride_8", "stride_16", "stride_32", "stride_64", "stride_128")
    with pytest.raises(CatchmarkError, match="has no neck that says its strides"):
        export.export_network(write_folder(tmp_path / "plain", "residual"), part="pyramid")


def test_a_file_that_gives_other_outputs_is_removed(cells, monkeypatch, capsys):
    """The network is traced, and then its weights change: the file is wrong, and the check must see it."""
    program = export.export_network(cells, form="torch").path
    kept = program.read_bytes()
    written = export._write

    def write(path, form, module, *rest):
        run = written(path, form, module, *rest)
        with torch.no_grad():
            list(module.parameters())[-2].mul_(1.01)  # of the classifier: no normalisation undoes it
        return run

    monkeypatch.setattr(export, "_write", write)
    assert main(["export", str(cells), "--format", "torch"]) == 1
    line = capsys.readouterr().err
    assert "its outputs differ from the network's by" in line and "1e-04 is allowed" in line
    # What an earlier export left is another file, and right; nothing else stays behind.
    assert program.read_bytes() == kept
    assert {path.name for path in cells.iterdir()} == {"network.json", "weights.pt", "network.pt2"}


def test_not_a_number_is_a_difference(cells):
    run = load_network(cells)
    difference = partial(export._difference, run, images=torch.ones(1, 2, 8, 8))
    with torch.no_grad():
        assert difference(run=lambda images: [run(images)]) == 0
        assert difference(run=lambda images: [run(images) * float("nan")]) == float("inf")
        with pytest.raises(RunError, match=r"shape \[1, 6\]"):
            difference(run=lambda images: [run(images)[:, :6]])


def test_refusals(cells, tmp_path, monkeypatch, capsys):
    def line(*words):
        capsys.readouterr()
        assert main(["export", *map(str, words)]) == 2
        return capsys.readouterr().err

    assert "--part backbone: CellNetwork has no backbone" in line(cells, "--part", "backbone")
    assert "--batch is 'many'" in line(cells, "--batch", "many")
    assert "--resolution is 0" in line(cells, "--resolution", "0")
    assert "there is no folder" in line(cells, "--out", tmp_path / "nowhere" / "network.onnx")
    assert "train it first: catchmark train" in line(tmp_path)
    assert "invalid choice: 'onx'" in line(cells, "--format", "onx")
    about = json.loads((cells / "network.json").read_text())
    (cells / "network.json").write_text(json.dumps(about | {"resolution": None}))
    assert "give --resolution" in line(cells)
    # As where the packages are not installed.
    found = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if "onnxs" in name else found(name))
    assert "--format onnx needs what is not installed: pip install onnxscript\n" in line(cells)


def test_several_trained_networks_need_a_name(tmp_path):
    (tmp_path / "trained").mkdir()
    for name in ("one", "two"):
        write_folder(tmp_path / "trained" / name)
    with pytest.raises(CatchmarkError, match="name a target: one, two"):
        export.export_network(tmp_path)
    with pytest.raises(CatchmarkError, match="of a target 'twoo'; did you mean 'two'"):
        export.export_network(tmp_path, target="twoo")
    assert export.export_network(tmp_path, target="two", form="torch").path.parent.name == "two"
