"""Reading pickles as data, never as programs.

Several benchmarks are published as pickles, and a pickle may name any function and have it called. Here nothing is ever
imported or called on a pickle's behalf: its opcodes are decoded one by one (`pickletools.genops`, which executes
nothing), the plain values are put together, and a name is accepted only if it stands in the list below, where it means
one of our own few lines. Any other name ends the reading.

Tensors and arrays are dropped: they hold trained weights, which no table needs. Images are arrays too; who reads images
may ask for arrays of plain numbers, whose bytes are taken as they are.

Decoding in a stream has a second use. The largest of these files unpickles into tens of gigabytes of dictionaries; a
``prune`` function may shrink each of them as soon as it is complete.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

import numpy as np

DROPPED = object()
"""Stands where a tensor, an array or one of their parts was."""

_MARK = object()


class _Name:
    """A global name that a pickle mentions; inert."""

    def __init__(self, text: str):
        self.text = text


def _dtype(code: str, *_: Any) -> np.dtype:
    if code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise ValueError(f"a NumPy scalar of type '{code}' is not a number")
    return np.dtype(f"<{code}")


def _scalar(dtype: np.dtype, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype=dtype, count=1)[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding '{encoding}'")
    return text.encode("latin1")


def _drop(*_: Any) -> Any:
    return DROPPED


# What an accepted name does when the pickle calls it. Pickles of protocol 2 write bytes as a call of _codecs.encode,
# and no bytes as a call of bytes.
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
    "builtins.set": set,
    "__builtin__.set": set,
    "_codecs.encode": _latin1,
    "__builtin__.bytes": lambda: b"",
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _drop for core in ("core", "_core")},
    **{f"torch._utils.{name}": _drop for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")},
}
# Names that are mentioned as arguments of the dropped calls, never called.
_MENTIONED = {"numpy.ndarray"} | {
    f"torch.{kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
_VALUES = frozenset(
    "BINFLOAT FLOAT BININT BININT1 BININT2 INT LONG LONG1 LONG4 BINBYTES SHORT_BINBYTES BINBYTES8 STRING BINSTRING "
    "SHORT_BINSTRING".split()
)
_TEXTS = frozenset("BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE".split())
_PUTS = frozenset("BINPUT LONG_BINPUT PUT MEMOIZE".split())
_GETS = frozenset("BINGET LONG_BINGET GET".split())
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}


def read_pickle(
    stream: BinaryIO,
    source: str,
    records: Collection[str] = (),
    prune: Callable[[dict[Any, Any]], None] | None = None,
    arrays: bool = False,
) -> Any:
    """The value of the pickle that begins at the stream's position; the stream is left behind its end.

    Args:
        stream: binary and buffered.
        source: what errors call it.
        records: full names of classes whose instances are read as dicts of their attributes.
        prune: called with every dict that was just filled; may change it in place.
        arrays: keep NumPy arrays of plain numbers.

    Returns:
        Dicts (ordered ones too), lists, tuples, sets, strings, bytes, numbers; `DROPPED` for tensors, and for arrays
        unless they are to be kept: then `PickledArray`.

    Raises:
        ValueError: the pickle names anything else, or is damaged.
    """
    try:
        return _Reader(source, records, prune, arrays).read(stream)
    except _ForbiddenName:
        raise
    except Exception as error:  # a damaged pickle can fail in any opcode, with any exception
        raise ValueError(
            f"{source}: not a pickle of benchmark results, or a damaged one ({' '.join(str(error).split())}); fetch it "
            f"again from the benchmark's authors"
        ) from error


class _ForbiddenName(ValueError):
    """The pickle names something that is not data."""


class PickledArray:
    """An array of plain numbers; its ``values`` are there once the pickle has been read."""

    values: np.ndarray

    def fill(self, version: int, shape: tuple[int, ...], dtype: np.dtype, fortran: bool, raw: bytes | str) -> None:
        """Take the bytes that NumPy writes; Python 2 wrote them as text."""
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        self.values = np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")


class _OnlyReads:
    """A stream without `tell`, which `genops` would otherwise call once per opcode, each time a system call."""

    def __init__(self, stream: BinaryIO):
        self.read, self.readline = stream.read, stream.readline


class _Reader:
    def __init__(
        self, source: str, records: Collection[str], prune: Callable[[dict[Any, Any]], None] | None, arrays: bool
    ):
        self.source, self.records, self.prune, self.arrays = source, frozenset(records), prune, arrays
        self.stack: list[Any] = []
        # A list, for picklers number their memo from 0 without a gap; the largest file has some 10^8 entries.
        self.memo: list[Any] = []

    def read(self, stream: BinaryIO) -> Any:
        stack, memo, texts = self.stack, self.memo, {}  # type: ignore[var-annotated]
        for opcode, argument, _ in pickletools.genops(_OnlyReads(stream)):  # type: ignore[arg-type]
            name = opcode.name
            if name in _VALUES:
                stack.append(argument)
            elif name in _TEXTS:
                stack.append(texts.setdefault(argument, argument))  # each of a million equal keys is kept once
            elif name in _GETS:
                stack.append(memo[argument])  # type: ignore[index]
            elif name in _PUTS:
                index = len(memo) if argument is None else argument
                if index == len(memo):
                    memo.append(stack[-1])
                else:
                    memo[index] = stack[-1]
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            elif name == "STOP":
                break
            elif name not in ("PROTO", "FRAME"):
                method = getattr(self, f"_{name.lower()}", None)
                if method is None:
                    raise ValueError(f"opcode {name}")
                method(argument)
        if len(stack) != 1 or stack[0] is _MARK:
            raise ValueError(f"{len(stack)} values are left at the end")
        return stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                items = self.stack[position + 1 :]
                del self.stack[position:]
                return items
        raise ValueError("no mark")

    def _pop(self, n: int) -> list[Any]:
        if n > len(self.stack):
            raise ValueError("empty stack")
        items = self.stack[-n:]
        del self.stack[-n:]
        return items

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _tuple1(self, _: Any) -> None:
        self.stack.append(tuple(self._pop(1)))

    def _tuple2(self, _: Any) -> None:
        self.stack.append(tuple(self._pop(2)))

    def _tuple3(self, _: Any) -> None:
        self.stack.append(tuple(self._pop(3)))

    def _list(self, _: Any) -> None:
        self.stack.append(self._pop_to_mark())

    def _append(self, _: Any) -> None:
        (item,) = self._pop(1)
        self.stack[-1].append(item)

    def _appends(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.stack[-1].extend(items)

    def _additems(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.stack[-1].update(items)

    def _fill(self, items: list[Any]) -> None:
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))
        if self.prune is not None:
            self.prune(self.stack[-1])

    def _dict(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.stack.append({})
        self._fill(items)

    def _setitem(self, _: Any) -> None:
        self._fill(self._pop(2))

    def _setitems(self, _: Any) -> None:
        self._fill(self._pop_to_mark())

    def _name(self, text: str) -> None:
        if text not in _CALLS and text not in _MENTIONED and text not in self.records:
            raise _ForbiddenName(
                f"{self.source}: the pickle names '{text}', which is not benchmark data; nothing was loaded. Fetch "
                f"the file again from the benchmark's authors"
            )
        self.stack.append(_Name(text))

    def _global(self, argument: str) -> None:
        self._name(argument.replace(" ", ".", 1))

    def _stack_global(self, _: Any) -> None:
        self._name(".".join(self._pop(2)))

    def _reduce(self, _: Any) -> None:
        function, arguments = self._pop(2)
        if function.text in self.records:
            self.stack.append({})
        elif self.arrays and function.text.endswith("multiarray._reconstruct"):
            self.stack.append(PickledArray())
        else:
            self.stack.append(_CALLS[function.text](*arguments))

    _newobj = _reduce

    def _build(self, _: Any) -> None:
        (state,) = self._pop(1)
        target = self.stack[-1]
        if isinstance(target, np.dtype):
            if state[1] not in ("<", "|"):
                raise ValueError(f"NumPy byte order '{state[1]}'")
        elif isinstance(target, PickledArray):
            target.fill(*state)
        elif isinstance(target, dict) and isinstance(state, dict):
            target.update(state)
        elif target is not DROPPED:
            raise ValueError(f"a state for a {type(target).__name__}")

    def _binpersid(self, _: Any) -> None:
        self._pop(1)
        self.stack.append(DROPPED)
