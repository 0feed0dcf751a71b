"""CPU seconds of training one cell, by four ways: ``python tests/benchmark_training.py [--network 8x2x1] [--cells 8]``.

The ways take turns, cell by cell, each in a process of its own with one thread:

- ``program``: the compiled program, as the recipes' default has it (``training_program``);
- ``fit jax``, ``fit torch``: ``keras.Model.fit`` of each cell's own model on these backends (``training_keras``);
- ``torch``: plain PyTorch modules, a loop by hand.

Random cells of 5 vertices, 15 epochs of scikit-learn's digits. Afterwards the program goes on to ``--shared`` cells, to
share its compilation. A way whose library is not installed is left out. Seconds are those of the processor, since the
clock says more about what else runs on the machine.
"""

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402

import training_data  # noqa: E402
from cell_layers import initial_weights, input_name, vertex_name  # noqa: E402
from nasbench_dataset import cells  # noqa: E402
from training_recipe import SMALL, Epoch, Recipe  # noqa: E402
from training import generators, train  # noqa: E402

WAYS = ("program", "fit jax", "fit torch", "torch")
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def digits(images: int) -> training_data.Data:
    """The digits; with more than 599 training images, the test part is trained on as well."""
    data = training_data.load("digits")
    parts = data.train, data.test
    if images <= len(data.train.labels):
        return data
    joined = [np.concatenate([getattr(part, name) for part in parts])[:images] for name in ("images", "labels")]
    return training_data.Data("digits", data.classes, training_data.Part(*joined), data.valid, None)


def train_by_modules(cell: tuple, recipe: Recipe, data: training_data.Data, seed: int) -> float:
    """The validation accuracy of a training by plain PyTorch modules, in the recipe's order, by Adam."""
    import torch

    torch.set_num_threads(1)
    shape = recipe.shape(data.size, data.colours, data.classes)
    first, rng = generators(cells.index(*cell), seed)
    network = _network(cell, shape, recipe, initial_weights(cell, shape, first))
    optimizer = torch.optim.Adam(network.parameters(), eps=1e-7)

    def inputs(images: np.ndarray) -> "torch.Tensor":
        return torch.from_numpy((images * data.scaling[0] + data.scaling[1]).transpose(0, 3, 1, 2).copy())

    steps = len(data.train.labels) // min(recipe.batch, len(data.train.labels))
    for rates in recipe.learning_rates(steps):
        network.train()
        for chosen, rate in zip(Epoch(recipe, len(data.train.labels), rng).chosen, rates):
            optimizer.param_groups[0]["lr"] = float(rate)
            optimizer.zero_grad()
            scores = network(inputs(data.train.images[chosen]))
            labels = torch.from_numpy(data.train.labels[chosen].astype(np.int64))
            torch.nn.functional.cross_entropy(scores, labels).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = (network(inputs(data.valid.images)).argmax(1).numpy() == data.valid.labels).mean()
    return float(right)


def _network(cell: tuple, shape, recipe: Recipe, weights: dict):
    """The network of a cell as a PyTorch module."""
    from torch import cat, from_numpy, nn
    from torch.nn.functional import max_pool2d

    layers = nn.ModuleDict()
    for name in (key.removesuffix(".kernel") for key in weights if key.endswith(".kernel") and key != "head.kernel"):
        kernel = from_numpy(weights[f"{name}.kernel"].transpose(3, 2, 0, 1).copy())
        convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], padding="same", bias=False)
        convolution.weight.data = kernel
        norm = nn.BatchNorm2d(len(kernel), eps=recipe.batch_norm_epsilon, momentum=1 - recipe.batch_norm_momentum)
        layers[name] = nn.Sequential(convolution, norm, nn.ReLU())
    layers["head"] = nn.Linear(*weights["head.kernel"].shape)
    layers["head"].weight.data = from_numpy(weights["head.kernel"].T.copy())
    (operations, edges), last = cell, len(cell[0]) + 1

    def forward_cell(name: str, channels: list[int], x):
        results = [x]
        for y in range(1, last):
            sources = [s for s in range(y) if edges & cells.edge_bit(s, y)]
            terms = [layers[input_name(name, y)](x) if s == 0 else results[s][:, : channels[y]] for s in sources]
            total = sum(terms[1:], terms[0])
            pool = operations[y - 1] == cells.MAXPOOL3X3
            results.append(max_pool2d(total, 3, 1, 1) if pool else layers[vertex_name(name, y)](total))
        fed = [results[s] for s in range(1, last) if edges & cells.edge_bit(s, last)]
        direct = layers[input_name(name, last)](x) if edges & cells.edge_bit(0, last) else None
        return cat(fed, 1) + direct if fed and direct is not None else cat(fed, 1) if fed else direct

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers

        def forward(self, x):
            x, before = layers["stem"](x), 0
            for name, channels_in, stack in shape.cells():
                x, before = (max_pool2d(x, 2) if stack != before else x), stack
                x = forward_cell(name, cells.vertex_channels(edges, last + 1, channels_in, shape.width(stack)), x)
            return layers["head"](x.mean((2, 3)))

    return Network()


