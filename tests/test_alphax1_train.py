"""Training and testing as a user runs them: one command, killed, resumed, evaluated; and their parts."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace

import alphax1
import numpy as np
import pytest
from alphax1 import compiling_once, describe, environment, one_line, script
from backend import keras
from damage import altered, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
import model_test
import train
from data import Images, augment, load, normalise, statistics
from evaluation import score_batches, total
from files import Problem, replacing, run
from model import build, write_description
from train import SGD, Batches, Recipe, Training

EPOCHS, SEED = 4, 11
SETTINGS = ("--C 2 --layers 3 --batch-size 32 --validation 40 --crop 2 --no-flip --cutout 8"
            " --drop-path 0.3 --learning-rate 0.05 --precision float32"
            f" --epochs {EPOCHS} --seed {SEED}").split()


@pytest.fixture(autouse=True)
def policy():
    """Restore what the scripts set for the whole process."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return compiling_once(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file of a few hundred handwritten digits, and a genotype for a small network."""
    folder = tmp_path_factory.mktemp("digits")
    taught, test = load("digits", "train"), load("digits", "test")
    # In files of their own: training cannot so much as look at test images, nor testing at others.
    np.savez(folder / "train.npz", x_train=taught.images[:300], y_train=taught.labels[:300])
    grey = test.images[:100, :, :, 0]
    np.savez(folder / "test.npz", x_test=grey, y_test=test.labels[:100])
    write_description(describe(), folder / "small.json")
    return folder


@pytest.fixture(scope="module")
def command(digits):
    return ["--data", str(digits / "train.npz"), "--genotype", str(digits / "small.json"), *SETTINGS]


