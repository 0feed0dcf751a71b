"""The table of cells that were trained on digits is what docs/digits.md says it is."""

import numpy as np

from conftest import ROOT
from nasbench_dataset import cells
from nasbench_dataset.table import load


def test_the_table_of_digits():
    table = load(ROOT / "nasbench_dataset" / "digits.pickle")
    assert table.measured and table.complete_to("valid") == table.complete_to("test") == 5
    for metric in ("valid", "test"):
        runs = np.array([table.columns[f"{metric}_run{seed}"] for seed in range(3)])
        assert runs.shape == (3, cells.cell_count(5))
        np.testing.assert_allclose(runs.mean(axis=0), table.columns[metric], atol=1e-6)
        between_seeds, between_cells = np.sqrt(runs.var(axis=0, ddof=1).mean()), runs.mean(axis=0).std(ddof=1)
        assert abs(between_seeds - 0.034) < 0.001 and abs(between_cells - 0.113) < 0.002
    best = np.argsort(-table.columns["valid"])[:100]
    runs = np.array([table.columns[f"valid_run{seed}"][best] for seed in range(3)])
    assert np.sqrt(runs.var(axis=0, ddof=1).mean()) > runs.mean(axis=0).std(ddof=1)  # not to be told apart
