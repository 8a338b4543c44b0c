"""What a stranger's files name is refused before anything of it runs; each plants a command that would leave a mark."""

import ast
import io
import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from search.cli import main
from search.deploy import load_network
from search.errors import CatchmarkError
from search.evaluation import Evaluation, Proposal
from search.recipes.classes import find_class
from search.recipes.recipe import load_recipe
from search.recipes.trust import Trust, Untrusted, is_ours, modules_of_others, read_json
from search.recipes.yaml_text import dump_yaml, parse_yaml
from search.runs.journal import Journal, Record
from search.runs.journal_format import seal
from search.spaces.base import SearchSpace
from tests.search.deploy.test_export import BASIC, SPACES, write_folder

PACKAGES = Path(__file__).resolve().parents[3]
DIGITS = {"class_path": "DigitsDataModule", "init_args": {"batch_size": 150, "padding": 2}}
TRAINED = {
    "class_path": "TrainedTask",
    "init_args": {
        "data": DIGITS,
        "epochs": 1,
        "build": {"channels": 4, "cells": 1},
        "threads": 1,
        "trainer": {"accelerator": "cpu"},
    },
}
EVIL = """
from pathlib import Path

Path({mark!r}).touch()
from lightning_modules.classification import ClassificationModule
from datamodules.digits import DigitsDataModule
from search.agents.random_search import RandomSearch
from search.executors.inline import InlineExecutor
from search.studies.experiment import Experiment
from search.spaces.nasbench201 import NASBench201
from search.tasks.trained import TrainedTask


class Space(NASBench201):
    pass


class Task(TrainedTask):
    pass


class Agent(RandomSearch):
    pass


class Module(ClassificationModule):
    pass


class Data(DigitsDataModule):
    pass


class Executor(InlineExecutor):
    pass


class Study(Experiment):
    pass
"""


class Bomb:
    """What a pickle runs when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return subprocess.call, (["touch", str(self.mark)],)


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """What must not be there in the end; `evil.py`, in the current folder, leaves it when it is imported."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("evil.py").write_text(EVIL.format(mark=str(tmp_path / "mark")))
    yield tmp_path / "mark"
    for name in [name for name in sys.modules if name.partition(".")[0] == "evil"]:
        del sys.modules[name]


@pytest.fixture
def refused(capsys, mark):
    """What a command that must fail says, in one line; nothing planted has run."""

    def call(*words, code=2):
        capsys.readouterr()
        assert main([*map(str, words)]) == code
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and line.startswith("catchmark: "), line
        assert not mark.exists(), f"{words} ran what was planted"
        return line

    return call


def changed(content, key, value):
    """A copy of plain content with another value at a dotted key."""
    content = json.loads(json.dumps(content))
    at = content
    *parts, last = key.split(".")
    for part in parts:
        at = at.setdefault(part, {})
    at[last] = value
    return content


# ---- a run's folder --------------------------------------------------------------------------------------------------


RECIPE = {
    "space": "NASBench201",
    "targets": {"digits": TRAINED},
    "agents": {"random": "RandomSearch"},
    "budget": 1,
    "name": "toy",
}


def write_run(folder, recipe, journal_recipe=None):
    """A run of which one evaluation is there, as anybody could write it."""
    folder.mkdir(parents=True)
    text = dump_yaml(recipe)
    (folder / "config.yaml").write_text(text)
    journal = Journal(folder / "journal.sqlite")
    journal.set_about("recipe", text if journal_recipe is None else dump_yaml(journal_recipe))
    journal.begin("digits/random")
    record = Record(0, 0, 0, "digits", Proposal((0, 1, 2, 3, 1, 0)), Evaluation(50.0, {"loss": 1.0}, 0.1))
    journal.finish_step("digits/random", [record], None, True, 0.1)
    journal.close()
    return folder


POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "MARK"]}}
TASK = "targets.digits.init_args"
PLANTS_IN_RECIPES = {
    "a space": ("space", "evil.Space"),
    "a space with arguments": ("space", {"class_path": "evil.Space", "init_args": {}}),
    "a target": ("targets.digits.class_path", "evil.Task"),
    "an agent": ("agents.random", "evil.Agent"),
    "an executor": ("executor", "evil.Executor"),
    "data": (f"{TASK}.data.class_path", "evil.Data"),
    "a module": (f"{TASK}.module", "evil.Module"),
    "a program as a space": ("space", POPEN),
    "a program as a module": (f"{TASK}.module", POPEN),
    "a function as a module": (f"{TASK}.module", "os.system"),
    "a class that ours only import": ("space", "search.tasks.trained.Callable"),
    "a module that is not there": ("space", "evil_that_is_not_there.Space"),
    "callbacks": (f"{TASK}.trainer.callbacks", [POPEN]),
    "meta-training": ("meta_training", {"pool": "evil.Pool", "agents": ["random"]}),
    "an address": ("executor", {"class_path": "RayExecutor", "init_args": {"workers": 1, "address": "ray://evil:1"}}),
    "a place of Lightning's": (f"{TASK}.trainer.default_root_dir", "/MARK"),
    "a file to write": (
        "targets.digits",
        {
            "class_path": "MeasuredLatencyTask",
            "init_args": {"task": TRAINED, "target_milliseconds": 1.0, "lookup": "../mark"},
        },
    ),
    "an attribute's file elsewhere": (
        "attributes",
        {"latency": {"class_path": "OperatorLatency", "init_args": {"lookup": "../mark"}}},
    ),
}


