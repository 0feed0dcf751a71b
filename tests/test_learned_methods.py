"""The peers that learn: their encodings and models beside plain ones, what they ask for, how they end."""

import random
from collections import Counter
from functools import partial

import numpy as np
import pytest
from scipy.stats import multivariate_normal, spearmanr
from sklearn.linear_model import LinearRegression

import learned_methods
import meta_dnn
import small_networks
from arch_generator import arch_generator
from cell_encodings import path_count, path_encoding, path_numbers
from driver import Driver
from gaussian_process import GaussianProcess, kernel, log_likelihoods
from latent_tree import LatentTree
from learned_methods import METHODS, Samples, flat_encoding
from method import GeneratorMethod
from nasbench_dataset import cells
from nasbench_dataset.cells import CONV1X1, CONV3X3, MAXPOOL3X3
from nasbench_dataset.table import EMBEDDED, load
from net_training import NetTrainer, target_state
from space import LOOKUPS, Space

SMALL = (16, "relu", "GlorotUniform"), (1, "sigmoid", "GlorotUniform")  # layers of a Meta-DNN, for speed
QUICK = {**METHODS, "top-k": partial(learned_methods.top_k, new_network=partial(meta_dnn.MetaDNN, layers=SMALL))}


def random_cells(count: int, seed: int = 0) -> list[tuple]:
    return [cells.cell(i) for i in random.Random(seed).sample(range(cells.cell_count()), count)]


def edge_set(*pairs: tuple[int, int]) -> int:
    return sum(cells.edge_bit(x, y) for x, y in pairs)


@pytest.fixture
def quick(monkeypatch):
    """Networks that are fitted for a few steps."""
    monkeypatch.setattr(small_networks, "BANANAS", small_networks.BANANAS._replace(epochs=3))
    monkeypatch.setattr(small_networks, "NPENAS", small_networks.NPENAS._replace(epochs=3))


# --- encodings ----------------------------------------------------------------------------------


