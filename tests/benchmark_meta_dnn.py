"""How fast and how good the Meta-DNN is: ``python tests/benchmark_meta_dnn.py [--full | --encodings]``.

By default a table of speeds, all from one run, the predictions' and the first fit's as medians. ``--full`` adds the
fits at 5,000 and 20,000 samples (minutes on a CPU). ``--encodings`` compares the original's encoding with one in which
an edge has the same place in cells of every size. ``KERAS_BACKEND`` chooses the backend.
"""

import random
import statistics
import sys
import time
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

import meta_dnn  # noqa: E402
from arch_generator import arch_generator  # noqa: E402
from driver import Driver  # noqa: E402
from MCTS import MCTS  # noqa: E402
from MCTS_metaDNN import MCTS_metaDNN  # noqa: E402
from nasbench_dataset import cells  # noqa: E402
from nasbench_dataset.table import EMBEDDED, load  # noqa: E402
from net_training import NetTrainer  # noqa: E402
from options import MetaDNNOptions, SearchOptions  # noqa: E402

REPEATS = 30
SEARCH_SAMPLES = 1_000


def median_seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """After one call that may compile."""
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def aligned(batch: list[meta_dnn.Cell]) -> np.ndarray:
    """Another input of 56 numbers: ``output`` is always the last of 7 vertices, operations are one-hot."""
    rows = np.zeros((len(batch), meta_dnn.ROW), np.float32)
    for row, (operations, edges) in zip(rows, batch):
        vertices = len(operations) + 2
        for e, (x, y) in enumerate(cells.edge_pairs(vertices)):
            row[6 * x + (5 if y == vertices - 1 else y - 1)] = edges >> e & 1
        for inner, operation in enumerate(operations):
            row[36 + 3 * inner + operation] = 1
    return rows


def compare_encodings(seeds: range = range(3)) -> None:
    """Rank correlations over each next hundred of a search's samples, as in a search without predictions."""
    table = load(EMBEDDED)
    faithful = meta_dnn.encode
    for seed in seeds:
        trainer = NetTrainer(table, arch_generator(6))
        driver = Driver(MCTS(trainer.space, seed, SearchOptions()), trainer, trainer.target_accuracy)
        driver.run(samples=SEARCH_SAMPLES)
        indices, accuracies = map(list, zip(*driver.history.training_trace.items()))
        for encoding in (faithful, aligned):
            meta_dnn.encode = encoding
            network, correlations = meta_dnn.MetaDNN(seed), []
            for start in range(0, SEARCH_SAMPLES, 100):
                batch = [cells.cell(i) for i in indices[start : start + 100]]
                if start:
                    predicted = network.predict(batch)
                    correlations.append(spearmanr(predicted, accuracies[start : start + 100]).statistic)
                network.add(batch, accuracies[start : start + 100])
                network.fit()
            print(f"seed {seed}, {encoding.__name__:8}", *(f"{c:6.3f}" for c in correlations), flush=True)
    meta_dnn.encode = faithful


def main() -> None:
    """Print the table of speeds, or the encodings side by side."""
    print(meta_dnn.device())
    if "--encodings" in sys.argv[1:]:
        return compare_encodings()
    rng = random.Random(0)
    network = meta_dnn.MetaDNN(0)

    def ten() -> list[meta_dnn.Cell]:
        return [cells.cell(rng.randrange(cells.cell_count(6))) for _ in range(10)]

    def one_by_one() -> None:
        for cell in ten():
            network.model.predict(meta_dnn.encode([cell]), verbose=0)

    slow = median_seconds(one_by_one)
    fast = median_seconds(lambda: network.predict(ten()))
    print(f"{'ten rollouts, keras.Model.predict one by one':50} {slow * 1e3:9.2f} ms {10 / slow:9.0f} rollouts/s")
    print(f"{'ten rollouts, one compiled pass':50} {fast * 1e3:9.2f} ms {10 / fast:9.0f} rollouts/s")
    print(f"{'ratio':50} {slow / fast:9.1f}")

    table = load(EMBEDDED)
    for samples in (1_000, 5_000, 20_000) if "--full" in sys.argv[1:] else (1_000,):
        chosen = rng.sample(range(cells.cell_count(6)), samples - network.count)
        network.add([cells.cell(i) for i in chosen], table.columns["test"][chosen])
        seconds = median_seconds(network.fit, 1) if samples == 1_000 else timed(network.fit)
        print(f"{f'a fit of {meta_dnn.EPOCHS} epochs at {samples:,} samples':50} {seconds:9.2f} s")

    trainer = NetTrainer(table, arch_generator(6))
    search = MCTS_metaDNN(trainer.space, 0, MetaDNNOptions())
    driver = Driver(search, trainer, trainer.target_accuracy)
    seconds = timed(lambda: driver.run(samples=SEARCH_SAMPLES))
    fitting = sum(fit[2] for fit in search.predictor.fits)
    print(f"{f'the search to {SEARCH_SAMPLES:,} samples, fits included':50} {SEARCH_SAMPLES / seconds:9.1f} samples/s")
    print(f"{'the same, fits not counted':50} {SEARCH_SAMPLES / (seconds - fitting):9.1f} samples/s")


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
