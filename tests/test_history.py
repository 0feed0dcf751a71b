"""What counts as a sample, what it costs, and which is the best."""

import pytest

from arch_generator import State
from history import History
from nasbench_dataset import cells
from space import FULL


def test_a_new_history_has_nothing():
    history = History()
    assert (history.cost, history.unique_samples, history.best_accuracy, history.best) == (0, 0, 0.0, None)
    assert history.known(5) is None and history.known(5, 4) is None


def test_samples_are_kept_in_order_with_each_new_best():
    history = History()
    for index, accuracy in ((40, 0.5), (3, 0.4), (7, 0.5), (80, 0.9)):
        history.take(index, accuracy)
    assert list(history.training_trace.items()) == [(40, 0.5), (3, 0.4), (7, 0.5), (80, 0.9)]
    assert history.best_trace == [(0.5, 1), (0.9, 4)]  # one that ties is no new best
    assert history.best == State(*cells.cell(80), True) and history.best_accuracy == 0.9
    assert history.known(7) == 0.5 and history.known(8) is None


def test_a_first_sample_worth_0_is_a_best():
    history = History()
    history.take(3, 0.0)
    assert history.best_trace == [(0.0, 1)] and history.best == State(*cells.cell(3), True)


def test_partial_trainings_are_known_apart_and_cost_their_share():
    history = History()
    for epochs in (4, 36, 36, 36):
        history.take(epochs + history.unique_samples, 0.9, epochs)
    history.take(50, 0.6, 36)
    history.take(50, 0.7)
    assert history.known(50, 36) == 0.6 and history.known(50) == 0.7 == history.known(50, FULL)
    assert history.known(50, 4) is None and history.unique_samples == 1
    assert history.cost == 1 + (4 + 4 * 36) / FULL
    assert history.best_trace == [(0.7, 1)] and history.costs == [history.cost]


def test_thirds_of_a_training_add_up_exactly():
    """A budget of two is reached by six of them."""
    history = History()
    for index in range(6):
        history.take(index, 0.5, 36)
    assert history.cost == 2


def test_a_restored_history_is_the_same():
    history, again = History(), History()
    samples = {40: 0.5, 3: 0.4, 80: 0.9}
    for index, accuracy in samples.items():
        history.take(index, accuracy)
    history.counter = 7
    again.restore(samples, 7)
    assert vars(again) == vars(history)


def test_more_samples_than_questions_are_refused():
    with pytest.raises(ValueError, match="more samples than look-ups"):
        History().restore({40: 0.5, 3: 0.4}, 1)
