"""Damage to the files that a command reads: cut, flipped, swapped, huge, hostile, or no file at all.

Every damage is a function that takes the path of a file, whole, and a random generator, and spoils it.
"""

import json
import os
import pickle
import random
import shutil
import socket
import struct
import zipfile
from pathlib import Path
from typing import Callable

import numpy as np

import checkpoint
from attack_judge import SCRIPT
from attack_world import World

Damage = Callable[[Path, random.Random], None]

NASTY = f"\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\r\b{SCRIPT}</script>\x00\ud800"
HUGE = 200_000_000  # bytes of a large file
SPARSE = 2_000_000_000  # bytes of a file without content


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.open, (str(self.path), os.O_CREAT)


def canary(path: Path) -> Path:
    """What hostile content in a file of a case would make: its parts are CASE/in or CASE/out, and then some."""
    place = next(parent for parent in path.parents if (parent / "logs").is_dir())
    return place / "EXECUTED"


# --- any file ---------------------------------------------------------------------------------


def rewrite(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    """The damage that replaces the content."""
    return lambda path, rng: path.write_bytes(change(path.read_bytes(), rng)) and None


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Some bits are others."""
    result = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 20])):
        result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    return bytes(result)


def instead(make: Callable[[Path], object]) -> Damage:
    """The damage that puts something else in the file's place."""

    def damage(path: Path, rng: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        folder = os.open(path.parent, os.O_RDONLY)
        end.bind(f"/proc/self/fd/{folder}/{path.name}")  # the full name can be too long
        os.close(folder)


def _repeated(start: bytes, unit: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            file.write(start)
            for _ in range(HUGE // 1_000_000):
                file.write(unit * (1_000_000 // len(unit)))

    return write


ANY: dict[str, Damage] = {
    "cut in half": rewrite(lambda content, rng: content[: len(content) // 2]),
    "its last byte missing": rewrite(lambda content, rng: content.rstrip()[:-1]),  # a line feed less is no damage
    "cut to ten bytes": rewrite(lambda content, rng: content[:10]),
    "empty": rewrite(lambda content, rng: b""),
    "random bytes": rewrite(lambda content, rng: rng.randbytes(5_000)),
    "zeros": rewrite(lambda content, rng: bytes(5_000)),
    "missing": instead(lambda path: None),
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a socket": instead(_socket),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
    "/dev/zero": instead(lambda path: path.symlink_to("/dev/zero")),
    "/dev/null": instead(lambda path: path.symlink_to("/dev/null")),
    "/dev/tty": instead(lambda path: path.symlink_to("/dev/tty")),
    "/proc/self/mem": instead(lambda path: path.symlink_to("/proc/self/mem")),
    "2 GB of nothing": instead(lambda path: (path.touch(), os.truncate(path, SPARSE))),
    "200 MB of garbage": instead(_repeated(b"", b"garbage \n")),
}
UNREADABLE: Damage = lambda path, rng: path.chmod(0)  # noqa: E731  (one of many such damages)


def swapped(world: World, example: str) -> Damage:
    """The damage that puts another kind of file there."""
    return lambda path, rng: shutil.copyfile(world.example(example), path) and None


OTHER_KINDS = {
    "json": "tables/table.json", "pickle": "tables/table.pickle", "npz": "tables/cells.npz",
    "search": "searches/ended/search",
    "nodes": "searches/ended/nodes", "tfrecord": "tables/records.tfrecord", "naslib": "tables/naslib.pickle",
}  # fmt: skip


# --- JSON -------------------------------------------------------------------------------------


def altered(change: Callable[[object], object]) -> Damage:
    """The damage that changes a JSON document."""
    return rewrite(lambda content, rng: json.dumps(change(json.loads(content))).encode())


def strings_replaced(document: object, by: object, keys: bool = False) -> object:
    """The document with every string in it, or every key too, replaced or lengthened."""
    if isinstance(document, dict):
        return {(str(by) + key if keys else key): strings_replaced(value, by, keys) for key, value in document.items()}
    if isinstance(document, list):
        return [strings_replaced(value, by, keys) for value in document]
    return by if isinstance(document, str) else document


def numbers_replaced(content: bytes, by: str) -> bytes:
    """Every number of the document is written as this."""
    marker = "\x01"

    def replaced(document: object) -> object:
        if isinstance(document, dict):
            return {key: replaced(value) for key, value in document.items()}
        if isinstance(document, list):
            return [replaced(value) for value in document]
        return marker if isinstance(document, (int, float)) and not isinstance(document, bool) else document

    return json.dumps(replaced(json.loads(content))).replace(json.dumps(marker), by).encode()


def in_jsonpickle(path: Path, rng: random.Random) -> None:
    """What jsonpickle would execute."""
    call = {"py/reduce": [{"py/function": "os.open"}, {"py/tuple": [str(canary(path)), os.O_CREAT]}]}
    path.write_text(json.dumps({"py/object": "os.system", "adj_mat": call, "settings": call, "operations": call}))


JSON: dict[str, Damage] = {
    "hostile strings": altered(lambda document: strings_replaced(document, NASTY)),
    "hostile keys": altered(lambda document: strings_replaced(document, NASTY, keys=True)),
    "very long keys": altered(lambda document: strings_replaced(document, "k" * 100_000, keys=True)),
    "jsonpickle that executes": in_jsonpickle,
    "nested lists": rewrite(lambda content, rng: b"[" * 1_000_000),
    "nested objects": rewrite(lambda content, rng: b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "nested deeply inside": rewrite(
        lambda content, rng: content.rstrip()[:-1] + b',"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    ),
    "a list": rewrite(lambda content, rng: b"[" + content + b"]"),
    "null": rewrite(lambda content, rng: b"null"),
    "twice": rewrite(lambda content, rng: content + content),
    "in UTF-16": rewrite(lambda content, rng: content.decode().encode("utf-16")),
    "10,000 digits": rewrite(lambda content, rng: numbers_replaced(content, "9" * 10_000)),
    "1,000 digits": rewrite(lambda content, rng: numbers_replaced(content, "9" * 1_000)),
    "1e999": rewrite(lambda content, rng: numbers_replaced(content, "1e999")),
    "NaN": rewrite(lambda content, rng: numbers_replaced(content, "NaN")),
    "-Infinity": rewrite(lambda content, rng: numbers_replaced(content, "-Infinity")),
    "-1": rewrite(lambda content, rng: numbers_replaced(content, "-1")),
    "a number as text": rewrite(lambda content, rng: numbers_replaced(content, '"1"')),
    "200 MB of [": instead(_repeated(b"", b"[")),
    "200 MB of numbers": instead(_repeated(b"[1", b",1")),
    "200 MB of a string": instead(_repeated(b'{"', b"x")),
    "200 MB of keys": instead(_repeated(b'{"a":1', b',"k":0')),
}


def resealed(change: Callable[[dict], dict]) -> Damage:
    """The damage to ``search`` behind a right seal, as whoever makes a hostile save can do it."""

    def damage(path: Path, rng: random.Random) -> None:
        main = json.loads(path.read_bytes())
        files = {name: (path.parent / name).read_bytes() for name in main["files"]}
        for name in ("files", "sha256", "format", "version"):
            main.pop(name)
        main = change(main)
        digests = {name: checkpoint._digest(content) for name, content in files.items()}
        main = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, **main, "files": digests}
        path.write_bytes(checkpoint.to_json({**main, "sha256": checkpoint._digest(checkpoint.to_json(main))}))

    return damage


def behind_a_seal(damage: Damage) -> Damage:
    """The damage to a file that ``search`` lists, and then the right seal over it."""

    def both(path: Path, rng: random.Random) -> None:
        damage(path, rng)
        resealed(lambda main: main)(path.with_name("search"), rng)

    return both


def _set(key: str, value: object) -> Damage:
    return resealed(lambda main: {**main, key: value})


SEALED: dict[str, Damage] = {
    "sealed: hostile strings": resealed(lambda main: strings_replaced(main, NASTY)),
    "sealed: hostile outcome": _set("outcome", NASTY),
    "sealed: outcome a list": _set("outcome", [NASTY] * 1000),
    "sealed: hostile keys": resealed(lambda main: strings_replaced(main, NASTY, keys=True)),
    "sealed: no settings": _set("settings", {}),
    "sealed: settings a list": _set("settings", [[]] * 9),
    "sealed: a large seed": resealed(lambda main: {**main, "settings": {**main["settings"], "seed": 10**3000}}),
    "sealed: 8 vertices": resealed(lambda main: {**main, "settings": {**main["settings"], "max_nodes": 8}}),
    "sealed: samples beyond": _set("samples", [10**9]),
    "sealed: a long time": _set("seconds", 1e308),
    "sealed: no time": _set("seconds", float("nan")),
    "sealed: large counters": _set("episodes", 10**30),
}


# --- pickles, archives and records ------------------------------------------------------------


def _hostile_pickle(protocol: int) -> Damage:
    return lambda path, rng: path.write_bytes(pickle.dumps({"format": Evil(canary(path))}, protocol)) and None


def in_a_pickle(change: Callable[[dict], object]) -> Damage:
    """The damage that changes what one of our own pickles, or one just made, holds."""
    return rewrite(lambda content, rng: pickle.dumps(change(pickle.loads(content))))


PICKLE: dict[str, Damage] = {
    "a pickle that executes": _hostile_pickle(4),
    "an old pickle that executes": _hostile_pickle(0),
    "a pickle that is nested": rewrite(lambda content, rng: b"\x80\x04" + b"](" * 500_000 + b"e" * 500_000 + b"."),
    "a pickle of 2^40 bytes": rewrite(lambda content, rng: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x."),
    "a pickle with 2^31 in memory": rewrite(lambda content, rng: b"\x80\x04Nr\xff\xff\xff\x7f."),
    "a pickle of a number": rewrite(lambda content, rng: pickle.dumps(3)),
    "a pickle of 1e6 digits": rewrite(lambda content, rng: pickle.dumps({"format": 10**1_000_000, 10**5_000: 1})),
    "a pickle of hostile strings": rewrite(lambda content, rng: pickle.dumps({NASTY: NASTY, "format": NASTY})),
    "a pickle that grows": rewrite(lambda content, rng: b"\x80\x04](K\x01" + b"eq\x00h\x00" * 40 + b"."),
    "200 MB of a pickle": instead(_repeated(b"\x80\x04](", b"K\x01")),
}
TABLE: dict[str, Damage] = {
    "a hostile source": in_a_pickle(lambda table: {**table, "source": NASTY}),
    "a long source": in_a_pickle(lambda table: {**table, "source": "x" * 1_000_000}),
    "hostile columns": in_a_pickle(
        lambda table: {**table, "columns": {**table["columns"], NASTY: table["columns"]["test"]}}
    ),
    "no columns": in_a_pickle(lambda table: {**table, "columns": {}}),
    "a source that is none": in_a_pickle(lambda table: {**table, "source": 10**5_000}),
    "columns that are none": in_a_pickle(lambda table: {**table, "columns": {"test": {"values": [[NASTY]]}}}),
}
NASLIB: dict[str, Damage] = {
    "hostile keys in it": in_a_pickle(lambda runs: {NASTY + key: NASTY for key in runs}),
    "hostile operations": in_a_pickle(
        lambda runs: {
            key: ({**a, "module_operations": [NASTY] * len(a["module_adjacency"])}, b) for key, (a, b) in runs.items()
        }
    ),
    "hostile budgets": in_a_pickle(
        lambda runs: {key: (a, {NASTY: list(b.values())[0], 10**5_000: []}) for key, (a, b) in runs.items()}
    ),
}  # fmt: skip


def archive(arrays: Callable[[Path, dict], dict], compressed: bool = False) -> Damage:
    """The damage that changes the arrays of an .npz file."""

    def damage(path: Path, rng: random.Random) -> None:
        with np.load(path) as content:
            changed = arrays(path, dict(content))
        (np.savez_compressed if compressed else np.savez)(path.with_name("made.npz"), **changed)
        path.with_name("made.npz").rename(path)

    return damage


def _declaring(shape: str) -> Damage:
    """The damage by which every array of an archive claims to be of a shape."""

    def damage(path: Path, rng: random.Random) -> None:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        with zipfile.ZipFile(path, "w") as archive:
            header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
            for name in names:
                archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(80))

    return damage


def _member(name: str, content: bytes) -> Damage:
    """The damage that adds a member to an archive."""

    def damage(path: Path, rng: random.Random) -> None:
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(name, content)

    return damage


def _all(value: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return archive(lambda path, arrays: {name: value(array) for name, array in arrays.items()})


NPZ: dict[str, Damage] = {
    "objects that execute": archive(
        lambda path, arrays: {name: np.array([Evil(canary(path))], object) for name in arrays}
    ),
    "arrays of hostile text": _all(lambda array: np.array(NASTY[:30])),
    "no arrays": archive(lambda path, arrays: {}),
    "arrays without a number": _all(lambda array: array[..., :0] if array.ndim else array),
    "numbers alone": _all(lambda array: np.float64(1)),
    "NaN in all": _all(lambda array: np.full(array.shape, np.nan)),
    "infinity in all": _all(lambda array: np.full(array.shape, np.inf)),
    "other types": _all(lambda array: np.zeros(array.shape, complex)),
    "shapes of 10^15": _declaring("(1000000000000000,)"),
    "shapes of -1": _declaring("(-1,)"),
    "shapes that are code": _declaring("(__import__('os').getpid(),)"),
    "a bomb": archive(
        lambda path, arrays: {
            name: np.zeros((100_000_000,), array.dtype if array.dtype.kind in "iuf" else "f8")
            for name, array in arrays.items()
        },
        compressed=True,
    ),
    "a hostile member": _member(f"../../EXECUTED{NASTY[:9]}.npy", b"x"),
}  # fmt: skip


def _records(*texts: bytes) -> Damage:
    def damage(path: Path, rng: random.Random) -> None:
        from nasbench_writer import framed

        path.write_bytes(b"".join(map(framed, texts)) + path.read_bytes())

    return damage


_TEXT = json.dumps(NASTY)
TFRECORD: dict[str, Damage] = {
    "a record of 2^60 bytes": rewrite(lambda content, rng: struct.pack("<Q", 2**60) + content[8:]),
    "hostile records": _records(f"[{_TEXT}, 108, {_TEXT}, {_TEXT}, {_TEXT}]".encode()),
    "records of another kind": _records(b'{"a": 1}'),
    "records of no text": _records(bytes(range(256))),
    "records that are nested": _records(b"[" * 100_000),
    "records of large numbers": _records(b'["a", ' + b"9" * 5_000 + b', "0", "input", ""]'),
    "records in the wrong order": rewrite(
        lambda content, rng: content[len(content) // 2 :] + content[: len(content) // 2]
    ),
}


# --- AlphaX-1's files -------------------------------------------------------------------------


def weights(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """The damage to every array of a file of weights."""

    def damage(path: Path, rng: random.Random) -> None:
        import h5py

        def alter(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
                item[...] = change(item[...])

        with h5py.File(path, "r+") as file:
            file.visititems(alter)

    return damage


def _instead_of_arrays(make: Callable[[object, str, object], None]) -> Damage:
    """The damage that puts something else in the place of each array of a file of weights."""

    def damage(path: Path, rng: random.Random) -> None:
        import h5py

        names = []
        with h5py.File(path, "r+") as file:
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            for name in names:
                item = file[name]
                shape = item.shape
                del file[name]
                make(file, name, shape)

    return damage


def _external(file, name: str, shape: tuple) -> None:
    import h5py

    file[name] = h5py.ExternalLink("/etc/passwd", "/")


def _of_a_file(file, name: str, shape: tuple) -> None:
    file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, 4 * int(np.prod(shape)))])


def _enormous(file, name: str, shape: tuple) -> None:
    file.create_dataset(name, (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


def keras_with_lambda(path: Path, rng: random.Random) -> None:
    """A whole Keras model whose layer would execute code when it is loaded."""
    import marshal
    from base64 import b64encode

    code = compile(f"open({str(canary(path))!r}, 'w')", "evil", "eval")
    function = {
        "class_name": "__lambda__",
        "config": {"code": b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None},
    }
    layer = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "x", "function": function},
        "registered_name": None,
    }
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [layer]},
        "registered_name": None,
    }
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        file.writestr("model.weights.h5", b"")


WEIGHTS: dict[str, Damage] = {
    "weights that are NaN": weights(lambda array: np.full(array.shape, np.nan)),
    "weights that are infinite": weights(lambda array: np.full(array.shape, np.inf)),
    "weights that are large": weights(lambda array: np.full(array.shape, 3e38)),
    "links to other files": _instead_of_arrays(_external),
    "content of other files": _instead_of_arrays(_of_a_file),
    "arrays of 4 TB": _instead_of_arrays(_enormous),
    "a Keras model with code": keras_with_lambda,
}


def torch_pickle(make: Callable[[Path], bytes]) -> Damage:
    """The damage to the pickle inside what torch.save wrote."""

    def damage(path: Path, rng: random.Random) -> None:
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(name, make(path) if name.endswith("data.pkl") else content)

    return damage


def torch_bomb(path: Path, rng: random.Random) -> None:
    """Its tensors are compressed and large."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, bytes(20_000_000) if "/data/" in name and len(content) > 1_000 else content)


def _named(module: str) -> bytes:
    return b"\x80\x02c" + module.encode("utf-8", "replace") + b"\nX\nX\x01\x00\x00\x00x\x85R."


TORCH: dict[str, Damage] = {
    "code in the pickle": torch_pickle(lambda path: pickle.dumps(Evil(canary(path)), 2)),
    "hostile names": torch_pickle(lambda path: _named(NASTY.replace("\n", ""))),
    "hostile strings": torch_pickle(lambda path: pickle.dumps({NASTY[:-1]: NASTY[:-1]}, 2)),
    "a nested pickle": torch_pickle(lambda path: b"\x80\x02" + b"](" * 200_000 + b"e" * 200_000 + b"."),
    "another kind of pickle": torch_pickle(lambda path: pickle.dumps([1, 2, {"a": 3}], 2)),
    "a pickle of 256 MB of text": torch_pickle(lambda path: b"\x80\x02X\x00\x00\x00\x10"),
    "a bomb": torch_bomb,
}
SAVE = {f"sealed: {name}": behind_a_seal(damage) for name, damage in JSON.items() if "MB" not in name}
DAMAGES = {  # by the kind of a file, what fits it beside what fits any
    "table": PICKLE | TABLE, "json": JSON, "naslib": PICKLE | NASLIB, "api": PICKLE, "npz": NPZ,
    "tfrecord": TFRECORD, "save": SAVE,
    "search": JSON | SEALED, "summary": JSON, "arrays": NPZ, "weights": WEIGHTS, "torch": TORCH | PICKLE,
}  # fmt: skip
