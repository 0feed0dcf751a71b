"""The search that the Meta-DNN assists: what states are worth, when it is fitted and how it is judged, the command."""

import json

import numpy as np
import pytest
from conftest import assert_refused, run, run_here

from arch_generator import ROOT, State, arch_generator
from driver import Driver
from MCTS import GIVEN_UP
from MCTS_metaDNN import MCTS_metaDNN, main
from method import FAILED, NO_QUESTION, NOT_IN_DATA_SET, Question
from nasbench_dataset import cells
from nasbench_dataset.table import EMBEDDED, load
from net_training import NetTrainer
from options import MetaDNNOptions, preset
from predictor import Predictor
from search import Search
from space import Space


def cell_of(index: int) -> State:
    return State(*cells.cell(index), True)


@pytest.fixture
def trainer(small_table) -> NetTrainer:
    return NetTrainer(small_table, arch_generator(4))


@pytest.fixture
def search(trainer) -> MCTS_metaDNN:
    return MCTS_metaDNN(trainer.space, 0, MetaDNNOptions(fit_every=10, epochs=1))


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Space(arch_generator(4)), 0, MetaDNNOptions(fit_every=10, epochs=1))


# --- what states are worth --------------------------------------------------------------------


def test_value_by_hand(search, monkeypatch):
    """One true rollout worth t; of ten more, six at a cell that is known and four at one that is predicted."""
    known, new, true = (cell_of(index) for index in (80, 81, 82))
    search.learn(80, 0.9)
    rollouts = iter([true] + [known] * 6 + [new] * 4)
    monkeypatch.setattr(search, "rollout", lambda state: next(rollouts))
    asked = []
    monkeypatch.setattr(search.predictor.network, "predict", lambda batch: asked.append(batch) or np.array([0.25]))
    question = search.evaluate(node := search.expand(None, ROOT))
    assert question.cell == true and asked == []
    search.tell(question, 0.8)
    assert (node.n, node.x_bar) == (1, pytest.approx((0.8 + (6 * 0.9 + 4 * 0.25) / 10) / 2))
    assert search.open_questions() == []  # the true one alone is asked for
    assert asked == [[(new.operations, new.edges)]]  # one pass, for what is not known


def test_rollouts_that_give_up(search, monkeypatch):
    monkeypatch.setattr(search, "rollout", lambda state: None)
    node = search.expand(None, ROOT)
    assert search.evaluate(node) is NO_QUESTION and node.x_bar == GIVEN_UP
    rollouts = iter([cell_of(82)] * 10 + [None])
    monkeypatch.setattr(search, "rollout", lambda state: next(rollouts))
    other = search.expand(node, State((0,)))
    search.tell(search.evaluate(other), 0.7)
    assert other.x_bar == 0.7


def test_without_predicted_rollouts_a_state_is_worth_its_own(trainer, monkeypatch):
    search = MCTS_metaDNN(trainer.space, 0, MetaDNNOptions(rollouts=0))
    search.tell(search.ask(), 0.7)
    assert search.root.x_bar == 0.7


def test_finished_cells_are_worth_what_the_table_says(search):
    node, outside = search.expand(None, cell_of(82)), search.expand(None, State((0, 0), 0, True))
    search.tell(search.evaluate(node), 0.7)
    search.tell(search.evaluate(outside), NOT_IN_DATA_SET)
    assert (node.x_bar, outside.x_bar) == (0.7, 0.0)


def test_a_failed_training_teaches_it_nothing(search, monkeypatch):
    monkeypatch.setattr(search, "value", lambda *_: pytest.fail("evaluated without an accuracy"))
    search.tell(search.ask(), FAILED)
    assert search.predictor.samples == {} and search.root.x_bar == GIVEN_UP


def test_known_cells_take_their_accuracy_even_if_predicted_before(predictor):
    cell = cell_of(40)
    (predicted,) = predictor.worth([cell])
    assert predictor.worth([cell]) == [predicted]
    predictor.tell(40, 0.75)
    predictor.tell(40, 0.5)  # only the first time counts
    assert predictor.worth([cell, cell]) == [0.75, 0.75] and predicted != 0.75


def test_under_the_isomorphic_lookup_stored_forms_are_predicted(monkeypatch):
    predictor = Predictor(Space(arch_generator(4), "isomorphic"), 0, MetaDNNOptions())
    dangling_edges = sum(cells.edge_bit(*pair) for pair in ((0, 1), (1, 3), (0, 2)))
    dangling = State((0, 2), dangling_edges, True)  # without vertex 2 it is input -> c3 -> output
    asked = []
    monkeypatch.setattr(predictor.network, "predict", lambda batch: asked.extend(batch) or np.array([0.25]))
    assert predictor.worth([dangling]) == [0.25]
    assert asked == [((0,), cells.edge_bit(0, 1) | cells.edge_bit(1, 2))]


