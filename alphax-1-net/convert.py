"""Convert AlphaX-1 from its authors' file: `python convert.py AlphaX_1.pt`.

The file is a whole pickled PyTorch module. Neither PyTorch nor the original's source code is needed,
and nothing in the file is run (see torch_file.py). What makes up the network is read off its modules:
the genotype, which is published nowhere else, the number of channels, cells and classes, and the
auxiliary head. All weights are used and every layer's settings are compared; a module that is not
quite of this family is refused.

Writes AlphaX_1.weights.h5 and AlphaX_1.json beside the file, or into the folder --out.
"""

import os
import sys

if __name__ == "__main__":  # as a module once more, so that what befalls the imports below is reported
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # not there under PYTHONSAFEPATH
    from terminal import start

    start("convert")

import argparse
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend import keras
from files import Problem
from model import (
    AUXILIARY_POOL,
    AUXILIARY_STRIDE,
    MOST_OPERATIONS,
    STEM_MULTIPLIER,
    Description,
    Genotype,
    build,
    describes,
    save_weights,
    writing_description,
)
from operations import BN_EPSILON, CONVOLUTIONS, POOLINGS, SEPARABLE
from terminal import Parser, filled_path, say
from torch_file import Inert, Tensor, read_module

SOURCE = Path(__file__).resolve().parent / "AlphaX_1.pt"
# So that a hostile file costs no time or memory without end; AlphaX-1 has some 3,000 modules and 2,000 weights.
LARGEST_SIZE = 1000  # channels, cells, classes, modules directly in a module, characters of a path
MOST_MODULES = 100_000
MOST_TENSORS = 100_000
UNUSED = "num_batches_tracked"  # PyTorch counts batches; nothing depends on it
CONV_BN = ["Conv2d", "BatchNorm2d"]
SEQUENCES = {  # what the original's building blocks are made of
    "ReLUConvBN": ["ReLU", *CONV_BN],
    "SepConv": ["ReLU", "Conv2d", *CONV_BN] * 2,
    "AuxiliaryHeadCIFAR": ["ReLU", "AvgPool2d", *CONV_BN, "ReLU", *CONV_BN, "ReLU"],
}


@dataclass(frozen=True)
class Module:
    """A module in the file and its path there, for messages."""

    stand_in: Inert
    path: str

    @property
    def kind(self) -> str:
        """The name of its class."""
        return self.stand_in.origin.rpartition(".")[2]

    def get(self, name: str) -> Any:
        """An attribute of the module.

        Raises
        ------
        Problem
            If it has none of that name.
        """
        if name not in self.stand_in.state:
            raise Problem(f"{self.path or 'the network'} ({self.kind}) has no {name}; it is no AlphaX-1")
        return self.stand_in.state[name]

    @property
    def children(self) -> list["Module"]:
        """The modules in it, in their order."""
        inside = [(name, child) for name, child in self._table("_modules").items() if child is not None]
        if not all(isinstance(child, Inert) and child.origin for _, child in inside):
            raise Problem(f"{self.path or 'the network'} holds something that is no module")
        return [Module(child, self._below(name)) for name, child in inside]

    def child(self, name: str) -> "Module":
        """The module of that name in it."""
        for child in self.children:
            if child.path.rpartition(".")[2] == name:
                return child
        raise Problem(f"{self.path or 'the network'} ({self.kind}) has no {name}; it is no AlphaX-1")

    @property
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Its own parameters and buffers, with their paths."""
        for table in ("_parameters", "_buffers"):
            for name, tensor in self._table(table).items():
                if isinstance(tensor, Tensor) and name != UNUSED:
                    yield self._below(name), tensor

    def _below(self, name: str | int) -> str:
        """The path of something in it."""
        if len(self.path) + len(str(name)) > LARGEST_SIZE:
            raise Problem(f"{self.path[:100]} holds something with a path of over {LARGEST_SIZE} characters")
        return f"{self.path}.{name}".lstrip(".")

    def _table(self, name: str) -> dict[str | int, Any]:
        table = self.get(name)
        if not isinstance(table, dict):
            raise Problem(f"{self.path or 'the network'} has {name} that is no table")
        if len(table) > LARGEST_SIZE:
            raise Problem(f"{self.path or 'the network'} has more than {LARGEST_SIZE} {name}")
        return table

    def expect(self, kind: str, **attributes: Any) -> None:
        """Raise a `Problem` unless it is of that class and has these attributes.

        A number for both directions may be written once: 2 is (2, 2).
        """
        if self.kind != kind:
            raise Problem(f"{self.path} is a {self.kind}, not a {kind}; it is no AlphaX-1")
        for name, wanted in attributes.items():
            found = self.get(name)
            if found != wanted and _pair(found) != _pair(wanted):
                shown = reprlib.repr(found)  # in a hostile file it may be without end
                raise Problem(f"{self.path} ({kind}) has {name} {shown}, not {wanted}; it is no AlphaX-1")

    def expect_sequence(self, owner: str) -> None:
        """Raise a `Problem` unless its children are those of the block `owner`."""
        kinds = [child.kind for child in self.children]
        if kinds != SEQUENCES[owner]:
            raise Problem(f"{self.path} is made of {', '.join(kinds)}, not as {owner}; it is no AlphaX-1")


def _pair(value: Any) -> Any:
    return (value, value) if type(value) is int else value


def outputs(source: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Where the converted weights and their description belong: beside the file, or in a folder."""
    weights = (folder or source.parent) / f"{source.name.removesuffix('.pt')}.weights.h5"
    return weights, describes(weights)