def test_paths_are_numbered_by_length_then_operations():
    """White et al. 2019, figure 2.1: input -> output, input -> conv3x3 -> output, and so on; written out by hand."""
    assert path_numbers((), 1, 3) == [0]
    assert path_numbers((MAXPOOL3X3,), edge_set((0, 1), (1, 2)), 3) == [1 + MAXPOOL3X3]
    both = (CONV1X1, CONV3X3), edge_set((0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (0, 3))
    assert path_numbers(*both, 3) == [0, 1 + CONV3X3, 1 + CONV1X1, 4 + 3 * CONV1X1 + CONV3X3]
    chain = (0, 1, 2, 0, 1), edge_set(*((i, i + 1) for i in range(6)))
    assert path_numbers(*chain, 3) == [] and path_numbers(*chain, 5) == [121 + int("01201", 3)]
    assert path_count(3) == 40
    assert np.flatnonzero(path_encoding([both], 3)[0]).tolist() == path_numbers(*both, 3)


def test_paths_know_neither_labelling_nor_unused_vertices():
    rng = random.Random(1)
    for operations, edges in random_cells(200):
        more = tuple(rng.choices(range(3), k=5 - len(operations)))
        assert path_numbers(*cells.enlarge(operations, edges, more), 5) == path_numbers(operations, edges, 5)


def test_lanas_sees_edges_and_vertices():
    """The best cell of 7 vertices, as far as the published code prints it: input -1, conv3x3 .5, output 1."""
    indices = np.array([cells.index(*cell) for cell in random_cells(50)] + [0, cells.index((CONV3X3,), 0b111)])
    rows = flat_encoding(indices)
    for row, index in zip(rows, indices.tolist()):
        operations, edges = cells.cell(index)
        assert row[:21].astype(bool).tolist() == [bool(edges >> bit & 1) for bit in range(21)]
        values = [-1, *({0: 0.5, 1: 0.3, 2: -0.5}[o] for o in operations), 1]
        assert row[21:].tolist() == values + [0] * (7 - len(values))


# --- the Gaussian process -----------------------------------------------------------------------


def plain_kernel(left, right, rounds):
    """Histograms of labels of every round, intersected; each label spelled out as nested tuples."""

    def histogram(cell):
        operations, edges = cell
        v = len(operations) + 2
        leads = {x: [y for y in range(x + 1, v) if edges & cells.edge_bit(x, y)] for x in range(v)}

        def label(vertex, depth):
            if depth == 0:
                return ("in", *operations, "out")[vertex]
            return label(vertex, depth - 1), tuple(sorted((label(y, depth - 1) for y in leads[vertex]), key=repr))

        return Counter((depth, label(vertex, depth)) for depth in range(rounds + 1) for vertex in range(v))

    a, b = histogram(left), histogram(right)
    return (a & b).total() / np.sqrt(a.total() * b.total())


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_the_kernel_is_that_of_plain_histograms(rounds):
    left, right = random_cells(25), random_cells(20, seed=1)
    expected = [[plain_kernel(a, b, rounds) for b in right] for a in left]
    assert np.allclose(kernel(left, right, rounds), expected)
    assert np.allclose(np.diag(kernel(left, left, rounds)), 1)


def test_the_kernel_does_not_depend_on_the_labelling():
    cell = (CONV3X3, CONV1X1, MAXPOOL3X3), edge_set((0, 1), (0, 2), (1, 3), (2, 4), (3, 4))
    other = (CONV1X1, CONV3X3, MAXPOOL3X3), edge_set((0, 1), (0, 2), (2, 3), (1, 4), (3, 4))
    assert kernel([cell], [other], 2)[0, 0] == pytest.approx(1)


def test_likelihoods_are_those_of_a_normal_distribution():
    gram, targets = kernel(random_cells(12), random_cells(12), 2), np.random.default_rng(0).normal(size=12)
    noises = np.array([1e-3, 1e-2, 0.1])
    exact = [multivariate_normal(np.zeros(12), gram + noise * np.eye(12)).logpdf(targets) for noise in noises]
    ours = log_likelihoods(gram, targets, noises)
    assert np.allclose(np.diff(ours), np.diff(exact))


def test_the_posterior_is_that_of_the_inverse():
    batch, others = random_cells(40), random_cells(30, seed=1)
    accuracies = np.random.default_rng(0).uniform(0.8, 0.95, 40)
    model = GaussianProcess(batch, accuracies)
    values = -np.log(1 - accuracies)
    values = (values - values.mean()) / values.std()
    inverse = np.linalg.inv(kernel(batch, batch, model.rounds) + model.noise * np.eye(40))
    across = kernel(others, batch, model.rounds)
    mean, sd = model.predict(others)
    assert np.allclose(mean, across @ inverse @ values)
    assert np.allclose(sd**2, 1 + model.noise - np.diag(across @ inverse @ across.T))
    fitted = kernel(batch, batch, model.rounds) @ inverse @ values
    best = values[fitted.argmax()]
    drawn = np.random.default_rng(1).normal(mean, sd, (200_000, 30))
    assert np.allclose(model.expected_improvement(others), np.maximum(drawn - best, 0).mean(axis=0), atol=0.01)


# --- the tree of LaNAS --------------------------------------------------------------------------


def plain_tree(rows, accuracies, height):
    """(mean, samples, model, mean of predictions, good, bad), nested."""
    if height == 1 or not len(rows):
        return (accuracies.mean() if len(rows) else None, len(rows), None, None, None, None)
    model = LinearRegression().fit(rows, accuracies)
    middle = model.predict(rows).mean()
    good = accuracies >= middle
    children = [plain_tree(rows[part], accuracies[part], height - 1) for part in (good, ~good)]
    return accuracies.mean(), len(rows), model, middle, *children


def test_the_tree_is_that_of_plain_regressions():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 6))
    accuracies = rows @ rng.normal(size=6) + rng.normal(size=400)
    tree, plain = LatentTree(rows, accuracies, 3), plain_tree(rows, accuracies, 3)

    def compare(node, theirs):
        assert (tree.n[node], tree.x_bar[node]) == (theirs[1], pytest.approx(theirs[0]))
        if node < tree.first_leaf:
            compare(2 * node, theirs[4])
            compare(2 * node + 1, theirs[5])

    compare(1, plain)
    others, expected = rng.normal(size=(200, 6)), []
    for row in others:
        node, at = plain, 1
        while node[2] is not None:
            bad = node[2].predict([row])[0] < node[3]
            node, at = node[5 if bad else 4], 2 * at + bad
        expected.append(at)
    assert tree.leaves(others).tolist() == expected and len(set(expected)) == 4


