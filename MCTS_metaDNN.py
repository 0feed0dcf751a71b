"""Monte Carlo Tree Search assisted by the Meta-DNN (AlphaX; Wang et al., AAAI-20, sections 3.2 and 3.3).

    python MCTS_metaDNN.py             as MCTS.py, with its options and three more (--help)

What differs from MCTS.py is what a state is worth, half of which is predicted, and that the predictor is
fitted now and then to all that was sampled.
"""

import time
from dataclasses import replace
from itertools import islice
from typing import Callable

import numpy as np

import checkpoint
from arch_generator import State
from MCTS import MCTS
from method import Nothing, Question
from nasbench_dataset import InputError, cells, command
from options import MetaDNNOptions
from saved_tree import pack_cells, unpack_cells
from search_command import build_parser, run_command
from space import Space

try:
    from scipy.stats import spearmanr

    import meta_dnn
except (ImportError, ValueError) as error:  # Keras raises the latter for a backend that it does not know
    if __name__ != "__main__":
        raise
    command.fail(f"Keras cannot be used ({error}); pip install -r requirements.txt, and see KERAS_BACKEND")

LAST_FITS = 5  # that are reported at the end; summary.json has all


class MCTS_metaDNN(MCTS):  # noqa: N801 (the original's name)
    """The search with predicted rollouts.

    Parameters
    ----------
    space, seed
        As in ``MCTS``.
    options : MetaDNNOptions
    announce : callable
        Told what it is about to do when that takes a while, for a progress line.

    Attributes
    ----------
    samples : dict of int to float
        What it was told: index of the cell -> accuracy, in that order.
    fits : list of (int, float or None, float)
        For each fit: the unique samples then, Spearman's rank correlation of predictions and accuracies over the
        samples since the fit before (not yet fitted to; None at the first one, when nothing was learned, and where all
        are equal), and the seconds that the fit took.
    """

    name = "mcts-metadnn"

    def __init__(
        self,
        space: Space,
        seed: int,
        options: MetaDNNOptions = MetaDNNOptions(),
        announce: Callable[[str], None] = lambda phase: None,
    ):
        super().__init__(space, seed, replace(options, guide=0))
        self.announce = announce
        self.predictor = meta_dnn.MetaDNN(seed)
        self.samples: dict[int, float] = {}
        self.predictions: dict[State, float] = {}  # under the present weights
        self.fits: list[tuple[int, float | None, float]] = []
        self.fit_due = options.fit_every

    def ask(self) -> Question | Nothing:
        if len(self.samples) >= self.fit_due:
            self.fit()
        return super().ask()

    def learn(self, index: int, accuracy: float) -> None:
        self.samples.setdefault(index, accuracy)

    def value(self, state: State, accuracy: float) -> float:
        """Of an unfinished state: the mean of its true rollout and of what the predicted ones are worth."""
        if state.finished:
            return accuracy
        rollouts = [self.rollout(state) for _ in range(self.options.rollouts)]
        if not rollouts or None in rollouts:
            return accuracy
        return (accuracy + sum(self.worth(rollouts)) / len(rollouts)) / 2

    def worth(self, rollouts: list[State]) -> list[float]:
        """The known accuracy of a sampled cell, else its prediction; nothing is asked."""
        known = {cell: self.samples.get(self.space.index(cell)) for cell in rollouts}
        new = [cell for cell, accuracy in known.items() if accuracy is None and cell not in self.predictions]
        if new:
            predicted = self.predictor.predict([self.space.looked_up(cell) for cell in new])
            self.predictions.update(zip(new, predicted.tolist()))
        return [self.predictions[cell] if known[cell] is None else known[cell] for cell in rollouts]

    def fit(self) -> None:
        """Judge the predictor by the samples since the last fit, then fit it to all samples."""
        self.announce("fitting")
        new = list(islice(self.samples.items(), self.predictor.count, None))
        batch, accuracies = [cells.cell(index) for index, _ in new], [accuracy for _, accuracy in new]
        correlation = self.correlation(batch, accuracies) if self.fits else None
        started = time.perf_counter()
        self.predictor.add(batch, accuracies)
        self.predictor.fit(self.options.epochs)
        self.predictions.clear()
        self.fits.append((len(self.samples), correlation, round(time.perf_counter() - started, 3)))
        self.fit_due = (len(self.samples) // self.options.fit_every + 1) * self.options.fit_every
        self.announce("searching")

    def correlation(self, batch: list[meta_dnn.Cell], accuracies: list[float]) -> float | None:
        """Spearman's rank correlation of predictions and accuracies; None where either has no ranks."""
        predicted = self.predictor.predict(batch)
        if min(np.ptp(predicted), np.ptp(accuracies)) == 0:
            return None
        return round(float(spearmanr(predicted, accuracies).statistic), 4)

    def closing_lines(self) -> list[str]:
        judged = ", ".join(f"{samples:,}: {correlation}" for samples, correlation, _ in self.fits[-LAST_FITS:])
        return [f"rank correlation with the samples since the fit before, last fits: {judged}"] if judged else []

    def status(self) -> str:
        return super().status() + (f", Spearman {self.fits[-1][1]}" if self.fits else "")

    def details(self) -> dict:
        return {"fits": self.fits}

    def settings(self) -> dict:
        return {**super().settings(), "backend": meta_dnn.keras.backend.backend()}

    def to_save(self) -> checkpoint.Saved:
        main, files = super().to_save()
        own = {"fits": self.fits, "fitted_samples": self.predictor.count, "fit_due": self.fit_due}
        network = self.predictor.saved()
        return {**main, **own}, {**files, "predictions": pack_cells(self.predictions), "meta_dnn.npz": network}

    def restore(self, main: dict, files: dict[str, bytes], samples: dict[int, float]) -> None:
        super().restore(main, files, samples)
        fitted = self._restore_fits(main)
        self.predictions = unpack_cells(files["predictions"], self.generator)
        batch = [cells.cell(index) for index in islice(samples, fitted)]
        accuracies = list(islice(samples.values(), fitted))
        self.predictor.restore(files["meta_dnn.npz"], batch, accuracies, len(self.fits))

    def _restore_fits(self, main: dict) -> int:
        counts, correlations, seconds = zip(*main["fits"], strict=True) if main["fits"] else ((), (), ())
        ranked = [correlation for correlation in correlations if correlation is not None]
        checkpoint.numbers([main["fitted_samples"], *counts], int, 0, len(self.samples), "fits")
        checkpoint.numbers(ranked, float, -1, 1, "fits")
        checkpoint.numbers([*seconds], float, 0, 1e12, "fits")
        checkpoint.numbers([main["fit_due"]], int, 0, 2**53, "fit_due")
        fitted = counts[-1] if counts else 0
        due = (fitted // self.options.fit_every + 1) * self.options.fit_every
        if list(counts) != sorted(set(counts)) or (main["fitted_samples"], main["fit_due"]) != (fitted, due):
            raise ValueError("fits: not as the fits of a search leave them")
        self.fits, self.fit_due = [tuple(fit) for fit in main["fits"]], due
        return fitted


def main(argv: list[str] | None = None) -> int:
    """Run ``python MCTS_metaDNN.py``; returns the exit status."""
    parser = build_parser(
        "Monte Carlo Tree Search over NAS-Bench-101 cells, assisted by a Meta-DNN.", MetaDNNOptions
    )
    options = parser.parse_args(argv)
    if getattr(options, "guide", 0):
        raise InputError("--guide is of MCTS.py; here the Meta-DNN predicts: leave it out")
    if not options.quiet:
        print(f"device   {meta_dnn.device()}")
    return run_command(options, MCTS_metaDNN)


if __name__ == "__main__":
    command.run(main)
