"""``catchmark train RUN --front``: every network of a run's front is trained, and a page has a line for each."""

import json

import pytest

from search.cli import main
from search.deploy import load_network
from search.deploy.choice import Request
from search.deploy.front import FRONT, read_front
from search.errors import CatchmarkError
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from tests.search.deploy.test_training import training

TARGET = {
    "class_path": "LatencyRewardTask",
    "init_args": {
        "quality": {
            "table": "nasbench201.npz",
            "dataset": "cifar10_valid",
            "split": "val",
            "metric": "acc",
            "epochs": 12,
        },
        "latency_table": "nasbench201_latency.npz",
        "device": "fpga",
        "exponent": -0.07,
    },
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two agents on a table, and a file that says how to train what they found."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    agents = {"random": "RandomSearch", "nsga2": "NSGA2"}
    recipe = {"space": "NASBench201", "agents": agents, "budget": 4, "targets": {"fpga": TARGET}}
    (tmp_path / "toy.yaml").write_text(dump_yaml(recipe))
    (tmp_path / "task.yaml").write_text(dump_yaml(training(epochs=1)))
    assert main(["run", "toy.yaml", "--quiet"]) == 0
    return tmp_path / "runs" / "toy" / "latest"


def best_trade_offs(run):
    """(architecture, quality, latency) that nothing else evaluated beats, by the definition."""
    journal = Journal(run / "journal.sqlite", writable=False)
    records = [record for agent in ("random", "nsga2") for record in journal.records(f"fpga/{agent}")]
    journal.close()
    found = {r.architecture: (r.evaluation.metrics["quality"], -r.evaluation.metrics["latency_ms"]) for r in records}
    return {
        arch
        for arch, (quality, fast) in found.items()
        if not any(q >= quality and f >= fast and (q, f) != (quality, fast) for q, f in found.values())
    }


def test_every_network_of_the_front_is_trained_and_listed(run, tmp_path, capsys):
    expected = best_trade_offs(run)
    assert main(["train", str(run), "--front", "--task", "task.yaml", "--quiet"]) == 0
    page = run / FRONT / "fpga" / "front.html"
    assert f"{len(expected)} networks\nreport: " in capsys.readouterr().out
    table = json.loads((page.parent / "front.json").read_text())
    folders = [page.parent / row["folder"] for row in table["networks"]]
    assert sorted(path for path in page.parent.iterdir() if path.is_dir()) == sorted(set(folders))
    abouts = [json.loads((folder / "network.json").read_text()) for folder in folders]
    assert {tuple(about["choices"]) for about in abouts} == expected and len(abouts) == len(expected) > 1
    assert load_network(folders[0]) is not None
    text = page.read_text()
    for row, about in zip(table["networks"], abouts, strict=True):
        assert row["full"] == about["metrics"]["val_accuracy"] and row["architecture"] == about["architecture"]
        assert f'href="{row["folder"]}/report.html"' in text and (page.parent / row["folder"] / "report.html").is_file()
    qualities = [row["objectives"]["quality"] for row in table["networks"]]
    assert qualities == sorted(qualities, reverse=True) and table["objectives"] == {
        "quality": "max",
        "latency_ms": "min",
    }
    # The same again trains nothing anew.
    stamps = [(folder / "network.json").stat().st_mtime_ns for folder in folders]
    assert main(["train", str(run), "--front", "--task", "task.yaml", "--quiet"]) == 0
    assert stamps == [(folder / "network.json").stat().st_mtime_ns for folder in folders]


def test_what_has_no_front_is_refused_in_one_line(run, tmp_path, capsys):
    assert main(["train", str(run), "--front", "--agent", "nsga2"]) == 2
    assert "neither --agent nor --architecture" in capsys.readouterr().err
    with pytest.raises(CatchmarkError, match=r"there is no target 'fgpa'.*fpga"):
        read_front(Request(run, "fgpa"))
    with pytest.raises(CatchmarkError, match="is not a run folder"):
        read_front(Request(tmp_path))
    recipe = {"space": "NASBench201", "agents": {"random": "RandomSearch"}, "budget": 2}
    targets = {"acc": {"class_path": "TableTask", "init_args": TARGET["init_args"]["quality"]}}
    (tmp_path / "single.yaml").write_text(dump_yaml(recipe | {"targets": targets}))
    assert main(["run", "single.yaml", "--quiet"]) == 0
    with pytest.raises(CatchmarkError, match="the target 'acc' has no objectives to choose between"):
        read_front(Request(tmp_path / "runs" / "single" / "latest"))
