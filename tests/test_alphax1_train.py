"""Training and testing as a user runs them: one command, killed, resumed, evaluated; and their parts."""

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time

import alphax1
import h5py
import numpy as np
import pytest
from alphax1 import arrays, describe, history, picture, script, state
from alphax1 import digits, policy  # noqa: F401  (fixtures)
from backend import keras
import model_test
import train
from data import Images, normalise
from evaluation import score_batches, total
from files import Problem
from model import build
from recipe import Recipe
from terminal import run
from train import SGD, Batches, Training

EPOCHS, SEED = 4, 11


SETTINGS = ("--C 2 --layers 3 --batch-size 32 --validation 40 --crop 2 --no-flip --cutout 8"
            " --drop-path 0.3 --learning-rate 0.05 --precision float32"
            f" --epochs {EPOCHS} --seed {SEED}").split()


@pytest.fixture(scope="module")
def command(digits):
    return ["--data", str(digits / "train.npz"), "--genotype", str(digits / "small.json"), *SETTINGS]


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """The folder of a training that nothing disturbed; in this process, others have one of their own."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train.main([*command, "--out", str(folder)])
    return folder


def wait_for_an_epoch(process, out, before):
    """Until more epochs are saved, or the process has ended; the checkpoint is read only when it is new."""
    checkpoint, seen, deadline = out / "checkpoint.npz", None, time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        if written != seen and len(history(out)) > before:
            return
        seen = written
        time.sleep(0.005)


def stop_after_an_epoch(command, out, number):
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
        with subprocess.Popen(arguments, **pipes) as process:
            wait_for_an_epoch(process, out, before)
            process.send_signal(number)
            process.stderr_text = process.communicate()[1]
        if process.returncode != 0:
            break
    shutil.rmtree(kept)
    return process


def test_interrupted_and_killed_training_ends_with_the_same_weights(command, trained, tmp_path):
    out = tmp_path / "out"
    interrupted = stop_after_an_epoch(command, out, signal.SIGHUP)
    assert interrupted.returncode == 130
    last_words = re.fullmatch(r"interrupted: (\d) epochs are done; go on with --resume\n", interrupted.stderr_text)
    assert last_words and int(last_words[1]) in (len(history(out)) - 1, len(history(out)))
    with pytest.raises(Problem, match="add --resume"):
        train.main([*command, "--out", str(out)])
    killed = stop_after_an_epoch([*command, "--resume"], out, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert 2 <= len(history(out)) < EPOCHS
    with pytest.raises(Problem, match=f"--seed {SEED}, not {SEED + 1}"):
        train.main([*command[:-1], str(SEED + 1), "--resume", "--out", str(out)])
    done = script("train.py", "--resume", "--out", out, cwd=tmp_path)
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
    shutil.copy(trained / "best.weights.h5", tmp_path / "nan.weights.h5")
    shutil.copy(trained / "best.json", tmp_path / "nan.json")
    with h5py.File(tmp_path / "nan.weights.h5", "r+") as content:
        content["layers/conv2d/vars/0"][0, 0, 0, 0] = math.nan
    testing = ["--data", digits / "test.npz", "--weights"]
    for main, arguments, words in (
        (model_test.main, [*testing, short], "short.weights.h5 does not hold"),
        (model_test.main, [*testing, tmp_path / "x.weights.h5"], "x.json"),
        (model_test.main, [*testing, "."], "no NAME.weights.h5"),
        (model_test.main, [*testing, tmp_path / "nan.weights.h5"], "nan.weights.h5 holds weights that are not finite"),
        (model_test.main, ["--batch-size", 0], "--batch-size is 0"),
        *((model_test.main, [name, ""], f"{name}: it is empty") for name in ("--weights", "--genotype", "--data")),
        (model_test.main, ["--weights", "net.keras", "--genotype", trained / "best.json"], "no NAME.weights.h5"),
        (train.main, ["--out", ""], "--out: it is empty"),
        (train.main, ["--data", "", "--out", tmp_path / "new"], "--data is empty"),
        (train.main, ["--genotype", "", "--out", tmp_path / "new"], "--genotype is empty"),
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
    assert not (tmp_path / "new").exists()


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_figures_that_are_not_finite_are_no_result(capsys, value):
    logits = np.zeros((50, 10))
    logits[40] = value
    images = np.zeros((50, 4, 4, 3), "uint8") + np.arange(50, dtype="uint8")[:, None, None, None]
    data = Images(images, np.zeros(50, int))
    description = describe(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(Problem, match="batch 2 is not finite"):
        model_test._report(Fixed(logits), description, data, 16)
    assert "Batch 1 " in capsys.readouterr().out


def test_message_is_one_line_that_cannot_steer_the_terminal(capsys):
    def main(arguments):
        raise Problem("it asks for \x1b[31m\n\ud800 " + "x" * 5000)

    assert run(main) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ": it asks for ?[31m ? xxx" in line and len(line) < 1100
