"""The Meta-DNN and the search that it assists."""

import json
import random

import numpy as np
import pytest
from conftest import assert_refused, run

import meta_dnn
from arch_generator import ROOT, State, arch_generator
from MCTS_metaDNN import MCTS_metaDNN, main
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import EMBEDDED, load
from net_training import NetTrainer


def edges(*pairs: str) -> int:
    return sum(cells.edge_bit(int(x), int(y)) for x, y in pairs)


BY_HAND = [
    (((), edges("01")), [0, 1, 0, 0], [2]),
    (
        ((1, 2), edges("01", "12", "13", "23")),
        [0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0],
        [2, 3, 4],
    ),
    (
        ((0, 0, 1, 2), edges("02", "05", "13", "45")),
        [0, 0, 1, 0, 0, 1] + [0, 0, 0, 1, 0, 0] + [0] * 6 + [0] * 6 + [0, 0, 0, 0, 0, 1] + [0] * 6,
        [2, 5, 5, 3, 4],
    ),
    (
        ((1, 0, 2, 0, 0), edges("01", "02", "05", "06", "15", "23", "34", "45", "56")),
        [0, 1, 1, 0, 0, 1, 1]
        + [0, 0, 0, 0, 0, 1, 0]
        + [0, 0, 0, 1, 0, 0, 0]
        + [0, 0, 0, 0, 1, 0, 0]
        + [0, 0, 0, 0, 0, 1, 0]
        + [0, 0, 0, 0, 0, 0, 1]
        + [0] * 7,
        [2, 3, 5, 4, 5, 5],
    ),
]


@pytest.mark.parametrize("cell, matrix, codes", BY_HAND)
def test_encoding_by_hand(cell, matrix, codes):
    expected = matrix + [0] * (49 - len(matrix)) + codes + [9] * (7 - len(codes))
    assert meta_dnn.encode([cell])[0].tolist() == expected


def test_encoding_many_is_encoding_each():
    rng = random.Random(0)
    batch = [cells.cell(rng.randrange(cells.cell_count())) for _ in range(200)] + [c for c, _, _ in BY_HAND]
    together = meta_dnn.encode(batch)
    assert together.shape == (204, 56) and together.dtype == np.float32
    np.testing.assert_array_equal(together, np.concatenate([meta_dnn.encode([cell]) for cell in batch]))


def test_network_is_the_described_one():
    model = meta_dnn.build(0)
    dense = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert [layer.kernel.shape for layer in dense] == [(56, 512), (512, 2048), (2048, 2048), (2048, 512), (512, 1)]
    kernels = [np.asarray(layer.kernel) for layer in dense]
    for kernel in kernels[:3]:  # uniform in -0.05..0.05
        assert abs(kernel).max() == pytest.approx(0.05, rel=0.01)
        assert kernel.std() == pytest.approx(0.1 / 12**0.5, rel=0.02)
    assert abs(kernels[3]).max() == pytest.approx((6 / (2048 + 512)) ** 0.5, rel=0.01)  # Glorot
    assert float(model.optimizer.learning_rate) == pytest.approx(2e-4)
    again, other = meta_dnn.build(0), meta_dnn.build(1)
    for same, different, kernel in zip(again.layers, other.layers, kernels):
        np.testing.assert_array_equal(np.asarray(same.kernel), kernel)
        assert not np.array_equal(np.asarray(different.kernel), kernel)


@pytest.fixture
def sampled_cells():
    rng = random.Random(0)
    return [cells.cell(rng.randrange(cells.cell_count(6))) for _ in range(150)], [rng.uniform(0.3, 0.9) for _ in range(150)]


def test_network_memorises_32_cells(sampled_cells):
    batch, accuracies = (part[:32] for part in sampled_cells)
    network = meta_dnn.MetaDNN(0)
    network.add(batch, accuracies)
    first = network.fit(1)
    last = network.fit(150)
    assert first > 1e-2 and last < 1e-4
    np.testing.assert_allclose(network.predict(batch), accuracies, atol=0.03)


def test_a_fit_has_no_rows_of_its_own(sampled_cells):
    """A last batch that is filled up takes the same step as the plain mean over its rows."""
    batch, accuracies = (part[:40] for part in sampled_cells)
    network, plain = meta_dnn.MetaDNN(3), meta_dnn.build(3)
    network.add(batch, accuracies)
    loss = network._fit_batch(np.arange(40)) / 40
    plain_loss = plain.train_on_batch(meta_dnn.encode(batch), np.array(accuracies, np.float32)[:, None])
    assert loss == pytest.approx(float(plain_loss), rel=1e-5)
    np.testing.assert_allclose(
        network.predict(batch), np.asarray(plain.predict_on_batch(meta_dnn.encode(batch)))[:, 0], rtol=1e-4
    )


