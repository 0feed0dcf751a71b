"""Read a whole PyTorch module from a file, without PyTorch and without running anything in the file.

torch.save writes pickles, and a pickle is a program. Python's own loader is not used here: the opcodes
are listed by pickletools, which runs none of them, and followed by a small interpreter that can make
plain values, notes of tensors and stand-ins for modules, and nothing else. Every name a pickle asks
for is answered from this module or refused: classes of `model`, `operations` and `torch.nn` become
stand-ins that only hold their state.

A hostile file costs no more than memory in proportion to its size: keys of tables are plain (so none
is hashed at length), nothing is copied at length, and what is declared is held against the file.

Both containers of torch.save are read: the zip archive (PyTorch 1.6 and later) and the older stream
of pickles followed by raw storages.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from arrays import check_members
from files import Problem, open_file, reason

MOST_OPCODES = 2**21  # in a pickle; AlphaX-1's may have some 200,000
LONGEST_COPY = 100  # members of a range, a set, a shape or a table made at once
MOST_AXES = 8  # of a tensor; a convolution has 4
LONGEST_NAME = 1000  # characters of what a pickle asks for
LARGEST_KEY = 2**32  # of a table: whole numbers without end can be chosen so that all have one hash
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older container begins
ZIP_START = b"PK\x03\x04"
INERT_PACKAGES = ("model.", "operations.", "torch.nn.")  # whose names become stand-ins
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
VALUES = "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING BINSTRING".split()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
CONTAINERS = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Inert:
    """A stand-in for an object in the file: its state, and nothing it could do.

    Attributes
    ----------
    origin : str
        The full name of the class in the file, on the stand-in's class.
    state : dict
        The attributes of the object.
    """

    __slots__ = ("state",)
    origin = ""

    def __new__(cls, *arguments: Any) -> "Inert":
        made = super().__new__(cls)
        made.state = {}
        return made


class Storage:
    """Numbers in the file, of which the pickle tells the type and the count."""

    __slots__ = ("dtype", "count", "values")

    def __init__(self, dtype: np.dtype, count: int) -> None:
        self.dtype, self.count = dtype, count
        self.values: np.ndarray | None = None  # (count,), once they are read

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.count * self.dtype.itemsize


class Tensor(Inert):
    """Note of a tensor: where its values lie in a storage."""

    __slots__ = ("storage", "offset", "shape", "strides")

    def __new__(cls, storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> "Tensor":
        shape, strides = _members(shape), _members(strides)
        if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > MOST_AXES:
            raise Problem("a tensor is not made of a storage, a shape and as many strides")
        numbers = (offset, *strides, *shape)
        if any(type(number) is not int or number < 0 for number in numbers) or 0 in shape:
            raise Problem("a tensor has an offset, a shape or strides that cannot be")
        # The last element must lie inside, and no element may be used twice: so nothing declared
        # can be larger than the storage, which is checked against the file.
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides))
        if math.prod(shape) > storage.count or last >= storage.count:
            raise Problem(f"a tensor of shape {shape} does not fit its storage of {storage.count} numbers")
        made = super().__new__(cls)
        made.storage, made.offset, made.shape, made.strides = storage, offset, shape, strides
        return made

    def array(self) -> np.ndarray:
        """The tensor's values."""
        values = self.storage.values[self.offset :]
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, strides).copy()


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    """A parameter is the tensor in it."""
    if not isinstance(tensor, Tensor):
        raise Problem("a parameter is not made of a tensor")
    return tensor


def _members(members: Any = ()) -> tuple:
    """A set or a shape is its members, as a tuple."""
    if len(members) > LONGEST_COPY:
        raise Problem(f"it holds a set or a shape of {len(members)} members")
    return tuple(members)


def _range(*limits: int) -> tuple[int, ...]:
    """A range is its numbers, as a tuple."""
    return _members(range(*limits))


def _table(pairs: Any = ()) -> dict[Any, Any]:
    """An ordered dictionary is a dictionary. (Python 2 handed its items over when making it.)"""
    table: dict[Any, Any] = {}
    _set_items(table, [part for pair in _members(pairs) for part in pair])
    return table


def _set_items(table: Any, parts: list[Any]) -> None:
    """Set key, value, key, value and so on."""
    keys = parts[::2]
    if not isinstance(table, dict) or not all(map(_is_key, keys)):
        raise Problem("it has a table with keys that are neither text nor usual whole numbers")
    table.update(zip(keys, parts[1::2], strict=True))


def _is_key(key: Any) -> bool:
    return type(key) is str or (type(key) is int and abs(key) < LARGEST_KEY)


STAND_INS: dict[str, Callable[..., Any]] = {  # what every other name that is allowed stands for
    "collections.OrderedDict": _table,
    "builtins.range": _range,
    "__builtin__.range": _range,
    "__builtin__.xrange": _range,
    "builtins.set": _members,
    "__builtin__.set": _members,
    "torch.Size": _members,
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}


