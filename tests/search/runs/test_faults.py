"""Files that are damaged, made to do harm, or can't be written: nothing in them runs, nothing is lost, a line says why.

Other faults have their tests beside what they hit; `experiments/launch/FAULTS.md` names them all.
"""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import zipfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import pytest
import torch

from datamodules.npz import load_npz
from lightning_modules.classification import ClassificationModule
from lightning_modules.path_samplers.uniform import UniformSampler
from search.agents.catcher.agent import CATCHer
from search.agents.catcher.settings import CatcherSettings
from search.cli import main
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation
from search.recipes.yaml_text import dump_yaml
from search.runs.journal import Journal, to_bytes
from search.runs.journal_format import seal
from search.runs.locking import FileLock
from search.spaces.nasbench201 import NASBench201
from search.tables import CONVERTERS
from search.tables.latency import read_latency
from search.tables.table import write_table
from search.tasks.base import OneByOne, TaskPool
from search.training.tensor_files import save_tensors

SPACE = NASBench201()
DIGITS = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 300}}
SMALL = {"hidden": 16, "candidates": 8, "initial_networks": 2, "policy_updates": 1, "evaluator_updates": 1}
HERE = "tests.search.runs.test_faults"
END, PROOF = "CATCHMARK_TEST_END", "CATCHMARK_TEST_PROOF"


# ---- runs that stop in the middle ----------------------------------------------------------------------------------


def be_terminated():
    """As a scheduler does it."""
    if END in os.environ:
        os.kill(os.getpid(), signal.SIGTERM)


class Sampler(UniformSampler):
    """Its training is terminated in the third epoch; one batch is all there is to one."""

    def path(self, seed, step, index=0):
        if step == 2:
            be_terminated()
        return super().path(seed, step, index)


class Module(ClassificationModule):
    """Its training is terminated in the second epoch."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            be_terminated()


class Count(OneByOne):
    """Counts convolutions; the search is terminated at the sixth evaluation."""

    made = 0

    def __init__(self, space):
        self.space = space

    def evaluate_one(self, proposal):
        architecture = proposal.architecture
        Count.made += 1
        if Count.made == 6:
            be_terminated()
        return Evaluation(float(sum(choice in (2, 3) for choice in architecture)), cost_seconds=1.0)


class Pool(TaskPool):
    """Always the same task."""

    def __init__(self, space):
        self.space = space

    def draw(self, index, seed):
        return Count(self.space)


TRAINING = {
    "class_path": "TrainedTask",
    "init_args": {
        "data": DIGITS,
        "module": {"class_path": f"{HERE}.Module"},
        "epochs": 2,
        "build": {"channels": 2, "cells": 1},
        "threads": 1,
        "trainer": {"accelerator": "cpu"},
    },
}
RECIPES = {
    "supernet": {
        "class_path": "SupernetStudy",
        "init_args": {
            "space": "NASBench201",
            "truth": f"{HERE}.Count",
            "data": {"class_path": "ThreePartsDataModule", "init_args": {"data": DIGITS, "evaluation_images": 64}},
            "settings": {"epochs": 3},
            "build": {"channels": 2, "cells": 1},
            "methods": {
                "spos": {
                    "sampler": {
                        "class_path": f"{HERE}.Sampler",
                        "init_args": {"population": 3, "tournament": 2, "budget": 3},
                    },
                    "found": 1,
                }
            },
            "measured": 3,
            "threads": 1,
        },
    },
    "training": {
        "space": "NASBench201",
        "targets": {"digits": TRAINING},
        "agents": {"random": "RandomSearch"},
        "budget": 1,
    },
    "agent": {
        "space": "NASBench201",
        "targets": {"count": {"class_path": f"{HERE}.Count"}},
        "agents": {"catch": {"class_path": "CATCHer", "init_args": {"settings": SMALL}}},
        "budget": 8,
    },
}
RECIPES["meta"] = RECIPES["agent"] | {
    "meta_training": {"pool": {"class_path": f"{HERE}.Pool"}, "agents": ["catch"], "epochs": 1, "networks": 3}
}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv(PROOF, str(tmp_path / "executed"))
    monkeypatch.setattr(Count, "made", 0)


def in_a_process(output, *words, **variables):
    """A command in a process of its own, forked so that it need not import everything; its exit code."""
    if (child := os.fork()) == 0:
        code = 99
        try:
            torch.set_num_threads(1)
            os.environ |= {"WANDB_MODE": "disabled", **variables}
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with open(output, "a") as file, redirect_stdout(file), redirect_stderr(file):
                code = main([*map(str, words)])
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """Runs that were terminated, by the names of their recipes, and what was said of it; a network's training too."""
    root, folders, said = tmp_path_factory.mktemp("runs"), {}, {}
    for name, recipe in RECIPES.items():
        (root / f"{name}.yaml").write_text(dump_yaml(recipe))
        output, ending = root / f"{name}.txt", {} if name == "training" else {END: "1"}
        code = in_a_process(output, "run", root / f"{name}.yaml", "--runs", root / "runs", "--quiet", **ending)
        assert code == (130 if ending else 0), output.read_text()
        folders[name] = (root / "runs" / name / "latest").resolve()
        said[name] = output.read_text()
    said["training"] = root / "training.txt"
    said["training"].write_text("")
    code = in_a_process(said["training"], *GO_ON["training"](folders["training"]), **{END: "1"})
    assert code == 130, said["training"].read_text()
    said["training"] = said["training"].read_text()
    return folders, said


