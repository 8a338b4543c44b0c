"""Look-up latencies."""

from pathlib import Path

import numpy as np
import pytest
import torch

from search.latency import read_latency
from tests.search.latency_tables import DEVICES, SIZE, SPACE, write_latency
from tests.search.spaces.masked_space import MaskedSpace


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


def test_what_it_refuses(tmp_path):
    path, _ = write_latency(tmp_path)
    with pytest.raises(ValueError, match=r"no device 'phome'; the nearest are phone"):
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