@pytest.mark.parametrize("plant", PLANTS_IN_RECIPES)
def test_a_runs_recipe_names_nothing_else_than_ours(plant, mark, refused):
    key, value = PLANTS_IN_RECIPES[plant]
    recipe = json.loads(json.dumps(changed(RECIPE, key, value)).replace("MARK", str(mark)))
    run = write_run(Path("run"), recipe)
    for words in (["report", run], ["train", run], ["run", "--resume", run], ["run", "--resume", run, "--dry-run"]):
        line = refused(*words)
        assert key in line or plant == "callbacks"
        if plant != "callbacks":  # no class stands there, whoever names it
            assert "run/config.yaml: " in line and "--trust " in line


TEXTS = ['{"class_path": "evil.Module"}', '[{x: {"class\\x5fpath": "evil.Module"}}]', json.dumps(POPEN)]
TEXTS.append(json.dumps({"x": TEXTS[0]}))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["trainer.callbacks", "build.channels", "module", "data.init_args.images", "threads"])
def test_text_that_describes_a_class_is_refused(key, text, mark, refused):
    sys.path.append(str(Path.cwd()))
    run = write_run(Path("run"), changed(RECIPE, f"{TASK}.{key}", text.replace("MARK", str(mark))))
    for command in ("report", "train"):
        assert key.partition(".")[0] in refused(command, run)


def test_a_study_and_what_it_is_based_on(mark, refused):
    run = write_run(Path("run"), {"class_path": "evil.Study", "init_args": RECIPE})
    assert "class_path: 'evil.Study' is not catchmark's own" in refused("report", run)
    (run / "other.yaml").write_text(dump_yaml(changed(RECIPE, "space", "evil.Space")))
    (run / "config.yaml").write_text("base: other.yaml\n")
    assert "run/config.yaml: space: 'evil.Space'" in refused("train", run)


def test_the_journals_recipe_is_compared_and_nothing_else(mark, refused):
    run = write_run(Path("run"), RECIPE, journal_recipe=changed(RECIPE, "space", "evil.Space"))
    assert "the recipe differs from the run's in:" in refused("run", "--resume", run)
    journal = Journal(run / "journal.sqlite")
    journal.set_about("recipe", f"!!python/object/apply:os.system ['touch {mark}']")
    journal.close()
    assert "could not determine a constructor" in refused("run", "--resume", run)


def test_a_recipe_that_the_user_names_is_not_replaced_by_that_of_the_folder(mark):
    """Other processes read the run's config.yaml, and are told that it is the user's."""
    Path("mine.yaml").write_text(dump_yaml(RECIPE))
    _, resolved = load_recipe("mine.yaml")
    run = write_run(Path("run"), parse_yaml(resolved))
    planted = dump_yaml(changed(RECIPE, "space", "evil.Space"))
    (run / "config.yaml").write_text(planted)
    assert main(["run", "mine.yaml", "--resume", str(run), "--quiet"]) == 0
    assert parse_yaml((run / "config.yaml").read_text()) == parse_yaml(resolved)
    assert not mark.exists()


def test_states_and_weights_are_not_unpickled(mark, refused):
    run = write_run(Path("run"), parse_yaml(load_recipe(_written(changed(RECIPE, "budget", 2)))[1]))
    journal = Journal(run / "journal.sqlite")
    blob = io.BytesIO()
    torch.save({"agent": Bomb(mark)}, blob)
    for content in (pickle.dumps(Bomb(mark)), blob.getvalue()):
        journal._execute(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?)",
            "digits/random",
            content,
            seal("digits/random", content),
        )
        journal._execute(
            "UPDATE searches SET finished = 0, checksum = ? WHERE name = ?",
            seal("digits/random", 0, 0.1),
            "digits/random",
        )
        journal.close()
        assert main(["report", str(run)]) == 0
        assert not mark.exists()
        main(["run", "--resume", str(run), "--quiet"])
        assert not mark.exists()
        journal = Journal(run / "journal.sqlite")
    journal.close()


def _written(recipe):
    Path("r.yaml").write_text(dump_yaml(recipe))
    return "r.yaml"


# ---- what the user vouches for ---------------------------------------------------------------------------------------


