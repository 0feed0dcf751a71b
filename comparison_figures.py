"""The pictures of a comparison: the best so far against samples, and boxes of the samples to the best cell."""

import math

import numpy as np

from comparison_report import at_samples, published_at, published_samples

# Okabe and Ito's colours, told apart by the colour-blind, with a line style each.
COLOURS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C"
DASHES = "-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))
MARKERS = "o", "s", "^", "D", "v", "P", "X", "*"


def draw(groups: dict[str, list[dict]], options, best_test: float, caption: str) -> None:
    """Both figures, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "compare", "svg.fonttype": "none", "font.size": 10})
    matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    styles = {m: (COLOURS[i % 8], DASHES[(i + i // 8) % 8], MARKERS[i % 8]) for i, m in enumerate(groups)}
    boxes = "Boxes: quartiles and median of the trials that found it; diamond: mean; whiskers: least and most.\n"
    for name, figure, more in (
        ("best-so-far", draw_best_so_far(groups, options, best_test, styles), ""),
        ("samples-to-best", draw_samples_to_best(groups, options, styles), boxes),
    ):
        figure.text(0.01, 0.01, more + caption, fontsize=8, va="bottom")
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            figure.savefig(options.out / f"{name}.{kind}", dpi=150, metadata=metadata)


def draw_best_so_far(groups: dict[str, list[dict]], options, best_test: float, styles: dict):
    """Test accuracy of the best so far: median and quartiles; mean test regret, with what was published."""
    from matplotlib.figure import Figure

    lengths = [result["samples"] for results in groups.values() for result in results]
    first = max(1, min(10, *lengths))
    places = np.unique(np.geomspace(first, max(first + 1, *lengths), 200).round())
    figure = Figure(figsize=(11, 5.2))
    left, right = figure.subplots(1, 2)
    lows, published = [], published_at(options)
    for method, results in groups.items():
        colour, dash, marker = styles[method]
        curves = np.array([at_samples(result["trace"], places) for result in results])
        budget = min((r["samples"] for r in results if r["outcome"] == "samples"), default=math.inf)
        shown = places <= budget
        low, median, high = np.quantile(curves[:, shown], (0.25, 0.5, 0.75), axis=0)
        lows.append(low[places[shown] >= min(100, places[shown][-1])])
        left.plot(places[shown], median, color=colour, ls=dash, label=method)
        left.fill_between(places[shown], low, high, color=colour, alpha=0.15, lw=0)
        regret = (best_test - curves[:, shown]).mean(axis=0)
        right.plot(places[shown], np.where(regret > 0, regret, np.nan), color=colour, ls=dash, label=method)
        points = published.get(method.partition(":")[0], {})
        if points:
            label = f"{method.partition(':')[0]}, published"
            right.plot(list(points), list(points.values()), marker, color=colour, mfc="white", ms=7, label=label)
    left.axhline(best_test, color="black", lw=0.8, ls=(0, (2, 2)))
    left.annotate("best cell of the domain", (places[0], best_test), (0, 3), textcoords="offset points", fontsize=8)
    left.set_ylim(min(map(np.min, lows)) - 0.0005, best_test + 0.0008)
    left.set_ylabel("test accuracy of the best so far\n(median, band: quartiles)")
    right.set_ylabel("mean test regret of the best so far")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("unique valid samples")
        axes.grid(alpha=0.25, lw=0.5)
    right.legend(*_unique_legend(right), fontsize=8, frameon=False, loc="lower left")
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    return figure


def _unique_legend(axes) -> tuple[list, list]:
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
    return list(handles.values()), list(handles)


def draw_samples_to_best(groups: dict[str, list[dict]], options, styles: dict):
    """Boxes of the unique samples to the best cell; published ones beside ours, hatched."""
    from matplotlib.figure import Figure

    boxes, published = [], published_samples(options)
    for method, results in groups.items():
        needed = [result["samples"] for result in results if result["outcome"] == "found"]
        label = method if len(needed) == len(results) else f"{method}\n{len(needed)} of {len(results)} solved"
        boxes.append((label, styles[method][0], needed, None))
        if method in published:
            boxes.append((f"{method}\npublished", styles[method][0], None, published[method]))
    figure = Figure(figsize=(max(8.0, 1.3 * len(boxes) + 1), 5.2))
    axes = figure.subplots()
    for place, (_, colour, needed, given) in enumerate(boxes):
        look = {"facecolor": colour, "alpha": 0.45}
        if given is not None:
            look = {"facecolor": "white", "edgecolor": colour, "hatch": "///"}
        common = {"patch_artist": True, "widths": 0.6, "boxprops": look, "medianprops": {"color": "black"}}
        common |= {"showmeans": True, "meanprops": {"marker": "D", "mfc": "black", "mec": "black", "ms": 5}}
        if given is not None:
            mean, _, (q1, median, q3), (least, most) = given
            box = {"med": median, "q1": q1, "q3": q3, "whislo": least, "whishi": most, "mean": mean}
            axes.bxp([box], positions=[place], showfliers=False, **common)
        elif needed:
            axes.boxplot([needed], positions=[place], whis=(0, 100), **common)
            spread = place + np.linspace(-0.2, 0.2, len(needed))
            axes.plot(spread, needed, ".", color=colour, ms=4)
    axes.set_xticks(range(len(boxes)), [box[0] for box in boxes])
    axes.set_xlim(-0.5, len(boxes) - 0.5)
    axes.set_yscale("log")  # one method can need a hundred times as many as another
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("unique valid samples to the best cell")
    axes.grid(axis="y", which="both", alpha=0.25, lw=0.5)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    return figure