def test_weights_and_order_come_from_the_seed(sampled_cells):
    def predictions(seed):
        network = meta_dnn.MetaDNN(seed)
        network.add(*sampled_cells)
        network.fit(1)
        return network.predict(sampled_cells[0]).tolist()

    assert predictions(5) == predictions(5) != predictions(6)


def test_every_epoch_has_every_sample_in_a_new_order(sampled_cells, monkeypatch):
    network = meta_dnn.MetaDNN(5)
    network.add(*sampled_cells)
    seen = []
    monkeypatch.setattr(network, "_fit_batch", lambda samples: seen.append(samples.tolist()) or 0.0)
    network.fit(2)
    epochs = [seen[0] + seen[1], seen[2] + seen[3]]
    assert [len(batch) for batch in seen] == [128, 22, 128, 22]
    assert epochs[0] != epochs[1] and all(sorted(epoch) == list(range(150)) for epoch in epochs)


def test_any_seed_that_a_search_takes_is_good(sampled_cells):
    first, second = (meta_dnn.MetaDNN(seed).predict(sampled_cells[0][:3]).tolist() for seed in (2**32 - 1, 10**20))
    assert first != second


def test_shapes_stay_the_same_as_the_data_grow(sampled_cells, monkeypatch):
    network = meta_dnn.MetaDNN(0)
    shapes = set()
    train, predict = network.model.train_on_batch, network.model.predict_on_batch
    monkeypatch.setattr(network.model, "train_on_batch", lambda x, y, w: shapes.add(x.shape) or train(x, y, w))
    monkeypatch.setattr(network.model, "predict_on_batch", lambda x: shapes.add(x.shape) or predict(x))
    for start, stop in ((0, 3), (3, 100), (100, 150)):
        network.add(sampled_cells[0][start:stop], sampled_cells[1][start:stop])
        network.fit(1)
        assert len(network.predict(sampled_cells[0][start:stop])) == stop - start
    assert shapes == {(meta_dnn.BATCH, 56), (meta_dnn.PREDICT_ROWS, 56)}


def test_room_for_samples_grows():
    network = meta_dnn.MetaDNN(0)
    stored = [cells.cell(i) for i in range(2_500)]
    for start in range(0, 2_500, 500):
        network.add(stored[start : start + 500], [0.5 + i / 1e4 for i in range(start, start + 500)])
    assert network.count == 2_500
    np.testing.assert_array_equal(network.rows[:2_500], meta_dnn.encode(stored))
    np.testing.assert_allclose(network.accuracies[:2_500], 0.5 + np.arange(2_500) / 1e4, rtol=1e-6)


# --- the search -------------------------------------------------------------------------------


@pytest.fixture
def search(small_table):
    return MCTS_metaDNN(NetTrainer(small_table, arch_generator(4)), seed=0, fit_every=10, epochs=1)


def test_value_by_hand(search, monkeypatch):
    """One true rollout worth t; of ten more, six at a cell that is known and four at one that is predicted."""
    known, new, true = (State(*cells.cell(i), True) for i in (80, 81, 82))
    accuracy = search.trainer.train_net(known)
    rollouts = iter([true] + [known] * 6 + [new] * 4)
    monkeypatch.setattr(search, "rollout", lambda state: next(rollouts))
    asked = []
    monkeypatch.setattr(search.predictor, "predict", lambda batch: asked.append(batch) or np.array([0.25]))
    lookups = search.trainer.counter
    value = search.evaluate(ROOT)
    assert value == pytest.approx((search.trainer.accuracy_of(true) + (6 * accuracy + 4 * 0.25) / 10) / 2)
    assert search.trainer.counter == lookups + 1  # the true one alone is looked up
    assert asked == [[(new.operations, new.edges)]]  # one pass, for what is not known


def test_known_cells_take_their_accuracy_even_if_predicted_before(search):
    cell = State(*cells.cell(40), True)
    predicted = search.worth([cell])[0]
    assert search.worth([cell])[0] == predicted
    accuracy = search.trainer.train_net(cell)
    assert search.worth([cell])[0] == accuracy != predicted


