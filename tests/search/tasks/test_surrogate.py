import ast
import itertools
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from search.randomness import TrialRandom
from search.spaces.darts import DARTS
from search.spaces.nasbench201 import NASBench201
from search.tasks.surrogate import SurrogateTask
from tests.search.evaluating import evaluate, evaluate_many

SPACE = DARTS()
SEP, SKIP, POOL = (
    SPACE.from_genotype(*([(name, 0), (name, 1)] * 4 for _ in range(2)))
    for name in ("sep_conv_3x3", "skip_connect", "max_pool_3x3")
)
DARTS_V2 = SPACE.parse(
    "normal=[sep_conv_3x3~0,sep_conv_3x3~1,sep_conv_3x3~0,sep_conv_3x3~1,skip_connect~0,sep_conv_3x3~1,"
    "skip_connect~0,dil_conv_3x3~2]|reduce=[max_pool_3x3~0,max_pool_3x3~1,max_pool_3x3~1,skip_connect~2,"
    "max_pool_3x3~0,skip_connect~2,max_pool_3x3~1,skip_connect~2]"
)


@pytest.fixture(scope="module")
def files(real_data):
    """The model's path and the encoding's."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install catchmark[surrogate]")
    folder = real_data("nasbench301_surrogate")
    return str(folder / "model_v2.onnx"), str(folder / "encoding_v2.json")


@pytest.fixture(scope="module")
def task(files):
    return SurrogateTask(SPACE, *files)


def some(n, seed=3):
    return SPACE.sample(TrialRandom(seed), n)[0]


def by_hand(arch):
    """The model's inputs by their names, from the genotype."""
    values = {}
    for cell, terms in SPACE.genotype(arch).items():
        edge = {target: sum(range(2, target)) for target in range(2, 6)}
        values |= {f"edge_{cell}_{k}": "#na#" for k in range(14)}
        for k, (operation, source) in enumerate(terms):
            values[f"edge_{cell}_{edge[2 + k // 2] + source}"] = operation
        for target in (3, 4, 5):
            (_, one), (_, two) = terms[2 * target - 4 : 2 * target - 2]
            values[f"inputs_node_{cell}_{target}"] = f"{min(one, two)}_{max(one, two)}"
    return values


def test_the_inputs_are_those_of_the_encoding_file_by_number(task, files):
    encoding = {name.split("_COLON_")[-1]: codes for name, codes in json.loads(Path(files[1]).read_text()).items()}
    order = [f"edge_{cell}_{k}" for cell in ("normal", "reduce") for k in range(14)]
    order += [f"inputs_node_{cell}_{node}" for cell in ("normal", "reduce") for node in (3, 4, 5)]
    assert sorted(order) == sorted(encoding)
    archs = some(200)
    codes = task.encode(archs)
    assert codes.shape == (200, 34) and codes.dtype == torch.int32
    for arch, row in zip(archs.tolist(), codes.tolist(), strict=True):
        values = by_hand(tuple(arch))
        assert row == [encoding[name][values[name]] for name in order]


def test_predictions_are_plausible(task):
    score = {name: evaluate(task, arch, 0).score for name, arch in (("v2", DARTS_V2), ("skip", SKIP), ("pool", POOL))}
    randoms = 100 * task.predict(some(500))[:, 0]
    assert 92 < randoms.mean() < 93 and randoms.min() > 88 and randoms.max() < 95
    # DARTS' own cells among the better tenth or so, cells that cannot learn anything among the worst.
    assert score["v2"] > randoms.quantile(0.8)
    assert max(score["skip"], score["pool"]) < randoms.quantile(0.01)
    assert evaluate(task, SEP, 0).cost_seconds > 1.5 * evaluate(task, SKIP, 0).cost_seconds


def test_predictions_agree_with_the_benchmarks_own_predictor(task, real_data, files):
    with np.load(real_data("zero_cost_proxies.npz"), allow_pickle=False) as arrays:
        rows = np.flatnonzero(arrays["space"] == "nasbench301")
        codes = [ast.literal_eval(text) for text in arrays["arch"][rows].tolist()]
        columns = arrays["columns"].tolist()
        accuracy, parameters = (arrays["values"][rows, columns.index(name)] for name in ("val_accuracy", "params"))
    names = SPACE.decisions[1].choices
    archs = torch.tensor(
        [SPACE.from_genotype(*([(names[op], source) for source, op in cell] for cell in code)) for code in codes]
    )
    predicted = task.predict(archs).numpy()
    assert kendalltau(predicted[:, 0], accuracy).statistic > 0.4
    assert kendalltau(predicted[:, 1], accuracy).statistic < -0.25
    assert np.corrcoef(predicted[:, 3], parameters)[0, 1] > 0.75
    # The alphabetical order of the encoding's file would be wrong: the agreement falls.
    encoding = list(json.loads(Path(files[1]).read_text()))
    order = [
        encoding.index(name) for name in sorted(encoding, key=lambda n: (n.split("_")[:-1], int(n.split("_")[-1])))
    ]
    shuffled = np.empty((len(archs), 34), dtype=np.int32)
    shuffled[:, np.arange(34)] = task.encode(archs).numpy()[:, np.argsort(order)]
    wrong = task._session.run(None, {"x_cat": shuffled, "x_cont": np.full((len(archs), 1), 98, np.float32)})[0]
    assert kendalltau(wrong[:, 0], accuracy).statistic < kendalltau(predicted[:, 0], accuracy).statistic - 0.03


