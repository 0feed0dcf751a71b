"""The methods that AlphaX is compared with, each as a short generator that asks and is told.

    proposals = random_search(Space(trainer), random.Random(0))
    cell = next(proposals)                  it asks for the accuracy of a cell,
    cell = proposals.send(accuracy)         is told it (0 where the cell is not in the table), and asks again

A method knows the search space and which cells are in the data set (``Space``), as NAS-Bench-101's own interface
tells everyone; accuracies it knows only by asking. ``search`` runs one, with the same look-up and the same count
of unique samples as the tree search.

Most methods work on *graphs*: ``(operations, edges)`` of exactly ``max_nodes`` vertices, as in NAS-Bench-101
(Ying et al. 2019). Vertices on no way from input to output are cut off before a cell is looked up, so a graph also
stands for the smaller cells. Libraries are imported by the methods that need them.
"""

import math
import random
import tempfile
from collections import deque
from typing import Callable, Generator, Iterator, NamedTuple, TypeVar

import numpy as np

from arch_generator import ROOT, Action, State
from nasbench_dataset import InputError, cells
from net_training import NetTrainer

FULL = 108  # epochs of a full training
PARTIAL = (4, 12, 36)  # the other budgets of NAS-Bench-101

POPULATION, TOURNAMENT = 100, 10  # regularized evolution; Ying et al. 2019, section 4
LEARNING_RATE = 0.1  # Q-learning; ours: Baker et al. use .01 and replay each sample many times
INITIAL_Q = 0.5  # Baker et al. 2017
# Chance of a random action, and after how many unique samples the next one is taken (Baker et al. 2017, table 2).
EPSILONS = ((1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100), *((e / 10, 150) for e in (6, 5, 4, 3, 2)), (0.1, math.inf))
FIRST_SAMPLES, TOP_SHARE = 100, 0.2  # predictor: random samples at first, and what each round adds to them
POOL = 20  # predictor: candidates to choose one from
# What is drawn until it is in the data set is drawn so often at most; in NAS-Bench-101 itself 7 % of all graphs are, or
# more, at any limits. Each time that this was in vain it becomes a tenth, but no less than enough for any mutation.
DRAWS, LEAST_DRAWS = 300_000, 3_000

Graph = tuple[cells.Operations, int]
Drawn = TypeVar("Drawn", Graph, State)


class Partial(NamedTuple):
    """A question for the accuracy of a cell after fewer epochs than 108."""

    cell: State
    epochs: int


Proposals = Generator[State | Partial, float, None]
Method = Callable[["Space", random.Random], Proposals]


