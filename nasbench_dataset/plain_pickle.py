"""Pickles of plain data, read without executing anything: containers, numbers, strings, numpy arrays of numbers.

The few instructions that such pickles consist of are carried out here, on a stack of plain values. A pickle
names what is to be called; only a handful of names is known, and each stands for a function below, nothing of
numpy or of another module. So there is nothing that a hostile pickle could call, and because dictionary keys
are strings and numbers, nothing whose hash or comparison takes longer than it is long.
"""

import math
import pickletools
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Callable

import numpy as np

from nasbench_dataset import InputError
from nasbench_dataset.sources import open_source

_NUMBER = re.compile(r"[<>|=]?(u[1248]|i[1248]|f[248]|b1)")


class Unusable(ValueError):
    """What a pickle has that is not read here."""


# --- numpy arrays -----------------------------------------------------------------------------


class _PlainDtype:
    """Stands for ``numpy.dtype`` in a pickle: a plain number and its byte order.

    The state of a real one can be forged so that bytes of the file are taken for pointers to objects.
    """

    def __init__(self, code: str, *flags: object):
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise Unusable("it has an array of something else than plain numbers")
        self.plain = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        version, order, *rest = state
        if version != 3 or order not in ("<", ">", "|", "=") or rest[:3] != [None, None, None]:
            raise Unusable("it has an array of structured or extended numbers")
        self.plain = self.plain.newbyteorder(order)


class _PlainArray(np.ndarray):
    """An array that takes its content from a pickle only in the plain form."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, columns_first, content = state
        if not isinstance(dtype, _PlainDtype) or not isinstance(content, bytes):
            raise Unusable("it has an array of something else than plain numbers")
        _check_shape(shape, len(content) // dtype.plain.itemsize)
        super().__setstate__((version, shape, dtype.plain, bool(columns_first), content))


def _check_shape(shape: tuple[int, ...], count: int) -> None:
    plain = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not plain or math.prod(shape) != count:
        raise Unusable(f"it has an array whose shape does not fit its {count:,} numbers")


def _reconstruct(kind: object, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What numpy's pickles make first of an array, to be given its content after."""
    if shape != (0,):
        raise Unusable("it asks for an array without content")
    return np.empty(0, np.int8).view(_PlainArray)


