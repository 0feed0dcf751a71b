"""One tree search with all that belongs to it: who answers, the method, the loop; saved, and resumed bit for bit."""

import math
from typing import Callable, Protocol

import checkpoint
from arch_generator import arch_generator
from driver import Driver, Outcome, Trainer
from history import History
from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from method import Announce, TreeMethod, silently
from options import SearchOptions, to_dict
from space import Space


class SearchTrainer(Trainer, Protocol):
    """Whoever answers a search: a table (``net_training.NetTrainer``) or trainings (``cell_trainer.CellTrainer``).

    Attributes
    ----------
    space, generator, lookup : Space, arch_generator, str
        Which cells there are, their limits, and how they are told apart.
    metric : str
        What the answers are: ``test`` or ``valid`` accuracy.
    target_accuracy : float or None
        What ends the search, if anything does.
    """

    space: Space
    generator: arch_generator
    lookup: str
    metric: str
    target_accuracy: float | None

    def accuracies_of(self, samples: list[int]) -> dict[int, float]:
        """The accuracies of the unique samples of a saved search; ValueError or InputError where they cannot be so."""

    def fingerprint(self) -> str:
        """SHA-256 of all that decides about the answers."""

    def describe(self) -> str:
        """What answers, for the banner."""

    def goal(self) -> list[str]:
        """What ends the search, for the banner."""

    def status(self, history: History, samples: int | None) -> str:
        """For the progress line."""

    def details(self, history: History) -> dict:
        """For summary.json."""

    def closing_lines(self, history: History) -> list[str]:
        """For the end."""


class Search:
    """A search with all that belongs to it.

    Parameters
    ----------
    trainer : SearchTrainer
        Who answers.
    method_class : type of TreeMethod
    seed : int
    options : SearchOptions
    announce : callable
        Told what is about to be done when that takes a while.
    target_accuracy : float, optional
        What ends the search, if not the trainer's.

    Attributes
    ----------
    method : TreeMethod
    history : History
        What was sampled.
    """

    def __init__(
        self,
        trainer: SearchTrainer,
        method_class: type[TreeMethod],
        seed: int,
        options: SearchOptions,
        announce: Announce = silently,
        target_accuracy: float | None = None,
    ):
        self.trainer, self.seed, self.options = trainer, seed, options
        self.method = method_class(trainer.space, seed, options, announce)
        target_accuracy = trainer.target_accuracy if target_accuracy is None else target_accuracy
        self._driver = Driver(self.method, trainer, target_accuracy, len(trainer.space.all_cells()))
        self.history = self._driver.history
        self._nodes_at_best: list[int] = []  # tree nodes at each new best

    def run(
        self, samples: int | None = None, patience: float = math.inf, report: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Search until something ends it; see ``Driver.run``."""
        nodes_at_best, best_trace = self._nodes_at_best, self.history.best_trace

        def note_and_report() -> None:
            while len(nodes_at_best) < len(best_trace):
                nodes_at_best.append(len(self.method.tree))
            report()

        return self._driver.run(samples, patience, note_and_report)

    def interrupt(self) -> None:
        """End the search after the step under way; can be called from a signal handler."""
        self._driver.interrupt()

    def settings(self) -> dict:
        """What has to be the same when a saved search is resumed."""
        generator = self.trainer.generator
        return {
            "method": self.method.name,
            "seed": self.seed,
            "max_nodes": generator.max_nodes,
            "max_edges": generator.max_edges,
            "metric": self.trainer.metric,
            "lookup": self.trainer.lookup,
            **to_dict(self.options),
            "table": self.trainer.fingerprint(),
            **self.method.settings(),
        }

    def to_save(self) -> checkpoint.Saved:
        """Everything that decides how the search goes on; to be called between two steps.

        Returns
        -------
        main : dict
            Settings, samples and counters, for JSON.
        files : dict of str to bytes
            The tree, and what else is large, by file name.
        """
        main, files = self.method.to_save()
        own = {
            "settings": self.settings(),
            "samples": list(self.history.training_trace),
            "failed": sorted(self.history.failed),
            "bests": self._bests(),
            "counter": self.history.counter,
            "episode_of_last_sample": self._driver.episode_of_last_sample,
        }
        return {**own, **main}, files

    def restore(self, main: dict, files: dict[str, bytes]) -> None:
        """Take over what ``to_save`` of another search gave; this one has to be new.

        Raises
        ------
        InputError
            If its settings differ from those here, or anything in it is not as ``to_save`` makes it.
        """
        try:
            self._compare_settings(main["settings"])
            self._restore(main, files)
        except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError) as error:
            raise checkpoint.damaged(error) from error
        except (TypeError, ValueError) as error:
            raise checkpoint.damaged(error) from error

    def _bests(self) -> list[list]:
        """Each new best: its accuracy, the unique samples and the tree nodes at that moment."""
        return [[*best, nodes] for best, nodes in zip(self.history.best_trace, self._nodes_at_best)]

    def _compare_settings(self, theirs: dict) -> None:
        defaults = to_dict(type(self.options)())  # of options that the version that saved it did not have
        for name, here in self.settings().items():
            there = theirs[name] if name in theirs or name not in defaults else defaults[name]
            if there != here or type(there) is not type(here):
                words = f"its {name} is {printable(there, 60)}, not {here}"
                words = "its table is another one" if name == "table" else words
                raise InputError(f"the saved search cannot be resumed so: {words}; choose the same, or another --out")

    def _restore(self, main: dict, files: dict[str, bytes]) -> None:
        names = "counter", "episodes", "episode_of_last_sample"
        counter, episodes, last = checkpoint.numbers([main[name] for name in names], int, 0, 2**53, "counters")
        if last > episodes:
            raise ValueError("the last sample lies ahead")
        everything = 0, cells.cell_count() - 1
        indices = checkpoint.numbers(main["samples"], int, *everything, "samples")
        failed = checkpoint.numbers(main.get("failed", []), int, *everything, "failed")
        nodes_at_best = [nodes for *_, nodes in main["bests"]]
        self._nodes_at_best = checkpoint.numbers(nodes_at_best, int, 1, 2**53, "bests")
        samples = self.trainer.accuracies_of(indices)
        self.method.restore(main, files, samples)
        dangling = self.method.dangling_nodes
        if any(samples.get(self.trainer.space.index(cell)) != accuracy for cell, accuracy in dangling.items()):
            raise ValueError("dangling_nodes: a cell that is no sample")
        self._driver.restore(samples, set(failed), counter, last)
        if main["bests"] != self._bests() or nodes_at_best != sorted(nodes_at_best):
            raise ValueError("bests: not those of the samples")
