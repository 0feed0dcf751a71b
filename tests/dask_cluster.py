"""A real Dask scheduler and worker processes, as one would start them on several machines."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest
from conftest import ROOT


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[tuple[str, list[int]]]:
    """The scheduler's address and the processes of the workers; all have ended after this block."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    dask, quiet = [sys.executable, "-m", "dask"], {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [*dask, "scheduler", "--host", address, "--no-dashboard"]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
    worker.append("--no-nanny")  # so that a process that is killed stays away
    commands = (scheduler, *[worker] * workers)
    started = [subprocess.Popen(command, env=environment, cwd=folder, **quiet) for command in commands]
    try:
        from distributed import Client

        with Client(address, timeout=60) as client:
            client.wait_for_workers(workers, timeout=60)
            pids = sorted(set(client.run(os.getpid).values()))
        assert len(pids) == workers
        yield address, pids
    finally:
        for process in started:
            process.kill()
            process.wait()
