"""Read a whole PyTorch module from a file, without PyTorch and without running anything in the file.

torch.save writes pickles, and a pickle is a program. Two gates keep it harmless. Before a pickle is
loaded, its opcodes are listed (which runs none of them) and must be among the few that torch.save
uses. While it is loaded, every name it asks for is answered with a class of this module: classes of
`model`, `operations` and `torch.nn` become stand-ins that only hold their state, the functions that
rebuild tensors become notes of what to rebuild, and every other name is refused.

Both containers of torch.save are read: the zip archive (PyTorch 1.6 and later) and the older stream
of pickles followed by raw storages.
"""

import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from files import Problem

LARGEST_FILE = 2**30  # bytes; AlphaX-1 has a few million weights of 4 bytes
MOST_AXES = 8  # of a tensor; a convolution has 4
LONGEST_RANGE = 1000  # states in a cell's output; a dozen at most in earnest
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older container begins
ZIP_START = b"PK\x03\x04"
INERT_PACKAGES = ("model", "operations", "torch.nn")  # whose names become stand-ins
OPCODES = frozenset(
    "PROTO STOP MARK GLOBAL REDUCE BUILD NEWOBJ BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET"
    " NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING BINSTRING"
    " EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS".split()
)
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

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


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
        shape, strides = tuple(shape), tuple(strides)
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > MOST_AXES:
            raise Problem("a tensor is not made of a storage, a shape and as many strides")
        if any(type(number) is not int or number < 0 for number in numbers):
            raise Problem(f"a tensor has offset, shape or strides {numbers}")
        # The last element must lie inside, and no element may be used twice: so nothing declared
        # can be larger than the storage, which is checked against the file.
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides))
        if math.prod(shape) > storage.count or (0 not in shape and last >= storage.count):
            raise Problem(f"a tensor of shape {shape} does not fit its storage of {storage.count} numbers")
        made = super().__new__(cls)
        made.storage, made.offset, made.shape, made.strides = storage, offset, shape, strides
        return made

    def array(self) -> np.ndarray:
        """The tensor's values."""
        values = self.storage.values[self.offset :]
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, strides).copy()


class _Parameter(Inert):
    """A parameter is the tensor in it."""

    def __new__(cls, tensor: Tensor, *_: Any) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise Problem("a parameter is not made of a tensor")
        return tensor


class _Mapping(dict):
    """An ordered dictionary; attributes set on it are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Sequence(Inert):
    """A set, or a shape: its members as a tuple."""

    def __new__(cls, members: Any = ()) -> tuple:
        return tuple(members)


class _Range(Inert):
    """A range as a tuple."""

    def __new__(cls, *limits: int) -> tuple[int, ...]:
        numbers = range(*limits)
        if len(numbers) > LONGEST_RANGE:
            raise Problem(f"it holds a range of {len(numbers)} numbers")
        return tuple(numbers)


STAND_INS = {  # what every other name that is allowed stands for
    "collections.OrderedDict": _Mapping,
    "builtins.range": _Range,
    "__builtin__.range": _Range,
    "__builtin__.xrange": _Range,
    "builtins.set": _Sequence,
    "__builtin__.set": _Sequence,
    "torch.Size": _Sequence,
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": _Parameter,
    "torch._utils._rebuild_parameter_with_state": _Parameter,
}


class _Unpickler(pickle.Unpickler):
    """Loads one pickle, with stand-ins for everything that it names."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, Storage]) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages = storages
        self.classes: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> type:
        full = f"{module}.{name}"
        if full in STAND_INS:
            return STAND_INS[full]
        if full not in self.classes:
            if module in ("torch", "torch.cuda") and name in DTYPES:
                content = {"origin": full, "dtype": np.dtype(DTYPES[name])}
            elif any(f"{module}.".startswith(f"{package}.") for package in INERT_PACKAGES):
                content = {"origin": full}
            else:
                raise Problem(
                    f"it asks for {full}, which is no part of such a network; do not trust this file"
                )
            self.classes[full] = type("StandIn", (Inert,), content | {"__slots__": ()})
        return self.classes[full]

    def persistent_load(self, label: Any) -> Any:
        kind, cls, *rest = label
        if kind == "module":  # a class with its source code, which is not looked at
            return cls
        key, _, count, *views = rest
        if kind != "storage" or any(views) or type(count) is not int or count < 0:
            raise Problem(f"it refers to {label[0]!r} in a way that torch.save of PyTorch 1 does not")
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
        if path.stat().st_size > LARGEST_FILE:
            raise Problem(f"it has more than {LARGEST_FILE} bytes, too many for such a network")
        content = path.read_bytes()
        return _read_zip(content) if content.startswith(ZIP_START) else _read_stream(content)
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}; name the authors' file") from error
    except Problem as problem:
        raise Problem(f"cannot convert {path}: {problem}") from problem
    except Exception as error:  # a damaged pickle or archive can raise almost anything
        raise Problem(
            f"cannot convert {path}: it is damaged, or no file of torch.save"
            f" ({type(error).__name__}: {error}); fetch it again"
        ) from error


def _read_zip(content: bytes) -> Any:
    """Read the container of PyTorch 1.6 and later: data.pkl and a member for each storage."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise Problem("it is a compressed archive, which torch.save does not write; fetch it again")
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise Problem("its numbers are big-endian; save it anew on a usual machine")
        storages: dict[str, Storage] = {}
        module, _ = _load(archive.read(pickled), 0, storages)
        for key, storage in storages.items():
            _fill(storage, key, archive.read(f"{folder}data/{key}"))
    return module


def _read_stream(content: bytes) -> Any:
    """Read the older container: magic number, version, system, module, keys, then the storages."""
    storages: dict[str, Storage] = {}
    magic, position = _load(content, 0, storages)
    version, position = _load(content, position, storages)
    if (magic, version) != (MAGIC, PROTOCOL):
        raise Problem("it is no file of torch.save; fetch it again")
    _, position = _load(content, position, storages)  # sizes and byte order of the writing machine
    module, position = _load(content, position, storages)
    keys, position = _load(content, position, storages)
    if sorted(keys) != sorted(storages):
        raise Problem("its list of storages is not that of its tensors; fetch it again")
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(content[position : position + 8], "little")
        if count != storage.count:
            raise Problem(f"storage {key} has {count} numbers, not {storage.count}; fetch it again")
        position += 8
        _fill(storage, key, content[position : position + storage.size])
        position += storage.size
    return module


def _fill(storage: Storage, key: str, data: bytes) -> None:
    if len(data) != storage.size:
        raise Problem(
            f"storage {key} has {len(data)} bytes of {storage.size}: the file is truncated; fetch it again"
        )
    storage.values = np.frombuffer(data, storage.dtype)


def _load(content: bytes, start: int, storages: dict[str, Storage]) -> tuple[Any, int]:
    """Load the pickle at `start`; return what it holds and where it ends."""
    stream = io.BytesIO(content)
    stream.seek(start)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name not in OPCODES:
            raise Problem(f"its pickle uses {opcode.name}, which torch.save does not; fetch it again")
        # The loader makes room for every memo number up to the largest.
        if opcode.name == "LONG_BINPUT" and argument > number:
            raise Problem(f"its pickle numbers an object {argument} too soon; fetch it again")
    end = stream.tell()
    stream.seek(start)
    return _Unpickler(stream, storages).load(), end
