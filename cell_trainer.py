"""Answers the questions of a search by training networks, or from the store of trainings. Knows no trees, no Keras.

A training is in the store before the search is told of it, and what is there is not made again. A question is never
answered at once, and the answers come one by one, in the order in which their trainings came into the store. So what a
search asks next depends on that order alone: begun anew after a kill, it asks for the same cells, is answered from the
store as far as that goes, and goes on from there.
"""

import heapq
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Callable

from arch_generator import arch_generator
from driver import LATER, Later
from history import History
from method import FAILED, Answer, Question
from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from space import Space
from training import TRAINED, Training, crashed, fingerprint
from training_crew import MOST_TRIES, Crew, refused
from training_data import Data
from training_job import Job, run
from training_recipe import Recipe
from training_store import TrainingStore

POLL_SECONDS = 0.2  # of a wait for trainings, until whoever waits may look at something else


class CellTrainer:
    """Trains each cell that it is asked for.

    Parameters
    ----------
    data : Data
    source : str
        Where workers load the data from.
    recipe : Recipe
    seed : int
        Of all trainings: a cell has one accuracy.
    store : TrainingStore
    crew : Crew
        Who makes the trainings.
    generator, lookup : arch_generator, str
        The limits of the cells; whether any labelling of a cell counts.
    limit : float
        Seconds after which a training has failed.
    retry_failed : bool
        Whether trainings that had failed before this search are made again.
    warn : callable
        Told in a line of a training that has failed.

    Attributes
    ----------
    space : Space
        All cells within the limits.
    target_accuracy : None
        No accuracy ends the search.
    made, known : int
        Trainings that were made in this run, failed ones included; that the store had.
    """

    metric = "valid"  # all that the search is told
    target_accuracy = None

    def __init__(
        self,
        data: Data,
        source: str,
        recipe: Recipe,
        seed: int,
        store: TrainingStore,
        crew: Crew,
        generator: arch_generator,
        lookup: str = "isomorphic",
        limit: float = float("inf"),
        retry_failed: bool = False,
        warn: Callable[[str], None] = lambda line: None,
    ):
        self.data, self.source, self.recipe, self.seed = data, source, recipe, seed
        self.store, self.crew, self.generator, self.lookup, self.limit = store, crew, generator, lookup, limit
        self.space = Space(generator, lookup)
        self.at_once = crew.at_once
        self.made, self.known = 0, 0
        self._seconds = 0.0
        self._warn = warn
        self._again = store.failed(recipe, data.digest, seed) if retry_failed else set()
        self._ready: list[tuple[int, int, Question, Training]] = []  # by the place in the store
        self._futures: dict[Future, tuple[Question, int, float]] = {}  # with the number of the try, and its start
        self._elsewhere: list[Question] = []  # another process is at their trainings

    @property
    def under_way(self) -> int:
        """How many trainings are being made now."""
        return len(self._futures) + len(self._elsewhere)

    def train_net(self, question: Question) -> Later:
        """Have a cell trained, unless the store has its training."""
        if not self._from_store(question) and not self._begin(question):
            self._elsewhere.append(question)
        return LATER

    def collect(self, block: bool) -> list[tuple[Question, Answer]]:
        """The next answer, where it is waited for, if it comes within a moment: asking takes no time."""
        if not block:
            return []
        if not self._ready:
            self._wait()
        if not self._ready:
            return []
        _, _, question, training = heapq.heappop(self._ready)
        return [(question, FAILED if training.accuracy is None else training.accuracy)]

    def accuracies_of(self, samples: list[int]) -> dict[int, float]:
        """The accuracies of the unique samples of a saved search, by their indices.

        Raises
        ------
        ValueError
            If a sample is outside the limits or comes twice.
        InputError
            If the store lacks one.
        """
        if not self.space.are_different_cells(samples):
            raise ValueError("samples: not different cells of the table")
        found = {index: self.training_of(index) for index in samples}
        missing = [index for index, training in found.items() if training is None or training.accuracy is None]
        if missing:
            raise InputError(
                f"{self.store.path} lacks the training of cell {missing[0]}, which the saved search has made;"
                " name the --store of that search, or choose another --out"
            )
        return {index: training.accuracy for index, training in found.items()}

    def training_of(self, index: int) -> Training | None:
        """The training of a cell by its index; None where the store has none."""
        found = self.store.find(*self._key(index))
        return found and found[1]

    def test_accuracy(self, index: int) -> float | None:
        """The test accuracy of a cell that was trained; None where the data have no test part."""
        training = self.training_of(index)
        return training and training.test

    def fingerprint(self) -> str:
        """SHA-256 of what decides about accuracies: recipe, data, seed."""
        return fingerprint(self.recipe, self.data.digest, self.seed)

    def job(self, index: int) -> Job:
        """The training of a cell, by its index, as a worker needs it."""
        return Job(index, self.recipe, self.source, self.data.digest, self.seed, self.limit)

    # --- in words -------------------------------------------------------------------------------

    def describe(self) -> str:
        """What answers, for the banner."""
        parts = ("validation", self.data.valid), ("test", self.data.test)
        others = [f"{len(part.labels):,} for {name}" for name, part in parts if part]
        counts = [f"{len(self.data.train.labels):,} images", *others]
        about = f"{printable(self.data.name)}, {self.data.classes} classes, {', '.join(counts)}"
        return (
            f"training {about}; {self.crew.name}\n"
            f"recipe   {self.recipe.canonical()}\n"
            f"store    {printable(self.store.path)}, {len(self.store):,} trainings"
        )

    def goal(self) -> list[str]:
        """What ends the search, for the banner."""
        return ["target   none: the best validation accuracy, until --samples trainings are made"]

    def status(self, history: History, samples: int | None) -> str:
        """For the progress line: trainings under way, failed, and the time that is left by their mean duration."""
        words = f", {self.under_way} under way, {len(history.failed)} failed"
        if not samples or not self.made:
            return words
        left = max(samples - history.cost, 0) * self._seconds / self.made / self.at_once
        return f"{words}, about {int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02} left"

    def details(self, history: History) -> dict:
        """For summary.json."""
        best = self.training_of(best_index(history)) if history.best else None
        return {
            "test_accuracy": best and best.test,
            "parameters": best and best.parameters,
            "training": {
                "data": self.data.name,
                "data_sha256": self.data.digest,
                "recipe": self.recipe.canonical(),
                "seed": self.seed,
                "store": str(self.store.path),
                "failed": len(history.failed),
                "made": self.made,
                "seconds": round(self._seconds, 3),
            },
        }

    def closing_lines(self, history: History) -> list[str]:
        """For the end: what was trained, and the test accuracy of the best cell."""
        mean = f", {self._seconds / self.made:.2f} s each" if self.made else ""
        failed = f", {len(history.failed)} failed" if history.failed else ""
        counts = f"{self.made:,} trained{mean}{failed}, {self.known:,} from {printable(self.store.path)}"
        if not history.best:
            return [f"no training has succeeded; {counts}"]
        test = self.test_accuracy(best_index(history))
        words = "the data have no test part" if test is None else f"test accuracy of the best cell {test:.7f}"
        return [f"{words}; {counts}"]

    # --- trainings ------------------------------------------------------------------------------

    def _key(self, index: int) -> tuple[int, Recipe, str, int]:
        return index, self.recipe, self.data.digest, self.seed

    def _from_store(self, question: Question) -> bool:
        """Answer from the store if that has the training."""
        found = self.store.find(*self._key(question.index)) if question.index not in self._again else None
        if found:
            self.known += 1
            self._answer(question, *found)
        return found is not None

    def _answer(self, question: Question, place: int, training: Training) -> None:
        heapq.heappush(self._ready, (place, question.index, question, training))

    def _begin(self, question: Question) -> bool:
        """Hand a training to the crew, unless another process is at it or has just made it."""
        if not self.store.claim(*self._key(question.index)):
            return False
        if self._from_store(question):
            self.store.release(*self._key(question.index))
        else:
            self._submit(question, 1)
        return True

    def _submit(self, question: Question, number: int) -> None:
        self._futures[self.crew.submit(run, self.job(question.index))] = question, number, time.monotonic()

    def _wait(self) -> None:
        """Wait a moment for trainings, and put those that have ended into the store."""
        for question in self._elsewhere[:]:
            if self._from_store(question) or self._begin(question):
                self._elsewhere.remove(question)
        if self._futures:
            wait(self._futures, POLL_SECONDS, FIRST_COMPLETED)
        elif not self._ready:
            time.sleep(POLL_SECONDS)
        for future in [future for future in self._futures if future.done()]:
            self._take(future, *self._futures.pop(future))

    def _take(self, future: Future, question: Question, number: int, started: float) -> None:
        """Keep the training that has ended, or have it made again if its worker has died."""
        training = self._training(future, question, number, time.monotonic() - started)
        if training is None:
            self._submit(question, number + 1)
            return
        self.store.put(training)
        self.store.release(*self._key(question.index))
        self._again.discard(question.index)
        self.made, self._seconds = self.made + 1, self._seconds + time.monotonic() - started
        if training.outcome != TRAINED:
            self._warn(f"cell {question.index}: {training.outcome}: {training.reason}")
        place, _ = self.store.find(*self._key(question.index))
        self._answer(question, place, training)

    def _training(self, future: Future, question: Question, number: int, seconds: float) -> Training | None:
        """What a worker has returned; None where it died and is not to blame yet."""
        try:
            return future.result()
        except InputError:
            raise
        except self.crew.lost as error:
            if number < MOST_TRIES:
                return None
            reason = f"its worker died {MOST_TRIES} times ({error or type(error).__name__})"
        except Exception as error:  # a library can raise anything; the next cell may do better
            if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError):
                raise refused(error) from error
            reason = f"{type(error).__name__}: {error}"
        return crashed(question.index, self.recipe, self.data, self.seed, reason, seconds)


def best_index(history: History) -> int:
    """The index of the best cell sampled so far, which is in stored form."""
    return cells.index(history.best.operations, history.best.edges)
