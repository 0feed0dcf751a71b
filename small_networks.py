"""Small networks that predict accuracies, for methods that fit them anew every few samples; in JAX.

A fit is one compiled program whatever the number of samples: inputs are padded, and how many steps it takes is an
argument. What is missing to a whole batch is filled up with rows of weight 0. Weights are drawn by numpy.
"""

from functools import partial
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from cell_encodings import INPUT, OUTPUT, Cell
from nasbench_dataset import InputError, cells

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise InputError("this method needs JAX; pip install -r requirements.txt") from error

ROOM = 512  # samples at first; it doubles, and all is compiled again
Weights = list[dict[str, Any]]  # of layers, the first axis of each array being the members of an ensemble


class Recipe(NamedTuple):
    """How a network is fitted: by Adam, from the beginning each time."""

    epochs: int
    batch: int
    rate: float
    beta_2: float = 0.999
    decay: float = 0.0  # L2 penalty
    cosine: bool = False  # whether the rate falls to 0 by a cosine


def glorot(rng: np.random.Generator, members: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    """A dense layer as Keras begins one: Glorot-uniform kernel, no bias."""
    bound = (6 / (inputs + outputs)) ** 0.5
    kernel = rng.uniform(-bound, bound, (members, inputs, outputs)).astype(np.float32)
    return {"kernel": kernel, "bias": np.zeros((members, outputs), np.float32)}


def dense(layer: dict, x):
    """Apply a dense layer: [n, inputs] -> [n, outputs]."""
    return x @ layer["kernel"] + layer["bias"]


@partial(jax.jit, static_argnums=(0, 1))
def _fit(loss: Callable, recipe: Recipe, weights: Weights, data: Any, targets, order, present, steps: int, seed: int):
    """So many steps of Adam for all members at once; ``order`` and ``present`` are [steps, members, batch]."""
    keys = jax.random.split(jax.random.key(seed), order.shape[1])

    def total(weights, step):
        rows = order[step]
        batch = jax.tree.map(lambda array: array[rows], data)
        own_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        return jax.vmap(loss)(weights, batch, targets[rows], present[step], own_keys).sum()

    def advance(step, state):
        weights, first, second = state
        slope = jax.grad(total)(weights, step)
        slope = jax.tree.map(lambda g, w: g + recipe.decay * w, slope, weights)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
        second = jax.tree.map(lambda v, g: recipe.beta_2 * v + (1 - recipe.beta_2) * g * g, second, slope)
        rate = recipe.rate * jnp.where(recipe.cosine, (1 + jnp.cos(jnp.pi * step / steps)) / 2, 1.0)
        number = step + 1
        rate = rate * jnp.sqrt(1 - recipe.beta_2**number) / (1 - 0.9**number)
        weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second)
        return weights, first, second

    zeros = jax.tree.map(jnp.zeros_like, weights)
    return jax.lax.fori_loop(0, steps, advance, (weights, zeros, zeros))[0]