@pytest.fixture
def run_of(terminated, tmp_path):
    """A copy of a terminated run."""
    return lambda name: shutil.copytree(terminated[0][name], tmp_path / name)


@pytest.fixture
def refused(capsys):
    """What a command that must fail says, in one line."""

    def call(*words):
        capsys.readouterr()
        code = main([*map(str, words)])
        line = capsys.readouterr().err
        assert code in (1, 2) and line.count("\n") == 1 and line.startswith("catchmark: "), line
        return line

    return call


GO_ON = {
    "supernet": lambda run: ("run", "--resume", run, "--quiet", "--trust", HERE),
    "training": lambda run: ("train", run, "--quiet", "--trust", HERE),
    "agent": lambda run: ("run", "--resume", run, "--quiet", "--trust", HERE),
    "meta": lambda run: ("run", "--resume", run, "--quiet", "--trust", HERE),
}


@pytest.mark.parametrize("name", GO_ON)
def test_what_was_terminated_says_so_in_one_line_and_goes_on(name, terminated, run_of, capsys):
    """SIGTERM in the middle of a supernet's training, of a network's, and of a search."""
    *_, line = terminated[1][name].splitlines()
    assert line.startswith("catchmark: stopped") and "Traceback" not in terminated[1][name]
    assert main([*map(str, GO_ON[name](run_of(name)))]) == 0


# ---- files of tensors ----------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ[PROOF],)


def hide_harm(path):
    """The same content with a call of `os.mkdir` in it, which loading in torch's old way would make."""
    content = torch.load(path, weights_only=True)
    torch.save(content | {"more": Malicious()}, path)


