"""Studies of supernets: whole runs on the embedded digits, through the command line."""

import itertools
import json
import math
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.uniform import UniformSampler
from search.attributes.base import Attribute
from search.cli import main
from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.recipes.recipe import load_recipe
from search.recipes.trust import trust_of
from search.reports.supernet_verdict import landmark_pairs
from search.results.comparison import compare_runs
from search.results.landmark_references import PROCESS, WITH_ATTRIBUTES, landmark_predictions
from search.results.search import without_seconds
from search.runs.journal import Journal
from search.spaces.base import SearchSpace
from search.spaces.nasbench201 import NASBench201
from search.studies.shared_weights import SharedWeightsTask
from search.studies.supernet_job import checkpoint_of, read_outcome
from search.tasks.base import OneByOne
from tests.search.distributed.ranks import start_command
from tests.search.listeners.wandb.test_searches import logged

SAMPLER = {"class_path": "UniformSampler", "init_args": {"population": 3, "tournament": 2, "budget": 6}}


class ConvolutionsTask(OneByOne):
    """What stands in for stand-alone training: 3x3 convolutions count two, 1x1 ones one."""

    score_name = "convolutions"
    instant = True

    def __init__(self, space):
        self.space = space
        if number := os.environ.pop("DIE_AFTER", None):
            die_amid_an_epoch(int(number))

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        return Evaluation(sum({2: 1.0, 3: 2.0}.get(choice, 0.0) for choice in architecture))


class OneOperationSampler(UniformSampler):
    """Every path has one operation throughout, chosen by what a list, an array or a private attribute holds.

    Args:
        space: what can be sampled.
        listed: operations to choose from; kept as a list.
        ordered: kept as an array.
        hidden: kept in a private attribute.
    """

    def __init__(self, space: SearchSpace, listed: list[int], ordered: list[int], hidden: int = 0):
        super().__init__(space, population=3, tournament=2, budget=6)
        self.listed, self.ordered, self._hidden = listed, np.array(ordered), hidden

    def path(self, seed, step, index=0):
        place = int(self.ordered[(step + self._hidden) % len(self.ordered)])
        return Path((self.listed[place],) * len(self.space.sizes))


def recipe(tmp_path, **changes):
    """A study that takes seconds."""
    content = {
        "class_path": "SupernetStudy",
        "init_args": {
            "space": "NASBench201",
            "truth": "tests.search.studies.test_supernet_study.ConvolutionsTask",
            "data": {
                "class_path": "ThreePartsDataModule",
                "init_args": {
                    "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 64}},
                    "evaluation_images": 64,
                    "images": 640,
                },
            },
            "settings": {"epochs": 4},
            "build": {"channels": 2, "cells": 1},
            "methods": {
                "spos": {"sampler": SAMPLER, "found": 2},
                "spos_landmarks": {
                    "sampler": SAMPLER,
                    "found": 2,
                    "landmarks": {"warmup": 2},
                    "landmarks_from": {"count": 5},
                },
            },
            "measured": 8,
            "measurements": 2,
            "threads": 1,
        },
    }
    content["init_args"] |= changes
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)


def run(path, runs, *more):
    assert main(["run", str(path), "--quiet", "--runs", str(runs), *more]) == 0
    folder = (runs / "study" / "latest").resolve()
    return folder, json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the summary of the recipe's run, for all who only look at it."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.chdir(place)
        return run(recipe(place), place / "runs")


def timeless(summary):
    """A summary without what depends on the clock."""
    content = without_seconds(summary)
    for method in content["methods"].values():
        method.pop("seconds", None)
    return content


def weights_of(folder, place):
    return torch.load(checkpoint_of(folder, place), weights_only=True)["state_dict"]


class Convolutions(Attribute):
    """How many there are: what the truth counts, so that it ranks all but perfectly."""

    name = "convolutions"

    def measure(self, architectures):
        """Counted."""
        return [sum(choice in (2, 3) for choice in arch) for arch in architectures]


class FirstChoice(Attribute):
    """Of no use, and better where it is lower."""

    name, direction = "first choice", "min"

    def measure(self, architectures):
        """The choice of the first decision."""
        return [arch[0] for arch in architectures]


