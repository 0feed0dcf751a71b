"""Methods that learn from all their samples, as they were published, each as a generator (see baselines.py).

All begin with random graphs and go on in rounds: a model is fitted to all samples, candidates are judged by it, and the
best of them are asked for. A cell comes once only. Where all candidates are known, as in a tiny space, any cells that
are left take their place. What differs from a publication is said of each method.
"""

import random
from typing import TYPE_CHECKING, Callable, Iterable, Iterator

import numpy as np

from arch_generator import State
from cell_encodings import Cell, path_encoding
from gaussian_process import GaussianProcess
from latent_tree import LatentTree
from method import Proposals
from nasbench_dataset import cells
from space import Graph, Space

if TYPE_CHECKING:  # Keras is imported by the method alone that needs it
    from meta_dnn import MetaDNN

FIRST = 10  # random cells that all begin with
DRAWS = 20  # per cell wanted, until it counts as not to be had
MUTANTS, PARENTS = 100, 5  # BANANAS and NPENAS: mutants wanted; cells of which they are made, the best first, at most
LONGEST_PATH = 3  # BANANAS: the 40 shortest paths
ROUND = 10  # BANANAS and NPENAS: samples of a round
BOWL_ROUND, BOWL_POOL, BOWL_PARENTS = 5, 200, 10  # NAS-BOWL: samples of a round; candidates; parents of half of them
LANAS_ROUND, LANAS_POOL = 20, 20_000  # LaNAS: samples between two fits; random cells sent down the tree at a time
TOP_ROUND, TOP_POOL = 50, 1_000  # top-k: samples of a round, the first included; random candidates


class Samples:
    """What a method has sampled, and what there is to sample.

    Attributes
    ----------
    graphs, accuracies : dict of int to Graph, of int to float
        By the index of the cell; the accuracies of trainings that worked.
    """

    def __init__(self, space: Space, rng: random.Random):
        self.space, self.rng = space, rng
        self.graphs: dict[int, Graph] = {}
        self.accuracies: dict[int, float] = {}

    def ask(self, graphs: Iterable[Graph]) -> Proposals:
        """Ask for the accuracies of the cells for which some graphs stand."""
        for graph in graphs:
            cell = self.space.cell(graph)
            index = self.space.index(cell)
            self.graphs[index] = graph
            accuracy = yield cell
            if accuracy:
                self.accuracies[index] = accuracy

    def cells(self) -> list[Cell]:
        """Those with an accuracy, in stored form."""
        return [cells.cell(index) for index in self.accuracies]

    def values(self) -> np.ndarray:
        """float64 [n]: the accuracies."""
        return np.array(list(self.accuracies.values()))

    def best(self, count: int) -> list[int]:
        """The indices of the best, the best first."""
        return sorted(self.accuracies, key=self.accuracies.get, reverse=True)[:count]

    def new(self, graphs: Iterator[Graph], count: int, draws: int, found: dict[int, Graph]) -> dict[int, Graph]:
        """``found`` with the different cells that are not sampled among so many graphs, until it has ``count``."""
        for _ in range(draws):
            if len(found) >= count:
                break
            graph = next(graphs)
            index = self.space.index(self.space.cell(graph))
            if index not in self.graphs:
                found.setdefault(index, graph)
        return found

    def random(self) -> Iterator[Graph]:
        """Random graphs, without end."""
        while True:
            yield self.space.graph(self.rng)

    def mutants(self, graph: Graph, edge_chance: float | None = None) -> Iterator[Graph]:
        """Mutants of a graph, without end."""
        while True:
            yield self.space.mutate(graph, self.rng, edge_chance)

    def left(self, count: int) -> list[Graph]:
        """Some of the cells that are not sampled, at random; none where all are."""
        left = [index for index in self.space.all_cells().tolist() if index not in self.graphs]
        return [self.space.grown(cells.cell(i)) for i in self.rng.sample(left, min(count, len(left)))]


Choose = Callable[[Samples, np.random.Generator], list[Graph]]  # the next cells to sample, the best first


def _in_rounds(space: Space, rng: random.Random, choose: Choose, size: int, first: int = FIRST) -> Proposals:
    """Random graphs first, then in each round those that ``choose`` puts first."""
    samples, generator = Samples(space, rng), np.random.default_rng(rng.getrandbits(64))
    batch = list(samples.new(samples.random(), first, first * DRAWS, {}).values())
    while batch:
        yield from samples.ask(batch)
        chosen = choose(samples, generator)[:size] if samples.accuracies else []
        batch = chosen or samples.left(size)


