"""What a comparison comes to: statistics and pictures by hand."""

import math
import xml.etree.ElementTree as ElementTree
from argparse import Namespace

import numpy as np
import pytest

from comparison_figures import STYLES, boxes_of, draw, draw_best_so_far, styles
from comparison_report import accuracy_rows, at_samples, literal, markdown, published_at, published_samples, summarise


def result_of(outcome: str, samples: int, trace: list) -> dict:
    return {"outcome": outcome, "samples": samples, "trace": trace, "seconds": 1.0}


def test_the_best_so_far():
    trace = [[1, 0.5, 0.4], [10, 0.6, 0.3], [1_000, 0.9, 0.8]]
    places = np.array([0, 1, 9, 10, 999, 1_000, 5_000])
    np.testing.assert_array_equal(at_samples(trace, places), [np.nan, 0.4, 0.4, 0.3, 0.3, 0.8, 0.8])
    assert np.isnan(at_samples([], places)).all()


def test_statistics_by_hand():
    results = [
        result_of("found", 2_000, [[1, 0.5, 0.5], [2_000, 0.9, 0.9]]),
        result_of("found", 4_000, [[1, 0.7, 0.7], [4_000, 0.9, 0.9]]),
        result_of("samples", 6_000, [[1, 0.8, 0.6]]),
        result_of("stalled", 500, [[1, 0.8, 0.8]]),
    ]
    summary = summarise("x", results, 0.9, [1_000, 5_000, 10_000])
    assert summary["solved"] == 0.5 and summary["stalled"] == 1
    assert summary["samples_to_best"] == {"mean": None, "sd": None, "quartiles": [2_000, 4_000, None]}
    assert list(summary["at"]) == [1_000, 5_000]  # one trial had no more than 6,000
    assert summary["at"][1_000] == {"test": pytest.approx(0.65), "regret": pytest.approx(0.25)}
    assert summary["at"][5_000]["test"] == pytest.approx((0.9 + 0.9 + 0.6 + 0.8) / 4)
    of_found = summarise("x", results[:2], 0.9, [])["samples_to_best"]
    assert of_found == {"mean": 3_000, "sd": pytest.approx(1_000 * math.sqrt(2)), "quartiles": [2_000, 2_000, 4_000]}


def test_a_method_that_finds_it_seldom_but_soon_has_no_mean_to_show_off():
    """Two in five find it within 1,000 samples; four in five of another method do, and later on average."""
    seldom = [result_of("found", n, [[n, 0.9, 0.9]]) for n in (100, 200)] + 3 * [result_of("samples", 1_000, [])]
    often = [result_of("found", n, [[n, 0.9, 0.9]]) for n in (100, 500, 600, 900)] + [result_of("samples", 1_000, [])]
    options = Namespace(over="samples", max_nodes=5, max_edges=9, lookup="exact", metric="test", samples=1_000)
    text = markdown([summarise(n, g, 0.9, [50]) for n, g in (("seldom", seldom), ("often", often))], options, [])
    assert "| seldom | 5 | 40% | - | 200 / > 1,000 / > 1,000 | 1.0 |" in text
    assert "| often | 5 | 80% | - | 500 / 600 / 900 | 1.0 |" in text
    assert "| seldom | - |" in text  # no sample yet
    boxes = boxes_of({"seldom": seldom, "often": often}, {})
    assert [box.label for box in boxes] == ["seldom\n40% solved", "often\n80% solved"]
    assert boxes[0].quartiles == [200, math.inf, math.inf] and boxes[1].quartiles == [500, 600, 900]
    assert [(box.least, box.most, box.mean) for box in boxes] == 2 * [(100, math.inf, None)]


def test_nothing_in_the_name_of_a_table_is_html_or_a_picture():
    hostile = "of <img src=//x> &lt; ![a](//x) [a](//x) {'b': [1]} C:\\d_e*"
    assert literal(hostile) == "of &lt;img src=//x> &amp;lt; ![a]\\(//x) [a]\\(//x) {'b': [1]} C:\\d_e*"