def test_the_user_may_vouch_for_a_class_a_module_or_a_package(mark, refused):
    run = write_run(Path("run"), changed(RECIPE, "space", "evil.Space"))
    for name in ("evi", "evil.Agent", "evil.Space.more", "vil", ""):
        refused("report", run, "--trust", name)
    for name in ("evil", "evil.Space"):
        assert main(["report", str(run), "--trust", "other", "--trust", name]) == 0
        assert mark.exists()
        mark.unlink()
        del sys.modules["evil"]


def test_what_is_vouched_for_does_not_vouch_for_its_arguments(mark, refused):
    Path("mine.py").write_text(
        "from collections.abc import Callable\n"
        "from search.spaces.nasbench201 import NASBench201\n"
        "from search.agents.random_search import RandomSearch\n"
        "class Space(NASBench201):\n"
        "    def __init__(self, call: Callable[..., int] | None = None, kind: type | None = None,\n"
        "                 either: RandomSearch | str = '', both: str | RandomSearch = '',\n"
        "                 plain: dict | None = None):\n"
        "        super().__init__()\n"
        "class Vague(NASBench201):\n"
        "    def __init__(self, some: 'Missing' = None):\n"
        "        super().__init__()\n"
    )
    try:
        for name in ("call", "kind", "either", "both"):
            run = write_run(
                Path(name), changed(RECIPE, "space", {"class_path": "mine.Space", "init_args": {name: "evil.Agent"}})
            )
            line = refused("report", run, "--trust", "mine")
            assert f"space.init_args.{name}" in line
        vague = {"class_path": "mine.Vague", "init_args": {"some": ["evil.Agent"]}}
        line = refused("report", write_run(Path("some"), changed(RECIPE, "space", vague)), "--trust", "mine")
        assert "space.init_args.some.0: 'evil.Agent'" in line
        planted = {"plain": {"text": "evil.Agent", "file": "digits.npz"}, "either": "just text"}
        run = write_run(Path("plain"), changed(RECIPE, "space", {"class_path": "mine.Space", "init_args": planted}))
        assert main(["report", str(run), "--trust", "mine"]) == 0
        assert not mark.exists()
    finally:
        sys.modules.pop("mine", None)


def test_a_recipe_that_the_user_names_is_code(mark):
    Path("r.yaml").write_text(dump_yaml(changed(RECIPE, "agents.random", "evil.Agent")))
    assert main(["run", "r.yaml", "--dry-run"]) == 0
    assert mark.exists()


def test_the_words_of_a_run_say_what_it_takes_to_go_on(mark, refused, capsys):
    Path("r.yaml").write_text(dump_yaml(changed(RECIPE, "agents.random", "evil.Agent")))
    assert main(["run", "r.yaml", "--quiet"]) == 0
    mark.unlink()
    run = next(Path("runs/toy").glob("2*"))
    page = (run / "report.html").read_text()
    assert "unfinished" not in page.lower()
    line = refused("report", run)
    assert line.rstrip().endswith("if you know who wrote it, add: --trust evil.Agent")
    assert main(["report", str(run), *shlex.split(line.rpartition("add: ")[2])]) == 0
    assert modules_of_others({"space": "NASBench201", "agents": {"a": {"class_path": "evil.Agent"}}}) == ["evil"]


def test_a_run_that_a_recipe_names_is_data(mark, refused):
    study = {
        "class_path": "SupernetStudy",
        "init_args": {
            "space": "evil.Space",
            "truth": TRAINED,
            "data": {"class_path": "ThreePartsDataModule", "init_args": {"data": DIGITS, "evaluation_images": 64}},
            "methods": {"spos": {"sampler": "UniformSampler"}},
        },
    }
    Path("shared").mkdir()
    Path("shared/config.yaml").write_text(dump_yaml(study))
    task = {"class_path": "SharedWeightsTask", "init_args": {"run": "shared", "method": "spos"}}
    Path("r.yaml").write_text(dump_yaml(changed(RECIPE, "targets.digits", task)))
    assert "shared/config.yaml: init_args.space: 'evil.Space'" in refused("run", "r.yaml", "--quiet")
    main(["run", "r.yaml", "--quiet", "--trust", "evil"])
    assert mark.exists()


def test_truth_is_a_value_and_no_misspelt_option(capsys, mark):
    assert main(["run", _written(RECIPE), "--truth", "3"]) == 2
    assert "truth: there is no such key" in capsys.readouterr().err