def assert_orders_are_those_of_the_journal(folder, summary, stages=None, measured=8, epochs=4, attributes=False):
    """By score, by loss, by process, and by loss and process together, from the records alone.

    Args:
        folder: of the run.
        summary: of it.
        stages: of the landmarks of methods that don't have all of them.
        measured: architectures.
        epochs: of the training.
        attributes: whether the study has `Convolutions` and `FirstChoice`.
    """
    journal, space = Journal(folder / "journal.sqlite", writable=False), NASBench201()
    alone = list(journal.records("stand_alone"))
    truths = {each.architecture: each.evaluation.score for each in alone if each.stage == "measured"}
    archs = list(truths)
    everything = [each for each in alone if each.stage.startswith("landmark")]
    assert summary["landmarks_of_trials"] == [len({each.architecture for each in everything})]
    known, key = ([Convolutions(space), FirstChoice(space)], PROCESS + WITH_ATTRIBUTES) if attributes else ([], PROCESS)
    if attributes:
        said = [(-1) ** k * np.array(each.measure(archs)) for k, each in enumerate(known)]
        both = sum(stats.norm.ppf((stats.rankdata(each) - 0.5) / measured) for each in said)
        expected = stats.kendalltau([truths[arch] for arch in archs], both).statistic
        assert summary["without_supernet"]["attributes together"]["kendall_tau"]["mean"] == pytest.approx(expected)
    for name, method in summary["methods"].items():
        landmarks = [each for each in everything if each.stage == (stages or {}).get(name, each.stage)]
        process = landmark_predictions(
            space,
            [each.architecture for each in landmarks],
            [each.evaluation.score for each in landmarks],
            archs,
            known,
        )[key]
        last = [r for r in journal.records(name) if r.stage == f"measured after epoch {epochs}"]
        said = {r.architecture: r.evaluation for r in last}
        losses = np.array([said[arch].metrics["loss"] for arch in archs])
        together = sum(stats.norm.ppf((stats.rankdata(each) - 0.5) / measured) for each in (-losses, process))
        for order, values in (
            ("kendall_tau", [said[arch].score for arch in archs]),
            ("kendall_tau_by_loss", -losses),
            ("kendall_tau_with_process", together),
            ("kendall_tau_of_process", process),
        ):
            if order == "kendall_tau_of_process" and not method["landmarks"][0]:
                assert method[order]["mean"] is None
                continue
            expected = stats.kendalltau([truths[arch] for arch in archs], values).statistic
            assert method[order]["mean"] == pytest.approx(expected), order
    journal.close()


class NoisyTask(ConvolutionsTask):
    """The same with luck in it, a third of what a convolution is worth."""

    def evaluate_one(self, proposal):
        sure = super().evaluate_one(proposal)
        return replace(sure, score=sure.score + proposal.seed % 1000 / 3000)


def test_a_truth_of_several_seeds_says_how_far_these_agree(tmp_path):
    truth = {"class_path": "RepeatedTask", "init_args": {"task": f"{NoisyTask.__module__}.NoisyTask", "seeds": 3}}
    methods = {"random": {"sampler": {"class_path": "RandomNASSampler", "init_args": {"candidates": 2}}, "found": 1}}
    path = recipe(tmp_path, truth=truth, methods=methods, settings={"epochs": 1}, measurements=1, trials=2)
    folder, summary = run(path, tmp_path / "runs")
    journal = Journal(folder / "journal.sqlite", writable=False)
    alone = [each for each in journal.records("stand_alone") if each.stage == "measured"]
    journal.close()
    expected = []
    for trial in range(2):
        metrics = [each.evaluation.metrics for each in alone if each.trial == trial]
        columns = [[each[f"score of seed {number}"] for each in metrics] for number in (1, 2, 3)]
        expected.append(np.mean([stats.kendalltau(*pair).statistic for pair in itertools.combinations(columns, 2)]))
    assert summary["truth_agreement"]["trials"] == pytest.approx(expected)
    assert 0.3 < min(expected) < max(expected) < 1
    assert "the rest is luck" in (folder / "report.html").read_text()


