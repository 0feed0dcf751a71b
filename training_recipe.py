"""How a network is trained: every knob in one place, and what two trainings must share to be the same.

``SMALL`` (the default) is for a few hundred small images; ``PAPER`` is NAS-Bench-101's (Ying et al. 2019, appendix).
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache

import numpy as np

from cell_layers import NetworkShape
from nasbench_dataset import InputError

OPTIMIZERS = ("adam", "rmsprop")
ENGINES = ("program", "keras")
LONGEST_RECIPE = 10_000  # characters of its JSON


@dataclass(frozen=True)
class Recipe:
    """A network's size and its training.

    Attributes
    ----------
    channels, stacks, cells : int
        Channels of the first stack (each later one has twice as many), stacks, cells in each.
    epochs, batch : int
        An epoch takes whole batches only; the images left over are others in every epoch.
    optimizer : str
        ``adam`` (.9, .999, 1e-7) or ``rmsprop`` (decay .9, momentum .9, epsilon as below, under the root).
    learning_rate : float
        Of the first step; falls to 0 along half a cosine.
    rmsprop_epsilon : float
    weight_decay : float
        Times a trainable number is added to its gradient, thus half of it times the squares to the loss.
    batch_norm_momentum, batch_norm_epsilon : float
        Of the running averages that are used outside of training. .997 needs thousands of steps.
    crop : int
        Pixels of border (of the mean colour) from which a window of the old size is cut at random; 0: none.
    flip : bool
        Whether half of the images are mirrored left to right.
    engine : str
        ``program``: one compiled program for all cells of a vertex count, best for small networks. ``keras``:
        ``keras.Model.fit`` of each cell's own model, best for large ones. They agree up to rounding.
    """

    channels: int = 8
    stacks: int = 2
    cells: int = 1
    epochs: int = 15
    batch: int = 64
    optimizer: str = "adam"
    learning_rate: float = 0.01
    rmsprop_epsilon: float = 1.0
    weight_decay: float = 0.0
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-5
    crop: int = 0
    flip: bool = False
    engine: str = "program"

    def __post_init__(self):
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            whole = isinstance(low, int)
            fits = isinstance(value, int) if whole else isinstance(value, (int, float)) and math.isfinite(value)
            if isinstance(value, bool) or not fits or not low <= value <= high:
                kind = "whole number" if whole else "number"
                raise InputError(f"{name} of a recipe is a {kind} from {low:g} to {high:g}, not {value!r:.50}")
            if not whole:
                object.__setattr__(self, name, float(value))  # so that 0 and 0.0 are one recipe
        for name, known in (("optimizer", OPTIMIZERS), ("engine", ENGINES), ("flip", (False, True))):
            if getattr(self, name) not in known or (name == "flip" and not isinstance(self.flip, bool)):
                raise InputError(f"{name} of a recipe is one of {known}, not {getattr(self, name)!r:.50}")

    def canonical(self) -> str:
        """JSON that two recipes share if, and only if, they are equal."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    @lru_cache(maxsize=64)  # a store has few recipes and many trainings
    def from_json(text: str) -> "Recipe":
        """The recipe that ``canonical`` wrote.

        Raises
        ------
        InputError
            If it is anything else.
        """
        try:
            if len(text) > LONGEST_RECIPE:
                raise ValueError(f"it has {len(text):,} characters")
            values = json.loads(text)
            if not isinstance(values, dict) or values.keys() != {field.name for field in fields(Recipe)}:
                raise ValueError("it has other fields")
            return Recipe(**values)
        except (ValueError, RecursionError, TypeError) as error:
            raise InputError(f"that is no recipe of a training: {error}") from error

    def shape(self, size: int, colours: int, classes: int) -> NetworkShape:
        """The network for images of ``size`` x ``size`` pixels."""
        return NetworkShape(size, colours, classes, self.channels, self.stacks, self.cells)

    def learning_rates(self, steps: int) -> np.ndarray:
        """float32 [epochs, steps]: the rate of every step, from ``learning_rate`` down to nearly 0."""
        total = self.epochs * steps
        rates = self.learning_rate * 0.5 * (1 + np.cos(np.pi * np.arange(total) / total))
        return rates.astype(np.float32).reshape(self.epochs, steps)


