"""Images to train and test on: CIFAR-10, scikit-learn's handwritten digits, or a file of one's own.

Images are uint8, (number, size, size, 3), 0 to 255; labels are int64, (number,), from 0.

A file is an .npz with `x_train`, `y_train`, `x_test`, `y_test` (only those that are used have to be
there); images (number, size, size) without colour are taken as well.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backend import keras
from files import Problem
from model import CIFAR10_MEAN, CIFAR10_STD

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
    scaled = images / 255
    mean, std = scaled.mean(axis=(0, 1, 2)), scaled.std(axis=(0, 1, 2))
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
    try:
        train, test = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises bare Exceptions, and whatever tar and pickle raise
        cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "datasets")
        raise Problem(
            f"CIFAR-10 cannot be downloaded ({error}); fetch cifar-10-python.tar.gz from"
            f" https://www.cs.toronto.edu/~kriz/cifar.html and put it at"
            f" {cache / 'cifar-10-batches-py-target_archive'} (that name, without .tar.gz)"
        ) from error
    images, labels = train if part == "train" else test
    return Images(images, labels.reshape(-1).astype("int64"))


def _digits(part: str) -> Images:
    from sklearn.datasets import load_digits  # here, since only these data need scikit-learn

    digits = load_digits()
    is_test = np.arange(len(digits.target)) % DIGITS_TEST_EVERY == 0
    wanted = is_test if part == "test" else ~is_test
    pixels = np.rint(digits.images[wanted] * (255 / DIGITS_MAXIMUM)).astype("uint8")
    pixels = pixels.repeat(DIGITS_SCALE, axis=1).repeat(DIGITS_SCALE, axis=2)
    return Images(_coloured(pixels), digits.target[wanted].astype("int64"))


def _coloured(images: np.ndarray) -> np.ndarray:
    """Grey images, (number, size, size), with the same grey in three channels."""
    return np.repeat(images[..., None], 3, axis=-1)


def _from_file(path: Path, part: str) -> Images:
    try:
        with np.load(path, allow_pickle=False) as content:
            images, labels = content[f"x_{part}"], content[f"y_{part}"]
    except FileNotFoundError as error:
        raise Problem(f"there is no {path}; --data takes cifar10, digits or an .npz file") from error
    except KeyError as error:
        raise Problem(f"{path} has no x_{part} or no y_{part}; add them") from error
    except Exception as error:  # whatever zipfile and NumPy raise on a damaged file
        raise Problem(f"{path} cannot be read as .npz ({error}); make it anew with numpy.savez") from error
    if images.dtype == np.uint8 and images.ndim == 3:
        images = _coloured(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
        raise Problem(
            f"{path}: x_{part} is {images.dtype} {images.shape};"
            " make it uint8, (number, size, size, 3) or (number, size, size)"
        )
    labels = labels.reshape(-1)
    if images.shape[1] != images.shape[2] or len(labels) != len(images):
        raise Problem(f"{path}: x_{part} is {images.shape}, y_{part} has {len(labels)} labels; mend them")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise Problem(f"{path}: y_{part} is {labels.dtype}; make it whole numbers from 0 on")
    return Images(images, labels.astype("int64"))
