"""The network: sizes at every cell, parameter counts, gradients, drop-path, broken descriptions."""

import json
import os
import resource
import time

import alphax1
import h5py
import numpy as np
import pytest
from alphax1 import describe
from backend import keras
from files import Problem
from model import (
    MOST_OPERATIONS,
    Genotype,
    build,
    load_weights,
    multiply_adds,
    parameters,
    read_description,
    save_weights,
    without_auxiliary,
    write_description,
)
from operations import OPERATIONS, Builder

RICH = Genotype(  # two states of output, and an edge between states of the cell
    normal=(("sep_conv_5x5", 0), ("skip_connect", 1), ("conv_3x3", 2), ("avg_pool_3x3", 0)),
    normal_concat=(2, 3),
    reduce=(("skip_connect", 0), ("sep_conv_7x7", 1), ("conv_5x5", 2), ("max_pool_5x5", 1)),
    reduce_concat=(2, 3),
)


def operation_parameters(name, channels, stride):
    """Trainable parameters of one operation, counted by hand."""
    if name.startswith("sep_conv"):
        size = int(name[-1])
        half = size * size * channels + channels * channels + 2 * channels
        return 2 * half
    if name.startswith("conv"):
        return int(name[-1]) ** 2 * channels * channels
    if name == "skip_connect" and stride == 2:
        return channels * channels + 2 * channels  # two halves, then batch normalisation
    return 0


