"""The network of a cell as a Keras model: for files, for large networks, and to check the compiled program against.

Keras is imported here and in ``meta_dnn`` only, with the backend that ``keras_backend`` finds.
"""

from functools import partial

import numpy as np

from cell_layers import Cell, NetworkShape, Weights, check_channels, input_name, vertex_name
from keras_backend import load_keras
from nasbench_dataset import cells

keras = load_keras()


def build(
    cell: Cell,
    shape: NetworkShape,
    weights: Weights,
    momentum: float = 0.997,
    epsilon: float = 1e-5,
    weight_decay: float = 0.0,
) -> keras.Model:
    """The model of a cell without dangling vertices; images (normalised) to logits.

    Parameters
    ----------
    cell : (operations, edges)
    shape : NetworkShape
    weights : dict of arrays
        ``cell_layers.initial_weights``, or those of a training.
    momentum, epsilon : float
        Of batch normalisation.
    weight_decay : float
        Half of it times the squares of all trainable weights is added to the loss.

    Raises
    ------
    InputError
        If there are too few channels for the cell.
    """
    check_channels(cell, shape)
    regularizer = keras.regularizers.L2(weight_decay / 2) if weight_decay else None

    convolution = partial(_convolution, momentum, epsilon, regularizer)
    inputs = keras.Input((shape.size, shape.size, shape.colours), name="images")
    x = convolution("stem", 3, shape.channels, inputs)
    stack_before = 0
    for name, channels_in, stack in shape.cells():
        if stack != stack_before:
            x, stack_before = keras.layers.MaxPooling2D(2, padding="same", name=f"pool{stack}")(x), stack
        channels = cells.vertex_channels(cell[1], len(cell[0]) + 2, channels_in, shape.width(stack))
        x = _cell(name, cell, channels, x, convolution)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    head = keras.layers.Dense(
        shape.classes,
        name="head",
        kernel_initializer="zeros",
        kernel_regularizer=regularizer,
        bias_regularizer=regularizer,
    )
    model = keras.Model(inputs, head(x))
    for name, variable in variables(model).items():
        variable.assign(weights[name])
    return model


def for_images(model: keras.Model, scaling: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    """The same model, from images as they are (``images * scale + shift`` is what it had) to probabilities."""
    scale, shift = (values.astype(np.float64) for values in scaling)
    inputs = keras.Input(model.input_shape[1:], name="images")
    normalised = keras.layers.Normalization(mean=-shift / scale, variance=scale**-2.0, name="normalised")(inputs)
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(model(normalised)))


def _convolution(momentum: float, epsilon: float, regularizer, name: str, kernel: int, channels: int, x):
    """A convolution of x without bias, its batch normalisation, and ReLU."""
    x = keras.layers.Conv2D(
        channels,
        kernel,
        padding="same",
        use_bias=False,
        name=name,
        kernel_initializer="zeros",  # given by ``build``; Keras would compile an initializer for every shape
        kernel_regularizer=regularizer,
    )(x)
    x = keras.layers.BatchNormalization(
        momentum=momentum,
        epsilon=epsilon,
        name=f"{name}_norm",
        gamma_regularizer=regularizer,
        beta_regularizer=regularizer,
    )(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _cell(name: str, cell: Cell, channels: list[int], x, convolution):
    """The output of one cell; ``channels`` of every vertex."""
    operations, edges = cell
    output = len(operations) + 1
    results = [x]
    for y in range(1, output):
        sources = [v for v in range(y) if edges & cells.edge_bit(v, y)]
        terms = [
            convolution(input_name(name, y), 1, channels[y], x)
            if v == 0
            else (results[v] if channels[v] == channels[y] else results[v][..., : channels[y]])
            for v in sources
        ]
        total = keras.layers.Add(name=f"{name}_sum_{y}")(terms) if len(terms) > 1 else terms[0]
        operation = operations[y - 1]
        if operation == cells.MAXPOOL3X3:
            pooling = keras.layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool_{y}")
            results.append(pooling(total))
        else:
            kernel = 3 if operation == cells.CONV3X3 else 1
            results.append(convolution(vertex_name(name, y), kernel, channels[y], total))
    fed = [results[v] for v in range(1, output) if edges & cells.edge_bit(v, output)]
    joined = fed[0] if len(fed) == 1 else keras.layers.Concatenate(name=f"{name}_join")(fed) if fed else None
    if not edges & cells.edge_bit(0, output):
        return joined
    direct = convolution(input_name(name, output), 1, channels[output], x)
    return direct if joined is None else keras.layers.Add(name=f"{name}_sum_{output}")([joined, direct])


def variables(model: keras.Model) -> dict[str, "keras.Variable"]:
    """Every weight under its name in ``cell_layers``."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            name = layer.name.removesuffix("_norm")
            parts = layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance
            found |= {f"{name}.{part}": v for part, v in zip(("gamma", "beta", "mean", "variance"), parts)}
        elif isinstance(layer, keras.layers.Conv2D):
            found[f"{layer.name}.kernel"] = layer.kernel
        elif isinstance(layer, keras.layers.Dense):
            found |= {f"{layer.name}.kernel": layer.kernel, f"{layer.name}.bias": layer.bias}
    return found


def get_weights(model: keras.Model) -> Weights:
    """The weights of a model, under the names of ``cell_layers``."""
    return {name: np.array(keras.ops.convert_to_numpy(v)) for name, v in variables(model).items()}
