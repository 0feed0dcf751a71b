"""A trainer for tests that keeps questions open, and answers in an order that is drawn."""

import random
from typing import Callable

from driver import LATER, Later
from method import Answer, Question
from nasbench_dataset import cells


class Pool:
    """Answers one question at a time: always where it is waited for, else now and then.

    Parameters
    ----------
    answer : callable
        What a question is answered with.
    at_once : int
        How many questions it works on; it is an error to hand over more, or a cell that it works on already.
    rng : random.Random, optional
        Draws which question is answered, and when; without it the oldest one is, and only where that is waited for.

    Attributes
    ----------
    started : list of (int, int)
        The index and epochs of all that was handed over, in order.
    open : list of Question
    """

    def __init__(self, answer: Callable[[Question], Answer], at_once: int = 1, rng: random.Random | None = None):
        self.answer, self.at_once, self.rng = answer, at_once, rng
        self.started: list[tuple[int, int]] = []
        self.open: list[Question] = []

    def train_net(self, question: Question) -> Later:
        key = question.index, question.epochs
        assert question.index != cells.NOT_A_CELL
        assert len(self.open) < self.at_once
        assert key not in [(q.index, q.epochs) for q in self.open]
        self.started.append(key)
        self.open.append(question)
        return LATER

    def collect(self, block: bool) -> list[tuple[Question, Answer]]:
        if not block and (self.rng is None or self.rng.random() < 0.7):
            return []
        question = self.open.pop(self.rng.randrange(len(self.open)) if self.rng else 0)
        return [(question, self.answer(question))]
