"""The network of a cell: parameters, the Keras model against plain numpy, the compiled program against the model."""

import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import measured_cells

import cell_network
import cell_program
from cell_layers import NetworkShape, initial_weights, parameter_count
from nasbench_dataset import InputError, cells

keras = cell_network.keras
TARGET_7 = (1, 0, 2, 0, 0), sum(
    cells.edge_bit(*e) for e in [(0, 1), (0, 2), (0, 5), (0, 6), (1, 5), (2, 3), (3, 4), (4, 5), (5, 6)]
)
SHAPE = NetworkShape(size=7, colours=2, classes=3, channels=5, stacks=2, cells_per_stack=1)  # nothing is even
IMAGES = 6


def some_cells(count: int, seed: int, vertices: tuple[int, ...] = (7, 6, 5, 4, 3, 2)) -> list:
    """Random cells of these vertex counts in turn."""
    rng = random.Random(seed)
    counts = [vertices[i % len(vertices)] for i in range(count)]
    return [cells.cell(rng.randrange(cells.first_index(v), cells.cell_count(v))) for v in counts]


def random_weights(cell, shape: NetworkShape, rng: np.random.Generator) -> dict:
    """Weights in which nothing is 0 or 1 by chance of the beginning."""
    weights = initial_weights(cell, shape, rng)
    for name, values in weights.items():
        if name.endswith(("gamma", "variance")):
            weights[name] = rng.uniform(0.5, 1.5, values.shape).astype(np.float32)
        elif not name.endswith("kernel"):
            weights[name] = rng.normal(0, 0.3, values.shape).astype(np.float32)
    return weights


# --- an independent version, in plain numpy ---------------------------------------------------


def plain_convolution(x, kernel):
    side = kernel.shape[0] // 2
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    result = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            result += padded[:, i : i + height, j : j + width] @ kernel[i, j]
    return result


def plain_layer(x, weights, name):
    z = plain_convolution(x, weights[f"{name}.kernel"])
    z = (z - weights[f"{name}.mean"]) / np.sqrt(weights[f"{name}.variance"] + 1e-5)
    return np.maximum(z * weights[f"{name}.gamma"] + weights[f"{name}.beta"], 0)


