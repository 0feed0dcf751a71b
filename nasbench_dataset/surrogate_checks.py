"""How well a surrogate table agrees with what is published and measured: printed side by side."""

from dataclasses import replace

import numpy as np

from nasbench_dataset import cells, noise, predictions, surrogate, table
from nasbench_dataset.measurements import FAILED, Measured, Trainings
from nasbench_dataset.published import BEST, BEST_TESTS, LARGEST_MAXIMUM, PLACE_OF_BEST, RANDOM_UP_TO_6
from nasbench_dataset.residuals import ResidualField
from nasbench_dataset.runs import VALID_RUNS

QUANTILES = (0.1, 0.5, 0.9, 0.99)
TOP_TEST = (0.93, 0.935, 0.94, 0.941, 0.9415)  # how many cells lie above
TOP_VALID = (0.94, 0.942, 0.944, 0.946, 0.948, 0.949)
GOOD = 0.94  # of neighbours
LANAS = {50: 0.93437, 200: 0.93734, 1_000: 0.94131, 4_000: 0.94309}  # mean best test of 41 runs


def expected_best(values: np.ndarray, draws: int) -> float:
    """The mean of the largest of ``draws`` different entries, drawn uniformly."""
    remaining = len(values) - np.arange(len(values) - draws)  # when the better ones were all missed
    missed = np.concatenate([[1.0], np.cumprod(1 - draws / remaining)])
    chance = -np.diff(missed, append=0.0)  # that the best one drawn has this rank
    return float(np.sort(values)[::-1][: len(chance)] @ chance)


def report_table(result: table.Table) -> None:
    """Print the distribution of a table beside published figures."""
    test, valid = result.columns["test"], result.columns["valid"]
    print("All cells of the table (published, NAS-Bench-101 itself):")
    print(f"  valid: mean {valid.mean():.5f} (.90243), sd {valid.std():.5f} (.05865)")
    print(f"  test:  mean {test.mean():.5f} (.89680), sd {test.std():.5f} (.05800)")
    print(f"  correlation of the two: {np.corrcoef(test, valid)[0, 1]:.4f} (.999)")
    print(f"  failed (valid < {FAILED}): {np.mean(valid < FAILED):.3%}")
    print("  cells by test:", ", ".join(f"> {level}: {np.sum(test > level):,}" for level in TOP_TEST))
    print("  cells by valid:", ", ".join(f"> {level}: {np.sum(valid > level):,}" for level in TOP_VALID))
    best = ", ".join(f"{ours:.5f} ({theirs:.5f})" for ours, theirs in zip(np.sort(test)[::-1], BEST_TESTS))
    print(f"  best by test: {best}")
    print(f"  best by valid: {', '.join(f'{x:.5f}' for x in np.sort(valid)[::-1][:5])} (.95055, ...)")
    place = 1 + np.sum(valid > valid[test.argmax()])
    print(f"  place of the best by test among all by valid: {place} ({PLACE_OF_BEST})")
    for draws, published in RANDOM_UP_TO_6.items():
        ours = expected_best(test[: cells.cell_count(6)], draws)
        print(f"  best test of {draws:,} random cells up to 6 vertices: {ours:.5f} ({published:.5f})")
    ours = ", ".join(f"{n:,}: {expected_best(test, n):.5f} ({best:.5f})" for n, best in LANAS.items())
    print(f"  best test of random cells of all (LaNAS, which has to be better): {ours}")


def report_maxima(result: table.Table, measured: Measured) -> None:
    """Print counts of the maxima of 3 runs beside the measured ones, of the sampled cells and of as many others."""
    maximum = np.max([result.columns[name] for name in VALID_RUNS], axis=0)
    sample = measured.in_sample
    theirs = measured.maximum[sample]
    others = np.delete(maximum, measured.index)
    print(f"Maxima of 3 runs above a level, of {len(theirs):,} cells (those that were measured; as many others):")
    for level in TOP_VALID:
        ours = np.mean(others > level) * len(theirs)
        mine = np.sum(maximum[measured.index[sample]] > level)
        print(f"  > {level}: measured {np.sum(theirs > level)}, table {mine}; others {ours:.1f}")
    print(f"  largest of all cells: {maximum.max():.6f} ({LARGEST_MAXIMUM:.6f})")


