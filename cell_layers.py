"""The layers of the network that is built of a cell, and their first weights: numbers and names, no Keras, no JAX.

NAS-Bench-101's network (Ying et al. 2019, section 2.1 and its code): a 3x3 convolution (the stem), then stacks of equal
cells, with a 2x2 max-pooling of stride 2 and twice the channels from stack to stack, global average pooling, a dense
layer. Every convolution is without bias and followed by batch normalisation and ReLU. In a cell

- every edge from ``input`` is a 1x1 convolution;
- a vertex adds what comes in, each cut to its own channels, and applies its operation;
- what feeds ``output`` is concatenated; an edge from ``input`` to ``output`` is added to that.

Weights are a dict from names to float32 arrays: ``<layer>.kernel`` (height, width, channels in, channels out),
``.gamma``, ``.beta``, ``.mean``, ``.variance`` (channels out), and ``head.kernel`` (channels, classes), ``head.bias``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nasbench_dataset import InputError, cells

Cell = tuple[cells.Operations, int]
Weights = dict[str, np.ndarray]
KERNELS = {cells.CONV3X3: 3, cells.CONV1X1: 1}  # the operations that are convolutions


@dataclass(frozen=True)
class NetworkShape:
    """All that decides about a network besides its cell; by default as in NAS-Bench-101.

    Attributes
    ----------
    size, colours : int
        Pixels of a side of the (square) images, and their channels.
    classes : int
    channels : int
        Of the stem and the first stack.
    stacks, cells_per_stack : int
    """

    size: int = 32
    colours: int = 3
    classes: int = cells.CLASSES
    channels: int = cells.STEM_CHANNELS
    stacks: int = cells.STACKS
    cells_per_stack: int = cells.CELLS_PER_STACK

    def __post_init__(self):
        if self.size < 2 ** (self.stacks - 1):
            raise InputError(
                f"images of {self.size} x {self.size} pixels cannot be halved {self.stacks - 1} times;"
                f" take larger images, or fewer stacks than {self.stacks}"
            )

    def width(self, stack: int) -> int:
        """Output channels of the cells of a stack."""
        return self.channels << stack

    def cells(self) -> list[tuple[str, int, int]]:
        """The name, input channels and stack of every cell."""
        return [
            (f"stack{stack}_cell{place}", self.width(stack - (place == 0 and stack > 0)), stack)
            for stack in range(self.stacks)
            for place in range(self.cells_per_stack)
        ]


class Convolution(NamedTuple):
    """A convolution with its batch normalisation."""

    name: str
    kernel: int
    channels_in: int
    channels_out: int


def input_name(cell: str, vertex: int) -> str:
    """The name of the projection from a cell's input to a vertex."""
    return f"{cell}_input_to_{vertex}"


def vertex_name(cell: str, vertex: int) -> str:
    """The name of the convolution of a vertex."""
    return f"{cell}_vertex_{vertex}"


def convolutions(cell: Cell, shape: NetworkShape) -> list[Convolution]:
    """Every convolution of the network of a cell, from the input on."""
    operations, edges = cell
    vertices = len(operations) + 2
    found = [Convolution("stem", 3, shape.colours, shape.channels)]
    for name, channels_in, stack in shape.cells():
        channels = cells.vertex_channels(edges, vertices, channels_in, shape.width(stack))
        for y in range(1, vertices):
            if edges & cells.edge_bit(0, y):
                found.append(Convolution(input_name(name, y), 1, channels_in, channels[y]))
        for y, operation in enumerate(operations, 1):
            if operation in KERNELS:
                found.append(Convolution(vertex_name(name, y), KERNELS[operation], channels[y], channels[y]))
    return found


def parameter_count(cell: Cell, shape: NetworkShape) -> int:
    """Trainable parameters: kernels, batch normalisations, and the dense layer with its bias."""
    features = shape.width(shape.stacks - 1)
    kernels = sum(c.kernel**2 * c.channels_in * c.channels_out + 2 * c.channels_out for c in convolutions(cell, shape))
    return kernels + (features + 1) * shape.classes


def check_channels(cell: Cell, shape: NetworkShape) -> None:
    """Refuse a network whose output channels do not suffice for all vertices that feed it.

    Raises
    ------
    InputError
    """
    operations, edges = cell
    output = len(operations) + 1
    feeding = sum(edges & cells.edge_bit(x, output) != 0 for x in range(1, output))
    if feeding > shape.channels:
        raise InputError(
            f"{shape.channels} channels cannot be shared by the {feeding} vertices that feed the output of the cell;"
            f" take at least {feeding}"
        )


def initial_weights(cell: Cell, shape: NetworkShape, rng: np.random.Generator) -> Weights:
    """First weights: gamma 1, beta 0, kernels normal of variance 1 / fan-in as in NAS-Bench-101, but not truncated."""
    weights = {}
    for name, kernel, channels_in, channels_out in convolutions(cell, shape):
        deviation = (kernel**2 * channels_in) ** -0.5
        drawn = rng.standard_normal((kernel, kernel, channels_in, channels_out), np.float32)
        weights[f"{name}.kernel"] = drawn * np.float32(deviation)
        for part, value in (("gamma", 1), ("beta", 0), ("mean", 0), ("variance", 1)):
            weights[f"{name}.{part}"] = np.full(channels_out, value, np.float32)
    features = shape.width(shape.stacks - 1)
    drawn = rng.standard_normal((features, shape.classes), np.float32)
    weights["head.kernel"] = drawn * np.float32(features**-0.5)
    weights["head.bias"] = np.zeros(shape.classes, np.float32)
    return weights