# --- fits -------------------------------------------------------------------------------------


def test_fits_happen_at_each_hundred_once(monkeypatch):
    trainer = NetTrainer(load(EMBEDDED), arch_generator(6))
    phases = []
    search = MCTS_metaDNN(trainer.space, 0, MetaDNNOptions(rollouts=1), phases.append)
    network, fitted = search.predictor.network, []
    monkeypatch.setattr(network, "fit", lambda epochs: fitted.append((network.count, epochs)))
    driver = Driver(search, trainer)
    driver.run(samples=399)
    assert fitted == [(100, 20), (200, 20), (300, 20)]
    assert [fit[0] for fit in search.predictor.fits] == [100, 200, 300]
    assert phases == ["fitting", "searching"] * 3
    accuracies = list(driver.history.training_trace.values())
    assert network.accuracies[:300].tolist() == pytest.approx(accuracies[:300])


def test_a_multiple_that_is_passed_at_once_is_made_up_for_by_one_fit(predictor, monkeypatch):
    """With several open questions more answers can come before it is asked again."""
    monkeypatch.setattr(predictor.network, "fit", lambda epochs: None)
    for index in range(25):
        predictor.tell(index, 0.5)
    assert predictor.due
    predictor.fit()
    assert not predictor.due and [fit[0] for fit in predictor.fits] == [25]
    for index in range(25, 30):
        assert not predictor.due
        predictor.tell(index, 0.5)
    assert predictor.due


def test_predictions_are_judged_before_they_are_fitted_and_forgotten_after(predictor, monkeypatch):
    judged, network = [], predictor.network
    monkeypatch.setattr(network, "predict", lambda batch: judged.append(len(batch)) or np.arange(len(batch)) / 1e3)
    monkeypatch.setattr(network, "fit", lambda epochs: judged.append("fit"))
    for index in range(10):
        predictor.tell(index, 0.5 + index / 100)
    predictor.fit()
    seen = ["fit", 10]  # after the fit, whether it has collapsed
    assert judged == seen and predictor.fits[0][:2] == (10, None)
    for place, index in enumerate((40, 12, 80, 25, 31, 50, 66, 71, 19, 90)):  # in the order in which they are predicted
        predictor.tell(index, 0.5 + place / 100)
    predictor.worth([cell_of(85)])
    predictor.fit()
    assert judged == [*seen, 1, 10, "fit", 10] and predictor.fits[1][:2] == (20, 1.0)
    predictor.worth([cell_of(85)])
    assert judged[-1] == 1  # the old prediction is forgotten


@pytest.mark.parametrize("accuracies, predicted", [([0.5] * 3, [0.1, 0.2, 0.3]), ([0.1, 0.2, 0.3], [0.5] * 3)])
def test_where_nothing_can_be_ranked_there_is_no_correlation(predictor, monkeypatch, accuracies, predicted):
    monkeypatch.setattr(predictor.network, "predict", lambda batch: np.array(predicted))
    monkeypatch.setattr(predictor.network, "fit", lambda epochs: None)
    predictor.tell(50, 0.5)
    predictor.fit()
    for index, accuracy in enumerate(accuracies):
        predictor.tell(index, accuracy)
    predictor.fit()
    assert [fit[1] for fit in predictor.fits] == [None, None]


def test_no_fit_after_the_target(trainer, monkeypatch):
    """It is due with the very sample that ends the search."""

    def run_until_found(fit_every: int) -> int:
        search = MCTS_metaDNN(trainer.space, 0, MetaDNNOptions(rollouts=0, fit_every=fit_every))
        monkeypatch.setattr(search.predictor, "fit", lambda: pytest.fail("fitted after the target was found"))
        driver = Driver(search, trainer, trainer.target_accuracy)
        assert driver.run() == "found"
        return driver.history.unique_samples

    samples = run_until_found(1_000)
    assert run_until_found(samples) == samples


def test_a_network_that_has_collapsed_is_begun_anew_and_that_is_said(trainer):
    """Biases of the first layer so low that no ReLU gives anything: one prediction for all cells, for ever."""
    search = MCTS_metaDNN(trainer.space, 0, MetaDNNOptions(rollouts=1, fit_every=10, epochs=1))
    driver = Driver(search, trainer)
    driver.run(samples=20)
    layer = search.predictor.network.model.layers[0]
    layer.set_weights([layer.get_weights()[0], np.full(512, -1e6, np.float32)])
    driver.run(samples=45)
    assert search.predictor.collapses == [20]
    assert np.ptp(search.predictor.network.predict([cells.cell(index) for index in range(50, 60)])) > 0
    assert "begun anew 1 x" in search.status() and search.details()["collapses"] == [20]
    assert "after 20 samples" in search.closing_lines()[-1]
    again = MCTS_metaDNN(trainer.space, 0, search.options)
    again.restore(*search.to_save(), driver.history.training_trace)
    assert again.predictor.collapses == [20] and again.predictor.network.fits == search.predictor.network.fits
    main, files = search.to_save()
    for wrong in ([21], [20, 20], 20, [None]):
        with pytest.raises((ValueError, TypeError)):
            new = MCTS_metaDNN(trainer.space, 0, search.options)
            new.restore({**main, "collapses": wrong}, files, driver.history.training_trace)


