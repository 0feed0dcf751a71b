"""What several tests share: damage to bytes, wrong values put into a document, and file operations that fail."""

import copy
import os

import pytest
from hypothesis import strategies as st

import checkpoint

WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 30), st.integers(), st.floats(), st.text(max_size=3),
    st.sampled_from([2**31, 2**40, 2**64, -(2**63), 10**400, [], {}, [0], [[0]]]),
    st.just({"py/reduce": [{"py/function": "os.system"}, ["touch EXECUTED"]]}),
    st.recursive(st.integers(0, 5), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)  # fmt: skip


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """The content with a few bytes replaced, inserted or removed somewhere, or its end missing."""
    result = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(result)))
        removed = data.draw(st.sampled_from([0, 1, 1, 1, 8, len(result)]))
        result[start : start + removed] = data.draw(st.binary(max_size=8))
    return bytes(result)


def altered(data: st.DataObject, document: object) -> object:
    """A copy of a JSON document in which one value, at any depth, is another, missing, or there twice."""
    whole = [copy.deepcopy(document)]
    parent, key = whole, 0
    while isinstance(parent[key], (dict, list)) and parent[key] and data.draw(st.integers(0, 9)):  # mostly go deeper
        parent = parent[key]
        keys = st.sampled_from(sorted(parent)) if isinstance(parent, dict) else st.integers(0, len(parent) - 1)
        key = data.draw(keys)
    how = data.draw(st.sampled_from(["other", "other", "other", "missing", "twice"]))
    if how == "other" or parent is whole:
        parent[key] = data.draw(WRONG)
    elif how == "missing":
        del parent[key]
    elif isinstance(parent, list):
        parent.insert(data.draw(st.integers(0, len(parent))), parent[key])
    return whole[0]


class Killed(BaseException):
    """Not an Exception: nothing in the program may go on after it."""


def limit_operations(monkeypatch: pytest.MonkeyPatch, left: int, error: BaseException) -> None:
    """Let so many file operations pass, half a write at the end of them, and fail from then on."""
    write, replace, unlink = checkpoint._write_through, os.replace, checkpoint.Path.unlink

    def allowed() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    def limited_write(path, content):
        if not allowed():
            path.write_bytes(content[: len(content) // 2])
            raise error
        write(path, content)

    def limited(operation):
        def call(*arguments, **options):
            if not allowed():
                raise error
            operation(*arguments, **options)

        return call

    monkeypatch.setattr(checkpoint, "_write_through", limited_write)
    monkeypatch.setattr(checkpoint.os, "replace", limited(replace))
    if isinstance(error, Killed):
        monkeypatch.setattr(checkpoint.Path, "unlink", limited(unlink))
