"""One compiled JAX program that trains the network of any cell of a vertex count.

Compiling a network takes longer than training a small one. So the cell is an input of the program, not a part of it:
edges are factors 0 and 1, operations are chosen by ``lax.switch`` (which computes the chosen one only), and channels are
zeros beyond a vertex's own. A weight that a cell does not have is 0 and stays so: its gradient is 0, since what it
would multiply, or what it feeds, is 0. Each vertex count is compiled once, with one variant for cells in which one vertex
feeds the output (and has all channels) and one for those in which several share them, so that the width is halved there.

The program is plain functions of arrays, so that ``jax.vmap`` trains several cells at once on an accelerator. Arrays of
images are [channels, height, width, images] inside, so that neighbouring numbers undergo the same; a 3x3 convolution is
one product of matrices, ten times faster on a CPU than XLA's own convolution of so few channels. The gradients of
convolution, batch normalisation and ReLU together are written out, since those that JAX derives of a ``switch`` would
fill and keep the arrays of all its branches.

What must come out, to rounding, is what Keras computes with the model of ``cell_network``; the tests hold logits,
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
from nasbench_dataset import cells

ABSENT = len(cells.OPERATIONS)  # a projection that the cell does not have
STEM_KINDS = (cells.CONV3X3,)
INPUT_KINDS = (cells.CONV1X1, ABSENT)
VERTEX_KINDS = (cells.CONV3X3, cells.CONV1X1, cells.MAXPOOL3X3)
CENTRE, TAPS = 4, 9  # of a 3x3 kernel
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


# --- convolutions, pooling and their gradients ------------------------------------------------


def _shifted(x: Array) -> Array:
    """[9 channels, pixels]: what each tap of a 3x3 kernel sees of [channels, height, width, images]."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps).reshape(TAPS * len(x), -1)