def test_the_options_of_the_search_hold_with_the_meta_dnn_too(small_table):
    trainer = NetTrainer(small_table, arch_generator(3), lookup="isomorphic")
    options = MetaDNNOptions(cp=0.05, rollouts=1, epochs=1, backup="path", close_exhausted=True)
    search = MCTS_metaDNN(trainer.space, 0, options)
    driver = Driver(search, trainer)
    assert driver.run() == "exhausted"
    assert driver.history.unique_samples == 7 and all(node.closed for node in search.tree.values())
    assert not search.guide.ready and not search.guided  # the Meta-DNN predicts


@pytest.mark.parametrize("max_nodes", [3, 4])
def test_with_a_guide_the_networks_choose(small_table, max_nodes):
    trainer = NetTrainer(small_table, arch_generator(max_nodes), lookup="isomorphic")
    tuned = MetaDNNOptions(**preset(MetaDNNOptions, "tuned") | {"guide_from": 5})
    search = MCTS_metaDNN(trainer.space, 0, tuned)
    driver = Driver(search, trainer)
    assert driver.run() == "exhausted"
    assert driver.history.unique_samples == cells.cell_count(max_nodes)
    assert search.predictor is None and search.guide.ready and search.guided
    assert search.details() == {"share_of_networks": search.guide.model.share}


def test_a_search_with_networks_goes_on_as_if_it_had_not_been_saved(small_table):
    trainer = NetTrainer(small_table, arch_generator(4), lookup="isomorphic")
    tuned = MetaDNNOptions(**preset(MetaDNNOptions, "tuned") | {"guide_from": 10})
    whole, first, again = (Search(trainer, MCTS_metaDNN, 3, tuned, target_accuracy=2.0) for _ in range(3))
    whole.run(samples=45)
    first.run(samples=30)
    again.restore(*first.to_save())
    again.run(samples=45)
    assert list(again.history.training_trace.items()) == list(whole.history.training_trace.items())
    assert again.to_save() == whole.to_save()


def test_it_searches_with_several_open_questions(trainer):
    """A fit in the middle of them changes nothing of what is open."""
    search = MCTS_metaDNN(trainer.space, 0, MetaDNNOptions(rollouts=2, fit_every=10, epochs=1))
    asked = []
    while len(search.predictor.fits) < 2:
        question = search.ask()
        if isinstance(question, Question):
            asked.append(question)
        if len(asked) == 5:
            first = asked.pop(0)
            search.tell(first, trainer.train_net(first))
        assert search.open_questions() == asked
    for question in asked:
        search.tell(question, trainer.train_net(question))
    assert all(node.visits == node.n >= 1 and 0 <= node.x_bar <= 1 for node in search.tree.values())


# --- the command ------------------------------------------------------------------------------


def test_the_command(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    options = ["--max-nodes", 4, "--samples", 60, "--fit-every", 20, "--epochs", 2, "--seed", 1]
    assert run_here(main, *options, "--out", folders[0]).returncode == 0
    result = run("MCTS_metaDNN.py", *options, "--out", folders[1])
    assert result.returncode == 0, result.stderr
    assert "device   Keras" in result.stdout and "fitting" in result.stderr and "searching" in result.stderr
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in folders)
    assert first["method"] == "mcts-metadnn" and first["unique_samples"] <= 60
    assert [fit[0] for fit in first["fits"]] == [20, 40, 60][: len(first["fits"])] and first["fits"]
    assert first["fits"][0][1] is None
    for summary in (first, second):
        summary["seconds"], summary["fits"] = 0, [fit[:2] for fit in summary["fits"]]
    assert first == second


def test_without_a_backend_the_command_says_so_in_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "abacus")
    assert_refused(run("MCTS_metaDNN.py", "--samples", 1), "abacus", "KERAS_BACKEND")


@pytest.mark.parametrize("option, value", [("--rollouts", "-1"), ("--fit-every", "1")])
def test_wrong_options_are_refused_in_one_line(capsys, option, value):
    with pytest.raises(SystemExit) as refusal:
        main([option, value])
    printed = capsys.readouterr()
    assert refusal.value.code == 2 and printed.out == ""
    (line,) = printed.err.splitlines()
    assert option in line
