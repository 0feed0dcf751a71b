"""What several test files share: the measured data, where it is at hand, and running commands."""

import atexit
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import compile_cache

# What a shell or nohup had ignored, the commands here would not hear of; what has a handler is as usual for them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):  # several tests run at a time; the last is JAX's
    os.environ.setdefault(_name, "1")


def _compile_once() -> None:
    """Let all processes of this run of the tests share what JAX compiled.

    Its warning of an entry that is half written is no concern of a test that reads stderr.
    """
    if compile_cache.FOLDER in os.environ:  # in the workers of pytest-xdist it is
        return
    folder = tempfile.mkdtemp(prefix="compiled-")
    compile_cache.share(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warnings = "ignore:Error reading persistent compilation cache", "ignore:Error writing persistent compilation cache"
    os.environ["PYTHONWARNINGS"] = ",".join([*filter(None, [os.environ.get("PYTHONWARNINGS")]), *warnings])


_compile_once()

import numpy as np
import pytest

from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from nasbench_dataset.table import EMBEDDED, MEASURED, Table, from_entries

ROOT = Path(__file__).parents[1]
SEARCHES = "MCTS.py", "MCTS_metaDNN.py", "compare.py"
EMBEDDED_TABLE = "--dataset", str(EMBEDDED)


@pytest.fixture(scope="session")
def measured() -> Path:
    """The folder of published measurements, which is no part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published measurements are not at hand")
    return folder


def measured_cells(path: Path) -> list[tuple[tuple[int, ...], int]]:
    """The ``(operations, edges)`` of every entry of a file of measurements."""
    data = np.load(path)
    return [
        (tuple(operations[: vertices - 2]), edges)
        for vertices, edges, operations in zip(
            data["vertices"].tolist(), data["edge_bits"].tolist(), data["operations"].tolist()
        )
    ]


@pytest.fixture(scope="session")
def published_91(measured) -> dict[tuple[tuple[int, ...], int], float]:
    """Mean test accuracy of all 91 cells up to 4 vertices, as published."""
    path = measured / "nasbench101_measured_small.npz"
    accuracies = np.load(path)["test_108_mean3"].tolist()
    return {cell: x for cell, x in zip(measured_cells(path), accuracies) if len(cell[0]) <= 2}


@pytest.fixture
def small_table() -> Table:
    """A made-up table of all 91 cells up to 4 vertices; the listed target is its best."""
    accuracies = np.random.default_rng(0).uniform(0.8, 0.93, 91)
    accuracies[cells.index((0, 1), 0b101101)] = 0.9359642
    return from_entries("test", dict(enumerate(accuracies.tolist())), "made up", measured=False)


def run(*arguments, timeout: float = 120) -> subprocess.CompletedProcess:
    """Run a Python command of the project as a user would, from its top folder.

    Where a measured table is in place, searches are told to use the embedded one, which the tests are about.
    """
    if MEASURED.exists() and arguments[0] in SEARCHES and "--dataset" not in arguments:
        arguments += ("--dataset", EMBEDDED)
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


def run_here(main, *arguments) -> subprocess.CompletedProcess:
    """As ``run``, of a ``main`` in this process, where starting another one would be most of the work."""
    if MEASURED.exists() and f"{main.__module__}.py" in SEARCHES and "--dataset" not in arguments:
        arguments += ("--dataset", EMBEDDED)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = main([*map(str, arguments)])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def assert_refused(result: subprocess.CompletedProcess, *words: str) -> None:
    """One line on stderr that has these words, no traceback, status 2."""
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def assert_refused_here(capsys, main, arguments: list, *words: str) -> None:
    """As ``assert_refused``, of a ``main`` in this process: starting another one can take longer than all else.

    What ``command.run`` makes of an ``InputError`` is one line whatever it says; so nothing else may be printed.
    """
    with pytest.raises((InputError, SystemExit)) as refusal:
        main([*map(str, arguments)])
    line = capsys.readouterr().err
    if isinstance(refusal.value, InputError):
        assert line == ""
        line = printable(refusal.value)
    else:
        assert refusal.value.code == 2
    assert len(line.splitlines()) == 1 and "Traceback" not in line, line
    for word in words:
        assert word in line
