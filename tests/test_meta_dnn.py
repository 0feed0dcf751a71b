"""The Meta-DNN: its encoding, its network, its fits."""

import random

import numpy as np
import pytest

import meta_dnn
from nasbench_dataset import cells


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


def test_a_network_can_have_other_layers():
    model = meta_dnn.MetaDNN(0, ((3, "relu", "RandomUniform"), (1, "sigmoid", "GlorotUniform"))).model
    assert [layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")] == [(56, 3), (3, 1)]


@pytest.fixture
def sampled_cells():
    rng = random.Random(0)
    batch = [cells.cell(rng.randrange(cells.cell_count(6))) for _ in range(150)]
    return batch, [rng.uniform(0.3, 0.9) for _ in batch]


def test_network_memorises_32_cells(sampled_cells):
    batch, accuracies = (part[:32] for part in sampled_cells)
    network = meta_dnn.MetaDNN(0)
    network.add(batch, accuracies)
    first = network.fit(1)
    last = network.fit(120)
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
