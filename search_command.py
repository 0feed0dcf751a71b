"""From the options of a search's command line to its results: banner, progress line, saves, summary.

What is searched by is a class handed in, ``MCTS`` or one derived from it; nothing here knows how it searches.
"""

import argparse
import json
import os
import random
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Iterator

from tqdm import tqdm

import checkpoint
import training_options
from arch_generator import arch_generator
from method import TreeMethod, silently
from nasbench_dataset import InputError, command
from nasbench_dataset.opening import open_table
from nasbench_dataset.files import LONGEST_NUMBER, printable, write_atomically
from nasbench_dataset.signals import catch_signals
from nasbench_dataset.table import METRICS, default_path
from noisy_trainer import NoisyTrainer, metric_of, trainer_by
from options import Options, add_options, from_arguments
from search import Search, SearchTrainer
from search_results import FINISHED, SUMMARIES, SUMMARY, TRACES
from search_results import check_results, result_files, summarise, summary_file
from space import LOOKUPS

PATIENCE = 100_000  # episodes without a new sample after which a search counts as stalled
PROGRESS_SECONDS = 0.2, 10.0  # between two updates of the progress line on a terminal, and elsewhere: in a log
OUTCOMES = {
    "found": "the target was found",
    "samples": "the wanted number of samples was reached before the target",
    "exhausted": "EXHAUSTED: every state is closed, the target was not found",
    "stalled": "STALLED: no new sample for --patience episodes, the target was not found",
    "interrupted": "interrupted by the user before the target was found",
}
WITHOUT_TARGET = {
    "samples": "the wanted number of samples was reached",
    "exhausted": "EXHAUSTED: every state is closed",
    "stalled": "STALLED: no new sample for --patience episodes",
    "interrupted": "interrupted by the user",
}