def test_uct_walks_down_the_tree_of_lanas():
    """Hand-computed values, as in the paper's equation 1, and again after samples that change them."""
    rows = np.arange(8.0)[:, None]
    tree = LatentTree(rows, np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9]), 2)
    assert (tree.n[1:], tree.x_bar[2:]) == ([8, 4, 4], pytest.approx([0.9, 0.1]))
    assert tree.select(random.Random(0)) == 2  # .9 + 2 * .1 * sqrt(2 ln 8 / 4) beside .1 + the same
    for _ in range(16):
        tree.back_up(2, 0.0)
    assert (tree.n[1], tree.n[2], tree.x_bar[2]) == (24, 20, pytest.approx(0.18))
    assert [tree._uct(node, 24) for node in (2, 3)] == pytest.approx([0.29275, 0.35211], abs=1e-4)
    assert tree.select(random.Random(0)) == 3


# --- networks -----------------------------------------------------------------------------------


def test_the_networks_of_bananas_are_fitted_as_keras_fits_them(quick, monkeypatch):
    """The same weights at first, the same batches: the same weights at last, for every member."""
    import keras

    monkeypatch.setattr(small_networks, "MEMBERS", 2)
    rng = np.random.default_rng(0)
    rows, targets, seen = rng.random((70, 12)).astype("f"), rng.uniform(5, 9, 70).astype("f"), {}
    program = small_networks._fit
    monkeypatch.setattr(small_networks, "_fit", lambda *arguments: seen.update(all=arguments) or program(*arguments))
    ours = small_networks.Perceptrons(rows, targets, np.random.default_rng(1)).predict(rows)
    _, recipe, weights, _, _, order, present, steps, _ = seen["all"]
    assert (recipe.batch, steps) == (32, 9)
    for member in range(small_networks.MEMBERS):
        model = keras.Sequential([keras.Input((12,)), *(keras.layers.Dense(20, "relu") for _ in range(10))])
        model.add(keras.layers.Dense(1))
        model.set_weights([part[member] for layer in weights for part in (layer["kernel"], layer["bias"])])
        model.compile(keras.optimizers.Adam(0.01, beta_2=0.99), "mae")
        batches = [order[step, member][present[step, member] > 0] for step in range(steps)]
        assert sorted(np.concatenate(batches[:3]).tolist()) == list(range(70))
        for batch in batches:
            model.train_on_batch(rows[batch], targets[batch][:, None])
        assert np.allclose(model.predict_on_batch(rows)[:, 0], ours[member], atol=2e-3)


def test_rows_that_fill_up_do_not_count(quick, monkeypatch):
    rng = np.random.default_rng(0)
    batch = random_cells(30)
    data, errors = small_networks.graphs(batch, 7), rng.uniform(5, 9, 30)
    fitted = []
    for room in (small_networks.ROOM, 32):
        monkeypatch.setattr(small_networks, "ROOM", room)
        rows = path_encoding(batch, 3)
        networks = small_networks.Perceptrons(rows, errors, np.random.default_rng(1))
        graph_network = small_networks.GraphNetwork(data, errors, np.random.default_rng(1))
        fitted.append((networks.predict(rows), graph_network.predict(data)))
    assert np.allclose(fitted[0][0], fitted[1][0], atol=1e-3) and np.allclose(fitted[0][1], fitted[1][1], atol=1e-3)


def test_the_graph_network_does_not_depend_on_the_labelling(quick):
    batch = random_cells(20)
    data = small_networks.graphs(batch, 7)
    network = small_networks.GraphNetwork(data, np.linspace(5, 9, 20), np.random.default_rng(0))
    same = [
        ((CONV3X3, CONV1X1, MAXPOOL3X3), edge_set((0, 1), (0, 2), (1, 3), (2, 4), (3, 4))),
        ((CONV1X1, CONV3X3, MAXPOOL3X3), edge_set((0, 1), (0, 2), (2, 3), (1, 4), (3, 4))),
    ]
    first, second, other = network.predict(small_networks.graphs([*same, batch[0]], 7))
    assert first == pytest.approx(second, abs=1e-4) and abs(first - other) > 1e-3


def test_the_networks_learn():
    """On cells of the embedded table that they have not seen."""
    valid = load(EMBEDDED).columns["valid"]
    indices = np.random.default_rng(0).choice(cells.cell_count(), 300, replace=False)
    batch, errors = [cells.cell(int(i)) for i in indices], 100 * (1 - valid[indices])
    rows, rng = path_encoding(batch, 3), np.random.default_rng(1)
    seen, others = small_networks.graphs(batch[:150], 7), small_networks.graphs(batch[150:], 7)
    by_paths = small_networks.Perceptrons(rows[:150], errors[:150], rng).predict(rows[150:]).mean(axis=0)
    by_graphs = small_networks.GraphNetwork(seen, errors[:150], rng).predict(others)
    for predicted in (by_paths, by_graphs):
        assert spearmanr(predicted, errors[150:]).statistic > 0.5


