"""What searches sample, step by step, in a form that can be stored and compared: ``python tests/traces.py --write``.

A search has to come out the same ever after: the same cells in the same order, looked up as often, in as many
episodes, and a tree whose statistics are equal to the last bit. Cases that compute with Keras depend on the processor
too, so they are compared only where ``machine()`` says what it said then.

The searches run on a made-up table (``made_up_table``), so that they say something about the code alone, whatever table
ships. Traces on the first embedded table were written by the code before the searches were put on ask and tell (commit
b7be852); the code that wrote the present ``traces.json`` (commit 501fc9c, numpy 2.4.6, jax 0.10.2, keras 3.15.1) still
gave every one of those. Cases with a guide, those of ``tuned`` among them, were written anew when the guide had learned
to begin with its tenth sample, and once more when its choice among equal cells did not depend on the processor any
longer; all others came out as before then.

    python tests/traces.py             compares, and says which cases differ
    python tests/traces.py --write     writes traces.json anew: only where a search is meant to change
"""

import hashlib
import json
import platform
import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from arch_generator import arch_generator  # noqa: E402
from compare import new_method, parse_method  # noqa: E402
from driver import Driver  # noqa: E402
from nasbench_dataset import cells  # noqa: E402
from nasbench_dataset.table import DENOMINATOR, Table  # noqa: E402
from net_training import NetTrainer  # noqa: E402

STORED = Path(__file__).with_name("traces.json")
FIRST = 20  # sampled cells that are stored as they are; all others in a digest

TREES = (
    "mcts",
    "mcts:preset=tuned",
    "mcts:cp=0.05:backup=path",
    "mcts:cp=0.5:close_exhausted=yes",
    "mcts:guide=3:cp=0.2",
)
PEERS = "random", "evolution", "local-search", "q-learning"
NEED_KERAS = (  # up to the second fit and a little further
    ("mcts-metadnn:fit_every=40:epochs=3", 4, "exact", "test", 0, 60),
    ("mcts-metadnn", 6, "exact", "test", 0, 220),
    ("mcts-metadnn", 7, "isomorphic", "valid", 1, 220),
    ("mcts-metadnn:rollouts=3:fit_every=50:epochs=5:preset=tuned", 6, "isomorphic", "test", 0, 120),
    ("predictor", 6, "isomorphic", "test", 0, 250),
    ("predictor", 5, "exact", "valid", 1, 250),
    ("predictor-enumerating", 5, "exact", "test", 0, 250),
)


def cases() -> list[dict]:
    """Every stored case: a method, its domain, and how far it goes."""
    names = "method", "max_nodes", "lookup", "metric", "seed", "samples"
    found = []
    for method, lookup, metric in product(TREES, ("exact", "isomorphic"), ("test", "valid")):
        for max_nodes, seed, samples in ((3, 0, 50), (4, 1, 91), (6, 2, 260), (7, 3, 260)):
            found.append((method, max_nodes, lookup, metric, seed, samples))
    for method, lookup, metric in product(PEERS, ("exact", "isomorphic"), ("test", "valid")):
        for max_nodes, seed, samples in ((4, 0, 60), (6, 1, 150), (7, 2, 150)):
            found.append((method, max_nodes, lookup, metric, seed, samples))
    found += [("mcts", 4, "exact", "test", seed, 91) for seed in range(4, 10)]
    found += [("mcts:preset=tuned", 6, "isomorphic", "test", seed, 400) for seed in range(4, 8)]
    return [dict(zip(names, case)) for case in (*found, *NEED_KERAS)]


def name(case: dict) -> str:
    """A case in one line."""
    return " ".join(str(value) for value in case.values())


def needs_keras(case: dict) -> bool:
    return parse_method(case["method"])[0] in ("mcts-metadnn", "predictor", "predictor-enumerating")