def convert(source: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Convert a file.

    Parameters
    ----------
    source : Path
        What torch.save wrote: a whole module.
    folder : Path, optional
        For the results, instead of the file's own.

    Returns
    -------
    weights, description : Path
        The files written.

    Raises
    ------
    Problem
        If the file does not hold a network of this family; then nothing is written.
    """
    content = read_module(source)
    try:
        network = _network(content)
        description = recover(network)
        model = build(description)
        _copy_weights(network, model, description)
    except Problem as problem:
        raise Problem(f"cannot convert {source}: {problem}") from problem
    except Exception as error:  # in a damaged file, anything may stand in the place of anything
        raise Problem(
            f"cannot convert {source}: its modules are not as PyTorch makes them"
            f" ({type(error).__name__}: {error!s:.200}); fetch it again"
        ) from error
    weights, description_path = outputs(source, folder)
    with writing_description(description, description_path):  # both, or neither
        save_weights(model, weights)
    return weights, description_path


def _network(content: Any) -> Module:
    """The network in what the file holds, freed from a wrapper for several GPUs."""
    if isinstance(content, dict):
        raise Problem(
            "it holds a state dict or another table, not a whole network, so its cells are not known;"
            " name a file that torch.save(network, ...) wrote"
        )
    if not isinstance(content, Inert) or not content.origin:
        raise Problem("it holds no network; name a file that torch.save(network, ...) wrote")
    network = Module(content, "")
    if network.kind == "DataParallel":
        network = Module(network.child("module").stand_in, "")
    if network.kind != "NetworkCIFAR":
        raise Problem(f"it holds a {network.kind}; AlphaX-1 is a NetworkCIFAR, name its file")
    return network


def recover(network: Module) -> Description:
    """Read off a network's modules how to build it.

    Raises
    ------
    Problem
        If it is not of this family.
    """
    cells = network.child("cells").children
    if sum(len(cell.child("_ops").children) for cell in cells) > MOST_OPERATIONS:
        raise Problem(f"it has more than {MOST_OPERATIONS} operations; it is no AlphaX-1")
    if network.get("_layers") != len(cells):
        raise Problem(f"it has {len(cells)} cells but says another number; it is no AlphaX-1")
    has_head = any(child.path == "auxiliary_head" for child in network.children)
    stem_channels = _shape(network.child("stem").child("0"))[0]
    network.child("global_pooling").expect("AdaptiveAvgPool2d", output_size=1)
    if has_head:
        features = network.child("auxiliary_head").child("features")
        features.expect_sequence("AuxiliaryHeadCIFAR")
        features.child("1").expect(
            "AvgPool2d", kernel_size=AUXILIARY_POOL, stride=AUXILIARY_STRIDE, padding=0, ceil_mode=False
        )
    reductions = (len(cells) // 3, 2 * len(cells) // 3)
    kinds: dict[bool, tuple] = {}
    for number, cell in enumerate(cells):
        reduces = number in reductions
        found = _recover_cell(cell, reduces, number - 1 in reductions)
        if kinds.setdefault(reduces, found) != found:
            raise Problem(f"{cell.path} differs from the cells of its kind before it; it is no AlphaX-1")
    if len(kinds) < 2:
        raise Problem(f"it has {len(cells)} cells, too few for both kinds of cell")
    channels, classes = stem_channels // STEM_MULTIPLIER, _shape(network.child("classifier"))[0]
    if max(channels, classes) > LARGEST_SIZE:
        raise Problem(f"it has more than {LARGEST_SIZE} channels or classes")
    return Description(
        Genotype(*kinds[False], *kinds[True]), channels, len(cells), classes, auxiliary=has_head
    )


def _shape(module: Module) -> tuple[int, ...]:
    tensors = dict(module.tensors)
    name = f"{module.path}.weight"
    if name not in tensors:
        raise Problem(f"{module.path} has no weight; it is no AlphaX-1")
    return tensors[name].shape


def _recover_cell(cell: Module, reduces: bool, reduced_before: bool) -> tuple:
    """The pairs of (operation, input) of a cell, and the states of its output."""
    for name, kind in (
        ("preprocess0", "FactorizedReduce" if reduced_before else "ReLUConvBN"),
        ("preprocess1", "ReLUConvBN"),
    ):
        entrance = cell.child(name)
        entrance.expect(kind)
        _check_block(entrance)
    operations = cell.child("_ops").children
    if max(len(cell.get(name)) for name in ("_indices", "_concat")) > LARGEST_SIZE:
        raise Problem(f"{cell.path} has more than {LARGEST_SIZE} _indices or _concat")
    indices, concat = tuple(cell.get("_indices")), tuple(cell.get("_concat"))
    if any(type(number) is not int for number in (*indices, *concat)):
        raise Problem(f"{cell.path} has _indices or _concat that are not whole numbers")
    if len(indices) != len(operations):
        raise Problem(f"{cell.path} has {len(operations)} operations and {len(indices)} inputs")
    edges = tuple(
        (_recover_operation(operation, 2 if reduces and source in (0, 1) else 1), source)
        for operation, source in zip(operations, indices)
    )
    return edges, concat


def _recover_operation(module: Module, stride: int) -> str:
    """The operation that a module carries out; its stride must be as expected."""
    kind = module.kind
    if kind in ("AvgPool2d", "MaxPool2d"):
        pooling = kind[:3].lower()
        size, padding = (_pair(module.get(name)) for name in ("kernel_size", "padding"))
        for name, settings in POOLINGS.items():
            if settings[0] == pooling and (size, padding) == (_pair(settings[1]), _pair(settings[2])):
                extra = {"count_include_pad": False} if pooling == "avg" else {"dilation": 1}
                module.expect(kind, stride=stride, ceil_mode=False, **extra)
                return name
    if kind == "Identity" and stride == 1:
        return "skip_connect"
    if kind == "FactorizedReduce" and stride == 2:
        _check_block(module)
        return "skip_connect"
    if kind == "SepConv":
        _check_block(module)
        return _by_size(SEPARABLE, module.child("op").child("1"))
    if kind == "Conv2d":
        return _by_size(CONVOLUTIONS, module)
    raise Problem(f"{module.path} ({kind}) at stride {stride} is no operation of AlphaX-1's family")


def _check_block(block: Module) -> None:
    """Check what a building block is made of, as far as `_copy_weights` does not see it."""
    if block.kind == "FactorizedReduce":
        block.child("relu").expect("ReLU")
    else:
        block.child("op").expect_sequence(block.kind)


def _by_size(known: dict[str, int], conv: Module) -> str:
    """The name of the operation with a convolution of this size."""
    for name, size in known.items():
        if _pair(conv.get("kernel_size")) == (size, size):
            return name
    size = reprlib.repr(conv.get("kernel_size"))
    raise Problem(f"{conv.path} has kernel_size {size}; known are {', '.join(known)}")


def _copy_weights(network: Module, model: keras.Model, description: Description) -> None:
    """Give the Keras model all the weights of the network, and none but those.

    Raises
    ------
    Problem
        If a layer has other settings or shapes, or if a weight is missing, left over or not finite.
    """
    modules = {module.path: module for module in _all_modules(network)}
    tensors: dict[str, Tensor] = {}
    for module in modules.values():
        tensors.update(module.tensors)
        if len(tensors) > MOST_TENSORS:
            raise Problem(f"it has more than {MOST_TENSORS} weights; it is no AlphaX-1")
    for layer in model.layers:
        path = layer.name.replace("-", ".")
        if not layer.weights or layer.name == "drop_path":
            continue
        if path not in modules:
            raise Problem(f"it has no {path}; it is no AlphaX-1")
        names = _check_layer(modules[path], layer)
        layer.set_weights(
            [
                _take(tensors, f"{path}.{name}", axes, tuple(variable.shape))
                for (name, axes), variable in zip(names.items(), layer.weights)
            ]
        )
    dead = _dead_parts(description)
    left = [path for path in tensors if not path.startswith(dead)]
    if left:
        raise Problem(f"{len(left)} weights have no place, {left[0]} first; it is no AlphaX-1")


def _dead_parts(description: Description) -> tuple[str, ...]:
    """Prefixes of the paths of what a genotype builds but no output depends on; Keras leaves it out."""
    genotype = description.genotype
    dead = []
    for number in range(description.layers):
        edges, concat = genotype.cell(number in description.reductions)
        live = set(concat)
        for position in reversed(range(len(edges))):
            if 2 + position // 2 in live:
                live.add(edges[position][1])
            else:
                dead.append(f"cells.{number}._ops.{position}.")
        dead += [f"cells.{number}.preprocess{state}." for state in (0, 1) if state not in live]
    return tuple(dead)


def _all_modules(network: Module) -> Iterator[Module]:
    """Every module once, however they contain each other."""
    seen: set[int] = set()
    waiting = [network]
    found = 1  # with those found more than once
    while waiting:
        module = waiting.pop()
        if id(module.stand_in) not in seen:
            seen.add(id(module.stand_in))
            yield module
            waiting.extend(module.children)
            found += len(module.children)
            if found > MOST_MODULES:
                raise Problem(f"it has more than {MOST_MODULES} modules; it is no AlphaX-1")


def _check_layer(module: Module, layer: keras.layers.Layer) -> dict[str, tuple[int, ...]]:
    """Compare the settings of a module and a layer.

    Returns
    -------
    dict
        The module's weights in the order of the layer's, each with the order of its axes in Keras:
        PyTorch has (out, in, height, width), Keras (height, width, in, out).
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        module.expect("BatchNorm2d", eps=BN_EPSILON, affine=True)
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (0,))
    if isinstance(layer, keras.layers.Dense):
        module.expect("Linear")
        return {"weight": (1, 0), "bias": (0,)}
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    size = layer.kernel_size
    inside = layer.name.startswith("auxiliary_head")  # the only convolutions without padding
    module.expect(
        "Conv2d",
        kernel_size=size,
        stride=layer.strides,
        padding=0 if inside else (size[0] // 2, size[1] // 2),
        dilation=1,
        groups=layer.kernel.shape[2] if depthwise else 1,
    )
    if module.stand_in.state.get("padding_mode", "zeros") != "zeros":  # came with PyTorch 1.1
        raise Problem(f"{module.path} has a padding_mode other than zeros; it is no AlphaX-1")
    return {"weight": (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)}


def _take(
    tensors: dict[str, Tensor], path: str, axes: tuple[int, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Take a weight out of the table, in Keras's order of axes."""
    if path not in tensors:
        raise Problem(f"it has no {path}; it is no AlphaX-1")
    with np.errstate(over="ignore"):  # of what float32 cannot hold; the check below tells
        values = tensors.pop(path).array().astype("float32")
    if values.ndim != len(axes) or values.transpose(axes).shape != shape:
        raise Problem(f"{path} has shape {values.shape}, which does not fit {shape}; it is no AlphaX-1")
    if not np.isfinite(values).all() or (path.endswith("running_var") and (values < 0).any()):
        raise Problem(f"{path} holds values that cannot be; the file is damaged, fetch it again")
    return values.transpose(axes)


def main(arguments: Sequence[str]) -> None:
    """Convert the file that the arguments name and say what was found."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=filled_path, nargs="?", default=SOURCE, help=f"default: {SOURCE.name} here")
    parser.add_argument("--out", type=filled_path, help="folder for the results (default: that of the file)")
    options = parser.parse_args(arguments)
    say(*(f"Wrote {written}" for written in convert(options.source, options.out)), last=True)