# --- the methods --------------------------------------------------------------------------------


def driver_of(method: str, trainer: NetTrainer, seed: int = 0) -> Driver:
    return Driver(GeneratorMethod(QUICK[method](trainer.space, random.Random(seed)), trainer.space), trainer)


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_samples(small_table, quick, method, lookup):
    trainer = NetTrainer(small_table, arch_generator(4), "test", lookup)

    def run(seed):
        driver = driver_of(method, trainer, seed)
        assert driver.run(samples=40) == "samples"
        return list(driver.history.training_trace.items())

    first = run(1)
    assert first == run(1) and first != run(2)
    assert first == [(index, small_table.columns["test"][index]) for index, _ in first]


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("method", METHODS)
def test_a_small_table_is_sampled_to_its_end_each_cell_once(small_table, quick, method, lookup):
    small_table.columns["test"][cells.index((0, 1), 0b101101)] = np.nan
    driver = driver_of(method, NetTrainer(small_table, arch_generator(4), "test", lookup))
    assert driver.run() == "exhausted"
    assert driver.history.unique_samples == driver.history.counter == 90


@pytest.mark.parametrize("method", METHODS)
def test_limits_hold_and_failed_trainings_are_left_out(quick, method):
    """Every third training fails: such a cell is not asked for again, and no model sees it."""
    space = Space(arch_generator(6, 7), "isomorphic")
    proposals = QUICK[method](space, random.Random(0))
    cell, asked = next(proposals), []
    for number in range(60):
        asked.append(space.index(cell))
        assert space.has(cell) and cell.edges.bit_count() <= 7 and cell.vertices <= 6
        cell = proposals.send(0.0 if number % 3 == 0 else 0.9 + 1e-4 * number)
    assert len(set(asked)) == 60


@pytest.mark.parametrize("method", METHODS)
def test_without_a_training_that_works_all_cells_are_asked_for(quick, method):
    space = Space(arch_generator(3), "isomorphic")
    asked = []
    proposals = QUICK[method](space, random.Random(0))
    cell = next(proposals)
    try:
        while True:
            asked.append(space.index(cell))
            cell = proposals.send(0.0)
    except StopIteration:
        assert sorted(asked) == list(range(7))


def test_mutants_come_from_the_best_cell_and_change_two_things():
    """Of BANANAS: each of 21 edges with probability 1/21, each of 5 operations with 1/5; seen ones are left out."""
    space = Space(arch_generator(7), "isomorphic")
    samples = Samples(space, random.Random(0))
    graphs = [*(space.graph(samples.rng) for _ in range(4)), target_state(7)[:2]]
    for number, graph in enumerate(graphs):
        index = space.index(space.cell(graph))
        samples.graphs[index], samples.accuracies[index] = graph, 0.9 + 0.01 * number
    mutants = learned_methods._mutants_of_the_best(samples, 1 / 21)
    assert len(mutants) >= 100 and not set(mutants) & set(samples.graphs)
    from_best = list(mutants.values())[:40]
    edges = [bin(graph[1] ^ graphs[-1][1]).count("1") for graph in from_best]
    operations = [sum(a != b for a, b in zip(graph[0], graphs[-1][0])) for graph in from_best]
    assert 0.5 < np.mean(edges) < 2 and 0.5 < np.mean(operations) < 2


def test_nas_bowl_asks_for_the_candidates_of_most_expected_improvement(monkeypatch):
    space, seen = Space(arch_generator(7), "isomorphic"), {}

    def expected(self, batch):
        seen["candidates"] = {space.index(space.cell(space.grown(cell))): i for i, cell in enumerate(batch)}
        return np.arange(len(batch), dtype=float)

    monkeypatch.setattr(GaussianProcess, "expected_improvement", expected)
    proposals = METHODS["nas-bowl"](space, random.Random(0))
    cell = next(proposals)
    for number in range(10):
        cell = proposals.send(0.9 + 0.001 * number)
    asked = []
    for _ in range(5):
        asked.append(space.index(cell))
        candidates = seen["candidates"]
        cell = proposals.send(0.9)
    assert len(candidates) == 200
    assert [candidates[index] for index in asked] == [199, 198, 197, 196, 195]
