"""The one loop of every search: ask the method, have the question answered, tell the method, see whether to stop.

Where the answers come from, the method does not know: a ``Trainer`` gives them at once (``net_training.NetTrainer``,
from a table) or later and in any order, while up to ``at_once`` of them are worked on. What was asked before is
answered from the history, and a cell that is being answered is not handed over again: whoever asks for it, too, waits
for that answer.
"""

import math
from collections import deque
from enum import Enum
from typing import Callable, Protocol

from history import History
from method import EXHAUSTED, FAILED, NO_QUESTION, NOT_IN_DATA_SET, WAITING
from method import Answer, Method, NoAccuracy, Nothing, Question
from nasbench_dataset import cells

FRUITLESS = 10_000  # times a method is asked in vain before the answers under way are waited for


class Outcome(str, Enum):
    """What ended a search."""

    FOUND = "found"
    SAMPLES = "samples"
    EXHAUSTED = "exhausted"
    STALLED = "stalled"
    INTERRUPTED = "interrupted"

    @property
    def finished(self) -> bool:
        """Whether the search ended by itself."""
        return self is not Outcome.INTERRUPTED


class Later(Enum):
    """What a trainer says when it does not answer at once."""

    LATER = "the answer comes with one of the next ``collect``"


LATER = Later.LATER


class Trainer(Protocol):
    """Whoever answers questions.

    Attributes
    ----------
    at_once : int
        How many questions it can work on at the same time.
    """

    at_once: int

    def train_net(self, question: Question) -> Answer | Later:
        """Answer a question, or take it on."""

    def collect(self, block: bool) -> list[tuple[Question, Answer]]:
        """The answers that have come; with ``block``, wait for one, but not for long."""