class _Interpreter:
    """Follows the opcodes of one pickle. Anything they cannot mean raises some exception.

    Parameters
    ----------
    storages : dict
        From keys to the storages that the file refers to; new ones are added.
    """

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.classes: dict[str, type[Inert]] = {}
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack

    def load(self, stream: io.BytesIO) -> Any:
        """What the pickle at the stream's position holds; the stream is left behind it."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number > MOST_OPCODES:
                raise Problem(f"its pickle has more than {MOST_OPCODES} opcodes; it is no AlphaX-1")
            if opcode.name not in ("PROTO", "STOP"):
                self._step(opcode.name, argument)
        (value,) = self.stack
        return value

    def _step(self, name: str, argument: Any) -> None:
        push, pop = self.stack.append, self.stack.pop
        if name in VALUES:
            push(argument)
        elif name in CONSTANTS:
            push(CONSTANTS[name])
        elif name in CONTAINERS:
            push(CONTAINERS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "TUPLE":
            push(tuple(self._pop_from(self.marks.pop())))
        elif name in TUPLES:
            push(tuple(self._pop_from(len(self.stack) - TUPLES[name])))
        elif name in ("APPEND", "APPENDS"):
            parts = [pop()] if name == "APPEND" else self._pop_from(self.marks.pop())
            list.extend(self.stack[-1], parts)
        elif name in ("SETITEM", "SETITEMS"):
            start = len(self.stack) - 2 if name == "SETITEM" else self.marks.pop()
            parts = self._pop_from(start)
            _set_items(self.stack[-1], parts)
        elif name == "GLOBAL":
            push(self._stand_in(argument.replace(" ", ".")))
        elif name == "BINPERSID":
            push(self._persistent(*pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, stand_in = pop(), pop()
            push(stand_in(*arguments))  # only `_stand_in` puts on the stack what can be called
        elif name == "BUILD":
            state = pop()
            if isinstance(self.stack[-1], Inert) and isinstance(state, dict):
                self.stack[-1].state = state
        else:
            raise Problem(f"its pickle uses {name}, which torch.save does not; fetch it again")

    def _pop_from(self, start: int) -> list[Any]:
        """Take off the stack what lies from `start` on."""
        if not 0 <= start <= len(self.stack):
            raise IndexError("a pickle takes more than it has")
        parts = self.stack[start:]
        del self.stack[start:]
        return parts

    def _stand_in(self, full: str) -> Callable[..., Any]:
        """What answers to a name in the file."""
        if len(full) > LONGEST_NAME:
            raise Problem(f"it asks for a name of {len(full)} characters; do not trust this file")
        if full in STAND_INS:
            return STAND_INS[full]
        if full not in self.classes:
            package, _, name = full.rpartition(".")
            content: dict[str, Any] = {"origin": full, "__slots__": ()}
            if package in ("torch", "torch.cuda") and name in DTYPES:
                content["dtype"] = np.dtype(DTYPES[name])
            elif not full.startswith(INERT_PACKAGES):
                raise Problem(
                    f"it asks for {full}, which is no part of such a network; do not trust this file"
                )
            self.classes[full] = type("StandIn", (Inert,), content)
        return self.classes[full]

    def _persistent(self, kind: str, cls: type, *rest: Any) -> Any:
        """A storage, or a class together with its source code, which is not looked at."""
        if kind == "module":
            return cls
        key, _, count, *views = rest
        known = kind == "storage" and type(key) in (str, int) and type(count) is int and count >= 0
        if not known or any(view is not None for view in views):
            raise Problem("it refers to something in a way that torch.save of PyTorch 1 does not")
        storage = self.storages.setdefault(str(key), Storage(cls.dtype, count))
        if (storage.dtype, storage.count) != (cls.dtype, count):
            raise Problem(f"it describes storage {key} in two ways")
        return storage


def read_module(path: Path) -> Any:
    """The object that torch.save wrote to a file, made of stand-ins.

    Parameters
    ----------
    path : Path
        Of either container.

    Returns
    -------
    Inert, or whatever else the file holds
        Its tensors are `Tensor`.

    Raises
    ------
    Problem
        If the file is damaged, is no such file, or asks for anything that a network of this family
        does not need.
    """
    try:
        with open_file(path) as file:
            content = file.read()
        return _read_zip(content) if content.startswith(ZIP_START) else _read_stream(content)
    except OSError as error:
        raise Problem(f"cannot read {path}: {reason(error)}; name the authors' file") from error
    except Problem as problem:
        raise Problem(f"cannot convert {path}: {problem}") from problem
    except Exception as error:  # a damaged pickle or archive can raise almost anything
        raise Problem(
            f"cannot convert {path}: it is damaged, or no file of torch.save"
            f" ({type(error).__name__}: {error!s:.200}); fetch it again"
        ) from error


def _read_zip(content: bytes) -> Any:
    """Read the container of PyTorch 1.6 and later: data.pkl and a member for each storage."""
    check_members(io.BytesIO(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise Problem("it is a compressed archive, which torch.save does not write; fetch it again")
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise Problem("its numbers are big-endian; save it anew on a usual machine")
        storages: dict[str, Storage] = {}
        module = _Interpreter(storages).load(io.BytesIO(archive.read(pickled)))
        if sum(storage.size for storage in storages.values()) > len(content):
            raise Problem("its storages are larger than the file: it is truncated; fetch it again")
        for key, storage in storages.items():
            _fill(storage, key, archive.read(f"{folder}data/{key}"))
    return module


def _read_stream(content: bytes) -> Any:
    """Read the older container: magic number, version, system, module, keys, then the storages."""
    storages: dict[str, Storage] = {}
    stream = io.BytesIO(content)

    def load() -> Any:
        return _Interpreter(storages).load(stream)

    if (load(), load()) != (MAGIC, PROTOCOL):
        raise Problem("it is no file of torch.save; fetch it again")
    load()  # sizes and byte order of the writing machine
    module, keys = load(), load()
    if not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise Problem("its list of storages is not that of its tensors; fetch it again")
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(stream.read(8), "little")
        if count != storage.count:
            raise Problem(f"storage {key} has {count} numbers, not {storage.count}; fetch it again")
        _fill(storage, key, stream.read(storage.size))
    return module


def _fill(storage: Storage, key: str, data: bytes) -> None:
    if len(data) != storage.size:
        raise Problem(
            f"storage {key} has {len(data)} bytes of {storage.size}: the file is truncated; fetch it again"
        )
    storage.values = np.frombuffer(data, storage.dtype)
