"""A short form of ``tests/attack.py``, which attacks every command in thousands of ways: some that once succeeded."""

import os

import pytest
from conftest import run

CHOSEN = (
    r"^(MCTS\.py|visualize\.py --cell) \| streams: (stdout's reader gone at once|stdout full|stderr closed|all closed)",
    r"^MCTS\.py over another \| signals: (SIGHUP|SIGKILL) \| moment 0",
    r"^MCTS\.py \| environment: (KERAS_BACKEND empty|another folder|PYTHONSAFEPATH)",
    r"^convert JSON \| (streams: stdout full|reads .* \| (NaN|nested lists|empty)$)",
)


@pytest.mark.skipif(os.name == "nt", reason="signals and streams of Unix")
def test_nothing_is_lost_under_some_attacks():
    result = run("tests/attack.py", "--rounds", 1, "--seed", 1, "--no-options", "--only", "|".join(CHOSEN), timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    count = int(result.stdout.split()[0])
    assert count > 12 and f"{count} of {count} cases went well" in result.stdout