Generators = tuple[np.random.Generator, np.random.Generator]  # of the first weights, and of the epochs


class Epoch:
    """What an epoch draws: images in whole batches, and how they are moved and mirrored."""

    def __init__(self, recipe: Recipe, images: int, rng: np.random.Generator):
        batch = min(recipe.batch, images)
        shape = images // batch, batch
        self.chosen = rng.permutation(images)[: math.prod(shape)].reshape(shape).astype(np.int32)
        self.moved = np.full((*shape, 2), recipe.crop, np.int32)
        self.mirrored = np.zeros(shape, bool)
        if recipe.crop:
            self.moved = rng.integers(0, 2 * recipe.crop + 1, self.moved.shape, np.int32)
        if recipe.flip:
            self.mirrored = rng.random(shape) < 0.5


_LIMITS = (  # name, smallest, largest; whole numbers where the smallest is one
    ("channels", 1, 4096),
    ("stacks", 1, 10),
    ("cells", 1, 100),
    ("epochs", 1, 100_000),
    ("batch", 1, 65_536),
    ("learning_rate", 0.0, 1e30),
    ("rmsprop_epsilon", 0.0, 1000.0),
    ("weight_decay", 0.0, 1.0),
    ("batch_norm_momentum", 0.0, 1.0),
    ("batch_norm_epsilon", 1e-12, 1.0),
    ("crop", 0, 1024),
)

SMALL = Recipe()
PAPER = Recipe(
    channels=128,
    stacks=3,
    cells=3,
    epochs=108,
    batch=256,
    optimizer="rmsprop",
    learning_rate=0.2,
    weight_decay=1e-4,
    batch_norm_momentum=0.997,
    crop=4,
    flip=True,
    engine="keras",
)
PRESETS = {"small": SMALL, "paper": PAPER}


# --- options of a command ---------------------------------------------------------------------

_HELP = {
    "channels": "channels of the first stack; each later one has twice as many",
    "stacks": "stacks of cells",
    "cells": "cells of a stack",
    "epochs": "epochs of a training",
    "batch": "images of a step",
    "optimizer": "adam or rmsprop",
    "learning_rate": "of the first step; falls to 0 along half a cosine",
    "rmsprop_epsilon": "epsilon of rmsprop, under the root",
    "weight_decay": "pull of all weights towards 0",
    "batch_norm_momentum": "of the running averages of batch normalisation",
    "batch_norm_epsilon": "epsilon of batch normalisation",
    "crop": "pixels by which images are moved at random while training",
    "flip": "mirror half of the images while training",
    "engine": "program: one compiled program for all cells; keras: keras.Model.fit of each cell's own model",
}


def add_options(group: argparse._ArgumentGroup, prefix: str = "") -> None:
    """Give a command ``--recipe small|paper`` and one option for every field of a recipe, each after a prefix."""
    flag = f"--{prefix.replace('_', '-')}"
    hidden = argparse.SUPPRESS  # so that help shows no "None", and what was given can be told
    words = "small: for small images, or paper: as in NAS-Bench-101"
    group.add_argument(f"{flag}recipe", choices=PRESETS, default=hidden, help=words)
    for field in fields(Recipe):
        name = flag + field.name.replace("_", "-")
        if field.name == "flip":
            group.add_argument(name, action=argparse.BooleanOptionalAction, default=hidden, help=_HELP[field.name])
        else:
            kind = type(field.default)
            metavar = {int: "N", float: "X", str: "NAME"}[kind]
            group.add_argument(name, type=kind, metavar=metavar, default=hidden, help=_HELP[field.name])


def from_options(options: argparse.Namespace, prefix: str = "") -> Recipe:
    """The recipe that was asked for by the options of ``add_options``; ``small`` where none was named.

    Raises
    ------
    InputError
        If a value is out of its range.
    """
    names = [field.name for field in fields(Recipe) if hasattr(options, prefix + field.name)]
    given = {name: getattr(options, prefix + name) for name in names}
    return replace(PRESETS[getattr(options, f"{prefix}recipe", "small")], **given)
