"""The search space against a plain rewrite over dictionaries and strings."""

import copy
import json
import random

import pytest

from arch_generator import ROOT, State, arch_generator
from nasbench_dataset import InputError

OPERATIONS = ["conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"]


def plain_successors(state, max_nodes, max_edges):
    """``printed action -> state or None`` of a state in JSON form."""
    names, matrix = state["node_list"], state["adj_mat"]
    vertices = len(names)
    successors = {}
    for operation in OPERATIONS:
        larger = {
            "adj_mat": [[0] * (vertices + 1) for _ in range(vertices + 1)],
            "node_list": [*names[:-1], operation, "output"],
        }
        successors[f"node:{operation}"] = larger if vertices + 1 <= max_nodes else None
    for i in range(vertices):
        for j in range(i + 1, vertices):
            if not matrix[i][j]:
                denser = copy.deepcopy(state)
                denser["adj_mat"][i][j] = 1
                successors[f"edge:({i}, {j})"] = denser if sum(map(sum, denser["adj_mat"])) <= max_edges else None
    successors["term"] = {"adj_mat": matrix, "node_list": [*names, "term"]}
    return successors


@pytest.mark.parametrize("max_nodes, max_edges", [(3, 9), (4, 2), (6, 9), (7, 9)])
def test_actions_and_transitions_agree_with_the_plain_ones(max_nodes, max_edges):
    generator = arch_generator(max_nodes, max_edges)
    rng = random.Random(0)
    refused = 0
    for _ in range(60):
        state = ROOT
        while state is not None and not state.finished:
            plain = plain_successors(state.to_dict(), max_nodes, max_edges)
            successors = {str(a): generator.transition(state, a) for a in generator.actions(state)}
            assert successors.keys() == plain.keys()
            assert {a: s and s.to_dict() for a, s in successors.items()} == plain
            within = [after for after in successors.values() if after is not None]
            assert generator.successors(state) == (within, len(successors) - len(within))
            refused += None in successors.values()
            state = rng.choice([s for a, s in successors.items() if a != "term" or rng.random() < 0.3])
    assert refused > 0


def test_a_state_survives_json():
    state = State((0, 2, 1), 0b1000010011, True)
    assert State.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    assert State.from_dict(ROOT.to_dict()) == ROOT
    with pytest.raises(ValueError):
        State.from_dict({"adj_mat": []})


def test_knobs_are_attributes_of_the_class(monkeypatch):
    assert (arch_generator.MAX_NODES, arch_generator.MAX_EDGES) == (6, 9)
    monkeypatch.setattr(arch_generator, "MAX_NODES", 4)
    assert arch_generator().max_nodes == 4


@pytest.mark.parametrize("limits", [(2, 9), (8, 9), (6, 0), (6, 10), (6.0, 9), ("6", 9)])
def test_limits_out_of_range(limits):
    with pytest.raises(InputError, match="whole number"):
        arch_generator(*limits)


@pytest.mark.parametrize("vertices, edges", [(2, 0), (3, 1), (4, 0), (4, 5)])
def test_random_walk_law_agrees_with_walking(vertices, edges):
    generator = arch_generator(4, 5)
    stop, leave = generator.random_walk(vertices, edges)
    start = State((0,) * (vertices - 2), (1 << edges) - 1)
    rng, walks = random.Random(0), 20_000
    stopped, left = [0] * len(stop), 0
    for _ in range(walks):
        state = start
        while state is not None and not state.finished and state.vertices == vertices:
            state = generator.transition(state, rng.choice(generator.actions(state)))
        if state is not None and state.finished:
            stopped[state.edges.bit_count()] += 1
        elif state is not None:
            left += 1
    for chance, count in zip([*stop, leave], [*stopped, left]):
        assert count / walks == pytest.approx(chance, abs=4 * (chance * (1 - chance) / walks) ** 0.5)
