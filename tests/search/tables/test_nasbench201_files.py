"""Conversion of NAS-Bench-201 and NATS-Bench files, on synthetic ones in their layouts."""

import bz2
import collections
import itertools
import os
import pickle

import numpy as np
import pytest
import torch

from search.spaces.nasbench201 import NASBench201
from search.tables.nasbench201 import convert_nasbench201
from search.tables.table import list_columns, read_columns

SPACE = NASBench201()
ARCHS = list(itertools.islice(SPACE.enumerate(), 0, 15625, 4000))
NAMES = [SPACE.format(arch) for arch in ARCHS]
SETS = {
    "cifar10-valid": ["x-valid", "ori-test"],
    "cifar10": ["ori-test"],
    "cifar100": ["ori-test", "x-valid", "x-test"],
    "ImageNet16-120": ["ori-test", "x-valid", "x-test"],
}
SEEDS = {12: {"cifar10-valid": [111, 777]}, 200: {key: [777, 888, 999] for key in SETS}}


def accuracy(index, dataset, evaluation, seed, epochs, epoch):
    """Some number that differs in every argument, from 0 to 100."""
    return (
        hash((index, list(SETS).index(dataset), SETS[dataset].index(evaluation), seed, epochs, epoch)) % 10007
    ) / 101


def trial(index, dataset, seed, epochs):
    accuracies = {
        f"{evaluation}@{epoch}": accuracy(index, dataset, evaluation, seed, epochs, epoch)
        for evaluation in SETS[dataset]
        for epoch in range(epochs)
    }
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": {epoch: 1.0 for epoch in range(epochs)},
        "train_acc5es": None,
        "train_losses": {epoch: 2.0 for epoch in range(epochs)},
        "train_times": collections.OrderedDict((epoch, 0.5 + index + seed / 1000) for epoch in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": NAMES[index], "class_num": 10},
        "params": np.float64(0.1 + index),
        # Early releases miscounted for some seeds.
        "flop": 15.0 + index + (7.0 if seed == 777 and epochs == 200 else 0.0),
        "seed": f"{seed:04d}",
        "epochs": epochs,
        "latency": [np.float64(0.016)],
        "eval_names": SETS[dataset],
        "eval_acc1es": accuracies,
        "eval_times": {key: 0.1 for key in accuracies},
        "eval_losses": {key: 3.0 for key in accuracies},
    }


def results(index, epochs):
    seeds = {dataset: SEEDS[epochs].get(dataset, [111]) for dataset in SETS}
    return {
        "arch_index": index,
        "arch_str": NAMES[index],
        "all_results": {
            (dataset, seed): trial(index, dataset, seed, epochs) for dataset in SETS for seed in seeds[dataset]
        },
        "dataset_seed": seeds,
        "clear_net_done": True,
    }


def whole(less="12", full="200"):
    return {
        "meta_archs": NAMES,
        "arch2infos": {
            k: collections.OrderedDict([(less, results(k, 12)), (full, results(k, 200))]) for k in range(len(NAMES))
        },
        "evaluated_indexes": set(range(len(NAMES))),
    }


def write_folder(folder):
    folder.mkdir()
    content = whole()
    for k, record in content["arch2infos"].items():
        (folder / f"{k:06d}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(record, protocol=4)))
    meta = {"meta_archs": NAMES, "total_archs": len(NAMES), "arch2infos": None, "evaluated_indexes": set()}
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(meta, protocol=4)))
    return folder


