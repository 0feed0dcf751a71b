"""The AlphaX-1 network (Wang et al., arXiv 1903.11059) as a Keras model, built from its description.

A description is a small JSON file: the genotype (what is connected in a cell and by which operation)
and the network's size. The genotype of AlphaX-1 itself stands only in its authors' weights file;
convert.py reads it from there.

    stem -> cell 0 -> ... -> cell layers-1 -> global average pool -> linear -> logits
                 \\-> auxiliary head, behind the second reduction, in training only

Every cell takes the outputs of the two cells before it.
"""

import contextlib
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from backend import keras
from files import Problem, open_file, reason, replacing
from operations import CONVOLUTIONS, OPERATIONS, SEPARABLE, Builder, Tensor

STEM_MULTIPLIER = 3  # the stem has 3C channels
AUXILIARY_POOL, AUXILIARY_STRIDE = 5, 3  # pixels; DARTS's CIFAR head
AUXILIARY_CHANNELS = (128, 768)
CIFAR10_MEAN = (0.49139968, 0.48215827, 0.44653124)  # of the training images, in units of 255
CIFAR10_STD = (0.24703233, 0.24348505, 0.26158768)

# So that a hostile file cannot have a network built without end. AlphaX-1 has some 500 operations.
LARGEST_SIZE = 100_000  # of any number that describes a network
MOST_OPERATIONS = 2_000  # in all cells together
MOST_WEIGHTS = 2**28  # 1 GiB
LARGEST_DESCRIPTION = 2**20  # bytes
MOST_PARTS = 200_000  # of a file of weights: groups and arrays
PART_BYTES = 8192  # what HDF5 takes at most to file one array

Edges = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Genotype:
    """What the two kinds of cell look like.

    Attributes
    ----------
    normal, reduce : tuple of (operation, input)
        Two successive pairs make a state, the sum of the two. Inputs 0 and 1 are the outputs of the
        cell before the last and of the last cell, input 2 is the first state made, and so on.
    normal_concat, reduce_concat : tuple of int
        The states whose concatenation is the cell's output.

    Raises
    ------
    Problem
        If an operation is unknown or a number points at no state.
    """

    normal: Edges
    normal_concat: tuple[int, ...]
    reduce: Edges
    reduce_concat: tuple[int, ...]

    def cell(self, reduces: bool) -> tuple[Edges, tuple[int, ...]]:
        """The pairs and the concatenated states of a reduction cell or of a normal one."""
        return (self.reduce, self.reduce_concat) if reduces else (self.normal, self.normal_concat)

    def __post_init__(self) -> None:
        _check_cell("normal", self.normal, self.normal_concat)
        _check_cell("reduce", self.reduce, self.reduce_concat)


