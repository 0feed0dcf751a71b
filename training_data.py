"""Images to train cells on, in three parts: training, validation (what a search sees) and test (what it does not).

``digits``: scikit-learn's handwritten digits, 8 x 8 grey pixels, 10 classes, 599 images in each part, taken in turn.
``noisy-digits``: the same under noise, so that the best cells are not all near 100 % and can be told apart.
``cifar10``: 40,000 / 10,000 / 10,000 images of 32 x 32 pixels, the parts of NAS-Bench-101 (Ying et al. 2019).
Anything else is the path of an .npz file with ``x_train``, ``y_train`` and, where they are at hand, ``x_valid``,
``y_valid``, ``x_test``, ``y_test``. Without a validation part, every fifth training image is taken for it.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nasbench_dataset import InputError
from nasbench_dataset.files import check_regular, printable

PARTS = ("train", "valid", "test")
DIGITS_MAXIMUM = 16  # of a pixel, as scikit-learn stores it
CIFAR10_TRAINING = 40_000  # images; the other 10,000 of CIFAR-10's training part are for validation
NOISE, NOISE_SEED = 0.2, 0  # deviation of what is added to each pixel of noisy-digits, of the range of pixels
VALIDATION_EVERY = 5  # every fifth training image, where a file has no validation part
MOST_CLASSES = 10_000
LARGEST_FILE = 64 << 30  # bytes of an array, unpacked
FREELY_UNPACKED = 1 << 30  # bytes of all arrays; beyond that, they may have
MOST_TIMES = 100  # times as many as the file, at most


@dataclass(frozen=True, eq=False)
class Part:
    """Images, uint8 (0 to 255) or float32 (0 to 1), [number, size, size, colours], and int32 labels from 0 on."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Data:
    """Images to train on, to choose by, and (perhaps) to report."""

    name: str
    classes: int
    train: Part
    valid: Part
    test: Part | None

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return self.train.images.shape[1]

    @property
    def colours(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[3]

    @cached_property
    def digest(self) -> str:
        """SHA256 of all images and labels, in hexadecimal: what trainings must share to be on the same data."""
        digest = hashlib.sha256(f"classes {self.classes}".encode())
        for part in (self.train, self.valid, self.test):
            for array in (part.images, part.labels) if part else ():
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @cached_property
    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 [colours] each: ``images * scale + shift`` has mean 0 and deviation 1 over the training images."""
        images = self.train.images
        mean = images.mean(axis=(0, 1, 2), dtype=np.float64)
        square = np.mean([np.square(some, dtype=np.float64).mean(axis=(0, 1)) for some in images], axis=0)
        deviation = np.sqrt(np.maximum(square - mean**2, (1e-3 * (255 if images.dtype == np.uint8 else 1)) ** 2))
        return (1 / deviation).astype(np.float32), (-mean / deviation).astype(np.float32)


def load(name: str) -> Data:
    """``digits``, ``noisy-digits``, ``cifar10`` or the data in an .npz file.

    Raises
    ------
    InputError
        If they cannot be had, or are not images and labels as described above.
    """
    if not name.strip():
        raise InputError("no data are named; name digits, noisy-digits, cifar10 or an .npz file")
    known = {"digits": _digits, "noisy-digits": lambda: _digits(NOISE), "cifar10": _cifar10}
    return known[name]() if name in known else _from_file(Path(name))


def make(name: str, arrays: dict[str, np.ndarray]) -> Data:
    """Data of arrays ``x_train``, ``y_train`` and so on, checked; see the module for what they are.

    Raises
    ------
    InputError
    """
    parts = {part: _part(name, part, arrays) for part in PARTS if f"x_{part}" in arrays or f"y_{part}" in arrays}
    if "train" not in parts:
        raise InputError(f"{name} has no x_train and y_train; add them")
    if "valid" not in parts:
        parts["train"], parts["valid"] = _split(name, parts["train"])
    classes = int(parts["train"].labels.max()) + 1
    for part, (images, labels) in ((part, (some.images, some.labels)) for part, some in parts.items()):
        first = parts["train"].images
        if images.shape[1:] != first.shape[1:] or images.dtype != first.dtype:
            raise InputError(
                f"{name}: x_{part} is {images.dtype} {images.shape}, x_train is {first.dtype} {first.shape};"
                " make them alike"
            )
        if len(np.unique(labels)) < 2:
            raise InputError(f"{name}: all labels of y_{part} are {labels[0]}; there must be two classes at least")
        if labels.max() >= classes:
            raise InputError(f"{name}: y_{part} has the label {labels.max()}; y_train goes up to {classes - 1} only")
    return Data(name, classes, parts["train"], parts["valid"], parts.get("test"))


def _part(name: str, part: str, arrays: dict[str, np.ndarray]) -> Part:
    """One part, its arrays checked and brought into the module's form."""
    for key in (f"x_{part}", f"y_{part}"):
        if key not in arrays:
            raise InputError(f"{name} has no {key}; add it")
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 and images.dtype.kind != "f" or images.ndim != 4 or not images.size:
        raise InputError(
            f"{name}: x_{part} is {images.dtype} {images.shape}; make it uint8 (0 to 255) or floats (0 to 1),"
            " [number, size, size, colours] or [number, size, size]"
        )
    if images.shape[1] != images.shape[2] or images.shape[3] > 16:
        raise InputError(f"{name}: x_{part} is {images.shape}; make its images square, with at most 16 colours")
    if images.dtype.kind == "f":
        if not np.isfinite(images).all():
            raise InputError(f"{name}: x_{part} has numbers that are not finite; mend them")
        if images.min() < 0 or images.max() > 1:
            raise InputError(f"{name}: x_{part} goes from {images.min():g} to {images.max():g}; scale it to 0 to 1")
        images = images.astype(np.float32)
    return Part(np.ascontiguousarray(images), _labels(name, part, labels, len(images)))


def _labels(name: str, part: str, labels: np.ndarray, number: int) -> np.ndarray:
    """The labels of a part as int32 [number]."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != (number,):
        raise InputError(
            f"{name}: y_{part} is {labels.dtype} {labels.shape}; make it one whole number from 0 on for each of the"
            f" {number} images"
        )
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise InputError(
            f"{name}: y_{part} has labels from {labels.min()} to {labels.max()}; make them whole numbers from 0 on,"
            f" below {MOST_CLASSES}"
        )
    return labels.astype(np.int32)


def _split(name: str, train: Part) -> tuple[Part, Part]:
    """Training images and every fifth of them for validation."""
    held = np.arange(len(train.labels)) % VALIDATION_EVERY == VALIDATION_EVERY - 1
    if not held.any():
        raise InputError(f"{name} has {len(held)} training images; that is too few to set some apart for validation")
    return Part(train.images[~held], train.labels[~held]), Part(train.images[held], train.labels[held])


def _digits(noise: float = 0.0) -> Data:
    try:
        from sklearn.datasets import load_digits  # here, since only these data need scikit-learn
    except ImportError as error:
        raise InputError("digits needs scikit-learn; pip install -r requirements.txt") from error
    digits = load_digits()
    added = np.random.RandomState(NOISE_SEED).normal(0, noise, digits.images.shape)  # its draws are frozen for ever
    images = np.rint(np.clip(digits.images / DIGITS_MAXIMUM + added, 0, 1) * 255).astype(np.uint8)
    arrays = {}
    for place, part in enumerate(PARTS):
        arrays[f"x_{part}"], arrays[f"y_{part}"] = images[place::3], digits.target[place::3].astype(np.int32)
    return make("noisy-digits" if noise else "digits", arrays)


def _cifar10() -> Data:
    import keras  # here, since the other data need none

    try:
        (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises bare Exceptions, and whatever tar and pickle raise
        raise InputError(
            f"CIFAR-10 cannot be downloaded ({printable(error, 200)}); fetch cifar-10-python.tar.gz from"
            " https://www.cs.toronto.edu/~kriz/cifar.html and put it at"
            f" {Path(keras.config.keras_home(), 'datasets', 'cifar-10-batches-py-target_archive')}"
            " (that name, without .tar.gz)"
        ) from error
    n = CIFAR10_TRAINING
    arrays = dict(x_train=x[:n], y_train=y[:n], x_valid=x[n:], y_valid=y[n:], x_test=x_test, y_test=y_test)
    return make("cifar10", arrays)


def _from_file(path: Path) -> Data:
    try:
        size = check_regular(path).st_size  # a device has no end
        with zipfile.ZipFile(path) as archive:
            unpacked = [member.file_size for member in archive.infolist()]
        if max(unpacked, default=0) > LARGEST_FILE or sum(unpacked) > max(FREELY_UNPACKED, MOST_TIMES * size):
            raise ValueError(f"its {size:,} bytes are said to become {sum(unpacked):,}")
        with np.load(path, allow_pickle=False) as content:
            wanted = [f"{kind}_{part}" for part in PARTS for kind in "xy"]
            arrays = {key: content[key] for key in wanted if key in content.files}
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}; data are digits, noisy-digits, cifar10 or the path of an .npz file"
        ) from error
    except Exception as error:  # whatever zipfile and NumPy raise on a damaged file
        raise InputError(
            f"{path} cannot be read as .npz ({printable(error, 200)}); make it anew with numpy.savez"
        ) from error
    return make(str(path).encode(errors="backslashreplace").decode(), arrays)  # a store holds Unicode only