def _mutants_of_the_best(samples: Samples, edge_chance: float | None = None) -> dict[int, Graph]:
    """New mutants of the best cell; where those are too few, of the next, too."""
    found: dict[int, Graph] = {}
    for index in samples.best(PARENTS):
        if len(found) >= MUTANTS:
            break
        samples.new(samples.mutants(samples.graphs[index], edge_chance), 2 * MUTANTS, MUTANTS, found)
    return found


def bananas(space: Space, rng: random.Random) -> Proposals:
    """BANANAS (White et al., arXiv 1910.11858, sections 3 and 5): an ensemble of networks, Thompson samples, mutation.

    Their settings: 10 random graphs; rounds of 10; 5 networks of 10 layers of 20, Adam at .01, mean absolute error of
    the error in per cent, 150 epochs, on the 40 shortest paths; 100 mutants of the best cell; independent Thompson
    samples from the mean and deviation of the 5. Differs: cells are told apart exactly, there by their paths.
    """
    from small_networks import Perceptrons

    def choose(samples: Samples, generator: np.random.Generator) -> list[Graph]:
        networks = Perceptrons(path_encoding(samples.cells(), LONGEST_PATH), 100 * (1 - samples.values()), generator)
        candidates = _mutants_of_the_best(samples, 1 / space.edge_count)
        if not candidates:
            return []
        errors = networks.predict(path_encoding([cells.cell(i) for i in candidates], LONGEST_PATH))
        drawn = generator.normal(errors.mean(axis=0), errors.std(axis=0))
        return _in_order(candidates, drawn)

    return _in_rounds(space, rng, choose, ROUND)


def npenas(space: Space, rng: random.Random) -> Proposals:
    """NPENAS-NP (Wei et al., arXiv 2003.12857, sections 3 and 4): evolution by a graph network's predictions.

    Their settings: 10 random graphs; rounds of 10; 100 mutants of the best cell, of which the 10 of the least predicted
    error are asked for; a graph isomorphism network of 3 layers of 32, mean squared error of the error in per cent,
    Adam at .005 falling by a cosine, weight decay 1e-4, 300 epochs, batches of 16. Differs: batch normalisation takes
    the statistics of all samples where theirs has running means, and the first batches are of 16, too, not 10.
    """
    from small_networks import GraphNetwork, graphs

    def choose(samples: Samples, generator: np.random.Generator) -> list[Graph]:
        network = GraphNetwork(graphs(samples.cells(), space.vertices), 100 * (1 - samples.values()), generator)
        candidates = _mutants_of_the_best(samples)
        if not candidates:
            return []
        return _in_order(candidates, network.predict(graphs([cells.cell(i) for i in candidates], space.vertices)))

    return _in_rounds(space, rng, choose, ROUND)


def nas_bowl(space: Space, rng: random.Random) -> Proposals:
    """NAS-BOWL (Ru et al., arXiv 2006.07556, sections 3 and 5.2): a Gaussian process over graphs, expected improvement.

    Their settings: 10 random graphs; rounds of 5; 200 candidates, half of them mutants of the 10 best, half random
    graphs; a Weisfeiler-Lehman kernel of optimal assignment. Mutants are made of a cell without its unused vertices, so
    that only random graphs bring more vertices. Differs: the noise is the likeliest of seven, there found by gradients.
    """

    def choose(samples: Samples, generator: np.random.Generator) -> list[Graph]:
        model = GaussianProcess(samples.cells(), samples.values())
        candidates: dict[int, Graph] = {}
        each = BOWL_POOL // 2 // BOWL_PARENTS
        for index in samples.best(BOWL_PARENTS):
            samples.new(_small_mutants(space, cells.cell(index), rng), len(candidates) + each, 5 * each, candidates)
        samples.new(samples.random(), BOWL_POOL, DRAWS * BOWL_POOL, candidates)
        if not candidates:
            return []
        return _in_order(candidates, -model.expected_improvement([cells.cell(index) for index in candidates]))

    return _in_rounds(space, rng, choose, BOWL_ROUND)


def _small_mutants(space: Space, cell: Cell, rng: random.Random) -> Iterator[Graph]:
    """Mutants of a cell at its own size, as graphs of the full one; itself where there is nothing to change."""
    while True:
        mutant = cells.mutate(*cell, rng) if cell[0] else cell
        graph = space.grown(mutant)
        yield graph if space.has(space.cell(graph)) else space.grown(cell)


