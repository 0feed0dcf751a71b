"""The tree search with several open questions: what is marked, backed up, closed, saved, and when."""

import random
from collections import Counter
from functools import cache

import pytest
from pools import Pool
from trees import node_with, statistics

from arch_generator import ROOT, State, arch_generator
from driver import Driver
from MCTS import GIVEN_UP, MCTS, Leads, Node
from method import EXHAUSTED, FAILED, NO_QUESTION, NOT_IN_DATA_SET, WAITING, Question
from nasbench_dataset import cells
from nasbench_dataset.table import EMBEDDED, load
from net_training import NetTrainer
from options import SearchOptions, preset
from space import LOOKUPS

ORIGINAL = SearchOptions()
TUNED = SearchOptions(**preset(SearchOptions, "tuned") | {"guide_from": 20})
CLOSING = SearchOptions(cp=0.05, close_exhausted=True)
PATH = SearchOptions(cp=0.2, backup="path")
ALL = {"original": ORIGINAL, "tuned": TUNED, "closing": CLOSING, "path": PATH}

every_option = pytest.mark.parametrize("options", ALL.values(), ids=ALL)


@pytest.fixture(scope="module")
def trainers():
    """By vertices and look-up."""
    table = load(EMBEDDED)
    return {(v, how): NetTrainer(table, arch_generator(v), lookup=how) for v in (4, 5) for how in LOOKUPS}


def pooled(trainer: NetTrainer, options: SearchOptions, seed: int, at_once: int = 8, failing: float = 0.0):
    """A search, its pool, which answers in a drawn order, and its driver."""
    rng = random.Random(1_000 + seed)
    doomed = {index for index in range(cells.cell_count(5)) if rng.random() < failing}
    pool = Pool(lambda q: FAILED if q.index in doomed else trainer.train_net(q), at_once, rng)
    search = MCTS(trainer.space, seed, options)
    return search, pool, Driver(search, pool)


# --- visits under way -------------------------------------------------------------------------


@every_option
@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("vertices, samples", [(4, 40), (5, 80)])
def test_no_mark_is_left_when_all_is_answered(trainers, options, lookup, vertices, samples):
    """Nor are there others before; once all trainings work, once some fail."""
    for seed in range(2):
        search, pool, driver = pooled(trainers[vertices, lookup], options, seed, failing=0.2 * (seed % 2))

        def interrupt_with_open_questions() -> None:
            if driver.history.unique_samples >= samples and pool.open:
                driver.interrupt()

        driver.run(samples + 20, patience=1_000, report=interrupt_with_open_questions)
        under_way = Counter(node.state for question in search.open_questions() for node in question.way)
        assert all(node.visits == node.n + under_way[state] for state, node in search.tree.items())
        while pool.open:
            driver._collect(block=True)
        assert search.open_questions() == []
        assert all(node.visits == node.n >= 1 for node in search.tree.values())
        assert all(0 <= node.x_bar <= 1 for node in search.tree.values())


@pytest.fixture
def search(trainers):
    return MCTS(trainers[4, "exact"].space, 0, ORIGINAL)


def test_uct_counts_visits_under_way_of_a_child_and_of_its_parent(search):
    """By hand. Nothing under way: 0.9 + 4 sqrt(2 ln 10 / 5) = 4.739 beats 0.2 + 4 sqrt(2 ln 10 / 5) = 4.039.

    With 4 visits of the left one under way, 0.9 + 4 sqrt(2 ln 14 / 9) = 3.963 does not beat 0.2 + 4 sqrt(2 ln 14 / 5) =
    4.310.
    """
    parent = node_with(ROOT, None, 10, 0.5)
    left, right = node_with(State((0,)), parent, 5, 0.9), node_with(State((1,)), parent, 5, 0.2)
    assert search.best_child(parent, ()) is left
    left.visits += 4
    parent.visits += 4
    assert search.best_child(parent, ()) is right
    assert (left.n, left.x_bar, parent.n) == (5, 0.9, 10)


