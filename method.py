"""What every search method is to whoever runs it: it asks for accuracies, and is told them.

    asked = method.ask()                    a Question, or one of Nothing
    method.tell(question, answer)           an accuracy, or one of NoAccuracy

A method may be asked again before it was told: then several questions are open, and their answers come in any order.
``driver.Driver`` is the loop that does this; where the answers come from (a table, trainings that take an hour) no
method knows.
"""

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Callable, Generator, Protocol

from arch_generator import State
from checkpoint import Saved
from space import FULL, Space


class Nothing(Enum):
    """What ``ask`` returns where it has no question."""

    NO_QUESTION = "this episode needed no answer"
    WAITING = "all that could be asked waits for answers"
    EXHAUSTED = "there is nothing left to ask, whatever the open questions bring"


class NoAccuracy(Enum):
    """Answers that are no accuracy."""

    NOT_IN_DATA_SET = "the cell is not in the data set"
    FAILED = "the training of the cell failed"


NO_QUESTION, WAITING, EXHAUSTED = Nothing
NOT_IN_DATA_SET, FAILED = NoAccuracy

Answer = float | NoAccuracy
Proposals = Generator[State | tuple[State, int], float, None]  # yields a cell, or a cell with epochs


@dataclass(eq=False, slots=True)
class Question:
    """What is the accuracy of this cell? Two questions can be for one cell.

    Attributes
    ----------
    cell : State
        A finished cell.
    index : int
        Which cell that is under the look-up in use; ``cells.NOT_A_CELL`` where it is not in the data set.
    epochs : int
        After how many epochs of training.
    way : list
        What the method needs to use the answer; nobody else looks at it.
    """

    cell: State
    index: int
    epochs: int = FULL
    way: list = field(default_factory=list)


class Method(Protocol):
    """A search method.

    Attributes
    ----------
    episodes : int
        How often it set out to look for something; ``ask`` counts, where it does not return ``WAITING``.
    """

    episodes: int

    def ask(self) -> Question | Nothing:
        """The next question, if there is one."""

    def tell(self, question: Question, answer: Answer) -> None:
        """The answer to an open question, given once."""

    def open_questions(self) -> list[Question]:
        """Those that were asked and not answered, in the order in which they were asked."""


Announce = Callable[[str], None]


def silently(what: str) -> None:
    """An ``Announce`` that tells nobody."""


class TreeMethod(Method, Protocol):
    """A tree search: a method that can be saved and resumed, and says what is particular about it.

    Attributes
    ----------
    name : str
    tree : dict
        The nodes, by their states.
    dangling_nodes : dict of State to float
        Finished cells that were sampled and the tree has not reached, with their accuracy.
    rng, guided : random.Random, int
        What it draws from; how often its guide had its turn.
    """

    name: str
    tree: dict
    dangling_nodes: dict[State, float]
    rng: random.Random
    guided: int

    def to_save(self) -> Saved:
        """Everything that decides how the search goes on, but for the samples: for JSON, and files by their names."""

    def restore(self, main: dict, files: dict[str, bytes], samples: dict[int, float]) -> None:
        """Take over what ``to_save`` of another search gave, which had these samples; this one has to be new.

        Raises
        ------
        LookupError, TypeError, ValueError
            If anything in it is not as ``to_save`` makes it.
        """

    def settings(self) -> dict:
        """What else has to be the same when a saved search is resumed."""
        return {}

    def status(self) -> str:
        """For the progress line."""
        return ""

    def details(self) -> dict:
        """For summary.json."""
        return {}

    def closing_lines(self) -> list[str]:
        """For the end."""
        return []


class GeneratorMethod:
    """A method that is written as a generator: it yields a cell, or a cell with epochs, and is sent the accuracy.

    It has one question open at a time, and is exhausted when it returns. A cell that is not in the data set, or whose
    training failed, is worth 0 to it.

    Parameters
    ----------
    proposals : Proposals
    space : Space
        What it searches.
    """

    def __init__(self, proposals: Proposals, space: Space):
        self._proposals, self._space = proposals, space
        self._open: Question | None = None
        self._told: float | None = None  # what it is sent next; None before it was started
        self.episodes = 0

    def ask(self) -> Question | Nothing:
        if self._open:
            return WAITING
        try:
            proposed = self._proposals.send(self._told)
        except StopIteration:
            return EXHAUSTED
        cell, epochs = (proposed, FULL) if isinstance(proposed, State) else proposed
        self.episodes += 1
        self._open = Question(cell, self._space.index(cell), epochs)
        return self._open

    def tell(self, question: Question, answer: Answer) -> None:
        if question is not self._open:
            raise ValueError("an answer to a question that is not open")
        self._open, self._told = None, 0.0 if isinstance(answer, NoAccuracy) else answer

    def open_questions(self) -> list[Question]:
        return [self._open] if self._open else []