def fit(
    loss: Callable,
    recipe: Recipe,
    weights: Weights,
    data: Any,
    targets: np.ndarray,
    rng: np.random.Generator,
    drawn: np.ndarray | None = None,
) -> Weights:
    """Fit the members of an ensemble, each to all samples in an order of its own.

    Parameters
    ----------
    loss : callable
        ``loss(weights, data, targets, present, key)`` of one member and one batch: a number.
    weights, data : trees of arrays
        Weights to begin with, [members, ...]; what the network sees, [n, ...].
    targets : float [n]
    drawn : int [members, n], optional
        The samples of each member, if not all.
    """
    members, count = jax.tree.leaves(weights)[0].shape[0], len(targets)
    room = ROOM
    while room < count:
        room *= 2

    def pad(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, room - count)] + [(0, 0)] * (array.ndim - 1))

    drawn = np.tile(np.arange(count), (members, 1)) if drawn is None else drawn
    order, present, steps = _batches(drawn, recipe, -(-room // recipe.batch), rng)
    data, targets = jax.tree.map(pad, data), pad(np.asarray(targets, np.float32))
    return _fit(loss, recipe, weights, data, targets, order, present, steps, int(rng.integers(1 << 31)))


def _batches(drawn: np.ndarray, recipe: Recipe, room: int, rng: np.random.Generator) -> tuple:
    """The samples of each step (int32, and float32 whether they count, [epochs * room, members, batch]), and the steps.

    Parameters
    ----------
    room : int
        Batches of an epoch for which there is to be room.
    """
    members, count = drawn.shape
    batches = -(-count // recipe.batch)
    steps = recipe.epochs * batches
    filled = np.zeros((recipe.epochs, members, batches * recipe.batch), np.int32)
    filled[:, :, :count] = rng.permuted(np.tile(drawn, (recipe.epochs, 1, 1)), axis=2)
    order = np.zeros((recipe.epochs * room, members, recipe.batch), np.int32)
    order[:steps] = filled.reshape(-1, members, batches, recipe.batch).swapaxes(1, 2).reshape(steps, members, -1)
    present = np.zeros(order.shape, np.float32)
    real = np.tile(np.arange(batches * recipe.batch) < count, recipe.epochs)
    present[:steps] = real.reshape(steps, 1, recipe.batch)
    return order, present, steps


# --- BANANAS: fully connected networks -----------------------------------------------------------

WIDTHS = (20,) * 10  # hidden layers; White et al., arXiv 1910.11858, section 5, and their code
MEMBERS = 5
BANANAS = Recipe(epochs=150, batch=32, rate=0.01, beta_2=0.99)


def _perceptron(weights: Weights, x):
    for layer in weights[:-1]:
        x = jax.nn.relu(dense(layer, x))
    return dense(weights[-1], x)[..., 0]


def absolute_error(weights: Weights, x, targets, present, key):
    """The loss of fully connected networks."""
    return (jnp.abs(_perceptron(weights, x) - targets) * present).sum() / present.sum()


class Perceptrons:
    """An ensemble of fully connected networks, fitted to the mean absolute error."""

    def __init__(self, rows: np.ndarray, targets: np.ndarray, rng: np.random.Generator):
        sizes = rows.shape[1], *WIDTHS, 1
        weights = [glorot(rng, MEMBERS, *pair) for pair in zip(sizes, sizes[1:])]
        self._weights = fit(absolute_error, BANANAS, weights, rows, targets, rng)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """float [members, n]: what each member predicts."""
        return np.asarray(_predict_all(self._weights, _filled(rows)))[:, : len(rows)]


_predict_all = jax.jit(jax.vmap(_perceptron, (0, None)))


def _filled(array: np.ndarray) -> np.ndarray:
    """With rows of 0 up to a multiple of ``ROOM``, so that few shapes are compiled."""
    return np.pad(array, [(0, -len(array) % ROOM)] + [(0, 0)] * (array.ndim - 1))


# --- NPENAS: a graph isomorphism network ---------------------------------------------------------

HIDDEN, LAST = 32, 16  # Wei et al., arXiv 2003.12857, section 4.1, and their code
GRAPH_LAYERS, DROPOUT = 3, 0.1
ISOLATED, GRAPH_KINDS = 5, 6  # of vertices
SCALE = 10.0  # of the sigmoid: errors in per cent, worse ones count as ten
NPENAS = Recipe(epochs=300, batch=16, rate=0.005, decay=1e-4, cosine=True)


def graphs(batch: Sequence[Cell], vertices: int) -> dict[str, np.ndarray]:
    """Cells as graphs of so many vertices: ``kinds`` [n, v, 6] one-hot, ``edges`` [n, v, v] 0 or 1.

    Vertices that a smaller cell lacks are *isolated* ones before the output, each with an edge from the input.
    """
    kinds = np.zeros((len(batch), vertices, GRAPH_KINDS), np.float32)
    edge = np.zeros((len(batch), vertices, vertices), np.float32)
    for row, (operations, edges) in enumerate(batch):
        filled = cells.enlarge(operations, edges, (ISOLATED,) * (vertices - 2 - len(operations)))
        kinds[row, range(vertices), (INPUT, *filled[0], OUTPUT)] = 1
        for bit, (x, y) in enumerate(cells.edge_pairs(vertices)):
            edge[row, x, y] = filled[1] >> bit & 1
        edge[row, 0, 1 + len(operations) : -1] = 1
    return {"kinds": kinds, "edges": edge}


def _normalise(layer: dict, x, present):
    """Batch normalisation over the vertices of the graphs that count."""
    shares = present[:, None, None] / (present.sum() * x.shape[1])
    mean = (x * shares).sum((0, 1))
    variance = (jnp.square(x - mean) * shares).sum((0, 1))
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * layer["gain"] + layer["shift"]


def _graph_network(weights: Weights, data: dict, present, key=None):
    """Predicted errors (per cent) of some graphs; ``key`` is there while it is fitted."""
    x, arriving = data["kinds"], data["edges"].swapaxes(1, 2)
    for first, second, norm in zip(*[iter(weights[:-2])] * 3):
        x = dense(second, jax.nn.relu(dense(first, x + arriving @ x)))
        x = _normalise(norm, jax.nn.relu(x), present)
    x = jax.nn.relu(dense(weights[-2], x.mean(1)))
    if key is not None:
        x = x * jax.random.bernoulli(key, 1 - DROPOUT, x.shape) / (1 - DROPOUT)
    return SCALE * jax.nn.sigmoid(dense(weights[-1], x)[:, 0])


def _squared_error(weights: Weights, data: dict, targets, present, key):
    return (jnp.square(_graph_network(weights, data, present, key) - targets) * present).sum() / present.sum()


class GraphNetwork:
    """The neural predictor of NPENAS.

    Parameters
    ----------
    data : dict of arrays
        As ``graphs`` gives them.
    targets : float [n]
        Errors in per cent.
    """

    def __init__(self, data: dict[str, np.ndarray], targets: np.ndarray, rng: np.random.Generator):
        weights = []
        for inputs in (GRAPH_KINDS,) + (HIDDEN,) * (GRAPH_LAYERS - 1):
            norm = {"gain": np.ones((1, HIDDEN), np.float32), "shift": np.zeros((1, HIDDEN), np.float32)}
            weights += [glorot(rng, 1, inputs, HIDDEN), glorot(rng, 1, HIDDEN, HIDDEN), norm]
        weights += [glorot(rng, 1, HIDDEN, LAST), glorot(rng, 1, LAST, 1)]
        self._data = data
        self._weights = fit(_squared_error, NPENAS, weights, data, targets, rng)

    def predict(self, data: dict[str, np.ndarray]) -> np.ndarray:
        """float [n]: predicted errors in per cent; each batch is normalised together with the samples."""
        together = {name: _filled(np.concatenate([self._data[name], data[name]])) for name in data}
        known = len(self._data["kinds"])
        present = np.zeros(len(together["kinds"]), np.float32)
        present[:known] = 1
        return np.asarray(_predict_graphs(self._weights, together, present))[0, known : known + len(data["kinds"])]


_predict_graphs = jax.jit(jax.vmap(_graph_network, (0, None, None)))