def network_parameters(description):
    """Trainable parameters of a whole network, counted by hand."""
    channels = description.C
    before = last = 3 * channels
    count = 27 * last + 2 * last
    reductions = (description.layers // 3, 2 * description.layers // 3)
    for number in range(description.layers):
        reduces = number in reductions
        channels *= 2 if reduces else 1
        count += (before + last) * channels + 2 * 2 * channels
        edges = description.genotype.reduce if reduces else description.genotype.normal
        for name, source in edges:
            count += operation_parameters(name, channels, 2 if reduces and source < 2 else 1)
        before, last = last, 2 * channels
        if description.auxiliary and number == reductions[1]:
            count += last * 128 + 256 + 4 * 128 * 768 + 2 * 768 + 769 * description.classes
    return count + (last + 1) * description.classes


@pytest.fixture(scope="module")
def small():
    return build(describe(), seed=3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")


@pytest.mark.parametrize("layers", [3, 5, 6])
def test_every_cell_has_the_shape_it_should_and_the_count_of_parameters_agrees(layers):
    description = describe(RICH, C=6, layers=layers)
    model = build(description)
    size, channels = 32, 6
    for number in range(layers):
        if number in (layers // 3, 2 * layers // 3):
            size, channels = size // 2, channels * 2
        assert model.get_layer(f"cells-{number}").output.shape == (None, size, size, 2 * channels)
    assert size == 8
    assert [output.shape for output in model.outputs] == [(None, 10), (None, 10)]
    assert parameters(model) == network_parameters(description)
    bare = describe(RICH, C=6, layers=layers, auxiliary=False)
    assert parameters(without_auxiliary(model)) == network_parameters(bare) == parameters(build(bare))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_keeps_channels_divides_size_and_has_its_parameters(name, stride):
    image = keras.Input((8, 8, 6))
    output = Builder(0).operation(name, image, stride, "branch")
    size = 7 if (name, stride) == ("max_pool_2x2", 1) else 8 // stride
    assert output.shape == (None, size, size, 6)
    count = parameters(keras.Model(image, output)) if output is not image else 0
    assert count == operation_parameters(name, 6, stride)


def plain_pool(image, name, stride):
    """Pooling of a (size, size) image by its definition, window by window."""
    size = int(name[-1])
    padding = 0 if size == 2 else size // 2
    reach = range(-padding, len(image) + padding - size + 1, stride)
    best = np.mean if name.startswith("avg") else np.max
    return np.array(
        [
            [best(image[max(y, 0) : y + size, max(x, 0) : x + size]) for x in reach]
            for y in reach
        ]
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if "pool" in name])
def test_pooling_ignores_what_is_outside_the_image(name, stride):
    image = -np.random.default_rng(1).random((8, 8)) - 1  # negative, so that a 0 of padding would show
    inside = keras.Input((8, 8, 1))
    model = keras.Model(inside, Builder(0).operation(name, inside, stride, "pool"))
    found = keras.ops.convert_to_numpy(model(image[None, :, :, None].astype("float32")))
    np.testing.assert_allclose(found[0, :, :, 0], plain_pool(image, name, stride), rtol=1e-6)


def test_factorized_reduction_looks_at_even_pixels_then_at_odd_ones():
    image = np.random.default_rng(2).normal(size=(1, 6, 6, 4)).astype("float32")
    inside = keras.Input((6, 6, 4))
    model = keras.Model(inside, Builder(0).factorized_reduction(inside, 8, "reduce"))
    kernels = [model.get_layer(f"reduce-conv_{i}").get_weights()[0][0, 0] for i in (1, 2)]
    positive = np.maximum(image, 0)
    wanted = [positive[:, start::2, start::2] @ kernel for start, kernel in enumerate(kernels)]
    wanted = np.concatenate(wanted, axis=-1) / np.sqrt(1 + 1e-5)  # fresh batch normalisation
    found = keras.ops.convert_to_numpy(model(image))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_auxiliary_loss_reaches_the_first_half_and_nothing_behind_it(images):
    pools = ("max_pool_2x2", 0), ("max_pool_2x2", 1)
    light = Genotype((("skip_connect", 0), ("skip_connect", 1)), (2,), pools, (2,))  # soon compiled
    model = build(describe(light), seed=3)
    ignore, use = (keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in range(2))
    model.compile(keras.optimizers.SGD(1.0), loss=[ignore, use], loss_weights=[0.0, 1.0])
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    model.train_on_batch(images, [np.arange(4), np.arange(4)])
    moved = {v.path for v in model.trainable_variables if not np.array_equal(before[v.path], v.numpy())}
    assert any(path.startswith("stem-0") for path in moved)
    assert any(path.startswith("auxiliary_head-classifier") for path in moved)
    assert any(path.startswith("cells-0") for path in moved)
    assert not any(path.startswith("classifier") for path in moved)


def test_drop_path_drops_whole_branches_in_training_and_nothing_in_testing(small, images):
    drop_path = small.get_layer("drop_path")
    drop_path.rate.assign(0.5)
    ones = np.ones((64, 2, 2, 3), "float32")
    kept = keras.ops.convert_to_numpy(drop_path(ones, training=True))
    drawn = kept[:, 0, 0, 0]
    assert set(drawn) == {0.0, 2.0}
    assert (kept == drawn[:, None, None, None]).all()
    assert np.array_equal(drop_path(ones, training=False), ones)
    first = small.predict_on_batch(images)[0]
    drop_path.rate.assign(0.0)
    assert np.array_equal(first, small.predict_on_batch(images)[0])


def test_identity_alone_is_never_dropped():
    make, image = Builder(0), keras.Input((8, 8, 4))
    make.drop_path.rate.assign(0.999)
    kept = make.operation("skip_connect", image, 1, "identity")
    dropped = make.operation("skip_connect", image, 2, "reduced")
    model = keras.Model(image, [kept, dropped])
    ones = np.ones((8, 8, 8, 4), "float32")
    kept, dropped = model(ones, training=True)
    assert np.array_equal(kept, ones)
    assert not np.any(dropped)


def test_same_seed_same_weights_other_seed_others(small):
    again, other = build(describe(), seed=3), build(describe(), seed=4)
    same = [np.array_equal(a, b) for a, b in zip(small.get_weights(), again.get_weights())]
    assert all(same)
    assert not np.array_equal(small.get_weights()[0], other.get_weights()[0])


def test_multiply_adds_of_a_small_network_counted_by_hand(small):
    # C=4: stem; normal cell 0 at 32x32; reductions to 16x16 with C=8 and to 8x8 with C=16.
    stem = 32 * 32 * 27 * 12
    cell_0 = 32 * 32 * (12 * 4 + 12 * 4 + 2 * (9 * 4 + 4 * 4))
    cell_1 = 32 * 32 * (12 * 8 + 4 * 8) + 16 * 16 * 8 * 8
    # Cell 2 takes cell 0 (4 channels, 32x32) through a factorized reduction, cell 1 (8) through 1x1.
    cell_2 = 16 * 16 * (4 * 16 + 8 * 16) + 8 * 8 * 16 * 16
    assert multiply_adds(without_auxiliary(small)) == stem + cell_0 + cell_1 + cell_2 + 16 * 10


def test_sizes_that_do_not_meet_are_refused():
    genotype = Genotype((("max_pool_2x2", 0), ("skip_connect", 1)), (2,), alphax1.SMALL.reduce, (2,))
    with pytest.raises(Problem, match="state 2 of cells-0 have sizes 31x31, 32x32"):
        build(describe(genotype))


def test_description_survives_being_written(tmp_path):
    description = describe(RICH, classes=7, data="digits", mean=(0.1, 0.2, 0.3))
    write_description(description, tmp_path / "net.json")
    assert read_description(tmp_path / "net.json") == description
    assert [path.name for path in tmp_path.iterdir()] == ["net.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normal": [["conv_9x9", 0], ["skip_connect", 1]]}, "conv_9x9"),
        ({"normal": [["skip_connect", 0], ["skip_connect", 2]]}, "input 2 of 2"),
        ({"normal": [["skip_connect", 0]]}, "two for each state"),
        ({"normal": [["skip_connect"]]}, "pairs"),
        ({"normal": [[[], 0], ["skip_connect", 1]]}, "known are"),
        ({"reduce_concat": [3]}, "from 0 to 2"),
        ({"reduce_concat": 3}, "state numbers"),
        ({"C": 5}, "even"),
        ({"C": True}, "whole number"),
        ({"layers": 2}, "from 3 to"),
        ({"image_size": 30}, "multiple of 4"),
        ({"image_size": 64}, "32 to 40"),
        ({"std": [0, 1, 1]}, "above 0"),
        ({"mean": "abc"}, "three numbers"),
        ({"classes": None}, "whole number"),
        ({"auxiliary": "yes"}, "true or false"),
        ({"data": 5}, "data a name"),
        ({"mean": [10**400, 0, 0]}, "mean must be"),
        ({"mean": [float("nan"), 0, 0]}, "mean must be"),
        ({"std": [1, 1e-300, 1]}, "above 0"),
        ({"std": [1, float("inf"), 1]}, "above 0"),
        ({"C": 10**9}, "from 2 to"),
        ({"layers": 50_000}, "operations; at most"),
        ({"normal": [["skip_connect", 0]] * 10_000}, "operations; at most"),
        ({"C": 50_000}, "weights; at most"),
        ({"classes": 100_000, "C": 1000}, "weights; at most"),
    ],
)
def test_broken_description_is_named(tmp_path, change, words):
    write_description(describe(), tmp_path / "net.json")
    content = json.loads((tmp_path / "net.json").read_text())
    (tmp_path / "net.json").write_text(json.dumps(content | change))
    with pytest.raises(Problem, match=words) as refusal:
        read_description(tmp_path / "net.json")
    assert "net.json" in str(refusal.value)