def write_source(layout, folder):
    if layout == "folder":
        return write_folder(folder / "NATS-tss-v1_0-synthetic-simple")
    if layout == "pbz2":
        (folder / "NATS-tss.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(whole(), protocol=4)))
        return folder / "NATS-tss.pickle.pbz2"
    path = folder / "NAS-Bench-201.pth"
    torch.save(whole("less", "full"), path, _use_new_zipfile_serialization=layout == "pth zip")
    return path


@pytest.mark.parametrize("layout", ["folder", "pbz2", "pth", "pth zip"])
def test_values(layout, tmp_path):
    source = write_source(layout, tmp_path)
    out = convert_nasbench201(source, tmp_path / "out.npz")
    table = read_columns(out, list_columns(out))
    assert [tuple(row) for row in table.arch.tolist()] == ARCHS
    assert table.space == SPACE.name
    assert table.provenance["source"] == source.name and len(table.provenance["source_sha256"]) == 64

    columns = {
        ("cifar10-valid", "x-valid"): "cifar10_valid_val",
        ("cifar10-valid", "ori-test"): "cifar10_valid_test",
        ("cifar10", "ori-test"): "cifar10_test",
        ("cifar100", "x-valid"): "cifar100_val",
        ("cifar100", "x-test"): "cifar100_test",
        ("ImageNet16-120", "x-valid"): "imagenet16_120_val",
        ("ImageNet16-120", "x-test"): "imagenet16_120_test",
    }
    checked = {"params_m", "flops_m"}
    for epochs in (12, 200):
        for (dataset, evaluation), name in columns.items():
            seeds = SEEDS[epochs].get(dataset, [111])
            want = [
                np.mean([accuracy(k, dataset, evaluation, seed, epochs, epochs - 1) for seed in seeds])
                for k in range(len(ARCHS))
            ]
            assert table.columns[f"{name}_acc_{epochs}ep"] == pytest.approx(want, rel=1e-6)
            seconds = f"{name.rpartition('_')[0]}_train_seconds_{epochs}ep"
            want = [epochs * (0.5 + k + np.mean(seeds) / 1000) for k in range(len(ARCHS))]
            assert table.columns[seconds] == pytest.approx(want, rel=1e-6)
            checked |= {f"{name}_acc_{epochs}ep", seconds}
    assert table.columns["params_m"] == pytest.approx([0.1 + k for k in range(len(ARCHS))])
    assert table.columns["flops_m"] == pytest.approx([15.0 + k for k in range(len(ARCHS))])  # of seed 888
    assert set(table.columns) == checked


def test_results_that_a_release_lacks_become_no_column(tmp_path):
    content = whole("less", "full")
    for record in content["arch2infos"].values():  # v1.0 has 12 epochs of cifar10-valid only
        less = record["less"]["all_results"]
        record["less"]["all_results"] = {key: value for key, value in less.items() if key[0] == "cifar10-valid"}
        for value in record["full"]["all_results"].values():
            value["train_times"] = None
    torch.save(content, tmp_path / "a.pth")
    names = list_columns(convert_nasbench201(tmp_path / "a.pth", tmp_path / "out.npz"))
    assert [name for name in names if "12ep" in name] == [
        "cifar10_valid_test_acc_12ep",
        "cifar10_valid_train_seconds_12ep",
        "cifar10_valid_val_acc_12ep",
    ]
    assert not [name for name in names if "seconds_200ep" in name] and "cifar100_test_acc_200ep" in names


def test_weights_are_skipped(tmp_path):
    content = whole("less", "full")
    for record in content["arch2infos"].values():
        for value in record["full"]["all_results"].values():
            value["net_state_dict"] = {"w": torch.ones(1000)}
    for zipped in (True, False):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        out = convert_nasbench201(tmp_path / "a.pth", tmp_path / "out.npz")
        assert "cifar10_test_acc_200ep" in list_columns(out)


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("layout", ["folder", "pbz2", "pth", "pth zip"])
def test_a_malicious_pickle_does_not_run(layout, tmp_path):
    witness = tmp_path / "witness"
    bad = Malicious(f"touch {witness}")
    source = write_source(layout, tmp_path)
    if layout == "folder":
        record = {"12": results(2, 12), "200": bad}
        (source / "000002.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(record)))
    elif layout == "pbz2":
        source.write_bytes(bz2.compress(pickle.dumps({**whole(), "evaluated_indexes": bad})))
    else:
        torch.save({"first": bad, **whole("less", "full")}, source, _use_new_zipfile_serialization=layout == "pth zip")
    with pytest.raises(ValueError, match=r"the pickle names 'posix\.system', which is not benchmark data"):
        convert_nasbench201(source, tmp_path / "out.npz")
    assert not witness.exists() and not (tmp_path / "out.npz").exists()


def test_an_incomplete_folder_is_refused(tmp_path):
    source = write_folder(tmp_path / "NATS")
    (source / "000001.pickle.pbz2").unlink()
    (source / "000003.pickle.pbz2").unlink()
    with pytest.raises(ValueError, match=r"2 of 4 architectures have no results \(the first is 000001\)"):
        convert_nasbench201(source, tmp_path / "out.npz")


@pytest.mark.parametrize("layout", ["folder", "pbz2", "pth", "pth zip"])
def test_a_truncated_source_is_named(layout, tmp_path):
    source = write_source(layout, tmp_path)
    part = source / "000002.pickle.pbz2" if layout == "folder" else source
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(ValueError, match=part.name) as caught:
        convert_nasbench201(source, tmp_path / "out.npz")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_architecture_is_noticed(tmp_path):
    source = write_folder(tmp_path / "NATS")
    (source / "000001.pickle.pbz2").write_bytes((source / "000002.pickle.pbz2").read_bytes())
    with pytest.raises(ValueError, match=r"000001\.pickle\.pbz2: it is of .* is expected"):
        convert_nasbench201(source, tmp_path / "out.npz")


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"github\.com/D-X-Y/NATS-Bench"):
        convert_nasbench201(tmp_path / "absent.pth", tmp_path / "out.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no 'meta\.pickle\.pbz2' in it"):
        convert_nasbench201(tmp_path / "empty", tmp_path / "out.npz")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="not a NATS-Bench folder"):
        convert_nasbench201(tmp_path / "a.txt", tmp_path / "out.npz")
    torch.save({"weights": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no list of architectures"):
        convert_nasbench201(tmp_path / "a.pth", tmp_path / "out.npz")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"meta_archs": NAMES}))
    with pytest.raises(ValueError, match=r"not a file of torch\.save"):
        convert_nasbench201(tmp_path / "b.pth", tmp_path / "out.npz")