def show_harm(path):
    """What was refused would have done its work."""
    assert not os.path.exists(os.environ[PROOF])
    torch.load(path, weights_only=False)
    assert os.path.exists(os.environ[PROOF])


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(path):
    """One bit in the middle of the largest tensor: torch itself would not notice."""
    with zipfile.ZipFile(path) as archive:
        tensors = [part for part in archive.infolist() if "/data/" in part.filename]
    largest = max(tensors, key=lambda part: part.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 4
    path.write_bytes(content)
    torch.load(path, weights_only=True)


DAMAGES = {
    "a flipped bit": flip,
    "malicious": hide_harm,
    "cut to a tenth": cut(0.1),
    "cut to a half": cut(0.5),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "another file": lambda path: path.write_text("no tensors, but a text of some length" * 10),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name, file", [("supernet", "supernets/spos-0/last.ckpt"), ("training", "trained/digits/last.ckpt")]
)
def test_a_checkpoint_that_is_damaged_is_refused_and_a_whole_one_goes_on(name, file, damage, run_of, refused):
    run = run_of(name)
    path, whole = run / file, (run / file).read_bytes()
    DAMAGES[damage](path)
    left = path.read_bytes()
    line = refused(*GO_ON[name](run))
    assert str(path) in line and "damaged" in line and "remove it to train" in line
    assert path.read_bytes() == left
    if damage == "malicious":
        show_harm(path)
    path.write_bytes(whole)
    assert main([*map(str, GO_ON[name](run))]) == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_of_a_trained_supernet_that_are_damaged(damage, run_of, refused, tmp_path):
    path = run_of("supernet") / "supernets" / "spos-0" / "last.ckpt"
    DAMAGES[damage](path)
    target = {"class_path": "SharedWeightsTask", "init_args": {"run": str(tmp_path / "supernet"), "method": "spos"}}
    recipe = {"space": "NASBench201", "targets": {"shared": target}, "agents": {"random": "RandomSearch"}, "budget": 1}
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe))
    assert str(path) in refused("run", tmp_path / "recipe.yaml", "--runs", tmp_path / "runs", "--trust", HERE)
    if damage == "malicious":
        show_harm(path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_to_begin_with_that_are_damaged(damage, refused, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(CATCHer(SPACE, settings=CatcherSettings(**SMALL)).weights(), path)
    agent = {"class_path": "CATCHer", "init_args": {"settings": SMALL, "init": str(path)}}
    (tmp_path / "recipe.yaml").write_text(dump_yaml(RECIPES["agent"] | {"agents": {"catch": agent}}))
    words = ("run", tmp_path / "recipe.yaml", "--runs", tmp_path / "runs", "--quiet")
    assert main([*map(str, words)]) == 0
    DAMAGES[damage](path)
    assert str(path) in refused(*words)
    if damage == "malicious":
        show_harm(path)


def test_weights_of_a_trained_network_that_are_damaged(run_of, refused):
    run = run_of("training")
    assert main([*map(str, GO_ON["training"](run))]) == 0
    path = run / "trained" / "digits" / "weights.pt"
    whole = path.read_bytes()
    for name, damage in DAMAGES.items():
        path.write_bytes(whole)
        damage(path)
        line = refused("export", run, "--trust", HERE)
        assert str(path) in line and "can't be used" in line, name
        if name == "malicious":
            show_harm(path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_meta_trained_weights_of_a_run_are_made_again(damage, run_of):
    """The journal has them too; whatever lies in their place is not even read."""
    run = run_of("meta")
    path = run / "weights" / "catch.pt"
    whole = path.read_bytes()
    DAMAGES[damage](path)
    assert path.read_bytes() != whole
    assert main([*map(str, GO_ON["meta"](run))]) == 0 and not os.path.exists(os.environ[PROOF])
    assert path.read_bytes() == whole


def test_an_agents_state_in_the_journal_that_would_do_harm(run_of, refused):
    """Its row's checksum is right: whoever can write the one can write the other."""
    run = run_of("agent")
    path, name = run / "journal.sqlite", "count/catch"
    journal = Journal(path)
    state = journal.state(name)
    journal.close()
    blob = to_bytes(state | {"more": Malicious()})
    database = sqlite3.connect(path)
    database.execute("UPDATE states SET state = ?, checksum = ?", (blob, seal(name, blob)))
    database.commit()
    database.close()
    refused(*GO_ON["agent"](run))
    assert not os.path.exists(os.environ[PROOF])


# ---- tables, and images: archives of arrays ------------------------------------------------------------------------


def write_latencies(path, generator):
    latency = generator.uniform(1, 9, (5**6, 1)).astype(np.float32)
    np.savez(path, latency_ms=latency, devices=np.array(["a"]))


def write_images(path, generator):
    images = generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=np.arange(40) % 4, x_val=images[:9], y_val=np.arange(9) % 4)


def write_transnasbench101(path, generator):
    texts = ["64-41414-1_02_333", "64-41414-0_00_000", "64-41414-1_11_111"]
    np.savez(path, arch_str=texts, tasks=["jigsaw", "room_layout"], val_metric=generator.uniform(0, 90, (3, 2)))


def convert_transnasbench101(path):
    with np.load(CONVERTERS["transnasbench101"].convert(path, path.with_name("out.npz"))) as table:
        return [table[name].tolist() for name in table.files if name != "provenance"]


def read_images(path):
    arrays = load_npz(path)
    return [getattr(arrays, name).tolist() for name in ("train_images", "train_labels", "val_images", "val_labels")]


ARCHIVES = {
    "latencies": (write_latencies, lambda path: read_latency(path, SPACE).milliseconds.tolist(), "latency_ms"),
    "images": (write_images, read_images, "x_train"),
    "TransNAS-Bench-101": (write_transnasbench101, convert_transnasbench101, "val_metric"),
}


@pytest.fixture(params=ARCHIVES)
def archive(request, tmp_path):
    write, read, name = ARCHIVES[request.param]
    write(path := tmp_path / "archive.npz", np.random.default_rng(0))
    return path, read, name


def test_a_flipped_bit_of_an_archive_never_changes_a_number(archive):
    path, read, _ = archive
    whole, numbers, noticed = path.read_bytes(), read(path), 0
    for place in np.random.default_rng(1).integers(0, 8 * len(whole), 40).tolist():
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert read(path) == numbers, place
        except AssertionError:
            raise
        except Exception:
            noticed += 1
    assert noticed > 10


def test_an_archive_that_was_cut_short_is_refused(archive):
    path, read, _ = archive
    whole = path.read_bytes()
    for length in [1, 30, *range(100, len(whole), len(whole) // 10), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises((ValueError, CatchmarkError)) as caught:
            read(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value), length


def test_an_archive_of_objects_is_refused_and_never_executed(archive):
    path, read, name = archive
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez(path, **content | {name: np.array([Malicious()], dtype=object)})
    with pytest.raises((ValueError, CatchmarkError)):
        read(path)
    assert not os.path.exists(os.environ[PROOF])
    np.load(path, allow_pickle=True)[name]
    assert os.path.exists(os.environ[PROOF])


def test_a_list_of_numbers_that_was_cut_in_a_line_is_refused(tmp_path, refused):
    """At the end of a line nobody can tell; the table that is made says how many architectures it has."""
    lines = [f"{SPACE.format((k % 5,) * 6)},{k}.25,{k}.5" for k in range(5)]
    text = "\n".join(["arch,cifar10_val_acc_12ep,cifar10_test_acc_12ep", *lines])
    (tmp_path / "s.csv").write_text(text[: text.rindex(",")])
    line = refused("data", "nasbench201", tmp_path / "s.csv", "--out", tmp_path / "t.npz")
    assert "s.csv, line 6: 2 cells, the header has 3" in line and not (tmp_path / "t.npz").exists()


# ---- a disk that is full -------------------------------------------------------------------------------------------


@contextmanager
def longest_file(size):
    """No file may become longer than so many bytes."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, earlier[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)


@pytest.fixture
def disk(tmp_path):
    """A real file system in memory, which only root can mount: makes it so large, or larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size):
        options = f"{'remount,' if os.path.ismount(folder) else ''}size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip(f"a small file system can't be mounted here: {done.stderr.decode().strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], check=False)


# Bytes: longer than the run's journal, or what is written beside the checkpoint, and too short for a checkpoint.
LONGEST = {"supernet": 64_000, "training": 40_000}
CHECKPOINTS = {"supernet": "supernets/spos-0/last.ckpt", "training": "trained/digits/last.ckpt"}


def check_what_a_full_disk_left(run, name, whole, line):
    assert (run / CHECKPOINTS[name]).read_bytes() == whole
    assert "goes on" in line or "go on with" in line
    assert main([*map(str, GO_ON[name](run))]) == 0  # there is space again


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_may_not_grow(name, run_of, refused):
    run = run_of(name)
    whole = (run / CHECKPOINTS[name]).read_bytes()
    assert len(whole) > LONGEST[name] > (run / "journal.sqlite").stat().st_size
    with longest_file(LONGEST[name]):
        line = refused(*GO_ON[name](run))
    assert "File too large" in line
    check_what_a_full_disk_left(run, name, whole, line)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_on_a_full_disk(name, terminated, disk, refused):
    source = terminated[0][name]
    used = sum(-(-path.stat().st_size // 4096 + 1) * 4096 for path in source.rglob("*"))
    run = shutil.copytree(source, disk(used + 2 * LONGEST[name]) / "run")
    whole = (run / CHECKPOINTS[name]).read_bytes()
    line = refused(*GO_ON[name](run))
    assert "No space left on device" in line and "Traceback" not in line
    disk(used + 2**24)
    check_what_a_full_disk_left(run, name, whole, line)


ARCHS = np.array([(k // 5**3 % 5, k // 25 % 5, k // 5 % 5, k % 5, 0, 0) for k in range(600)])


def test_a_table_on_a_full_disk(tmp_path, refused):
    """The old one stays, and nothing lies beside it."""
    path = write_table(tmp_path / "t.npz", ARCHS[:9], {"a_val_acc_12ep": np.arange(9.0)})
    whole = path.read_bytes()
    values = np.random.default_rng(0).uniform(0, 99, len(ARCHS))
    with longest_file(2_000), pytest.raises(OSError, match="File too large"):
        write_table(path, ARCHS, {"a_val_acc_12ep": values})
    assert path.read_bytes() == whole and [each.name for each in tmp_path.iterdir()] == ["t.npz"]
    lines = [f"{SPACE.format(arch)},{value}" for arch, value in zip(ARCHS.tolist(), values, strict=True)]
    (tmp_path / "s.csv").write_text("\n".join(["arch,a_val_acc_12ep", *lines]))
    with longest_file(2_000):
        line = refused("data", "nasbench201", tmp_path / "s.csv", "--out", path)
    assert "File too large" in line and path.read_bytes() == whole


def test_a_summary_on_a_full_disk(run_of, refused):
    run = run_of("training")
    whole = (run / "summary.json").read_bytes()
    with longest_file(1_000):
        line = refused("report", run, "--trust", HERE)
    assert "summary.json could not be written" in line and "File too large" in line
    assert (run / "summary.json").read_bytes() == whole
    assert main(["report", str(run), "--trust", HERE]) == 0


def test_a_report_on_a_full_disk(run_of, refused):
    run = run_of("training")
    whole = (run / "report.html").read_bytes()
    with longest_file(20_000):
        line = refused("report", run, "--trust", HERE)
    assert "report.html could not be written" in line and "File too large" in line
    assert (run / "report.html").read_bytes() == whole
    assert main(["report", str(run), "--trust", HERE]) == 0


def test_a_trained_networks_weights_on_a_full_disk(tmp_path):
    path = tmp_path / "weights.pt"
    save_tensors(path, {"weight": torch.arange(5.0)})
    with longest_file(10_000), pytest.raises(RunError, match=r"weights.pt could not be written \(.*see to the disk"):
        save_tensors(path, {"weight": torch.arange(50_000.0)})
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.arange(5.0))


# ---- two processes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["supernet", "training", "agent"])
def test_a_second_process_is_refused_and_the_first_loses_nothing(name, run_of, tmp_path):
    run, output = run_of(name), tmp_path / "output.txt"
    held = run / ("trained/digits/training.lock" if name == "training" else "journal.lock")
    lock = FileLock(held)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert in_a_process(output, *GO_ON[name](run)) == 1
    lock.release()
    assert f"{held.parent} is being written by another process ({os.getpid()})" in output.read_text().splitlines()[-1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main([*map(str, GO_ON[name](run))]) == 0
