"""The Meta-DNN: predicts the accuracy of a cell from its structure (Wang et al., AAAI-20, section 3.3).

It knows cells and numbers, no trees and no tables. Of the searches it alone uses Keras, by the backend that
``keras_backend`` finds.

Every call of the network has one of two shapes, so that each is compiled once: ``PREDICT_ROWS`` rows to
predict, ``BATCH`` rows to fit. What is missing to a whole batch is filled up with rows of weight 0.
"""

import io
import zipfile
from typing import Sequence

import numpy as np

from keras_backend import load_keras
from nasbench_dataset import InputError, cells

keras = load_keras()

ROW = 56  # numbers that encode a cell: 49 for the matrix, 7 for the vertices
INPUT_CODE, PADDING_CODE = 2, 9
OPERATION_CODES = {cells.CONV1X1: 3, cells.MAXPOOL3X3: 4, cells.CONV3X3: 5}

Layers = tuple[tuple[int, str, str], ...]
LAYERS: Layers = (  # units, activation, initial kernel
    (512, "relu", "RandomUniform"),
    (2048, "relu", "RandomUniform"),
    (2048, "relu", "RandomUniform"),
    (512, "relu", "GlorotUniform"),
    (1, "sigmoid", "GlorotUniform"),
)
LEARNING_RATE = 2e-4  # of Adam
BATCH = 128
EPOCHS = 20  # of one fit
PREDICT_ROWS = 10  # one evaluation of the search: ten predicted rollouts
OVERFLOWED = "the Meta-DNN has overflowed and predicts no numbers any more; choose another --out and begin anew"

Cell = tuple[cells.Operations, int]


def encode(batch: Sequence[Cell]) -> np.ndarray:
    """The input of the network for some cells, given as ``(operations, edges)``.

    Returns
    -------
    float32 [n, 56]
        The adjacency matrix, row by row *at its own size* (so that the same edge has another place in cells
        of other sizes), filled with 0 to 49 numbers; then a code per vertex, ``output`` left out, filled
        with 9 to 7. The original does so.
    """
    rows = np.zeros((len(batch), ROW), np.float32)
    codes = np.array([OPERATION_CODES[o] for o in range(len(cells.OPERATIONS))])
    sizes = np.array([len(operations) + 2 for operations, _ in batch])
    edges = np.array([edges for _, edges in batch], np.int64)
    rows[:, 49:] = PADDING_CODE
    rows[:, 49] = INPUT_CODE
    for vertices in np.unique(sizes):
        here = np.flatnonzero(sizes == vertices)
        for e, (x, y) in enumerate(cells.edge_pairs(vertices)):
            rows[here, x * vertices + y] = edges[here] >> e & 1
        if vertices > 2:
            rows[here, 50 : 48 + vertices] = codes[np.array([batch[i][0] for i in here])]
    return rows


def build(seed: int | tuple[int, int], layers: Layers | None = None) -> keras.Model:
    """The compiled network: 56 numbers -> 512-2048-2048-512 ReLU, or other layers -> an accuracy in 0..1."""
    layers = layers or LAYERS
    seeds = np.random.SeedSequence(seed).generate_state(len(layers)).tolist()
    model = keras.Sequential([keras.Input((ROW,))])
    for (units, activation, kernel), layer_seed in zip(layers, seeds):
        initializer = getattr(keras.initializers, kernel)(seed=layer_seed)
        model.add(keras.layers.Dense(units, activation=activation, kernel_initializer=initializer))
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "mse")
    return model