@pytest.fixture(scope="module")
def trained(command, shared, tmp_path_factory):
    """The folder of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = script("train.py", *command, "--out", folder, cwd=folder, env=shared)
    assert done.returncode == 0, done.stderr
    return folder


def stop_after_an_epoch(command, out, number, env):
    """Start a training, send it a signal once it has saved one more epoch; return its process.

    On a busy machine it can have ended by then; so it gets several tries, each from the same files.
    """
    before, kept = len(history(out)), out.with_name(f"{out.name} before")
    out.mkdir(exist_ok=True)
    shutil.copytree(out, kept)
    arguments = [sys.executable, alphax1.FOLDER / "train.py", *command, "--out", out]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for _ in range(5):
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        with subprocess.Popen(arguments, env=env, **pipes) as process:
            deadline = time.monotonic() + 200
            while len(history(out)) == before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(number)
            process.stderr_text = process.communicate()[1]
        if process.returncode != 0:
            break
    shutil.rmtree(kept)
    return process


def history(out):
    return state(out)["history"] if (out / "checkpoint.npz").exists() else []


def state(out):
    with np.load(out / "checkpoint.npz") as content:
        return json.loads(str(content["state"]))


def arrays(out):
    with np.load(out / "checkpoint.npz") as content:
        return {name: content[name] for name in content.files if name != "state"}


def test_interrupted_and_killed_training_ends_with_the_same_weights(command, shared, trained, tmp_path):
    out = tmp_path / "out"
    interrupted = stop_after_an_epoch(command, out, signal.SIGINT, shared)
    assert interrupted.returncode == 130
    assert "Traceback" not in interrupted.stderr_text and "--resume" in interrupted.stderr_text
    with pytest.raises(Problem, match="add --resume"):
        train.main([*command, "--out", str(out)])
    killed = stop_after_an_epoch([*command, "--resume"], out, signal.SIGKILL, shared)
    assert killed.returncode == -signal.SIGKILL
    assert 2 <= len(history(out)) < EPOCHS
    with pytest.raises(Problem, match=f"--seed {SEED}, not {SEED + 1}"):
        train.main([*command[:-1], str(SEED + 1), "--resume", "--out", str(out)])
    done = script("train.py", "--resume", "--out", out, cwd=tmp_path, env=shared)
    assert done.returncode == 0, done.stderr
    found, wanted = arrays(out), arrays(trained)
    assert found.keys() == wanted.keys() and len(found) > 100
    assert all(np.array_equal(found[name], wanted[name]) for name in found)
    for ours, theirs in zip(history(out), history(trained), strict=True):
        del ours["images_per_second"], theirs["images_per_second"]
        assert ours == theirs


def test_history_follows_the_cosine_and_the_loss_falls(trained):
    figures = history(trained)
    assert figures == json.loads((trained / "history.json").read_text())
    rates = [0.05 * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(EPOCHS)]
    assert [line["learning_rate"] for line in figures] == pytest.approx(rates)
    assert figures[-1]["loss"] < figures[0]["loss"]
    # In the checkpoint: the optimizer's count of steps and its last rate, and the last drop-path.
    scalars = [float(array) for array in arrays(trained).values() if array.shape == ()]
    for last in (EPOCHS * ((300 - 40) // 32), rates[-1], 0.3 * (EPOCHS - 1) / EPOCHS):
        assert any(scalar == pytest.approx(last) for scalar in scalars)


def test_trained_network_is_tested_from_another_folder(digits, trained, tmp_path):
    weights = trained / "best.weights.h5"
    done = script("model_test.py", "--weights", weights, "--data", digits / "test.npz",
                  "--batch-size", 64, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines[-3:]] == [
        "Final loss is", "Final top_1 test accuracy is", "Final top_5 test accuracy is",
    ]
    batches = [float(line.split()[-1]) for line in lines if line.startswith("Batch ")]
    top_1 = float(lines[-2].split()[-1])
    assert len(batches) == 2 and top_1 == pytest.approx((64 * batches[0] + 36 * batches[1]) / 100)


def test_shipped_network_is_tested_by_default(tmp_path):
    if any(alphax1.FOLDER.glob("AlphaX_1.*")):
        pytest.skip("AlphaX-1 itself is here")
    done = script("model_test.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "not AlphaX-1" in lines[0] and "360 images of digits" in lines[1]
    for word in ("Parameters:", "Multiply-adds per image:", "Images per second:"):
        assert sum(line.startswith(word) for line in lines) == 1
    assert float(lines[-2].removeprefix("Final top_1 test accuracy is ")) >= 98
    assert (alphax1.FOLDER / "digits.weights.h5").stat().st_size <= 5_000_000


def test_unusable_input_is_one_line(digits, trained, tmp_path, monkeypatch, capsys):
    short = tmp_path / "short.weights.h5"
    short.write_bytes((trained / "best.weights.h5").read_bytes()[:5000])
    (tmp_path / "short.json").write_bytes((trained / "best.json").read_bytes())
    (tmp_path / "checkpoint.npz").write_bytes(b"PK")
    testing = ["--data", digits / "test.npz", "--weights"]
    for main, arguments, words in (
        (model_test.main, [*testing, short], "short.weights.h5 does not hold"),
        (model_test.main, [*testing, tmp_path / "x"], "x.json"),
        (model_test.main, ["--batch-size", 0], "--batch-size is 0"),
        (model_test.main, ["--data", digits / "train.npz"], "no x_test"),
        (train.main, ["--data", tmp_path / "no.npz", "--out", tmp_path / "new"], "no.npz"),
        (train.main, ["--data", digits / "train.npz", "--out", tmp_path / "new"], "lower --validation"),
        (train.main, ["--learning-rate", -1], "--learning-rate is -1"),
        (train.main, ["--drop-path", 1], "below 1"),
        (train.main, ["--momentum", 2], "--momentum is 2.0; it must be from 0 to 1"),
        (train.main, ["--seed", 2**32], "--seed is 4294967296"),
        (train.main, ["--C", 10**6], "--C is 1000000"),
        (train.main, ["--crop", 10**6], "--crop is 1000000"),
        (train.main, ["--epochs", "few"], "invalid int"),
        (train.main, ["--resume", "--out", tmp_path], "checkpoint.npz is no checkpoint"),
    ):
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        assert run(main) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line and line.startswith("script.py: ")


def figures(epoch, validation_accuracy):
    return {"epoch": epoch, "learning_rate": 0.05, "loss": 2.0, "accuracy": 0.1, "validation_loss": 2.0,
            "validation_accuracy": validation_accuracy, "images_per_second": 9.0}


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """A training of two epochs as they are saved, the first one the best; its figures are made up."""
    recipe = Recipe(
        str(digits / "train.npz"), str(digits / "small.json"), C=2, layers=3, epochs=2, batch_size=32,
        validation=40, precision="float32", seed=SEED,
    )
    training = Training(recipe, tmp_path_factory.mktemp("saved"))
    training.history = [figures(1, 0.5), figures(2, 0.4)]
    training._save_best()
    write_description(training.description, training.out / "best.json")
    training.save()
    return training


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved.out, tmp_path / "out")


def rewrite(out, content, **changed):
    np.savez(out / "checkpoint.npz", **{**arrays(out), "state": json.dumps(content), **changed})


def refused(out, capsys, monkeypatch, *words):
    """Check that --resume says these words in one line and leaves the folder as it is."""
    before = {path: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(sys, "argv", ["train.py", "--resume", "--out", str(out)])
    assert run(train.main) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in (str(out), "name another --out", *words))
    assert {path: path.read_bytes() for path in out.iterdir()} == before


MISSING, ENDLESS = "missing", 10**400


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        *((("history", 1), value, "epoch 2") for value in (None, 5, "x", [], {}, figures(3, 0.4))),
        (("history",), [figures(epoch, 0.5) for epoch in (1, 2, 3)], "at most 2"),
        *((("history", 0, "epoch"), value, "epoch 1") for value in (MISSING, "x", True, 1.0, 2, ENDLESS)),
        *((("history", 0, name), value, "epoch 1")
          for name in ("validation_accuracy", "validation_loss")
          for value in (MISSING, None, "x", True, [0.5], ENDLESS, math.nan, -math.inf)),
        *((("history", 0, "loss"), value, "epoch 1") for value in (MISSING, "x", math.nan)),
        (("recipe",), {}, "lacks"),
        (("recipe", "cutout"), MISSING, "lacks"),
        (("recipe", "seed"), None, "lacks"),
        *((("recipe", name), value, name.replace("_", "-"))
          for name, value in (
              ("data", None), ("genotype", 5), ("precision", "x"), ("precision", []), ("epochs", 2.0),
              ("epochs", True), ("batch_size", 32.0), ("batch_size", None), ("learning_rate", True),
              ("momentum", 2.0), ("weight_decay", ENDLESS), ("flip", 1), ("crop", ENDLESS), ("crop", 10**6),
              ("C", 10**6), ("validation", 40.0), ("seed", 1.5), ("seed", 2**32),
          )),
    ],
)  # fmt: skip
def test_wrong_value_in_a_checkpoint_is_named(copied, capsys, monkeypatch, where, value, words):
    content = state(copied)
    parent = content
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    if value is MISSING:
        del parent[where[-1]]
    rewrite(copied, content)
    refused(copied, capsys, monkeypatch, "checkpoint.npz", words)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda array, dtype=dtype: array.astype(dtype)
          for dtype in ("U", "S", "c8", "?", "i4", "i8", "f2", "f8", ">f4", "M8[s]")),
        lambda array: np.full_like(array, np.nan),
        lambda array: np.where(np.arange(len(array)) == 1, np.float32(np.inf), array),
        lambda array: np.full(array.shape, "x"),
        lambda array: np.zeros(array.shape, "V4"),
    ],
)  # fmt: skip
def test_wrong_arrays_in_a_checkpoint_are_refused(copied, capsys, monkeypatch, change):
    name, array = list(arrays(copied).items())[1]
    assert array.dtype == "float32" and array.ndim == 1
    rewrite(copied, state(copied), **{name: change(array)})
    refused(copied, capsys, monkeypatch, "checkpoint.npz", "damaged")


@pytest.mark.filterwarnings("ignore")  # zipfile's and numpy's, about what the damage makes of a header
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_checkpoint_is_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    content = {"recipe": asdict(Recipe(seed=1)), "network": asdict(describe()), "history": [figures(1, 0.5)]}
    np.savez(path, state=json.dumps(content), variable_0=np.ones(3, "f4"))
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        content, arrays = train._read_checkpoint(path)
    except Problem as problem:
        assert str(path) in str(problem)
    else:
        assert isinstance(content["history"], list) and all(array.dtype != object for array in arrays)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_wrong_values_in_a_checkpoint_are_refused_or_as_good(saved, tmp_path_factory, data):
    out = tmp_path_factory.getbasetemp() / "altered"
    shutil.copytree(saved.out, out, dirs_exist_ok=True)
    rewrite(out, altered(data, state(saved.out)))

    def again(recipe, out):
        """The same training, since a new network for every example would take long."""
        patch.setattr(saved, "recipe", recipe)
        patch.setattr(saved, "out", out)
        return saved

    def go_on(training, epoch):
        raise Problem("it goes on")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Training", again)
        patch.setattr(Training, "_run_epoch", go_on)
        patch.setattr(train, "load_weights", lambda model, path: None)
        patch.setattr(train, "build", lambda description: None)
        try:
            train.main(["--resume", "--out", str(out)])
        except Problem as problem:
            if str(problem) != "it goes on":
                assert str(out) in str(problem)
                return
        assert [line["epoch"] for line in saved.history] == list(range(1, len(saved.history) + 1))
        assert json.dumps([saved.history, asdict(saved.recipe)], allow_nan=False)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda best: best.unlink(),
        lambda best: best.write_bytes(best.read_bytes()[:5000]),
        lambda best: shutil.copy(alphax1.FOLDER / "digits.weights.h5", best),
    ],
    ids=["missing", "short", "of another network"],
)
def test_best_weights_are_missed_when_training_resumes(copied, capsys, monkeypatch, recwarn, spoil):
    spoil(copied / "best.weights.h5")
    refused(copied, capsys, monkeypatch, "best.weights.h5", "epoch 1", "put it back")
    assert not [str(warning.message) for warning in recwarn if "Skipping" in str(warning.message)]


def test_best_files_that_can_be_made_anew_are(copied, capsys):
    best, description = copied / "best.weights.h5", copied / "best.json"
    described = description.read_text()
    description.unlink()
    train.main(["--resume", "--out", str(copied)])
    assert description.read_text() == described and "Kept epoch 1" in capsys.readouterr().out
    content = state(copied)
    content["history"][1]["validation_accuracy"] = 0.6
    rewrite(copied, content)
    best.unlink()
    train.main(["--resume", "--out", str(copied)])
    assert "Kept epoch 2" in capsys.readouterr().out
    network = build(describe(C=2), seed=SEED + 1)
    network.load_weights(best)
    found = [keras.ops.convert_to_numpy(weight) for weight in network.weights]
    assert all(np.array_equal(array, wanted) for array, wanted in zip(found, arrays(copied).values()))


def test_diverged_epoch_is_not_saved(saved, monkeypatch):
    """What --resume would refuse must not get into a checkpoint."""
    for name, loss in (("loss", math.nan), ("validation_loss", math.inf), ("validation_loss", math.nan)):
        losses = {"loss": 2.0, "validation_loss": 2.0, name: loss}
        fit = SimpleNamespace(history={"loss": [losses.pop("loss")], "accuracy": [0.1]})
        monkeypatch.setattr(saved.model, "fit", lambda *_, fit=fit, **__: fit)
        validated = {**losses, "validation_accuracy": 0.1}
        monkeypatch.setattr(saved, "_validate", lambda validated=validated: validated)
        with pytest.raises(Problem, match=f"the {name} is {loss} in epoch 2; lower --learning-rate"):
            saved._run_epoch(1)
        assert len(saved.history) == 2


def test_weights_that_the_last_step_spoiled_are_not_saved(saved, monkeypatch):
    """The loss of an epoch is that before its last step."""
    weight = saved.model.weights[0]
    before = keras.ops.convert_to_numpy(weight)

    def fit(*_, **__):
        weight.assign(before * math.nan)
        return SimpleNamespace(history={"loss": [2.0], "accuracy": [0.1]})

    monkeypatch.setattr(saved.model, "fit", fit)
    monkeypatch.setattr(saved, "_validate", dict)
    with pytest.raises(Problem, match="weights are not finite after epoch 2; lower --learning-rate"):
        saved._run_epoch(1)
    assert len(saved.history) == 2
    weight.assign(before)  # other tests use it


def test_without_network_it_says_where_the_archive_belongs(tmp_path):
    closed = environment(KERAS_HOME=tmp_path, https_proxy="http://127.0.0.1:9")
    done = script("model_test.py", "--data", "cifar10", cwd=tmp_path, env=closed)
    one_line(done, str(tmp_path / "datasets" / "cifar-10-batches-py-target_archive"))


def test_cifar10_comes_from_keras(monkeypatch):
    train = np.zeros((5, 32, 32, 3), "uint8"), np.arange(5, dtype="uint8")[:, None]
    test = np.ones((2, 32, 32, 3), "uint8"), np.array([[7], [9]], "uint8")
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (train, test))
    assert load("cifar10", "test").labels.tolist() == [7, 9]
    assert load("cifar10", "train").images.shape == (5, 32, 32, 3)
    assert statistics("cifar10", train[0])[0] == (0.49139968, 0.48215827, 0.44653124)


def test_digits_are_split_once_and_for_all():
    train, test = load("digits", "train"), load("digits", "test")
    assert train.images.shape == (1437, 32, 32, 3) and test.images.shape == (360, 32, 32, 3)
    assert test.labels[:12].tolist() == [0, 5, 0, 5, 0, 5, 0, 5, 8, 3, 2, 0]
    assert test.images.max() == 255
    assert (test.images[:, ::4, ::4].repeat(4, 1).repeat(4, 2) == test.images).all()


def test_kept_epoch_is_the_most_accurate_on_the_held_out_images(trained, command):
    training = Training(Recipe(**state(trained)["recipe"]), trained)
    training.restore()
    training.description = describe(mean=(0.1, 0.2, 0.3))
    with pytest.raises(Problem, match="other contents"):
        training.restore()
    accuracies = [line["validation_accuracy"] for line in history(trained)]
    assert accuracies[training.best_epoch] == max(accuracies)
    assert all(round(accuracy * 40, 6).is_integer() for accuracy in accuracies)
    losses = (0.3, 0.1, 0.2, 0.1)
    training.history = [{"validation_accuracy": 0.5, "validation_loss": loss} for loss in losses]
    assert training.best_epoch == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train": None}, "no y_train"),
        ({"x_train": np.zeros((3, 8, 8, 3), "float32")}, "uint8"),
        ({"x_train": np.zeros((3, 8, 9, 3), "uint8")}, "mend"),
        ({"y_train": np.zeros(2, int)}, "2 labels"),
        ({"y_train": np.array([0, -1, 1])}, "from 0"),
        ({"y_train": np.array([0, None, 1])}, "cannot be read"),
    ],
)
def test_broken_data_are_named(tmp_path, change, words):
    content = {"x_train": np.zeros((3, 8, 8, 3), "uint8"), "y_train": np.arange(3)} | change
    np.savez(tmp_path / "d.npz", **{name: v for name, v in content.items() if v is not None})
    with pytest.raises(Problem, match=words):
        load(str(tmp_path / "d.npz"), "train")


def picture(number=64):
    return np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3), dtype="uint8")


def test_augmentation_shifts_mirrors_and_blanks():
    images, mean, std = picture(), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)

    def draw(seed=0, **changes):
        settings = {"crop": 0, "flip": False, "cutout": 0} | changes
        return augment(images, mean, std, np.random.default_rng(seed), **settings)

    plain = normalise(images, mean, std)
    np.testing.assert_allclose(plain, (images / 255 - mean) / std, rtol=1e-4, atol=1e-5)
    assert np.array_equal(draw(), plain)
    flipped = draw(flip=True)
    mirrored = [np.array_equal(new, old[:, ::-1]) for new, old in zip(flipped, plain)]
    kept = [np.array_equal(new, old) for new, old in zip(flipped, plain)]
    assert all(a != b for a, b in zip(mirrored, kept)) and 16 < sum(kept) < 48
    blank = (draw(cutout=4) == 0).all(axis=-1).sum(axis=(1, 2))
    assert blank.max() == 16 and blank.min() >= 4  # at the edge, part of it is outside
    black = normalise(np.zeros_like(images), mean, std)[0, 0, 0]
    shifted = draw(crop=2)
    edges = [(image[0] == black).all() for image in shifted]
    assert 8 < sum(edges) < 48  # two in five are shifted down
    assert np.array_equal(shifted, draw(crop=2)) and not np.array_equal(shifted, draw(1, crop=2))


def test_each_epoch_has_every_image_once_in_an_order_of_its_own():
    data = Images(picture(), np.arange(64))
    recipe = Recipe(batch_size=16, seed=5, crop=0, flip=False, cutout=0)

    def labels(epoch):
        batches = Batches(data, recipe, describe(), epoch)
        return np.concatenate([batches[step][1][0] for step in range(len(batches))])

    assert sorted(labels(0)) == list(range(64)) and not np.array_equal(labels(0), labels(1))
    assert np.array_equal(labels(1), labels(1))


def test_batches_are_augmented_as_the_recipe_says():
    data, off = Images(picture(), np.arange(64)), {"crop": 0, "flip": False, "cutout": 0}

    def batch(**changes):
        recipe = Recipe(batch_size=16, seed=5, **off | changes)
        images, labels = Batches(data, recipe, describe(auxiliary=False), 2)[1]
        return images, labels[0]

    plain, labels = batch()
    wanted = normalise(data.images[labels], describe().mean, describe().std)
    np.testing.assert_allclose(plain, wanted, rtol=1e-6)
    for change in ({"crop": 2}, {"flip": True}, {"cutout": 4}):
        assert not np.array_equal(batch(**change)[0], plain)


def test_settings_reach_the_optimizer_and_the_loss(digits, tmp_path):
    settings = {"learning_rate": 0.5, "momentum": 0.8, "weight_decay": 0.125, "gradient_clip": 3.0}
    recipe = Recipe(
        str(digits / "train.npz"), str(digits / "small.json"), C=2, layers=3, batch_size=8, validation=40,
        auxiliary_weight=0.25, precision="float32", seed=1, **settings,
    )
    model = Training(recipe, tmp_path).model
    optimizer = model.optimizer
    found = float(optimizer.learning_rate), optimizer.momentum, optimizer.decay, optimizer.global_clipnorm
    assert found == pytest.approx(tuple(settings.values()))
    labels = np.arange(8)
    ours, auxiliary = (np.random.default_rng(i).normal(size=(8, 10)).astype("float32") for i in (0, 1))

    def cross_entropy(logits):
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[labels, labels])

    loss = float(model.compute_loss(y=[labels, labels], y_pred=[ours, auxiliary]))
    assert loss == pytest.approx(cross_entropy(ours) + 0.25 * cross_entropy(auxiliary), rel=1e-5)


def test_precision_is_mixed_on_a_gpu_alone(monkeypatch):
    for gpu, wanted in ((True, "mixed_bfloat16"), (False, "float32")):
        monkeypatch.setattr(train, "has_gpu", lambda gpu=gpu: gpu)
        assert train._policy("auto") == wanted and train._policy("mixed_float16") == "mixed_float16"
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build(describe(C=2))
    assert model.get_layer("stem-0").compute_dtype == "bfloat16"
    assert model.get_layer("drop_path").rate.dtype == "float32"
    assert [output.dtype for output in model.outputs] == ["float32"] * 2


def test_weight_decay_goes_through_momentum():
    variable = keras.Variable(np.array([2.0, -4.0]))
    optimizer = SGD(0.1, 0.9, decay=0.5, global_clipnorm=5.0)
    weight, velocity, gradient = np.array([2.0, -4.0]), np.zeros(2), np.array([30.0, 40.0])
    for _ in range(3):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        clipped = gradient * 5 / 50
        velocity = 0.9 * velocity - 0.1 * (clipped + 0.5 * weight)
        weight = weight + velocity
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), weight, rtol=1e-5)


class Fixed:
    """A network that gives each image's logits away."""

    def __init__(self, logits):
        self.logits = logits

    def predict_on_batch(self, batch):
        return self.logits[np.rint(batch[:, 0, 0, 0] * 255).astype(int)]


def test_scores_agree_with_their_definition():
    random = np.random.default_rng(3)
    logits, labels = random.normal(size=(50, 10)) * 3, random.integers(0, 10, 50)
    images = np.zeros((50, 4, 4, 3), "uint8") + np.arange(50, dtype="uint8")[:, None, None, None]
    description = describe(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    score = total(list(score_batches(Fixed(logits), description, Images(images, labels), 16)))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ranks = (logits > logits[np.arange(50), labels][:, None]).sum(axis=1)
    assert score.loss == pytest.approx(-np.log(chances[np.arange(50), labels]).sum())
    assert (score.top_1, score.top_5, score.images) == ((ranks < 1).sum(), (ranks < 5).sum(), 50)


def test_message_is_one_line_that_cannot_steer_the_terminal(capsys):
    def main(arguments):
        raise Problem("it asks for \x1b[31m\n\ud800 " + "x" * 5000)

    assert run(main) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ": it asks for ?[31m ? xxx" in line and len(line) < 1100


def test_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("ne")
        raise RuntimeError
    with pytest.raises(Problem, match="kept.json.*full"), replacing(path) as part:
        part.write_text("ne")
        raise OSError("full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(Problem, match="name another folder"), replacing(path / "below.json"):
        pass
