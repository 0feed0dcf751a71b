"""Answers by training: the store, the order of answers, failures, and other processes at the same store."""

import subprocess
import sys

import pytest
from conftest import ROOT
from crews import FAILS, RECIPE, MadeUpCrew, accuracy, made_up_data

import cell_trainer
from arch_generator import arch_generator
from cell_trainer import CellTrainer
from compare import new_method
from driver import Driver, Outcome
from nasbench_dataset import InputError
from search import Search
from MCTS import MCTS
from options import SearchOptions
from training import CRASHED
from training_store import TrainingStore

DATA = made_up_data()


@pytest.fixture
def store(tmp_path):
    with TrainingStore(tmp_path / "store") as store:
        yield store


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """The crew ends a training where the trainer would wait for one."""

    def wait(futures, *_):
        (crew,) = CREWS
        crew.end_one()

    monkeypatch.setattr(cell_trainer, "wait", wait)


CREWS: list[MadeUpCrew] = []


def trainer(store, max_nodes=4, **options) -> CellTrainer:
    own = {name: options.pop(name) for name in ("retry_failed", "warn", "lookup") if name in options}
    CREWS[:] = [MadeUpCrew(**options)]
    return CellTrainer(DATA, "made up", RECIPE, 0, store, CREWS[0], arch_generator(max_nodes), **own)


def searched(store, method="mcts", samples=30, **options) -> tuple[Driver, list[int]]:
    """A search's driver, and the cells that it learned of, in order."""
    answers = trainer(store, **options)
    search = new_method(method, answers.space, 3)
    told = []
    tell = search.tell
    search.tell = lambda question, answer: (told.append(question.index), tell(question, answer))
    driver = Driver(search, answers)
    assert driver.run(samples) is Outcome.SAMPLES
    return driver, told


METHODS = ("mcts", "tuned", "random", "evolution", "local-search", "q-learning", "lanas", "npenas", "nas-bowl")


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_is_trained_once_and_its_answer_is_that_of_the_store(store, method):
    driver, _ = searched(store, method)
    crew = CREWS[0]
    assert len(crew.begun) == len(set(crew.begun)) == len(store) == 30
    assert driver.history.training_trace == {t.cell: t.accuracy for t in store}
    assert all(value == accuracy(cell) for cell, value in driver.history.training_trace.items())


@pytest.mark.parametrize("at_once", (1, 3, 8))
@pytest.mark.parametrize("method", ("mcts", "tuned"))
def test_the_same_search_again_is_answered_from_the_store(store, at_once, method):
    driver, told = searched(store, method, at_once=at_once, seed=1)
    again, told_again = searched(store, method, at_once=at_once, seed=2)
    assert CREWS[0].begun == []
    assert told_again == told
    assert list(again.history.training_trace) == list(driver.history.training_trace)


@pytest.mark.parametrize("kept", (1, 7, 20, 29))
def test_begun_anew_a_search_goes_on_where_its_trainings_ended(store, tmp_path, kept):
    """As after a kill: what was finished is there, what was under way is not."""
    _, told = searched(store, "tuned", at_once=4, seed=1)
    places = sorted((store.find(t.cell, RECIPE, DATA.digest, 0)[0], t) for t in store)
    with TrainingStore(tmp_path / "rest") as rest:
        for _, training in places[:kept]:
            rest.put(training)
        _, told_again = searched(rest, "tuned", at_once=4, seed=5)
    assert told_again[:kept] == told[:kept]
    assert len(CREWS[0].begun) == 30 - kept


def test_what_is_in_the_store_of_others_counts_as_a_sample(store):
    searched(store, "random", samples=60)
    driver, _ = searched(store, "mcts", samples=50)
    assert len(CREWS[0].begun) < 30 and driver.history.unique_samples == 50


def test_failed_trainings_are_recorded_told_and_paid_for(store):
    lines = []
    failing = {cell: FAILS for cell in range(0, 91, 3)}
    driver, _ = searched(store, "random", outcomes=failing, warn=lines.append)
    failed = driver.history.failed
    assert failed and len(failed) + driver.history.unique_samples == 30
    assert {t.cell for t in store if t.accuracy is None} == failed == set(CREWS[0].begun) & set(failing)
    assert len(lines) == len(failed) and all("out of time" in line for line in lines)


def test_failed_trainings_are_made_again_only_where_that_is_wanted(store):
    failing = {cell: FAILS for cell in range(0, 91, 3)}
    first, _ = searched(store, "random", outcomes=failing)
    again, _ = searched(store, "random")
    assert CREWS[0].begun == [] and again.history.failed == first.history.failed
    retried, _ = searched(store, "random", retry_failed=True)
    assert set(CREWS[0].begun) >= first.history.failed and not retried.history.failed
    assert all(t.accuracy is not None for t in store)