def test_a_folder_that_is_called_as_one_of_ours_is_not_ours(tmp_path, mark):
    folder = tmp_path / "other" / "datamodules"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(EVIL.format(mark=str(mark)))
    script = (
        "import sys, search.recipes.classes as classes, search.recipes.trust as trust\n"
        "from search.spaces.base import SearchSpace\n"
        f"sys.path.insert(0, {str(folder.parent)!r})\n"
        "assert not trust.is_ours('datamodules.digits.DigitsDataModule') and trust.is_ours('search.cli.Path')\n"
        "for name in ('NASBench201', 'datamodules.digits.DigitsDataModule'):\n"
        "    try:\n        classes.find_class(name, SearchSpace, 'space', trust.Trust())\n"
        "    except trust.Untrusted as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGES)
    assert done.returncode == 0, done.stderr
    hidden, named = done.stdout.splitlines()
    assert "space: a folder 'datamodules' hides catchmark's own" in hidden and "--trust datamodules.digits" in named
    assert not mark.exists()


def test_nothing_is_imported_from_the_current_folder_unless_the_user_named_something(mark):
    """A package that is not installed could lie there."""
    run = write_run(Path("run"), RECIPE)
    before = [*sys.path]
    assert main(["report", str(run)]) == 0
    assert sys.path == before
    assert is_ours("search.tasks.trained.TrainedTask") and not is_ours("experiments.sweep.X") and not is_ours("evil")


def test_a_class_by_its_form_alone_is_none_of_ours(mark):
    from typing import Protocol

    class Form(Protocol):
        size: int

    with pytest.raises(CatchmarkError, match=r"--trust search\.runs\.journal\.Journal"):
        find_class("search.runs.journal.Journal", Form, "key", Trust())
    with pytest.raises(CatchmarkError, match=r"--trust pathlib\.Path"):
        find_class("search.commands.run.Path", SearchSpace, "key", Trust())


# ---- a trained network -----------------------------------------------------------------------------------------------


def write_network(folder, builds="cells", **changes):
    """The folder of a trained network whose weights nobody could load: they are read last."""
    name, arguments, architecture, build = SPACES[builds]
    folder.mkdir()
    about = {
        "format": 1,
        "space": {"class_path": name, "init_args": arguments},
        "architecture": architecture,
        "build": build,
        "in_channels": build["in_channels"],
        "module": "ClassificationModule",
        "task": {},
        "seed": 0,
        "resolution": [32, 32],
        "metrics": {},
    }
    (folder / "network.json").write_text(json.dumps(about | changes))
    (folder / "weights.pt").write_bytes(b"")
    return folder


PLANTS_IN_NETWORKS = {
    "a space": ("space", "evil.Space"),
    "a module": ("module", "evil.Module"),
    "a program as a module": ("module", POPEN),
    "a function as a space": ("space", "os.system"),
}


@pytest.mark.parametrize("plant", PLANTS_IN_NETWORKS)
def test_a_network_is_made_of_ours(plant, mark, refused):
    key, value = PLANTS_IN_NETWORKS[plant]
    folder = write_network(Path("net"), **{key: json.loads(json.dumps(value).replace("MARK", str(mark)))})
    line = refused("export", folder)
    assert f"net/network.json: {key}" in line and "--trust " in line
    with pytest.raises(CatchmarkError, match="--trust"):
        load_network(folder)
    assert not mark.exists()


def test_weights_are_tensors(mark, refused):
    folder = write_network(Path("net"))
    for content in (pickle.dumps(Bomb(mark)), _saved({"x": Bomb(mark)})):
        (folder / "weights.pt").write_bytes(content)
        assert "nothing in it was executed" in refused("export", folder)


def _saved(content):
    blob = io.BytesIO()
    torch.save(content, blob)
    return blob.getvalue()


def test_a_checkpoint_is_tensors(mark, refused):
    run = write_run(Path("run"), RECIPE)
    out = run / "trained" / "digits"
    out.mkdir(parents=True)
    (out / "last.ckpt").write_bytes(_saved({"state_dict": {}, "callbacks": {"_Keeper": {"history": [Bomb(mark)]}}}))
    assert "last.ckpt is damaged" in refused("train", run, "--quiet")


def test_a_network_of_the_users_own_is_loaded_where_they_vouch_for_it(mark):
    Path("mine.py").write_text(
        "from lightning_modules.classification import ClassificationModule\n"
        "class Module(ClassificationModule):\n    pass\n"
    )
    folder = write_folder(Path("net"))
    about = json.loads((folder / "network.json").read_text())
    (folder / "network.json").write_text(json.dumps(about | {"module": "mine.Module"}))
    with pytest.raises(CatchmarkError, match=r"--trust mine\.Module"):
        load_network(folder)
    sys.path.append(str(Path.cwd()))
    try:
        for trust in ("mine", ["mine.Module"]):
            assert isinstance(load_network(folder, trust=trust), torch.nn.Module)
        assert main(["export", str(folder), "--format", "torch", "--trust", "mine"]) == 0
    finally:
        sys.modules.pop("mine", None)


# ---- mmdet and mmseg -------------------------------------------------------------------------------------------------


SHELL = "touch MARK"
PICKLED = {"class_weight": "evil.pkl"}
PLANTS_IN_OVERRIDES = {
    "a function as a loss": {"bbox_head": {"loss_cls": {"_delete_": True, "type": "os.system", "command": SHELL}}},
    "another": {"bbox_head": {"loss_cls": {"_delete_": True, "type": "subprocess.getoutput", "cmd": SHELL}}},
    "a class": {
        "neck": {"_delete_": True, "type": "subprocess.Popen", "args": SHELL, "shell": True, "in_channels": [1]}
    },
    "a module of the current folder": {"neck": {"type": "evil"}},
    "a class of the current folder": {"neck": {"type": "evil.Neck"}},
    "behind a library's name": {"neck": {"type": "mmdet.os.system"}},
    "behind another scope": {"neck": {"_scope_": "evil"}},
    "a registry of the current folder": {"neck": {"type": "evil.FPN"}},
    "in a list": {"neck": [{"type": "FPN", "in_channels": [1], "norm_cfg": {"type": "os.system"}}]},
    "of the data": {"data_preprocessor": {"type": "os.system", "command": SHELL}},
    "Python as a name": {"test_cfg": {"nms": {"type": f"__import__('os').system('{SHELL}')"}}},
    "a pickle": {"bbox_head": {"loss_cls": PICKLED}},
    "a config": {"bbox_head": {"teacher_config": "evil.py"}},
    "a path": {"bbox_head": {"loss_cls": {"class_weight": "/tmp/evil"}}},
    "an address": {"bbox_head": {"checkpoint": "http://evil/x"}},
    "a padding": {"neck": {"conv_cfg": {"padding_mode": "evil"}}},
    "imports": {"custom_imports": {"imports": ["evil"]}},
    "a base": {"_base_": "./evil.py"},
    "pretrained, further inside": {"neck": {"init_cfg": {"type": "Xavier", "override": {"checkpoint": "evil.pth"}}}},
}


def detector(overrides=None, wanted="retinanet"):
    return {"class_path": "DetectionModule", "init_args": {"detector": wanted, "overrides": overrides or {}}}


def planted(content, mark):
    return json.loads(json.dumps(content).replace("MARK", str(mark)))


@pytest.mark.parametrize("plant", PLANTS_IN_OVERRIDES)
def test_a_detector_is_made_of_what_mmdet_has_registered(plant, mark, refused):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    sys.path.append(str(Path.cwd()))  # as where the command is run with python -m
    Path("evil.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    module = planted(detector(PLANTS_IN_OVERRIDES[plant]), mark)
    line = refused("export", write_network(Path("net"), "residual", module=module))
    assert "net/network.json: module.init_args.overrides." in line and "--trust " in line
    task = changed(TRAINED, "init_args.module", module)
    run = write_run(Path("run"), changed(RECIPE, "targets.digits", task))
    for command in ("report", "train"):
        assert "run/config.yaml: targets.digits.init_args.module.init_args.overrides." in refused(command, run)


CONFIGS = {
    "evil.py": "open('MARK', 'w')\nmodel = dict(type='RetinaNet')\n",
    "evil.yaml": "model: !!python/object/apply:os.system ['touch MARK']\n",
    "evil.json": '{"custom_imports": {"imports": ["evil"]}, "model": {"type": "RetinaNet"}}\n',
    "_base_/models/retinanet_r50_fpn.py": "open('MARK', 'w')\nmodel = dict(type='RetinaNet')\n",
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("absolute", [False, True])
def test_config_files_are_programs(name, absolute, mark, refused):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    sys.path.append(str(Path.cwd()))
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(CONFIGS[name].replace("MARK", str(mark)))
    wanted = str(Path(name).resolve()) if absolute else name
    folder = write_network(Path("net"), "residual", module=detector(wanted=wanted))
    line = refused("export", folder)
    assert f"module.init_args.detector: '{wanted[:40]}" in line and f"--trust {wanted}" in line
    sys.path.append(str(Path.cwd()))  # the command has taken it away
    with pytest.raises(CatchmarkError):
        load_network(folder, trust=[wanted])
    assert mark.exists()


def test_a_file_in_the_place_of_a_stock_config_is_not_taken_for_it(mark):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    Path("_base_/models").mkdir(parents=True)
    Path("_base_/models/retinanet_r50_fpn.py").write_text(f"open({str(mark)!r}, 'w')\n")
    folder = write_folder(Path("net"), "residual", detector())
    assert load_network(folder).bbox_head.num_classes == 5
    assert not mark.exists()


def test_configs_as_values_and_those_of_the_library(mark, refused):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    Path("configs/gfl").mkdir(parents=True)
    Path("configs/gfl/gfl_r101_fpn_ms-2x_coco.py").write_text(f"open({str(mark)!r}, 'w')\n")
    folder = write_network(Path("one"), "residual", module=detector(wanted="ld/ld_r18-gflv1-r101_fpn_1x_coco.py"))
    assert "detector.teacher_config: 'configs/gfl/" in refused("export", folder)
    value = {"type": "RetinaNet", "neck": {"type": "os.system"}, "bbox_head": {}}
    folder = write_network(Path("two"), "residual", module=detector(wanted=value))
    assert "module.init_args.detector.neck.type: 'os.system'" in refused("export", folder)
    value = {"custom_imports": {"imports": "evil"}, "model": {"type": "RetinaNet"}}
    folder = write_network(Path("three"), "residual", module=detector(wanted=value))
    assert "module.init_args.detector.custom_imports: 'evil'" in refused("export", folder)


def test_a_segmentation_head_is_made_of_what_mmseg_has_registered(mark, refused):
    pytest.importorskip("mmseg", reason="mmseg is not installed")
    Path("evil.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    for k, overrides in enumerate(
        [
            {"decode_head": {"loss_decode": PICKLED}},
            {"auxiliary_head": {"_delete_": True, "type": "os.system", "command": SHELL}},
            {"backbone": {"norm_cfg": {"type": "os.system"}}},
        ]
    ):
        module = {"class_path": "SegmentationModule", "init_args": {"head": "bisenet", "overrides": overrides}}
        folder = write_network(Path(f"net{k}"), "residual", module=planted(module, mark))
        assert "module.init_args.overrides." in refused("export", folder)


@pytest.mark.parametrize("library, names", [("mmdet", "DETECTORS"), ("mmseg", "HEADS")])
def test_stock_configs_are_allowed_as_names_and_as_values(library, names):
    pytest.importorskip(library, reason=f"{library} is not installed")
    from lightning_modules.detection import DETECTORS, DetectionModule
    from lightning_modules.openmmlab.config import load_model_config
    from lightning_modules.segmentation import HEADS, SegmentationModule

    module, stock = {"DETECTORS": (DetectionModule, DETECTORS), "HEADS": (SegmentationModule, HEADS)}[names]
    paths = {"mmdet": ["yolox/yolox_tiny_8xb8-300e_coco.py", "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"]}
    for name in (*stock, *paths.get(library, ["_base_/models/upernet_r50.py", "_base_/models/fpn_r50.py"])):
        key = module.config_argument
        value = load_model_config(library, key, name, stock)
        for wanted in (name, value, {"model": value}, json.loads(json.dumps(value))):
            assert list(module.named_code({key: wanted, "overrides": {"neck": {"out_channels": 8}}})) == []


def test_a_config_file_is_kept_as_what_it_says(mark, refused):
    """The owner's training runs it; the trained network names no file any more."""
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    import mmdet

    base = f"{mmdet.__path__[0]}/.mim/configs/_base_/models/retinanet_r50_fpn.py"
    Path("mine.py").write_text(
        f"_base_ = {base!r}\nfrom mmdet.models.losses import FocalLoss\n"
        "model = dict(neck=dict(out_channels=16), bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1,\n"
        "    loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=1.5)))\n"
    )
    space, arguments, *_ = SPACES["residual"]
    data = {"class_path": "DigitScenesDetection", "init_args": {"scenes": 4, "val_scenes": 4, "batch_size": 2}}
    mine = detector(wanted="mine.py")
    mine["init_args"]["schedule"] = {"shape": "constant"}
    task = {
        "class_path": "TrainedTask",
        "init_args": {"data": data, "epochs": 1, "score": "val_map", "trainer": {"accelerator": "cpu"}}
        | {"module": mine},
    }
    recipe = changed(RECIPE, "space", {"class_path": space, "init_args": arguments})
    run = write_run(Path("run"), changed(recipe, "targets.digits", task))
    words = ["train", run, "--architecture", BASIC, "--quiet"]
    assert "--trust mine.py" in refused(*words)
    assert main([*map(str, words), "--trust", "mine.py"]) == 0
    kept = json.loads((run / "trained" / "digits" / "network.json").read_text())["module"]
    assert "mine.py" not in json.dumps(kept) and kept["init_args"]["detector"]["model"]["neck"]["out_channels"] == 16
    Path("mine.py").write_text(f"open({str(mark)!r}, 'w')\n")
    network = load_network(run)
    assert network.bbox_head.loss_cls.gamma == 1.5 and not mark.exists()


# ---- what is shown ---------------------------------------------------------------------------------------------------

TAG = "<img src=x onerror=alert(1)>"


def test_pages_show_names_and_run_nothing(mark):
    runs = []
    for name in ("one", "two"):
        run = write_run(Path(name), changed(RECIPE, "description", TAG) | {"budget": 3})
        journal = Journal(run / "journal.sqlite")
        journal.finish_step(
            "digits/random",
            [
                Record(
                    1, 0, 0, TAG, Proposal((0, 1, 2, 3, 1, 1)), Evaluation(51.0, {TAG: 1.0, "</svg><script>": 2.0}, 0.1)
                ),
                Record(2, 0, 0, "digits", Proposal((0, 1, 2, 3, 1, 2)), Evaluation.failed(TAG)),
            ],
            None,
            True,
            0.1,
        )
        journal.set_about("environment", json.dumps({TAG: TAG}))
        journal.close()
        assert main(["report", str(run)]) == 0
        page = (run / "report.html").read_text()
        assert TAG not in page and page.count("&lt;img src=x onerror=alert(1)&gt;") > 3 and "</svg><script>" not in page
        summary = json.loads((run / "summary.json").read_text())
        target = summary["targets"].pop("digits") | {"score_name": f"</text>{TAG}--><script>"}
        entry = target["agents"].pop("random")
        tables = {"agents": {TAG: entry}}
        (run / "summary.json").write_text(json.dumps(summary | {"space": TAG, "targets": {TAG: target | tables}}))
        database = Journal(run / "journal.sqlite")
        for table in ("searches", "evaluations"):
            for *row, _ in database._execute(f"SELECT * FROM {table}").fetchall():
                row[0] = f"{TAG}/{TAG}"
                marks = ",".join("?" * (len(row) + 1))
                database._execute(f"INSERT INTO {table} VALUES ({marks})", *row, seal(*row))
        database.close()
        (run / "config.yaml").write_text(dump_yaml({"budget": 3, TAG: f"{TAG} {name}"}))
        runs.append(str(run))
    assert main(["compare", *runs, "--html", "both.html"]) == 0
    page = Path("both.html").read_text()
    assert TAG not in page and "--><script>" not in page and page.count("&lt;img src=x onerror=alert(1)&gt;") > 3


def test_what_a_terminal_would_obey_is_not_printed(mark, capsys):
    for name in ("one", "two"):
        run = write_run(Path(name), RECIPE | {"description": name})
        assert main(["report", str(run)]) == 0
        summary = json.loads((run / "summary.json").read_text())
        summary["targets"]["digits"]["score_name"] = "\x1b]0;evil\x07\x1b[2J"
        (run / "summary.json").write_text(json.dumps(summary))
    capsys.readouterr()
    assert main(["compare", "one", "two"]) == 0
    assert "\x1b" not in capsys.readouterr().out


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "3",
        "[" * 100_000,
        '{"targets": [' + "1" * 10_000 + "]}",
        '{"targets": {"digits": {"agents": {"random": {"trials": 1e12}}}}}',
        '{"targets": {"digits": {"agents": {"random": {"trials": "x"}}}}}',
        '{"targets": {"digits": {"agents": []}}}',
        '{"targets": 3}',
        '{"targets": {"digits": {"agents": {"random": {"trials": 10000000000}}}}}',
    ],
)
def test_a_summary_of_anything_is_compared_or_refused_in_one_line(content, mark, refused):
    runs = [write_run(Path(name), RECIPE) for name in ("one", "two")]
    for run in runs:
        (run / "summary.json").write_text(content)
    assert "one/summary.json" in refused("compare", *runs)


def test_yaml_that_grows_or_makes_objects_is_refused(mark, refused):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(8)
    )
    runs = [write_run(Path(name), RECIPE) for name in ("one", "two")]
    for run in runs:
        assert main(["report", str(run)]) == 0
    for text in (bomb, f"x: !!python/object/apply:os.system ['touch {mark}']", "a: " + "[" * 1000):
        (runs[0] / "config.yaml").write_text(text)
        for words in (["compare", *runs], ["report", runs[0]], ["train", runs[0]], ["run", "--resume", runs[0]]):
            assert "one/config.yaml" in refused(*words)


