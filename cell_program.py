"""One compiled JAX program that trains the network of any cell of a vertex count.

Compiling a network takes longer than training a small one. So the cell is an input of the program, not a part of it:
edges are factors 0 and 1, operations are chosen by ``lax.switch`` (which computes the chosen one only), and channels
are zeros beyond a vertex's own. A weight that a cell does not have is 0 and stays so: its gradient is 0, since what it
would multiply, or what it feeds, is 0. Each vertex count is compiled once, with one variant for cells in which one
vertex feeds the output (and has all channels), and one for those in which several share them, so that half the width
suffices.

The program is plain functions of arrays, so that ``jax.vmap`` trains several cells at once on an accelerator. What
must come out, up to rounding, is what Keras computes with the model of ``cell_network``: the tests hold logits,
gradients and whole trainings against it.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from cell_layers import Cell, NetworkShape, Weights, input_name, vertex_name
from cell_operations import ABSENT, TAPS, column, layer, layer_outside_training, pool2
from nasbench_dataset import cells

STEM_KINDS = (cells.CONV3X3,)
INPUT_KINDS = (cells.CONV1X1, ABSENT)
VERTEX_KINDS = (cells.CONV3X3, cells.CONV1X1, cells.MAXPOOL3X3)
SHARES = 2  # variants of width: all channels, and half of them

Array = jax.Array
Arrays = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """All that is compiled in.

    Attributes
    ----------
    shape : NetworkShape
    vertices : int
        Of the cells, input and output included.
    batch : int
    optimizer : str
        ``adam`` or ``rmsprop``; see ``recipe.Recipe`` for this and what follows.
    rmsprop_epsilon, weight_decay, momentum, epsilon : float
        The last two of batch normalisation.
    crop : int
    flip : bool
    """

    shape: NetworkShape
    vertices: int
    batch: int
    optimizer: str = "adam"
    rmsprop_epsilon: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    epsilon: float = 1e-5
    crop: int = 0
    flip: bool = False

    @property
    def inner(self) -> int:
        """Vertices other than input and output."""
        return self.vertices - 2


# --- a cell as arrays -------------------------------------------------------------------------


class Graph(NamedTuple):
    """A cell as the program takes it.

    Attributes
    ----------
    operations : int32 [inner]
    without_input : int32 [inner + 1]
        Per vertex from 1 on: 0 where an edge comes from ``input``, else 1.
    edges : float32 [inner, inner]
        1 where an edge goes from one to the other.
    kept : float32 [inner, channels] per stack
        1 for the channels that a vertex has.
    places : int32 [inner] per stack
        The first output channel that a vertex feeds; beyond the last where it feeds none.
    """

    operations: np.ndarray
    without_input: np.ndarray
    edges: np.ndarray
    kept: tuple[np.ndarray, ...]
    places: tuple[np.ndarray, ...]


def graph(cell: Cell, shape: NetworkShape) -> Graph:
    """The arrays of a cell without dangling vertices."""
    operations, edges = cell
    vertices = len(operations) + 2
    matrix = np.array(cells.to_dict(operations, edges)["adj_mat"])
    kept, places = [], []
    for stack in range(shape.stacks):
        width = shape.width(stack)
        channels = np.array(cells.vertex_channels(edges, vertices, width, width)[1:-1], int)
        feeding = matrix[1:-1, -1] == 1
        kept.append((np.arange(width) < channels[:, None]).astype(np.float32))
        first = np.cumsum(channels * feeding) - channels
        places.append(np.where(feeding, first, width).astype(np.int32))
    without_input = (1 - matrix[0, 1:]).astype(np.int32)
    inner = matrix[1:-1, 1:-1].astype(np.float32)
    return Graph(np.array(operations, np.int32), without_input, inner, tuple(kept), tuple(places))


def any_cell(vertices: int) -> Cell:
    """A cell of so many vertices: a chain of 3x3 convolutions."""
    chain = sum(cells.edge_bit(x, x + 1) for x in range(vertices - 1))
    return (cells.CONV3X3,) * (vertices - 2), chain


def variant(cell: Cell) -> int:
    """Which width the cell needs: 0 all channels, 1 half of them, since several vertices feed the output."""
    vertices = len(cell[0]) + 2
    feeding = sum(cell[1] & cells.edge_bit(x, vertices - 1) != 0 for x in range(1, vertices - 1))
    return min(max(feeding, 1), SHARES) - 1


def _widths(shape: NetworkShape, share: int) -> list[int]:
    """Channels of the inner vertices of each stack, where ``share`` vertices at least share the output's."""
    return [-(-shape.width(stack) // share) for stack in range(shape.stacks)]


@lru_cache(maxsize=64)
def array_shapes(program: Program, share: int = 1) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """The shapes of all trainable arrays and of all running averages, under the names of ``cell_layers``."""
    shape, widths = program.shape, _widths(program.shape, share)
    kernels = {"stem": (shape.channels, TAPS, shape.colours)}
    for name, channels_in, stack in shape.cells():
        width = widths[stack]
        for y in range(1, program.inner + 1):
            kernels[input_name(name, y)] = (width, 1, channels_in)
            kernels[vertex_name(name, y)] = (width, TAPS, width)
        kernels[input_name(name, program.inner + 1)] = (shape.width(stack), 1, channels_in)
    trained = {"head.kernel": (shape.width(shape.stacks - 1), shape.classes), "head.bias": (shape.classes,)}
    averages = {}
    for name, kernel in kernels.items():
        trained |= {f"{name}.kernel": kernel, f"{name}.gamma": kernel[:1], f"{name}.beta": kernel[:1]}
        averages |= {f"{name}.mean": kernel[:1], f"{name}.variance": kernel[:1]}
    return trained, averages


class State(NamedTuple):
    """What changes in a training: weights, running averages, the two moments of the optimizer, steps so far."""

    trained: Arrays
    averages: Arrays
    first: Arrays
    second: Arrays
    steps: Any


def _to_inside(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A weight as the program has it: [out, taps, in] for kernels, filled up with zeros; all zeros if it is empty."""
    if not weight.size:
        return np.zeros(shape, np.float32)
    if weight.ndim == 4:
        weight = weight.transpose(3, 0, 1, 2).reshape(weight.shape[3], -1, weight.shape[2])
        if weight.shape[1] < shape[1]:
            weight = np.pad(weight, ((0, 0), (TAPS // 2, TAPS // 2), (0, 0)))  # at the centre
    return np.pad(weight, [(0, n - m) for n, m in zip(shape, weight.shape)])


def begin(program: Program, weights: Weights) -> State:
    """The state before the first step, with the weights (``cell_layers.initial_weights``) of a cell's network."""

    def inside(shapes: dict[str, tuple]) -> Arrays:
        nothing = np.zeros(0, np.float32)
        return {name: _to_inside(weights.get(name, nothing), shape) for name, shape in shapes.items()}

    trained, averages = map(inside, array_shapes(program))
    first, second = ({name: np.zeros_like(a) for name, a in trained.items()} for _ in range(2))
    return State(trained, averages, first, second, np.zeros((), np.int32))


def weights_of(state: State, like: Weights) -> Weights:
    """The weights in a state, in the shapes of ``like``: the inverse of ``begin``."""
    weights = {}
    for name, model in like.items():
        inside = np.asarray((state.trained | state.averages)[name])
        if model.ndim == 4:
            side, _, channels_in, channels_out = model.shape
            if side == 1:
                inside = inside[:, inside.shape[1] // 2][:, None]
            inside = inside[:channels_out, :, :channels_in]
            weights[name] = inside.reshape(channels_out, side, side, channels_in).transpose(1, 2, 3, 0).copy()
        else:
            weights[name] = inside[tuple(slice(0, n) for n in model.shape)].copy()
    return weights


# --- the network ------------------------------------------------------------------------------


def logits(
    program: Program, share: int, graph: Graph, trained: Arrays, averages: Arrays, images: Array, training: bool
) -> tuple[Array, Arrays]:
    """Scores of images, and in training the means and variances of the batch.

    Parameters
    ----------
    share : int
        Static: 1 for all widths; n where n vertices at least share the output's channels, and the arrays are so narrow.
    trained, averages : dict of arrays
        As in ``State``.
    images : float32 [number, size, size, colours]
        Normalised.

    Returns
    -------
    float32 [classes, number]
    dict of arrays, named as ``averages``
    """
    shape, seen = program.shape, {}

    def apply(name: str, kinds: tuple[int, ...], kind: Array, x: Array) -> Array:
        weights = [trained[f"{name}.{part}"] for part in ("kernel", "gamma", "beta")]
        if not training:
            running = [averages[f"{name}.{part}"] for part in ("mean", "variance")]
            return layer_outside_training(kinds, program.epsilon, kind, x, *weights, *running)
        y, seen[f"{name}.mean"], seen[f"{name}.variance"] = layer(kinds, program.epsilon, kind, x, *weights)
        return y

    x = apply("stem", STEM_KINDS, jnp.zeros((), jnp.int32), images.transpose(3, 1, 2, 0))
    widths, stack_before = _widths(shape, share), 0
    for name, _, stack in shape.cells():
        if stack != stack_before:
            x, stack_before = pool2(x), stack
        x = _cell(name, graph, stack, (widths[stack], shape.width(stack)), x, apply)
    return trained["head.kernel"].T @ x.mean((1, 2)) + trained["head.bias"][:, None], seen


def _cell(name: str, graph: Graph, stack: int, widths: tuple[int, int], x: Array, apply: Callable) -> Array:
    """The output [channels, ...] of one cell; ``widths``: of inner vertices and of the output."""
    width, channels = widths
    inner = len(graph.operations)
    output = jnp.zeros((channels + width, *x.shape[1:]), x.dtype)  # beyond the channels: where the rest may go
    results = []
    for y in range(inner):
        total = apply(input_name(name, y + 1), INPUT_KINDS, graph.without_input[y], x)
        for source in range(y):
            total = total + results[source] * column(graph.edges[source, y] * graph.kept[stack][y, :width])
        results.append(apply(vertex_name(name, y + 1), VERTEX_KINDS, graph.operations[y], total))
        # in rising order, so that what is written beyond a vertex's own channels is overwritten by the next
        output = lax.dynamic_update_slice(output, results[-1], (graph.places[stack][y], 0, 0, 0))
    return output[:channels] + apply(input_name(name, inner + 1), INPUT_KINDS, graph.without_input[inner], x)


# --- training ---------------------------------------------------------------------------------


class Images(NamedTuple):
    """Data on the device: training images, and those to evaluate on, filled up to whole batches with label -1."""

    train: Array
    train_labels: Array
    judged: Array
    judged_labels: Array
    scale: Array
    shift: Array


class Order(NamedTuple):
    """What one epoch draws: which images [steps, batch], how they are moved and mirrored, the rate of each step."""

    chosen: np.ndarray
    moved: np.ndarray  # int32 [steps, batch, 2], 0..2 crop
    mirrored: np.ndarray  # bool [steps, batch]
    rates: np.ndarray  # float32 [steps]


def _augmented(program: Program, images: Array, moved: Array, mirrored: Array) -> Array:
    """Images [number, size, size, colours], each cut out of its border at its own place, and mirrored."""
    size, colours = program.shape.size, program.shape.colours
    if program.crop:
        border = ((0, 0), (program.crop,) * 2, (program.crop,) * 2, (0, 0))

        def window(image: Array, corner: Array) -> Array:
            return lax.dynamic_slice(image, (corner[0], corner[1], 0), (size, size, colours))

        images = jax.vmap(window)(jnp.pad(images, border), moved)
    if program.flip:
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return images


def update(
    program: Program, rate: Array, steps: Array, gradient: Array, values: Array, first: Array, second: Array
) -> tuple[Array, Array, Array]:
    """Values and moments after a step of the optimizer, as Keras makes it; ``steps`` counts this one."""
    gradient = gradient + program.weight_decay * values
    if program.optimizer == "adam":
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient * gradient
        time = steps.astype(jnp.float32)
        rate = rate * jnp.sqrt(1 - 0.999**time) / (1 - 0.9**time)
        return values - rate * first / (jnp.sqrt(second) + 1e-7), first, second
    second = 0.9 * second + 0.1 * gradient * gradient
    first = 0.9 * first + rate * gradient * lax.rsqrt(second + program.rmsprop_epsilon)
    return values - first, first, second


def loss(program: Program, share: int, graph: Graph, trained: Arrays, averages: Arrays, images: Array, labels: Array):
    """Mean cross entropy of a batch, and its means and variances."""
    scores, seen = logits(program, share, graph, trained, averages, images, True)
    scores = scores - jax.nn.logsumexp(scores, axis=0)
    return -jnp.take_along_axis(scores, labels[None], axis=0).mean(), seen


def _epoch(program: Program, share: int, state: State, graph: Graph, data: Images, order: Order, batches: Array):
    """``epoch`` for one width; the state has that width."""
    flat, unflat = ravel_pytree(state.trained)  # one long vector, so that the optimizer is one loop
    averages, unflat_averages = ravel_pytree(state.averages)
    moments = ravel_pytree(state.first)[0], ravel_pytree(state.second)[0]

    def step(carry, drawn: Order):
        values, averages, (first, second), steps = carry
        images = data.train[drawn.chosen].astype(jnp.float32) * data.scale + data.shift
        images = _augmented(program, images, drawn.moved, drawn.mirrored)
        wanted = partial(loss, program, share, graph)
        labels = data.train_labels[drawn.chosen]
        (value, seen), gradient = jax.value_and_grad(wanted, has_aux=True)(
            unflat(values), unflat_averages(averages), images, labels
        )
        gradient, seen = ravel_pytree(gradient)[0], ravel_pytree(seen)[0]
        if program.weight_decay:  # what the optimizer adds to the gradient is the gradient of this
            value = value + 0.5 * program.weight_decay * (values * values).sum()
        values, *both = update(program, drawn.rates, steps + 1, gradient, values, first, second)
        averages = program.momentum * averages + (1 - program.momentum) * seen
        return (values, averages, tuple(both), steps + 1), value

    (flat, averages, moments, steps), losses = lax.scan(step, (flat, averages, moments, state.steps), order)
    finite = jnp.isfinite(flat).all() & jnp.isfinite(averages).all()
    state = State(unflat(flat), unflat_averages(averages), unflat(moments[0]), unflat(moments[1]), steps)
    right = _judge(program, share, graph, state, data, batches)
    return state, jnp.where(finite, losses.mean(), jnp.nan), right


def _judge(program: Program, share: int, graph: Graph, state: State, data: Images, batches: Array) -> Array:
    """How many images are named rightly in each of the first ``batches`` batches."""

    def evaluate(i: Array, right: Array) -> Array:
        images, labels = (
            lax.dynamic_slice_in_dim(a, i * program.batch, program.batch) for a in (data.judged, data.judged_labels)
        )
        images = images.astype(jnp.float32) * data.scale + data.shift
        scores, _ = logits(program, share, graph, state.trained, state.averages, images, False)
        return right.at[i].set((scores.argmax(0) == labels).sum())

    return lax.fori_loop(0, batches, evaluate, jnp.zeros(len(data.judged) // program.batch, jnp.int32))


def epoch(program: Program, state: State, graph: Graph, variant: Array, data: Images, order: Order, batches: Array):
    """Train for one epoch and evaluate.

    Parameters
    ----------
    program : Program
        Static; all others are arrays.
    state : State
    graph : Graph
        Of ``graph``.
    variant : int32
        Of ``variant``; 0 does for all cells.
    data : Images
    order : Order
    batches : int32
        How many batches of ``data.judged`` to evaluate.

    Returns
    -------
    state : State
    loss : float32
        The mean of the epoch; NaN if any weight is not finite after it.
    right : int32 [batches of ``data.judged``]
        Images named rightly, in each batch.
    """

    def run(share: int, state: State, *inputs: Any):
        narrow, wide = array_shapes(program, share), array_shapes(program, 1)
        state, value, right = _epoch(program, share, resized(state, narrow), *inputs)
        return resized(state, wide), value, right

    variants = [partial(run, share) for share in range(1, min(SHARES, max(program.inner, 1)) + 1)]
    return lax.switch(variant, variants, state, graph, data, order, batches)


def resized(state: State, shapes: tuple[dict[str, tuple], dict[str, tuple]]) -> State:
    """The state with every array cut, or filled with zeros, to a shape."""

    def fit(arrays: Arrays, shapes: dict[str, tuple]) -> Arrays:
        cut = {name: a[tuple(slice(0, n) for n in shapes[name])] for name, a in arrays.items()}
        return {name: jnp.pad(a, [(0, n - m) for n, m in zip(shapes[name], a.shape)]) for name, a in cut.items()}

    trained, averages = shapes
    return State(
        fit(state.trained, trained),
        fit(state.averages, averages),
        fit(state.first, trained),
        fit(state.second, trained),
        state.steps,
    )


@lru_cache(maxsize=None)
def compiled(program: Program) -> Callable:
    """``epoch`` for a program, compiled at its first call for each shape of data."""
    return jax.jit(partial(epoch, program), donate_argnums=0)
