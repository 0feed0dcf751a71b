"""Searches sample what they sampled before they were put on ask and tell: ``traces.py`` says what is compared."""

import json
from itertools import groupby

import pytest
import traces

from nasbench_dataset.table import EMBEDDED, load

STORED = json.loads(traces.STORED.read_bytes())
CASES = traces.cases()
GROUPS = {
    key: list(cases)
    for key, cases in groupby(
        sorted((c for c in CASES if not traces.needs_keras(c)), key=lambda c: (c["method"], c["lookup"])),
        key=lambda c: (c["method"], c["lookup"]),
    )
}


@pytest.fixture(scope="module")
def table():
    return load(EMBEDDED)


def test_every_case_is_stored():
    assert {traces.name(case) for case in CASES} | {"machine"} == STORED.keys()


@pytest.mark.parametrize("cases", GROUPS.values(), ids=[" ".join(key) for key in GROUPS])
def test_searches_go_as_before(table, cases):
    for case in cases:
        assert traces.trace(case, table) == STORED[traces.name(case)], traces.name(case)


@pytest.mark.parametrize("case", [c for c in CASES if traces.needs_keras(c)], ids=traces.name)
def test_searches_with_keras_go_as_before(table, case):
    if traces.machine() != STORED["machine"]:
        pytest.skip(f"stored on {STORED['machine']}, and the last bits of a fit depend on that")
    assert traces.trace(case, table) == STORED[traces.name(case)]