def test_json_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("search.recipes.trust._LARGEST", 100)
    (tmp_path / "x.json").write_text(json.dumps({"x": "y" * 100}))
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "column, value",
    [
        ("metrics", '{"a": "x"}'),
        ("metrics", "[1]"),
        ("architecture", '"abc"'),
        ("fidelity", '{"epochs": "x"}'),
        ("parent", '"abc"'),
        ("attributes", "[1]"),
        ("artifact", "../../secret"),
    ],
)
def test_a_journal_of_other_values_is_damaged(column, value, mark, refused):
    run = write_run(Path("run"), RECIPE)
    database = Journal(run / "journal.sqlite")
    found = database._execute("SELECT * FROM evaluations")
    names, (*row, _) = [each[0] for each in found.description], found.fetchone()
    row[names.index(column)] = value
    database._execute(f"UPDATE evaluations SET {column} = ?, checksum = ?", value, seal(*row))
    database.close()
    assert "journal.sqlite is damaged" in refused("report", run)


def test_a_journal_that_does_not_fit_its_recipe(mark, refused):
    run = write_run(Path("run"), changed(RECIPE, "space", "DARTS"))
    refused("report", run, code=1)


# ---- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["summary.partial", "report.partial", "report.html", "error.txt", "trained", "config.yaml", "wandb", "weights"],
)
def test_a_link_that_leads_out_of_the_folder_is_refused(name, mark, refused, tmp_path):
    run = write_run(Path("run"), RECIPE)
    outside = tmp_path / "outside"
    if name in ("trained", "wandb", "weights"):
        outside.mkdir()
    else:
        outside.write_text("precious" if name != "config.yaml" else (run / name).read_text())
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    before = outside.read_text() if outside.is_file() else sorted(outside.iterdir())
    for words in (["report", run], ["train", run], ["run", "--resume", run]):
        assert f"run/{name} is a link that leads out of the folder" in refused(*words)
    assert before == (outside.read_text() if outside.is_file() else sorted(outside.iterdir()))