@pytest.mark.parametrize("under_way, expected", [(24, 0), (25, 1)])
def test_uct_takes_the_visits_under_way_of_the_parent_into_its_logarithm(trainers, under_way, expected):
    """By hand: 0.9 + 0.1 sqrt(2 ln N / 4) = 0.77 + 0.1 sqrt(2 ln N / 1) where ln N = 3.38, so at N = 29.4.

    Five visits of the parent are answered, those under way go to none of these children.
    """
    search = MCTS(trainers[4, "exact"].space, 0, SearchOptions(cp=0.05))
    parent = node_with(ROOT, None, 5, 0.5)
    children = [node_with(State((0,)), parent, 4, 0.9), node_with(State((1,)), parent, 1, 0.77)]
    assert search.best_child(parent, ()) is children[0]
    parent.visits += under_way
    assert search.best_child(parent, ()) is children[expected]


@every_option
def test_values_do_not_change_before_answers_come(trainers, options):
    search = MCTS(trainers[4, "isomorphic"].space, 3, options)
    Driver(search, trainers[4, "isomorphic"]).run(samples=15)
    while len(search.open_questions()) < 5:
        before = {node.state: (node.n, node.x_bar) for node in search.tree.values()}
        if not isinstance(search.ask(), Question):
            continue  # an action past a limit, or a cell once more, is backed up at once
        now = {node.state: (node.n, node.x_bar) for node in search.tree.values()}
        assert now.items() >= before.items()
        assert all(value == (0, 0.0) for state, value in now.items() if state not in before)


def test_several_questions_are_for_different_nodes(trainers):
    """One open question does not make the search ask for the same node again, even with nothing known yet."""
    search = MCTS(trainers[5, "isomorphic"].space, 0, ORIGINAL)
    asked = [search.ask() for _ in range(60)]
    assert all(isinstance(question, Question) for question in asked)
    assert len({question.way[0].state for question in asked}) == 60
    assert all(question.way[-1] is search.root for question in asked)
    assert search.root.visits == 60 and search.root.n == 0


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [ORIGINAL, PATH], ids=["first-parent", "path"])
def test_a_late_answer_goes_along_the_way_of_its_question(trainers, options):
    """Two ways to one state: created from the left and asked for, then walked to from the right before the answer."""
    search = MCTS(trainers[4, "isomorphic"].space, 0, options)
    root = search.root = node_with(ROOT, None, 3, 0.5)
    left, right = (node_with(State((0,), edges), root, 1, 0.6) for edges in (0b001, 0b010))
    both = State((0,), 0b011)
    search.tree = {node.state: node for node in (root, left, right)}
    node = search.expand(left, both)
    question = search.evaluate(node)
    assert question.way == [node, left, root]
    root.children, right.children = [right], [node]  # the only way that is left
    node.fresh = [State((0,), 0b011, True)]
    later = search.ask()
    assert later.way == [search.tree[State((0,), 0b011, True)], node, *([right] if options is PATH else [left]), root]
    search.tell(question, 0.9)
    assert (node.n, node.x_bar, node.visits) == (1, 0.9, 2)
    assert (left.n, left.x_bar) == (2, pytest.approx(0.75)) and (right.n, right.x_bar) == (1, 0.6)
    assert (root.n, root.x_bar) == (4, pytest.approx(0.6))
    search.tell(later, NOT_IN_DATA_SET)
    assert all(node.visits == node.n for node in search.tree.values())
    assert (root.n, node.n, later.way[0].n, later.way[0].x_bar) == (4, 1, 1, 0.0)


