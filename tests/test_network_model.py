"""The ensemble of the guide: its encoding, what counts of its networks, its spread, the same fit again."""

import random

import numpy as np
import pytest

from linear_model import FEATURES, LinearModel, features_of
from nasbench_dataset import cells
from network_model import INPUTS, MEMBERS, NetworkModel, _inputs


def encoded(count: int, seed: int = 0) -> np.ndarray:
    model = NetworkModel(0)
    indices = random.Random(seed).sample(range(cells.cell_count()), count)
    return np.array([model.encode(cells.cell(index)) for index in indices])


def crossed(rows: np.ndarray) -> np.ndarray:
    """Targets that no sum over features can give: whether two edges are both there or both not."""
    edges = rows[:, LinearModel.width :]
    return 2.5 + 0.2 * (edges[:, 1] == edges[:, 5])


def test_every_edge_and_operation_has_its_place():
    """A cell of 4 vertices: its output becomes the seventh, its operations stay the first two."""
    cell = (2, 0), sum(cells.edge_bit(x, y) for x, y in ((0, 1), (1, 2), (0, 3), (2, 3)))
    row = NetworkModel(0).encode(cell)
    (inputs,) = _inputs(row[None])
    assert inputs.shape == (INPUTS,)
    assert inputs[:FEATURES].tolist() == np.bincount(features_of(*cell), minlength=FEATURES).tolist()
    edges = sum(1 << bit for bit in np.flatnonzero(inputs[FEATURES : FEATURES + 21]))
    assert edges == sum(cells.edge_bit(x, y) for x, y in ((0, 1), (1, 2), (0, 6), (2, 6)))
    assert np.flatnonzero(inputs[FEATURES + 21 :]).tolist() == [2, 3 + 0]


def test_what_it_learns_beyond_the_linear_model_counts():
    rows, others = encoded(400), encoded(200, seed=1)
    model = NetworkModel(0)
    model.fit(rows, crossed(rows))
    assert model.share > 0.5 and model.noise >= model.linear.noise * 0.5
    missed = np.abs(model.mean(others) - crossed(others)).mean()
    assert missed < 0.8 * np.abs(model.linear.mean(others[:, : LinearModel.width].astype(int)) - crossed(others)).mean()


def test_networks_that_learn_nothing_do_not_count():
    """Noise: what a network says of samples that it has not seen has nothing to do with them, or the wrong sign."""
    rows = encoded(100)
    shares = []
    for seed in range(5):
        model = NetworkModel(seed)
        model.fit(rows, np.random.default_rng(seed).normal(2.5, 0.1, 100))
        shares.append(model.share)
    assert np.mean(shares) < 0.35


def test_networks_that_have_collapsed_do_not_count():
    rows, targets = encoded(50), np.linspace(2, 3, 50)
    model = NetworkModel(0)
    model.fit(rows, targets)
    for nonsense in (np.zeros((MEMBERS, 50)), np.full((MEMBERS, 50), np.nan), np.full((MEMBERS, 50), np.inf)):
        with np.errstate(invalid="ignore"):
            model._weigh(nonsense, targets - 2.5, np.zeros((MEMBERS, 50), int))
        assert model.share == 0.0 and np.isfinite(model.mean(rows)).all()
        assert np.isfinite(model.spread(rows, rows[:3])).all()


def test_the_same_seed_and_samples_give_the_same_model():
    rows, targets = encoded(60), np.random.default_rng(0).normal(2.5, 0.2, 60)
    models = [NetworkModel(seed) for seed in (0, 0, 1)]
    models[0].fit(rows[:40], targets[:40])  # a fit before leaves nothing behind
    for model in models:
        model.fit(rows, targets)
    predicted = [np.concatenate([m.mean(rows), m.spread(rows, rows[:2]), m._members(rows)[0]]) for m in models]
    assert np.array_equal(predicted[0], predicted[1]) and not np.allclose(predicted[0], predicted[2])
    alone = np.concatenate([models[0].mean(row[None]) for row in rows])
    assert np.array_equal(alone, models[0].mean(rows))  # to the last bit, which a resumed search needs


@pytest.mark.parametrize("count", [2, 3, 20])
def test_few_samples_and_equal_targets_break_nothing(count):
    rows = encoded(30)
    model = NetworkModel(0)
    model.fit(rows[:count], np.full(count, 2.5))
    assert np.allclose(model.mean(rows), 2.5, atol=1e-6) and np.isfinite(model.spread(rows, rows[:2])).all()
