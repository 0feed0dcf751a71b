"""The commands under attack, and made-up examples of every file that they read.

Examples are made once, each group by ``python tests/attack_world.py GROUP FOLDER`` in a process of its own.
"""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

TESTS = Path(__file__).parent
ROOT = TESTS.parent
LIGHT, HEAVY = 45.0, 150.0  # seconds that a run may take; some machines have other things to do
MEMORY = 600  # MB more than a run that nothing disturbs
SEARCH = "--max-nodes", "6", "--save-every", "0.05", "--out", "{out}"
SAVED = "search", "nodes", "dangling_nodes"
MEASURED = "nasbench101_measured_20k.npz", "nasbench101_measured_small.npz"
RESULTS = "summary.json", "result.txt", "results.jsonl"  # of a search


@dataclass(frozen=True)
class Command:
    """A command of the project, small enough to be run hundreds of times.

    Attributes
    ----------
    name : str
    argv : tuple of str
        What comes after ``python``; {in} and {out} are folders of the case.
    inputs : dict of str to str
        What lies in the case's folder before it starts: path there, path among the examples.
    outputs : tuple of str
        Files under ``out`` that are there when it has ended well; {in} and {out} as given.
    same : callable
        Takes ``out`` and what was printed; what two runs that ended well have in common.
    again : tuple of str
        What is added to go on after an interruption.
    share : float
        Of the rounds of random attacks, for those that take long.
    heavy : bool
        Whether it needs Keras.
    grace : float
        Seconds after its end in which its processes have to have ended too.
    replaces : bool
        Whether it writes over the outputs of an earlier run, else it refuses their folder.
    """

    name: str
    argv: tuple[str, ...]
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    same: Callable[[Path, str], object] = lambda out, printed: None
    again: tuple[str, ...] = ()
    share: float = 1.0
    heavy: bool = False
    grace: float = 5.0
    replaces: bool = True

    @property
    def tells(self) -> bool:
        """Whether its status is 2 where nobody could read what it printed, as the page of AlphaX-1 says."""
        return self.argv[0].startswith(ALPHAX)

    @property
    def longest(self) -> float:
        return HEAVY if self.heavy else LIGHT


# --- what two runs have in common -------------------------------------------------------------


def summary(out: Path, printed: str) -> dict:
    """Everything of summary.json but times and places."""
    content = json.loads((out / "summary.json").read_bytes())
    content["fits"] = [fit[:2] for fit in content.get("fits", [])]
    return {name: value for name, value in content.items() if name not in ("seconds", "dataset", "training")}


def comparison(out: Path, printed: str) -> list:
    content = json.loads((out / "comparison.json").read_bytes())
    return [{name: value for name, value in method.items() if name != "seconds"} for method in content["methods"]]


def history(out: Path, printed: str) -> list:
    content = json.loads((out / "history.json").read_bytes())
    return [{name: value for name, value in epoch.items() if name != "images_per_second"} for epoch in content]


def finals(out: Path, printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("Final")]


def trainings(out: Path, printed: str) -> list[tuple]:
    """What is in the store, and in the table made of it but for the seconds."""
    from nasbench_dataset.table import load

    with copied_store(out / "store.sqlite") as store:
        found = [(t.cell, t.seed, t.outcome, t.valid, t.losses, t.test) for t in store]
    columns = load(out / "new.pickle").columns
    return [found, *((name, str(columns[name].tolist())) for name in columns if name != "train_seconds")]


@contextlib.contextmanager
def copied_store(path: Path) -> Iterator:
    """A `TrainingStore` of a copy of its files: to open a store takes room, which its own disk may lack."""
    from training_store import TrainingStore

    with tempfile.TemporaryDirectory() as folder:
        for part in filter(Path.is_file, path.parent.glob(f"{path.name}*")):
            shutil.copyfile(part, Path(folder, part.name))
        with TrainingStore(Path(folder, path.name), must_exist=True) as store:
            yield store


def contents(*names: str) -> Callable[[Path, str], object]:
    return lambda out, printed: [(out / name).read_bytes() for name in names]


# --- the commands -----------------------------------------------------------------------------

