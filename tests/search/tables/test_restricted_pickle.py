"""Pickles are read as data: equal to what pickle makes of them, and nothing in them ever runs."""

import collections
import io
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch

from search.tables.restricted_pickle import DROPPED, read_pickle

DATA = {
    "numbers": [0, 1, 255, 256, 70000, -1, 2**31, -(2**40), 10**30, 0.5, float("inf"), True, False, None],
    "texts": ["", "ä", "x" * 300, b"", b"\x00\xff", b"y" * 300],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    ("cifar10", 777): collections.OrderedDict([(k, k / 7) for k in range(2500)]),  # filled in several batches
    "sets": {1, 2, 3},
    "scalars": [np.float64(1 / 3), np.float32(0.1), np.int64(-5), np.bool_(True)],
}
DATA["shared"] = [DATA["texts"], DATA["texts"]]


def read(content: bytes, **arguments):
    return read_pickle(io.BytesIO(content), "file", **arguments)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Record:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("protocol", range(2, 6))
def test_equals_pickle(protocol):
    content = pickle.dumps(DATA, protocol=protocol)
    got = read(content)
    assert got == pickle.loads(content)
    assert list(got[("cifar10", 777)]) == list(range(2500))
    assert got["shared"][0] is got["shared"][1]
    assert all(type(value) in (float, int, bool) for value in got["scalars"])


@pytest.mark.parametrize("protocol", range(6))
def test_a_forbidden_call_does_not_run(protocol, tmp_path):
    witness = tmp_path / "witness"
    for bad in (
        Call(os.system, f"touch {witness}"),
        Call(eval, f"open({str(witness)!r}, 'w')"),
        Call(open, str(witness), "w"),
    ):
        content = pickle.dumps({"meta_archs": ["a"], "bad": [bad]}, protocol=protocol)
        with pytest.raises(
            ValueError, match=r"^file: the pickle names '\w+\.\w+', which is not benchmark data"
        ) as caught:
            read(content)
        assert "\n" not in str(caught.value) and not witness.exists()
    pickle.loads(content)
    assert witness.exists(), "the pickle was not dangerous, the test would prove nothing"


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"ctorch\nFloatStorage\n(S'true'\ntR.",  # a name that may be mentioned, but not called
        b"S'true'\n(tR.",  # a call of a string
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",  # an accepted call with other arguments
        b"cnumpy\ndtype\n(VO8\ntR.",  # a type that is not a number
        b"\x80\x04](.",
        b"N(1.",
        b"e.",
        b"g5\n.",
        b"",
    ],
)
def test_odd_pickles_are_refused_in_one_line(content):
    with pytest.raises(ValueError, match=r"^file: ") as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_object_arrays_cannot_smuggle_a_pickle(tmp_path):
    witness = tmp_path / "witness"
    content = pickle.dumps(np.array([Call(os.system, f"touch {witness}")], dtype=object))
    with pytest.raises(ValueError, match="type 'O8' is not a number"):
        read(content)
    assert not witness.exists()


def test_truncated():
    content = pickle.dumps(DATA)
    for length in range(0, len(content) - 1, 97):
        with pytest.raises(ValueError, match="damaged"):
            read(content[:length])


def test_arrays_are_dropped():
    got = read(pickle.dumps({"weights": np.ones((2, 3)), "accuracy": 1.0}))
    assert got == {"weights": DROPPED, "accuracy": 1.0}


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_torch_are_dropped_unread(tmp_path, zipped):
    torch.save({"w": torch.ones(3), "a": 1}, tmp_path / "t", _use_new_zipfile_serialization=zipped)
    if zipped:
        import zipfile

        with zipfile.ZipFile(tmp_path / "t") as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        stream = io.BytesIO(content)
    else:
        stream = io.BytesIO((tmp_path / "t").read_bytes())
        for _ in range(3):
            read_pickle(stream, "file")
    assert read_pickle(stream, "file") == {"w": DROPPED, "a": 1}


def test_records():
    content = pickle.dumps([Record(3), Record(4)])
    with pytest.raises(ValueError, match="Record"):
        read(content)
    assert read(content, records=[f"{Record.__module__}.Record"]) == [{"value": 3}, {"value": 4}]


def test_the_stream_is_left_behind_the_pickle():
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps([2]) + b"rest")
    assert [read_pickle(stream, "file"), read_pickle(stream, "file"), stream.read()] == [1, [2], b"rest"]


def test_prune_sees_every_dict_and_may_change_it():
    def keep_sum(filled):
        if 0 in filled:
            total = sum(filled.values())
            filled.clear()
            filled["sum"] = total

    got = read(pickle.dumps({"a": {0: 1.0, 1: 2.0}, "b": [{0: 5.0}]}), prune=keep_sum)
    assert got == {"a": {"sum": 3.0}, "b": [{"sum": 5.0}]}


def test_the_test_data_covers_the_usual_opcodes():
    seen = set()
    for protocol in range(2, 6):
        seen |= {opcode.name for opcode, _, _ in pickletools.genops(pickle.dumps(DATA, protocol=protocol))}
    assert {"REDUCE", "BUILD", "SETITEMS", "APPENDS", "TUPLE", "LONG1", "STACK_GLOBAL", "GLOBAL", "ADDITEMS"} <= seen