@dataclass(frozen=True)
class Description:
    """A network: what is in its JSON file.

    Attributes
    ----------
    genotype : Genotype
    C : int
        Channels of a state in the first cells; each reduction doubles it. Even.
    layers : int
        Number of cells, at least 3.
    classes : int
    auxiliary : bool
        Whether there is an auxiliary head.
    image_size : int
        Height and width of the images, in pixels; a multiple of 4.
    data : str
        What the weights were trained on: "cifar10", "digits" or the name of a file.
    mean, std : tuple of 3 floats
        To be taken off, and to divide by, the channels of images that range from 0 to 1.

    Raises
    ------
    Problem
        If a size makes no network, or a larger one than is built here.
    """

    genotype: Genotype
    C: int
    layers: int
    classes: int
    auxiliary: bool
    image_size: int = 32
    data: str = "cifar10"
    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD

    def __post_init__(self) -> None:
        for name, least in (("C", 2), ("layers", 3), ("classes", 2), ("image_size", 4)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= LARGEST_SIZE:
                raise Problem(f"{name} is {value!r}; it must be a whole number from {least} to {LARGEST_SIZE}")
        if self.C % 2:
            raise Problem(f"C is {self.C}; it must be even (a factorized reduction halves it)")
        if self.image_size % 4:
            raise Problem(f"image_size is {self.image_size}; two reductions want a multiple of 4")
        if not isinstance(self.auxiliary, bool) or not isinstance(self.data, str):
            raise Problem("auxiliary must be true or false, data a name")
        numbers = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(numbers) != 6 or not all(type(x) in (int, float) for x in numbers):
            raise Problem("mean and std must be three numbers each")
        if not all(-1000 <= x <= 1000 for x in self.mean) or not all(1e-6 <= x <= 1000 for x in self.std):
            raise Problem("mean must be from -1000 to 1000, std above 0: from 1e-6 to 1000")
        pooled = (self.image_size // 4 - AUXILIARY_POOL) // AUXILIARY_STRIDE + 1
        if self.auxiliary and pooled != 2:
            raise Problem(
                f"the auxiliary head is made for images of 32 to 40 pixels, not {self.image_size};"
                " build the network without it"
            )
        self._check_size()

    def _check_size(self) -> None:
        """Raise a `Problem` if the network would be too large."""
        operations = self.layers * max(len(self.genotype.normal), len(self.genotype.reduce))
        if operations > MOST_OPERATIONS:
            raise Problem(f"it has up to {operations} operations; at most {MOST_OPERATIONS} are built")
        channels, before, last, weights = self.C, 3 * self.C, 3 * self.C, 0
        for number in range(self.layers):
            reduces = number in self.reductions
            edges, concat = self.genotype.cell(reduces)
            channels *= 2 if reduces else 1
            weights += (before + last) * channels + sum(_weights(name, channels) for name, _ in edges)
            before, last = last, channels * len(concat)
        if weights + last * self.classes > MOST_WEIGHTS:
            raise Problem(f"it has {weights + last * self.classes} weights; at most {MOST_WEIGHTS} are built")

    @property
    def reductions(self) -> tuple[int, int]:
        """The numbers of the two cells that halve height and width."""
        return self.layers // 3, 2 * self.layers // 3


def _weights(operation: str, channels: int) -> int:
    """At most how many weights an operation has in its convolutions."""
    if operation in SEPARABLE:
        return 2 * (SEPARABLE[operation] ** 2 * channels + channels**2)
    return CONVOLUTIONS.get(operation, 1) ** 2 * channels**2


def _check_cell(kind: str, edges: Edges, concat: tuple[int, ...]) -> None:
    """Raise a `Problem` unless every number points at a state that exists by then."""
    if not edges or len(edges) % 2:
        raise Problem(f"{kind} lists {len(edges)} operations; it takes two for each state")
    for position, (operation, source) in enumerate(edges):
        if operation not in OPERATIONS:
            raise Problem(f"{kind} names {operation!r}; known are {', '.join(OPERATIONS)}")
        states = 2 + position // 2
        if type(source) is not int or not 0 <= source < states:
            raise Problem(f"{kind} operation {position} takes input {source!r} of {states}")
    states = 2 + len(edges) // 2
    if not concat or any(type(i) is not int or not 0 <= i < states for i in concat):
        raise Problem(f"{kind}_concat is {list(concat)}; it must list states from 0 to {states - 1}")


def _edges(value: Any) -> Edges:
    return tuple((operation, source) for operation, source in value)


def read_genotype(path: Path) -> Genotype:
    """The genotype in a description, or in a file that holds nothing else.

    Raises
    ------
    Problem
        If the file cannot be read or is no genotype.
    """
    return _genotype(path, _read_json(path))


def _genotype(path: Path, content: dict[str, Any]) -> Genotype:
    try:
        return Genotype(
            _edges(content["normal"]),
            tuple(content["normal_concat"]),
            _edges(content["reduce"]),
            tuple(content["reduce_concat"]),
        )
    except KeyError as error:
        raise Problem(f"{path} has no {error}; a genotype has normal, reduce and their concats") from error
    except (TypeError, ValueError) as error:
        raise Problem(f"{path}: a genotype lists [operation, input] pairs and state numbers") from error
    except Problem as problem:
        raise Problem(f"{path}: {problem}") from problem


def read_description(path: Path) -> Description:
    """Read a network's description.

    Raises
    ------
    Problem
        If the file cannot be read or does not describe a network.
    """
    content = _read_json(path)
    genotype = _genotype(path, content)
    known = {field.name for field in fields(Description)} & content.keys()
    rest = {name: _as_tuple(content[name]) for name in known}
    try:
        return Description(genotype, **rest)
    except TypeError as error:
        raise Problem(f"{path}: C, layers, classes or auxiliary is missing, or not a number") from error
    except Problem as problem:
        raise Problem(f"{path}: {problem}") from problem


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with open_file(path, LARGEST_DESCRIPTION) as file:
            content = json.loads(file.read().decode("utf-8"))
    except OSError as error:
        raise Problem(f"cannot read {path}: {reason(error)}; name a description in JSON") from error
    except (ValueError, RecursionError) as error:
        raise Problem(f"{path} is not JSON ({error}); name a description as convert.py writes it") from error
    if not isinstance(content, dict):
        raise Problem(f"{path} holds no JSON object; name a description as convert.py writes it")
    return content


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def describes(weights: Path) -> Path:
    """Where the description of NAME.weights.h5 is expected: NAME.json beside it."""
    return weights.with_name(weights.name.removesuffix(".weights.h5") + ".json")


def write_description(description: Description, path: Path) -> None:
    """Write a description as JSON, whole or not at all."""
    with writing_description(description, path):
        pass


@contextlib.contextmanager
def writing_description(description: Description, path: Path) -> Iterator[None]:
    """Write a description that appears when the block ends, and not if the block raises."""
    content = asdict(description)
    flat = content.pop("genotype") | content
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in flat.items()]
    with replacing(path) as part:
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        yield


def build(description: Description, seed: int = 0) -> keras.Model:
    """Build a network with fresh weights.

    Parameters
    ----------
    description : Description
    seed : int
        Of the initial weights and of drop-path.

    Returns
    -------
    keras.Model
        From images (batch, size, size, 3), already normalised, to a list of logits, (batch, classes)
        each: the network's own and, if there is one, the auxiliary head's. The layer `cells-3` holds
        the output of cell 3.

    Raises
    ------
    Problem
        If branches of different sizes meet (an unpadded pooling at stride 1).
    """
    make = Builder(seed)
    size = description.image_size
    image = keras.Input((size, size, 3), name="image")
    x = make.conv(image, STEM_MULTIPLIER * description.C, 3, 1, "stem-0")
    before = last = make.batch_norm(x, "stem-1")
    channels = description.C
    reduced_before = False
    logits = []
    for number in range(description.layers):
        reduces = number in description.reductions
        channels *= 2 if reduces else 1
        cell = _cell(make, description.genotype, before, last, channels, reduces, reduced_before, number)
        before, last, reduced_before = last, cell, reduces
        if description.auxiliary and number == description.reductions[1]:
            logits.append(_auxiliary_head(make, last, description.classes))
    pooled = keras.layers.GlobalAveragePooling2D(name="global_pooling")(last)
    logits.insert(0, make.linear(pooled, description.classes, "classifier"))
    return keras.Model(image, logits, name="alphax_1")


def _cell(
    make: Builder,
    genotype: Genotype,
    before: Tensor,
    last: Tensor,
    channels: int,
    reduces: bool,
    reduced_before: bool,
    number: int,
) -> Tensor:
    """The output of one cell: (batch, height, width, channels * number of concatenated states)."""
    name = f"cells-{number}"
    edges, concat = genotype.cell(reduces)
    enter = make.factorized_reduction if reduced_before else make.relu_conv_bn
    states = [
        enter(before, channels, f"{name}-preprocess0"),
        make.relu_conv_bn(last, channels, f"{name}-preprocess1"),
    ]
    branches = []
    for position, (operation, source) in enumerate(edges):
        stride = 2 if reduces and source < 2 else 1
        branches.append(make.operation(operation, states[source], stride, f"{name}-_ops-{position}"))
        if position % 2:
            _check_sizes(branches, f"the two inputs of state {len(states)} of {name}")
            states.append(keras.ops.add(*branches))
            branches = []
    output = [states[i] for i in concat]
    _check_sizes(output, f"the output of {name}")
    return keras.layers.Concatenate(name=name)(output)


def _check_sizes(tensors: list[Tensor], where: str) -> None:
    sizes = [f"{x.shape[1]}x{x.shape[2]}" for x in tensors]
    if len(set(sizes)) > 1:
        raise Problem(f"{where} have sizes {', '.join(sizes)}; mend the genotype so that they agree")


def _auxiliary_head(make: Builder, x: Tensor, classes: int) -> Tensor:
    """Logits from the middle of the network, whose loss helps to train the first cells."""
    name = "auxiliary_head-features"
    x = keras.ops.average_pool(keras.ops.relu(x), AUXILIARY_POOL, AUXILIARY_STRIDE, "valid")
    for position, channels in zip((2, 5), AUXILIARY_CHANNELS):
        size = 1 if position == 2 else x.shape[1]
        x = make.conv(x, channels, size, 1, f"{name}-{position}", padded=False)
        x = keras.ops.relu(make.batch_norm(x, f"{name}-{position + 1}"))
    flat = keras.layers.Flatten(name="auxiliary_head-flat")(x)
    return make.linear(flat, classes, "auxiliary_head-classifier")


def without_auxiliary(model: keras.Model) -> keras.Model:
    """The same network, weights shared, with its own logits, (batch, classes), as the only output."""
    return keras.Model(model.input, model.outputs[0], name="network")


def load_weights(model: keras.Model, path: Path) -> None:
    """Load weights that `save_weights` wrote.

    Raises
    ------
    Problem
        If the file cannot be read or does not hold the weights of this network, or weights that are
        not finite; the message names the file, not what to do.
    """
    try:
        with open_file(path) as file, h5py.File(file, "r") as content:
            _check_parts(content, max(math.prod(variable.shape) for variable in model.weights))
        with warnings.catch_warnings(action="ignore"):  # for whatever it warns of, Keras raises an exception, too
            model.load_weights(path)
    except Problem as problem:
        raise Problem(f"{path} does not hold the weights of this network: {problem}") from problem
    except Exception as error:  # h5py and Keras raise all sorts on a damaged or foreign file
        why = reason(error) if isinstance(error, OSError) else type(error).__name__
        raise Problem(f"{path} does not hold the weights of this network ({why})") from error
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise Problem(f"{path} holds weights that are not finite ({variable.path})")


def _check_parts(content: h5py.File, largest: int) -> None:
    """Raise a `Problem` if a file of weights has very many parts, or arrays larger than the largest weight.

    Arrays that are small on the disk can be gigabytes in memory.
    """
    parts = 0

    def visit(name: str, part: h5py.Group | h5py.Dataset) -> str | None:
        nonlocal parts
        parts += 1
        if isinstance(part, h5py.Dataset) and (part.size or 0) > largest:
            return f"{name} has {part.size} numbers, its largest weight {largest}"
        return f"it has more than {MOST_PARTS} parts" if parts > MOST_PARTS else None

    found = content.visititems(visit)
    if found:
        raise Problem(found)


def save_weights(model: keras.Model, path: Path) -> None:
    """Write a network's weights, and nothing else, whole or not at all.

    Raises
    ------
    Problem
        If they cannot be written.
    """
    bare = keras.Model(model.input, model.outputs)  # one that was compiled would save its optimizer, too
    largest = sum(4 * math.prod(variable.shape) + PART_BYTES for variable in bare.weights)
    with replacing(path) as part:
        part.write_bytes(bytes(largest))  # HDF5 fails with pages of messages if there is no room; this in one line
        try:
            bare.save_weights(part)
        except RuntimeError as error:  # which is how HDF5 tells of some files that cannot be written
            raise OSError(reason(error)) from error


def multiply_adds(model: keras.Model) -> int:
    """Multiplications with an addition that one image costs in convolutions and linear layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.Conv2D | keras.layers.Dense):
            # Each weight of a kernel is used once per output pixel.
            pixels = np.prod(layer.output.shape[1:-1], dtype=int)
            total += int(pixels) * int(np.prod(layer.kernel.shape))
    return total


def parameters(model: keras.Model) -> int:
    """Number of trainable parameters."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