def test_a_run_says_what_its_methods_are_worth(whole):
    folder, summary = whole
    assert list(summary["methods"]) == ["spos", "spos_landmarks"]
    for method in summary["methods"].values():
        assert [entry["epoch"] for entry in method["rounds"]] == [2, 4]
        assert -1 <= method["s_kdt"]["mean"] <= 1 and method["s_kdt"]["mean"] == method["rounds"][-1]["s_kdt"]["mean"]
        (found,) = method["found"]
        space = NASBench201()
        worth = [
            ConvolutionsTask(space).evaluate_one(Proposal(space.parse(text))).score for text in found["architectures"]
        ]
        assert found["stand_alone"] == worth and len(worth) == 2
        assert found["best"] == max(worth) and found["first"] == worth[0]
    assert set(summary["without_supernet"]) == {
        "FLOPs",
        "parameters",
        "random forest on the landmarks",
        "ridge on the landmarks",
        "Gaussian process on the landmarks",
    }
    assert_orders_are_those_of_the_journal(folder, summary)
    # Convolutions are what parameters count, so this ranking is nearly perfect: the comparison is a hard one.
    assert summary["without_supernet"]["parameters"]["kendall_tau"]["mean"] > 0.8
    journal = Journal(folder / "journal.sqlite", writable=False)
    stages = {(record.stage, record.architecture) for record in journal.records("stand_alone")}
    landmarks = {arch for stage, arch in stages if stage.startswith("landmark")}
    measured = {arch for stage, arch in stages if stage == "measured"}
    assert (len(landmarks), len(measured)) == (5, 8) and not landmarks & measured
    journal.close()


def test_warmups_in_common_change_nothing(whole, tmp_path):
    shared, alone = whole, run(recipe(tmp_path, share_warmups=False), tmp_path / "b")
    assert timeless(shared[1]) == timeless(alone[1])
    assert (shared[0] / "supernets").exists() and len(list((alone[0] / "supernets").iterdir())) == 2
    for place in ("spos-0", "spos_landmarks-0"):
        ours, theirs = weights_of(shared[0], place), weights_of(alone[0], place)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_methods_that_differ_in_what_they_choose_train_once_and_have_a_supernet_each(tmp_path):
    methods = {"one": {"sampler": SAMPLER, "found": 1}, "two": {"sampler": SAMPLER, "found": 2}}
    path = recipe(tmp_path, methods=methods, settings={"epochs": 2}, measurements=1)
    folder, summary = run(path, tmp_path / "shared")
    alone, expected = run(path, tmp_path / "alone", "--share_warmups", "false")
    assert timeless(summary) == timeless(expected)
    for name, found in (("one", 1), ("two", 2)):
        outcome = read_outcome(checkpoint_of(folder, f"{name}-0"))
        assert (outcome.epochs, len(outcome.history), len(outcome.found)) == (2, 2, found)
        ours, theirs = weights_of(folder, f"{name}-0"), weights_of(alone, f"{name}-0")
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def one_operation(**differing):
    return {
        "class_path": "tests.search.studies.test_supernet_study.OneOperationSampler",
        "init_args": {"listed": [0, 3], "ordered": [0, 1], "hidden": 0} | differing,
    }


def test_samplers_that_differ_in_anything_share_no_warmup(tmp_path):
    landmarks = {"landmarks": {"warmup": 1}, "landmarks_from": {"count": 5}}
    methods = {
        "one": {"sampler": one_operation()},
        "same": {"sampler": one_operation(), **landmarks},
        "list": {"sampler": one_operation(listed=[3, 0]), **landmarks},
        "array": {"sampler": one_operation(ordered=[1, 0]), **landmarks},
        "private": {"sampler": one_operation(hidden=1), **landmarks},
    }
    path = recipe(tmp_path, methods=methods, settings={"epochs": 2}, measurements=1)
    study, _ = load_recipe(path)
    assert landmark_pairs(study) == [("one", "same")]
    folder, summary = run(path, tmp_path / "shared")
    places = {each.name for each in (folder / "supernets").iterdir()}
    assert places == {f"{method}-0" for method in methods} | {"warmup.one-1-0"}
    alone, expected = run(path, tmp_path / "alone", "--share_warmups", "false")
    assert timeless(summary) == timeless(expected)
    ones, others = weights_of(alone, "same-0"), weights_of(alone, "private-0")
    assert any(not torch.equal(ones[key], others[key]) for key in ones)  # what differs makes a difference


