"""A folder for the hub holds the network to the bit, and is read without running anything."""

import json

import pytest
import torch

from search.cli import main
from search.deploy import load_network
from tests.search.deploy.test_export import write_folder

safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed: pip install catchmark[hub]")


@pytest.fixture
def folder(tmp_path):
    return write_folder(
        tmp_path / "trained", module={"class_path": "ClassificationModule", "init_args": {"ema_decay": 0.9}}
    )


def test_the_network_that_is_read_back_is_the_network(folder, capsys):
    from safetensors import safe_open

    from search.deploy.hub import load_hub

    assert main(["export", str(folder), "--format", "safetensors"]) == 0
    assert str(folder / "hub") in capsys.readouterr().out
    ours, images = load_network(folder), torch.rand(2, 2, 16, 24)
    theirs = load_hub(folder / "hub")
    assert not theirs.training and torch.equal(ours(images), theirs(images))
    with safe_open(folder / "hub" / "model.safetensors", "pt") as file:  # by safetensors alone
        assert set(file.keys()) == set(ours.state_dict())
    assert main(["export", str(folder), "--format", "safetensors"]) == 0  # over the earlier one


def test_the_config_says_what_the_hub_asks_for(folder):
    about = json.loads((folder / "network.json").read_text())
    (folder / "network.json").write_text(json.dumps(about | {"classes": ["a", "b"], "metrics": {"val_accuracy": 51.5}}))
    assert main(["export", str(folder), "--format", "safetensors", "--out", str(folder.parent / "out")]) == 0
    config = json.loads((folder.parent / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b"} and config["label2id"] == {"a": 0, "b": 1}
    assert (config["num_channels"], config["image_size"]) == (2, [16, 24])
    card = (folder.parent / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: catchmark\n") and "| val_accuracy | 51.5 |" in card


def test_what_is_not_trusted_is_not_built(folder, capsys):
    from search.deploy.hub import load_hub
    from search.errors import CatchmarkError

    assert main(["export", str(folder), "--format", "safetensors"]) == 0
    path = folder / "hub" / "config.json"
    config = json.loads(path.read_text())
    config["catchmark"]["space"] = {"class_path": "os.system", "init_args": {}}
    path.write_text(json.dumps(config))
    with pytest.raises(CatchmarkError, match=r"os.system"):
        load_hub(folder / "hub")
    path.write_text("{}")
    with pytest.raises(CatchmarkError, match="no file of catchmark's"):
        load_hub(folder / "hub")


def test_what_the_format_has_nothing_to_do_with_is_refused(folder, capsys):
    assert main(["export", str(folder), "--format", "safetensors", "--resolution", "8"]) != 0
    assert "--resolution: --format safetensors writes weights" in capsys.readouterr().err
    (folder.parent / "full").mkdir()
    (folder.parent / "full" / "mine.txt").touch()
    assert main(["export", str(folder), "--format", "safetensors", "--out", str(folder.parent / "full")]) != 0
    assert "holds something else" in capsys.readouterr().err
