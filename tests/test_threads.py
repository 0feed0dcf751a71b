"""Searches compute in one thread: more would mostly wait for each other, and wait by computing."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

COUNT = "import {}, numpy, os; numpy.linalg.eigh(numpy.eye(300)); print(len(os.listdir('/proc/self/task')))"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted under /proc")
@pytest.mark.parametrize("module", ["MCTS", "compare", "arch_generator"])
def test_numpy_has_one_thread_in_commands_and_in_the_example_of_the_readme(module):
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    result = subprocess.run(
        [sys.executable, "-c", COUNT.format(module)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.stdout == "1\n", result.stderr


def test_who_sets_the_number_of_threads_has_it():
    words = "import nasbench_dataset, os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "3"}
    result = subprocess.run([sys.executable, "-c", words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout == "3\n", result.stderr
