"""The linear model of the guide: its features beside those of the surrogate, its posterior beside plain algebra."""

import random

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge

from cell_encodings import KINDS, paths_and_edges
from linear_model import FEATURES, FIRST_DEPTH, FIRST_EDGE, FIRST_OPERATION, MOST_FEATURES, PATHS, RIDGES
from linear_model import LinearModel, features_of
from nasbench_dataset import cells, features


def random_indices(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).sample(range(cells.cell_count()), count)


def counts(index: int) -> np.ndarray:
    return np.bincount(features_of(*cells.cell(index)), minlength=FEATURES)


@pytest.fixture
def rows() -> np.ndarray:
    return np.array([LinearModel().encode(cells.cell(i)) for i in random_indices(60)])


@pytest.fixture
def targets() -> np.ndarray:
    return np.random.default_rng(0).normal(2.5, 0.2, 60)


def test_features_are_those_that_the_surrogate_counts():
    """features.py counts the same for many cells at once, by other means."""
    indices = np.array(random_indices(300))
    theirs = features.describe(indices)
    ours = np.array([counts(index) for index in indices])
    assert ours.shape[1] == FEATURES and (ours.sum(axis=1) <= MOST_FEATURES).all()
    short = ["without a vertex" if not s else "-".join(features.SHORT[o] for o in s) for s in features.SEQUENCES]
    for place, name in enumerate(short[:FIRST_EDGE]):
        assert np.array_equal(ours[:, place], theirs[f"paths {name}"] > 0), name
    for x, source in enumerate(features.KINDS):
        for y, target in enumerate(features.KINDS):
            column = ours[:, FIRST_EDGE + KINDS * x + y]
            assert np.array_equal(column, theirs.get(f"edges {source}->{target}", np.zeros(300))), (source, target)
    for o, name in enumerate(features.SHORT):
        assert np.array_equal(ours[:, FIRST_OPERATION + o], theirs[name])


def test_depth_and_number_of_paths():
    """Of a chain of four with an edge past all of them, and of a diamond."""
    chain = sum(cells.edge_bit(x, x + 1) for x in range(5)) | cells.edge_bit(0, 5)
    assert features_of((0, 1, 0, 1), chain)[-3:] == [FIRST_DEPTH + 4, PATHS, PATHS]
    diamond = sum(cells.edge_bit(x, y) for x, y in ((0, 1), (0, 2), (1, 3), (2, 3)))
    assert features_of((0, 0), diamond)[-3:] == [FIRST_DEPTH + 1, PATHS, PATHS]


def test_no_cell_has_more_features_than_there_is_room_for():
    """The most paths have graphs of few vertices and nine edges; operations only make paths equal."""
    for vertices in (2, 5, 6, 7):
        for edges in set((cells.enumerate_codes(vertices) // 3 ** (vertices - 2)).tolist()):
            paths, pairs = paths_and_edges(vertices, edges)
            assert 2 * len(paths) + len(pairs) + vertices - 2 + 1 <= MOST_FEATURES


def test_predictions_are_those_of_ridge_regression(rows, targets):
    model = LinearModel()
    model.fit(rows, targets)
    reference = Ridge(alpha=model.ridge).fit([counts(i) for i in random_indices(60)], targets)
    others = random_indices(40, seed=1)
    predicted = model.mean(np.array([model.encode(cells.cell(i)) for i in others]))
    np.testing.assert_allclose(predicted, reference.predict([counts(i) for i in others]), atol=1e-7)


def test_the_ridge_is_that_of_the_largest_evidence(rows, targets):
    """The density of the targets under the prior, in so many dimensions as there are samples but one, for the mean."""
    model = LinearModel()
    model.fit(rows, targets)
    x = np.array([counts(i) for i in random_indices(60)], float)
    x, y = x - x.mean(axis=0), targets - targets.mean()

    def density(ridge: float, noise: float) -> float:
        return multivariate_normal(np.zeros(60), noise**2 * (np.eye(60) + x @ x.T / ridge)).logpdf(y)

    found = {ridge: max(density(ridge, noise) for noise in np.geomspace(0.05, 0.4, 400)) for ridge in RIDGES.tolist()}
    assert max(found, key=found.get) == model.ridge
    assert density(model.ridge, model.noise) >= found[model.ridge] - 1e-3


def test_spread_is_that_of_the_posterior_and_of_what_waits(rows, targets):
    model = LinearModel()
    model.fit(rows, targets)
    x = np.array([counts(i) for i in random_indices(60)], float)
    others = random_indices(30, seed=1)
    z = np.array([counts(i) for i in others], float) - x.mean(axis=0)
    x -= x.mean(axis=0)
    new = np.array([model.encode(cells.cell(i)) for i in others])
    for waiting in (0, 5):
        known = np.vstack([x, z[:waiting]])  # waiting cells count as known, whatever their targets
        covariance = model.noise**2 * np.linalg.inv(known.T @ known + model.ridge * np.eye(FEATURES))
        expected = np.sqrt(np.einsum("ij,jk,ik->i", z, covariance, z) + model.noise**2)
        np.testing.assert_allclose(model.spread(new, new[:waiting]), expected, rtol=1e-6)


def test_equal_targets_and_a_single_sample_break_nothing(rows):
    for count in (1, 2, 60):
        model = LinearModel()
        model.fit(rows[:count], np.full(count, 2.5))
        assert np.allclose(model.mean(rows), 2.5) and np.isfinite(model.spread(rows, rows[:3])).all()
