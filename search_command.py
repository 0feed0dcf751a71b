"""From the options of a search's command line to its results: banner, progress line, saves, summary.

What is searched by is a class handed in, ``MCTS`` or one derived from it; nothing here knows how it searches.
"""

import argparse
import json
import math
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

import checkpoint
from arch_generator import State, arch_generator
from nasbench_dataset import InputError, command
from nasbench_dataset.convert import open_table
from nasbench_dataset.files import write_atomically
from nasbench_dataset.table import EMBEDDED, METRICS, default_path
from net_training import NetTrainer
from space import LOOKUPS

if TYPE_CHECKING:  # imports point down: MCTS imports this
    from MCTS import MCTS

CP = 2.0  # exploration constant of UCT; the original's value
CP_RANGE = command.number(0, 1e6)  # far beyond that, UCT is no finite number any more
PATIENCE = 100_000  # episodes without a new sample after which a search counts as stalled
PRESETS = {  # what a preset sets where the option itself is not given; README: what each is worth
    "original": {"cp": CP, "backup": "first-parent", "close_exhausted": False, "guide": 0},
    "tuned": {"cp": 0.05, "backup": "path", "close_exhausted": True, "guide": 5},
}
BACKUPS = ("first-parent", "path")
PROGRESS_SECONDS = 0.2  # between two updates of the progress line


def build_parser(description: str) -> command.Parser:
    """The options that all searches share."""
    parser = command.Parser(description=description)
    add_space_options(parser.add_argument_group("what is searched"))
    add_method_options(parser.add_argument_group("how it is searched"))
    add_run_options(parser.add_argument_group("until when, and where it is kept"))
    return parser


def add_space_options(group: argparse._ArgumentGroup) -> None:
    """Which cells there are, and what they are worth."""
    group.add_argument(
        "--max-nodes", type=int, default=arch_generator.MAX_NODES,
        help="vertices of a cell, input and output included, 3..7",
    )  # fmt: skip
    group.add_argument("--max-edges", type=int, default=arch_generator.MAX_EDGES, help="edges of a cell, 1..9")
    group.add_argument(
        "--dataset", metavar="PATH",
        help="a table made by nasbench_dataset.convert, or the original's JSON; without it"
        " nasbench_dataset/nasbench101.pickle where that is in place, else the embedded surrogate",
    )  # fmt: skip
    group.add_argument("--metric", choices=METRICS, default="test", help="the accuracy to search with")
    group.add_argument(
        "--lookup", choices=LOOKUPS, default="exact",
        help="exact: only the form that NAS-Bench-101 stores is in the table; isomorphic: any labelling",
    )  # fmt: skip


def add_method_options(group: argparse._ArgumentGroup) -> None:
    """How the tree is searched; a preset sets what is not given."""
    group.add_argument(
        "--preset", choices=PRESETS, default="original",
        help="sets the next four options where they are not given; tuned is ours",
    )  # fmt: skip
    group.add_argument(
        "--cp", type=CP_RANGE, default=argparse.SUPPRESS, help=f"exploration constant of UCT{in_presets('cp')}"
    )
    group.add_argument(
        "--backup", choices=BACKUPS, default=argparse.SUPPRESS,
        help="back up along the nodes that first created each node, or along the path walked" + in_presets("backup"),
    )  # fmt: skip
    group.add_argument(
        "--close-exhausted", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS,
        help="never select again what can give no new cell" + in_presets("close_exhausted"),
    )  # fmt: skip
    group.add_argument(
        "--guide", type=command.whole_number(0), default=argparse.SUPPRESS, metavar="N",
        help="predict what cells are worth by a linear model of the samples, and sample the most promising every N"
        " episodes; 0: sample every rollout" + in_presets("guide"),
    )  # fmt: skip


def add_run_options(group: argparse._ArgumentGroup) -> None:
    """When a search ends, and what it leaves behind."""
    group.add_argument(
        "--seed", type=command.whole_number(0),
        help="the same seed gives the same trace; without it a fresh one is drawn",
    )  # fmt: skip
    group.add_argument("--samples", type=command.whole_number(1), help="stop after so many unique samples")
    group.add_argument(
        "--patience", type=command.whole_number(1), default=PATIENCE, metavar="EPISODES",
        help="stop as stalled after so many episodes without a new sample",
    )  # fmt: skip
    group.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR",
        help="where the results go, and the search itself, to be resumed",
    )  # fmt: skip
    group.add_argument("--resume", action="store_true", help="go on with the search saved in --out")
    group.add_argument(
        "--save-every", type=command.number(0), metavar="SECONDS",
        help="save so often; without it as often as 5 %% of the time allow, the save at the end counted",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="print the outcome only")


