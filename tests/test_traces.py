"""Searches go step by step as they went when traces.json was written; ``python tests/traces.py`` compares them all."""

import json

import pytest
import traces

STORED = json.loads(traces.STORED.read_bytes())
LONG = 400  # samples of cases of which one is enough for every run of the tests
SLOW = "mcts:preset=tuned", "mcts:guide=3:cp=0.2", "q-learning"  # by one metric under each lookup, without 6 vertices
BY_LOOKUP = {"exact": "test", "isomorphic": "valid"}


def in_every_run(case: dict) -> bool:
    """Whether it is one of those that every run of the tests compares; without Keras."""
    if traces.needs_keras(case) or case["samples"] == LONG and case["seed"] > 4:
        return False
    if case["samples"] == LONG or case["method"] not in SLOW:
        return True
    return case["metric"] == BY_LOOKUP[case["lookup"]] and case["max_nodes"] != 6


WITHOUT_KERAS = [case for case in traces.cases() if in_every_run(case)]
QUICK_WITH_KERAS = (  # the others take too long for every run of the tests
    "mcts-metadnn:fit_every=40:epochs=3 4 exact test 0 60",
    "mcts-metadnn:rollouts=3:fit_every=50:epochs=5:preset=tuned 6 isomorphic test 0 120",
    "predictor 5 exact valid 1 250",
)


@pytest.fixture(scope="module")
def table():
    return traces.made_up_table()


def differing(cases: list[dict], table) -> list[str]:
    return [traces.name(case) for case in cases if traces.trace(case, table) != STORED[traces.name(case)]]


def test_every_case_is_stored_and_nothing_else():
    names = [traces.name(case) for case in traces.cases()]
    assert len(set(names)) == len(names) and STORED.keys() == {"machine", *names}


@pytest.mark.parametrize("method", dict.fromkeys(case["method"] for case in WITHOUT_KERAS))
@pytest.mark.parametrize("lookup", ["exact", "isomorphic"])
def test_searches_go_as_ever(method, lookup, table):
    cases = [case for case in WITHOUT_KERAS if (case["method"], case["lookup"]) == (method, lookup)]
    assert len(cases) >= 2 and differing(cases, table) == []


@pytest.mark.parametrize("name", QUICK_WITH_KERAS)
def test_searches_with_keras_go_as_ever_where_they_were_stored(name, table):
    pytest.importorskip("jax")
    if traces.machine() != STORED["machine"]:
        pytest.skip(f"stored with {STORED['machine']}, this is {traces.machine()}")
    cases = [case for case in traces.cases() if traces.name(case) == name]
    assert len(cases) == 1 and differing(cases, table) == []


def test_a_trace_tells_searches_apart_that_differ_in_one_look_up(table):
    case = {"method": "mcts", "max_nodes": 4, "lookup": "exact", "metric": "test", "seed": 4, "samples": 20}
    whole = traces.trace(case, table)
    shorter = traces.trace({**case, "samples": 19}, table)
    assert whole["first"][:19] == shorter["first"]
    assert all(whole[part] != shorter[part] for part in ("all", "asked", "tree"))