def serve(way: str, recipe: Recipe, images: int) -> None:
    """Train each cell whose index comes in a line, and print CPU seconds and accuracy."""
    data = digits(images)
    recipe = replace(recipe, engine="program" if way == "program" else "keras")
    for line in sys.stdin:
        cell, started = cells.cell(int(line)), time.process_time()
        accuracy = train_by_modules(cell, recipe, data, 0) if way == "torch" else train(cell, recipe, data, 0).accuracy
        print(json.dumps([time.process_time() - started, accuracy]), flush=True)


class Way:
    """A process that trains by one way."""

    def __init__(self, name: str, arguments: list[str]):
        backend = "torch" if "torch" in name else "jax"
        environment = {**os.environ, **ONE_THREAD, "KERAS_BACKEND": backend}
        command = [sys.executable, "-W", "ignore", __file__, *arguments, "--serve", name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.seconds: list[float] = []

    def train(self, cell: int) -> float:
        """The accuracy of a cell; its CPU seconds go into ``seconds``."""
        print(cell, file=self.process.stdin, flush=True)
        seconds, accuracy = json.loads(self.process.stdout.readline())
        self.seconds.append(seconds)
        return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="8x2x1", help="channels x stacks x cells of each")
    parser.add_argument("--images", type=int, default=599, help="to train on; above 599 with those of the test part")
    parser.add_argument("--cells", type=int, default=8, help="trained by every way")
    parser.add_argument("--shared", type=int, default=100, help="trained by the program in the end")
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    channels, stacks, count = map(int, options.network.split("x"))
    recipe = replace(SMALL, channels=channels, stacks=stacks, cells=count)
    if options.serve:
        return serve(options.serve, recipe, options.images)
    installed = [way for way in WAYS if "torch" not in way or importlib.util.find_spec("torch")]
    ways = {way: Way(way, ["--network", options.network, "--images", str(options.images)]) for way in installed}
    five = range(cells.first_index(5), cells.cell_count(5))
    chosen = random.Random(0).sample(five, max(options.shared, options.cells))
    for cell in chosen[: options.cells]:
        accuracies = {name: round(way.train(cell), 4) for name, way in ways.items()}
        print(f"cell {cell}: {accuracies}; CPU s {({n: round(w.seconds[-1], 2) for n, w in ways.items()})}", flush=True)
    for cell in chosen[options.cells : options.shared]:
        ways["program"].train(cell)
    report(ways, options)
    for way in ways.values():
        way.process.stdin.close()
        way.process.wait()


def report(ways: dict[str, Way], options: argparse.Namespace) -> None:
    """Print the medians, and the program's figure with its share of the compilation."""
    print(f"network {options.network}, {options.images} images, {SMALL.epochs} epochs; CPU seconds a cell:")
    for name, way in ways.items():
        some = way.seconds[1:] if name == "program" else way.seconds
        print(f"{name:12} median {statistics.median(some):7.2f}   first {way.seconds[0]:7.2f}   of {len(some)} cells")
    program = ways["program"].seconds
    shared = sum(program) / len(program)
    print(f"program, with its share of the compilation over {len(program)} cells: {shared:.2f}")
    for name, way in ways.items():
        if name != "program":
            print(f"  {name} needs {statistics.median(way.seconds) / shared:.1f} times as much")


if __name__ == "__main__":
    main()