def device() -> str:
    """The backend and what it computes on, in words."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    elif backend == "tensorflow":
        import tensorflow

        gpus = tensorflow.config.list_physical_devices("GPU")
        where = tensorflow.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "CPU"
    else:
        import jax

        first = jax.devices()[0]
        where = "CPU" if first.platform == "cpu" else first.device_kind
    return f"Keras {keras.__version__} with {backend} on {where}"


def _read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file, without executing anything; ValueError where it is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed, which could hide any size")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"not a file of arrays: {' '.join(str(error).split())[:200]}") from error


class MetaDNN:
    """The network with the samples it has been told of.

    Parameters
    ----------
    seed : int
        Of the initial weights and of the order of the samples in each fit.
    layers : Layers, optional
        Of the network; by default ``LAYERS``.

    Attributes
    ----------
    rows, accuracies : float32 [capacity, 56], [capacity]
        The encoded samples; the first ``count`` are in use. They are kept from fit to fit, and the rest is
        room for more.
    fits : int
        How many fits there have been.
    """

    def __init__(self, seed: int, layers: Layers | None = None):
        self.seed, self.fits, self.count = seed, 0, 0
        self._layers = layers
        self.model = build(seed, layers)
        self.rows = np.zeros((1024, ROW), np.float32)
        self.accuracies = np.zeros(1024, np.float32)

    def add(self, batch: Sequence[Cell], accuracies: Sequence[float]) -> None:
        """Take samples in; the next fit uses them."""
        end = self.count + len(batch)
        if end > len(self.rows):
            room = max(end, 2 * len(self.rows)) - len(self.rows)
            self.rows = np.pad(self.rows, ((0, room), (0, 0)))
            self.accuracies = np.pad(self.accuracies, (0, room))
        self.rows[self.count : end] = encode(batch)
        self.accuracies[self.count : end] = accuracies
        self.count = end

    def begin_anew(self) -> None:
        """Other initial weights, and nothing of the fits so far."""
        self.model = build((self.seed, self.fits), self._layers)

    def to_save(self) -> bytes:
        """Weights and the state of the optimizer, as an npz file; samples and counts are known elsewhere."""
        file = io.BytesIO()
        np.savez(file, **{name: keras.ops.convert_to_numpy(v) for name, v in self._variables().items()})
        return file.getvalue()

    def restore(self, content: bytes, batch: Sequence[Cell], accuracies: Sequence[float], fits: int) -> None:
        """Take over what ``saved`` gave, when these samples had been added and so many fits had been made.

        Raises
        ------
        ValueError
            If it is damaged or of another network.
        """
        values = _read_arrays(content)
        variables = self._variables()
        if values.keys() != variables.keys():
            raise ValueError("its arrays are not those of this network")
        for name, variable in variables.items():
            value, expected = values[name], keras.ops.convert_to_numpy(variable)
            if value.shape != expected.shape or value.dtype != expected.dtype or not np.isfinite(value).all():
                raise ValueError(f"array {name} is not one of this network")
        for name, variable in variables.items():
            variable.assign(values[name])
        self.add(batch, accuracies)
        self.fits = fits

    def _variables(self) -> dict[str, "keras.Variable"]:
        optimizer = self.model.optimizer
        if not optimizer.built:  # else it would be at the first fit, with the same values
            optimizer.build(self.model.trainable_variables)
        named = {"weight": self.model.weights, "optimizer": optimizer.variables}
        return {f"{kind}{i}": variable for kind, some in named.items() for i, variable in enumerate(some)}

    def fit(self, epochs: int = EPOCHS) -> float:
        """Fit to all samples, going on from the present weights; returns the mean squared error of the last epoch."""
        rng = np.random.default_rng((self.seed, self.fits))
        self.fits += 1
        loss = float("nan")
        for _ in range(epochs):
            order = rng.permutation(self.count)
            losses = [self._fit_batch(order[i : i + BATCH]) for i in range(0, self.count, BATCH)]
            loss = float(np.sum(losses)) / self.count
        if not all(np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in self._variables().values()):
            raise InputError(OVERFLOWED)  # before it is saved
        return loss

    def _fit_batch(self, samples: np.ndarray) -> float:
        """One step of Adam; returns the sum of the squared errors. Rows of weight 0 fill the last batch up."""
        rows = np.resize(samples, BATCH)
        weights = np.zeros(BATCH, np.float32)
        weights[: len(samples)] = BATCH / len(samples)  # Keras divides by BATCH, fill included
        loss = self.model.train_on_batch(self.rows[rows], self.accuracies[rows, None], weights)
        return float(loss) * len(samples)

    def predict(self, batch: Sequence[Cell]) -> np.ndarray:
        """float32 [n]: predicted accuracies of some cells, ``PREDICT_ROWS`` in each pass of the network."""
        result = []
        for start in range(0, len(batch), PREDICT_ROWS):
            part = encode(batch[start : start + PREDICT_ROWS])
            filled = np.zeros((PREDICT_ROWS, ROW), np.float32)
            filled[: len(part)] = part
            result.append(np.asarray(self.model.predict_on_batch(filled))[: len(part), 0])
            if not np.isfinite(result[-1]).all():
                raise InputError(OVERFLOWED)
        return np.concatenate(result) if result else np.zeros(0, np.float32)