def _convolve(kind: int, x: Array, kernel: Array) -> Array:
    """A convolution by a kernel [out, taps, in], of 9 taps or 1, for ``kind`` ``CONV1X1`` by the centre only."""
    if kind == cells.CONV1X1:
        z = kernel[:, kernel.shape[1] // 2] @ x.reshape(len(x), -1)
    else:
        z = kernel.reshape(len(kernel), -1) @ _shifted(x)
    return z.reshape(len(kernel), *x.shape[1:])


def _convolve_back(kind: int, x: Array, kernel: Array, dz: Array) -> tuple[Array, Array]:
    """The gradients of ``_convolve`` by x and kernel."""
    pixels, dpixels = x.reshape(len(x), -1), dz.reshape(len(dz), -1)
    if kind == cells.CONV1X1:
        centre = kernel.shape[1] // 2
        dkernel = jnp.zeros_like(kernel).at[:, centre].set(dpixels @ pixels.T)
        return (kernel[:, centre].T @ dpixels).reshape(x.shape), dkernel
    taps = _shifted(dz)  # a pixel went into its nine neighbours, by the taps in reverse
    backward = kernel[:, ::-1].transpose(2, 1, 0).reshape(len(x), -1)
    dkernel = (taps @ pixels.T).reshape(TAPS, len(dz), len(x))[::-1].transpose(1, 0, 2)
    return (backward @ taps).reshape(x.shape), dkernel


def _pool3(x: Array) -> Array:
    """Max-pooling 3x3 of stride 1, first along one side, then along the other."""
    for axis in (1, 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(int(a == axis),) * 2 for a in range(4)], constant_values=-jnp.inf)
        low, here, high = (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        x = jnp.maximum(jnp.maximum(low, here), high)
    return x


def _pool2(x: Array) -> Array:
    """Max-pooling 2x2 of stride 2; where the size is odd, the last pixels stand alone."""
    for axis in (1, 2):
        odd = x.shape[axis] % 2
        x = jnp.pad(x, [(0, odd * (a == axis)) for a in range(4)], constant_values=-jnp.inf)
        x = jnp.maximum(*(lax.slice_in_dim(x, i, x.shape[axis], 2, axis) for i in (0, 1)))
    return x


def _column(values: Array) -> Array:
    """[channels] to multiply or add to [channels, height, width, images]."""
    return values[:, None, None, None]


def _normalised(z: Array, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Batch normalisation and ReLU."""
    return jnp.maximum((z - _column(mean)) * _column(gamma * lax.rsqrt(variance + epsilon)) + _column(beta), 0)


def _choose(kinds: tuple[int, ...], kind: Array, convolution: Callable, others: dict[int, Callable], *inputs: Any):
    """The result of the branch for ``kinds[kind]``; only that is computed."""
    branches = [others.get(k) or partial(convolution, k) for k in kinds]
    return lax.switch(kind, branches, *inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _layer(kinds: tuple[int, ...], epsilon: float, kind: Array, x: Array, kernel: Array, gamma: Array, beta: Array):
    """Convolution, batch normalisation and ReLU; or pooling; or nothing: zeros, where the cell has no such layer.

    Returns the result with the means and variances of the batch (0 and 1 where nothing is normalised).
    """
    return _layer_forward(kinds, epsilon, kind, x, kernel, gamma, beta)[0]


def _layer_forward(kinds, epsilon, kind, x, kernel, gamma, beta):
    zeros, ones = jnp.zeros_like(beta), jnp.ones_like(beta)

    def convolution(operation, x, kernel, gamma, beta):
        z = _convolve(operation, x, kernel)
        mean = z.mean((1, 2, 3))
        variance = jnp.maximum((z * z).mean((1, 2, 3)) - mean * mean, 0)
        return _normalised(z, mean, variance, gamma, beta, epsilon), z, mean, variance

    def pooling(x, kernel, gamma, beta):
        return _pool3(x), jnp.zeros_like(x), zeros, ones

    def absent(x, kernel, gamma, beta):
        nothing = jnp.zeros((len(kernel), *x.shape[1:]), x.dtype)
        return nothing, nothing, zeros, ones

    others = {cells.MAXPOOL3X3: pooling, ABSENT: absent}
    y, z, mean, variance = _choose(kinds, kind, convolution, others, x, kernel, gamma, beta)
    return (y, mean, variance), (kind, x, z, mean, variance, kernel, gamma, beta)


def _layer_backward(kinds, epsilon, kept, gradients):
    kind, *kept = kept

    def convolution(operation, x, z, mean, variance, kernel, gamma, beta, dy):
        deviation = lax.rsqrt(variance + epsilon)
        normal = (z - _column(mean)) * _column(deviation)
        dy = jnp.where(normal * _column(gamma) + _column(beta) > 0, dy, 0)
        dbeta, dgamma = dy.sum((1, 2, 3)), (dy * normal).sum((1, 2, 3))
        pixels = z[0].size
        dz = _column(gamma * deviation) * (dy - (_column(dbeta) + normal * _column(dgamma)) / pixels)
        return *_convolve_back(operation, x, kernel, dz), dgamma, dbeta

    def pooling(x, z, mean, variance, kernel, gamma, beta, dy):
        return jax.vjp(_pool3, x)[1](dy)[0], jnp.zeros_like(kernel), jnp.zeros_like(gamma), jnp.zeros_like(beta)

    def absent(x, z, mean, variance, kernel, gamma, beta, dy):
        return jnp.zeros_like(x), jnp.zeros_like(kernel), jnp.zeros_like(gamma), jnp.zeros_like(beta)

    others = {cells.MAXPOOL3X3: pooling, ABSENT: absent}
    return None, *_choose(kinds, kind, convolution, others, *kept, gradients[0])


_layer.defvjp(_layer_forward, _layer_backward)


def _layer_outside_training(kinds, epsilon, kind, x, kernel, gamma, beta, mean, variance) -> Array:
    """``_layer`` with running means and variances."""

    def convolution(operation):
        return _normalised(_convolve(operation, x, kernel), mean, variance, gamma, beta, epsilon)

    def absent():
        return jnp.zeros((len(kernel), *x.shape[1:]), x.dtype)

    return _choose(kinds, kind, convolution, {cells.MAXPOOL3X3: lambda: _pool3(x), ABSENT: absent})


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
    inner = matrix[1:-1, 1:-1].astype(np.float32)
    return Graph(np.array(operations, np.int32), (1 - matrix[0, 1:]).astype(np.int32), inner, tuple(kept), tuple(places))


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
    """What changes while a network is trained: weights, running averages, two moments of the optimizer, steps so far."""

    trained: Arrays
    averages: Arrays
    first: Arrays
    second: Arrays
    steps: Any


def _to_inside(name: str, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A weight as the program has it: [out, taps, in] for kernels, filled up with zeros."""
    if weight.ndim == 4:
        weight = weight.transpose(3, 0, 1, 2).reshape(weight.shape[3], -1, weight.shape[2])
        if weight.shape[1] < shape[1]:
            weight = np.pad(weight, ((0, 0), (CENTRE, CENTRE), (0, 0)))
    return np.pad(weight, [(0, n - m) for n, m in zip(shape, weight.shape)])


def begin(program: Program, weights: Weights) -> State:
    """The state before the first step, with the weights (``cell_layers.initial_weights``) of a cell's network."""
    trained, averages = (
        {name: _to_inside(name, weights[name], s) if name in weights else np.zeros(s, np.float32) for name, s in shapes.items()}
        for shapes in array_shapes(program, 1)
    )
    nothing = {name: np.zeros_like(a) for name, a in trained.items()}
    return State(trained, averages, nothing, {name: a.copy() for name, a in nothing.items()}, np.zeros((), np.int32))


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


def logits(program: Program, share: int, graph: Graph, trained: Arrays, averages: Arrays, images: Array, training: bool):
    """Scores [classes, images] of images [number, size, size, colours], and the means and variances of the batch."""
    shape, seen = program.shape, {}

    def layer(name: str, kinds: tuple[int, ...], kind: Array, x: Array) -> Array:
        weights = [trained[f"{name}.{part}"] for part in ("kernel", "gamma", "beta")]
        running = [averages[f"{name}.{part}"] for part in ("mean", "variance")]
        if not training:
            return _layer_outside_training(kinds, program.epsilon, kind, x, *weights, *running)
        y, seen[f"{name}.mean"], seen[f"{name}.variance"] = _layer(kinds, program.epsilon, kind, x, *weights)
        return y

    x = layer("stem", STEM_KINDS, jnp.zeros((), jnp.int32), images.transpose(3, 1, 2, 0))
    widths, stack_before = _widths(shape, share), 0
    for name, _, stack in shape.cells():
        if stack != stack_before:
            x, stack_before = _pool2(x), stack
        x = _cell(name, graph, stack, (widths[stack], shape.width(stack)), x, layer)
    return trained["head.kernel"].T @ x.mean((1, 2)) + trained["head.bias"][:, None], seen


def _cell(name: str, graph: Graph, stack: int, widths: tuple[int, int], x: Array, layer: Callable) -> Array:
    """The output [channels, ...] of one cell; ``widths``: of inner vertices and of the output."""
    width, channels = widths
    inner = len(graph.operations)
    output = jnp.zeros((channels + width, *x.shape[1:]), x.dtype)  # beyond the channels: where the rest may go
    results = []
    for y in range(inner):
        total = layer(input_name(name, y + 1), INPUT_KINDS, graph.without_input[y], x)
        for source in range(y):
            total = total + results[source] * _column(graph.edges[source, y] * graph.kept[stack][y, :width])
        results.append(layer(vertex_name(name, y + 1), VERTEX_KINDS, graph.operations[y], total))
        # in rising order, so that what is written beyond a vertex's own channels is overwritten by the next
        output = lax.dynamic_update_slice(output, results[-1], (graph.places[stack][y], 0, 0, 0))
    return output[:channels] + layer(input_name(name, inner + 1), INPUT_KINDS, graph.without_input[inner], x)


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


def _update(program: Program, rate: Array, steps: Array, gradient: Array, values: Array, first: Array, second: Array):
    """One step of the optimizer, as Keras makes it; ``steps`` counts this one."""
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
        values, *both = _update(program, drawn.rates, steps + 1, gradient, values, first, second)
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
        state, value, right = _epoch(program, share, _resized(state, narrow), *inputs)
        return _resized(state, wide), value, right

    variants = [partial(run, share) for share in range(1, min(SHARES, max(program.inner, 1)) + 1)]
    return lax.switch(variant, variants, state, graph, data, order, batches)


def _resized(state: State, shapes: tuple[dict[str, tuple], dict[str, tuple]]) -> State:
    """The state with every array cut, or filled with zeros, to a shape."""

    def resized(arrays: Arrays, shapes: dict[str, tuple]) -> Arrays:
        cut = {name: a[tuple(slice(0, n) for n in shapes[name])] for name, a in arrays.items()}
        return {name: jnp.pad(a, [(0, n - m) for n, m in zip(shapes[name], a.shape)]) for name, a in cut.items()}

    trained, averages = shapes
    some = (resized(arrays, trained) for arrays in (state.trained, state.first, state.second))
    trained_arrays, first, second = some
    return State(trained_arrays, resized(state.averages, averages), first, second, state.steps)


@lru_cache(maxsize=None)
def compiled(program: Program) -> Callable:
    """``epoch`` for a program, compiled at its first call for each shape of data."""
    return jax.jit(partial(epoch, program), donate_argnums=0)