def test_under_the_isomorphic_lookup_stored_forms_are_predicted(small_table, monkeypatch):
    search = MCTS_metaDNN(NetTrainer(small_table, arch_generator(4), lookup="isomorphic"), seed=0)
    dangling = State((0, 2), edges("01", "13", "02"), True)  # without vertex 2 it is input -> c3 -> output
    asked = []
    monkeypatch.setattr(search.predictor, "predict", lambda batch: asked.extend(batch) or np.array([0.25]))
    assert search.worth([dangling]) == [0.25]
    assert asked == [((0,), edges("01", "12"))]


def test_rollouts_that_give_up(search, monkeypatch):
    true = State(*cells.cell(82), True)
    monkeypatch.setattr(search, "rollout", lambda state: None)
    assert search.evaluate(ROOT) == 0.1
    rollouts = iter([true] * 10 + [None])
    monkeypatch.setattr(search, "rollout", lambda state: next(rollouts))
    assert search.evaluate(ROOT) == search.trainer.accuracy_of(true)


def test_finished_cells_are_worth_what_the_table_says(search):
    cell = State(*cells.cell(82), True)
    assert search.evaluate(cell) == search.trainer.accuracy_of(cell)
    assert search.evaluate(State((0, 0), 0, True)) == 0.0


def test_fits_happen_at_each_hundred_once(monkeypatch):
    search = MCTS_metaDNN(NetTrainer(load(EMBEDDED), arch_generator(6)), seed=0, rollouts=1)
    fitted = []
    monkeypatch.setattr(search.predictor, "fit", lambda epochs: fitted.append((search.predictor.count, epochs)))
    search.search(samples=399)
    assert fitted == [(100, 20), (200, 20), (300, 20)]
    assert [fit[0] for fit in search.fits] == [100, 200, 300]
    assert search.predictor.accuracies[:300].tolist() == pytest.approx(list(search.trainer.training_trace.values())[:300])


def test_predictions_are_judged_before_they_are_fitted_and_forgotten_after(search, monkeypatch):
    judged = []
    monkeypatch.setattr(search.predictor, "predict", lambda batch: judged.append(len(batch)) or np.arange(len(batch)) / 1e3)
    monkeypatch.setattr(search.predictor, "fit", lambda epochs: judged.append("fit"))
    for cell in range(10):
        search.trainer.train_net(State(*cells.cell(cell), True))
    search.fit()
    assert judged == ["fit"] and search.fits[0][:2] == (10, None)
    order = np.argsort(search.trainer.accuracies[10:30]) + 10  # in the order of their accuracies, as predicted
    for cell in order[:10].tolist():
        search.trainer.train_net(State(*cells.cell(cell), True))
    search.predictions[ROOT] = 0.5
    search.fit()
    assert judged == ["fit", 10, "fit"] and search.fits[1][:2] == (20, 1.0)
    assert not search.predictions and search.fit_due == 30


def test_where_nothing_can_be_ranked_there_is_no_correlation(search, monkeypatch):
    monkeypatch.setattr(search.predictor, "predict", lambda batch: np.arange(len(batch)))
    assert search.correlation([((), 1)] * 3, [0.5, 0.5, 0.5]) is None
    assert search.correlation([((), 1)] * 3, [0.1, 0.2, 0.3]) == 1.0


def test_no_fit_after_the_target(small_table, monkeypatch):
    trainer = NetTrainer(small_table, arch_generator(4))
    search = MCTS_metaDNN(trainer, seed=0, fit_every=2)
    monkeypatch.setattr(search, "fit", lambda: pytest.fail("fitted after the target was found"))
    search.root = search.expand(None, ROOT)
    trainer.train_net(trainer.target)
    trainer.train_net(State(*cells.cell(3), True))
    search.episode()


def test_the_command(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        options = ["--max-nodes", 4, "--samples", 60, "--fit-every", 20, "--epochs", 2, "--seed", 1]
        result = run("MCTS_metaDNN.py", *options, "--out", folder)
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


def test_wrong_options_are_refused_in_one_line():
    assert_refused(run("MCTS_metaDNN.py", "--rollouts", -1), "--rollouts")
    assert_refused(run("MCTS_metaDNN.py", "--fit-every", 1), "--fit-every")
    with pytest.raises(InputError, match="--guide is of MCTS.py"):
        main(["--guide", "5"])


def test_the_options_of_the_search_hold_with_the_meta_dnn_too(small_table):
    trainer = NetTrainer(small_table, arch_generator(3), lookup="isomorphic")
    trainer.target_accuracy = 2.0  # out of reach
    search = MCTS_metaDNN(trainer, 0, cp=0.05, rollouts=1, epochs=1, backup="path", close_exhausted=True)
    assert search.search() == "exhausted"
    assert trainer.unique_samples == 7 and all(node.closed for node in search.tree.values())