def build_parser(description: str, options: Options) -> command.Parser:
    """The options of a command that searches in a way that has ``options``."""
    parser = command.Parser(description=description)
    add_space_options(parser.add_argument_group("what is searched"))
    add_options(parser.add_argument_group("how it is searched"), options)
    training_options.add_options(parser)
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
    group.add_argument("--metric", choices=METRICS, help="the accuracy to search with; test, with --train valid")
    group.add_argument(
        "--noisy", action="store_true", help="answer with one of a cell's three runs, drawn by --seed, not their mean"
    )
    group.add_argument(
        "--lookup", choices=LOOKUPS,
        help="exact: only the form that NAS-Bench-101 stores is in the table; isomorphic: any labelling; exact, with"
        " --train isomorphic",
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
    group.add_argument("--resume", action="store_true", help="go on with the search saved in --out, if any")
    group.add_argument(
        "--save-every", type=command.number(0), metavar="SECONDS",
        help="save so often; without it as often as 5 %% of the time allow, the save at the end counted",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="print the outcome only")


def run_command(arguments: argparse.Namespace, method_class: type[TreeMethod], options: Options) -> int:
    """Search as the command line says, report, and write the results; returns the exit status.

    Parameters
    ----------
    arguments : Namespace
        The command line.
    method_class, options : type of TreeMethod, type of SearchOptions
        How it searches, and the options of that.

    Raises
    ------
    InputError
        If the search cannot begin, or its results could not be written; then its outcome has been told.
    """
    generator = arch_generator(arguments.max_nodes, arguments.max_edges)
    progress = Progress(arguments.samples, arguments.quiet)
    with ExitStack() as stack:
        saves, trainer = open_trainer(arguments, generator, stack)
        saved = saved_search(saves, arguments)
        seed = choose_seed(arguments, saved)
        if isinstance(trainer, NoisyTrainer):
            trainer.draw(seed)
        search = Search(trainer, method_class, seed, from_arguments(options, arguments), progress.announce)
        saver = Saver(search, saves, arguments)
        if saved:
            saver.restore(*saved)
        stop_when_asked(search, arguments.quiet)
        if not arguments.quiet:
            print(banner(search, resumed=saved is not None), flush=True)
            if arguments.resume and not saved:
                print(f"begun    no search is saved in {printable(arguments.out)}, so this one begins", flush=True)
        with progress.of(search):
            outcome = search.run(arguments.samples, arguments.patience, lambda: (progress(), saver()))
        try:
            saver.finish(outcome.value)
        finally:  # where the results could not be written, the outcome is told nevertheless
            print(closing_words(saver, arguments.out), *search.method.closing_lines(), sep="\n", flush=True)
        if outcome.finished and getattr(arguments, "keep_best", False):
            print(training_options.keep_best(trainer, search.history, arguments.out))
    return 0 if outcome.finished else command.INTERRUPTED


def open_trainer(
    arguments: argparse.Namespace, generator: arch_generator, stack: ExitStack
) -> tuple[checkpoint.Checkpoint, SearchTrainer]:
    """Who answers, and the saves of the folder, which is made now; what can be wrong with the input is seen before."""
    if training_options.wanted(arguments):
        arguments.metric, arguments.lookup = "valid", arguments.lookup or "isomorphic"
        data = training_options.load_for(arguments, generator)
    else:
        arguments.metric, arguments.lookup = metric_of(arguments), arguments.lookup or "exact"
        arguments.dataset = arguments.dataset or default_path()
        trainer = trainer_by(open_table(arguments.dataset), generator, arguments.metric, arguments.lookup)
    prepare_folder(arguments)
    saves = stack.enter_context(checkpoint.Checkpoint(arguments.out, arguments.save_every))
    if hasattr(arguments, "train"):
        warn = silently if arguments.quiet else partial(tqdm.write, file=sys.stderr)
        trainer = stack.enter_context(training_options.training(arguments, data, generator, warn))
        saves.save_soon()  # so that the seed is kept, which tells what trainings were made for
    return saves, trainer


def prepare_folder(arguments: argparse.Namespace) -> None:
    """Create the results folder and see that it can be written to, before a search is spent on it."""
    folder = arguments.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(None, "it cannot be written to")
        checkpoint.check_names(folder)
        with open(folder / TRACES, "a"):
            pass
        check_results(folder)
    except OSError as error:
        raise InputError(f"cannot write to --out {folder}: {error.strerror}; choose another folder") from error


def saved_search(saves: checkpoint.Checkpoint, arguments: argparse.Namespace) -> checkpoint.Saved | None:
    """What is to be resumed; a search that could be resumed is not begun anew by mistake.

    One that has ended stays, whole, until a new one saves itself for the first time. Where nothing is saved there is
    nothing to be resumed and a search begins, so that whoever restarts a killed job needs one command line. A search
    that trains is resumed by the command that began it: its trainings are in the store in any case.
    """
    saved = saves.load()
    unfinished = saved is not None and saved[0].get("outcome") not in FINISHED
    if arguments.resume or unfinished and hasattr(arguments, "train"):
        return saved
    if unfinished:
        where = f"an unfinished search is saved in --out {arguments.out}"
        raise InputError(f"{where}; add --resume, or choose another --out")
    return None


def choose_seed(arguments: argparse.Namespace, saved: checkpoint.Saved | None) -> int:
    """The wanted seed, else that of the saved search, else a fresh one."""
    if arguments.seed is not None:
        return arguments.seed
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
    search : Search
    saves : Checkpoint
    arguments : Namespace
        The command line.

    Attributes
    ----------
    summary : dict
        As of the last save.
    written : bool
        Whether the folder has the results of the end.
    """

    def __init__(self, search: Search, saves: checkpoint.Checkpoint, arguments: argparse.Namespace):
        self.search, self.saves, self.arguments = search, saves, arguments
        self.summary, self.written = {}, False
        self._started = time.perf_counter()
        self._told = ""  # the problem with saving that the user knows of
        self._resumed = False
        self._reported: int | None = None  # unique samples when this search had ended before and got its lines

    def __call__(self) -> None:
        """Save if it is time to."""
        if self.saves.due:
            self.summary = self._summarise("unfinished")
            self._save(None, result_files(self.arguments.out, self.summary, None))

    def finish(self, outcome: str) -> None:
        """Save with the results.

        Raises
        ------
        InputError
            If any of the results could not be written.
        """
        self.summary = self._summarise(outcome)
        try:
            results, unreadable = result_files(self.arguments.out, self.summary, self._reported), None
        except OSError as error:
            results, unreadable = {SUMMARY: summary_file(self.summary)}, error
        if TRACES in results:
            self._reported = self.summary["unique_samples"]
        self._save(outcome, results)
        if unreadable:
            names = f"{TRACES} or {SUMMARIES} in {self.arguments.out}"
            raise InputError(f"cannot read {names}: {unreadable.strerror}; mend that and go on with --resume")
        if self.saves.problem:
            self._write_unsaved(results)
        else:
            self.written = True

    def restore(self, main: dict, files: dict[str, bytes]) -> None:
        """Take over a saved search; InputError where it is damaged or another one."""
        self.search.restore(main, files)
        samples = self.search.history.unique_samples
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
        return summarise(self.search, self.arguments, outcome, time.perf_counter() - self._started)

    def _save(self, outcome: str | None, results: dict[str, bytes]) -> None:
        """Save; a failure is told once, and the search goes on."""

        def saved() -> checkpoint.Saved:
            main, files = self.search.to_save()
            own = {"outcome": outcome, "seconds": self.summary["seconds"], "reported": self._reported}
            return {**main, **own}, {**files, **results}

        self.saves.save(saved)
        if self.saves.problem and self.saves.problem != self._told:
            tqdm.write(f"warning: the search could not be saved: {self.saves.problem}", file=sys.stderr)
        self._told = self.saves.problem

    def _write_unsaved(self, results: dict[str, bytes]) -> None:
        """Write what can be told of a search whose end could not be saved, and contradicts no save that is there."""
        folder = self.arguments.out
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


def banner(search: Search, resumed: bool) -> str:
    """What is about to be searched, where, and for what."""
    trainer, history, method = search.trainer, search.history, search.method
    lines = [
        trainer.describe(),
        f"domain   up to {trainer.generator.max_nodes} vertices and {trainer.generator.max_edges} edges,"
        f" {trainer.metric} accuracy, {trainer.lookup} lookup",
        *trainer.goal(),
        f"search   {method.name}, {search.options.in_words()}, seed {search.seed}",
    ]
    if resumed:
        counts = f"{history.unique_samples:,} unique samples, {method.episodes:,} episodes"
        lines.append(f"resumed  at {counts}, {len(method.tree):,} tree nodes")
    return "\n".join(lines)


def stop_when_asked(search: Search, quiet: bool) -> None:
    """From now on Ctrl-C, SIGTERM and a closed terminal end the search after the episode under way."""
    after_the_progress_line = "" if quiet else "\n"
    last_words = after_the_progress_line + "interrupted twice: ended at once, as of the last save"
    catch_signals(search.interrupt, last_words)


class Progress:
    """One line while a search runs: unique samples, samples per second, the best accuracy.

    Parameters
    ----------
    samples : int, optional
        How many there will be.
    quiet : bool
        No line.
    """

    def __init__(self, samples: int | None, quiet: bool):
        self._samples, self._quiet, self._due = samples, quiet, 0.0
        self._pause = PROGRESS_SECONDS[0 if sys.stderr.isatty() else 1]
        self._bar: tqdm | None = None
        self._search: Search | None = None

    @contextmanager
    def of(self, search: Search) -> Iterator[None]:
        """Show the line within."""
        options = {"file": sys.stderr, "mininterval": 0, "miniters": 0}  # how often is decided here
        options |= {"unit": " unique samples", "disable": self._quiet, "total": self._samples}
        self._search = search
        self._bar = tqdm(desc="searching", initial=search.history.unique_samples, **options)
        try:
            yield
        finally:
            self._show()
            self._bar.close()

    def __call__(self) -> None:
        """Update the line if it is time to."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._pause
            self._show()

    def announce(self, phase: str) -> None:
        """Say what is being done now."""
        if self._bar is not None:
            self._bar.set_description_str(phase, refresh=False)
            self._show()

    def _show(self) -> None:
        history, method = self._search.history, self._search.method
        answers = self._search.trainer.status(history, self._samples)
        status = f"best {history.best_accuracy:.7f}, {method.episodes:,} episodes{method.status()}{answers}"
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(history.unique_samples - self._bar.n)


def closing_words(saver: Saver, folder: Path) -> str:
    """What a search ended with."""
    summary, saves = saver.summary, saver.saves
    outcome = summary["outcome"]
    where = f"; results in {printable(folder)}/" if saver.written else ""
    advice = "; go on with --resume" if outcome == "interrupted" and not saves.problem else ""
    trainer, history = saver.search.trainer, saver.search.history
    meaning = OUTCOMES[outcome] if trainer.target_accuracy is not None else WITHOUT_TARGET[outcome]
    return (
        f"{outcome}: {meaning}\n"
        f"best {summary['best_accuracy']:.7f}  {json.dumps(summary['best_network'], sort_keys=True)}\n"
        f"{summary['unique_samples']:,} unique samples, {summary['lookups']:,} lookups,"
        f" {summary['episodes']:,} episodes, {summary['tree_nodes']:,} tree nodes, {summary['seconds']:.1f} s;"
        f" seed {summary['seed']}{where}\n"
        + "".join(f"{line}\n" for line in trainer.closing_lines(history))
        + f"{saves.describe()}{advice}"
    )