def test_a_training_whose_worker_dies_is_made_again_twice_at_most(store):
    driver, _ = searched(store, "random", deaths={cell: cell % 5 for cell in range(91)})
    begun = CREWS[0].begun
    assert {t.cell for t in store if t.outcome == CRASHED} == {cell for cell in set(begun) if cell % 5 > 2}
    assert all(begun.count(cell) == min(cell % 5 + 1, 3) for cell in begun)
    assert all("died 3 times" in t.reason for t in store if t.outcome == CRASHED)


def test_whatever_a_training_raises_the_search_goes_on_and_says_why(store):
    lines = []
    searched(store, "random", outcomes={cell: ArithmeticError("no\x1b[2J") for cell in range(45)}, warn=lines.append)
    reasons = {t.reason for t in store if t.accuracy is None}
    assert reasons == {"ArithmeticError: no [2J"} and lines


@pytest.mark.parametrize("error", (InputError("no disk"), ImportError("no jax")))
def test_what_no_other_cell_could_mend_ends_the_search(store, error):
    with pytest.raises(InputError, match="no disk|no jax"):
        searched(store, "random", outcomes=dict.fromkeys(range(91), error))
    assert len(store) == 0


def test_a_saved_search_is_resumed_from_the_store(store, tmp_path):
    def new_search() -> Search:
        return Search(trainer(store, at_once=3), MCTS, 3, SearchOptions())

    search = new_search()
    search.run(20)
    saved = search.to_save()
    resumed = new_search()
    resumed.restore(*saved)
    assert resumed.history.training_trace == search.history.training_trace
    resumed.run(30)
    whole = new_search()
    whole.run(30)
    assert whole.history.training_trace == resumed.history.training_trace and CREWS[0].begun == []
    with TrainingStore(tmp_path / "empty") as empty, pytest.raises(InputError, match="lacks the training of cell"):
        Search(trainer(empty), MCTS, 3, SearchOptions()).restore(*saved)


def test_the_time_that_is_left_is_that_of_the_mean_training(store):
    answers = trainer(store, at_once=2)
    driver = Driver(new_method("random", answers.space, 0), answers)
    assert "left" not in answers.status(driver.history, 40)
    driver.run(10)
    answers._seconds = 10 * 3600.0  # an hour each
    assert answers.status(driver.history, 40) == ", 0 under way, 0 failed, about 15:00:00 left"
    assert answers.status(driver.history, None) == ", 0 under way, 0 failed"


# --- several processes at one store -----------------------------------------------------------

CLAIMING = """
import sys
sys.path[:0] = ["tests", "."]
from crews import RECIPE, made_up_data
from training_store import TrainingStore
with TrainingStore(sys.argv[1]) as store:
    print(store.claim(7, RECIPE, made_up_data().digest, 0), flush=True)
    sys.stdin.readline()
"""


def test_a_training_that_another_process_is_at_is_waited_for(store, monkeypatch):
    other = subprocess.Popen(
        [sys.executable, "-c", CLAIMING, store.path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "True\n"
        key = (7, RECIPE, DATA.digest, 0)
        assert not store.claim(*key) and store.claim(8, *key[1:])
        answers, waited = trainer(store), []
        monkeypatch.setattr(cell_trainer.time, "sleep", waited.append)
        method = new_method("random", answers.space, 0)
        question = next(q for q in iter(method.ask, None) if tell(method, q))
        answers.train_net(question)
        assert answers.collect(True) == [] and waited and answers.under_way == 1 and CREWS[0].begun == []
    finally:
        other.kill()
        other.communicate()
    assert answers.collect(True) == [(question, accuracy(7))]  # its claim has ended with it
    assert CREWS[0].begun == [7]


def tell(method, question) -> bool:
    """Whether it is about cell 7; any other question is answered."""
    if question.index != 7:
        method.tell(question, 0.5)
    return question.index == 7


def test_claims_are_given_back(store):
    key = (7, RECIPE, DATA.digest, 0)
    assert store.claim(*key)
    store.release(*key)
    code = CLAIMING.replace("sys.stdin.readline()", "")
    again = subprocess.run([sys.executable, "-c", code, store.path], cwd=ROOT, capture_output=True, text=True)
    assert again.stdout == "True\n", again.stderr


def test_other_claims_have_other_bytes():
    from training_store import _place_of_claim

    places = {_place_of_claim(cell, RECIPE, DATA.digest, seed) for cell in range(500) for seed in range(4)}
    assert len(places) == 2_000 and max(places) < 2**62 and min(places) >= 0
