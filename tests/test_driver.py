"""The loop of every search: who is asked when, what ends it, and what is counted."""

import json
import random

import pytest
from pools import Pool

from arch_generator import State
from driver import Driver, Outcome
from method import EXHAUSTED, FAILED, NO_QUESTION, NOT_IN_DATA_SET, WAITING, Nothing, Question
from nasbench_dataset import cells
from space import FULL


def accuracy(question: Question) -> float:
    """Made up: the larger the index, the better; less after fewer epochs."""
    return (question.index + 1) / 1_000 - (FULL - question.epochs) / 1e6


class AtOnce:
    """A trainer that answers each question when it is asked."""

    at_once = 1

    def __init__(self):
        self.started: list[tuple[int, int]] = []

    def train_net(self, question: Question) -> float:
        assert question.index != cells.NOT_A_CELL
        self.started.append((question.index, question.epochs))
        return accuracy(question)


class Script:
    """A method that asks for what it is given, one after the other, and then says the last over and over.

    Parameters
    ----------
    steps : list of int, (int, int) or Nothing
        The index of a cell, with epochs or without; or what it says instead of a question.
    """

    def __init__(self, *steps: int | tuple[int, int] | Nothing, then: Nothing = EXHAUSTED):
        self.steps, self.then = list(steps), then
        self.episodes = 0
        self.told: list[tuple[int, object]] = []
        self._open: list[Question] = []

    def ask(self) -> Question | Nothing:
        step = self.steps.pop(0) if self.steps else self.then
        self.episodes += step is not WAITING
        if isinstance(step, Nothing):
            return step
        question = asking(*step) if isinstance(step, tuple) else asking(step)
        self._open.append(question)
        return question

    def tell(self, question: Question, answer) -> None:
        self._open.remove(question)
        self.told.append((question.index, answer))

    def open_questions(self) -> list[Question]:
        return list(self._open)


def asking(index: int, epochs: int = FULL) -> Question:
    cell = State((0, 0), 0, True) if index == cells.NOT_A_CELL else State(*cells.cell(index), True)
    return Question(cell, index, epochs)


# --- what ends it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target, samples, patience, outcome",
    [
        (0.005, 2, 0, Outcome.FOUND),
        (0.006, 2, 0, Outcome.SAMPLES),
        (0.006, 3, 0, Outcome.STALLED),
        (0.006, 3, 1, Outcome.INTERRUPTED),
        (None, 2, 0, Outcome.SAMPLES),
    ],
)
def test_of_several_reasons_the_first_counts(target, samples, patience, outcome):
    """Found, samples, stalled, interrupted."""
    driver = Driver(Script(3, 4, 5), AtOnce(), target)
    driver.run(samples=2)
    driver.interrupt()
    assert driver.run(samples, patience) is outcome
    assert driver.history.unique_samples == 2


def test_the_sample_that_is_found_with_the_last_of_the_budget_is_found():
    assert Driver(Script(3, 4), AtOnce(), 0.005).run(samples=2) is Outcome.FOUND


def test_a_target_that_is_reached_by_a_tie_or_surpassed_is_found():
    assert Driver(Script(3), AtOnce(), 0.004).run() is Outcome.FOUND
    assert Driver(Script(3), AtOnce(), 0.0035).run() is Outcome.FOUND
    assert Driver(Script(3), AtOnce(), 0.0041).run() is Outcome.EXHAUSTED


def test_what_is_exhausted_while_it_is_interrupted_is_exhausted():
    method = Script(3)
    driver = Driver(method, AtOnce())
    assert driver.run(report=driver.interrupt) is Outcome.INTERRUPTED and driver.history.unique_samples == 1
    method = Script()
    driver = Driver(method, AtOnce())
    ask = method.ask
    method.ask = lambda: driver.interrupt() or ask()
    assert driver.run() is Outcome.EXHAUSTED


def test_a_search_stalls_after_so_many_episodes_without_a_new_sample():
    method = Script(3, 3, NO_QUESTION, 4, 3, -1, then=NO_QUESTION)
    driver = Driver(method, AtOnce())
    assert driver.run(patience=3) is Outcome.STALLED
    assert (method.episodes, driver.episode_of_last_sample) == (7, 4)  # the fourth asked for a new cell


def test_outcomes_are_their_words_and_only_an_interrupted_search_is_unfinished():
    assert json.dumps(Outcome.FOUND) == '"found"' and Outcome("stalled") is Outcome.STALLED
    assert [outcome.value for outcome in Outcome if not outcome.finished] == ["interrupted"]


