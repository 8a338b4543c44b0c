"""Meta-training on many devices' rewards of a few paid-for evaluations."""

import itertools
import math

import numpy as np
import pytest
import torch

from search.agents.naive_transfer import NaiveTransfer
from search.runs.journal import Journal
from search.spaces.nasbench201 import NASBench201
from search.studies.experiment import Experiment
from search.studies.meta_training import MetaTraining
from search.tasks.device_reward_pool import DeviceRewardPool
from search.tasks.latency_reward import LatencyRewardTask
from search.tasks.table import TableTask
from tests.search.evaluating import evaluate_many
from tests.search.tables.latency_tables import DEVICES, SPACE, column, write_latency, write_quality


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A third of the cells have no latency on the held-out board, index 3 none on the phone, index 4 no quality b."""
    folder = tmp_path_factory.mktemp("tables")

    def change(values):
        values[: len(values) // 3, 3] = 0.0
        values[3, 0] = 0.0

    def no_quality(columns):
        columns["b_val_acc_12ep"][4] = np.nan

    return write_latency(folder, change)[0], write_quality(folder, no_quality)[0]


def make(tables, datasets="ab", held_out=("board",), evaluations=60, exponent=-0.3, **options):
    latency, quality = tables
    columns = [column(quality, dataset) for dataset in datasets]
    return DeviceRewardPool(SPACE, columns, latency, list(held_out), exponent, evaluations=evaluations, **options)


def names(pool, count, seed=7):
    return [tuple(pool.describe(index, seed).split(" on ")) for index in range(count)]


def test_every_device_comes_up_once_a_round_and_every_pair_once_a_turn(tables):
    pool = make(tables)
    assert pool.devices == ("phone", "chip", "server")
    drawn = names(pool, 12)
    for k in range(0, 12, 3):
        assert {device for _, device in drawn[k : k + 3]} == {"phone", "chip", "server"}
    pairs = set(itertools.product(["a_val_acc_12ep", "b_val_acc_12ep"], pool.devices))
    assert set(drawn[:6]) == set(drawn[6:]) == pairs
    assert len({column for column, _ in drawn[:3]}) == 2  # the columns take turns


def test_exponents_take_turns_as_well(tables):
    pool = make(tables, exponent=[-0.3, -0.07])
    described = [pool.describe(index, 7) for index in range(24)]
    assert {each.partition(", w = ")[2] for each in described} == {"-0.3", "-0.07"}
    everything = {
        f"{column}_val_acc_12ep on {device}, w = {w}"
        for column, device, w in itertools.product("ab", pool.devices, ("-0.3", "-0.07"))
    }
    assert set(described[:12]) == set(described[12:]) == everything
    archs = pool.sample(0, 0)[:5]
    for index in range(3):
        name, _, w = pool.describe(index, 7).partition(", w = ")
        alone = make(tables, exponent=float(w))
        (same,) = [k for k in range(6) if alone.describe(k, 7) == name]
        scores = [
            [each.score for each in evaluate_many(p.draw(k, 7), archs.tolist())]
            for p, k in ((pool, index), (alone, same))
        ]
        assert scores[0] == scores[1]
    with pytest.raises(ValueError, match="'exponent' is empty"):
        make(tables, exponent=[])


def test_a_draw_depends_on_nothing_but_index_and_seed(tables):
    assert names(make(tables), 12) == names(make(tables), 12)
    assert len({tuple(names(make(tables), 12, seed)) for seed in range(8)}) > 1
    pool, again = make(tables), make(tables)
    later = [again.draw(index, 7) for index in reversed(range(6))][::-1]
    for index in range(6):
        assert torch.equal(pool.draw(index, 7).offered(1), later[index].offered(1))


def test_a_task_is_the_reward_of_its_column_and_device(tables):
    pool = make(tables, target_quantile=0.5, exponent=-0.07)
    for index in range(6):
        task = pool.draw(index, 7)
        (column_text, device), source = names(pool, 6)[index], pool.source(index, 7)
        alone = LatencyRewardTask(SPACE, column(tables[1], column_text[0]), tables[0], device, -0.07, 0.5)
        assert torch.equal(task.all_scores().nan_to_num(), alone.all_scores().nan_to_num())
        assert task.score_name == alone.score_name and column_text in source and device not in source


def test_all_tasks_of_an_agent_share_its_evaluations(tables):
    """However many tasks there are, one agent pays for at most 60 (column, architecture) pairs."""
    pool = make(tables)
    for trial_seed in (0, 1):
        paid = set()
        orders = set()
        for index in range(24):
            archs = [tuple(arch) for arch in pool.draw(index, 7).offered(trial_seed).tolist()]
            assert len(set(archs)) == 30
            orders.add(tuple(archs))
            paid |= {(pool.source(index, 7), arch) for arch in archs}
        assert len(paid) == 60 and len(orders) == 24  # each task in an order of its own
    a, b = pool.sample(0, 0), pool.sample(0, 1)
    assert len({*map(tuple, a.tolist())} & {*map(tuple, b.tolist())}) < 5  # agents differ: 30 of 15,625 each


def test_nothing_that_is_offered_fails(tables):
    pool = make(tables, evaluations=2 * 15623)  # all that was measured, of either column
    rows = {index: SPACE.from_index(index) for index in (3, 4)}
    offered = [{*map(tuple, pool.sample(column, 0).tolist())} for column in (0, 1)]
    assert all(len(each) == 15623 for each in offered)
    assert all(rows[3] not in each for each in offered) and rows[4] not in offered[1]
    task = make(tables).draw(0, 7)
    archs = [tuple(arch) for arch in task.offered(5).tolist()]
    assert all(each.status == "ok" for each in evaluate_many(task, archs))


def test_what_is_missing_on_a_held_out_device_decides_nothing(tables):
    """A third of the cells lack the board's latency; were they left out, the sample would tell of that device."""
    missing = {SPACE.from_index(index) for index in range(15625 // 3)}
    sample = {*map(tuple, make(tables, evaluations=2000).sample(0, 0).tolist())}
    assert len(sample & missing) / 1000 == pytest.approx(1 / 3, abs=0.06)  # four standard errors


def test_what_it_refuses(tables):
    with pytest.raises(ValueError, match="no device 'boart'; did you mean 'board'"):
        make(tables, held_out=["boart"])
    with pytest.raises(ValueError, match="every device is held out"):
        make(tables, held_out=DEVICES)
    with pytest.raises(ValueError, match="'quality' is empty"):
        make(tables, datasets="")
    with pytest.raises(ValueError, match="evaluations is 1, 2 to 31246 are possible"):
        make(tables, evaluations=1)
    with pytest.raises(ValueError, match="evaluations is 40000"):
        make(tables, evaluations=40000)
    with pytest.raises(ValueError, match="exponent is 1"):
        make(tables, exponent=1)
    with pytest.raises(ValueError, match="target_quantile is nan"):
        make(tables, target_quantile=math.nan)


def test_a_column_or_device_that_only_a_later_task_needs_is_refused_at_once(tables, tmp_path):
    def negative(columns):
        columns["b_val_acc_12ep"][77] = -0.5

    def broken(values):
        values[: 2 * len(values) // 3, 2:] = 0.0  # the server's and the held-out board's

    quality, latency = write_quality(tmp_path, negative)[0], write_latency(tmp_path, broken)[0]
    with pytest.raises(ValueError, match=r"quality, 'b val accuracy .*', is -0\.5; below 0 a slower network"):
        make((tables[0], quality))
    assert make((tables[0], quality), datasets="a").devices == ("phone", "chip", "server")
    with pytest.raises(ValueError, match="10,416 of the 15,625 latencies of 'server' were not measured"):
        make((latency, tables[1]))
    assert make((latency, tables[1]), held_out=("board", "server")).devices == ("phone", "chip")


def test_a_meta_training_is_told_what_is_paid_for_and_bills_it_once(tmp_path, real_data):
    """Through the experiment: four devices' tasks, one bill, and no network outside it."""
    quality, latencies = str(real_data("nasbench201.npz")), str(real_data("nasbench201_latency.npz"))
    column = {"table": quality, "dataset": "cifar100", "split": "val", "metric": "acc", "epochs": 12}
    experiment = Experiment(
        NASBench201(),
        {"c10": lambda space: TableTask(space, quality, "cifar10_valid", "val", "acc", 200)},
        {"naive": NaiveTransfer},
        budget=3,
        trials=2,
        meta_training=MetaTraining(
            lambda space: DeviceRewardPool(space, [column], latencies, ["fpga"], -0.3, evaluations=30),
            ["naive"],
            epochs=4,
            networks=20,
            trials=2,
        ),
    )
    journal = Journal(tmp_path / "journal.sqlite")
    summary = experiment.run(tmp_path, journal)["meta_training"]["naive"]
    records = list(journal.records("meta_training/naive"))
    journal.close()
    assert len({record.stage for record in records}) == 4
    assert len(records) == 2 * 4 * 20
    assert 20 < summary["source_evaluations"] <= 30
    first = {record.architecture for record in records if record.trial == 0}
    assert first != {record.architecture for record in records if record.trial == 1}
