"""Rankings: what they measure, once; what they say of it; and going on after a stop."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from search.attributes.base import Attribute
from search.attributes.combination import Combination
from search.cli import main
from search.errors import CatchmarkError, RunError
from search.executors.inline import InlineExecutor
from search.recipes.recipe import load_recipe
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.spaces.residual_backbone import ResidualBackbone
from search.studies.ranking import Ranking
from search.tables.table import read_columns
from search.tasks.table import TableTask

SPACE = NASBench201()
SIZES = {
    "flops": {"class_path": "TableColumn", "init_args": {"table": "nasbench201.npz", "column": "flops_m"}},
    "few": {
        "class_path": "TableColumn",
        "init_args": {"table": "nasbench201.npz", "column": "params_m", "direction": "min"},
    },
}
CIFAR100 = {"table": "nasbench201.npz", "dataset": "cifar100", "split": "test", "metric": "acc", "epochs": 200}
RECIPE = {
    "class_path": "Ranking",
    "init_args": {
        "space": "NASBench201",
        "architectures": 60,
        "attributes": SIZES,
        "combinations": {"both": {"weights": {"flops": 1.0, "few": -0.5}}},
        "truths": {"cifar100": {"class_path": "TableTask", "init_args": CIFAR100}},
        "top": 3,
    },
}


class Convolutions(Attribute):
    """How many edges are convolutions; counts what it was asked, and stops for good where it is told to."""

    name = "convolutions"
    asked: tuple = ()
    stops_at = math.inf

    def measure(self, architectures):
        for each in architectures:
            if len(Convolutions.asked) >= Convolutions.stops_at:
                raise ValueError("out of order")
            Convolutions.asked += (each,)
            yield sum(choice in (2, 3) for choice in each) if any(each) else math.nan


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Convolutions.asked, Convolutions.stops_at = (), math.inf


def rank(tmp_path, *words, recipe=RECIPE, command="rank"):
    path = tmp_path / "sizes.yaml"
    path.write_text(dump_yaml(recipe))
    assert main([command, str(path), "--quiet", "--runs", str(tmp_path / "runs"), *words]) == 0
    folder = tmp_path / "runs" / "sizes" / "latest"
    with (folder / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    return folder, json.loads((folder / "summary.json").read_text()), rows


def test_a_ranking_from_recipe_to_report(tmp_path, capsys):
    folder, summary, rows = rank(tmp_path)
    text = capsys.readouterr().out
    assert len(rows) == 60 == len({row["architecture"] for row in rows})
    columns = {name: np.array([float(row[name]) for row in rows]) for name in ("flops", "few", "both", "cifar100")}
    ranks = {name: stats.rankdata(sign * columns[name]) / 60 for name, sign in (("flops", 1), ("few", -1))}
    assert columns["both"] == pytest.approx(np.log(ranks["flops"]) - 0.5 * np.log(ranks["few"]))
    for name, sign in (("flops", 1), ("few", -1), ("both", 1)):
        entry, truth = summary["attributes"][name], columns["cifar100"]
        assert entry["kendall_tau"]["cifar100"] == pytest.approx(
            stats.kendalltau(sign * columns[name], truth).statistic
        )
        assert entry["spearman"]["cifar100"] == pytest.approx(stats.spearmanr(sign * columns[name], truth).statistic)
    best = np.argsort(-columns["both"], kind="stable")[:3]
    assert [each["architecture"] for each in summary["top"]] == [rows[k]["architecture"] for k in best]
    assert "top 3 of 60 by both:" in text and all(rows[k]["architecture"] in text for k in best)
    task = TableTask(SPACE, **CIFAR100)
    known = task.scores(torch.tensor([SPACE.parse(row["architecture"]) for row in rows]))
    assert columns["cifar100"].tolist() == known.tolist()
    table = read_columns(folder / "ranking.npz", ["flops", "both"])
    assert table.space == "nasbench201" and table.columns["flops"].tolist() == pytest.approx(columns["flops"].tolist())
    page = (folder / "report.html").read_text()
    assert "What orders these architectures best: of cifar100 it is" in page and rows[best[0]]["architecture"] in page
    drawn = sorted(summary["attributes"], key=lambda name: summary["attributes"][name]["kendall_tau"]["cifar100"])
    assert f"Agreement with cifar100, of: {', '.join(drawn)}" in page


def test_run_takes_the_recipe_too_and_rank_takes_no_other(tmp_path, capsys):
    _, by_rank, rows = rank(tmp_path)
    _, by_run, again = rank(tmp_path, command="run")
    assert by_rank == by_run and rows == again
    (tmp_path / "search.yaml").write_text("space: NASBench201\n")
    assert main(["rank", "search.yaml"]) == 2
    assert "it describes Experiment, not a Ranking; run it with 'catchmark run search.yaml'" in capsys.readouterr().err
    assert main(["rank"]) == 2
    runs = sorted(str(path) for path in (tmp_path / "runs" / "sizes").iterdir() if not path.is_symlink())
    assert main(["compare", *runs]) == 2
    assert (
        "ranked architectures; only searches are compared here, attributes in its report.html"
        in capsys.readouterr().err
    )


def ranking(**arguments):
    arguments = {"attributes": {"convolutions": Convolutions}, "architectures": 20, "name": "r"} | arguments
    return Ranking(SPACE, **arguments)


def run(study, folder):
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "journal.sqlite")
    try:
        return study.run(folder, journal)
    finally:
        journal.close()


def test_a_stopped_ranking_goes_on_and_measures_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("search.studies.ranking._COMMIT_SECONDS", 0.0)
    whole = run(ranking(), tmp_path / "whole")
    assert len(Convolutions.asked) == 20
    Convolutions.asked, Convolutions.stops_at = (), 12
    with pytest.raises(RunError, match=r"attributes\.convolutions: it can't be measured of \|.*out of order"):
        run(ranking(), tmp_path / "parts")
    Convolutions.stops_at = math.inf
    assert run(ranking(), tmp_path / "parts") == whole
    assert len(Convolutions.asked) == 20 == len(set(Convolutions.asked))
    for name in ("ranking.csv", "ranking.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert run(ranking(), tmp_path / "parts") == whole and len(Convolutions.asked) == 20


def test_several_workers_measure_the_same(tmp_path):
    """Cells that compute the same are measured by one worker: here the input alone, twice."""
    codes = ((1, 0, 1, 0, 0, 1), (0, 1, 0, 0, 0, 1), (3, 0, 0, 0, 0, 1), (2, 1, 3, 0, 1, 2))
    skips = [SPACE.format(arch) for arch in codes]
    (tmp_path / "cells.txt").write_text("\n".join(skips))
    settings = {
        "space": "NASBench201",
        "attributes": {"synflow": "Synflow", "weight_norm": "WeightNorm", "flops": SIZES["flops"]},
        "architectures": str(tmp_path / "cells.txt"),
        "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 4}},
        "build": {"channels": 4, "cells": 1},
    }
    found = []
    for workers in (1, 2):
        path = tmp_path / f"{workers}.yaml"
        path.write_text(dump_yaml({"class_path": "Ranking", "init_args": settings | {"workers": workers}}))
        study, _ = load_recipe(path)
        found.append(run(study, tmp_path / str(workers)))
        assert [len(wanted) for wanted, _ in study._jobs({})] == [2, 1, 1]
    for each in found:
        each.pop("name")
    assert found[0] == found[1]


def test_a_finished_ranking_is_reported_without_its_file_of_architectures(tmp_path, capsys):
    cells = tmp_path / "cells.txt"
    cells.write_text("\n".join(SPACE.format(SPACE.draw(k)) for k in range(5)))
    settings = RECIPE["init_args"] | {"architectures": str(cells)}
    folder, summary, rows = rank(tmp_path, recipe=RECIPE | {"init_args": settings})
    cells.unlink()
    page = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0 and (folder / "report.html").read_text() == page
    assert summary["planned"] == len(rows) == 5 and summary["attributes"]["flops"]["kendall_tau"] == {"cifar100": None}


def test_what_has_no_value_is_last_and_has_no_cell(tmp_path):
    (tmp_path / "cells.txt").write_text(f"{SPACE.format((0,) * 6)}  # nothing\n\n{SPACE.format((3,) * 6)}\n")
    study = ranking(architectures="cells.txt", top=2)
    summary = run(study, tmp_path / "run")
    assert [each["values"]["convolutions"] for each in summary["top"]] == [6.0, None]
    assert summary["attributes"]["convolutions"]["architectures"] == 1 and summary["planned"] == 2
    assert (tmp_path / "run" / "ranking.csv").read_text().splitlines()[1] == f"{SPACE.format((0,) * 6)},"


def test_all_of_a_space_and_draws_that_every_truth_knows():
    assert len(ranking(architectures="all").architectures) == 15625
    archs = torch.cartesian_prod(*(torch.arange(5),) * 6).numpy()
    some = archs[::3]

    def third(space):
        task = TableTask(space, **CIFAR100)
        kept = set(SPACE.code(torch.from_numpy(some)).tolist())
        task._scores = torch.where(
            torch.tensor([code in kept for code in task._codes.tolist()]), task._scores, math.nan
        )
        return task

    drawn = ranking(truths={"third": third}).architectures
    assert len(drawn) == 20 and {tuple(arch) for arch in drawn} <= {tuple(arch) for arch in some.tolist()}
    assert ranking(truths={"third": third}).architectures == drawn != ranking(seed=1).architectures


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"attributes": {}}, "attributes: at least one is needed"),
        ({"architectures": 0}, "architectures is 0, it must be at least 1"),
        ({"workers": 0}, "workers is 0, it must be at least 1"),
        ({"workers": 2, "executor": InlineExecutor()}, "workers is 2, and there is an executor"),
        ({"order": "convolution"}, r"order: there is no 'convolution'.*'convolutions'"),
        ({"combinations": {"a": Combination(members=["flosp"])}}, "combinations.a: there is no attribute 'flosp'"),
        ({"combinations": {"convolutions": Combination(members=["convolutions"])}}, "'convolutions' names two of"),
        ({"attributes": {"arch": Convolutions}}, "the name 'arch' is taken"),
    ],
)
def test_what_can_not_be_ranked_is_refused(arguments, said):
    with pytest.raises((CatchmarkError, ValueError), match=said):
        ranking(**arguments)


def test_architectures_that_are_not_there_are_said_to_be(tmp_path):
    with pytest.raises(CatchmarkError, match=r"has too many to list, .* combinations of choices; say how many to draw"):
        _ = Ranking(ResidualBackbone(), {"convolutions": Convolutions}).architectures
    with pytest.raises(CatchmarkError, match=r"'cells\.txt' is neither 'all', nor a number, nor a file"):
        _ = ranking(architectures="cells.txt").architectures
    (tmp_path / "cells.txt").write_text("\nnone\n")
    with pytest.raises(CatchmarkError, match=r"line 2 of 'cells\.txt': nasbench201: 'none' has 1 nodes"):
        _ = ranking(architectures="cells.txt").architectures
    (tmp_path / "cells.txt").write_text("# none yet\n")
    with pytest.raises(CatchmarkError, match=r"'cells\.txt' has none"):
        _ = ranking(architectures="cells.txt").architectures


def test_proxies_share_the_data_and_the_size_of_the_ranking(tmp_path):
    proxies = {
        "snip": "Snip",
        "nwot": {"class_path": "Nwot", "init_args": {"data": {"class_path": "DigitsDataModule"}}},
        "parameters": "Parameters",
    }
    settings = {
        "space": "NASBench201",
        "attributes": proxies,
        "architectures": 2,
        "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 4}},
        "build": {"channels": 4, "cells": 1},
    }
    path = tmp_path / "proxies.yaml"
    path.write_text(dump_yaml({"class_path": "Ranking", "init_args": settings}))
    study, _ = load_recipe(path)
    snip, nwot, parameters = study.attributes.values()
    assert snip.data.batch_size == 4 and nwot.data.batch_size == 128
    assert snip.build == nwot.build == parameters.build == {"channels": 4, "cells": 1}
    assert snip.kinship() != nwot.kinship()
    summary = run(study, tmp_path / "run")
    assert all(entry["architectures"] == 2 for entry in summary["attributes"].values())
