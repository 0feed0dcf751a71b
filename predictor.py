"""The Meta-DNN at work in a search: what it was told, when it is fitted, what it predicts, and how well."""

import time
from itertools import islice

import numpy as np
import scipy  # its parts when they are asked for: scipy.stats takes as long as Keras

import checkpoint
import meta_dnn
from arch_generator import State
from nasbench_dataset import cells
from options import MetaDNNOptions
from saved_tree import Saved, pack_cells, unpack_cells
from space import Space

LAST_FITS = 5  # that are reported at the end; summary.json has all


class Predictor:
    """Predicts the accuracies of cells, fitted now and then to all that were sampled.

    Parameters
    ----------
    space : Space
        Which cells there are.
    seed : int
        Of the network.
    options : MetaDNNOptions

    Attributes
    ----------
    samples : dict of int to float
        What it was told: index of the cell -> accuracy (0..1), in that order.
    fits : list of (int, float or None, float)
        For each fit: the unique samples then, Spearman's rank correlation of predictions and accuracies over the
        samples since the fit before (not yet fitted to; None at the first one, when nothing was learned, and where all
        are equal), and the seconds that the fit took.
    collapses : list of int
        The unique samples at each fit after which the network predicted the same of all cells, and was begun anew.
        Nothing in the original's network prevents that, and no fit brings it back.
    """

    def __init__(self, space: Space, seed: int, options: MetaDNNOptions):
        self.space, self.options = space, options
        self.network = meta_dnn.MetaDNN(seed)
        self.samples: dict[int, float] = {}
        self.fits: list[tuple[int, float | None, float]] = []
        self.collapses: list[int] = []
        self._predictions: dict[State, float] = {}  # under the present weights
        self._fit_at = options.fit_every

    @property
    def due(self) -> bool:
        """Whether the samples have reached a new multiple of ``fit_every``."""
        return len(self.samples) >= self._fit_at

    def tell(self, index: int, accuracy: float) -> None:
        """A sample: the accuracy (0..1) of the cell with that index. Only the first time counts."""
        self.samples.setdefault(index, accuracy)

    def worth(self, finished: list[State]) -> list[float]:
        """The known accuracy of each cell that was sampled, the prediction of any other; nothing is asked."""
        known = {cell: self.samples.get(self.space.index(cell)) for cell in finished}
        new = [cell for cell, accuracy in known.items() if accuracy is None and cell not in self._predictions]
        if new:
            predicted = self.network.predict([self.space.looked_up(cell) for cell in new])
            self._predictions.update(zip(new, predicted.tolist()))
        return [self._predictions[cell] if known[cell] is None else known[cell] for cell in finished]

    def fit(self) -> None:
        """Judge it by the samples since the last fit, then fit it to all samples."""
        new = list(islice(self.samples.items(), self.network.count, None))
        batch, accuracies = [cells.cell(index) for index, _ in new], [accuracy for _, accuracy in new]
        correlation = self._correlation(batch, accuracies) if self.fits else None
        started = time.perf_counter()
        self.network.add(batch, accuracies)
        self.network.fit(self.options.epochs)
        if len(batch) > 1 and np.ptp(self.network.predict(batch)) == 0:
            self.collapses.append(len(self.samples))
            self.network.begin_anew()
            self.network.fit(self.options.epochs)
        self._predictions.clear()
        self.fits.append((len(self.samples), correlation, round(time.perf_counter() - started, 3)))
        self._fit_at = self._next_multiple(len(self.samples))

    def _next_multiple(self, samples: int) -> int:
        return (samples // self.options.fit_every + 1) * self.options.fit_every

    def _correlation(self, batch: list[meta_dnn.Cell], accuracies: list[float]) -> float | None:
        """Spearman's rank correlation of predictions and accuracies; None where either has no ranks."""
        predicted = self.network.predict(batch)
        if min(np.ptp(predicted), np.ptp(accuracies)) == 0:
            return None
        return round(float(scipy.stats.spearmanr(predicted, accuracies).statistic), 4)

    def status(self) -> str:
        """How well it predicted last, for the progress line; empty before the first fit."""
        if not self.fits:
            return ""
        collapses = f", begun anew {len(self.collapses)} x" if self.collapses else ""
        return f", Spearman {self.fits[-1][1]}{collapses}"

    def closing_lines(self) -> list[str]:
        """How well it predicted, for the end."""
        judged = ", ".join(f"{samples:,}: {correlation}" for samples, correlation, _ in self.fits[-LAST_FITS:])
        lines = [f"rank correlation with the samples since the fit before, last fits: {judged}"] if judged else []
        if self.collapses:
            at = ", ".join(map("{:,}".format, self.collapses))
            lines.append(f"the Meta-DNN predicted the same of all cells, and was begun anew, after {at} samples")
        return lines

    def to_save(self) -> Saved:
        """What does not follow from the samples: for JSON, and files by their names."""
        main = {"fits": self.fits, "fitted_samples": self.network.count, "fit_due": self._fit_at}
        main["collapses"] = self.collapses
        return main, {"predictions": pack_cells(self._predictions), "meta_dnn.npz": self.network.to_save()}

    def restore(self, main: dict, files: dict[str, bytes]) -> None:
        """Take over what ``to_save`` gave, when it was told the samples already.

        Raises
        ------
        LookupError, TypeError, ValueError
            If it is anything else.
        """
        counts, correlations, seconds = zip(*main["fits"], strict=True) if main["fits"] else ((), (), ())
        ranked = [correlation for correlation in correlations if correlation is not None]
        checkpoint.numbers([main["fitted_samples"], *counts], int, 0, len(self.samples), "fits")
        checkpoint.numbers(ranked, float, -1, 1, "fits")
        checkpoint.numbers([*seconds], float, 0, 1e12, "fits")
        checkpoint.numbers([main["fit_due"]], int, 0, 2**53, "fit_due")
        fitted = counts[-1] if counts else 0
        self._fit_at = self._next_multiple(fitted)
        if list(counts) != sorted(set(counts)) or (main["fitted_samples"], main["fit_due"]) != (fitted, self._fit_at):
            raise ValueError("fits: not as the fits of a search leave them")
        collapses = main.get("collapses", [])  # older saves have none
        if type(collapses) is not list or not set(collapses) <= {*counts} or collapses != sorted(set(collapses)):
            raise ValueError("collapses: not at fits")
        self.fits, self.collapses = [tuple(fit) for fit in main["fits"]], collapses
        self._predictions = unpack_cells(files["predictions"], self.space.generator)
        first = list(islice(self.samples.items(), fitted))
        batch, accuracies = [cells.cell(index) for index, _ in first], [accuracy for _, accuracy in first]
        self.network.restore(files["meta_dnn.npz"], batch, accuracies, len(self.fits) + len(self.collapses))