class Space:
    """The search space of one comparison: which cells there are, and no accuracy.

    Parameters
    ----------
    trainer : NetTrainer
        Says which cells are in the table under its lookup, within its limits.
    draws : int
        How often graphs, labelled cells and mutants are drawn until one is in the data set. A table of few cells is not
        met by chance: after so many draws a uniformly random cell of the data set stands in.
    """

    def __init__(self, trainer: NetTrainer, draws: int = DRAWS):
        self.generator, self._trainer = trainer.generator, trainer
        self._draws = draws
        self._all_cells = trainer.all_cells()
        self.vertices = self.generator.max_nodes
        self.operation_count = self.vertices - 2
        self.edge_count = self.vertices * (self.vertices - 1) // 2
        self.epochs = [e for e in PARTIAL if f"{trainer.metric}_{e}" in trainer.columns]

    def cell(self, graph: Graph) -> State:
        """The cell that a graph stands for; where input and output are not connected, one that no table has."""
        return State(*(cells.prune(*graph) or graph), True)

    def has(self, cell: State) -> bool:
        """Whether the cell is in the data set, within the limits."""
        return cell.edges.bit_count() <= self.generator.max_edges and self.index(cell) != cells.NOT_A_CELL

    def index(self, cell: State) -> int:
        """What tells different cells from different labellings of one; ``cells.NOT_A_CELL`` outside the data set."""
        return self._trainer.index(cell)

    def all_cells(self) -> np.ndarray:
        """int64 [n]: the indices of all cells in the data set, within the limits."""
        return self._all_cells

    def graph(self, rng: random.Random) -> Graph:
        """A uniformly random graph, drawn again until it stands for a cell of the data set."""

        def draw() -> Graph:
            return tuple(rng.choices(range(3), k=self.operation_count)), rng.getrandbits(self.edge_count)

        return self._drawn(draw, self.cell) or self._grown_cell(rng)

    def labelled_cells(self, rng: random.Random) -> Iterator[State]:
        """Uniformly random labelled cells of 2 to ``max_nodes`` vertices that are in the data set.

        Under the exact lookup each cell of the table has one labelling, so that its cells are equally likely.
        """
        sizes = range(2, self.vertices + 1)
        labellings = [3 ** (v - 2) << v * (v - 1) // 2 for v in sizes]

        def draw() -> State:
            (vertices,) = rng.choices(sizes, labellings)
            operations = tuple(rng.choices(range(3), k=vertices - 2))
            return State(operations, rng.getrandbits(vertices * (vertices - 1) // 2), True)

        while True:
            if self._trainer.lookup == "exact":
                yield self._any_cell(rng)
            else:
                yield self._drawn(draw, lambda cell: cell) or self._any_cell(rng)

    def neighbours(self, graph: Graph) -> list[Graph]:
        """All graphs with one operation or one edge changed that stand for cells of the data set."""
        return [graph for graph in cells.neighbours(*graph) if self.has(self.cell(graph))]

    def mutate(self, graph: Graph, rng: random.Random) -> Graph:
        """What ``cells.mutate`` makes of a graph, tried until that is in the data set."""
        return self._drawn(lambda: cells.mutate(*graph, rng), self.cell) or self._grown_cell(rng)

    def _drawn(self, draw: Callable[[], Drawn], cell: Callable[[Drawn], State]) -> Drawn | None:
        """What ``draw`` gives, drawn again until it stands for a cell of the data set; None where that is hopeless."""
        for _ in range(self._draws):
            drawn = draw()
            if self.has(cell(drawn)):
                return drawn
        self._draws = max(LEAST_DRAWS, self._draws // 10)
        return None

    def _any_cell(self, rng: random.Random) -> State:
        """A uniformly random cell of the data set."""
        return State(*cells.cell(int(self._all_cells[rng.randrange(len(self._all_cells))])), True)

    def _grown_cell(self, rng: random.Random) -> Graph:
        operations, edges, _ = self._any_cell(rng)
        return _grown(operations, edges, self.vertices)


# --- the methods ------------------------------------------------------------------------------


def random_search(space: Space, rng: random.Random) -> Proposals:
    """Uniformly random labelled cells."""
    for cell in space.labelled_cells(rng):
        yield cell


def regularized_evolution(space: Space, rng: random.Random) -> Proposals:
    """The best of a random tournament is mutated; its child joins, the oldest leaves (Real et al. 2019)."""
    population: deque[tuple[float, Graph]] = deque()
    while True:
        if len(population) < POPULATION:
            graph = space.graph(rng)
        else:
            graph = space.mutate(max(rng.sample(population, TOURNAMENT))[1], rng)
        population.append(((yield space.cell(graph)), graph))
        if len(population) > POPULATION:
            population.popleft()


def local_search(space: Space, rng: random.Random) -> Proposals:
    """From a random graph to its best neighbour, as long as that is better; then from another (White et al. 2021)."""
    while True:
        graph = space.graph(rng)
        accuracy = yield space.cell(graph)
        while True:
            neighbours = space.neighbours(graph)
            rng.shuffle(neighbours)
            judged = []
            for neighbour in neighbours:
                judged.append(((yield space.cell(neighbour)), neighbour))
            best = max(judged, default=(0.0, graph), key=lambda pair: pair[0])
            if best[0] <= accuracy:
                break
            accuracy, graph = best


def q_learning(space: Space, rng: random.Random) -> Proposals:
    """Greedy Q-learning over the states and actions of AlphaX (after Baker et al. 2017, without their replay)."""
    generator, q, sampled = space.generator, {}, set()

    def values(state: State) -> dict[Action, float]:
        if state not in q:
            possible = [a for a in generator.actions(state) if generator.transition(state, a) is not None]
            q[state] = dict.fromkeys(possible, INITIAL_Q)
        return q[state]

    while True:
        epsilon, walk, state = _epsilon(len(sampled)), [], ROOT
        while not state.finished:
            known = values(state)
            highest = max(known.values())
            greedy = rng.random() >= epsilon
            action = rng.choice([a for a, value in known.items() if not greedy or value == highest])
            walk.append((state, action))
            state = generator.transition(state, action)
        accuracy = future = yield state
        if accuracy:
            sampled.add(space.index(state))
        for state, action in reversed(walk):  # the reward comes at the end alone, and is not discounted
            q[state][action] += LEARNING_RATE * (future - q[state][action])
            future = max(q[state].values())


def _epsilon(samples: int) -> float:
    for epsilon, count in EPSILONS:
        if samples < count:
            return epsilon
        samples -= count
    return EPSILONS[-1][0]


def predictor(space: Space, rng: random.Random, enumerate_table: bool = False) -> Proposals:
    """The most promising cells by the Meta-DNN, which is fitted again to all samples before each round.

    A round looks at candidates, random cells and mutations of the best samples, and asks for the best of them. With
    ``enumerate_table`` the candidates are all cells of the data set, which no real search space allows.
    """
    from meta_dnn import MetaDNN

    network, told = MetaDNN(rng.getrandbits(32)), {}
    batch = _different(space, space.labelled_cells(rng), FIRST_SAMPLES, told)
    while batch:
        for index, cell in batch.items():
            told[index] = yield cell
        network.add([cells.cell(index) for index in batch], [told[index] for index in batch])
        network.fit()
        size = max(FIRST_SAMPLES, int(TOP_SHARE * len(told)))
        if enumerate_table:
            candidates = {i: State(*cells.cell(i), True) for i in space.all_cells().tolist() if i not in told}
        else:
            candidates = _different(space, _promising(space, told, rng), POOL * size, told)
        predicted = network.predict([cells.cell(index) for index in candidates])
        best = [list(candidates)[place] for place in np.argsort(-predicted, kind="stable")[:size]]
        batch = {index: candidates[index] for index in best}


def predictor_enumerating(space: Space, rng: random.Random) -> Proposals:
    """The same, choosing from the whole table."""
    return predictor(space, rng, enumerate_table=True)


def _different(space: Space, proposals: Iterator[State], count: int, known: dict) -> dict[int, State]:
    """So many different new cells, or fewer where few are left."""
    found: dict[int, State] = {}
    for _ in range(20 * count):
        cell = next(proposals)
        index = space.index(cell)
        if index not in known:
            found.setdefault(index, cell)
        if len(found) == count:
            break
    return found


def _promising(space: Space, told: dict[int, float], rng: random.Random) -> Iterator[State]:
    """By turns random cells and mutations of the best samples."""
    anywhere = space.labelled_cells(rng)
    best = sorted(told, key=told.get, reverse=True)[:POPULATION]
    while True:
        yield next(anywhere)
        operations, edges = cells.cell(rng.choice(best))
        yield space.cell(space.mutate(_grown(operations, edges, space.vertices), rng))


def _grown(operations: cells.Operations, edges: int, vertices: int) -> Graph:
    """A graph of so many vertices that stands for a smaller cell: vertices without edges are put before the output."""
    size = len(operations) + 2
    grown = 0
    for x, y in cells.edge_pairs(size):
        if edges & cells.edge_bit(x, y):
            grown |= cells.edge_bit(x, vertices - 1 if y == size - 1 else y)
    return operations + (0,) * (vertices - size), grown


# --- methods of libraries ---------------------------------------------------------------------


def tpe(space: Space, rng: random.Random) -> Proposals:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna: one choice per edge and per operation."""
    study = _study(_optuna().samplers.TPESampler(seed=rng.getrandbits(32)))
    while True:
        trial = study.ask()
        study.tell(trial, (yield space.cell(_suggested(space, trial))))


def hyperband(space: Space, rng: random.Random) -> Proposals:
    """Hyperband (Li et al. 2018), by Optuna: random graphs, most of them trained for few epochs only."""
    return _multi_fidelity(space, _optuna().samplers.RandomSampler(seed=rng.getrandbits(32)))


def bohb(space: Space, rng: random.Random) -> Proposals:
    """BOHB (Falkner et al. 2018), by Optuna: Hyperband with graphs from a tree-structured Parzen estimator."""
    return _multi_fidelity(space, _optuna().samplers.TPESampler(seed=rng.getrandbits(32)))


def _optuna():
    try:
        import optuna
    except ImportError as error:
        raise InputError("this method needs Optuna; pip install -r requirements-compare.txt") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _study(sampler, **options):
    return _optuna().create_study(direction="maximize", sampler=sampler, **options)


def _suggested(space: Space, trial) -> Graph:
    edges = sum(trial.suggest_categorical(f"edge {bit}", (0, 1)) << bit for bit in range(space.edge_count))
    return tuple(trial.suggest_categorical(f"vertex {i}", (0, 1, 2)) for i in range(space.operation_count)), edges


def _multi_fidelity(space: Space, sampler) -> Proposals:
    if len(space.epochs) < len(PARTIAL):
        raise InputError(
            "Hyperband and BOHB need accuracies after 4, 12 and 36 epochs, which the table lacks under this metric;"
            " convert nasbench_full.tfrecord and use --metric valid"
        )
    optuna = _optuna()
    pruner = optuna.pruners.HyperbandPruner(min_resource=PARTIAL[0], max_resource=FULL, reduction_factor=3)
    study = _study(sampler, pruner=pruner)
    while True:
        trial = study.ask()
        cell = space.cell(_suggested(space, trial))
        for epochs in PARTIAL:
            trial.report((yield Partial(cell, epochs)), epochs)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, (yield cell))


def smac(space: Space, rng: random.Random) -> Proposals:
    """SMAC (Hutter et al. 2011), by its own library (Lindauer et al. 2022): a forest over edges and operations."""
    try:
        from ConfigSpace import Categorical, ConfigurationSpace
        from smac import HyperparameterOptimizationFacade, Scenario
        from smac.runhistory.dataclasses import TrialValue
    except ImportError as error:
        raise InputError("this method needs SMAC; pip install -r requirements-compare.txt") from error
    seed = rng.getrandbits(31)
    choices = ConfigurationSpace(seed=seed)
    choices.add(Categorical(f"edge {bit}", (0, 1)) for bit in range(space.edge_count))
    choices.add(Categorical(f"vertex {i}", (0, 1, 2)) for i in range(space.operation_count))
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(choices, deterministic=True, n_trials=10**6, seed=seed, output_directory=folder)
        quiet = {"overwrite": True, "logging_level": False}
        optimizer = HyperparameterOptimizationFacade(scenario, lambda config, seed: 0.0, **quiet)
        while True:
            question = optimizer.ask()
            values = dict(question.config)
            edges = sum(int(values[f"edge {bit}"]) << bit for bit in range(space.edge_count))
            operations = tuple(int(values[f"vertex {i}"]) for i in range(space.operation_count))
            optimizer.tell(question, TrialValue(cost=1 - (yield space.cell((operations, edges)))))


METHODS: dict[str, Method] = {
    "random": random_search,
    "evolution": regularized_evolution,
    "local-search": local_search,
    "q-learning": q_learning,
    "predictor": predictor,
    "predictor-enumerating": predictor_enumerating,
    "tpe": tpe,
    "smac": smac,
    "hyperband": hyperband,
    "bohb": bohb,
}


# --- running one ------------------------------------------------------------------------------


class Search:
    """One method at work, with the look-up and the count of the tree search.

    Parameters
    ----------
    method : str
        A name in ``METHODS``.
    trainer : NetTrainer
    seed : int

    Attributes
    ----------
    cost : float
        Unique samples; a training of fewer epochs counts in proportion.
    costs : list of float
        The cost at each new best of the trainer's ``best_trace``.
    """

    def __init__(self, method: str, trainer: NetTrainer, seed: int):
        self.trainer, self.space = trainer, Space(trainer)
        self.proposals = METHODS[method](self.space, random.Random(seed))
        self._partial: set[tuple[int, int]] = set()
        self._partial_cost = 0.0
        self.costs: list[float] = []

    def search(self, samples: int | None = None, patience: int | None = None) -> str:
        """Search until something ends it.

        Parameters
        ----------
        samples : int, optional
            End after so many unique samples (``cost``).
        patience : int, optional
            End after so many proposals without a new sample.

        Returns
        -------
        outcome : str
            ``"found"`` (the target), ``"samples"``, ``"stalled"``, or ``"exhausted"`` where the method ended.
        """
        waiting, question = 0, next(self.proposals, None)
        while question is not None:
            cost, bests = self.cost, len(self.trainer.best_trace)
            accuracy = self.answer(question)
            if len(self.trainer.best_trace) > bests:
                self.costs.append(self.cost)
            if self.trainer.found:
                return "found"
            if samples is not None and self.cost >= samples:
                return "samples"
            waiting = 0 if self.cost > cost else waiting + 1
            if patience is not None and waiting >= patience:
                return "stalled"
            try:
                question = self.proposals.send(accuracy)
            except StopIteration:
                break
        return "exhausted"

    def answer(self, question: State | Partial) -> float:
        """The accuracy that was asked for; 0 where the table has none within the limits."""
        cell, epochs = question if isinstance(question, Partial) else (question, FULL)
        if not self.space.has(cell):
            self.trainer.counter += 1
            return 0.0
        if epochs == FULL:
            return self.trainer.train_net(cell)
        self.trainer.counter += 1
        index = self.space.index(cell)
        if (index, epochs) not in self._partial:
            self._partial.add((index, epochs))
            self._partial_cost += epochs / FULL
        return float(self.trainer.columns[f"{self.trainer.metric}_{epochs}"][index])

    @property
    def cost(self) -> float:
        return self.trainer.unique_samples + self._partial_cost
