"""Methods that are written as generators, asked and told."""

import pytest

from arch_generator import State, arch_generator
from driver import Driver
from method import EXHAUSTED, FAILED, NOT_IN_DATA_SET, WAITING, GeneratorMethod, Question
from nasbench_dataset import cells
from net_training import NetTrainer
from space import FULL, Space

FIRST, SECOND = (State(*cells.cell(index), True) for index in (80, 30))
OUTSIDE = State((0, 1), 0, True)


@pytest.fixture
def told() -> list[float]:
    """What the generator of ``method`` was sent."""
    return []


@pytest.fixture
def method(told) -> GeneratorMethod:
    """Asks for a cell, for another after four epochs, and for one outside the data set."""

    def proposals():
        for proposed in (FIRST, (SECOND, 4), OUTSIDE):
            told.append((yield proposed))

    return GeneratorMethod(proposals(), Space(arch_generator(4)))


def test_it_asks_for_what_the_generator_yields_and_sends_it_the_answer(method, told):
    first = method.ask()
    assert (first.cell, first.index, first.epochs) == (FIRST, 80, FULL)
    assert told == []
    method.tell(first, 0.9)
    second = method.ask()
    assert (second.cell, second.index, second.epochs) == (SECOND, 30, 4)
    method.tell(second, 0.5)
    third = method.ask()
    assert (third.cell, third.index, third.epochs) == (OUTSIDE, cells.NOT_A_CELL, FULL)
    assert told == [0.9, 0.5] and method.episodes == 3


def test_it_waits_while_a_question_is_open(method):
    asked = method.ask()
    assert method.ask() is method.ask() is WAITING
    assert method.open_questions() == [asked] and method.episodes == 1
    method.tell(asked, 0.9)
    assert method.open_questions() == [] and isinstance(method.ask(), Question)


def test_it_is_exhausted_when_the_generator_returns(method):
    for _ in range(3):
        method.tell(method.ask(), 0.5)
    assert method.ask() is method.ask() is EXHAUSTED
    assert method.episodes == 3 and method.open_questions() == []


@pytest.mark.parametrize("answer", [NOT_IN_DATA_SET, FAILED])
def test_a_cell_without_an_accuracy_is_worth_0_to_it(method, told, answer):
    method.tell(method.ask(), answer)
    method.ask()
    assert told == [0.0]


def test_an_answer_to_another_question_is_refused(method, told):
    asked = method.ask()
    for wrong in (Question(FIRST, 80), Question(asked.cell, asked.index, asked.epochs)):
        with pytest.raises(ValueError, match="not open"):
            method.tell(wrong, 0.1)
    method.tell(asked, 0.9)
    with pytest.raises(ValueError, match="not open"):
        method.tell(asked, 0.8)
    method.ask()
    assert told == [0.9]


def test_a_driver_tells_it_repeats_without_counting_them(small_table):
    """It is told 0 for cells outside; a search that only repeats itself has stalled."""
    best, told = State((0, 1), 0b101101, True), []

    def stubborn(rounds: int):
        for cell in (best, OUTSIDE, best, State((), 1, True)) * rounds:
            told.append((yield cell))

    trainer = NetTrainer(small_table, arch_generator(4))
    driver = Driver(GeneratorMethod(stubborn(1), trainer.space), trainer)
    assert driver.run() == "exhausted"
    assert told == [0.9359642, 0.0, 0.9359642, small_table.columns["test"][0]]
    assert (driver.history.unique_samples, driver.history.counter) == (2, 4)
    assert Driver(GeneratorMethod(stubborn(1), trainer.space), trainer, trainer.target_accuracy).run() == "found"
    method = GeneratorMethod(stubborn(99), trainer.space)
    assert Driver(method, trainer).run(patience=20) == "stalled" and method.episodes == 24