ALPHAX = "alphax-1-net"
TRAIN = "--C 2 --layers 3 --batch-size 32 --validation 40 --crop 2 --no-flip --cutout 8 --epochs 3 --seed 11".split()
TRAINED = "checkpoint.npz", "best.weights.h5", "best.json", "history.json"
NET = {"in/small.json": "net/small.json", "in/images.npz": "net/images.npz"}
DNN = "--max-nodes 4 --samples 30 --fit-every 10 --epochs 1 --rollouts 2 --seed 1 --save-every 0.2".split()
LITTLE = "--max-vertices 3 --seeds 1 --channels 4 --stacks 1 --epochs 2".split()
MEASURE = *LITTLE, *"--data {in}/stripes.npz --store {out}/store.sqlite --table {out}/new.pickle".split()
TRAINED_SEARCH = (
    *"--seed 3 --max-nodes 3 --samples 3 --train {in}/stripes.npz --store {out}/store.sqlite".split(),
    *("--train-channels 4 --train-stacks 1 --train-epochs 2 --keep-best".split()),
)
TABLE = {"in/table.pickle": "tables/table.pickle"}
RUN = {f"in/run/{name}": f"searches/ended/{name}" for name in (*SAVED, "summary.json")}


def _saved(example: str, *names: str) -> dict[str, str]:
    return {f"out/{name}": f"{example}/{name}" for name in names}


def _converter(name: str, source: str, share: float = 0.3) -> Command:
    argv = "-m", "nasbench_dataset.convert", "{in}/" + source, "{out}/new.pickle"
    return Command(
        f"convert {name}",
        argv,
        {f"in/{source}": f"tables/{source}"},
        ("new.pickle",),
        contents("new.pickle"),
        share=share,
    )


def _search(name: str, *options: str, script: str = "MCTS.py", inputs: dict[str, str], **more) -> Command:
    files = (*SAVED, *RESULTS)
    if "--train" in options:
        files = (*files, "store.sqlite", "best.keras", "best.json")
    else:
        options, inputs = ("--dataset", "{in}/table.pickle", *options), {**TABLE, **inputs}
    return Command(name, (script, *SEARCH, *options), inputs, files, summary, ("--resume",), **more)


_DNN = {"script": "MCTS_metaDNN.py", "heavy": True}
_ALL = [
    _search("MCTS.py", "--samples", "2000", "--seed", "3", inputs={}),
    _search("MCTS.py tuned", "--preset", "tuned", "--lookup", "isomorphic", "--seed", "3", inputs={}, share=0.5),
    _search("MCTS.py --resume", "--samples", "3000", "--seed", "3", "--resume",
            inputs=_saved("searches/begun", *SAVED), share=0.5),
    _search("MCTS.py tuned --resume", "--preset", "tuned", "--lookup", "isomorphic", "--resume", "--seed", "3",
            inputs=_saved("searches/guided", *SAVED, "guide"), share=0.2),
    _search("MCTS.py over another", "--samples", "2000", "--seed", "3", "--save-every", "0.5",
            inputs=_saved("searches/ended", *SAVED, *RESULTS)),
    Command("MCTS.py JSON", ("MCTS.py", *"--max-nodes 4 --seed 3 --dataset {in}/table.json --out {out}".split()),
            {"in/table.json": "tables/table.json"}, (*SAVED, *RESULTS), summary, ("--resume",), 0.1),
    _search("MCTS_metaDNN.py", *DNN, inputs={}, share=0.1, **_DNN),
    _search("MCTS_metaDNN.py --resume", *DNN, "--samples", "40", "--resume", share=0.06, **_DNN,
            inputs=_saved("dnn", *SAVED, "predictions", "meta_dnn.npz")),
    Command("compare.py", ("compare.py", *"--methods mcts,random --trials 2 --jobs 2 --max-nodes 5".split(),
            *"--dataset {in}/table.pickle --out {out}".split()), TABLE, ("comparison.json", "comparison.md",
            "best-so-far.png", "best-so-far.svg", "samples-to-best.png", "samples-to-best.svg"), comparison, share=0.4),
    Command("visualize.py --html", ("visualize.py", "{in}/run", "--html", "--out", "{out}"), RUN,
            ("tree.png", "tree.svg", "tree.html"), contents("tree.html"), share=0.4),
    Command("visualize.py --cell", ("visualize.py", "{in}/run", "--cell", "best", "--out", "{out}"), RUN,
            ("cell.png", "cell.svg"), share=0.2),
    _converter("JSON", "table.json", 1.0),
    _converter("NASLib", "naslib.pickle"),
    _converter("NASBenchAPI", "api.pickle", 0.1),
    _converter("npz", "cells.npz"),
    _converter("TFRecords", "records.tfrecord"),
    Command("fit_surrogate",
            ("-m", *"nasbench_dataset.fit_surrogate {in}/data --trees 1 --out {out}/new.pickle".split()),
            {f"in/data/{name}": f"measured/{name}" for name in MEASURED},
            ("new.pickle",), contents("new.pickle"), share=0.1),
    _search("MCTS.py --train", *TRAINED_SEARCH, inputs={"in/stripes.npz": "stripes/stripes.npz"}, share=0.06,
            heavy=True),
    Command("measure_cells.py", ("measure_cells.py", *MEASURE, "--workers", "2"),
            {"in/stripes.npz": "stripes/stripes.npz"},
            ("store.sqlite", "new.pickle"), trainings, share=0.1, heavy=True),
    Command("measure_cells.py goes on", ("measure_cells.py", *MEASURE, "--workers", "0"),
            {"in/stripes.npz": "stripes/stripes.npz", "out/store.sqlite": "stripes/store.sqlite"},
            ("store.sqlite", "new.pickle"), trainings, share=0.2),
    Command("model_test.py",
            (f"{ALPHAX}/model_test.py", *"--weights {in}/small.weights.h5 --data {in}/images.npz".split()),
            {**NET, "in/small.weights.h5": "net/small.weights.h5"}, (), finals, share=0.06, heavy=True),
    Command("train.py", (f"{ALPHAX}/train.py", *TRAIN, "--data", "{in}/images.npz", "--genotype", "{in}/small.json",
            "--out", "{out}"), NET, TRAINED, history, ("--resume",), share=0.1, heavy=True,
            replaces=False),
    Command("train.py --resume", (f"{ALPHAX}/train.py", "--resume", "--out", "{out}"),
            {**NET, **_saved("trained", *TRAINED)}, TRAINED, history, share=0.06, heavy=True),
    Command("convert.py", (f"{ALPHAX}/convert.py", "{in}/net.pt", "--out", "{out}"), {"in/net.pt": "torch/zip.pt"},
            ("net.weights.h5", "net.json"), contents("net.json"), share=0.06, heavy=True),
]  # fmt: skip
COMMANDS = {command.name: command for command in _ALL}


