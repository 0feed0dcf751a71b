"""What a comparison comes to: statistics of the trials of each method, the published figures, and both as text."""

import math

import numpy as np

# Published for NAS-Bench-101 itself (SPEC.md, section 6): up to 6 vertices, exact lookup, test accuracy, 114 runs.
PUBLISHED_SAMPLES = {  # mean, standard deviation, quartiles, least and most unique samples to the best cell
    "mcts": (10_367, 4_320, (7_713, 10_977, 13_298), (321, 21_259)),
    "evolution": (29_648, 14_564, (18_780, 30_439, 40_957), (819, 60_562)),
    "random": (32_244, 19_159, (14_843, 31_710, 48_340), (272, 64_225)),
}
PUBLISHED_BEST = {  # mean best test accuracy after so many samples
    "mcts": {5_000: 0.94220, 10_000: 0.94225, 20_000: 0.94233},
    "evolution": {5_000: 0.94212, 10_000: 0.94222, 20_000: 0.94224},
    "random": {5_000: 0.94120, 10_000: 0.94164, 20_000: 0.94201},
}
PUBLISHED_REGRET_7 = {  # mean test regret, all 423,624 cells
    "mcts": {1_000: 0.00353, 10_000: 0.00088, 40_000: 0.00077},
    "bohb": {1_000: 0.00369, 10_000: 0.00158, 40_000: 0.00118},
    "smac": {1_000: 0.00370, 10_000: 0.00201, 40_000: 0.00142},
    "evolution": {1_000: 0.00439, 10_000: 0.00255, 40_000: 0.00148},
    "hyperband": {1_000: 0.00480, 10_000: 0.00284, 40_000: 0.00165},
    "tpe": {1_000: 0.00529, 10_000: 0.00346, 40_000: 0.00238},
    "random": {1_000: 0.00508, 10_000: 0.00272, 40_000: 0.00173},
}


def at_samples(trace: list[list[float]], places: np.ndarray) -> np.ndarray:
    """Test accuracy of the best so far after so many samples; NaN before the first."""
    if not trace:
        return np.full(len(places), np.nan)
    costs, _, values = np.array(trace).T
    place = np.searchsorted(costs, places, "right") - 1
    return np.where(place < 0, np.nan, values[place])


def summarise(method: str, results: list[dict], best_test: float, at: list[int]) -> dict:
    """The statistics of one method.

    Returns
    -------
    dict
        ``solved``: share of trials that found the best cell; ``samples_to_best``: mean and sd of those, and
        quartiles of all trials, where one that did not find it counts as more than any (None); ``at``: mean test
        accuracy and mean test regret of the best so far after the numbers of samples in ``at``, as far as all trials
        went that did not end before.
    """
    needed = [result["samples"] for result in results if result["outcome"] == "found"]
    censored = np.array(needed + [math.inf] * (len(results) - len(needed)))
    quartiles = np.quantile(censored, (0.25, 0.5, 0.75), method="inverted_cdf").tolist()
    places = np.array(at, int)
    ran_out = [r["samples"] for r in results if r["outcome"] == "samples"]
    accuracies = np.array([at_samples(result["trace"], places) for result in results])
    reached = [n for n in places.tolist() if not ran_out or n <= min(ran_out)]
    return {
        "method": method,
        "trials": len(results),
        "solved": len(needed) / len(results),
        "stalled": sum(result["outcome"] == "stalled" for result in results),
        "samples_to_best": {
            "mean": float(np.mean(needed)) if needed else None,
            "sd": float(np.std(needed, ddof=1)) if len(needed) > 1 else None,
            "quartiles": [None if math.isinf(q) else q for q in quartiles],
        },
        "at": {
            n: {"test": float(np.mean(found)), "regret": float(np.mean(best_test - found))}
            for n, found in zip(places.tolist(), accuracies.T)
            if n in reached
        },
        "seconds": float(np.mean([result["seconds"] for result in results])),
    }


def published_at(options) -> dict[str, dict[int, float]]:
    """Published mean test regret after so many samples, by method; empty for other domains than the published ones."""
    if options.max_nodes == 7:
        return PUBLISHED_REGRET_7
    best = 0.9423411  # of up to 6 vertices (SPEC.md, section 2)
    published = PUBLISHED_BEST if published_samples(options) else {}
    return {name: {n: best - test for n, test in values.items()} for name, values in published.items()}


def published_samples(options) -> dict:
    """Published samples to the best cell, by method; empty for another domain, lookup or metric."""
    same = (options.max_nodes, options.max_edges, options.lookup, options.metric) == (6, 9, "exact", "test")
    return PUBLISHED_SAMPLES if same else {}


def markdown(summaries: list[dict], options, heading: list[str]) -> str:
    """The comparison as text: samples to the best cell, then test accuracy and regret on the way."""
    lines = ["# Comparison", "", *heading, ""]
    lines += ["Unique samples to the best cell (mean and sd of the trials that found it; quartiles of all):", ""]
    lines += ["| method | trials | solved | mean ± sd | Q1 / median / Q3 | seconds a trial |", "|-|-|-|-|-|-|"]
    for s in summaries:
        samples = s["samples_to_best"]
        spread = f" ± {samples['sd']:,.0f}" if samples["sd"] is not None else ""
        mean = "-" if samples["mean"] is None else f"{samples['mean']:,.0f}{spread}"
        quartiles = " / ".join("more" if q is None else f"{q:,.0f}" for q in samples["quartiles"])
        words = s["method"], str(s["trials"]), f"{s['solved']:.0%}", mean, quartiles, f"{s['seconds']:.1f}"
        lines.append(f"| {' | '.join(words)} |")
    for name, (mean, sd, quartiles, _) in published_samples(options).items():
        words = " / ".join(f"{q:,}" for q in quartiles)
        lines.append(f"| *{name}, published for NAS-Bench-101 itself* | 114 | 100% | {mean:,} ± {sd:,} | {words} | |")
    places = sorted({n for s in summaries for n in s["at"]})
    if places:
        lines += ["", "Mean test accuracy (mean test regret) of the best so far after so many unique samples:", ""]
        lines += ["| method | " + " | ".join(f"{n:,}" for n in places) + " |", "|-" * (len(places) + 1) + "|"]
        for s in summaries:
            here = [s["at"].get(n) for n in places]
            words = [f"{v['test']:.5f} ({v['regret']:.5f})" if v else "-" for v in here]
            lines.append(f"| {s['method']} | " + " | ".join(words) + " |")
        for name, regrets in published_at(options).items():
            words = [f"({regrets[n]:.5f})" if n in regrets else "" for n in places]
            lines.append(f"| *{name}, published for NAS-Bench-101 itself* | " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"