def neighbours_share(scores: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """The pairs of which both scores (float64 [423624]) are known, not NaN, either way round; their correlation."""
    scores = np.clip(scores - np.nanmedian(scores), -4, 4)
    one, other = (np.concatenate(side) for side in (pairs, pairs[::-1]))
    both = ~np.isnan(scores[one]) & ~np.isnan(scores[other])
    one, other = one[both], other[both]
    return one, other, float(np.corrcoef(scores[one], scores[other])[0, 1])


def report_neighbours(result: table.Table, fit: surrogate.Fit, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """Print how alike neighbours are: measured cells, and cells of the table that were not measured."""
    measured = fit.measured
    maximum = np.max([result.columns[name] for name in VALID_RUNS], axis=0)
    theirs = np.full(cells.cell_count(), np.nan)
    rows = measured.in_sample & (measured.maximum > FAILED)
    theirs[measured.index[rows]] = measured.maximum[rows]
    ours = np.where(maximum > FAILED, maximum, np.nan)
    ours[measured.index] = np.nan
    level = fit.level
    for name, values in (("measured", theirs), ("table, not measured", ours)):
        one, other, correlation = neighbours_share((values - level) / fit.scale.sd(level), pairs)
        good = values[one] - noise.TYPICAL > GOOD
        share, count = np.sum(values[other[good]] - noise.TYPICAL > GOOD) / max(good.sum(), 1), good.sum()
        print(f"Neighbours, {name} ({len(one) // 2:,} pairs): correlation of residuals {correlation:.3f};")
        print(f"  of those of cells with maximum - {noise.TYPICAL} above {GOOD}: {share:.1%} above, too ({count:,})")


def report_refit(fit: surrogate.Fit, pairs: tuple[np.ndarray, np.ndarray], seeds: tuple[int, int], trees: int) -> None:
    """Print what neighbours share once a model was fitted: to what is measured, and to what a table's way makes up.

    A model that was fitted to a neighbour knows part of what the two share, so its residuals share less than the truth.
    """
    measured, everywhere = fit.measured, fit.prediction.everywhere
    level, rng = everywhere[measured.index], np.random.default_rng(seeds[1])
    share, *_ = surrogate.parts_of_scores(fit.scale, level)
    score = np.sqrt(share) * fit.field.draw(rng)[measured.index]
    score += np.sqrt(1 - share) * rng.standard_normal(len(level))
    valid = np.clip(level + fit.scale.residual(level, score), FAILED + 0.01, LARGEST_MAXIMUM)
    made_up = replace(measured, valid=np.where(measured.worked, valid, measured.valid))
    unseen = predictions.predict_unseen(made_up, seeds[0], trees)
    again = predictions.calibrate(predictions.Prediction(everywhere, unseen), made_up)

    def shared(values: np.ndarray, predicted: np.ndarray) -> float:
        rows, scores = measured.in_sample & measured.worked, np.full(cells.cell_count(), np.nan)
        scores[measured.index[rows]] = ((values - predicted) / fit.scale.sd(predicted))[rows]
        return neighbours_share(scores, pairs)[2]

    print("Neighbours in the sample, correlation of the residuals of models that had not seen the cell:")
    print(f"  measured {shared(measured.valid, fit.prediction.unseen):.3f}; made up as the table is")
    print(f"  {shared(made_up.valid, again.unseen):.3f}, where without a fit it is {shared(made_up.valid, level):.3f}")


def report_held_out(
    measured: Measured, trainings: Trainings, field: ResidualField, held_out: int, seeds: tuple[int, int], trees: int
) -> None:
    """Fit without some cells of the sample; print how well these are met."""
    seed, residual_seed = seeds
    candidates = np.flatnonzero(measured.in_sample)
    out = np.random.default_rng(seed).choice(candidates, size=held_out, replace=False)
    rest, truth = measured.part(np.setdiff1d(np.arange(len(measured.index)), out)), measured.part(out)
    trainings = trainings.without(truth.index)
    found, _ = predictions.predict(rest, None, seed, trees)
    simple = {name: predictions.Prediction(np.zeros(cells.cell_count()), np.zeros(len(column)))
              for name, column in trainings.columns.items()}  # they do not matter here
    fit = surrogate.fit(rest, found, trainings, simple, field)
    drawn = surrogate.Draw(fit, np.random.default_rng(residual_seed)).valid[truth.index]
    print(f"On {held_out:,} measured cells held out (valid; measured: the mean that the maximum of 3 runs suggests):")
    print(f"  predictions: {_fidelity(found.everywhere[truth.index], truth.valid)}")
    print(f"  table:       {_fidelity(drawn, truth.valid)}")
    for name, values in (("table", drawn), ("measured", truth.valid)):
        quantiles = ", ".join(f"{q:.0%} {np.quantile(values, q):.4f}" for q in QUANTILES)
        print(f"  quantiles, {name + ':':9} {quantiles}; failed {np.mean(values < FAILED):.3%}")


def _fidelity(estimate: np.ndarray, measured: np.ndarray) -> str:
    """Kendall, Spearman and RMSE over the cells whose training succeeded in both."""
    from scipy.stats import kendalltau, spearmanr  # comes with scikit-learn

    worked = (estimate > FAILED) & (measured > FAILED)
    estimate, measured = estimate[worked], measured[worked]
    error = np.sqrt(np.mean((estimate - measured) ** 2))
    tau, rho = kendalltau(estimate, measured).statistic, spearmanr(estimate, measured).statistic
    return f"Kendall {tau:.3f}, Spearman {rho:.3f}, RMSE {error:.4f} ({worked.sum():,} cells)"


def report(result: table.Table, fit: surrogate.Fit, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """All checks of a table that need no second fit."""
    report_table(result)
    report_maxima(result, fit.measured)
    report_neighbours(result, fit, pairs)