def machine() -> str:
    """What the last bits of a computation with Keras depend on."""
    import jax
    from meta_dnn import keras  # which chooses the backend

    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    cpu = hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]
    return f"keras {keras.__version__}, {keras.backend.backend()}, jax {jax.__version__}, cpu {cpu}"


def made_up_table() -> Table:
    """Accuracies of all cells that no measurement went into: more conv3x3 is better, the rest is a hash of the index.

    They are integers over ``DENOMINATOR``, as in the data set, so that cells can tie; one in 256 has failed.
    """
    convolutions = [_share_of_conv3x3(vertices) for vertices in cells.CELL_COUNTS]
    valid = 0.85 + 0.04 * np.concatenate(convolutions) + 0.05 * _hashed(1)
    valid = np.where(_hashed(2) < 1 / 256, 0.1, valid)
    test = valid - 0.006 + 0.004 * (_hashed(3) - 0.5)
    columns = {name: np.rint(DENOMINATOR * column) / DENOMINATOR for name, column in (("test", test), ("valid", valid))}
    return Table(columns, "made up for the tests", measured=False)


def _share_of_conv3x3(vertices: int) -> np.ndarray:
    """float64 [n]: of the inner vertices of all cells of that size."""
    number = cells.enumerate_codes(vertices) % 3 ** (vertices - 2)
    is_conv3x3 = cells.operation_table(vertices)[number] == cells.CONV3X3
    return is_conv3x3.sum(axis=1) / max(vertices - 2, 1)


def _hashed(salt: int) -> np.ndarray:
    """float64 [423624], uniform in 0..1: a hash of each index (the mixing of SplitMix64, Steele et al. 2014)."""
    bits = np.arange(cells.cell_count(), dtype=np.uint64) + np.uint64(salt << 32)
    bits *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ bits >> np.uint64(shift)) * np.uint64(factor)
    return (bits ^ bits >> np.uint64(31)) / 2**64


class Recorder(Driver):
    """A driver that notes every look-up: the index of the cell, -1 outside the table."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked: list[int] = []

    def _hand_over(self, question):
        self.asked.append(int(question.index))
        super()._hand_over(question)


def trace(case: dict, table) -> dict:
    """Run a case; what it did."""
    trainer = NetTrainer(table, arch_generator(case["max_nodes"]), case["metric"], case["lookup"])
    method = new_method(case["method"], trainer.space, case["seed"])
    driver = Recorder(method, trainer, trainer.target_accuracy)
    outcome = driver.run(case["samples"], patience=3_000)
    history, is_tree = driver.history, hasattr(method, "tree")
    result = {
        "outcome": outcome.value,
        "samples": history.unique_samples,
        "lookups": history.counter,
        "episodes": method.episodes if is_tree else None,
        "first": [int(index) for index in list(history.training_trace)[:FIRST]],
        "all": digest(list(map(int, history.training_trace))),
        "asked": digest([index for index in driver.asked if is_tree or index >= 0]),  # stored so for the peers
        "bests": digest(history.best_trace),
    }
    if is_tree:
        nodes = [(*n.state, n.n, n.x_bar.hex(), n.closed, len(n.children)) for n in method.tree.values()]
        parents = [n.parent and (*n.parent.state,) for n in method.tree.values()]
        dangling = [(*state, value.hex()) for state, value in method.dangling_nodes.items()]
        result["tree"] = digest([nodes, parents, dangling])
    return result


def digest(content: object) -> str:
    """What tells two contents apart."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def main() -> int:
    """Write the traces, or compare."""
    table, write = made_up_table(), "--write" in sys.argv[1:]
    stored = {} if write else json.loads(STORED.read_bytes())
    found, differ = {"machine": machine()}, 0
    for case in cases():
        found[name(case)] = result = trace(case, table)
        if not write and stored[name(case)] != result:
            differ += 1
            print(f"{name(case)}\n  stored {stored[name(case)]}\n  now    {result}")
    if write:
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
        STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(found) - 1} cases, {differ} differ")
    return differ > 0


if __name__ == "__main__":
    sys.exit(main())
