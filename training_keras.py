"""Trainings by ``keras.Model.fit`` of each cell's own model: the engine ``keras`` of a recipe.

Images come in the order, moved and mirrored as the compiled program has them, so that both engines agree to rounding.
"""

import math
import time
from typing import Iterator

import numpy as np

import cell_network  # chooses the backend of Keras before Keras is imported
from cell_layers import Cell, NetworkShape, Weights, initial_weights
from cell_network import keras
from training_recipe import Epoch, Generators, Recipe
from training_data import Data, Part


def model_for(cell: Cell, shape: NetworkShape, weights: Weights, recipe: Recipe, steps: int) -> keras.Model:
    """The compiled model of a cell; ``steps``: of an epoch."""
    model = cell_network.build(
        cell, shape, weights, recipe.batch_norm_momentum, recipe.batch_norm_epsilon, recipe.weight_decay
    )
    model.compile(optimizer_for(recipe, steps), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def optimizer_for(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a recipe; ``steps``: of an epoch."""
    rate = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.epochs * steps)
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    return keras.optimizers.RMSprop(rate, rho=0.9, momentum=0.9, epsilon=recipe.rmsprop_epsilon)


def _normalised(images: np.ndarray, scaling: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return images.astype(np.float32) * scaling[0] + scaling[1]


def augmented(images: np.ndarray, moved: np.ndarray, mirrored: np.ndarray, crop: int) -> np.ndarray:
    """Images [batch, size, size, colours], each cut out of a border of zeros at its own place, and mirrored.

    Parameters
    ----------
    moved : int [batch, 2]
        0 to 2 crop: the window's corner.
    mirrored : bool [batch]
    """
    size = images.shape[1]
    if crop:
        padded = np.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
        images = np.stack([p[y : y + size, x : x + size] for p, (y, x) in zip(padded, moved)])
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


class Run:
    """One training under way."""

    def __init__(
        self, cell: Cell, shape: NetworkShape, recipe: Recipe, data: Data, generators: Generators, limit: float
    ):
        self.recipe, self.data, self.end = recipe, data, time.perf_counter() + limit
        first, self.rng = generators
        self.batch = min(recipe.batch, len(data.train.labels))
        weights = initial_weights(cell, shape, first)
        self.model = model_for(cell, shape, weights, recipe, len(data.train.labels) // self.batch)

    def _batches(self, epoch: Epoch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for chosen, moved, mirrored in zip(epoch.chosen, epoch.moved, epoch.mirrored):
            images = _normalised(self.data.train.images[chosen], self.data.scaling)
            yield augmented(images, moved, mirrored, self.recipe.crop), self.data.train.labels[chosen]

    def _accuracy(self, part: Part) -> float:
        """The share of images named rightly, in batches of one size, the last filled up."""
        right = 0
        for start in range(0, len(part.labels), self.batch):
            images = np.resize(part.images[start : start + self.batch], (self.batch, *part.images.shape[1:]))
            scores = np.asarray(
                keras.ops.convert_to_numpy(self.model.predict_on_batch(_normalised(images, self.data.scaling)))
            )
            labels = part.labels[start : start + self.batch]
            right += int((scores[: len(labels)].argmax(1) == labels).sum())
        return right / len(part.labels)

    def _check_time(self, batch: int, logs: dict | None = None) -> None:
        """A callback of Keras."""
        if time.perf_counter() > self.end:
            raise TimeoutError

    def epochs(self) -> Iterator[tuple[float, float, float | None]]:
        """Loss, validation accuracy and, after the last epoch, test accuracy of every epoch."""
        watch = keras.callbacks.LambdaCallback(on_train_batch_begin=self._check_time)
        for number in range(1, self.recipe.epochs + 1):
            epoch = Epoch(self.recipe, len(self.data.train.labels), self.rng)
            steps = len(epoch.chosen)
            history = self.model.fit(
                self._batches(epoch), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[watch]
            )
            loss = float(history.history["loss"][0])
            if not all(np.isfinite(w).all() for w in self.weights().values()):
                loss = math.nan
            test = self._accuracy(self.data.test) if self.data.test and number == self.recipe.epochs else None
            yield loss, self._accuracy(self.data.valid), test

    def weights(self) -> Weights:
        """The weights as they are now."""
        return cell_network.get_weights(self.model)


def device() -> str:
    """What it computes on, in words."""
    from meta_dnn import device

    return device()
