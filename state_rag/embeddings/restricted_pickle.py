"""Read GenePT's pickled dict without letting the file run anything.

A pickle is a program for a small stack machine. The machine here knows how to make containers, numbers, strings and
NumPy arrays; it holds no way to import or call anything else, and says so by the name of what was asked for.

It also keeps the table small while reading: a list of 1536 floats is 49 kB of Python objects, but 6 kB as float32.
Runs of floats are decoded at once into float32 arrays, so the 460 MB table peaks at a few hundred megabytes.
"""

import os
import pickletools
import re
from collections.abc import Callable, Collection, Iterable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np

from state_rag.embeddings.pickle_stream import PickleStream
from state_rag.embeddings.progress import byte_progress
from state_rag.errors import StateRagError

ALLOWED = (
    "only containers, numbers, strings and NumPy arrays are allowed in an embedding pickle. "
    "If you trust the file, save its content as .npz, .csv or .parquet yourself and use that"
)
_APPENDS_OPCODE = ord("e")
_DTYPE_CODE = re.compile(r"[biufSU][0-9]{1,9}")


def read_pickled_table(
    path: str | os.PathLike[str], names: Collection[str] | None = None, *, progress: bool = True
) -> dict[Any, Any]:
    """Return a pickled dict name -> vector.

    Parameters
    ----------
    path
        The pickle, any protocol.
    names
        Keep only these keys (None: all).
    progress
        Show a bar over the bytes read, on a terminal.

    Returns
    -------
    dict
        In the file's order. Lists of floats and float arrays come back as float32 ``[D]``; names that share one
        vector in the file (GenePT's aliases do) share it here. Anything else is left for the caller to judge.

    Raises
    ------
    StateRagError
        The pickle asks for anything but containers, numbers, strings and NumPy arrays (the global is named), is
        truncated or corrupt, or holds something other than a dict.
    """
    path = Path(path)
    with open(path, "rb") as file, byte_progress(file, f"reading {path.name}", show=progress) as counted:
        table = _Machine(counted, str(path)).run()
    if not isinstance(table, dict):
        raise StateRagError(f"{path}: expected a pickled dict of name -> vector, found {type(table).__name__}")
    kept: dict[Any, Any] = {}
    converted: dict[int, Any] = {}
    for name, value in table.items():
        if names is None or name in names:
            key = id(value)
            if key not in converted:
                converted[key] = _joined(value)
            kept[name] = converted[key]
    return kept


