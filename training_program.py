"""Trainings by the one compiled program (``cell_program``): the engine ``program`` of a recipe."""

import hashlib
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Callable, Iterator

import jax
import numpy as np

import cell_program
from cell_layers import Cell, NetworkShape, Weights, initial_weights
from cell_program import Images, Order, Program
from training_recipe import Epoch, Generators, Recipe
from training_data import Data, Part

CACHE = "JAX_COMPILATION_CACHE_DIR"  # JAX's own name; empty: no cache


def remember_compiled(environment: dict[str, str] = os.environ) -> None:
    """Have JAX keep what it compiles in the user's cache, so that a program is compiled once on a machine.

    What is compiled for one processor may not run on another, so each kind of processor has a folder.
    """
    folder = environment.get(CACHE)
    if folder is None:
        caches = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = str(caches / "alphax-nasbench101" / f"jax-{jax.__version__}-{processor()}")
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def processor() -> str:
    """The kind of this processor, in 12 letters."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))} or lines[:1])
    return hashlib.sha256(repr((platform.machine(), kind)).encode()).hexdigest()[:12]


remember_compiled()


def program_for(vertices: int, shape: NetworkShape, recipe: Recipe, images: int) -> Program:
    """The program for cells of so many vertices and so many training images."""
    return Program(
        shape,
        vertices,
        min(recipe.batch, images),
        recipe.optimizer,
        recipe.rmsprop_epsilon,
        recipe.weight_decay,
        recipe.batch_norm_momentum,
        recipe.batch_norm_epsilon,
        recipe.crop,
        recipe.flip,
    )


def _filled(part: Part, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels up to whole batches; what fills them up has label -1, which no answer equals."""
    missing = -len(part.labels) % batch
    images = np.pad(part.images, [(0, missing)] + [(0, 0)] * 3)
    return images, np.pad(part.labels, (0, missing), constant_values=-1)


@lru_cache(maxsize=2)
def on_device(data: Data, batch: int) -> tuple[Images, int]:
    """The data as the program takes them, and how many batches of ``judged`` are for validation."""
    parts = [_filled(part, batch) for part in (data.valid, data.test) if part]
    judged, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    arrays = data.train.images, data.train.labels, judged, labels, *data.scaling
    return Images(*map(jax.device_put, arrays)), len(parts[0][1]) // batch


def _compiled(program: Program, data: Data) -> Callable:
    """The program, compiled for as many images of that type."""
    images, _ = on_device(data, program.batch)
    return _compiled_for(program, tuple((array.shape, array.dtype) for array in images))


def _like(shape: tuple[int, ...], dtype: type) -> jax.ShapeDtypeStruct:
    """Stands for an array where only its shape and type count."""
    return jax.ShapeDtypeStruct(shape, dtype)


@lru_cache(maxsize=32)
def _compiled_for(program: Program, images: tuple) -> Callable:
    """The program, compiled for images of these shapes and types."""
    images = Images(*(_like(*array) for array in images))
    steps = images.train.shape[0] // program.batch
    arrays = cell_program.array_shapes(program)
    floats = [{name: _like(shape, np.float32) for name, shape in some.items()} for some in arrays]
    state = cell_program.State(floats[0], floats[1], floats[0], floats[0], _like((), np.int32))
    order = Order(
        _like((steps, program.batch), np.int32),
        _like((steps, program.batch, 2), np.int32),
        _like((steps, program.batch), bool),
        _like((steps,), np.float32),
    )
    graph = cell_program.graph(cell_program.any_cell(program.vertices), program.shape)
    number = _like((), np.int32)
    return cell_program.compiled(program).lower(state, graph, number, images, order, number).compile()


class Run:
    """One training under way."""

    def __init__(
        self, cell: Cell, shape: NetworkShape, recipe: Recipe, data: Data, generators: Generators, limit: float
    ):
        self.cell, self.recipe, self.data = cell, recipe, data
        weights, self.rng = generators
        self.program = program_for(len(cell[0]) + 2, shape, recipe, len(data.train.labels))
        self.compiled = _compiled(self.program, data)
        self.first_weights = initial_weights(cell, shape, weights)
        self.state = cell_program.begin(self.program, self.first_weights)

    def epochs(self) -> Iterator[tuple[float, float, float | None]]:
        """Loss, validation accuracy and, after the last epoch, test accuracy of every epoch."""
        images, batches = on_device(self.data, self.program.batch)
        graph = cell_program.graph(self.cell, self.program.shape)
        variant = np.int32(cell_program.variant(self.cell))
        every = len(images.judged) // self.program.batch
        rates = self.recipe.learning_rates(len(self.data.train.labels) // self.program.batch)
        for number, rate in enumerate(rates, 1):
            drawn = Epoch(self.recipe, len(self.data.train.labels), self.rng)
            order = Order(drawn.chosen, drawn.moved, drawn.mirrored, rate)
            last = number == self.recipe.epochs
            judged = np.int32(every if last else batches)
            self.state, loss, right = self.compiled(self.state, graph, variant, images, order, judged)
            right = np.asarray(right)
            test = float(right[batches:].sum() / len(self.data.test.labels)) if last and self.data.test else None
            yield float(loss), float(right[:batches].sum() / len(self.data.valid.labels)), test

    def weights(self) -> Weights:
        """The weights as they are now."""
        return cell_program.weights_of(self.state, self.first_weights)


def device() -> str:
    """What it computes on, in words."""
    first = jax.devices()[0]
    return f"jax {jax.__version__} on {'CPU' if first.platform == 'cpu' else first.device_kind}"
