"""Who makes trainings: processes here, the workers of a Dask cluster, or this process itself.

A crew takes on at most ``at_once`` calls and gives a ``concurrent.futures.Future`` for each. What is called is a
function of ``training_job``. A worker that dies fails its own call only, and another one takes its place.
"""

import multiprocessing
import os
import subprocess
from collections import deque
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Callable, Iterator, Protocol

import training_job
import workers
from nasbench_dataset import InputError
from nasbench_dataset.files import printable

MOST_TRIES = 3  # of a call whose worker dies


class Crew(Protocol):
    """Who makes trainings.

    Attributes
    ----------
    at_once : int
        How many calls it works on at the same time.
    lost : tuple of exception types
        What a call fails with whose worker has died.
    name : str
        What it is, in words.
    """

    at_once: int
    lost: tuple[type[BaseException], ...]
    name: str

    def submit(self, function: Callable, *arguments: object) -> Future:
        """Call the function in a worker."""


def call(crew: Crew, function: Callable, *arguments: object) -> object:
    """What a function returns in a worker; it is called again where its worker dies.

    Raises
    ------
    InputError
        If it does so each time, or cannot be called there.
    """
    for _ in range(MOST_TRIES):
        try:
            return crew.submit(function, *arguments).result()
        except InputError:
            raise
        except crew.lost:
            continue
        except Exception as error:  # of another machine it can be anything
            raise refused(error) from error
    raise InputError(f"a worker died {MOST_TRIES} times before it could train; see whether there is enough memory")


def refused(error: Exception) -> InputError:
    """The line for what a worker cannot do whatever the cell is."""
    reason = printable(error.__cause__ if isinstance(error.__cause__, ImportError) else error, 200)
    advice = "start each in the folder of this project with PYTHONPATH=. and install requirements.txt there"
    return InputError(f"a worker, or Dask's scheduler, cannot train ({reason or type(error).__name__}); {advice}")


class Here:
    """This process: a call has ended when ``submit`` returns."""

    at_once, lost, name = 1, (), "this process"

    def submit(self, function: Callable, *arguments: object) -> Future:
        """Call the function; what it raises is raised here."""
        future = Future()
        future.set_result(function(*arguments))
        return future


class Processes:
    """Processes on this machine, each with its share of the processors, and with a GPU where there are any.

    Parameters
    ----------
    count : int
    """

    lost = (BrokenExecutor,)

    def __init__(self, count: int):
        self.at_once = count
        self.threads = max(1, workers.processors() // count)
        self.name = f"{count} worker{'s' * (count > 1)} with {self.threads} thread{'s' * (self.threads > 1)}"
        self._others = set(multiprocessing.active_children())
        devices = gpus()
        self._gpus = [devices[place % len(devices)] if devices else None for place in range(count)]
        self._pools = [self._pool(gpu) for gpu in self._gpus]
        self._free = deque(range(count))

    def _pool(self, gpu: str | None) -> ProcessPoolExecutor:
        """One process, so that its end is the end of nobody else's work."""
        with workers.signals_left_to_this_process():  # what keeps track of semaphores may start here
            context = multiprocessing.get_context("spawn")  # JAX does not live through a fork
            return ProcessPoolExecutor(1, context, initializer=_begin, initargs=(self.threads, gpu))

    def submit(self, function: Callable, *arguments: object) -> Future:
        """Call the function in a process that is free."""
        place = self._free.popleft()
        call = (function, *arguments)
        try:
            future = workers.submitted(self._pools[place].submit, call)
        except BrokenExecutor:  # its process has died since
            self._pools[place].shutdown()
            self._pools[place] = self._pool(self._gpus[place])
            future = workers.submitted(self._pools[place].submit, call)
        future.add_done_callback(lambda _: self._free.append(place))
        return future

    def close(self) -> None:
        """End all processes at once, whatever they are at."""
        for process in set(multiprocessing.active_children()) - self._others:
            process.kill()
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def _begin(threads: int, gpu: str | None) -> None:
    """What a process does first."""
    workers.end_with_parent()
    training_job.prepare(threads, gpu)


def gpus() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if (allowed := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in allowed.split(",") if name.strip()]
    try:
        asked = {"capture_output": True, "text": True, "timeout": 20, "stdin": subprocess.DEVNULL}
        found = subprocess.run(["nvidia-smi", "-L"], **asked)
    except (OSError, subprocess.SubprocessError):
        return []
    listed = [line for line in found.stdout.splitlines() if line.startswith("GPU ")] if found.returncode == 0 else []
    return [str(number) for number in range(len(listed))]


class Cluster:
    """The workers of a Dask cluster, which itself calls again what a worker was at that has died."""

    def __init__(self, client, at_once: int | None, address: str):
        distributed = workers.import_needed("distributed", "dask distributed")
        threads = sum(client.nthreads().values())
        if not threads:
            raise InputError(f"the cluster at {address} has no workers; start some, as docs/training.md says")
        self.at_once = at_once or threads
        self.lost = distributed.KilledWorker, distributed.client.FutureCancelledError
        self.name = f"{self.at_once} training{'s' * (self.at_once > 1)} at a time on the cluster at {address}"
        self._executor = client.get_executor(pure=False)

    def submit(self, function: Callable, *arguments: object) -> Future:
        """Call the function on a worker."""
        return self._executor.submit(function, *arguments)


@contextmanager
def processes(count: int) -> Iterator[Processes]:
    """Processes on this machine, which have ended after this block, or with this process, however it ends."""
    crew = Processes(count)
    try:
        yield crew
    finally:
        crew.close()


@contextmanager
def cluster(address: str, at_once: int | None) -> Iterator[Cluster]:
    """The workers of a Dask cluster, by the address of its scheduler."""
    with workers.dask_client(at_once, address) as client:
        yield Cluster(client, at_once, address)