class _FloatRun:
    """Consecutive floats of a pickled list, as one float32 array in their place."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray):
        self.values = values


def _joined(value: Any) -> Any:
    """Return a list that holds runs as one float32 array (or, where mixed, as a list of its elements)."""
    if not isinstance(value, list) or not any(isinstance(part, _FloatRun) for part in value):
        return value
    if all(isinstance(part, _FloatRun) for part in value):
        return np.concatenate([part.values for part in value])
    flat: list[Any] = []
    for part in value:
        flat.extend(part.values.tolist() if isinstance(part, _FloatRun) else [part])
    return flat


class _Global:
    """The name of an importable thing; a word only, never the thing."""

    def __init__(self, name: str):
        self.name = name


class _DType:
    """A NumPy dtype in the making: pickles state its byte order in a second step."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class _Machine:
    """The pickle machine, without imports, calls, instances, persistent ids or extension codes."""

    def __init__(self, file: BinaryIO, source: str):
        self.stream = PickleStream(file)
        self.source = source
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        start = 0
        try:
            while True:
                start = self.stream.offset
                byte = self.stream.read(1)
                if not byte:
                    self.truncated(start)
                opcode = _OPCODES.get(byte)
                if opcode is None:
                    raise ValueError(f"byte {byte!r} is no pickle instruction")
                name, read_argument = opcode
                if name == "BINFLOAT":
                    self.floats()
                    continue
                argument = read_argument(cast(BinaryIO, self.stream)) if read_argument is not None else None
                if name == "STOP":
                    return self.stack.pop()
                handler = _HANDLERS.get(name)
                if handler is None:
                    self.refuse(f"the pickle instruction {name}" + (f" ({argument})" if argument else ""))
                handler(self, argument)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if self.stream.fill(1) == 0:
                self.truncated(self.stream.offset)
            zip_hint = "; it is a zip archive (.pt or .npz under another name?)" if self.is_zip(start) else ""
            raise StateRagError(
                f"{self.source}: no readable pickle: {error} at byte {start}{zip_hint}. Download or write it again"
            ) from error

    def is_zip(self, start: int) -> bool:
        return start < 4 and self.stream.buffer[:2] == b"PK"

    def truncated(self, offset: int) -> NoReturn:
        if offset == 0:
            raise StateRagError(f"{self.source}: the file is empty, expected a pickle. Download or write it again")
        raise StateRagError(
            f"{self.source}: truncated pickle: it ends at byte {offset} before its end mark. Download or write it again"
        )

    def refuse(self, what: str) -> NoReturn:
        raise StateRagError(f"{self.source}: refused {what} near byte {self.stream.offset}: {ALLOWED}")

    def items(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def floats(self) -> None:
        """Push the floats from here on; a run that fills a list goes there as one array."""
        self.stream.position -= 1
        if self.stream.fill(9) < 9:
            self.truncated(self.stream.offset + self.stream.fill(1))
        values = self.stream.floats()
        whole = not self.stack and bool(self.marks)
        if whole and self.stream.peek() == _APPENDS_OPCODE and isinstance(self.marks[-1][-1], list):
            self.stream.position += 1
            self.items()
            with np.errstate(over="ignore"):
                self.stack[-1].append(_FloatRun(values.astype(np.float32)))
        else:
            self.stack.extend(values.tolist())

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def from_mark(self, make: Callable[[list[Any]], Any]) -> None:
        items = self.items()
        self.stack.append(make(items))

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        self.container(list).append(value)

    def appends(self, _: Any) -> None:
        items = self.items()
        self.container(list).extend(items)

    def additems(self, _: Any) -> None:
        items = self.items()
        self.container(set).update(_plain(items))

    def setitem(self, _: Any) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self.container(dict).update(_pairs([key, value]))

    def setitems(self, _: Any) -> None:
        items = self.items()
        self.container(dict).update(_pairs(items))

    def container(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"{type(self.stack[-1]).__name__} where a {kind.__name__} was expected")
        return self.stack[-1]

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.items()

    def pop_mark(self) -> None:
        self.items()

    def global_name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_global(module, name)

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_global(str(module), str(name))

    def push_global(self, module: str, name: str) -> None:
        canonical = f"{module}.{name}".replace("numpy.core.", "numpy._core.", 1).replace("__builtin__.", "builtins.", 1)
        if canonical not in _CALLS and canonical != "numpy.ndarray":
            self.refuse(f"the pickled global {module}.{name}")
        self.stack.append(_Global(canonical))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Global) or function.name not in _CALLS:
            self.refuse(f"a call of {getattr(function, 'name', type(function).__name__)}")
        self.stack.append(_CALLS[function.name](*arguments))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _DType):
            if any(state[2:5]) or (len(state) > 8 and state[8]):
                self.refuse("a NumPy dtype with fields or metadata")
            target.dtype = target.dtype.newbyteorder(state[1] if state[1] in "<>" else "=")
        elif isinstance(target, np.ndarray):
            _fill_array(target, *state)
        else:
            self.refuse(f"the pickled state of a {type(target).__name__}")


def _dtype(code: Any, *_: Any) -> _DType:
    # As NumPy's own pickles spell it. `np.dtype` would also parse records and more.
    if not isinstance(code, str) or _DTYPE_CODE.fullmatch(code) is None:
        raise ValueError(f"NumPy arrays of type {code} are not allowed, expected numbers or strings")
    return _DType(np.dtype(code))