def test_largest_networks_are_described_in_no_time():
    many = (("skip_connect", 0), ("skip_connect", 1)) * (MOST_OPERATIONS // 6)
    start = time.perf_counter()
    describe(Genotype(many, (2,), many, (2,)), C=10, auxiliary=False)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", '{"normal": []}', '"\\ud800"', "\xff"])
def test_what_is_no_description_is_named(tmp_path, text):
    (tmp_path / "net.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Problem, match="net.json"):
        read_description(tmp_path / "net.json")


def huge(path):
    with path.open("wb") as file:
        file.truncate(2**32)  # which takes no room


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, huge])
def test_description_that_cannot_be_read_whole_is_named_at_once(tmp_path, make):
    make(tmp_path / "net.json")
    with pytest.raises(Problem, match="net.json.*(pipe|directory|bytes, more than)"):
        read_description(tmp_path / "net.json")


@pytest.fixture
def weights(small, tmp_path):
    save_weights(small, tmp_path / "net.weights.h5")
    return tmp_path / "net.weights.h5"


@pytest.fixture(scope="module")
def another():
    """A network to load weights into."""
    return build(describe(), seed=4)


def first_weight(content):
    """The place of the first convolution's kernel in an open file of weights."""
    return content["layers/conv2d/vars"]


def replaced(**array):
    def spoil(path):
        with h5py.File(path, "r+") as content:
            del first_weight(content)["0"]
            first_weight(content).create_dataset("0", **array)

    return spoil


def with_value(value):
    def spoil(path):
        with h5py.File(path, "r+") as content:
            first_weight(content)["0"][0, 0, 0, 0] = value

    return spoil


def linked(link):
    def spoil(path):
        with h5py.File(path, "r+") as content:
            del first_weight(content)["0"]
            first_weight(content)["0"] = link

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (with_value(np.nan), "not finite"),
        (with_value(-np.inf), "not finite"),
        (replaced(data=np.full((3, 3, 3, 12), 1e300)), "not finite"),
        (replaced(shape=(2**31,), dtype="f4", chunks=(2**20,), compression="gzip"), "has 2147483648 numbers"),
        (replaced(shape=(2**50,), dtype="f4", chunks=(2**20,)), "numbers, its largest weight"),
        (replaced(data=np.zeros((3, 3, 3, 11))), "does not hold"),
        (replaced(data=np.full((3, 3, 3, 12), "\x1b[31m", h5py.string_dtype())), "does not hold"),
        (linked(h5py.ExternalLink("other.h5", "/x")), "does not hold"),
        (linked(h5py.SoftLink("/layers/conv2d_1/vars/0")), "does not hold"),
        (lambda path: path.write_bytes(b""), "does not hold"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "does not hold"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "pipe"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
        (lambda path: path.unlink(), "No such file"),
        (huge, "bytes, more than"),
    ],
)
def test_weights_that_are_not_this_networks_or_not_finite_are_refused(another, weights, spoil, words):
    spoil(weights)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Problem, match=words) as refusal:
        load_weights(another, weights)
    assert str(weights) in str(refusal.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_weights_come_back_as_they_were(small, another, weights):
    load_weights(another, weights)
    assert all(np.array_equal(a, b) for a, b in zip(small.get_weights(), another.get_weights(), strict=True))
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


@pytest.mark.parametrize("part", [0, 0.1, 0.9, 1])
def test_weights_on_a_full_disk_are_one_line_and_the_old_ones_stay(small, weights, capfd, part):
    old = weights.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * len(old)), limits[1]))
    try:
        with pytest.raises(Problem, match="net.weights.h5.*too large.*make room"):
            save_weights(small, weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert weights.read_bytes() == old and [path.name for path in weights.parent.iterdir()] == [weights.name]
    assert capfd.readouterr() == ("", "")
