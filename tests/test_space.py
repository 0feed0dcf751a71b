"""Which cells there are, and how they are drawn and changed."""

import random
from collections import Counter
from itertools import islice, product

import numpy as np
import pytest

from arch_generator import State, arch_generator
from nasbench_dataset import InputError, cells
from space import LOOKUPS, Space

@pytest.fixture
def present() -> np.ndarray:
    """The cells up to 4 vertices, without every seventh."""
    return np.arange(91) % 7 != 3


def every_graph():
    return [(operations, edges) for operations in product(range(3), repeat=2) for edges in range(64)]


def test_an_unknown_lookup_is_refused():
    with pytest.raises(InputError, match="'fuzzy'.*exact, isomorphic"):
        Space(arch_generator(4), "fuzzy")


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_all_cells_are_those_that_can_be_looked_up(present, lookup):
    for limits in ((4, 9), (4, 3), (3, 9), (7, 9)):
        space = Space(arch_generator(*limits), lookup, present)
        known = [i for i in range(91) if space.has(State(*cells.cell(i), True))]
        assert space.all_cells().tolist() == known
        sizes = [(len(operations) + 2, edges.bit_count()) for operations, edges in map(cells.cell, range(91))]
        within = [vertices <= limits[0] and edges <= limits[1] for vertices, edges in sizes]
        assert known == np.flatnonzero(present & within).tolist()
        assert space.are_different_cells(known) and not space.are_different_cells([*known, known[0]])
        assert not space.are_different_cells([3]) and not space.are_different_cells([-1])


def test_groups_are_all_cells_by_their_operations(present):
    space = Space(arch_generator(4), present=present)
    found = [cells.index(o, e) for v in (2, 3, 4) for o, edges in space.groups(v) for e in edges.tolist()]
    assert sorted(found) == space.all_cells().tolist() == np.flatnonzero(present).tolist()


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_graphs_mutations_and_neighbours_are_in_the_data_set(present, lookup):
    space, rng = Space(arch_generator(4), lookup, present), random.Random(0)
    known = {graph for graph in every_graph() if space.has(space.cell(graph))}
    assert {space.graph(rng) for _ in range(5_000)} == known
    for graph in sorted(known)[::7]:
        one_change = {
            other
            for other in known
            if (other[0] == graph[0]) * (other[1] ^ graph[1]).bit_count() == 1
            or other[1] == graph[1] and sum(a != b for a, b in zip(other[0], graph[0])) == 1
        }
        neighbours = space.neighbours(graph)
        assert set(neighbours) == one_change and len(neighbours) == len(one_change)
        assert {space.mutate(graph, rng) for _ in range(20)} <= known


def test_the_limit_of_edges_holds():
    space = Space(arch_generator(4, 3), "isomorphic")
    for graph in every_graph():
        cell = space.cell(graph)
        assert space.has(cell) == (cells.prune(*graph) is not None and cell.edges.bit_count() <= 3)


def test_mutations_change_what_the_settings_say():
    space, rng = Space(arch_generator(4), "isomorphic"), random.Random(1)
    graph = (0, 1), 0b111111
    changed = [space.mutate(graph, rng) for _ in range(4_000)]
    every = product([0, 1], repeat=6)
    kept = [bits for bits in every if cells.prune((0, 1), sum(b << i for i, b in enumerate(bits)))]
    weight = [np.prod([0.25 if b == 0 else 0.75 for b in bits]) for bits in kept]  # flips that leave a cell
    expected = np.dot(weight, [6 - sum(bits) for bits in kept]) / sum(weight)
    assert np.mean([(edges ^ 0b111111).bit_count() for _, edges in changed]) == pytest.approx(expected, abs=0.06)
    assert np.mean([operations[0] != 0 for operations, _ in changed]) == pytest.approx(0.5, abs=0.03)
    assert Counter(operations[0] for operations, _ in changed)[1] == pytest.approx(1_000, abs=100)


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_labelled_cells_are_uniform(present, lookup):
    """Against a plain count of all labelled matrices that the look-up knows."""
    space = Space(arch_generator(4), lookup, present)
    every = [
        State(operations, edges, True)
        for vertices in (2, 3, 4)
        for operations in product(range(3), repeat=vertices - 2)
        for edges in range(1 << vertices * (vertices - 1) // 2)
    ]
    expected = Counter(index for cell in every if (index := space.index(cell)) != cells.NOT_A_CELL)
    drawn = Counter(space.index(cell) for cell in islice(space.labelled_cells(random.Random(2)), 40_000))
    for index, count in expected.items():
        mean = 40_000 * count / expected.total()
        assert abs(drawn[index] - mean) < 5 * mean**0.5
    assert drawn.keys() == expected.keys()


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_data_set_that_chance_does_not_meet_is_drawn_from_all_the_same(lookup):
    """Two cells of 423,624; what stands in is a random one of them, as a graph of the full size."""
    present = np.zeros(cells.cell_count(), bool)
    present[[300_000, 400_000]] = True
    space, rng = Space(arch_generator(7), lookup, present, draws=20), random.Random(3)
    graphs = [space.graph(rng) for _ in range(12)]
    mutants = [space.mutate(graph, rng) for graph in graphs]
    for drawn in (graphs, mutants):
        counts = Counter(space.index(space.cell(graph)) for graph in drawn)
        assert counts.keys() == {300_000, 400_000} and all(len(operations) == 5 for operations, _ in drawn)
        assert min(counts.values()) > 1
    labelled = Counter(space.index(cell) for cell in islice(space.labelled_cells(rng), 100))
    assert labelled.keys() == {300_000, 400_000} and min(labelled.values()) > 20


def test_a_graph_without_mutants_in_the_data_set_gives_way_to_another_cell():
    """With 3 vertices the operation always changes, and here no other one is in the data set."""
    only = cells.index((0,), 0b101), cells.index((0,), 0b111)
    present = np.isin(np.arange(91), only)
    space, rng = Space(arch_generator(3), "exact", present, draws=3_000), random.Random(0)
    mutants = [space.mutate(((0,), 0b101), rng) for _ in range(30)]
    assert {cells.index(*mutant) for mutant in mutants} == set(only)


def test_a_smaller_cell_as_a_graph():
    for vertices in (4, 5, 7):
        space = Space(arch_generator(vertices))
        for index in range(91):
            graph = space.grown(cells.cell(index))
            assert len(graph[0]) == vertices - 2 and cells.prune(*graph) == cells.cell(index)