def in_presets(option: str) -> str:
    """For the help: what the presets set an option to."""
    return f" ({', '.join(f'{preset}: {values[option]}' for preset, values in PRESETS.items())})"


def run_command(options, search_class: type["MCTS"], **search_options) -> int:
    """Search as the command line says, report, and write the results."""
    preset = PRESETS[options.preset]
    vars(options).update({**preset, **vars(options)})
    search_options.update({name: getattr(options, name) for name in preset})
    options.dataset = options.dataset or default_path()
    table = open_table(options.dataset)
    generator = arch_generator(options.max_nodes, options.max_edges)
    trainer = NetTrainer(table, generator, options.metric, options.lookup)
    prepare_folder(options.out)
    with checkpoint.Checkpoint(options.out, options.save_every) as saves:
        saved = saved_search(saves, options)
        seed = choose_seed(options, saved)
        search = search_class(trainer, seed, **search_options)
        saver = Saver(search, saves)
        if saved:
            saver.restore(*saved)
        else:
            saves.clear()
        if not options.quiet:
            print(banner(search, table, seed), flush=True)
        outcome = search_until_interrupted(search, saver, options)
        saver.save(outcome)
        summary = summarise(search, options, seed, outcome, saver.seconds)
        print(closing_words(summary, options.out, saves), *search.closing_lines(), sep="\n", flush=True)
        write_results(options.out, summary, options.resume)  # last: where it cannot, the outcome has been told
    return command.INTERRUPTED if outcome == "interrupted" else 0


def saved_search(saves: checkpoint.Checkpoint, options) -> checkpoint.Saved | None:
    """What is to be resumed; a search that could be resumed is not begun anew by mistake."""
    saved = saves.load()
    if options.resume:
        if saved is None:
            raise InputError(f"no search is saved in --out {options.out}; start one without --resume")
        return saved
    if saved is not None and saved[0].get("outcome") not in FINISHED:
        raise InputError(f"an unfinished search is saved in --out {options.out}; add --resume, or choose another --out")
    return None


def choose_seed(options, saved: checkpoint.Saved | None) -> int:
    """The wanted seed, else that of the saved search, else a fresh one."""
    if options.seed is not None:
        return options.seed
    if saved is None:
        return random.SystemRandom().randrange(2**32)
    try:
        return checkpoint.numbers([saved[0]["settings"]["seed"]], int, 0, math.inf, "seed")[0]
    except (LookupError, TypeError, ValueError) as error:
        raise checkpoint.damaged(error) from error


class Saver:
    """Saves a search now and then, with the time it has taken so far."""

    def __init__(self, search: "MCTS", saves: checkpoint.Checkpoint):
        self.search, self.saves, self.outcome = search, saves, None
        self._started = time.perf_counter()
        self._reported = ""

    @property
    def seconds(self) -> float:
        """Of this search, earlier parts included."""
        return time.perf_counter() - self._started

    def __call__(self) -> None:
        if self.saves.due and self.search.phase == "searching":  # a fit under way cannot be resumed
            self.save()

    def save(self, outcome: str | None = None) -> None:
        """Save; a failure is told once, and the search goes on."""
        self.outcome = outcome
        self.saves.save(self._saved)
        if self.saves.problem and self.saves.problem != self._reported:
            tqdm.write(f"warning: the search could not be saved: {self.saves.problem}", file=sys.stderr)
        self._reported = self.saves.problem

    def _saved(self) -> checkpoint.Saved:
        main, files = self.search.saved()
        return {**main, "outcome": self.outcome, "seconds": self.seconds}, files

    def restore(self, main: dict, files: dict[str, bytes]) -> None:
        """Take over a saved search."""
        self.search.restore(main, files)
        try:
            self._started -= checkpoint.numbers([main["seconds"]], float, 0, 1e12, "seconds")[0]
        except (LookupError, ValueError) as error:
            raise checkpoint.damaged(error) from error


def banner(search: "MCTS", table, seed: int) -> str:
    """What is about to be searched, where, and for what."""
    trainer, generator = search.trainer, search.generator
    lines = [
        f"table    {table.describe()}",
        f"domain   up to {generator.max_nodes} vertices and {generator.max_edges} edges,"
        f" {trainer.metric} accuracy, {trainer.lookup} lookup",
        f"target   {trainer.target_accuracy:.7f}  {describe(trainer.target)}",
        f"search   {search.describe()}, seed {seed}",
    ]
    if not trainer.target_is_listed:
        words = "the listed target is not the best cell of this table here: the table's own best is the target"
        lines.insert(3, f"         {words}")
    if search.root is not None:
        counts = f"{trainer.unique_samples:,} unique samples, {search.episodes:,} episodes"
        lines.append(f"resumed  at {counts}, {len(search.tree):,} tree nodes")
    return "\n".join(lines)