def _array(raw: Any, dtype: _DType, shape: Any, order: str) -> np.ndarray:
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    shape = tuple(int(side) for side in shape)
    if min(shape, default=0) < 0 or prod(shape) * dtype.dtype.itemsize != len(data):
        raise ValueError(f"a NumPy array of shape {shape} does not fit its {len(data)} bytes")
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    if dtype.dtype.kind == "f" and dtype.dtype.itemsize > 4:
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    return array.astype(dtype.dtype.newbyteorder("="))


def _fill_array(target: np.ndarray, _version: Any, shape: Any, dtype: _DType, fortran: Any, raw: Any) -> None:
    array = _array(raw, dtype, shape, "F" if fortran else "C")
    # In place, since the memo may already refer to the target. The state is our own, the file's has been checked.
    target.__setstate__((1, array.shape, array.dtype, False, array.tobytes()))  # type: ignore[arg-type]


def _plain(items: Iterable[Any]) -> list[Any]:
    """Return `items`, none of them a container: hashing one nested deep enough would crash the interpreter."""
    listed = list(items)
    if any(isinstance(item, tuple | frozenset) for item in listed):
        raise TypeError("a container as a key or a member of a set")
    return listed


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(_plain(items[::2]), items[1::2], strict=True))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encoding {encoding} for bytes, expected latin1")
    return text.encode("latin1")


# What a pickle may call, by the name it uses, and our own function in its place.
_CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytearray": lambda raw=b"", encoding="latin1": _encode(raw, encoding) if isinstance(raw, str) else raw,
    "builtins.frozenset": lambda items=(): frozenset(_plain(items)),
    "builtins.set": lambda items=(): set(_plain(items)),
    "collections.OrderedDict": lambda items=(): _pairs([part for pair in items for part in pair]),
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": lambda *_: np.empty((0,), dtype=np.int8),
    "numpy._core.multiarray.scalar": lambda dtype, raw: _array(raw, dtype, (1,), "C")[0],
    "numpy._core.numeric._frombuffer": _array,
}

_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, argument: machine.pop_mark(),
    "DUP": lambda machine, argument: machine.stack.append(machine.stack[-1]),
    "NONE": lambda machine, argument: machine.stack.append(None),
    "NEWTRUE": lambda machine, argument: machine.stack.append(True),
    "NEWFALSE": lambda machine, argument: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, argument: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, argument: machine.stack.append({}),
    "EMPTY_SET": lambda machine, argument: machine.stack.append(set()),
    "EMPTY_TUPLE": lambda machine, argument: machine.stack.append(()),
    "TUPLE1": lambda machine, argument: machine.tuple_of(1),
    "TUPLE2": lambda machine, argument: machine.tuple_of(2),
    "TUPLE3": lambda machine, argument: machine.tuple_of(3),
    "TUPLE": lambda machine, argument: machine.from_mark(tuple),
    "LIST": lambda machine, argument: machine.from_mark(list),
    "FROZENSET": lambda machine, argument: machine.from_mark(lambda items: frozenset(_plain(items))),
    "DICT": lambda machine, argument: machine.from_mark(_pairs),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.additems,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "MEMOIZE": _Machine.memoize,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
for _name in ("PUT", "BINPUT", "LONG_BINPUT"):
    _HANDLERS[_name] = _Machine.put
for _name in ("GET", "BINGET", "LONG_BINGET"):
    _HANDLERS[_name] = lambda machine, index: machine.stack.append(machine.memo[index])
for _name in (
    *("INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
):
    _HANDLERS[_name] = lambda machine, argument: machine.stack.append(argument)

_OPCODES = {
    info.code.encode("latin1"): (info.name, info.arg.reader if info.arg is not None else None)
    for info in pickletools.opcodes
}