def test_evaluations_hold_the_accuracy_the_cost_and_the_metrics_asked_for(files):
    task = SurrogateTask(SPACE, *files, metrics=["val_cross_entropy", "runtime_increase"])
    accuracy, cross_entropy, runtime, increase = task.predict(torch.tensor([DARTS_V2]))[0].tolist()
    evaluation = evaluate(task, DARTS_V2, 5)
    assert evaluation.status == "ok" and evaluation.score == 100 * accuracy and evaluation.cost_seconds == runtime
    assert evaluation.metrics == {"val_cross_entropy": cross_entropy, "runtime_increase": increase}
    assert 92 < evaluation.score < 94 and 0.2 < cross_entropy < 0.35
    assert 3600 < runtime < 7200 and abs(98 * increase - runtime) < 0.5 * runtime
    assert task.score_name == "cifar10 val accuracy after 98 epochs, predicted (%)" and task.instant


def test_fewer_epochs_are_worth_less_and_cost_less(files):
    evaluations = [evaluate(SurrogateTask(SPACE, *files, epochs), DARTS_V2, 0) for epochs in (5, 20, 50, 98)]
    for earlier, later in itertools.pairwise(evaluations):
        assert earlier.score < later.score and earlier.cost_seconds < later.cost_seconds


def test_together_and_one_by_one_are_the_same_to_the_bit(task):
    archs = [tuple(arch) for arch in some(70).tolist()]
    together = list(evaluate_many(task, archs))
    assert together == [evaluate(task, arch, 0) for arch in archs]
    assert together[3:20] == list(evaluate_many(task, archs[3:20]))
    assert len({evaluation.score for evaluation in together}) > 60
    assert list(evaluate_many(task, [])) == []


def test_the_task_travels_to_another_process(task):
    assert evaluate(pickle.loads(pickle.dumps(task)), DARTS_V2, 0) == evaluate(task, DARTS_V2, 0)


def test_files_are_found_below_the_data_folder(monkeypatch, tmp_path, task, files):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATCHMARK_DATA", str(Path(files[0]).parents[1]))
    assert evaluate(SurrogateTask(SPACE), DARTS_V2, 0) == evaluate(task, DARTS_V2, 0)
    monkeypatch.setenv("CATCHMARK_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"no encoding 'nasbench301_surrogate/encoding_v2.json' .*CATCHMARK_DATA"
    ):
        SurrogateTask(SPACE)
    (tmp_path / "nasbench301_surrogate").mkdir()
    shutil.copy(files[1], tmp_path / "nasbench301_surrogate")
    with pytest.raises(FileNotFoundError, match=r"no surrogate 'nasbench301_surrogate/model_v2.onnx'"):
        SurrogateTask(SPACE)


def test_wrong_arguments_are_refused(task, files):
    with pytest.raises(ValueError, match=r"space is 'nasbench201', .* on the space 'darts' only"):
        SurrogateTask(NASBench201(), *files)
    for epochs in (0, 99):
        with pytest.raises(ValueError, match=rf"epochs is {epochs}, it must lie in \[1, 98\]"):
            SurrogateTask(SPACE, *files, epochs)
    with pytest.raises(ValueError, match=r"metrics has 'run_time', allowed: .*did you mean 'runtime'"):
        SurrogateTask(SPACE, *files, metrics=["run_time"])
    with pytest.raises(ValueError, match=r"darts: decision 'normal 3 inputs' .* is 3, allowed"):
        evaluate(task, (0, 0, 0, 3, *DARTS_V2[4:]), 0)


def test_wrong_files_are_refused(tmp_path, files):
    damaged = tmp_path / "damaged"
    damaged.write_bytes(Path(files[0]).read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged: the surrogate cannot be opened"):
        SurrogateTask(SPACE, str(damaged), files[1])
    with pytest.raises(ValueError, match="damaged: the encoding is damaged"):
        SurrogateTask(SPACE, files[0], str(damaged))
    content = json.loads(Path(files[1]).read_text())
    del content["NetworkSelectorDatasetInfo_COLON_darts_COLON_inputs_node_reduce_4"]["1_3"]
    lacking = tmp_path / "lacking.json"
    lacking.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"lacking.json: not NAS-Bench-301's encoding: .*reduce_4' has no .*'1_3'"):
        SurrogateTask(SPACE, files[0], str(lacking))
    lacking.write_text("[]")
    with pytest.raises(ValueError, match="not NAS-Bench-301's encoding"):
        SurrogateTask(SPACE, files[0], str(lacking))


def test_a_missing_package_is_one_line_with_the_cure(monkeypatch, files):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install catchmark\[surrogate\]") as caught:
        SurrogateTask(SPACE, *files)
    assert "\n" not in str(caught.value)
