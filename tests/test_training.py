"""Trainings: recipes, data, both engines against each other, failures, and the command that trains many cells."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, assert_refused, run

import cell_program
import measure_cells
import training
import training_data
import training_program
from cell_layers import NetworkShape
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.table import load
from training_recipe import OPTIMIZERS, PAPER, SMALL, Recipe, add_options, from_options
from training import DIVERGED, OUT_OF_MEMORY, OUT_OF_TIME, TRAINED, Training, train
from training_store import TrainingStore

TINY = Recipe(channels=4, stacks=1, epochs=2, batch=8)
CELL = cells.cell(3)  # one inner vertex


def striped(number: int, seed: int, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images [number, size, size, 1] of three classes: bright rows, bright columns, or neither; learnt quickly."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    images = rng.integers(0, 60, (number, size, size, 1))
    images[labels == 0, ::2] += 180
    images[labels == 1, :, ::2] += 180
    return images.astype(np.uint8), labels


def arrays(**changed) -> dict:
    """What an .npz file of stripes holds, with some arrays changed (None: left out)."""
    content = {}
    for seed, part in enumerate(("train", "valid", "test")):
        content[f"x_{part}"], content[f"y_{part}"] = striped(30 - 3 * seed, seed)
    return {name: array for name, array in (content | changed).items() if array is not None}


@pytest.fixture(scope="module")
def data() -> training_data.Data:
    return training_data.make("stripes", arrays())


# --- recipes ----------------------------------------------------------------------------------


def test_a_recipe_comes_back_from_its_json():
    for recipe in (SMALL, PAPER, TINY):
        assert Recipe.from_json(recipe.canonical()) == recipe


def test_equal_recipes_have_the_same_json_however_their_numbers_were_written():
    assert Recipe(weight_decay=0).canonical() == Recipe(weight_decay=0.0).canonical()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"channels": 4}', "[" * 100_000, SMALL.canonical() + " " * 10_000 + "x"]
    + [SMALL.canonical().replace('"epochs":15', f'"epochs":{bad}') for bad in ("0", "-1", "1e9", "true", "NaN", '"a"')],
)
def test_what_is_no_recipe_is_refused_in_one_line(text):
    with pytest.raises(InputError):
        Recipe.from_json(text)


def test_every_field_of_a_recipe_is_an_option_with_the_preset_as_its_default():
    parser = command.Parser()
    add_options(parser)
    assert from_options(parser.parse_args([])) == SMALL
    assert from_options(parser.parse_args(["--recipe", "paper"])) == PAPER
    given = ["--recipe", "paper", "--learning-rate", "0.1", "--no-flip", "--cells", "2", "--engine", "program"]
    expected = replace(PAPER, learning_rate=0.1, flip=False, cells=2, engine="program")
    assert from_options(parser.parse_args(given)) == expected
    with pytest.raises(InputError, match="epochs of a recipe is a whole number from 1 to"):
        from_options(parser.parse_args(["--epochs", "0"]))


def test_the_learning_rate_falls_along_half_a_cosine():
    rates = Recipe(epochs=2, learning_rate=0.2).learning_rates(2)
    np.testing.assert_allclose(rates, [[0.2, 0.2 * (1 + 0.5**0.5) / 2], [0.1, 0.2 * (1 - 0.5**0.5) / 2]], rtol=1e-6)


# --- data -------------------------------------------------------------------------------------


def test_digits_are_split_in_three_parts_that_share_no_image():
    digits = training_data.load("digits")
    parts = digits.train, digits.valid, digits.test
    assert [part.images.shape for part in parts] == [(599, 8, 8, 1)] * 3
    assert digits.classes == 10 and digits.train.images.max() == 255
    images = np.concatenate([part.images.reshape(599, -1) for part in parts])
    assert len(np.unique(images, axis=0)) == len(images)
    assert digits.digest == "31c5f7427fd3e081f83e759ba508d0b82a0e70c7edede9fdab3a9b1a618f648c"  # of the measured table


def test_the_digest_tells_data_apart(data):
    other = arrays()
    other["y_test"] = np.roll(other["y_test"], 1)
    assert training_data.make("stripes", other).digest != data.digest
    assert training_data.make("another name", arrays()).digest == data.digest


def test_without_a_validation_part_every_fifth_training_image_is_taken():
    made = training_data.make("stripes", arrays(x_valid=None, y_valid=None, x_test=None, y_test=None))
    images, _ = striped(30, 0)
    np.testing.assert_array_equal(made.valid.images, images[4::5])
    assert len(made.train.labels) == 24 and made.test is None


def test_images_are_scaled_to_mean_0_and_deviation_1(data):
    scale, shift = data.scaling
    scaled = data.train.images * scale + shift
    assert abs(scaled.mean()) < 1e-4 and abs(scaled.std() - 1) < 1e-4


def test_a_file_of_floats_without_colour_is_read(tmp_path):
    content = {name: a[..., 0] / 255 if name.startswith("x") else a for name, a in arrays().items()}
    np.savez(tmp_path / "stripes.npz", **content)
    read = training_data.load(str(tmp_path / "stripes.npz"))
    assert read.train.images.shape == (30, 4, 4, 1) and read.train.images.dtype == np.float32


X, Y = striped(30, 0)
BAD = {
    "no images": dict(x_train=None),
    "no labels": dict(y_valid=None),
    "not square": dict(x_train=X[:, :, :3]),
    "one number per image": dict(x_train=X[:, 0, 0, 0]),
    "five axes": dict(x_train=X[..., None]),
    "whole numbers": dict(x_train=X.astype(int)),
    "complex numbers": dict(x_train=X.astype(complex)),
    "text": dict(x_train=X.astype(str)),
    "nothing in it": dict(x_train=X[:0], y_train=Y[:0]),
    "not finite": dict(x_train=np.where(X > 200, np.nan, X / 255)),
    "out of range": dict(x_train=X.astype(float)),
    "other size": dict(x_test=striped(24, 2, size=5)[0]),
    "other type": dict(x_test=striped(24, 2)[0] / 255),
    "other colours": dict(x_valid=np.repeat(striped(27, 1)[0], 3, axis=3)),
    "too few labels": dict(y_train=Y[:-1]),
    "float labels": dict(y_train=Y.astype(float)),
    "negative labels": dict(y_train=Y - 1),
    "huge labels": dict(y_train=Y + 2**40),
    "one class": dict(y_train=np.zeros(30, int)),
    "unknown class": dict(y_valid=striped(27, 1)[1] + 1),
}


@pytest.mark.parametrize("changed", BAD.values(), ids=BAD.keys())
def test_bad_data_are_refused_in_one_line(changed):
    with pytest.raises(InputError) as refused:
        training_data.make("stripes.npz", arrays(**changed))
    assert str(refused.value).startswith("stripes.npz") and "\n" not in str(refused.value)


def test_data_are_named_so_that_a_store_can_hold_it(tmp_path):
    path = f"{tmp_path}/strip\udcffes.npz"  # a byte that is no UTF-8
    with open(path, "wb") as file:
        np.savez(file, **arrays())
    name = training_data.load(path).name
    assert name == f"{tmp_path}/strip\\udcffes.npz" and name.encode()


def test_a_small_file_that_would_unpack_to_much_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", **arrays(x_train=np.zeros((60, 64, 64, 16), np.uint8)))
    monkeypatch.setattr(training_data, "FREELY_UNPACKED", 1_000_000)
    with pytest.raises(InputError, match="bytes are said to become"):
        training_data.load(str(tmp_path / "bomb.npz"))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_is_refused(tmp_path):
    (tmp_path / "endless.npz").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="no regular file"):
        training_data.load(str(tmp_path / "endless.npz"))


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        training_data.load(str(tmp_path / "missing.npz"))
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="cannot be read as .npz"):
        training_data.load(str(tmp_path / "bad.npz"))
    np.savez(tmp_path / "objects.npz", x_train=np.array([{}], object))
    with pytest.raises(InputError, match="cannot be read as .npz"):
        training_data.load(str(tmp_path / "objects.npz"))


# --- training ---------------------------------------------------------------------------------


def test_both_engines_train_alike():
    """Whole trainings with everything on: crop, flip, weight decay, two stacks, an odd size, a last batch left out."""
    content = {}
    for seed, part in enumerate(("train", "valid", "test")):
        content[f"x_{part}"], content[f"y_{part}"] = striped(37, seed, size=5)
    data = training_data.make("stripes", content)
    recipe = Recipe(channels=4, stacks=2, epochs=2, batch=8, weight_decay=1e-2, crop=1, flip=True)
    results, weights = [], []
    for engine in ("program", "keras"):
        results.append(train(CELL, replace(recipe, engine=engine), data, seed=1, keep=weights.append))
    assert results[0].outcome == results[1].outcome == TRAINED
    assert results[0].valid == results[1].valid and results[0].test == results[1].test
    np.testing.assert_allclose(results[0].losses, results[1].losses, rtol=1e-4)
    for name, values in weights[0].items():
        np.testing.assert_allclose(values, weights[1][name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizers_step_as_those_of_keras(optimizer):
    from training_keras import keras, optimizer_for

    recipe = Recipe(optimizer=optimizer, learning_rate=0.1, epochs=1, rmsprop_epsilon=0.5)
    rng = np.random.default_rng(0)
    values, gradients = rng.normal(size=5).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    variable, theirs = keras.Variable(values), optimizer_for(recipe, 3)
    program = cell_program.Program(NetworkShape(), 5, 8, optimizer, rmsprop_epsilon=0.5)
    first, second = np.zeros((2, 5), np.float32)
    for step, (gradient, rate) in enumerate(zip(gradients, recipe.learning_rates(3)[0]), 1):
        theirs.apply([gradient], [variable])
        values, first, second = cell_program.update(program, rate, np.int32(step), gradient, values, first, second)
        np.testing.assert_allclose(values, variable, rtol=1e-5)


def test_a_training_is_the_same_for_the_same_seed_and_another_for_another(data):
    first, again, other = (train(CELL, TINY, data, seed) for seed in (5, 5, 6))
    assert (first.losses, first.valid, first.test) == (again.losses, again.valid, again.test)
    assert first.losses != other.losses


def test_stripes_are_learnt_and_every_epoch_is_told_without_test_accuracy(data):
    told = []
    result = train(CELL, replace(TINY, epochs=20), data, 0, tell=lambda *what: told.append(what))
    assert result.outcome == TRAINED and result.accuracy > 0.8 and result.test > 0.8
    assert told == [(i + 1, result.losses[i], result.valid[i]) for i in range(20)]


def test_one_program_serves_all_cells_of_a_vertex_count(data):
    train(cells.cell(1), TINY, data, 0)
    before = training_program._compiled_for.cache_info()
    for cell in (2, 3, 4, 5, 6):
        assert train(cells.cell(cell), TINY, data, 0).outcome == TRAINED
    after = training_program._compiled_for.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + 5)


def test_a_cell_is_trained_in_its_stored_form(data):
    dangling = (0, 0), cells.edge_bit(0, 1) | cells.edge_bit(1, 3) | cells.edge_bit(0, 2)
    form = cells.stored_form(*dangling)
    assert train(dangling, TINY, data, 0).losses == train(form, TINY, data, 0).losses


def test_data_without_a_test_part_give_no_test_accuracy():
    images, labels = striped(56, 1)  # as many batches as validation and test have together: compiled already
    untested = training_data.make("stripes", arrays(x_valid=images, y_valid=labels, x_test=None, y_test=None))
    assert train(CELL, TINY, untested, 0).test is None


def test_a_training_that_diverges_is_a_result(data):
    result = train(CELL, replace(TINY, learning_rate=1e25), data, 0)
    assert result.outcome == DIVERGED and result.reason == "loss or weights were not finite after epoch 1"
    assert result.accuracy is None and result.test is None and result.valid == ()


def test_a_training_that_is_out_of_time_is_a_result(data):
    result = train(CELL, TINY, data, 0, limit=1e-9)
    assert result.outcome == OUT_OF_TIME and result.reason == "1e-09 s were over after 1 of 2 epochs"
    assert result.accuracy is None and result.test is None and len(result.valid) == 1


def test_keras_looks_at_the_time_at_every_step(data):
    result = train(CELL, replace(TINY, engine="keras"), data, 0, limit=1e-9)
    assert result.outcome == OUT_OF_TIME and result.reason == "1e-09 s were over within epoch 1 of 2"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n more")]
)
def test_a_training_without_memory_is_a_result(data, monkeypatch, error):
    class Run:
        def __init__(self, *_):
            raise error

    monkeypatch.setattr(training, "_engine", lambda recipe: SimpleNamespace(Run=Run, device=lambda: "CPU"))
    result = train(CELL, TINY, data, 0)
    assert result.outcome == OUT_OF_MEMORY and result.reason and "\n" not in result.reason
    assert result.accuracy is None


@pytest.mark.parametrize(
    "cell, recipe, seed, words",
    [
        (((), 0), TINY, 0, "no cell of NAS-Bench-101"),
        (((3,), cells.edge_bit(0, 1) | cells.edge_bit(1, 2)), TINY, 0, "no cell of NAS-Bench-101"),
        (((0,) * 6, sum(cells.edge_bit(x, x + 1) for x in range(7))), TINY, 0, "no cell of NAS-Bench-101"),
        (CELL, replace(TINY, stacks=4), 0, "images of 4 x 4 pixels cannot be halved 3 times"),
        (cells.cell(2531), replace(TINY, channels=1), 0, "channels cannot be shared"),
        (CELL, TINY, -1, "a seed is a whole number"),
        (CELL, TINY, 0.5, "a seed is a whole number"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_computed(data, monkeypatch, cell, recipe, seed, words):
    monkeypatch.setattr(training, "_engine", None)
    with pytest.raises(InputError, match=words):
        train(cell, recipe, data, seed)


def test_training_loads_neither_keras_nor_jax_before_it_trains():
    code = "import sys, training_store, training_data, measure_cells; print({'jax', 'keras'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "set()\n", result.stderr


# --- many cells -------------------------------------------------------------------------------


def test_all_cells_are_wanted_seed_by_seed_in_an_order_of_their_own():
    pairs = measure_cells.wanted(4, 2)
    assert pairs == measure_cells.wanted(4, 2)
    assert [seed for _, seed in pairs] == [0] * 91 + [1] * 91
    orders = [cell for cell, _ in pairs[:91]], [cell for cell, _ in pairs[91:]]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(91)) and len({(*o,) for o in (*orders, range(91))}) == 3
    sample = measure_cells.wanted(4, 2, 5)
    assert len(sample) == 10 and {cell for cell, _ in sample[:5]} == {cell for cell, _ in sample[5:]}


def made_up(cell: int, seed: int, accuracy: float) -> Training:
    """A training of which only these three matter."""
    return Training(cell, TINY, "", "", seed, TRAINED, "", (0.0, accuracy), (), None, 1.0, 1.0, 1, "", "")


def test_scatter_is_told_apart_into_that_of_cells_and_that_of_seeds():
    rng = np.random.default_rng(0)
    cell = rng.normal(0.5, 0.1, 2_000)
    some = [made_up(i, seed, cell[i] + rng.normal(0, 0.02)) for i in range(2_000) for seed in range(3)]
    some.append(made_up(2_001, 0, 9.0))  # not trained with every seed, so it does not count
    words = measure_cells.scatter(some)
    between_cells, between_seeds = map(float, re.findall(r"between \w+ ([.\d]+)", words))
    assert abs(between_cells - 0.1) < 0.005 and abs(between_seeds - 0.02) < 0.001, words
    assert words.startswith("2,000 cells, 3 seeds") and words.endswith("rank correlation of two seeds 0.96")
    assert measure_cells.scatter(some[::3]).startswith("too few")


def test_measuring_goes_on_where_it_was_and_makes_a_table(tmp_path):
    np.savez(tmp_path / "stripes.npz", **arrays())
    options = ["--data", tmp_path / "stripes.npz", "--max-vertices", "2", "--channels", "4", "--stacks", "1"]
    options += ["--epochs", "3", "--store", tmp_path / "store.sqlite"]
    first = run("measure_cells.py", *options, "--seeds", "1")
    assert first.returncode == 0 and "1 trainings to do" in first.stdout, first.stderr
    second = run("measure_cells.py", *options, "--seeds", "2", "--table", tmp_path / "table.pickle")
    assert second.returncode == 0 and "1 trainings to do" in second.stdout, second.stderr
    with TrainingStore(tmp_path / "store.sqlite") as store:
        runs = list(store)
    assert [(t.cell, t.seed, t.outcome) for t in runs] == [(0, 0, TRAINED), (0, 1, TRAINED)]
    table = load(tmp_path / "table.pickle")
    assert table.measured and table.columns["valid"].tolist() == [(runs[0].valid[-1] + runs[1].valid[-1]) / 2]
    assert table.columns["test_run1"].tolist() == [runs[1].test]
    assert table.columns["valid_2"].tolist() == [(runs[0].valid[1] + runs[1].valid[1]) / 2]


def test_bad_options_of_measuring_are_refused_in_one_line(tmp_path):
    store = tmp_path / "store.sqlite"
    assert_refused(run("measure_cells.py", "--store", store, "--stacks", "5"), "cannot be halved 4 times")
    assert_refused(run("measure_cells.py", "--store", tmp_path, "--workers", "0"), "no regular file")
    assert not store.exists()