def test_a_run_goes_on_where_the_last_one_ended():
    whole, parts = (Driver(Script(*range(9)), AtOnce()) for _ in range(2))
    assert whole.run() is Outcome.EXHAUSTED
    assert [parts.run(samples=n) for n in (2, 2, 7, 99)] == ["samples"] * 3 + ["exhausted"]
    assert vars(parts.history) == vars(whole.history)


def test_progress_is_reported_after_every_step():
    reported = []
    method = Script(3, NO_QUESTION, 3)
    driver = Driver(method, AtOnce())
    driver.run(report=lambda: reported.append((method.episodes, driver.history.counter)))
    assert reported == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_a_search_of_a_space_whose_cells_are_all_sampled_is_exhausted():
    """Whatever the method would ask for yet; the target and the budget count first."""
    method = Script(3, 4, 5, then=NO_QUESTION)
    assert Driver(method, AtOnce(), cell_count=3).run() is Outcome.EXHAUSTED and method.episodes == 3
    assert Driver(Script(3, 4, 5), AtOnce(), 0.006, cell_count=3).run() is Outcome.FOUND
    assert Driver(Script(3, 4, 5), AtOnce(), cell_count=3).run(samples=3) is Outcome.SAMPLES


# --- what is counted, and who is asked --------------------------------------------------------


def test_what_is_known_is_not_asked_again():
    method, trainer = Script(5, -1, 5, 3, 8, -1), AtOnce()
    driver = Driver(method, trainer)
    driver.run()
    history = driver.history
    assert trainer.started == [(5, FULL), (3, FULL), (8, FULL)]
    assert method.told == [
        (5, 0.006), (-1, NOT_IN_DATA_SET), (5, 0.006), (3, 0.004), (8, 0.009), (-1, NOT_IN_DATA_SET),
    ]  # fmt: skip
    assert (history.counter, history.unique_samples, history.cost) == (6, 3, 3)
    assert history.training_trace == {5: 0.006, 3: 0.004, 8: 0.009}
    assert history.best_trace == [(0.006, 1), (0.009, 3)]


def test_partial_trainings_cost_their_share_and_are_no_samples():
    method, trainer = Script((8, 4), (8, 36), (8, 4), 8, (3, 4), 8, 9), AtOnce()
    driver = Driver(method, trainer, 0.0095)
    assert driver.run() is Outcome.FOUND
    history = driver.history
    assert trainer.started == [(8, 4), (8, 36), (8, FULL), (3, 4), (9, FULL)]
    assert history.cost == pytest.approx(2 + (4 + 36 + 4) / FULL) and history.unique_samples == 2
    assert history.costs == pytest.approx([1 + 40 / FULL, 2 + 44 / FULL])
    assert history.best_trace == [(0.009, 1), (0.01, 2)]
    asked = (8, 4), (8, 36), (8, 4), (8, FULL), (3, 4), (8, FULL), (9, FULL)
    assert [told for _, told in method.told] == [accuracy(asking(*question)) for question in asked]


def test_a_budget_is_one_of_cost():
    driver = Driver(Script(*[(index, 36) for index in range(9)]), AtOnce())
    assert driver.run(samples=2) is Outcome.SAMPLES
    assert driver.history.cost == pytest.approx(2) and driver.history.unique_samples == 0


def test_a_failed_training_is_told_and_not_tried_again():
    trainer = Pool(lambda question: FAILED if question.index == 5 else accuracy(question))
    method = Script(5, 3, 5, (5, 4))
    driver = Driver(method, trainer)
    driver.run()
    assert trainer.started == [(5, FULL), (3, FULL)]
    assert method.told == [(5, FAILED), (3, 0.004), (5, FAILED), (5, FAILED)]
    assert (driver.history.cost, driver.history.counter, driver.history.failed) == (2, 4, {5})


# --- several open questions -------------------------------------------------------------------


def test_a_cell_that_is_being_answered_is_not_handed_over_twice():
    method, pool = Script(5, 5, 3, (5, 4), 5), Pool(accuracy, at_once=9)
    driver = Driver(method, pool)
    assert driver.run() is Outcome.EXHAUSTED
    assert pool.started == [(5, FULL), (3, FULL), (5, 4)]
    assert method.told == [(5, 0.006)] * 3 + [(3, 0.004), (5, accuracy(asking(5, 4)))]
    assert (driver.history.counter, driver.history.unique_samples) == (5, 2)


def test_all_who_wait_for_a_failed_training_are_told():
    method = Script(5, 5, 5)
    driver = Driver(method, Pool(lambda question: FAILED, at_once=9))
    driver.run()
    assert method.told == [(5, FAILED)] * 3 and driver.history.cost == 1


