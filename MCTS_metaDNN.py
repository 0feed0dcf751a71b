"""Monte Carlo Tree Search assisted by the Meta-DNN (AlphaX; Wang et al., AAAI-20, sections 3.2 and 3.3).

    python MCTS_metaDNN.py             as MCTS.py, with its options and three more (--help)

What differs from MCTS.py is what a state is worth, half of which is predicted, and that the predictor is
fitted now and then to all that was sampled.
"""

import os
import sys

if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:  # it is not under PYTHONSAFEPATH
    sys.path.insert(0, here)

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import time
from itertools import islice

import numpy as np

import checkpoint
import keras_backend
from arch_generator import State
from MCTS import CP, GIVEN_UP, MCTS, pack_cells, unpack_cells
from nasbench_dataset import InputError, cells, command
from net_training import NetTrainer
from search_command import build_parser, run_command

try:
    from scipy.stats import spearmanr

    import meta_dnn
except (ImportError, InputError) as error:
    if __name__ != "__main__":
        raise
    command.fail(error if isinstance(error, InputError) else f"{error}; pip install -r requirements.txt")

ROLLOUTS = 10  # predicted rollouts of an evaluation, beside the true one
FIT_EVERY = 100  # unique samples from one fit to the next
LAST_FITS = 5  # that are reported at the end; summary.json has all


