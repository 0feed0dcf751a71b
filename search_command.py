"""From the options of a search's command line to its results: banner, progress line, saves, summary.

What is searched by is a class handed in, ``MCTS`` or one derived from it; nothing here knows how it searches.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

import checkpoint
from arch_generator import State, arch_generator
from nasbench_dataset import InputError, command
from nasbench_dataset.convert import open_table
from nasbench_dataset.files import LONGEST_NUMBER, printable, write_atomically
from nasbench_dataset.signals import catch_signals
from nasbench_dataset.table import METRICS, default_path
from net_training import LOOKUPS, NetTrainer
from search_results import FINISHED, SUMMARIES, SUMMARY, TRACES, result_files, summarise, summary_file

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
OUTCOMES = {
    "found": "the target was found",
    "samples": "the wanted number of samples was reached before the target",
    "exhausted": "EXHAUSTED: every state is closed, the target was not found",
    "stalled": "STALLED: no new sample for --patience episodes, the target was not found",
    "interrupted": "interrupted by the user before the target was found",
}


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
        "--dataset", type=command.path, metavar="PATH",
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
        "--out", type=command.path, default=Path("results"), metavar="DIR",
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
    """Search as the command line says, report, and write the results; returns the exit status.

    Raises
    ------
    InputError
        If the search cannot begin, or its results could not be written; then its outcome has been told.
    """
    preset = PRESETS[options.preset]
    vars(options).update({**preset, **vars(options)})
    search_options.update({name: getattr(options, name) for name in preset})
    options.dataset = options.dataset or default_path()
    table = open_table(options.dataset)
    generator = arch_generator(options.max_nodes, options.max_edges)
    trainer = NetTrainer(table, generator, options.metric, options.lookup)
    prepare_folder(options)
    with checkpoint.Checkpoint(options.out, options.save_every) as saves:
        saved = saved_search(saves, options)
        options.seed = choose_seed(options, saved)
        search = search_class(trainer, options.seed, **search_options)
        saver = Saver(search, saves, options)
        if saved:
            saver.restore(*saved)
        stop_when_asked(search, options.quiet)
        if not options.quiet:
            print(banner(search, table, options.seed), flush=True)
        outcome = search_with_progress(search, saver, options)
        try:
            saver.finish(outcome)
        finally:  # where the results could not be written, the outcome is told nevertheless
            print(closing_words(saver, options.out), *search.closing_lines(), sep="\n", flush=True)
    return command.INTERRUPTED if outcome == "interrupted" else 0


def prepare_folder(options) -> None:
    """Create the results folder and see that it can be written to, before a search is spent on it."""
    folder = options.out
    try:
        if options.resume and not folder.exists():
            raise nothing_saved(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(None, "it cannot be written to")
        checkpoint.check_names(folder)
        with open(folder / TRACES, "a"):
            pass
    except OSError as error:
        raise InputError(f"cannot write to --out {folder}: {error.strerror}; choose another folder") from error


def saved_search(saves: checkpoint.Checkpoint, options) -> checkpoint.Saved | None:
    """What is to be resumed; a search that could be resumed is not begun anew by mistake.

    One that has ended stays, whole, until a new one saves itself for the first time.
    """
    saved = saves.load()
    if options.resume:
        if saved is None:
            raise nothing_saved(options.out)
        return saved
    if saved is not None and saved[0].get("outcome") not in FINISHED:
        raise InputError(f"an unfinished search is saved in --out {options.out}; add --resume, or choose another --out")
    return None


def nothing_saved(folder: Path) -> InputError:
    """The error for a folder in which there is nothing to be resumed."""
    return InputError(f"no search is saved in --out {folder}; start one without --resume")


def choose_seed(options, saved: checkpoint.Saved | None) -> int:
    """The wanted seed, else that of the saved search, else a fresh one."""
    if options.seed is not None:
        return options.seed
    if saved is None:
        return random.SystemRandom().randrange(2**32)
    try:
        return checkpoint.numbers([saved[0]["settings"]["seed"]], int, 0, 10**LONGEST_NUMBER - 1, "seed")[0]
    except (LookupError, TypeError, ValueError) as error:
        raise checkpoint.damaged(error) from error


class Saver:
    """Saves a search with its summary, now and then, and at the end with its results.

    Parameters
    ----------
    search : MCTS
    saves : Checkpoint
    options
        Of the command line, ``seed`` being the one in use.

    Attributes
    ----------
    summary : dict
        As of the last save.
    written : bool
        Whether the folder has the results of the end.
    """

    def __init__(self, search: "MCTS", saves: checkpoint.Checkpoint, options):
        self.search, self.saves, self.options = search, saves, options
        self.summary, self.written = {}, False
        self._started = time.perf_counter()
        self._told = ""  # the problem with saving that the user knows of
        self._resumed = False
        self._reported: int | None = None  # unique samples when this search had ended before and got its lines

    def __call__(self) -> None:
        """Save if it is time to."""
        if self.saves.due and self.search.phase == "searching":  # a fit under way cannot be resumed
            self.summary = self._summarise("unfinished")
            self._save(None, result_files(self.options.out, self.summary, None))

    def finish(self, outcome: str) -> None:
        """Save with the results.

        Raises
        ------
        InputError
            If any of the results could not be written.
        """
        self.summary = self._summarise(outcome)
        try:
            results, unreadable = result_files(self.options.out, self.summary, self._reported), None
        except OSError as error:
            results, unreadable = {SUMMARY: summary_file(self.summary)}, error
        if TRACES in results:
            self._reported = self.summary["unique_samples"]
        self._save(outcome, results)
        if unreadable:
            names = f"{TRACES} or {SUMMARIES} in {self.options.out}"
            raise InputError(f"cannot read {names}: {unreadable.strerror}; mend that and go on with --resume")
        if self.saves.problem:
            self._write_unsaved(results)
        else:
            self.written = True

    def restore(self, main: dict, files: dict[str, bytes]) -> None:
        """Take over a saved search; InputError where it is damaged or another one."""
        self.search.restore(main, files)
        samples = self.search.trainer.unique_samples
        try:
            self._started -= checkpoint.numbers([main["seconds"]], float, 0, 1e12, "seconds")[0]
            # A save of an earlier version does not have it.
            reported = main.get("reported", samples if main["outcome"] in FINISHED else None)
            if reported is not None:
                self._reported = checkpoint.numbers([reported], int, 0, samples, "reported")[0]
        except (LookupError, TypeError, ValueError) as error:
            raise checkpoint.damaged(error) from error
        self._resumed = True

    def _summarise(self, outcome: str) -> dict:
        return summarise(self.search, self.options, outcome, time.perf_counter() - self._started)

    def _save(self, outcome: str | None, results: dict[str, bytes]) -> None:
        """Save; a failure is told once, and the search goes on."""

        def saved() -> checkpoint.Saved:
            main, files = self.search.saved()
            own = {"outcome": outcome, "seconds": self.summary["seconds"], "reported": self._reported}
            return {**main, **own}, {**files, **results}

        self.saves.save(saved)
        if self.saves.problem and self.saves.problem != self._told:
            tqdm.write(f"warning: the search could not be saved: {self.saves.problem}", file=sys.stderr)
        self._told = self.saves.problem

    def _write_unsaved(self, results: dict[str, bytes]) -> None:
        """Write what can be told of a search whose end could not be saved, and contradicts no save that is there."""
        folder = self.options.out
        if self._resumed or self.saves.saves:  # from its last save it will come to its end, and its lines, again
            names, advice = [SUMMARY], "make room and go on with --resume"
        elif (folder / checkpoint.MAIN).exists():
            names, advice = [TRACES, SUMMARIES], f"{folder} keeps the search before, but its line is in {SUMMARIES}"
        else:
            names, advice = [*results], ""
        for name in names:
            if name in results:
                write_atomically(folder / name, results[name])
        if advice and TRACES in results:
            raise InputError(f"the end of the search could not be saved: {self.saves.problem}; {advice}")
        self.written = SUMMARY in names


def banner(search: "MCTS", table, seed: int) -> str:
    """What is about to be searched, where, and for what."""
    trainer, generator = search.trainer, search.generator
    lines = [
        f"table    {printable(table.describe())}",
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


def stop_when_asked(search: "MCTS", quiet: bool) -> None:
    """From now on Ctrl-C, SIGTERM and a closed terminal end the search after the episode under way."""

    def stop() -> None:
        search.stop_requested = True

    after_the_progress_line = "" if quiet else "\n"
    catch_signals(stop, after_the_progress_line + "interrupted twice: ended at once, as of the last save")


def search_with_progress(search: "MCTS", saver: Saver, options) -> str:
    """Search with a progress line and saves; returns the outcome."""
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
        start = search.trainer.unique_samples
        self.bar = tqdm(
            desc=search.phase, initial=start, total=samples, unit=" unique samples", disable=quiet, **options
        )

    def __call__(self) -> None:
        """Update the line if it is time to."""
        now = time.monotonic()
        if now >= self.due or self.phase != self.search.phase:
            self.due, self.phase = now + PROGRESS_SECONDS, self.search.phase
            self.show()

    def show(self) -> None:
        """Update the line."""
        self.bar.set_description_str(self.phase, refresh=False)
        self.bar.set_postfix_str(self.search.status(), refresh=False)
        self.bar.update(self.search.trainer.unique_samples - self.bar.n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.show()
        self.bar.close()


def closing_words(saver: Saver, folder: Path) -> str:
    """What a search ended with."""
    summary, saves = saver.summary, saver.saves
    outcome = summary["outcome"]
    where = f"; results in {folder}/" if saver.written else ""
    advice = "; go on with --resume" if outcome == "interrupted" and not saves.problem else ""
    return (
        f"{outcome}: {OUTCOMES[outcome]}\n"
        f"best {summary['best_accuracy']:.7f}  {json.dumps(summary['best_network'], sort_keys=True)}\n"
        f"{summary['unique_samples']:,} unique samples, {summary['lookups']:,} lookups,"
        f" {summary['episodes']:,} episodes, {summary['tree_nodes']:,} tree nodes, {summary['seconds']:.1f} s;"
        f" seed {summary['seed']}{where}\n"
        f"{saves.describe()}{advice}"
    )