def test_methods_that_draw_alike_have_as_many_landmarks_as_each_asks_for(tmp_path):
    of = {"sampler": SAMPLER, "landmarks": {"warmup": 1}}
    methods = {"few": of | {"landmarks_from": {"count": 5}}, "many": of | {"landmarks_from": {"count": 12}}}
    study, _ = load_recipe(recipe(tmp_path, methods=methods))
    assert study.landmark_key("few") == study.landmark_key("many")
    drawn = [((k,) * 6, float(k)) for k in range(12)]
    truth = {study.landmark_key("few"): drawn, "measured": []}
    assert study._job("few", 0, truth).landmarks == drawn[:5] and study._job("many", 0, truth).landmarks == drawn


def test_methods_that_train_otherwise_have_no_landmark_pair(tmp_path):
    landmarks = {"sampler": SAMPLER, "landmarks": {"warmup": 1}}
    for change, pairs in [
        ({}, [("plain", "with")]),
        ({"found": 3}, [("plain", "with")]),
        ({"settings": {"epochs": 4}}, [("plain", "with")]),  # said again, not changed
        ({"build": {"cells": 1, "channels": 2}}, [("plain", "with")]),
        ({"settings": {"epochs": 5}}, []),
        ({"build": {"cells": 1, "channels": 4}}, []),
        ({"sampler": {**SAMPLER, "init_args": SAMPLER["init_args"] | {"budget": 7}}}, []),
        ({"sampler": "RandomNASSampler"}, []),
    ]:
        study, _ = load_recipe(recipe(tmp_path, methods={"plain": {"sampler": SAMPLER}, "with": landmarks | change}))
        assert landmark_pairs(study) == pairs, change


class _Stop:
    """A listener that stops a run as Ctrl+C does, once so many epochs have been trained."""

    def __init__(self, epochs):
        self.left = epochs

    def trained(self, name, epochs, values, new, trial):
        self.left -= epochs
        if self.left < 0:
            raise KeyboardInterrupt

    def training_ended(self, name, trial, history):
        pass


@pytest.mark.parametrize("epochs", [3, 7])
def test_a_run_whose_warmup_lies_elsewhere_goes_on(tmp_path, epochs):
    """Earlier versions named warm-ups by a hash: not found any more, at most a warm-up is trained once more."""
    study, _ = load_recipe(recipe(tmp_path))
    ends = []
    for stops in ([], [epochs]):
        folder = tmp_path / f"run{len(stops)}"
        folder.mkdir()
        journal = Journal(folder / "journal.sqlite")
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                study.run(folder, journal, [_Stop(stop)])
            (folder / "supernets" / "warmup.spos-2-0").rename(folder / "supernets" / "warmup-5b0c9e1f-2-0")
        ends.append(timeless(study.run(folder, journal)))
        journal.close()
    assert ends[0] == ends[1]
    begun = (folder / "supernets" / "warmup.spos-2-0").exists()
    assert begun == (epochs < 7)  # both had begun on their own: there was nothing left to share


def check_wandb(folder):
    """Each training is one W&B run that has every epoch once, the warm-up's too."""
    runs = {each.run.display_name: each for each in logged(folder)}
    assert set(runs) == {"study/spos/0", "study/spos_landmarks/0"} and len(logged(folder)) == 2
    for method in ("spos", "spos_landmarks"):
        found = runs[f"study/{method}/0"]
        history = read_outcome(checkpoint_of(folder, f"{method}-0")).history
        assert found.points == [{"epoch": 1 + k, **values} for k, values in enumerate(history)] and len(history) == 4
        assert ["s_kdt" in values for values in history] == [False, True, False, True]
        assert ["landmark_penalty" in values for values in history] == [False] * 2 + [method != "spos"] * 2
        assert (found.run.job_type, found.run.run_group) == (method, "study")
        assert list(found.run.tags) == ["nasbench201", method, "seed 0"] and found.exits[0].exit_code == 0
    assert history[3]["loss"] < history[0]["loss"]