def test_what_was_published_stands_only_beside_the_same_comparison():
    options = Namespace(over="samples", max_nodes=6, max_edges=9, lookup="exact", metric="test", samples=None)

    def other(**changes) -> Namespace:
        return Namespace(**{**vars(options), **changes})

    assert published_samples(options)["mcts"][0] == 10_367
    assert published_at(options)["mcts"][5_000] == pytest.approx(0.9423411 - 0.94220)
    for changed in (other(max_nodes=5), other(lookup="isomorphic"), other(metric="valid"), other(max_edges=8)):
        assert published_samples(changed) == {}
        assert published_at(changed) == {}
    assert published_at(other(max_nodes=7, lookup="isomorphic"))["bohb"][1_000] == 0.00369
    within = published_at(other(max_nodes=7, samples=5_000))
    assert within["bohb"] == {1_000: 0.00369}  # what lies beyond the budget would stretch the picture
    assert published_at(other(max_nodes=7, samples=300)) == published_at(other(samples=300)) == {}


def test_a_regret_of_nothing_has_no_sign():
    summaries = [{"method": "random", "at": {10: {"test": 0.9, "regret": -1e-17}, 20: None}}]
    assert accuracy_rows(summaries, [10, 20, 30]) == [["random", "0.90000 (0.00000)", "-", "-"]]


# --- pictures ---------------------------------------------------------------------------------


def test_a_method_looks_the_same_in_every_comparison():
    assert len({(style.colour, style.dash) for style in STYLES.values()}) == len(STYLES)
    few, many = styles(["tuned", "mcts"]), styles(["random", "mcts:cp=1", "mcts", "mcts:cp=2", "tuned"])
    assert few["mcts"] == many["mcts"] == STYLES["mcts"] and few["tuned"] == many["tuned"]
    assert len({style.colour for style in many.values()}) == 5
    assert many["mcts:cp=1"] == styles(["mcts", "mcts:cp=1", "random", "tuned"])["mcts:cp=1"]
    variants = [f"mcts:cp={n}" for n in range(30)]
    assert len({(style.colour, style.dash) for style in styles([*STYLES, *variants]).values()}) == len(STYLES) + 30


@pytest.mark.parametrize("count, beside", [(3, False), (12, True)])
def test_a_long_legend_stands_beside_the_curves(count, beside):
    options = Namespace(over="samples", max_nodes=5, max_edges=9, lookup="exact", metric="test", samples=70)
    results = [result_of("found", 70, [[1, 0.5, 0.5], [70, 0.9, 0.9]])]
    figure = draw_best_so_far(dict.fromkeys(list(STYLES)[:count], results), options, 0.95)
    figure.canvas.draw()
    regret = figure.axes[1]
    assert (regret.get_legend().get_window_extent().x0 > regret.get_window_extent().x1) == beside


CAPTION = r"cells trained on $\frac$.npz"  # a file's name is no formula


@pytest.mark.parametrize(
    "results",
    [
        [result_of("found", 1, [[1, 0.9, 0.9]])],  # no regret at all
        [result_of("stalled", 0, [])],  # no sample at all
        [result_of("found", 70, [[1, 0.5, None], [70, 0.9, 0.9]]), result_of("samples", 0.3, [])],
        [result_of("found", 7, [[7, 0.9, 0.9]]), *3 * [result_of("samples", 10**6, [[9, 0.8, 0.7]])]],
    ],
)
def test_pictures_of_whatever_comes_out(tmp_path, results):
    """Both are drawn, and say of every method which share of its trials found the best cell."""
    options = Namespace(max_nodes=6, max_edges=9, lookup="exact", metric="test", samples=10**6, out=tmp_path)
    draw({"mcts": results, "q-learning": results}, options, 0.9, CAPTION)
    texts = {
        name: [text.text for text in ElementTree.parse(tmp_path / f"{name}.svg").iter() if text.text]
        for name in ("best-so-far", "samples-to-best")
    }
    found = sum(result["outcome"] == "found" for result in results)
    assert texts["samples-to-best"].count(f"{found / len(results):.0%} solved") >= 2
    assert {"mcts", "mcts, published", "q-learning", CAPTION} <= set(texts["best-so-far"])
