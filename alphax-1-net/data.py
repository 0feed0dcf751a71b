"""Images to train and test on: CIFAR-10, scikit-learn's handwritten digits, or a file of one's own.

Images are uint8, (number, size, size, 3), 0 to 255; labels are int64, (number,), from 0.

A file is an .npz with `x_train`, `y_train`, `x_test`, `y_test` (only those that are used have to be
there); images (number, size, size) without colour are taken as well.
"""

import hashlib
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arrays import LARGEST_ARRAYS, Header, open_arrays
from backend import keras
from files import Problem, open_file, reason
from model import CIFAR10_MEAN, CIFAR10_STD
from terminal import say

CIFAR10_ARCHIVE = "cifar-10-batches-py-target_archive"  # what Keras calls cifar-10-python.tar.gz
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"  # as Keras has it
MOST_CLASSES = 100_000
STATISTICS_CHUNK = 4096  # images
DIGITS_TEST_EVERY = 5  # every fifth digit, from the first on, is a test image: 360 of 1,797
DIGITS_SCALE = 4  # 8x8 pixels to 32x32, each pixel repeated
DIGITS_MAXIMUM = 16  # of a pixel, as scikit-learn stores it


class Images(NamedTuple):
    """Images and their labels, as the module describes them."""

    images: np.ndarray
    labels: np.ndarray


def load(name: str, part: str) -> Images:
    """Load the training or the test part of a data set.

    Parameters
    ----------
    name : str
        "cifar10", "digits" or the path of an .npz file.
    part : str
        "train" or "test".

    Raises
    ------
    Problem
        If the data cannot be had or are not what the module describes.
    """
    if name == "cifar10":
        return _cifar10(part)
    if name == "digits":
        return _digits(part)
    return _from_file(Path(name), part)


