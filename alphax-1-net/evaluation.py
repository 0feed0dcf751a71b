"""How good a network is on labelled images."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backend import keras
from data import Images, normalise
from model import Description

TOP = 5  # how many guesses the second accuracy allows


class Score(NamedTuple):
    """Sums over some images: cross-entropy, right guesses (first, among five), number of images.

    Where a logit that matters is not finite, the cross-entropy is not finite either, and the guesses mean
    nothing: `finite` tells.
    """

    loss: float
    top_1: int
    top_5: int
    images: int

    @property
    def finite(self) -> bool:
        """Whether these are figures of a network that works."""
        return math.isfinite(self.loss)


def score_batches(
    network: keras.Model, description: Description, data: Images, batch_size: int
) -> Iterator[Score]:
    """Score a network on successive batches, in the order of the data.

    Parameters
    ----------
    network : keras.Model
        From images to logits, (batch, classes).
    description : Description
        Says how to normalise the images.
    data : Images
        Labels below the number of classes.
    batch_size : int
        The last batch may be smaller.
    """
    for start in range(0, len(data.labels), batch_size):
        images, labels = (array[start : start + batch_size] for array in data)
        # A batch of another size would have the network compiled once more.
        filled = np.resize(images, (batch_size, *images.shape[1:]))
        batch = normalise(filled, description.mean, description.std)
        yield _score(network.predict_on_batch(batch)[: len(labels)], labels)


def total(scores: list[Score]) -> Score:
    """The sums over all batches."""
    return Score(*(sum(values) for values in zip(*scores)))


def _score(logits: np.ndarray, labels: np.ndarray) -> Score:
    logits = logits.astype("float64")
    largest = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # of infinite logits; the loss tells
        log_sum = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
    guesses = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    right = guesses == labels[:, None]
    true_logits = logits[np.arange(len(labels)), labels]
    return Score(float((log_sum - true_logits).sum()), int(right[:, 0].sum()), int(right.sum()), len(labels))