class MCTS_metaDNN(MCTS):  # noqa: N801 (the original's name)
    """The search with predicted rollouts.

    Parameters
    ----------
    trainer, seed, cp
        As in ``MCTS``.
    rollouts, fit_every, epochs : int
        Predicted rollouts of an evaluation; unique samples from fit to fit; passes over the samples in a fit.
    search_options
        The other options of ``MCTS``; its guide is not used, since here the Meta-DNN predicts.

    Attributes
    ----------
    fits : list of (int, float or None, float)
        For each fit: the unique samples then, Spearman's rank correlation of predictions and accuracies over
        the samples since the fit before (not yet fitted to; None at the first one, when nothing was learned, and where all are equal),
        and the seconds that the fit took.
    """

    method = "mcts-metadnn"

    def __init__(
        self,
        trainer: NetTrainer,
        seed: int,
        cp: float = CP,
        rollouts: int = ROLLOUTS,
        fit_every: int = FIT_EVERY,
        epochs: int = meta_dnn.EPOCHS,
        **search_options,
    ):
        super().__init__(trainer, seed, cp, **{**search_options, "guide": 0})
        self.rollouts, self.fit_every, self.epochs = rollouts, fit_every, epochs
        self.predictor = meta_dnn.MetaDNN(seed)
        self.predictions: dict[State, float] = {}  # under the present weights
        self.fits: list[tuple[int, float | None, float]] = []
        self.fit_due = fit_every

    def episode(self) -> None:
        super().episode()
        if self.trainer.unique_samples >= self.fit_due and not self.trainer.found:
            self.fit()

    def evaluate(self, state: State) -> float:
        """Of an unfinished state: the mean of one true rollout and of what the predicted ones are worth."""
        if state.finished:
            return super().evaluate(state)
        cell = self.rollout(state)
        if cell is None:
            return GIVEN_UP
        true = self.sample(cell)
        rollouts = [self.rollout(state) for _ in range(self.rollouts)]
        if not rollouts or None in rollouts:
            return true
        return (true + sum(self.worth(rollouts)) / len(rollouts)) / 2

    def worth(self, rollouts: list[State]) -> list[float]:
        """The known accuracy of a sampled cell, else its prediction; nothing is looked up."""
        known = {cell: self.trainer.known_accuracy(cell) for cell in rollouts}
        new = [cell for cell, accuracy in known.items() if accuracy is None and cell not in self.predictions]
        if new:
            predicted = self.predictor.predict([self.trainer.looked_up(cell) for cell in new])
            self.predictions.update(zip(new, predicted.tolist()))
        return [self.predictions[cell] if known[cell] is None else known[cell] for cell in rollouts]

    def fit(self) -> None:
        """Judge the predictor by the samples since the last fit, then fit it to all samples."""
        self.phase = "fitting"
        self.report()
        new = list(islice(self.trainer.training_trace.items(), self.predictor.count, None))
        batch, accuracies = [cells.cell(index) for index, _ in new], [accuracy for _, accuracy in new]
        correlation = self.correlation(batch, accuracies) if self.fits else None
        started = time.perf_counter()
        self.predictor.add(batch, accuracies)
        self.predictor.fit(self.epochs)
        self.predictions.clear()
        self.fits.append((self.trainer.unique_samples, correlation, round(time.perf_counter() - started, 3)))
        self.fit_due = (self.trainer.unique_samples // self.fit_every + 1) * self.fit_every
        self.phase = "searching"
        self.report()

    def correlation(self, batch: list[meta_dnn.Cell], accuracies: list[float]) -> float | None:
        """Spearman's rank correlation of predictions and accuracies; None where either has no ranks."""
        predicted = self.predictor.predict(batch)
        if min(np.ptp(predicted), np.ptp(accuracies)) == 0:
            return None
        return round(float(spearmanr(predicted, accuracies).statistic), 4)

    def status(self) -> str:
        return super().status() + (f", Spearman {self.fits[-1][1]}" if self.fits else "")

    def closing_lines(self) -> list[str]:
        judged = ", ".join(f"{samples:,}: {correlation}" for samples, correlation, _ in self.fits[-LAST_FITS:])
        return [f"rank correlation with the samples since the fit before, last fits: {judged}"] if judged else []

    def details(self) -> dict:
        return {"rollouts": self.rollouts, "fit_every": self.fit_every, "epochs": self.epochs, "fits": self.fits}

    def describe(self) -> str:
        return f"{super().describe()}, {self.rollouts} predicted rollouts, a fit every {self.fit_every} samples"

    def settings(self) -> dict:
        own = {"rollouts": self.rollouts, "fit_every": self.fit_every, "epochs": self.epochs}
        return {**super().settings(), **own, "backend": meta_dnn.keras.backend.backend()}

    def saved(self) -> checkpoint.Saved:
        main, files = super().saved()
        own = {"fits": self.fits, "fitted_samples": self.predictor.count, "fit_due": self.fit_due}
        return {**main, **own}, {**files, "predictions": pack_cells(self.predictions), "meta_dnn.npz": self.predictor.saved()}

    def _restore(self, main: dict, files: dict[str, bytes]) -> None:
        super()._restore(main, files)
        samples = self.trainer.training_trace
        counts, correlations, seconds = zip(*main["fits"], strict=True) if main["fits"] else ((), (), ())
        ranked = [correlation for correlation in correlations if correlation is not None]
        checkpoint.numbers([main["fitted_samples"], *counts], int, 0, len(samples), "fits")
        checkpoint.numbers(ranked, float, -1, 1, "fits")
        checkpoint.numbers([*seconds], float, 0, 1e12, "fits")
        checkpoint.numbers([main["fit_due"]], int, 0, 2**53, "fit_due")
        fitted = counts[-1] if counts else 0
        due = (fitted // self.fit_every + 1) * self.fit_every
        if list(counts) != sorted(set(counts)) or (main["fitted_samples"], main["fit_due"]) != (fitted, due):
            raise ValueError("fits: not as the fits of a search leave them")
        self.fits, self.fit_due = [tuple(fit) for fit in main["fits"]], due
        self.predictions = unpack_cells(files["predictions"], self.generator)
        batch = [cells.cell(index) for index in islice(samples, fitted)]
        accuracies = list(islice(samples.values(), fitted))
        self.predictor.restore(files["meta_dnn.npz"], batch, accuracies, len(self.fits))


def main(argv: list[str] | None = None) -> int:
    """Run ``python MCTS_metaDNN.py``; returns the exit status."""
    parser = build_parser("Monte Carlo Tree Search over NAS-Bench-101 cells, assisted by a Meta-DNN.")
    number = command.whole_number
    parser.add_argument("--rollouts", type=number(0), default=ROLLOUTS, help="predicted rollouts of an evaluation")
    parser.add_argument("--fit-every", type=number(2), default=FIT_EVERY, help="unique samples from fit to fit")
    parser.add_argument("--epochs", type=number(1), default=meta_dnn.EPOCHS, help="passes over the samples in a fit")
    options = parser.parse_args(argv)
    if getattr(options, "guide", 0):
        raise InputError("--guide is of MCTS.py; here the Meta-DNN predicts: leave it out")
    keras_backend.check()
    if not options.quiet:
        print(f"device   {meta_dnn.device()}")
    own = {"rollouts": options.rollouts, "fit_every": options.fit_every, "epochs": options.epochs}
    return run_command(options, MCTS_metaDNN, **own)


if __name__ == "__main__":
    command.run(main)
