"""Work in parallel, in processes on this machine or on a cluster, that ends when it is told to.

It knows nothing of searches: only a function of a module that workers can import, and its arguments, call by call.
"""

import importlib
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Callable, Iterable, Iterator

from nasbench_dataset import InputError
from nasbench_dataset.signals import catch_signals

BACKENDS = ("processes", "dask", "ray")  # on this machine; on a cluster
ON_A_CLUSTER = 1_000  # calls under way at a time, without --jobs
POLL_SECONDS = 0.2  # between two looks at whether a signal has come
# Libraries of numbers take a thread for each processor; here there is a worker for each.
THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run_all(
    function: Callable,
    calls: Iterable[tuple],
    keep: Callable[[object], None],
    backend: str = "processes",
    jobs: int | None = None,
    cluster: str | None = None,
) -> None:
    """Call a function in workers, and hand what it returns to ``keep``, here, as soon as it is there.

    Parameters
    ----------
    jobs : int, optional
        Calls at a time; without it as many as there are processors.
    cluster : str, optional
        The address of a running cluster; without it ``dask`` and ``ray`` start one on this machine.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, SIGTERM or SIGHUP, when no process on this machine computes any more; what was returned is kept.
    InputError
        If the workers cannot be started or reached, or one of them is ended from outside.
    """
    waiting, running = deque(calls), set()
    with start_workers(function, len(waiting), backend, jobs, cluster) as (submit, at_once):
        interrupted = _set_by_signals(backend)
        while waiting or running:
            while waiting and len(running) < at_once and not interrupted.is_set():
                running.add(submitted(submit, waiting.popleft()))
            done, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                keep(_returned(future, backend))
            if interrupted.is_set():
                raise KeyboardInterrupt


def _set_by_signals(backend: str) -> threading.Event:
    """What the first signal sets. With a cluster one ends this process at once, which the cluster sees."""
    interrupted = threading.Event()
    if backend == BACKENDS[0]:
        catch_signals(interrupted.set, "interrupted twice: ended at once")
    else:
        catch_signals()  # once more, as Ray puts its own in the place of ours
    return interrupted


def submitted(submit: Callable[..., Future], arguments: tuple) -> Future:
    """Call ``submit``, which may start a process; an InputError where none can be started."""
    _be_somewhere()
    try:
        with signals_left_to_this_process():
            return submit(*arguments)
    except OSError as error:
        raise InputError(f"cannot start as many workers ({error.strerror}); choose fewer") from error


def _be_somewhere() -> None:
    """Leave a folder that is gone, from which no process can be started; no path can begin there any more."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir(Path(__file__).resolve().parent)


def _returned(future: Future, backend: str) -> object:
    """What a call has returned; an InputError where it is not to blame for having failed."""
    try:
        return future.result()
    except InputError:
        raise
    except (BrokenExecutor, MemoryError) as error:
        reason = "a worker was ended from outside, or there was not enough memory"
        raise InputError(f"{reason}; what has ended is kept: start again, with fewer workers") from error
    except Exception as error:
        if backend == BACKENDS[0]:
            raise
        if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError):
            reason = f"a worker, or Dask's scheduler, cannot import what a trial needs ({error.__cause__ or error})"
            advice = "start each in the folder of this project with PYTHONPATH=. and install what the method needs"
        else:  # a cluster can fail in many ways
            reason = f"a trial failed on the cluster ({type(error).__name__}: {error})"
            advice = "finished trials are kept: see that the cluster runs, and start again"
        raise InputError(f"{reason}; {advice}") from error


@contextmanager
def start_workers(
    function: Callable, calls: int, backend: str, jobs: int | None, cluster: str | None
) -> Iterator[tuple[Callable[..., Future], int]]:
    """What calls the function in a worker, and how many calls to have under way at a time."""
    if backend == "processes":
        count = max(1, min(jobs or processors(), calls))
        with _processes(count) as pool:
            yield partial(pool.submit, function), 2 * count  # so that none waits for the next call
    elif backend == "dask":
        with dask_client(jobs, cluster) as client:
            yield partial(client.get_executor(pure=False).submit, function), jobs or ON_A_CLUSTER
    else:
        with _ray(jobs, cluster) as ray:
            remote = ray.remote(function)
            yield lambda *arguments: remote.remote(*arguments).future(), jobs or ON_A_CLUSTER


# --- processes on this machine ----------------------------------------------------------------


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes none of which computes any more after this block, or after the end of this process, however it ends."""
    for name in THREADS:
        os.environ.setdefault(name, "1")
    others = set(multiprocessing.active_children())
    with signals_left_to_this_process():  # the process that keeps track of the others' semaphores starts here
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown()


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it has."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def signals_left_to_this_process() -> Iterator[None]:
    """A process that is started within gets none that a terminal sends, or whoever ends a whole group of processes."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def processors() -> int:
    """The processors that this process can use; in a container with a quota (cgroup v2) what that comes to."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
    except (OSError, ValueError):  # another system, or no quota
        return count
    return max(1, min(count, math.ceil(quota / period)))


# --- clusters ---------------------------------------------------------------------------------


@contextmanager
def dask_client(jobs: int | None, cluster: str | None) -> Iterator:
    """A client of Dask: of a running cluster, or of one on this machine."""
    distributed = import_needed("distributed", "dask distributed")
    here = {"n_workers": jobs or processors(), "threads_per_worker": 1, "dashboard_address": None}
    try:
        client = distributed.Client(cluster, **({} if cluster else here))
    except Exception as error:  # nearly anything, for an address that is none
        raise InputError(_unreachable(cluster, error)) from error
    with client:
        yield client


@contextmanager
def _ray(jobs: int | None, cluster: str | None) -> Iterator[ModuleType]:
    ray = import_needed("ray", "ray")
    project = {"working_dir": str(Path(__file__).parent), "excludes": [".git/", "results*/", "comparison*/"]}
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(cluster, num_cpus=None if cluster else jobs, runtime_env=project, **quiet)
    except Exception as error:
        raise InputError(_unreachable(cluster, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _unreachable(cluster: str | None, error: Exception) -> str:
    what = f"--cluster {cluster}" if cluster else "a cluster on this machine"
    return f"cannot use {what} ({error or type(error).__name__}); see that it runs, and its address"


def import_needed(name: str, install: str) -> ModuleType:
    """Import a package; an InputError that says how to install it where that fails."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"{name} is needed for this and cannot be imported ({error}); pip install {install}"
        raise InputError(message) from error