def describe(state: State | None) -> str:
    """A state as JSON, on one line."""
    return json.dumps(state.to_dict(), sort_keys=True) if state else "none"


def search_until_interrupted(search: "MCTS", saver: Saver, options) -> str:
    """Search with a progress line and saves; Ctrl-C and SIGTERM end it after the episode under way."""

    def stop(number, frame):
        search.stop_requested = True
        signal.signal(number, signal.default_int_handler)  # a second one ends it at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with Progress(search, options.samples, options.quiet) as progress:

        def report() -> None:
            progress()
            saver()

        search.report = report
        return search.search(options.samples, options.patience)


class Progress:
    """One line while a search runs: unique samples, samples per second, the best accuracy."""

    def __init__(self, search: "MCTS", samples: int | None, quiet: bool):
        self.search, self.due, self.phase = search, 0.0, search.phase
        options = {"file": sys.stderr, "mininterval": 0, "miniters": 0}  # how often is decided here
        silent, start = quiet or sys.stderr is None, search.trainer.unique_samples
        self.bar = tqdm(
            desc=search.phase, initial=start, total=samples, unit=" unique samples", disable=silent, **options
        )

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self.due or self.phase != self.search.phase:
            self.due, self.phase = now + PROGRESS_SECONDS, self.search.phase
            self.show()

    def show(self) -> None:
        self.bar.set_description_str(self.phase, refresh=False)
        self.bar.set_postfix_str(self.search.status(), refresh=False)
        self.bar.update(self.search.trainer.unique_samples - self.bar.n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.show()
        self.bar.close()


def summarise(search: "MCTS", options, seed: int, outcome: str, seconds: float) -> dict:
    """The content of summary.json."""
    trainer = search.trainer
    return {
        "method": search.method,
        "seed": seed,
        "max_nodes": search.generator.max_nodes,
        "max_edges": search.generator.max_edges,
        "dataset": "embedded surrogate" if Path(options.dataset) == EMBEDDED else str(options.dataset),
        "metric": trainer.metric,
        "lookup": trainer.lookup,
        "cp": search.cp,
        "outcome": outcome,
        "best_accuracy": trainer.best_accuracy,
        "best_network": trainer.best.to_dict() if trainer.best else None,
        "unique_samples": trainer.unique_samples,
        "lookups": trainer.counter,
        "episodes": search.episodes,
        "tree_nodes": len(search.tree),
        "seconds": round(seconds, 3),
        "trace": [list(pair) for pair in trainer.best_trace],
        "preset": options.preset,
        "backup": search.backup,
        "close_exhausted": search.close_exhausted,
        "guide": search.guide_every,
        **search.details(),
    }


def prepare_folder(folder: Path) -> None:
    """Create the results folder and see that it can be written to, before a search is spent on it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "result.txt", "a"):
            pass
        if (folder / "summary.json").is_dir():
            raise IsADirectoryError(None, "summary.json there is a folder")
    except OSError as error:
        raise InputError(f"cannot write to --out {folder}: {error.strerror}; choose another folder") from error


def write_results(folder: Path, summary: dict, resumed: bool) -> None:
    """summary.json of this search; for a finished one also a line appended to result.txt."""
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())
    if summary["outcome"] not in FINISHED:
        return
    path, line = folder / "result.txt", (json.dumps(summary["trace"]) + "\n").encode()
    try:
        lines = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; mend that and go on with --resume") from error
    if not (resumed and lines.endswith(line)):  # else it had ended before and was resumed once more
        write_atomically(path, lines + line)


FINISHED = ("found", "samples", "exhausted", "stalled")
OUTCOMES = {
    "found": "the target was found",
    "samples": "the wanted number of samples was reached before the target",
    "exhausted": "EXHAUSTED: every state is closed, the target was not found",
    "stalled": "STALLED: no new sample for --patience episodes, the target was not found",
    "interrupted": "interrupted by the user before the target was found",
}


def closing_words(summary: dict, folder: Path, saves: checkpoint.Checkpoint) -> str:
    """What a search ended with."""
    return (
        f"{summary['outcome']}: {OUTCOMES[summary['outcome']]}\n"
        f"best {summary['best_accuracy']:.7f}  {json.dumps(summary['best_network'], sort_keys=True)}\n"
        f"{summary['unique_samples']:,} unique samples, {summary['lookups']:,} lookups,"
        f" {summary['episodes']:,} episodes, {summary['tree_nodes']:,} tree nodes, {summary['seconds']:.1f} s;"
        f" seed {summary['seed']}; results in {folder}/\n"
        f"{saves.describe()}{'; go on with --resume' * (summary['outcome'] == 'interrupted' and not saves.problem)}"
    )
