"""What a worker does: one training at a time, in a process of its own, here or on another machine.

Little is imported here, so that a worker can decide about threads and GPUs before JAX is loaded.
"""

import importlib
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import keras_backend
import workers
from nasbench_dataset import InputError, cells
from training import Training, train
from training_data import Data, load
from training_recipe import Recipe

THREADS = (*workers.THREADS, "NPROC")  # the last is for JAX, which else takes a thread for each processor, too
XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


@dataclass(frozen=True)
class Job:
    """A training to be made.

    Attributes
    ----------
    cell : int
        The index of its stored form.
    recipe : Recipe
    source, data : str
        Where the data are (a name, or the path of a file, which has to be there on the worker's machine, too), and
        their digest.
    seed : int
    limit : float
        Seconds.
    """

    cell: int
    recipe: Recipe
    source: str
    data: str
    seed: int
    limit: float


def prepare(threads: int, gpu: str | None) -> None:
    """Give this process so many threads and one GPU (or, with None, whatever there is); before JAX is loaded."""
    os.environ.update({name: str(threads) for name in THREADS})
    if threads == 1:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_ONE_THREAD}".strip()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several workers can share a GPU


def device(engine: str, to_keep: bool = False) -> str:
    """What an engine of a recipe computes on here, in words; ``to_keep``: with networks as files, for which Keras is.

    Raises
    ------
    InputError
        If it cannot compute; it says what to install or to set.
    """
    if engine == "keras" or to_keep:  # else it would show after all trainings
        keras_backend.check()
    try:
        return importlib.import_module(f"training_{engine}").device()
    except Exception as error:  # whatever JAX raises where it is missing or finds no device
        asked = os.environ.get("JAX_PLATFORMS")
        advice = f"JAX_PLATFORMS={asked} asks for that: unset it" if asked else "pip install -r requirements.txt"
        raise InputError(f"a worker cannot train: {keras_backend.describe(error)}; {advice}") from error


def run(job: Job) -> Training:
    """Make a training."""
    return train(cells.cell(job.cell), job.recipe, _data(job), job.seed, job.limit)


def run_and_keep(job: Job) -> tuple[Training, bytes]:
    """Make a training; also its network as a .keras file, which is empty if it failed."""
    kept = []
    training = train(cells.cell(job.cell), job.recipe, _data(job), job.seed, job.limit, keep=kept.append)
    return training, _keras_file(job, kept[0]) if kept else b""


def _keras_file(job: Job, weights: dict) -> bytes:
    """The trained network: images as the data have them in, probabilities of the classes out."""
    import cell_network  # it loads Keras

    data = _data(job)
    shape = job.recipe.shape(data.size, data.colours, data.classes)
    momentum, epsilon = job.recipe.batch_norm_momentum, job.recipe.batch_norm_epsilon
    model = cell_network.build(cells.cell(job.cell), shape, weights, momentum, epsilon)
    model = cell_network.for_images(model, data.scaling)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "best.keras"
        model.save(path)
        return path.read_bytes()


@lru_cache(maxsize=1)
def _loaded(source: str) -> Data:
    return load(source)


def _data(job: Job) -> Data:
    """The data of a job; InputError where they are other ones here."""
    data = _loaded(job.source)
    if data.digest != job.data:
        raise InputError(f"the data {job.source} are others on a worker than where the search was started")
    return data