def statistics(name: str, images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, for pixels from 0 to 1.

    CIFAR-10 has the published ones; those of other data are measured on `images`.
    """
    if name == "cifar10":
        return CIFAR10_MEAN, CIFAR10_STD
    counts = np.zeros((3, 256))  # of each value in each channel, since all pixels as floats would not fit
    for start in range(0, len(images), STATISTICS_CHUNK):
        pixels = images[start : start + STATISTICS_CHUNK].reshape(-1, 3)
        counts += [np.bincount(channel, minlength=256) for channel in pixels.T]
    shares, values = counts / counts[0].sum(), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.round(8).tolist()), tuple(np.maximum(std, 1e-3).round(8).tolist())


def normalise(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """uint8 images as float32, minus `mean`, divided by `std`, both for pixels from 0 to 1."""
    scale = 1 / (255 * np.asarray(std, "float32"))
    return images * scale - np.asarray(mean, "float32") / np.asarray(std, "float32")


def augment(
    images: np.ndarray,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    random: np.random.Generator,
    crop: int,
    flip: bool,
    cutout: int,
) -> np.ndarray:
    """Shift, mirror and normalise images, and blank a square of each: a new draw for every image.

    Parameters
    ----------
    images : array
        uint8, (number, size, size, 3).
    mean, std : tuple of float
        As `normalise` takes them.
    random : numpy.random.Generator
    crop : int
        Pixels of black border from which a window of the old size is cut.
    flip : bool
        Whether to mirror half of the images left to right.
    cutout : int
        Side of the blanked square in pixels (DeVries and Taylor, arXiv 1708.04552); it may lie
        partly outside, and blank is the mean colour. 0 is none.

    Returns
    -------
    array
        float32, the shape of `images`.
    """
    number, size = images.shape[:2]
    each = np.arange(number)
    border = ((0, 0), (crop, crop), (crop, crop), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, border), (size, size), (1, 2))
    top, left = random.integers(0, 2 * crop + 1, (2, number))
    images = windows[each, top, left].transpose(0, 2, 3, 1)
    if flip:
        mirrored = random.random(number) < 0.5
        images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    images = normalise(images, mean, std)
    start = random.integers(0, size, (2, number, 1)) - cutout // 2
    rows, columns = (np.arange(size) >= start) & (np.arange(size) < start + cutout)
    images[rows[:, :, None] & columns[:, None, :]] = 0
    return images


def _cifar10(part: str) -> Images:
    archive = _cifar10_archive()
    try:
        train, test = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises bare Exceptions, and whatever tar and pickle raise
        raise Problem(
            f"CIFAR-10 cannot be downloaded ({reason(error)}); fetch cifar-10-python.tar.gz from"
            f" https://www.cs.toronto.edu/~kriz/cifar.html and put it at {archive} (that name, without .tar.gz)"
        ) from error
    images, labels = train if part == "train" else test
    return _checked(images, labels, f"the {part} part of CIFAR-10 beside {archive}")


def _cifar10_archive() -> Path:
    """Where Keras looks for CIFAR-10 before it downloads it.

    Raises
    ------
    Problem
        If something else is there: Keras would replace it or, without a network connection, remove it.
    """
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    archive = Path(home if os.access(home, os.W_OK) else "/tmp/.keras", "datasets", CIFAR10_ARCHIVE)
    try:
        with open_file(archive) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        say("Downloading CIFAR-10, 170 MB")
        return archive
    except OSError as error:
        raise Problem(f"cannot read {archive} ({reason(error)}); move it away") from error
    if found != CIFAR10_SHA256:
        raise Problem(f"{archive} is damaged or is not CIFAR-10; put cifar-10-python.tar.gz there, or move it away")
    return archive


def _digits(part: str) -> Images:
    from sklearn.datasets import load_digits  # here, since only these data need scikit-learn

    digits = load_digits()
    is_test = np.arange(len(digits.target)) % DIGITS_TEST_EVERY == 0
    wanted = is_test if part == "test" else ~is_test
    pixels = np.rint(digits.images[wanted] * (255 / DIGITS_MAXIMUM)).astype("uint8")
    pixels = pixels.repeat(DIGITS_SCALE, axis=1).repeat(DIGITS_SCALE, axis=2)
    return _checked(pixels, digits.target[wanted], "digits")


def _from_file(path: Path, part: str) -> Images:
    names = f"x_{part}", f"y_{part}"
    where = f"{path}: {names[0]}"
    try:
        with open_arrays(path) as content:
            # Before anything is read, since a small file can hold gigabytes.
            _check_shapes(*map(content.header, names), where)
            images, labels = map(content.read, names)
    except Problem:
        raise
    except FileNotFoundError as error:
        raise Problem(f"there is no {path}; --data takes cifar10, digits or an .npz file") from error
    except KeyError as error:
        raise Problem(f"{path} has no {names[0]} or no {names[1]}; add them") from error
    except Exception as error:  # whatever zipfile and NumPy raise on a damaged file
        raise Problem(
            f"{path} cannot be read as .npz ({reason(error)}); make it anew with numpy.savez"
        ) from error
    return _checked(images, labels, where)


def _checked(images: np.ndarray, labels: np.ndarray, where: str) -> Images:
    """Images and labels as the module describes them; grey images get three channels.

    Raises
    ------
    Problem
        If they are not what the module describes.
    """
    _check_shapes(Header(images.dtype, images.shape), Header(labels.dtype, labels.shape), where)
    labels = labels.reshape(-1)
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise Problem(f"{where} has labels from {labels.min()} to {labels.max()}; number them from 0 on")
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    return Images(images, labels.astype("int64"))


def _check_shapes(images: Header, labels: Header, where: str) -> None:
    """Raise a `Problem` unless these can be images and their labels."""
    number, *sizes = images.shape or (0,)
    if images.dtype != np.uint8 or len(images.shape) not in (3, 4) or sizes[2:] not in ([], [3]) or not number:
        raise Problem(
            f"{where} is {images.dtype} {images.shape};"
            " make it uint8, (number, size, size, 3) or (number, size, size)"
        )
    if images.size > LARGEST_ARRAYS // (1 if sizes[2:] else 3):
        raise Problem(f"{where} is {images.shape}, too much to be read; the limit is {LARGEST_ARRAYS} bytes")
    if sizes[0] != sizes[1] or math.prod(labels.shape) != number:
        raise Problem(f"{where} is {images.shape}, with {math.prod(labels.shape)} labels; mend them")
    if labels.dtype.kind not in "iu":
        raise Problem(f"{where} has labels that are {labels.dtype}; make them whole numbers from 0 on")
