"""Conversion: the same logits as PyTorch, nothing run, and one line for every file that will not do."""

import contextlib
import importlib.util
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from alphax1 import one_line, script  # first: it sets the path for those below
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

import model_test
from backend import keras
from convert import Module, _all_modules, _check_layer, _take, convert, main, outputs
from files import Problem
from model import build, read_description
from torch_file import MAGIC, PROTOCOL, Inert, read_module

ORIGINAL = Path(__file__).parent / "alphax1_torch" / "save.py"
TOLERANCE = 1e-4  # of logits of size 1
FLIPS = 40  # damaged copies of each container


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of networks that PyTorch saved, in a process of its own."""
    if importlib.util.find_spec("torch") is None:  # not imported: it has no business in this process
        pytest.skip("needs torch")
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, ORIGINAL, folder], check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def converted(saved, tmp_path_factory):
    """The same network out of both containers, once by the command."""
    folder = tmp_path_factory.mktemp("converted")
    done = script("convert.py", saved / "zip.pt", "--out", folder / "new", cwd=folder)
    assert done.returncode == 0, done.stderr
    paths = outputs(saved / "zip.pt", folder / "new")
    assert done.stdout.splitlines() == [f"Wrote {path}" for path in paths]
    return {"zip": paths, "legacy": convert(saved / "legacy.pt", folder)}


def rebuilt(weights, description):
    model = build(read_description(description), seed=9)
    model.load_weights(weights)
    return model


def test_logits_of_every_operation_agree_with_torch(saved, converted):
    expected = np.load(saved / "expected.npz")
    assert np.abs(expected["logits"]).max() > 0.1
    assert converted["zip"][1].read_text() == converted["legacy"][1].read_text()
    model = rebuilt(*converted["zip"])
    fresh = model.get_weights()
    for container in ("zip", "legacy"):
        model.set_weights([np.zeros_like(weight) for weight in fresh])
        model.load_weights(converted[container][0])
        logits, auxiliary = model.predict_on_batch(expected["images"])
        assert np.abs(logits - expected["logits"]).max() <= TOLERANCE
        assert np.abs(auxiliary - expected["auxiliary"]).max() <= TOLERANCE


def test_genotype_and_sizes_are_recovered(converted):
    description = read_description(converted["zip"][1])
    genotype = description.genotype
    assert len(genotype.normal) == 10 and genotype.normal[4] == ("sep_conv_3x3", 2)
    assert genotype.normal_concat == (2, 3, 4, 5, 6)
    assert len(genotype.reduce) == 12 and genotype.reduce[3] == ("max_pool_2x2", 1)
    assert genotype.reduce_concat == (3, 4, 5, 6, 7)
    sizes = description.C, description.layers, description.classes, description.auxiliary
    assert sizes == (4, 5, 7, True)


def test_wrapped_network_with_a_state_that_nothing_uses(saved, tmp_path):
    weights, description = convert(saved / "parallel.pt", tmp_path)
    assert not read_description(description).auxiliary
    assert len(rebuilt(weights, description).outputs) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("state_dict", "state dict"),
        ("cell", "holds a Cell"),
        ("left_over", "stem.extra.weight"),
        ("counted", "count_include_pad True"),
        ("biased", "cells.0._ops.8.bias"),
        ("foreign", "Sequential"),
        ("name", "pickle.PickleBuffer"),
    ],
)
def test_what_is_no_alphax_1_is_refused_and_nothing_written(saved, tmp_path, name, words):
    with pytest.raises(Problem, match=words) as refusal:
        convert(saved / f"{name}.pt", tmp_path)
    assert f"{name}.pt" in str(refusal.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["zip.weights.h5", "zip.json"])
def test_both_files_are_written_or_neither(saved, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(Problem, match=f"{name}.*Is a directory"):
        convert(saved / "zip.pt", tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_model_test_converts_the_authors_file_once(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(model_test, "ALPHAX_1", tmp_path / "AlphaX_1.pt")
    assert model_test._find_weights() == model_test.SHIPPED
    (tmp_path / "AlphaX_1.pt").write_bytes((saved / "zip.pt").read_bytes())
    assert model_test._find_weights() == tmp_path / "AlphaX_1.weights.h5"
    (tmp_path / "AlphaX_1.pt").unlink()
    assert model_test._find_weights() == tmp_path / "AlphaX_1.weights.h5"


def test_command_refuses_in_one_line(tmp_path):
    zipped(tmp_path / "net.pt", pickle.dumps(Harmful(tmp_path / "harm"), 2))
    done = script("convert.py", tmp_path / "net.pt", cwd=tmp_path)
    one_line(done, "convert.py: ", "net.pt", "mkdir", "do not trust")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
    for arguments, words in (
        ([str(tmp_path / "none.pt")], "none.pt: No such file"),
        (["--what"], "--what"),
        ([""], "source: it is empty"),
        (["--out", ""], "--out: it is empty"),
    ):
        with pytest.raises(Problem, match=words):
            main(arguments)


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.02, 0.2, 0.6, 0.99])
def test_truncated_file_is_refused(saved, tmp_path, container, part):
    content = (saved / f"{container}.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(content[: int(part * len(content))])
    with pytest.raises(Problem, match="short.pt"):
        read_module(tmp_path / "short.pt")


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_flipped_bytes_never_raise_anything_else(saved, tmp_path, monkeypatch, container):
    def stop(description):  # what comes after the file was understood would only take time
        raise Problem("understood")

    monkeypatch.setattr("convert.build", stop)
    content = (saved / f"{container}.pt").read_bytes()
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(FLIPS):
        damaged = bytearray(content)
        # Most of the file is numbers; the pickles, where damage matters, are in front.
        for place in random.integers(0, len(content) // 8, 3):
            damaged[place] ^= int(random.integers(1, 256))
        (tmp_path / "damaged.pt").write_bytes(damaged)
        with pytest.raises(Problem, match="damaged.pt") as refusal:
            convert(tmp_path / "damaged.pt")
        refused += not str(refusal.value).endswith("understood")
    assert refused >= FLIPS // 2


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_pickle_is_read_or_refused_in_one_line(tmp_path_factory, data):
    """No torch needed: a tensor as torch.save writes it, the pickle damaged, in a container that is whole."""
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    write = data.draw(st.sampled_from([zipped, streamed]))
    write(path, damaged(data, tensor(6, (2, 3), (3, 1))), np.arange(6, dtype="float32").tobytes())
    if data.draw(st.booleans()):
        path.write_bytes(damaged(data, path.read_bytes()))
    with contextlib.suppress(Problem):
        read_module(path)


def zipped(path, pickled, storage=b""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/data/0", storage)


def streamed(path, pickled, storage=b""):
    parts = [pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {})]
    keys = pickle.dumps(["0"] if storage else [], 2)
    path.write_bytes(b"".join([*parts, pickled, keys, storage]))


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("write", [zipped, streamed])
def test_nothing_in_the_file_is_run(tmp_path, write):
    pickled = pickle.dumps(Harmful(tmp_path / "harm"), 2)
    write(tmp_path / "net.pt", pickled)
    with pytest.raises(Problem, match="mkdir.*do not trust"):
        read_module(tmp_path / "net.pt")
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickled)
    assert (tmp_path / "harm").exists()  # so it would have harmed


@pytest.mark.parametrize("name", ["model.os\nsystem", "torch.nn.os\nsystem", "operations\neval"])
def test_names_of_the_network_are_never_looked_up(tmp_path, name):
    pickled = b"\x80\x02c" + name.encode() + b"\nX\x01\x00\x00\x00x\x85R."
    zipped(tmp_path / "net.pt", pickled)
    made = read_module(tmp_path / "net.pt")
    assert isinstance(made, Inert) and made.origin == name.replace("\n", ".") and made.state == {}


@pytest.mark.parametrize("name", ["modelx\nA", "torch\nload", "torch.nnx\nA", "builtins\ngetattr"])
def test_other_names_are_refused(tmp_path, name):
    zipped(tmp_path / "net.pt", b"\x80\x02c" + name.encode() + b"\n.")
    with pytest.raises(Problem, match=name.replace("\n", ".")):
        read_module(tmp_path / "net.pt")


def tensor(count, shape, strides, offset=0):
    """The pickle of one tensor, as torch.save writes it."""

    def inside(value):
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + inside("storage") + b"ctorch\nFloatStorage\n" + inside("0") + inside("cpu")
    storage += inside(count) + b"tQ"
    rest = inside(offset) + inside(shape) + inside(strides) + inside(False) + inside({})
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR."


@pytest.mark.parametrize(
    ("count", "shape", "strides", "offset", "words"),
    [
        (2**50, (2**50,), (1,), 0, "truncated"),
        (6, (2**50,), (0,), 0, "does not fit"),
        (6, (2, 3), (4, 1), 0, "does not fit"),
        (6, (2, 3), (3, 1), 1, "does not fit"),
        (6, (2, -3), (3, 1), 0, "shape or strides"),
        (6, (2, 3), (3,), 0, "as many strides"),
        (-6, (0,), (1,), 0, "refers to"),
        (6, (1,) * 20, (1,) * 20, 0, "as many strides"),
    ],
)
@pytest.mark.parametrize("write", [zipped, streamed])
def test_declared_sizes_are_held_against_the_file(tmp_path, write, count, shape, strides, offset, words):
    numbers = np.arange(6, dtype="float32").tobytes()
    head = b"" if write is zipped else max(count, 0).to_bytes(8, "little")
    write(tmp_path / "net.pt", tensor(count, shape, strides, offset), head + numbers)
    with pytest.raises(Problem, match=words):
        read_module(tmp_path / "net.pt")


def test_strides_and_offset_are_followed(tmp_path):
    zipped(tmp_path / "net.pt", tensor(6, (2, 2), (1, 3), 1), np.arange(6, dtype="float32").tobytes())
    assert read_module(tmp_path / "net.pt").array().tolist() == [[1, 4], [2, 5]]


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray of 8 exabytes
        b"\x80\x02c__builtin__\nxrange\nJ\xff\xff\xff\x7f\x85R.",  # a range of 2 billion
        b"\x80\x02](" + b"N" * 200 + b"eq\x01ctorch\nSize\nh\x01\x85R.",  # a list to be copied at will
        b"\x80\x02}(" + b")" + b"q\x00h\x00\x86" * 60 + b"Nu.",  # a key that takes 2**60 steps to hash
        b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",  # a key so deep that hashing it ends the process
    ],
)
def test_small_pickle_that_wants_much_memory_or_time_is_refused(tmp_path, pickled):
    zipped(tmp_path / "net.pt", pickled)
    with pytest.raises(Problem, match="net.pt"):
        read_module(tmp_path / "net.pt")


def test_endless_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("torch_file.MOST_OPCODES", 100)
    zipped(tmp_path / "net.pt", b"\x80\x02" + b"]" * 200 + b".")
    with pytest.raises(Problem, match="more than 100 opcodes"):
        read_module(tmp_path / "net.pt")


def test_setting_without_end_is_named_at_no_length():
    endless = 3
    for _ in range(60):
        endless = (endless, endless)
    conv = Inert()
    conv.state = {"kernel_size": endless}
    module = Module(conv, "cells.0._ops.1")
    with pytest.raises(Problem) as refusal:
        module.expect(module.kind, kernel_size=3)
    assert len(str(refusal.value)) < 100_000


def test_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02N.")
    with pytest.raises(Problem, match="compressed"):
        read_module(tmp_path / "net.pt")


def stand_in(**state):
    """A module in a file, which holds what is given."""
    made = type("StandIn", (Inert,), {"origin": "torch.nn.Conv2d", "__slots__": ()})()
    made.state = {"_modules": {}, "_parameters": {}, "_buffers": {}, **state}
    return made


def containing_each_other():
    modules = {str(number): stand_in() for number in range(1000)}
    for module in modules.values():
        module.state["_modules"] = modules
    return module


def one_in_another():
    module = stand_in()
    for _ in range(2000):
        module = stand_in(_modules={"x": module})
    return module


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (containing_each_other, "more than 100000 modules"),
        (one_in_another, "over 1000 characters"),
        (lambda: stand_in(_modules={"x" * 10**6: stand_in()}), "over 1000 characters"),
        (lambda: stand_in(_modules=dict.fromkeys(map(str, range(1001)), stand_in())), "more than 1000 _modules"),
    ],
)
def test_modules_without_end_are_refused_soon(make, words):
    start = time.perf_counter()
    with pytest.raises(Problem, match=words) as refusal:
        list(_all_modules(Module(make(), "")))
    assert len(str(refusal.value)) < 1000 and time.perf_counter() - start < 20


def test_settings_are_never_compared_with_each_other():
    """Two values that each contain themselves twice, many times over, would take for ever."""
    groups = channels = 3
    for _ in range(30):
        groups, channels = (groups, groups), (channels, channels)
    conv = stand_in(kernel_size=3, stride=1, padding=1, dilation=1, groups=groups, in_channels=channels)
    layer = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="conv")
    layer.build((None, 8, 8, 4))
    start = time.perf_counter()
    with pytest.raises(Problem, match="has groups"):
        _check_layer(Module(conv, "conv"), layer)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(("value", "dtype"), [(1e300, "f8"), (np.nan, "f4"), (-np.inf, "f2")])
def test_weights_that_are_not_finite_in_float32_are_refused(tmp_path, value, dtype):
    class Stored:
        def array(self):
            return np.array([1, value, 2], dtype)

    with pytest.raises(Problem, match="bias holds values that cannot be"):
        _take({"classifier.bias": Stored()}, "classifier.bias", (0,), (3,))


def colliding_keys():
    """A table whose keys all have the hash 1."""
    keys = [(number * (2**61 - 1) + 1).to_bytes(11, "little") for number in range(1, 20_000)]
    return b"\x80\x02}(" + b"".join(b"\x8a\x0b" + key + b"N" for key in keys) + b"u."


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (colliding_keys(), "nor usual whole numbers"),
        (b"\x80\x02ctorch.nn\n" + b"x" * 10**6 + b"\n.", "a name of 1000009 characters"),
    ],
)
def test_what_would_take_long_is_refused_soon(tmp_path, pickled, words):
    zipped(tmp_path / "net.pt", pickled)
    start = time.perf_counter()
    with pytest.raises(Problem, match=words) as refusal:
        read_module(tmp_path / "net.pt")
    assert len(str(refusal.value)) < 1000 and time.perf_counter() - start < 2


def test_archive_of_very_many_members_is_refused(tmp_path):
    members = (b"PK\x01\x02" + bytes(42)) * 200_000
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(members), 30, 0)
    (tmp_path / "net.pt").write_bytes(b"PK\x03\x04" + bytes(26) + members + end)
    assert len(zipfile.ZipFile(tmp_path / "net.pt").namelist()) == 200_000  # so that is an archive
    with pytest.raises(Problem, match="more than 100000 members"):
        read_module(tmp_path / "net.pt")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.open("wb").truncate(2**32)])
def test_what_is_no_file_or_too_large_is_refused_at_once(tmp_path, make):
    make(tmp_path / "net.pt")
    with pytest.raises(Problem, match="cannot read .*net.pt: .*(pipe|directory|bytes, more than)"):
        read_module(tmp_path / "net.pt")