# --- examples ---------------------------------------------------------------------------------


class World:
    """A folder of examples, each group made when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._made: set[str] = set()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._all = threading.Lock()

    def lock(self, name: str) -> threading.Lock:
        """One for each name."""
        with self._all:
            return self._locks[name]

    def example(self, path: str) -> Path:
        """The file or folder of that name; raises a CalledProcessError where it cannot be made."""
        group = path.split("/")[0]
        with self.lock(group):
            if group not in self._made:
                (self.folder / group).mkdir(exist_ok=True)
                _python(__file__, group, self.folder / group)
                self._made.add(group)
        return self.folder / path


def place_inputs(command: Command, world: World, place: Path) -> None:
    """Put copies of what the command reads into a case's folder."""
    for name, example in command.inputs.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(world.example(example), place / name)


def tables(folder: Path) -> None:
    """The same cells in every format that can be converted."""
    import numpy as np
    from nasbench_writer import made_up_runs, tfrecord
    from test_pickled import nasbenchapi, naslib

    from nasbench_dataset import cells, table

    shutil.copyfile(table.EMBEDDED, folder / "table.pickle")
    runs, small = list(made_up_runs(range(91))), [cells.cell(i) for i in range(91)]
    accuracies = table.load(table.EMBEDDED).columns["test"][:91].tolist()
    keys = [json.dumps(cells.to_dict(*cell), sort_keys=True) for cell in small]
    (folder / "table.json").write_text(json.dumps(dict(zip(keys, accuracies))))
    (folder / "naslib.pickle").write_bytes(pickle.dumps(naslib(runs)))
    (folder / "api.pickle").write_bytes(pickle.dumps(nasbenchapi(runs)))
    (folder / "records.tfrecord").write_bytes(tfrecord(runs))
    _save_cells(folder / "cells.npz", small, test=np.array(accuracies))


def _save_cells(path: Path, chosen: list[tuple], **columns) -> None:
    import numpy as np

    padded = [operations + (255,) * (5 - len(operations)) for operations, _ in chosen]
    vertices = np.array([len(operations) + 2 for operations, _ in chosen], np.uint8)
    bits = np.array([edges for _, edges in chosen], np.uint32)
    np.savez(path, vertices=vertices, edge_bits=bits, operations=np.array(padded, np.uint8), **columns)