@pytest.mark.parametrize("seed", range(20))
def test_no_more_trainings_are_started_than_the_budget_has(seed):
    """Nor than the trainer can work on, which the pool sees to; repeated and absent cells need none."""
    rng = random.Random(seed)
    steps = [*range(40), *rng.choices(range(40), k=200), *[cells.NOT_A_CELL] * 40, *[NO_QUESTION] * 40]
    method = Script(*rng.sample(steps, len(steps)))
    pool = Pool(accuracy, at_once=8, rng=rng)
    driver = Driver(method, pool)
    for samples in (3, 11, 12):
        assert driver.run(samples) is Outcome.SAMPLES
        assert len(pool.started) == driver.history.unique_samples == samples
        assert pool.open == [] == method.open_questions()
    assert driver.run() is Outcome.EXHAUSTED and driver.history.unique_samples == 40 == len(pool.started)


def test_as_many_questions_are_open_as_the_trainer_can_work_on():
    most = 0
    pool = Pool(accuracy, at_once=4)

    def look():
        nonlocal most
        most = max(most, len(pool.open))

    Driver(Script(*range(20)), pool).run(report=look)
    assert most == 4


def test_a_search_does_not_stall_while_a_question_is_open():
    """Patience counts from a new sample on; a failed training is none, and patience ran out before it failed."""
    for answer, more in ((accuracy, 3), (lambda question: FAILED, 0)):
        method, episodes_when_answered = Script(5, then=NO_QUESTION), []
        pool = Pool(lambda question: episodes_when_answered.append(method.episodes) or answer(question), at_once=2)
        driver = Driver(method, pool)
        assert driver.run(patience=3) is Outcome.STALLED
        assert method.open_questions() == [] and episodes_when_answered[0] > 3
        assert method.episodes == episodes_when_answered[0] + more


def test_a_method_with_nothing_left_to_ask_gets_the_answers_under_way():
    method, pool = Script(5, 3, EXHAUSTED, 7), Pool(accuracy, at_once=9)  # an answer makes it ask once more
    driver = Driver(method, pool)
    assert driver.run() is Outcome.EXHAUSTED
    assert [index for index, _ in method.told] == [5, 3, 7] and pool.open == []


def test_an_interrupted_search_leaves_its_questions_open_and_goes_on_with_them():
    method, pool = Script(*range(9)), Pool(accuracy, at_once=4)
    driver = Driver(method, pool)
    assert driver.run(report=lambda: len(pool.open) == 3 and driver.interrupt()) is Outcome.INTERRUPTED
    assert pool.open == method.open_questions() and len(pool.open) == 3
    again = Driver(method, other := Pool(accuracy, at_once=4))  # as after --resume, with another trainer
    assert again.run() is Outcome.EXHAUSTED
    assert other.started == [(index, FULL) for index in range(9)]
    assert sorted(index for index, _ in method.told) == list(range(9))


def left_open(*indices: int) -> Script:
    """A method as it is restored with questions open."""
    method = Script(*indices)
    for _ in indices:
        method.ask()
    method.steps = [20, 21]
    return method


def test_questions_that_were_open_are_not_counted_again():
    driver = Driver(left_open(5, 3, 9), pool := Pool(accuracy, at_once=4))
    driver.restore({7: 0.008}, {9}, counter=4, episode_of_last_sample=1)
    driver.run()
    assert driver.history.counter == 6 and driver.history.unique_samples == 5
    assert [index for index, _ in pool.started] == [5, 3, 20, 21]  # 9 had failed


def test_of_the_questions_that_were_open_no_more_are_handed_over_than_the_trainer_can_work_on():
    method, pool = left_open(5, 3, 4, 5, 6), Pool(accuracy, at_once=2)
    driver = Driver(method, pool)
    assert driver.run(samples=3) is Outcome.SAMPLES  # nor than the budget has
    assert [index for index, _ in pool.started] == [5, 3, 4] and method.open_questions()
    assert driver.run() is Outcome.EXHAUSTED
    assert [index for index, _ in pool.started] == [5, 3, 4, 6, 20, 21] and method.open_questions() == []


def test_a_method_that_waits_for_nothing_is_an_error():
    with pytest.raises(RuntimeError, match="waits"):
        Driver(Script(3, WAITING), AtOnce()).run()


def test_a_method_that_waits_gets_an_answer():
    method, pool = Script(3, 4, WAITING, WAITING, 5), Pool(accuracy, at_once=4)
    assert Driver(method, pool).run() is Outcome.EXHAUSTED
    assert [index for index, _ in method.told] == [3, 4, 5]