def test_links_within_the_folder_and_those_of_wandb_stay(mark):
    run = write_run(Path("run"), RECIPE)
    (run / "wandb" / "wandb" / "offline-run-1").mkdir(parents=True)
    (run / "wandb" / "wandb" / "latest-run").symlink_to("/somewhere/else")
    (run / "wandb" / "wandb" / "offline-run-1" / "weights").symlink_to("/somewhere/else")
    (run / "copy.yaml").symlink_to("config.yaml")
    Path("latest").symlink_to("run")
    assert main(["report", "latest"]) == 0


def test_a_name_does_not_lead_out_of_the_folder(mark, refused):
    recipe = json.loads(json.dumps(RECIPE).replace('"digits"', '"../../../outside"'))
    run = write_run(Path("run"), recipe)
    for words in (["report", run], ["train", run], ["run", "--resume", run]):
        assert "can't be a name" in refused(*words)


# ---- the source ------------------------------------------------------------------------------------------------------

FORBIDDEN = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load_all", "yaml.full_load"}
FORBIDDEN |= {f"{module}.{name}" for module in ("pickle", "cPickle", "dill", "marshal") for name in ("load", "loads")}
FORBIDDEN |= {"pickle.Unpickler", "shelve.open", "yaml.unsafe_load", "joblib.load", "torch.jit.load", "torch.hub.load"}
ALLOWED = {("search/recipes/yaml_text.py", "yaml.load")}
"""The loader there is a safe one."""


