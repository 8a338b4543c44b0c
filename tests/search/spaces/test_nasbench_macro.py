"""NAS-Bench-Macro's space: sizes and networks of the table that ships."""

import numpy as np
import pytest
import torch

from lightning_modules.networks.cost.complexity import count_flops
from search.spaces.nasbench_macro import NASBenchMacro
from search.tables import SHIPPED_FOLDER
from search.tasks.table import TableTask


@pytest.fixture(scope="module")
def table():
    with np.load(SHIPPED_FOLDER / "nasbench_macro.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_networks_have_the_tables_sizes(table):
    """Of every 1,093rd row: each operation in each layer. The table counts no bias, of which there are ten."""
    space = NASBenchMacro()
    for row in range(0, 6561, 1093):
        with torch.device("meta"):
            network = space.build(tuple(table["arch"][row].tolist()))
        assert sum(each.numel() for each in network.parameters()) == table["params"][row]
        assert count_flops(network, (3, 32, 32)) - 10 == table["flops"][row]


def test_3969_networks_differ_and_equal_ones_have_equal_sizes(table):
    space = NASBenchMacro()
    archs = torch.from_numpy(table["arch"]).long()
    codes = space.code(space.representative(archs))
    assert len(codes.unique()) == 3969
    for column in ("params", "flops"):
        values = torch.from_numpy(table[column])
        assert torch.equal(values[codes], values)
    assert "".join(map(str, space.representative(archs[6473]).tolist())) == "22212220"


def test_the_table_is_a_task_whose_score_is_the_mean_of_three_trainings(table):
    space = NASBenchMacro()
    task = TableTask(space, str(SHIPPED_FOLDER / "nasbench_macro.npz"), "cifar10", "test", "acc", None)
    scores = task.all_scores()
    assert scores.tolist() == pytest.approx(table["cifar10_test_acc"].mean(1).tolist(), abs=1e-4)
    assert float(scores.max()) == pytest.approx(93.1267, abs=1e-4)
