"""The file that a training goes on from: its state as JSON, and every variable as an array.

What is read is checked as if somebody meant harm. Arrays are read one by one, after their type and shape.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from arrays import Header, open_arrays
from files import Problem, reason, replacing
from recipe import Recipe

LARGEST_STATE = 2**26  # bytes of JSON, 4 a letter; 600 epochs take about half a million


def write(path: Path, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
    """Replace a checkpoint, whole or not at all; a `Problem` if that is not possible."""
    with replacing(path) as part:
        np.savez(part, state=json.dumps(state), **dict(zip(_names(len(arrays)), arrays)))


def read_state(path: Path) -> dict[str, Any]:
    """The state in a checkpoint: "recipe", "network" and "history".

    Raises
    ------
    Problem
        If the file cannot be read, or if its settings or its history cannot be.
    """
    try:
        with open_arrays(path) as content:
            state = json.loads(str(content.read("state", LARGEST_STATE)))
        recipe = Recipe(**state["recipe"])
        if asdict(recipe) != state["recipe"] or recipe.seed is None:
            raise ValueError("it lacks settings")
        _check_history(state["history"], recipe)
    except Exception as error:  # whatever zipfile, NumPy and json raise on a damaged file
        raise _damaged(path, error) from error
    return state


def read_arrays(path: Path, wanted: Sequence[Header]) -> list[np.ndarray]:
    """The arrays in a checkpoint, which are finite.

    Raises
    ------
    Problem
        If they cannot be read, or are not of these types and shapes.
    """
    names = _names(len(wanted))
    try:
        with open_arrays(path) as content:
            if sorted(content.names) != sorted([*names, "state"]):
                raise ValueError(f"it holds {len(content.names) - 1} arrays, not {len(names)}")
            for name, header in zip(names, wanted):
                if content.header(name) != header:
                    raise ValueError(f"{name} is {' '.join(map(str, content.header(name)))}")
            arrays = [content.read(name) for name in names]
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("not all of its numbers are finite")
    except Exception as error:  # as above
        raise _damaged(path, error) from error
    return arrays


def _damaged(path: Path, error: Exception) -> Problem:
    return Problem(f"{path} is no checkpoint or is damaged ({reason(error):.200}); name another --out")


def _names(number: int) -> list[str]:
    return [f"variable_{position}" for position in range(number)]


def _check_history(history: Any, recipe: Recipe) -> None:
    """Raise a `ValueError` unless it is what `Training.run` notes of epochs 1, 2, and so on."""
    if type(history) is not list or len(history) > recipe.epochs:
        raise ValueError(f"its history is no list of at most {recipe.epochs} epochs")
    names = ["learning_rate", "loss", "accuracy", "images_per_second"]
    names += ["validation_loss", "validation_accuracy"] if recipe.validation else []
    kinds = {"epoch": int, **dict.fromkeys(names, float)}
    for number, figures in enumerate(history, 1):
        if (
            type(figures) is not dict
            or {name: type(value) for name, value in figures.items()} != kinds
            or figures["epoch"] != number
            or not all(map(math.isfinite, figures.values()))
            or not all(0 <= figures[name] <= 1 for name in names if name.endswith("accuracy"))
        ):
            raise ValueError(f"its history has wrong figures for epoch {number}")