def start(server, path, runs, *words, **environment):
    """Run a study in a process of its own; its exit code."""
    command = ["run", path, "--quiet", "--runs", runs, *words]
    return server.wait(start_command(server, path.parent, command, {"WANDB_MODE": "offline", **environment}))


def test_several_workers_give_the_same(server, whole, tmp_path):
    runs = tmp_path / "runs"
    assert start(server, recipe(tmp_path), runs, "--workers", 2) == 0, (tmp_path / "0.out").read_text()
    folder = (runs / "study" / "latest").resolve()
    check_wandb(folder)
    assert timeless(json.loads((folder / "summary.json").read_text())) == timeless(whole[1])


def die_amid_an_epoch(number):
    """Kill this very process, all of it, soon after so many checkpoints were put in place."""
    plain, puts = os.replace, 0

    def replace(source, target):
        nonlocal puts
        plain(source, target)
        puts += FilePath(target).name == "last.ckpt"
        if puts == number:
            threading.Timer(0.005 * puts, os.kill, (os.getpid(), signal.SIGKILL)).start()

    os.replace = replace


def test_killed_at_any_epoch_and_resumed_it_ends_the_same(server, whole, tmp_path):
    folder, expected = whole
    path = recipe(tmp_path)
    place = tmp_path / "killed" / "study" / "latest"
    for epochs in (1, 2, 3):
        resume = ["--resume"] if place.exists() else []
        code = start(server, path, tmp_path / "killed", *resume, DIE_AFTER=str(epochs))
        assert code == -signal.SIGKILL, (tmp_path / "0.out").read_text()
    assert start(server, path, tmp_path / "killed", "--resume") == 0, (tmp_path / "0.out").read_text()
    assert timeless(json.loads((place / "summary.json").read_text())) == timeless(expected)
    check_wandb(place.resolve())
    ours, theirs = weights_of(place, "spos_landmarks-0"), weights_of(folder, "spos_landmarks-0")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_iterations_add_landmarks_that_are_trained(tmp_path):
    methods = {
        "spos_landmarks": {
            "sampler": SAMPLER,
            "landmarks": {"warmup": 1},
            "landmarks_from": {"count": 5, "iterations": 3, "added": 2},
        }
    }
    folder, summary = run(recipe(tmp_path, methods=methods), tmp_path / "runs")
    assert summary["methods"]["spos_landmarks"]["landmarks_added"] == [4]
    journal = Journal(folder / "journal.sqlite", writable=False)
    added = [record for record in journal.records("spos_landmarks") if record.stage == "added landmark"]
    journal.close()
    task = ConvolutionsTask(NASBench201())
    assert [r.evaluation.score for r in added] == [task.evaluate_one(Proposal(r.architecture)).score for r in added]
    assert len({record.architecture for record in added}) == 4


def test_a_method_stands_beside_a_process_on_its_own_landmarks(tmp_path):
    """One with random landmarks and one with diverse ones: neither is to be measured by what both sets say."""
    landmarks = {"sampler": SAMPLER, "found": 1, "landmarks": {"warmup": 1}}
    methods = {
        "spos": {"sampler": SAMPLER, "found": 1},
        "few": {**landmarks, "landmarks_from": {"count": 5}},
        "diverse": {**landmarks, "landmarks_from": {"count": 7, "how": "hamming", "tau": 3}},
    }
    attributes = {"convolutions": f"{__name__}.Convolutions", "first": f"{__name__}.FirstChoice"}
    path = recipe(tmp_path, methods=methods, measured=10, measurements=1, settings={"epochs": 2}, attributes=attributes)
    folder, summary = run(path, tmp_path / "runs")
    assert {name: each["landmarks"] for name, each in summary["methods"].items()} == {
        "spos": [0],
        "few": [5],
        "diverse": [7],
    }
    assert_orders_are_those_of_the_journal(
        folder, summary, {"few": "landmark random", "diverse": "landmark hamming 3"}, 10, 2, attributes=True
    )
    assert "fitted to all 12 of a trial, where no method has more than 7" in (folder / "report.html").read_text()


