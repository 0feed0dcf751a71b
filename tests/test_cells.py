"""The cells of NAS-Bench-101 against published counts and measurements, and against plain rewrites of the rules."""

import itertools
import random

import numpy as np
import pytest
from conftest import measured_cells

from nasbench_dataset import cells


def plain_prune(matrix, labels):
    """Without vertices that lie on no way from the first to the last: by following all ways."""
    last = len(matrix) - 1
    ways = []

    def follow(way):
        if way[-1] == last:
            ways.append(way)
        for y in range(way[-1] + 1, last + 1):
            if matrix[way[-1]][y]:
                follow([*way, y])

    follow([0])
    kept = sorted({vertex for way in ways for vertex in way})
    return [[matrix[x][y] for y in kept] for x in kept], [labels[x] for x in kept]


def plain_stored_form(matrix, labels):
    """The smallest upper-triangular relabelling, trying all of them on the matrix itself."""
    inner = range(1, len(matrix) - 1)
    forms = []
    for order in itertools.permutations(inner):
        order = (0, *order, len(matrix) - 1)
        moved = [[matrix[x][y] for y in order] for x in order]
        if any(moved[x][y] for x in range(len(moved)) for y in range(x + 1)):
            continue
        bits = sum(moved[x][y] << (x + y * (y - 1) // 2) for y in range(len(moved)) for x in range(y))
        forms.append((bits, tuple(labels[x] for x in order[1:-1])))
    bits, operations = min(forms)
    return operations, bits


def random_cell(rng, vertices, density):
    matrix = [[int(x < y and rng.random() < density) for y in range(vertices)] for x in range(vertices)]
    operations = tuple(rng.randrange(3) for _ in range(vertices - 2))
    return matrix, operations, sum(cells.edge_bit(x, y) for y in range(vertices) for x in range(y) if matrix[x][y])


@pytest.mark.parametrize("vertices, count", [(2, 1), (3, 6), (4, 84), (5, 2_441), (6, 62_010), (7, 359_082)])
def test_enumeration_gives_the_published_counts(vertices, count):
    codes = cells.enumerate_codes(vertices)
    assert len(codes) == count
    assert (np.diff(codes) > 0).all()


def test_counts_up_to_6_and_7_vertices():
    assert cells.cell_count(6) == 64_542
    assert cells.cell_count() == 423_624


def test_index_and_cell_are_inverse():
    rng = random.Random(0)
    for index in [0, 1, 6, 7, 90, 91, 2_531, 2_532, 64_541, 64_542, 423_623, *rng.sample(range(423_624), 300)]:
        assert cells.index(*cells.cell(index)) == index
    with pytest.raises(IndexError):
        cells.cell(423_624)


def test_measured_cells_are_stored_forms_with_their_parameters(measured):
    path = measured / "nasbench101_measured_20k.npz"
    parameters = np.load(path)["trainable_parameters"].tolist()
    entries = measured_cells(path)
    assert len(entries) == 20_001
    for (operations, edges), expected in zip(entries, parameters):
        assert cells.trainable_parameters(operations, edges) == expected
        assert cells.stored_form(operations, edges) == (operations, edges)
        assert cells.cell(cells.index(operations, edges)) == (operations, edges)


def test_parameters_of_the_7_vertex_target():
    edges = sum(cells.edge_bit(*map(int, pair)) for pair in "01 02 05 06 15 23 34 45 56".split())
    assert cells.trainable_parameters((1, 0, 2, 0, 0), edges) == 32_426_634


@pytest.mark.parametrize("vertices", [2, 3, 4, 5, 6, 7])
def test_stored_form_agrees_with_the_plain_one(vertices):
    rng = random.Random(vertices)
    unconnected = 0
    for _ in range(150 if vertices < 7 else 40):
        matrix, operations, edges = random_cell(rng, vertices, rng.uniform(0.2, 0.7))
        pruned, labels = plain_prune(matrix, ["in", *operations, "out"])
        stored = cells.stored_form(operations, edges)
        if not pruned:
            unconnected += 1
            assert stored is None
        elif sum(map(sum, pruned)) > 9:
            assert stored is None
        else:
            assert stored == plain_stored_form(pruned, labels)
            assert cells.index(*stored) != cells.NOT_A_CELL
    assert unconnected > 0


def test_only_stored_forms_have_an_index():
    assert cells.index((0, 1), 0b101101) != cells.NOT_A_CELL
    assert cells.index((0, 1), 0) == cells.NOT_A_CELL
    relabelled = [((a, b), e) for a in range(3) for b in range(3) for e in range(64)]
    assert sum(cells.index(*cell) != cells.NOT_A_CELL for cell in relabelled) == 84


def test_json_form():
    cell = {"adj_mat": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "node_list": ["input", "maxpool3x3", "output"]}
    assert cells.from_dict(cell) == ((2,), 0b111)
    assert cells.to_dict((2,), 0b111) == cell


@pytest.mark.parametrize(
    "change, words",
    [
        ({"adj_mat": [[0, 1], [0, 0]]}, "3 x 3"),
        ({"adj_mat": [[0, 1, 1], [0, 1, 1], [0, 0, 0]]}, "upper-triangular"),
        ({"adj_mat": [[0, 1, 2], [0, 0, 1], [0, 0, 0]]}, "neither 0 nor 1"),
        ({"adj_mat": 7}, "a matrix"),
        ({"node_list": ["input", "conv9x9", "output"]}, "conv9x9"),
        ({"node_list": ["output", "maxpool3x3", "input"]}, "begin with 'input'"),
    ],
)
def test_json_form_of_no_cell(change, words):
    cell = {"adj_mat": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "node_list": ["input", "maxpool3x3", "output"]}
    with pytest.raises(ValueError, match=words):
        cells.from_dict(cell | change)
    with pytest.raises(ValueError):
        cells.from_dict([])
