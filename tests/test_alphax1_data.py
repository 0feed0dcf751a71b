"""Images: where they come from, what is refused, and what training does to them."""

import io
import os
import resource
import zipfile

import numpy as np
import pytest
from alphax1 import environment, one_line, picture, script
from backend import keras
from data import augment, load, normalise, statistics
from files import Problem


def test_without_network_it_says_where_the_archive_belongs(tmp_path):
    closed = environment(KERAS_HOME=tmp_path, https_proxy="http://127.0.0.1:9")
    done = script("model_test.py", "--data", "cifar10", cwd=tmp_path, env=closed)
    one_line(done, str(tmp_path / "datasets" / "cifar-10-batches-py-target_archive"))


def test_foreign_archive_is_neither_used_nor_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    archive = tmp_path / "datasets" / "cifar-10-batches-py-target_archive"
    archive.parent.mkdir()
    archive.write_bytes(b"half of it")
    with pytest.raises(Problem, match="archive is damaged or is not CIFAR-10"):
        load("cifar10", "test")
    assert archive.read_bytes() == b"half of it"
    archive.unlink()
    os.mkfifo(archive)
    with pytest.raises(Problem, match="pipe"):
        load("cifar10", "test")


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.full((2, 32, 32, 3), np.nan), np.arange(2), "float64"),
        (np.zeros((2, 32, 32, 3), "uint8"), np.arange(3), "3 labels"),
        (np.zeros((2, 32, 32, 3), "uint8"), np.array([0, np.nan]), "labels that are float64"),
    ],
)
def test_damaged_cifar10_is_refused(monkeypatch, images, labels, words):
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (None, (images, labels)))
    with pytest.raises(Problem, match=f"CIFAR-10.*{words}"):
        load("cifar10", "test")


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train": None}, "no y_train"),
        ({"x_train": np.zeros((3, 8, 8, 3), "float32")}, "uint8"),
        ({"x_train": np.zeros((3, 8, 9, 3), "uint8")}, "mend"),
        ({"y_train": np.zeros(2, int)}, "2 labels"),
        ({"y_train": np.array([0, -1, 1])}, "from 0"),
        ({"y_train": np.array([0, None, 1])}, "cannot be read"),
        ({"y_train": np.array([0.0, np.nan, 1.0])}, "labels that are float64"),
        ({"y_train": np.array([0, 2**63, 1], "uint64")}, "number them from 0"),
        ({"x_train": np.zeros((0, 8, 8, 3), "uint8")}, "uint8"),
        ({"x_train": np.full((3, 8, 8, 3), np.nan)}, "uint8"),
    ],
)
def test_broken_data_are_named(tmp_path, change, words):
    content = {"x_train": np.zeros((3, 8, 8, 3), "uint8"), "y_train": np.arange(3)} | change
    np.savez(tmp_path / "d.npz", **{name: v for name, v in content.items() if v is not None})
    with pytest.raises(Problem, match=words):
        load(str(tmp_path / "d.npz"), "train")


def claiming(dtype, shape, compression=zipfile.ZIP_DEFLATED):
    """An .npz file whose images would take more room than there is; only zeros of a megabyte follow."""

    def make(path):
        with zipfile.ZipFile(path, "w", compression) as archive, archive.open("x_test.npy", "w") as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            )
            member.write(bytes(2**20))
        labels = io.BytesIO()
        np.save(labels, np.zeros(shape[0] if shape[0] < 2**20 else 3, "int64"))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("y_test.npy", labels.getvalue())

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (claiming("u1", (2**30, 8, 8, 3)), "the limit is 2147483648 bytes"),
        (claiming("u1", (2**24, 8, 8)), "the limit is 2147483648 bytes"),  # three times as much in colour
        (claiming("f8", (2**60, 8, 8, 3)), "make it uint8"),
        (claiming("u1", (2**19, 32, 32, 3)), "EOF: reading array data|mend"),
        (claiming("u1", (3, 8, 8, 3), zipfile.ZIP_LZMA), "does not use"),
        (os.mkfifo, "pipe"),
        (os.mkdir, "directory"),
        (lambda path: path.open("wb").truncate(2**32), "bytes, more than"),
    ],
)
def test_data_that_would_not_end_are_refused_at_once(tmp_path, make, words):
    make(tmp_path / "d.npz")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Problem, match=words):
        load(str(tmp_path / "d.npz"), "test")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_statistics_are_those_of_all_pixels():
    images = np.random.default_rng(3).integers(0, 200, (5000, 4, 4, 3), dtype="uint8")
    mean, std = statistics("file.npz", images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), atol=6e-9)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), atol=6e-9)


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