def plain_pool(x, size, stride, before):
    result = np.zeros((len(x), -(-x.shape[1] // stride), -(-x.shape[2] // stride), x.shape[3]))
    for i in range(result.shape[1]):
        for j in range(result.shape[2]):
            top, left = i * stride - before, j * stride - before
            result[:, i, j] = x[:, max(top, 0) : top + size, max(left, 0) : left + size].max(axis=(1, 2))
    return result


def plain_cell(x, cell, weights, prefix, channels_out):
    """As NAS-Bench-101's code words it: a tensor for every vertex, in order."""
    operations, edges = cell
    matrix = np.array(cells.to_dict(operations, edges)["adj_mat"])
    last = len(matrix) - 1
    channels = cells.vertex_channels(edges, len(matrix), x.shape[3], channels_out)
    tensors = [x]
    for t in range(1, last):
        fan_in = [tensors[s][..., : channels[t]] for s in range(1, t) if matrix[s, t]]
        if matrix[0, t]:
            fan_in.append(plain_layer(x, weights, f"{prefix}_input_to_{t}"))
        total = np.sum(fan_in, axis=0)
        if operations[t - 1] == cells.MAXPOOL3X3:
            tensors.append(plain_pool(total, 3, 1, 1))
        else:
            tensors.append(plain_layer(total, weights, f"{prefix}_vertex_{t}"))
    parts = [tensors[s] for s in range(1, last) if matrix[s, last]]
    result = np.concatenate(parts, axis=3) if parts else 0
    return result + plain_layer(x, weights, f"{prefix}_input_to_{last}") if matrix[0, last] else result


def plain_network(x, cell, shape, weights):
    x = plain_layer(x, weights, "stem")
    for stack in range(shape.stacks):
        x = plain_pool(x, 2, 2, 0) if stack else x
        for place in range(shape.cells_per_stack):
            x = plain_cell(x, cell, weights, f"stack{stack}_cell{place}", shape.channels << stack)
    return x.mean(axis=(1, 2)) @ weights["head.kernel"] + weights["head.bias"]


# --- parameters -------------------------------------------------------------------------------


def test_parameters_are_the_published_ones(measured):
    path = measured / "nasbench101_measured_20k.npz"
    published = np.load(path)["trainable_parameters"]
    chosen = random.Random(0).sample(range(len(published)), 1_000)
    every = measured_cells(path)
    assert [parameter_count(every[i], NetworkShape()) for i in chosen] == published[chosen].tolist()


def test_the_full_size_model_of_the_target_has_the_published_parameters():
    weights = initial_weights(TARGET_7, NetworkShape(), np.random.default_rng(0))
    model = cell_network.build(TARGET_7, NetworkShape(), weights)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 32_426_634
    assert parameter_count(TARGET_7, NetworkShape()) == 32_426_634


def test_a_model_has_as_many_parameters_as_are_counted():
    for cell in some_cells(2, seed=1, vertices=(7, 4)):
        model = cell_network.build(cell, SHAPE, initial_weights(cell, SHAPE, np.random.default_rng(0)))
        assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameter_count(cell, SHAPE)


# --- forward passes ---------------------------------------------------------------------------


@pytest.mark.parametrize("cell", some_cells(6, seed=2))
def test_the_model_computes_what_plain_numpy_computes(cell):
    rng = np.random.default_rng(3)
    shape = NetworkShape(size=7, colours=2, classes=3, channels=5, stacks=2, cells_per_stack=2)
    weights = random_weights(cell, shape, rng)
    images = rng.normal(size=(IMAGES, 7, 7, 2)).astype(np.float32)
    model = cell_network.build(cell, shape, weights)
    got = keras.ops.convert_to_numpy(model(images, training=False))
    np.testing.assert_allclose(got, plain_network(images.astype(float), cell, shape, weights), atol=2e-4)


def test_a_saved_model_computes_the_same_when_it_is_read_again(tmp_path):
    rng = np.random.default_rng(4)
    truncating = (1, 0), sum(cells.edge_bit(*e) for e in [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)])
    model = cell_network.build(truncating, SHAPE, random_weights(truncating, SHAPE, rng))
    model.save(tmp_path / "cell.keras")
    again = keras.models.load_model(tmp_path / "cell.keras", safe_mode=True)
    images = rng.normal(size=(IMAGES, 7, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(again(images, training=False), model(images, training=False))


def test_weights_come_back_out_of_a_model():
    cell = some_cells(1, seed=5)[0]
    weights = random_weights(cell, SHAPE, np.random.default_rng(0))
    back = cell_network.get_weights(cell_network.build(cell, SHAPE, weights))
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_too_few_channels_for_the_vertices_that_feed_the_output_are_refused():
    three = (0, 0, 0), sum(cells.edge_bit(*e) for e in [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)])
    with pytest.raises(InputError, match="2 channels cannot be shared by the 3 vertices"):
        cell_network.build(three, NetworkShape(channels=2), {})


def test_images_too_small_to_be_halved_that_often_are_refused():
    with pytest.raises(InputError, match="images of 3 x 3 pixels cannot be halved 2 times"):
        NetworkShape(size=3, stacks=3)


# --- the compiled program against the model ---------------------------------------------------

ONE_STACK = NetworkShape(size=5, colours=2, classes=3, channels=5, stacks=1, cells_per_stack=1)  # two: test_training
QUICK = {"xla_backend_optimization_level": 0}  # what is compiled runs once


COMPILED = {}  # by program and width


def of_program(cell, weights: dict, images: np.ndarray, labels: np.ndarray):
    """Logits, loss and gradients by the program, which is compiled once for a vertex count and width."""
    program = cell_program.Program(ONE_STACK, len(cell[0]) + 2, IMAGES)
    share = cell_program.variant(cell) + 1
    state = cell_program.resized(cell_program.begin(program, weights), cell_program.array_shapes(program, share))
    arrays = state.trained, state.averages, cell_program.graph(cell, ONE_STACK), images, labels

    def both(trained, averages, graph, images, labels):
        scores, _ = cell_program.logits(program, share, graph, trained, averages, images, False)
        loss = partial(cell_program.loss, program, share, graph)
        return scores.T, *jax.value_and_grad(loss, has_aux=True)(trained, averages, images, labels)

    if (program, share) not in COMPILED:
        COMPILED[program, share] = jax.jit(both).lower(*arrays).compile(QUICK)
    scores, (loss, _), gradient = COMPILED[program, share](*arrays)
    return scores, loss, gradient, cell_program.weights_of(state._replace(trained=gradient), weights)


def of_model(cell, weights: dict, images: np.ndarray, labels: np.ndarray):
    """Logits, loss and gradients by the Keras model."""
    model = cell_network.build(cell, ONE_STACK, weights)
    trained = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]

    def both(trained, images, labels):
        def loss(trained):
            scores, _ = model.stateless_call(trained, others, images, training=True)
            return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1).mean()

        return model.stateless_call(trained, others, images, training=False)[0], *jax.value_and_grad(loss)(trained)

    arrays = trained, images, labels
    scores, loss, gradient = jax.jit(both).lower(*arrays).compile(QUICK)(*arrays)
    places = {id(v): g for v, g in zip(model.trainable_variables, gradient)}
    named = {name: places[id(v)] for name, v in cell_network.variables(model).items() if id(v) in places}
    return scores, loss, named


@pytest.mark.parametrize("cell", some_cells(5, seed=6, vertices=(7, *[5] * 4)))
def test_logits_and_gradients_of_the_program_are_those_of_the_model(cell):
    rng = np.random.default_rng(7)
    weights = random_weights(cell, ONE_STACK, rng)
    images = rng.normal(size=(IMAGES, ONE_STACK.size, ONE_STACK.size, ONE_STACK.colours)).astype(np.float32)
    labels = rng.integers(0, ONE_STACK.classes, IMAGES).astype(np.int32)
    scores, loss, every, gradient = of_program(cell, weights, images, labels)
    model_scores, model_loss, model_gradient = of_model(cell, weights, images, labels)
    np.testing.assert_allclose(scores, model_scores, atol=1e-4)
    np.testing.assert_allclose(loss, model_loss, atol=1e-5)
    for name, values in model_gradient.items():
        np.testing.assert_allclose(gradient[name], values, atol=1e-4, err_msg=name)
    # what the cell does not have gets no gradient, so it stays 0
    inside = sum(float(np.abs(gradient[name]).sum()) for name in model_gradient)
    np.testing.assert_allclose(sum(float(np.abs(g).sum()) for g in every.values()), inside, rtol=1e-5)


def test_weights_come_back_out_of_the_program():
    cell = some_cells(1, seed=10)[0]
    weights = random_weights(cell, SHAPE, np.random.default_rng(0))
    state = cell_program.begin(cell_program.Program(SHAPE, len(cell[0]) + 2, IMAGES), weights)
    back = cell_program.weights_of(state, weights)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_several_cells_at_once_train_as_one_by_one():
    shape = NetworkShape(size=4, colours=1, classes=3, channels=4, stacks=1, cells_per_stack=1)
    program = cell_program.Program(shape, 3, 8)
    rng = np.random.default_rng(11)
    images = rng.integers(0, 256, (16, 4, 4, 1)).astype(np.uint8)
    labels = rng.integers(0, 3, 16).astype(np.int32)
    data = cell_program.Images(images, labels, images, labels, np.ones(1, np.float32) / 255, np.zeros(1, np.float32))
    order = cell_program.Order(
        np.arange(16, dtype=np.int32).reshape(2, 8),
        np.zeros((2, 8, 2), np.int32),
        np.zeros((2, 8), bool),
        np.full(2, 0.01, np.float32),
    )
    some = [cells.cell(i) for i in (1, 3, 5)]
    states = [cell_program.begin(program, initial_weights(cell, shape, rng)) for cell in some]
    graphs = [cell_program.graph(cell, shape) for cell in some]
    stacked = [jax.tree.map(lambda *arrays: np.stack(arrays), *trees) for trees in (states, graphs)]
    train = partial(cell_program.epoch, program)
    rest = np.int32(0), data, order, np.int32(2)
    together = jax.jit(jax.vmap(train, in_axes=(0, 0, None, None, None, None)))
    at_once = together.lower(*stacked, *rest).compile(QUICK)(*stacked, *rest)
    one = jax.jit(train).lower(states[0], graphs[0], *rest).compile(QUICK)
    for i, (state, graph) in enumerate(zip(states, graphs)):
        alone = one(state, graph, *rest)
        for mine, ours in zip(jax.tree.leaves(alone), jax.tree.leaves(at_once)):
            np.testing.assert_allclose(ours[i], mine, atol=1e-5)