class Driver:
    """One search: a method, whoever answers it, and the record of what it sampled.

    Parameters
    ----------
    method : Method
    trainer : Trainer
    target_accuracy : float, optional
        An accuracy that ends the search.
    cell_count : int, optional
        How many cells there are: when all are sampled the search is exhausted, whatever the method wants.

    Attributes
    ----------
    history : History
    episode_of_last_sample : int
    """

    def __init__(
        self, method: Method, trainer: Trainer, target_accuracy: float | None = None, cell_count: float = math.inf
    ):
        self.method, self.trainer, self.target_accuracy = method, trainer, target_accuracy
        self.cell_count = cell_count
        self.history = History()
        self.episode_of_last_sample = 0
        self._listeners: dict[tuple[int, int], list[Question]] = {}  # by what they wait for
        self._left_open: deque[Question] = deque()  # of a search that was saved with them; not handed over yet
        self._in_vain = 0
        self._interrupted = False
        self._report: Callable[[], None] = lambda: None
        self._samples: int | None = None
        self._outcome: Outcome | None = None

    def interrupt(self) -> None:
        """End the search after the step under way; can be called from a signal handler."""
        self._interrupted = True

    def run(
        self, samples: int | None = None, patience: float = math.inf, report: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Search until something ends it; can be called again to go on.

        Parameters
        ----------
        samples : int, optional
            End after so many unique samples, failed trainings included (``history.cost``).
        patience : int, or infinity
            End after so many episodes without a new sample.
        report : callable
            Called after each step, and now and then while an answer is waited for: progress, saves.
        """
        self._samples, self._outcome, self._report = samples, None, report
        handed_over = {question for listeners in self._listeners.values() for question in listeners}
        self._left_open = deque(q for q in self.method.open_questions() if q not in handed_over)
        self._look_at_samples()
        self._look_at_episodes(patience)
        method = self.method
        while self._outcome is None:
            if self._listeners:
                self._step_with_open_questions()
            else:
                self._step()
            report()
            if self._interrupted or method.episodes - self.episode_of_last_sample >= patience:
                self._look_at_episodes(patience)
        return self._outcome

    def restore(self, samples: dict[int, float], failed: set[int], counter: int, episode_of_last_sample: int) -> None:
        """Take over the record of a saved search; this one has to be new. ValueError where it cannot be so."""
        self.history.restore(samples, counter)
        self.history.failed = failed
        self.episode_of_last_sample = episode_of_last_sample

    def _look_at_samples(self) -> None:
        """Whether the samples are a reason to stop."""
        if self.target_accuracy is not None and self.history.best_accuracy >= self.target_accuracy:
            self._outcome = Outcome.FOUND  # a cell that ties with the target is as good, and no new best may follow
        elif self._samples is not None and self.history.cost >= self._samples:
            self._outcome = Outcome.SAMPLES
        elif self.history.unique_samples + len(self.history.failed) >= self.cell_count:
            self._outcome = Outcome.EXHAUSTED

    def _look_at_episodes(self, patience: float) -> None:
        """Whether the episodes are a reason to stop, or the user, if nothing else is."""
        fruitless = self.method.episodes - self.episode_of_last_sample
        if fruitless >= patience and not (self._listeners or self._left_open):
            self._outcome = self._outcome or Outcome.STALLED
        elif self._interrupted and (self.history.counter or self.method.episodes):  # there is something to save
            self._outcome = self._outcome or Outcome.INTERRUPTED

    def _ask(self) -> Question | Nothing:
        """What the method asks, after what it had asked before."""
        if self._left_open:
            return self._left_open.popleft()
        asked = self.method.ask()
        if asked is not NO_QUESTION:
            self.history.counter += isinstance(asked, Question)
        return asked

    def _step(self) -> None:
        """Ask, and hand over the question."""
        asked = self._ask()
        if asked is NO_QUESTION:  # most of the times
            return
        if isinstance(asked, Question):
            self._hand_over(asked)
        elif asked is EXHAUSTED:
            self._outcome = Outcome.EXHAUSTED
        elif asked is WAITING:
            raise RuntimeError("the method waits for an answer, but no question is open")

    def _step_with_open_questions(self) -> None:
        """Ask for one more, or wait for an answer where nothing more can be asked."""
        under_way = len(self._listeners)
        full = under_way >= self.trainer.at_once or self.history.cost + under_way >= (self._samples or math.inf)
        asked = WAITING if full or self._in_vain >= FRUITLESS else self._ask()
        if isinstance(asked, Question):
            self._hand_over(asked)
        self._in_vain = 0 if len(self._listeners) > under_way else self._in_vain + 1
        self._collect(block=asked is WAITING or asked is EXHAUSTED)

    def _hand_over(self, question: Question) -> None:
        """Answer a question from what is known, or hand it to the trainer, unless its cell is there already."""
        key, history = (question.index, question.epochs), self.history
        if question.index == cells.NOT_A_CELL:
            self.method.tell(question, NOT_IN_DATA_SET)
        elif (known := history.known(*key)) is not None:
            self.method.tell(question, known)
        elif question.index in history.failed:
            self.method.tell(question, FAILED)
        elif key in self._listeners:
            self._listeners[key].append(question)
        elif (answer := self.trainer.train_net(question)) is LATER:
            self._listeners[key] = [question]
        else:
            self._settle([question], answer)

    def _collect(self, block: bool) -> None:
        """Take in the answers that have come, and tell all who wait for them; with ``block``, wait for one.

        The method is not asked again before there is one: what it draws at random must not depend on how long that is.
        """
        answers = self.trainer.collect(block)
        while block and not answers and not self._interrupted:
            self._report()
            answers = self.trainer.collect(block)
        for question, answer in answers:
            self._settle(self._listeners.pop((question.index, question.epochs)), answer)
            self._in_vain = 0

    def _settle(self, questions: list[Question], answer: Answer) -> None:
        first = questions[0]
        if not isinstance(answer, NoAccuracy):
            self.history.take(first.index, answer, first.epochs)
            self.episode_of_last_sample = self.method.episodes
            self._look_at_samples()
        elif answer is FAILED:
            self.history.failed.add(first.index)
            self._look_at_samples()
        for question in questions:
            self.method.tell(question, answer)