def measured(folder: Path) -> None:
    """Invented measurements, as fit_surrogate reads them."""
    import numpy as np

    from nasbench_dataset import cells

    rng = np.random.default_rng(0)
    for name, highest, number in (("nasbench101_measured_20k", 7, 500), ("nasbench101_measured_small", 5, 200)):
        chosen = [cells.cell(int(i)) for i in rng.choice(cells.cell_count(highest), number, replace=False)]
        valid = rng.normal(0.91, 0.01, number)
        columns = {"valid_108_max3": valid, "valid_108_mean3": valid, "test_108_mean3": valid - 0.006}
        columns |= {f"valid_{epochs}_max3": valid - 1 / epochs for epochs in (4, 12, 36)}
        columns["train_seconds_108"] = rng.uniform(1_000, 4_000, number)
        _save_cells(folder / f"{name}.npz", chosen, **columns)


def _python(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True)


def searches(folder: Path) -> None:
    """Searches that have ended (seed 9), have begun (seed 3), and have a guide."""
    from nasbench_dataset.table import EMBEDDED

    common = "MCTS.py", "--max-nodes", "6", "--dataset", EMBEDDED, "--quiet", "--out"
    _python(*common, folder / "ended", "--samples", "500", "--seed", "9")
    _python(*common, folder / "begun", "--samples", "800", "--seed", "3")
    tuned = "--preset", "tuned", "--lookup", "isomorphic", "--samples", "120", "--seed", "3"
    _python(*common, folder / "guided", *tuned)


def dnn(folder: Path) -> None:
    """A search with the Meta-DNN that is to go on."""
    options = ["--max-nodes", "6", *DNN]
    _python(
        "MCTS_metaDNN.py",
        "--quiet",
        "--out",
        folder,
        *options,
        "--dataset",
        ROOT / "nasbench_dataset" / "surrogate.pickle",
    )


def net(folder: Path) -> None:
    """A small network of AlphaX-1's family, with random weights, and a few images."""
    import numpy as np
    from alphax1 import describe
    from model import build, write_description

    rng = np.random.default_rng(0)
    parts = {"x_train": 200, "y_train": 200, "x_test": 40, "y_test": 40}
    images = {name: rng.integers(0, 256, (n, 32, 32)).astype("uint8") for name, n in parts.items() if name[0] == "x"}
    labels = {name: np.arange(n) % 10 for name, n in parts.items() if name[0] == "y"}
    np.savez(folder / "images.npz", **images, **labels)
    description = describe(data="images.npz", auxiliary=False)
    write_description(description, folder / "small.json")
    build(description, seed=0).save_weights(folder / "small.weights.h5")


def trained(folder: Path) -> None:
    """A training that was interrupted after an epoch or two."""
    import numpy as np

    net(folder)
    files = "--data", str(folder / "images.npz"), "--genotype", str(folder / "small.json")
    argv = [
        sys.executable,
        f"{ALPHAX}/train.py",
        *TRAIN[:-4],
        "--epochs",
        "200",
        "--seed",
        "11",
        *files,
        "--out",
        str(folder),
    ]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (folder / "best.weights.h5").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    with np.load(folder / "checkpoint.npz") as content:
        arrays = dict(content)
    state = json.loads(str(arrays["state"]))
    state["recipe"]["epochs"] = len(state["history"]) + 2  # two are left
    np.savez(folder / "checkpoint.npz", **{**arrays, "state": json.dumps(state)})


def stripes(folder: Path) -> None:
    """Small images to train cells on, and a store of such trainings."""
    import numpy as np
    from test_training import arrays

    np.savez(folder / "stripes.npz", **arrays())
    files = "--data", folder / "stripes.npz", "--store", folder / "store.sqlite"
    _python("measure_cells.py", *LITTLE, *files)


def torch(folder: Path) -> None:
    """What PyTorch saved."""
    _python(TESTS / "alphax1_torch" / "save.py", folder)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(TESTS)]
    os.environ.setdefault("KERAS_BACKEND", "jax")
    {make.__name__: make for make in (tables, measured, searches, dnn, net, trained, stripes, torch)}[sys.argv[1]](
        Path(sys.argv[2])
    )