def calls():
    """File, line, name and keywords of every call in the packages."""
    for package in ("search", "lightning_modules", "datamodules", "experiments"):
        for path in sorted((PACKAGES / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    keywords = {each.arg: ast.unparse(each.value) for each in node.keywords}
                    yield str(path.relative_to(PACKAGES)), node.lineno, ast.unparse(node.func), keywords


def objections(file, name, keywords):
    """What is wrong with a call."""
    if name in FORBIDDEN:
        return "runs what it reads"
    if name == "yaml.load" and (file, name) not in ALLOWED:
        return "may make objects"
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return "needs weights_only=True"
    if name.rpartition(".")[2] == "read_array" and keywords.get("allow_pickle") != "False":
        return "needs allow_pickle=False"
    if name in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False":
        return "needs allow_pickle=False"
    if keywords.get("shell", "False") != "False":
        return "hands words to a shell"
    return ""


def test_no_call_runs_what_it_reads():
    found = list(calls())
    assert {"torch.load", "np.load", "yaml.load"} <= {name for _, _, name, _ in found}  # it does see them
    wrong = [
        f"{file}:{line}: {name} {why}" for file, line, name, given in found if (why := objections(file, name, given))
    ]
    assert wrong == []


def test_the_look_at_the_source_sees_what_is_forbidden():
    for text in ("eval('1')", "os.system('x')", "torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x)"):
        call = ast.parse(text).body[0].value
        given = {each.arg: ast.unparse(each.value) for each in call.keywords}
        assert objections("x.py", ast.unparse(call.func), given)
    assert objections("x.py", "subprocess.run", {"shell": "True"}) and objections("x.py", "yaml.load", {})
    assert not objections("x.py", "torch.load", {"weights_only": "True"})


def test_torchs_optimisers_are_arithmetic_and_nothing_else_of_it_is_allowed():
    for path in ("torch.optim.Adam", "torch.optim.sgd.SGD"):
        assert find_class(path, torch.optim.Optimizer, "optimizer", Trust()).__name__ in path
    others = ("torch.optim.lr_scheduler.LRScheduler", "torch.optim.adam.Tensor", "torch.optim", "torch.nn.Linear")
    for path in (*others, "torch.hub.load", "my.optim.Adam"):
        with pytest.raises(Untrusted, match=r"optimizer: .* must not choose what runs"):
            find_class(path, torch.optim.Optimizer, "optimizer", Trust())