def test_csv(tmp_path):
    source = tmp_path / "mine.csv"
    source.write_text(f"cifar10_test_acc_200ep,arch,flops_m\n93.5,{NAMES[1]},\n10,{NAMES[0]},7.5\n")
    table = read_columns(convert_nasbench201(source, tmp_path / "o.npz"), ["cifar10_test_acc_200ep", "flops_m"])
    assert [tuple(row) for row in table.arch.tolist()] == [ARCHS[1], ARCHS[0]]
    assert table.columns["cifar10_test_acc_200ep"].tolist() == [93.5, 10.0]
    assert np.isnan(table.columns["flops_m"][0]) and table.columns["flops_m"][1] == 7.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar10_test_acc_200ep\n1\n", "must name one column 'arch' or 'arch_str'"),
        ("arch,Test Acc\nx,1\n", "'Test Acc' is not a column name"),
        (f"arch,a\n{NAMES[0]},1\n|none~0|,1\n", r"mine\.csv, line 3: "),
        (f"arch,a\n{NAMES[0]},good\n", r"mine\.csv, line 2: could not convert string to float: 'good'"),
        (f"arch,a\n{NAMES[0]}\n", r"line 2: 1 cells, the header has 2"),
        (f"arch,a\n{NAMES[0]},1\n{NAMES[0]},2\n", "without a row twice"),
        ("arch,a\n", "no line after the header"),
    ],
)
def test_a_wrong_csv_names_its_line(text, message, tmp_path):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert_nasbench201(tmp_path / "mine.csv", tmp_path / "o.npz")