def test_any_agent_searches_on_a_trained_supernet(whole, tmp_path):
    folder, _ = whole
    with trust_of(__name__).held():
        task = SharedWeightsTask(NASBench201(), str(folder), "spos_landmarks")
    journal = Journal(folder / "journal.sqlite", writable=False)
    records = [r for r in journal.records("spos_landmarks") if r.stage == "measured after epoch 4"]
    journal.close()
    for record in records:  # the very scores that the study measured
        evaluation = task.evaluate_one(Proposal(record.architecture, seed=7))
        assert evaluation.score == pytest.approx(record.evaluation.score, abs=1e-4)
        assert evaluation.metrics["loss"] == pytest.approx(record.evaluation.metrics["loss"], abs=1e-4)
    content = {
        "space": "NASBench201",
        "targets": {
            "supernet": {
                "class_path": "SharedWeightsTask",
                "init_args": {"run": str(folder), "method": "spos_landmarks", "images": 32},
            }
        },
        "agents": {"random": "RandomSearch", "catch": "CATCHer", "evolution": "RegularizedEvolution"},
        "budget": 8,
    }
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(content))
    words = ["run", str(path), "--quiet", "--runs", str(tmp_path / "runs")]
    assert main(words) == 2  # a run's folder is data, and this one names a class of ours
    assert main([*words, "--trust", __name__]) == 0
    summary = json.loads((tmp_path / "runs" / "search" / "latest" / "summary.json").read_text())
    agents = summary["targets"]["supernet"]["agents"]
    assert all(agent["failed"] == 0 and agent["evaluations"] == 8 for agent in agents.values())


def test_landmarks_that_a_user_has_trained(tmp_path):
    space = NASBench201()
    lines = ["architecture,worth", *(f"{space.format(space.draw(k))},{k}" for k in range(4))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    methods = {
        "mine": {"sampler": SAMPLER, "landmarks": {"warmup": 1}, "landmarks_from": {"file": str(tmp_path / "mine.csv")}}
    }
    _, summary = run(recipe(tmp_path, methods=methods), tmp_path / "runs")
    assert summary["methods"]["mine"]["trials"] == 1
    (tmp_path / "mine.csv").write_text("architecture,worth\nnonsense,1\n")
    with pytest.raises(CatchmarkError, match=r"line 2 of .* is not 'architecture,worth'"):
        main_raising(recipe(tmp_path, methods=methods), tmp_path / "again")


def main_raising(path, runs):
    from search.commands.run import run_recipe

    run_recipe(path, {}, runs, quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "methods: at least one is needed"),
        ({"measured": 1}, "measured is 1, it must be at least 2"),
        ({"data": "DigitsDataModule"}, "wrap DigitsDataModule in ThreePartsDataModule"),
        (
            {"methods": {"a": {"sampler": SAMPLER, "landmarks": {"warmup": 4}}}},
            "methods.a.landmarks.warmup is 4, of 4 epochs",
        ),
        ({"methods": {"a": {"sampler": "UniformSample"}}}, "there is no PathSampler 'UniformSample'"),
        ({"methods": {"a": {"sampler": SAMPLER, "landmarks": {"penalty": "hing"}}}}, "penalty is 'hing'"),
    ],
)
def test_what_a_recipe_can_get_wrong(tmp_path, changes, message):
    with pytest.raises(CatchmarkError, match=message):
        load_recipe(recipe(tmp_path, **changes))


def test_a_damaged_checkpoint_is_named(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    path = checkpoint_of(folder, "spos-0")
    path.write_bytes(path.read_bytes()[:1000])
    words = f"{path} is not a checkpoint of this supernet, or damaged"
    with trust_of(__name__).held(), pytest.raises(CatchmarkError, match=words):
        SharedWeightsTask(NASBench201(), str(folder), "spos")


def test_runs_of_supernets_are_not_compared_as_searches(whole, tmp_path):
    folder, _ = whole
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(CatchmarkError, match="trained supernets; only searches are compared"):
        compare_runs([folder, tmp_path / "other"])


def test_an_accuracy_that_is_no_number_ranks_last():
    from search.studies.supernet_records import evaluation_of

    assert evaluation_of(math.nan, {}).status == "failed"
