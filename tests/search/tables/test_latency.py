"""Look-up latencies."""

from pathlib import Path

import numpy as np
import pytest
import torch

from search.tables.latency import read_latency
from tests.search.spaces.masked_space import MaskedSpace
from tests.search.tables.latency_tables import DEVICES, SIZE, SPACE, write_latency


def test_rows_are_found_by_architecture(tmp_path):
    path, values = write_latency(tmp_path)
    table = read_latency(path, SPACE)
    assert table.devices == DEVICES and table.milliseconds.shape == (SIZE, 4)
    for index in (0, 1, 857, 6111, 15624):
        code = int(SPACE.code(torch.tensor(SPACE.from_index(index))))
        for k, device in enumerate(DEVICES):
            assert table.of(device)[code].item() == values[index, k]


def test_values_of_almost_zero_are_missing(tmp_path):
    def change(values):
        values[:, 1] = 100.0
        values[7, 1], values[8, 1], values[9, 1], values[10, 1] = 4.9, 5.1, 0.0, np.nan

    path, _ = write_latency(tmp_path, change)
    table = read_latency(path, SPACE)
    missing = table.of("chip")[[int(SPACE.code(torch.tensor(SPACE.from_index(k)))) for k in (7, 8, 9, 10)]].isnan()
    assert missing.tolist() == [True, False, True, True]
    assert int(table.milliseconds.isnan().sum()) == 3


@pytest.mark.parametrize("broken", [0.0, -3.0, np.inf, -np.inf, np.nan, 1e-4], ids=str)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.6, 0.9])
def test_a_device_on_which_less_than_half_was_measured_is_refused(tmp_path, broken, share):
    count = int(share * SIZE)

    def change(values):
        values[np.random.default_rng(3).permutation(SIZE)[:count], 1] = broken

    path, _ = write_latency(tmp_path, change)
    table = read_latency(path, SPACE)
    assert not table.of("phone").isnan().any()  # the others are as good as ever
    if share > 0.5:
        with pytest.raises(ValueError, match=rf"{count:,} of the 15,625 latencies of 'chip' were not measured") as told:
            table.of("chip")
        assert "\n" not in str(told.value) and path in str(told.value)
    else:
        assert int(table.of("chip").isnan().sum()) == count and table.of("chip").nanquantile(0.0) >= 1


def test_several_kinds_of_broken_values_count_together(tmp_path):
    def change(values):
        values[:8000, 1] = np.resize([0.0, -1.0, np.inf, np.nan, 0.01], 8000)

    with pytest.raises(ValueError, match="8,000 of the 15,625 latencies of 'chip'"):
        read_latency(write_latency(tmp_path, change)[0], SPACE).of("chip")


def test_a_device_without_any_latency_is_refused_and_a_very_fast_one_is_not(tmp_path):
    def change(values):
        values[:, 0], values[:, 1] = np.nan, values[:, 1] / 1e4

    table = read_latency(write_latency(tmp_path, change)[0], SPACE)
    with pytest.raises(ValueError, match="15,625 of the 15,625 latencies of 'phone' were not measured"):
        table.of("phone")
    assert not table.of("chip").isnan().any()


def test_what_it_refuses(tmp_path):
    path, _ = write_latency(tmp_path)
    with pytest.raises(ValueError, match=r"no device 'phome'; did you mean 'phone'"):
        read_latency(path, SPACE).of("phome")
    with pytest.raises(ValueError, match="of the space 'nasbench201', the task's is 'masked'"):
        read_latency(path, MaskedSpace())
    with pytest.raises(FileNotFoundError, match="no table"):
        read_latency(str(tmp_path / "none.npz"), SPACE)
    np.savez(tmp_path / "short.npz", latency_ms=np.ones((3, 4), np.float32), devices=np.array(DEVICES))
    with pytest.raises(ValueError, match=r"latency_ms is float32 \[3, 4\], float32 \[15625, 4\] is needed"):
        read_latency(tmp_path / "short.npz", SPACE)
    np.savez(tmp_path / "other.npz", milliseconds=np.ones(3))
    with pytest.raises(ValueError, match="no readable latency_ms and devices"):
        read_latency(tmp_path / "other.npz", SPACE)
    np.savez(tmp_path / "pickle.npz", latency_ms=np.ones((SIZE, 1), np.float32), devices=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="no readable latency_ms and devices"):
        read_latency(tmp_path / "pickle.npz", SPACE)
    (tmp_path / "cut.npz").write_bytes(Path(path).read_bytes()[:5000])
    with pytest.raises(ValueError, match="no readable latency_ms and devices"):
        read_latency(tmp_path / "cut.npz", SPACE)


def test_the_published_latencies(real_data):
    table = read_latency(real_data("nasbench201_latency.npz"), SPACE)
    missing = {device: int(table.of(device).isnan().sum()) for device in table.devices}
    assert {device: count for device, count in missing.items() if count} == {"pixel3": 273, "raspi4": 284}
    # A cell of six 3x3 convolutions is slower than one of six skip connections, on every device.
    slow, fast = (table.milliseconds[int(SPACE.code(torch.tensor([choice] * 6)))] for choice in (3, 1))
    assert (slow > 1.2 * fast).all()
