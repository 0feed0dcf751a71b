"""How fast, and in how much memory, an official file is read: ``python tests/benchmark_convert.py [RECORDS]``.

Writes a file of made-up runs in the official format, cells in random order at four budgets, and converts it.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, from anywhere

import numpy as np
from nasbench_writer import made_up_runs, tfrecord

from nasbench_dataset import cells, table
from nasbench_dataset.official import read_tfrecord
from nasbench_dataset.runs import BUDGETS, RUNS


def peak_megabytes() -> float:
    """The most memory that this process has had so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    order = np.random.default_rng(0).permutation(cells.cell_count())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made_up.tfrecord"
        chosen = order[: records // (len(BUDGETS) * RUNS)]
        with open(path, "wb") as file:
            for start in range(0, len(chosen), 1_000):  # so that writing takes little memory, too
                file.write(tfrecord(made_up_runs(chosen[start : start + 1_000], BUDGETS, seed=start)))
        before, started, cpu_started = peak_megabytes(), time.perf_counter(), time.process_time()
        runs, _ = read_tfrecord(path)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        table.save(runs.table("made up"), Path(folder) / "table")
        size = (Path(folder) / "table").stat().st_size / 1e6
        size_read = path.stat().st_size / 1e6
        print(f"{runs.total:,} records, {size_read:.0f} MB: {seconds:.1f} s, {cpu_seconds:.1f} s of them computing")
        print(f"{runs.total / seconds:,.0f} records/s, {runs.total / cpu_seconds:,.0f} per second of computing")
        print(f"peak memory {peak_megabytes():.0f} MB ({before:.0f} MB before reading); table {size:.1f} MB")


if __name__ == "__main__":
    main()
