"""Make the embedded table: NAS-Bench-101 accuracies of all cells, estimated from some thousand measured ones.

    python -m nasbench_dataset.fit_surrogate MEASUREMENTS_DIR [--out FILE] [--evaluate]

Measured cells (published: Ying et al. 2019, arXiv 1902.09635) -> gradient-boosted trees over the cells' structure
(features.py, predictions.py) -> a prediction for each of the 423,624 cells -> residuals that neighbours share, given
the measured cells, and the noise of runs (residuals.py, noise.py) -> published bests pinned -> table (surrogate.py).

MEASUREMENTS_DIR holds two files, see README.md in this folder for their fields. This script needs
scikit-learn; searching the table that it makes does not.
"""

import os
import sys

if not __package__:  # run as a file: ``python nasbench_dataset/fit_surrogate.py``, which finds the package by itself
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

from nasbench_dataset import InputError, command, neighbours, predictions, surrogate, surrogate_checks, table
from nasbench_dataset.files import printable
from nasbench_dataset.measurements import read_measurements, read_trainings
from nasbench_dataset.residuals import ResidualField


def _parser() -> command.Parser:
    words = "Make the embedded table: accuracies of all cells, estimated from some thousand measured ones."
    parser = command.Parser(prog="python -m nasbench_dataset.fit_surrogate", description=words)
    parser.add_argument("measurements", metavar="MEASUREMENTS_DIR", type=command.path, help="holds the two .npz files")
    parser.add_argument("--out", type=command.path, default=table.EMBEDDED, help="the table to write")
    parser.add_argument("--seed", type=command.whole_number(0), default=0, help="of the fit")
    parser.add_argument("--residual-seed", type=command.whole_number(0), default=0, help="another: another table")
    parser.add_argument("--trees", type=command.whole_number(1), default=predictions.TREES, help="of each model")
    parser.add_argument("--evaluate", action="store_true", help="then fit without some cells and print how good it is")
    parser.add_argument("--held-out", type=command.whole_number(1), default=5_000, help="how many cells")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run ``python -m nasbench_dataset.fit_surrogate``; returns the exit status."""
    options = _parser().parse_args(argv)
    measured, trainings = read_measurements(options.measurements), read_trainings(options.measurements)
    if options.evaluate and options.held_out >= measured.in_sample.sum():
        raise InputError(f"--held-out {options.held_out}: the sample has only {measured.in_sample.sum():,} cells")
    table.check_destination(options.out)  # before the fit, which takes minutes
    prediction, of_trainings = predictions.predict(measured, trainings, options.seed, options.trees)
    predictions.say("looking for neighbours")
    pairs = neighbours.neighbour_pairs()
    field = ResidualField(pairs)
    fit = surrogate.fit(measured, prediction, trainings, of_trainings, field)
    result = surrogate.make_table(fit, options.residual_seed)
    table.save(result, options.out)
    print(f"{printable(options.out)}: {result.describe()}")
    if options.evaluate:
        seeds = options.seed, options.residual_seed
        surrogate_checks.report(result, fit, pairs)
        surrogate_checks.report_refit(fit, pairs, seeds, options.trees)
        surrogate_checks.report_held_out(measured, trainings, field, options.held_out, seeds, options.trees)
    return 0


if __name__ == "__main__":
    command.run(main)
