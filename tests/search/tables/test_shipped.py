"""The tables that ship: all there, all found, none damaged, and the numbers that their authors published."""

import configparser
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from search.cli import main
from search.recipes.recipe import RECIPES
from search.spaces.nasbench201 import NASBench201
from search.spaces.transnasbench101 import TransNASBench101Micro
from search.tables import SHIPPED, SHIPPED_FOLDER
from search.tables.table import file_digest, find_table

# Wu et al., CVPR 2019: the operation of each of the 22 layers, as numbers of the table's `ops`.
FBNETS = {
    "A": (8, 2, 0, 8, 8, 7, 2, 4, 2, 7, 6, 5, 7, 3, 5, 6, 1, 7, 7, 6, 7, 7),
    "B": (0, 3, 4, 0, 0, 7, 6, 3, 7, 7, 7, 8, 6, 7, 0, 4, 6, 7, 4, 7, 7, 3),
    "C": (0, 3, 8, 0, 0, 7, 6, 7, 3, 7, 6, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 3),
}
READ = {"figure3": "nasbench201.npz", "devices": "nasbench201_latency.npz", "transnas": "transnasbench101.npz"}
"""A recipe for each table that one can be searched on."""


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty current folder, and no other place that has tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CATCHMARK_DATA", raising=False)
    return tmp_path


def arrays_of(name):
    with np.load(SHIPPED_FOLDER / name, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def test_the_list_the_folder_and_its_page_agree():
    assert sorted(path.name for path in SHIPPED_FOLDER.glob("*.npz")) == sorted(SHIPPED)
    page = (SHIPPED_FOLDER / "README.md").read_text()
    for name in SHIPPED:
        assert f"## {name}\n" in page
        assert f"* `{name}`: `{file_digest(SHIPPED_FOLDER / name)}`" in page


def test_each_has_its_licence_beside_it():
    licences = "".join(path.read_text() for path in SHIPPED_FOLDER.glob("LICENSE-*.txt"))
    assert all(name in licences for name in SHIPPED)
    assert "Permission is hereby granted, free of charge" in licences and "END OF TERMS AND CONDITIONS" in licences


def test_every_file_beside_the_code_is_installed_with_it():
    """A wheel has what ``package_data`` names, a clone has everything: nobody who works in a clone would notice."""
    root = SHIPPED_FOLDER.parents[2]
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg")
    named = {
        path
        for package, globs in settings["options.package_data"].items()
        for glob in globs.split()
        for path in (root / package.replace(".", "/")).glob(glob)
    }
    packages = [root / name for name in ("search", "lightning_modules", "datamodules")]
    beside = {
        path for folder in packages for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    left_out = {path for path in beside - named if path.suffix != ".py"}
    assert not left_out and set(SHIPPED_FOLDER.iterdir()) <= named


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_found_last_of_all_places(name, nowhere, monkeypatch):
    assert find_table(name) == SHIPPED_FOLDER / name
    data = nowhere / "data"
    data.mkdir()
    monkeypatch.setenv("CATCHMARK_DATA", str(data))
    assert find_table(name) == SHIPPED_FOLDER / name
    (data / name).touch()
    assert find_table(name) == data / name
    Path(name).mkdir()  # no file
    assert find_table(name) == data / name
    Path(name).rmdir()
    Path(name).touch()
    assert find_table(name) == Path(name)


def test_the_error_of_an_absent_table_names_those_that_ship(nowhere):
    for absent in ("nasbench21.npz", nowhere / "nasbench201.npz"):
        with pytest.raises(FileNotFoundError) as caught:
            find_table(absent)
        assert all(name in str(caught.value) for name in (str(absent), *SHIPPED)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_array_opens_without_pickle_and_is_whole(name):
    with zipfile.ZipFile(SHIPPED_FOLDER / name) as archive:
        assert archive.testzip() is None
    # Of cells from whose input nothing reaches the output most proxies say nothing.
    dead = 400 if name.endswith("_proxies.npz") else 0
    for array in arrays_of(name).values():
        assert array.dtype.kind != "O"
        if array.dtype.kind == "f":
            assert np.isnan(array).sum() <= dead and not np.isinf(array).any()


@pytest.mark.parametrize(("recipe", "name"), READ.items())
def test_a_recipe_starts_without_a_download_and_refuses_a_damaged_copy(recipe, name, nowhere, capsys):
    path = str(RECIPES / "catch" / f"{recipe}.yaml")
    assert main(["run", path, "--dry-run"]) == 0
    assert name in yaml.safe_dump(yaml.safe_load(capsys.readouterr().out))
    whole = (SHIPPED_FOLDER / name).read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], b"", whole[:middle] + bytes(200) + whole[middle + 200 :]):
        Path(name).write_bytes(damaged)
        assert main(["run", path, "--dry-run"]) == 2
        line = capsys.readouterr().err
        assert line.startswith("catchmark: ") and line.count("\n") == 1 and name in line
    shutil.copy(SHIPPED_FOLDER / name, name)
    assert main(["run", path, "--dry-run"]) == 0


# ---- what was published ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "best", "row"),
    [("cifar10", 94.3733, 6111), ("cifar100", 73.5133, 9930), ("imagenet16_120", 47.3111, 857)],
)
def test_the_best_networks_of_nasbench201(dataset, best, row):
    accuracy = arrays_of("nasbench201.npz")[f"{dataset}_test_acc_200ep"]
    assert accuracy.argmax() == row and accuracy.max() == pytest.approx(best, abs=1e-4)