def _frombuffer(content: bytes, dtype: _PlainDtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """How pickle protocol 5 makes an array."""
    values = np.frombuffer(content, dtype.plain)
    _check_shape(shape, len(values))
    return values.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _PlainDtype, content: bytes) -> float | int | bool:
    """A single number of numpy's as one of Python's."""
    return np.frombuffer(content, dtype.plain, 1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """How pickle protocols 0 to 2 carry bytes."""
    return text.encode("latin1")


def _named_only(*_: object) -> None:
    raise Unusable("it makes an array in an unusual way")


ADMITTED = {
    "numpy.multiarray._reconstruct": _reconstruct,
    "numpy.multiarray.scalar": _scalar,
    "numpy.numeric._frombuffer": _frombuffer,
    "numpy.ndarray": _named_only,
    "numpy.dtype": _PlainDtype,
    "_codecs.encode": _encode,
}


def _admitted(module: str, name: str) -> Callable:
    full = f"{module}.{name}"
    for private in ("numpy._core.", "numpy.core."):  # as numpy 2 and numpy 1 call it
        full = full.replace(private, "numpy.")
    if full not in ADMITTED:
        raise Unusable(f"it asks for {module}.{name}, which is not admitted")
    return ADMITTED[full]


# --- the instructions -------------------------------------------------------------------------

LARGEST = 4 << 30  # bytes; NASLib's file of all cells has about 320 million
MOST = 300_000_000  # instructions, each of which may take some 60 bytes of memory; NASLib's has about 48 million
_WAITING = 2_000_000  # values on the stack, not yet in a container; pickle itself puts them there by the thousand
_LOOK = 1 << 16  # instructions between two looks at how much there is
_LONGEST_NUMBER = 64  # bits


class _Machine:
    """What the instructions of a pickle work on: a stack, and what they have numbered to be used again."""

    def __init__(self):
        self.stack: list = []
        self.marks: list[int] = []  # positions in it
        self.memo: list = []

    def run(self, file: BinaryIO, most: int, advice: str) -> object:
        """Carry out a pickle; its value, or Unusable, or whatever damage to it leads to."""
        handlers, look = self._handlers(), _LOOK
        for count, (instruction, argument, _) in enumerate(pickletools.genops(_Untold(file))):
            if instruction.name not in handlers:
                raise Unusable(f"it has the instruction {instruction.name}, which is not admitted")
            if count == look:
                look += _LOOK
                if count > most or len(self.stack) > _WAITING:
                    raise Unusable(f"it has more than {most:,} instructions, or too many at once{advice}")
            handlers[instruction.name](argument)
        return self.stack[-1]

    def _handlers(self) -> dict[str, Callable[[Any], None]]:
        push = self.stack.append
        constants = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False}
        made = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple} | constants
        handlers = {name: lambda _, make=make: push(make()) for name, make in made.items()}
        handlers |= {name: push for name in _VALUES} | {name: self._integer for name in _INTEGERS}
        handlers |= {name: self._get for name in ("GET", "BINGET", "LONG_BINGET")}
        handlers |= {name: self._put for name in ("PUT", "BINPUT", "LONG_BINPUT")}
        handlers |= {f"TUPLE{n}": lambda _, n=n: push(tuple(self._pop(n))) for n in (1, 2, 3)}
        return handlers | {
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
            "STOP": lambda _: None,
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "MEMOIZE": lambda _: self.memo.append(self.stack[-1]),
            "TUPLE": lambda _: push(tuple(self._to_mark())),
            "LIST": lambda _: push(self._to_mark()),
            "DICT": lambda _: self._fill({}, self._to_mark()),
            "APPEND": lambda _: self._extend(self._pop(1)),
            "APPENDS": lambda _: self._extend(self._to_mark()),
            "SETITEM": lambda _: self._fill(None, self._pop(2)),
            "SETITEMS": lambda _: self._fill(None, self._to_mark()),
            "GLOBAL": lambda name: push(_admitted(*name.split(" ", 1))),
            "STACK_GLOBAL": lambda _: push(_admitted(*self._pop(2))),
            "REDUCE": self._call,
            "BUILD": self._set_state,
        }

    def _pop(self, count: int) -> list:
        if len(self.stack) < count:
            raise Unusable("it is damaged")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _to_mark(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _integer(self, number: int) -> None:
        if number.bit_length() > _LONGEST_NUMBER:
            raise Unusable(f"it has a number of {number.bit_length():,} bits")
        self.stack.append(number)

    def _get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def _put(self, number: int) -> None:
        if number > len(self.memo) + 1:  # pickles number in order, from 0 or 1
            raise Unusable(f"it numbers an object {number:,} as its {len(self.memo) + 1:,}th")
        self.memo.extend([None] * (number + 1 - len(self.memo)))
        self.memo[number] = self.stack[-1]

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise Unusable("it appends to what is no list")
        self.stack[-1].extend(items)

    def _fill(self, new: dict | None, items: list) -> None:
        """Put keys and values in turn into a new dictionary, or into the one on top of the stack."""
        if new is not None:
            self.stack.append(new)
        if type(self.stack[-1]) is not dict or not _KEYS.issuperset(map(type, items[::2])):
            raise Unusable("it has a dictionary with keys that are neither text nor numbers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _call(self, _: None) -> None:
        function, arguments = self._pop(2)
        if not callable(function) or type(arguments) is not tuple:  # nothing but what is ADMITTED is callable
            raise Unusable("it calls what is no function")
        self.stack.append(function(*arguments))

    def _set_state(self, _: None) -> None:
        (state,) = self._pop(1)
        if type(self.stack[-1]) not in (_PlainArray, _PlainDtype):
            raise Unusable("it sets the state of something else than an array")
        self.stack[-1].__setstate__(state)


_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_VALUES = (
    *("FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_KEYS = {str, int, float, bytes, bool, type(None)}


class _Untold:
    """A file without ``tell``, which genops would call for each instruction."""

    def __init__(self, file: BinaryIO):
        self.read, self.readline = file.read, file.readline


def load_plain(path: str | Path, largest: int = LARGEST, most: int = MOST, advice: str = "") -> object:
    """Read a pickle that holds plain containers, numbers, strings and numpy arrays, executing nothing.

    Parameters
    ----------
    path : path
    largest : int
        Bytes that it may have.
    most : int
        Instructions that it may consist of.
    advice : str
        What to do with one that has more.

    Raises
    ------
    InputError
        If it cannot be read, is damaged, is larger, or asks for anything else.
    """
    try:
        with open_source(path, largest, advice) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escape sequences of damaged text
            return _Machine().run(file, most, advice)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} is not a usable table: it is no pickle of plain data: {reason}") from error