def lanas(space: Space, rng: random.Random) -> Proposals:
    """LaNAS (Wang et al., arXiv 1906.06832, section 3): a tree of linear models divides the space, UCT takes a region.

    Their settings: 10 random cells; a tree of height 5, Cp .1, fitted again every 20 samples; a random cell of the leaf
    to which UCT leads. Differs: they list all cells of the space and send them down the tree; here 20,000 random cells
    are sent after each fit, as a space that cannot be listed would have it. The regressions are least squares, to which
    their gradient steps lead.
    """
    samples, generator = Samples(space, rng), np.random.default_rng(rng.getrandbits(64))
    yield from samples.ask(samples.left(FIRST))
    while samples.accuracies:
        tree = LatentTree(flat_encoding(np.array([*samples.accuracies])), samples.values())
        pool = generator.permutation(_pool(samples, generator))
        if not len(pool):
            return
        at = tree.leaves(flat_encoding(pool))
        regions = {leaf: pool[at == leaf].tolist() for leaf in range(tree.first_leaf, 2 * tree.first_leaf)}
        for _ in range(min(LANAS_ROUND, len(pool))):
            leaf = tree.select(rng)
            leaf = leaf if regions[leaf] else next(leaf for leaf, region in regions.items() if region)
            index = regions[leaf].pop()
            yield from samples.ask([space.grown(cells.cell(index))])
            if index in samples.accuracies:
                tree.back_up(leaf, samples.accuracies[index])


def _pool(samples: Samples, generator: np.random.Generator) -> np.ndarray:
    """Indices of different random cells that are not sampled."""
    everything = samples.space.all_cells()
    drawn = everything if len(everything) <= LANAS_POOL else generator.choice(everything, LANAS_POOL)
    return np.setdiff1d(drawn, list(samples.graphs))


def flat_encoding(indices: np.ndarray) -> np.ndarray:
    """float64 [n, 28]: each edge, 0 or 1, then a number for each vertex, as LaNAS sees cells; 0 where there is none.

    Input -1, output 1; of the operations the published example gives conv3x3 alone, .5, and the others are ours.
    """
    rows, edge_count = np.zeros((len(indices), 28)), 21
    for vertices in cells.CELL_COUNTS:
        here = np.flatnonzero((indices >= cells.first_index(vertices)) & (indices < cells.cell_count(vertices)))
        codes = cells.enumerate_codes(vertices)[indices[here] - cells.first_index(vertices)]
        edges, numbers = np.divmod(codes, 3 ** (vertices - 2))
        pairs = vertices * (vertices - 1) // 2
        rows[here, :pairs] = edges[:, None] >> np.arange(pairs) & 1
        rows[here, edge_count] = -1
        inner = slice(edge_count + 1, edge_count + vertices - 1)
        rows[here, inner] = OPERATION_VALUES[cells.operation_table(vertices)[numbers]]
        rows[here, edge_count + vertices - 1] = 1
    return rows


OPERATION_VALUES = np.array([0.5, 0.3, -0.5])  # conv3x3, conv1x1, maxpool


def top_k(space: Space, rng: random.Random, new_network: "Callable[[int], MetaDNN] | None" = None) -> Proposals:
    """The top k by a predictor (Wen et al., arXiv 1912.00848, section 3), here the Meta-DNN of AlphaX, in rounds.

    50 random graphs; then in each round the 50 of 1,000 random graphs of which the network, fitted further to all
    samples, predicts most. Differs: they fit once, to a fixed number of random cells, with a graph network of their
    own.
    """
    from meta_dnn import MetaDNN

    network = (new_network or MetaDNN)(rng.getrandbits(32))
    added = 0

    def choose(samples: Samples, generator: np.random.Generator) -> list[Graph]:
        nonlocal added
        network.add(samples.cells()[added:], samples.values()[added:])
        added = len(samples.accuracies)
        network.fit()
        candidates = samples.new(samples.random(), TOP_POOL, TOP_POOL, {})
        return _in_order(candidates, -network.predict([cells.cell(index) for index in candidates]))

    return _in_rounds(space, rng, choose, TOP_ROUND, TOP_ROUND)


def _in_order(candidates: dict[int, Graph], losses: np.ndarray) -> list[Graph]:
    """The candidates, those of the least loss first."""
    graphs = list(candidates.values())
    return [graphs[place] for place in np.argsort(losses, kind="stable")]


METHODS: dict[str, Callable[[Space, random.Random], Proposals]] = {
    "bananas": bananas,
    "lanas": lanas,
    "npenas": npenas,
    "nas-bowl": nas_bowl,
    "top-k": top_k,
}