def test_the_best_and_the_worst_network_of_nasbench_macro():
    table = arrays_of("nasbench_macro.npz")
    assert (table["arch"] @ 3 ** np.arange(8)[::-1]).tolist() == list(range(3**8))
    mean = table["cifar10_test_acc"].mean(axis=1)
    assert mean.argmax() == 6473 and mean.max() == pytest.approx(93.1267, abs=1e-4)
    assert "".join(map(str, table["arch"][6473])) == "22212202"
    assert mean.argmin() == 0 and mean.min() == pytest.approx(45.3633, abs=1e-4)


@pytest.mark.parametrize(("device", "expected"), [("pixel3", (19.29, 22.87, 28.78)), ("raspi4", (38.34, 43.72, 52.70))])
def test_the_latencies_of_fbnet(device, expected):
    table = arrays_of("fbnet_operator_latency.npz")
    place = table["devices"].tolist().index(device)
    assert table["heldout_r2"][place] == pytest.approx(1)
    latencies = [
        table["all_skip_ms"][place] + table["extra_ms"][place, range(22), ops].sum() for ops in FBNETS.values()
    ]
    assert latencies == pytest.approx(expected, abs=0.01)


def test_proxies_stand_beside_the_accuracies_of_their_cells():
    """Their rows are in another order than the benchmark's; cells that compute the same have the same values."""
    proxies, benchmark = arrays_of("nasbench201_proxies.npz"), arrays_of("nasbench201.npz")
    space = NASBench201()
    order = space.code(torch.from_numpy(benchmark["arch"].astype(np.int64))).argsort()
    codes = space.code(torch.from_numpy(proxies["arch"].astype(np.int64)))
    assert codes.tolist() == list(range(15625))
    for name, column in (("cifar10", "cifar10_test_acc_200ep"), ("flops", "flops_m"), ("parameters", "params_m")):
        np.testing.assert_allclose(proxies[name], benchmark[column][order.numpy()], rtol=1e-6)
    same = space.code(space.representative(torch.from_numpy(proxies["arch"].astype(np.int64)))).numpy()
    for name in ("synflow", "jacov", "zen", "zico", "grasp"):
        np.testing.assert_array_equal(proxies[name], proxies[name][same])


def test_proxies_of_transnasbench101_stand_beside_its_tasks():
    proxies, benchmark = arrays_of("transnasbench101_proxies.npz"), arrays_of("transnasbench101.npz")
    space = TransNASBench101Micro()
    archs = [torch.from_numpy(table["arch"].astype(np.int64)) for table in (proxies, benchmark)]
    assert space.code(archs[0]).tolist() == list(range(4096))
    order = space.code(archs[1]).argsort().numpy()
    for name, metric in (("class_scene", "val_acc"), ("room_layout", "val_neg_loss"), ("normal", "val_ssim")):
        np.testing.assert_allclose(proxies[name], benchmark[f"{name}_{metric}"][order], rtol=1e-6)
    # Two of its cells, counted again from their networks.
    for row in (4095, 1234):
        network = space.build(tuple(archs[0][row].tolist()), channels=16)
        assert proxies["parameters"][row] == sum(p.numel() for p in network.parameters())
    same = space.code(space.representative(archs[0])).numpy()
    for name in ("synflow", "jacov"):
        np.testing.assert_array_equal(proxies[name], proxies[name][same])