@pytest.mark.parametrize("options", [ORIGINAL, CLOSING, PATH], ids=["original", "closing", "path"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_failed_training_takes_its_marks_off_and_backs_nothing_up(trainers, options, finished):
    trainer = trainers[4, "exact"]
    search = MCTS(trainer.space, 1, options)
    driver = Driver(search, trainer)
    driver.run(samples=10)
    asked = search.ask()
    while not isinstance(asked, Question) or not asked.way or asked.way[0].state.finished != finished:
        if isinstance(asked, Question):
            search.tell(asked, trainer.train_net(asked))
        asked = search.ask()
    ancestors = [(node.n, node.x_bar, node.visits - 1) for node in asked.way[1:]]
    dangling, known = dict(search.dangling_nodes), dict(search.guide.samples)
    search.tell(asked, FAILED)
    assert [(node.n, node.x_bar, node.visits) for node in asked.way[1:]] == ancestors
    node = asked.way[0]
    assert (node.n, node.visits, node.x_bar) == (1, 1, 0.0 if finished else GIVEN_UP)
    assert (search.dangling_nodes, search.guide.samples) == (dangling, known)
    assert driver.run(samples=20) == "samples"


def test_a_failed_training_that_the_guide_asked_for_is_waited_for_no_more(trainers):
    search = MCTS(trainers[5, "isomorphic"].space, 1, TUNED)
    asked = [search.ask() for _ in range(30)]
    assert all(not question.way for question in asked[1:])  # the first is of the root
    assert list(search.guide._pending) == [question.index for question in asked]
    for question in asked:
        search.tell(question, FAILED)
    assert not search.guide._pending and not search.guide.samples
    assert not {search.ask().index for _ in range(30)} & {question.index for question in asked}


@pytest.mark.parametrize("options", [CLOSING, TUNED], ids=["closing", "tuned"])
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_search_goes_on_past_failed_trainings_to_all_other_cells(trainers, options, lookup):
    search, pool, driver = pooled(trainers[4, lookup], options, seed=5, failing=0.3)
    assert driver.run() == "exhausted"
    assert driver.history.failed and search.root.closed
    assert sorted([*driver.history.training_trace, *driver.history.failed]) == list(range(91))
    assert len(pool.started) == 91  # none twice


@pytest.mark.parametrize("first", [16, 60])
def test_a_resumed_search_goes_on_as_if_never_interrupted_though_trainings_failed(trainers, first):
    """Interrupted before the guide was fitted first, and after."""
    search, _, driver = pooled(trainers[5, "isomorphic"], TUNED, seed=4, at_once=1, failing=0.3)
    driver.run(samples=first)
    again, _, other = pooled(trainers[5, "isomorphic"], TUNED, seed=4, at_once=1, failing=0.3)
    (main, files), history = search.to_save(), driver.history
    again.restore({**main, "failed": sorted(history.failed)}, files, history.training_trace)
    other.restore(history.training_trace, set(history.failed), history.counter, driver.episode_of_last_sample)
    assert history.failed and bool(search.guide.ready) == (first > 20)
    for each in (driver, other):
        each.run(samples=first + 60)
    assert list(other.history.training_trace.items()) == list(history.training_trace.items())
    assert other.history.failed == history.failed and other.history.counter == history.counter


# --- waiting and closing ----------------------------------------------------------------------


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("cp", [0.05, 2.0])
def test_nothing_is_closed_because_it_waits(trainers, cp, lookup):
    """With all answers withheld, the search asks for what it can; what is closed then has nothing new below it."""
    trainer = trainers[4, lookup]
    search = MCTS(trainer.space, 2, SearchOptions(cp, "path", close_exhausted=True))
    for _ in range(20_000):
        asked = search.ask()
        if asked in (WAITING, EXHAUSTED):
            break
    assert asked in (WAITING, EXHAUSTED) and search.open_questions()
    open_before = len(search.open_questions())

    @cache
    def exhausted(node: Node) -> bool:
        return node.state.finished or node.fresh == [] and all(map(exhausted, node.children))

    for node in search.tree.values():
        assert not node.closed or exhausted(node)
    told = {}
    for question in search.open_questions():
        told[question.index] = trainer.train_net(question)
        search.tell(question, told[question.index])
    assert open_before >= len(told)
    driver = Driver(search, trainer)
    driver.history.restore({index: x for index, x in told.items() if isinstance(x, float)}, counter=open_before)
    assert driver.run() == "exhausted"
    assert sorted(driver.history.training_trace) == list(range(91))


@pytest.mark.parametrize("options", [CLOSING, TUNED], ids=["closing", "tuned"])
@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("at_once", [2, 200])
def test_every_cell_is_sampled_in_the_end_and_none_twice(trainers, options, lookup, at_once):
    search, pool, driver = pooled(trainers[4, lookup], options, seed=7, at_once=at_once)
    assert driver.run() == "exhausted"
    assert sorted(index for index, _ in pool.started) == sorted(driver.history.training_trace) == list(range(91))
    assert search.root.closed and pool.open == []


def test_a_node_all_of_whose_children_wait_is_set_aside(search):
    """Its parent takes the next best; where that is the root, the search waits, and that is no episode."""
    root = search.root = node_with(ROOT, None, 9, 0.5)
    good, other = node_with(State((0,)), root, 5, 0.9), node_with(State((1,)), root, 3, 0.1)
    waiting = node_with(State((0,), 0, True), good, 0, 0.0, under_way=1)
    search.tree = {node.state: node for node in (root, good, other, waiting)}
    question = search.open_question(waiting.state, [waiting, good, root])
    other.fresh = [State((1,), 0b111, True)]
    asked = search.ask()
    assert asked.cell == State((1,), 0b111, True) and asked.way[1:] == [other, root]
    assert (search.episodes, good.closed) == (1, False)
    assert search.best_child(good, ()) is Leads.WAITING
    assert search.ask() is WAITING and search.episodes == 1
    search.tell(question, 0.9)
    assert search.ask() is NO_QUESTION  # the cell once more
    assert waiting.n == 2


# --- one at a time is the plain search --------------------------------------------------------


@every_option
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_one_question_at_a_time_is_the_plain_search(trainers, options, lookup):
    """Whether the answer comes at once, or is waited for."""
    trainer = trainers[5, lookup]
    plain, pooled_search = (MCTS(trainer.space, 4, options) for _ in range(2))
    plain_driver = Driver(plain, trainer)
    driver = Driver(pooled_search, Pool(trainer.train_net, at_once=1, rng=random.Random(0)))
    assert plain_driver.run(150, patience=2_000) == driver.run(150, patience=2_000)
    assert vars(driver.history) == vars(plain_driver.history)
    assert statistics(pooled_search) == statistics(plain) and pooled_search.episodes == plain.episodes
    assert pooled_search.dangling_nodes == plain.dangling_nodes and pooled_search.rng.getstate() == plain.rng.getstate()


# --- saved with open questions ----------------------------------------------------------------


def content(question: Question) -> tuple:
    return question.cell, question.index, [node.state for node in question.way]


@every_option
@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("samples", [0, 30, 45])
def test_a_search_restored_with_open_questions_goes_on_as_if_uninterrupted(trainers, options, lookup, samples):
    trainer = trainers[5, lookup]
    search = MCTS(trainer.space, 9, options)

    def interrupt_when_open() -> None:
        if driver.history.unique_samples >= samples and len(search.open_questions()) >= 5:
            driver.interrupt()

    driver = Driver(search, Pool(trainer.train_net, at_once=8))
    assert driver.run(report=interrupt_when_open) == "interrupted"
    main, files = search.to_save()
    again = MCTS(trainer.space, 9, options)
    again.restore(main, files, dict(driver.history.training_trace))
    assert [content(q) for q in again.open_questions()] == [content(q) for q in search.open_questions()]
    assert statistics(again) == statistics(search)
    assert again.to_save() == (main, files)

    def go_on(of: MCTS) -> list:
        """Any question is answered, whenever eight are open or nothing is left to ask."""
        asked, rng = [], random.Random(0)
        for _ in range(500):
            question = WAITING if len(of.open_questions()) >= 8 else of.ask()
            if isinstance(question, Question):
                asked.append(content(question))
            elif question in (WAITING, EXHAUSTED):
                if not of.open_questions():
                    break
                answered = rng.choice(of.open_questions())
                of.tell(answered, trainer.train_net(answered))
        return asked

    assert go_on(again) == go_on(search)
    assert statistics(again) == statistics(search)
    assert again.to_save() == search.to_save()


# --- the guide --------------------------------------------------------------------------------


@pytest.mark.parametrize("vertices, lookup", [(4, "exact"), (4, "isomorphic"), (5, "isomorphic")])
@pytest.mark.parametrize("restored", [False, True])
def test_the_guide_never_chooses_a_cell_that_is_being_answered(trainers, vertices, lookup, restored):
    """Many are, when it is fitted first; that it was shown none of them yet makes no difference."""
    trainer = trainers[vertices, lookup]
    for seed in range(1 if restored else 4):
        search, rng = MCTS(trainer.space, seed, TUNED), random.Random(seed)
        told: dict[int, float] = {}
        guided = 0
        while len(told) < 60:
            under_way = [question.index for question in search.open_questions()]
            asked = search.ask() if len(under_way) < 30 else WAITING
            if isinstance(asked, Question) and not asked.way:
                assert asked.index not in under_way and asked.index not in told
                guided += 1
            if asked is WAITING:
                question = rng.choice(search.open_questions())
                answer = trainer.train_net(question)
                search.tell(question, answer)
                if answer is not NOT_IN_DATA_SET:
                    told[question.index] = answer
            if restored and asked is WAITING and len(told) % 10 == 5:
                again = MCTS(trainer.space, seed, TUNED)
                again.restore(*search.to_save(), told)
                search = again
        assert guided > 10
