"""What is published about NAS-Bench-101 beyond single measurements: best cells, and figures to set a table beside.

Ying et al. 2019 (arXiv 1902.09635), Wang et al. 2019 (AlphaX, arXiv 1903.11059; LaNAS, arXiv 1906.06832), White et al.
2020 (BANANAS, arXiv 1910.11858; local search, arXiv 2005.02960).
"""

from dataclasses import dataclass

from nasbench_dataset import cells, table

SHORT = ("c3", "c1", "mp")  # names of the operations, in the order of cells.OPERATIONS


@dataclass(frozen=True)
class Pin:
    """A cell of which a value is published."""

    operations: cells.Operations
    pairs: tuple[str, ...]  # edges, as "xy"
    test: float | None = None
    valid: float | None = None

    @property
    def index(self) -> int:
        edges = sum(cells.edge_bit(int(x), int(y)) for x, y in self.pairs)
        return cells.index(self.operations, edges)


def _pin(operations: str, edges: str, **values: float) -> Pin:
    return Pin(tuple(SHORT.index(name) for name in operations.split()), tuple(edges.split()), **values)


# The best cell by test accuracy within each number of vertices; of one the test value is not known, of one the other.
BEST = {
    3: _pin("c3", "01 02 12", test=0.9329928, valid=0.9391693),
    4: _pin("c3 c1", "01 03 12 23", test=0.9359642, valid=0.9424412),
    5: _pin("c1 c3 c3", "01 02 03 04 12 13 23 34", valid=0.9463809),
    6: _pin("c3 c3 c3 c3", "01 02 03 04 05 14 23 34 45", test=0.9423411, valid=0.9505542),
    7: _pin("c1 c3 mp c3 c3", "01 02 05 06 15 23 34 45 56", test=0.9431758),
}
BEST_VALID_OF_4 = _pin("c3 c3", "01 02 03 12 23", valid=0.9441773)  # its test value is drawn
PINS = (*BEST.values(), BEST_VALID_OF_4)

BEST_TESTS = (0.9431758, 0.9423411, 0.9420072, 0.9419404, 0.9417735)  # of all cells; the first two are in BEST
PLACE_OF_BEST = 174  # of the best cell by test, among all cells by validation accuracy
LARGEST_MAXIMUM = 0.951823  # of 3 runs, validation, over all cells
LARGEST_TEST_RUN = 0.946615

RANDOM_UP_TO_6 = {5_000: 0.94120, 10_000: 0.94164, 20_000: 0.94201}  # best test of so many random cells
PROTOCOL = {"random": 6.341, "evolution": 6.109, "local search": 5.932}  # mean test error, %, after 150 queries


def numerator(accuracy: float) -> int:
    """A published accuracy as an integer over ``table.DENOMINATOR``."""
    return round(accuracy * table.DENOMINATOR)
