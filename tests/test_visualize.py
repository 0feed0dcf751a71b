"""``python visualize.py`` as a user runs it, and where it draws what.

Reading a run: tests/test_visualize_saved_run.py and tests/test_visualize_hostile.py; the page: test_visualize_page.py.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, assert_refused, assert_refused_here, run, run_here
from drawn_runs import check_pictures, copy, finished, save_again, tree, tuned, unfinished  # noqa: F401 (fixtures)
from PIL import Image

import MCTS
import saved_run
import tree_layout
import tree_pictures
import visualize
from arch_generator import State
from nasbench_dataset import cells

CELL = '{"adj_mat": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "node_list": ["input", "maxpool3x3", "output"]}'


# --- the picture of a tree --------------------------------------------------------------------


def test_the_tree_of_a_finished_run(finished, tmp_path):
    result = run("visualize.py", finished, "--html", "--out", tmp_path / "new")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    summary = json.loads((finished / "summary.json").read_text())
    nodes = json.loads((finished / "nodes").read_text())
    svg = check_pictures(tmp_path / "new", "tree")  # it has every line of text as a comment
    for text in (
        f"{len(nodes['n'])} of {len(nodes['n'])} nodes: all of them",
        f"seed {summary['seed']}",
        f"{summary['unique_samples']} unique samples",
        f"{summary['best_accuracy']:.7f}",
        "not NAS-Bench-101 itself",
        "up to 4 vertices",
    ):
        assert text in result.stdout
        assert text in svg.replace("\n", " ") or text in " ".join(svg.split())
    for label in ("root", "best path", "high-value path", "low-value path", "x_bar"):
        assert label in svg
    assert (tmp_path / "new" / "tree.html").stat().st_size > 10_000


def test_the_same_run_gives_the_same_bytes(finished, tmp_path):
    assert run("visualize.py", finished, "--html", "--out", tmp_path / "a").returncode == 0
    assert run_here(visualize.main, finished, "--html", "--out", tmp_path / "b").returncode == 0
    for name in ("tree.png", "tree.svg", "tree.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_run_that_was_killed_can_be_drawn(unfinished, tmp_path):
    result = run_here(visualize.main, unfinished, "--out", tmp_path, "--max-drawn", 60)
    assert result.returncode == 0, result.stderr
    assert "Table: not known" in result.stdout and "not ended" in result.stdout
    check_pictures(tmp_path, "tree")


@pytest.mark.parametrize("samples", [1, 5])
def test_a_search_that_has_just_begun(samples, tmp_path):
    assert run_here(MCTS.main, "--seed", 1, "--samples", samples, "--quiet", "--out", tmp_path).returncode == 0
    assert visualize.main([str(tmp_path), "--html"]) == 0
    check_pictures(tmp_path, "tree")


@pytest.mark.parametrize("guide, words", [(0, ""), (2, ", every 2 episodes a linear model chooses a cell")])
def test_the_tree_of_a_tuned_search(guide, words, tmp_path):
    options = ["--preset", "tuned", "--cp", 0.03, "--guide", guide, "--lookup", "isomorphic", "--max-nodes", 4]
    options += ["--seed", 0, "--quiet"]
    assert run_here(MCTS.main, *options, "--out", tmp_path).returncode == 0
    result = run_here(visualize.main, tmp_path, "--html")
    assert result.returncode == 0 and result.stderr == ""
    assert f"Cp 0.03, back-up along the path, exhausted states closed{words}, seed 0" in result.stdout
    nodes = json.loads((tmp_path / "nodes").read_text())
    assert f"Closed: {sum(nodes['closed'])} of {len(nodes['n'])} nodes" in result.stdout
    assert "Lines lead to the parents last walked from." in result.stdout
    assert ("partly predicted" in result.stdout) == (guide > 0)
    assert ("partly predicted" in (tmp_path / "tree.html").read_text()) == (guide > 0)
    check_pictures(tmp_path, "tree")


@pytest.mark.parametrize(
    "method, model", [("mcts", "a linear model"), ("mcts-metadnn", "an ensemble of networks")]
)
def test_the_words_say_which_model_guides(method, model):
    settings = {"method": method, "cp": 0.05, "backup": "path", "close_exhausted": False, "guide": 5}
    words = tree_pictures.search_words(SimpleNamespace(settings=settings, guided=True))
    assert words[-1] == f"every 5 episodes {model} chooses a cell"


def test_the_tree_of_a_search_with_the_meta_dnn(tmp_path):
    options = ["--max-nodes", 4, "--seed", 0, "--samples", 2, "--rollouts", 1, "--quiet", "--out", tmp_path]
    assert run("MCTS_metaDNN.py", *options).returncode == 0
    result = run_here(visualize.main, tmp_path)
    assert result.returncode == 0 and "mcts-metadnn" in result.stdout
    check_pictures(tmp_path, "tree")


def test_the_folder_of_the_run_is_only_added_to(copy):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert run_here(visualize.main, copy).returncode == 0
    after = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert set(after) - set(before) == {"tree.png", "tree.svg"}
    assert all(after[name] == content for name, content in before.items())


def test_keras_and_the_search_are_not_imported():
    code = "import sys, visualize; sys.exit(bool({'keras', 'MCTS', 'net_training'} & set(sys.modules)))"
    assert run("-c", code).returncode == 0


# --- what is drawn ----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [20, 50, 120, 300, 10_000])
def test_a_pruned_tree_is_connected_and_as_large_as_allowed(tree, most):
    drawing = tree_layout.arrange(tree, most)
    drawn = set(drawing.drawn.tolist())
    assert 0 in drawn and len(drawn) <= most
    assert all(int(tree.parent[i]) in drawn for i in drawn - {0})
    assert tree.parent[drawing.drawn[1:]].tolist() == drawing.drawn[drawing.parent[1:]].tolist()
    best = set(drawing.drawn[drawing.best].tolist())
    assert drawn == best | with_what_leads_there(tree, drawing.least)
    left = np.delete(tree.visits, drawing.drawn)
    assert not left.size or len(best | with_what_leads_there(tree, left.max())) > most


def with_what_leads_there(tree, least):
    """The nodes with at least so many visits, and all their ancestors."""
    return {j for i in np.flatnonzero(tree.visits >= least).tolist() for j in tree_layout.ancestry(tree.parent, i)}


def test_a_node_appears_once_it_and_all_its_ancestors_were_created(tree):
    for most in (50, 10_000):
        drawing = tree_layout.arrange(tree, most)
        appears = [max(tree_layout.ancestry(tree.parent, i)) for i in drawing.drawn.tolist()]
        assert drawing.appears.tolist() == appears == sorted(appears)
        assert (drawing.parent[1:] < np.arange(1, len(appears))).all()


def test_first_parents_leave_the_order_of_creation(unfinished):
    drawing = tree_layout.arrange(saved_run.read_run(unfinished), 100)
    assert drawing.appears.tolist() == drawing.drawn.tolist() == sorted(drawing.drawn.tolist())


def test_children_are_one_ring_further_out_and_no_two_nodes_share_a_place(tree):
    drawing = tree_layout.arrange(tree, 10_000)
    radius = np.hypot(drawing.x, drawing.y)
    assert (radius[1:] > radius[drawing.parent[1:]] + 1e-6).all() and radius.max() == pytest.approx(1)
    assert len(set(zip(drawing.x.round(7).tolist(), drawing.y.round(7).tolist()))) == len(tree.states)


def test_paths_lead_from_the_root_to_the_extremes(tree):
    drawing = tree_layout.arrange(tree, 100)
    value = tree.value[drawing.drawn]
    for path in (drawing.best, drawing.high, drawing.low):
        assert path[0] == 0 and drawing.parent[path[1:]].tolist() == path[:-1]
    states = [
        i for i, node in enumerate(drawing.drawn)
        if node > 0 and not tree.states[node].finished and tree.visits[node] >= drawing.least
    ]  # fmt: skip
    assert value[drawing.high[-1]] == value[states].max()
    assert value[drawing.low[-1]] == value[states].min()


@pytest.mark.parametrize("seed", range(4))
def test_the_best_network_is_that_of_the_search(seed, tmp_path):
    options = ["--max-nodes", 4, "--seed", seed, "--samples", 40, "--quiet", "--out", tmp_path]
    assert run_here(MCTS.main, *options).returncode == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    tree = saved_run.read_run(tmp_path)
    cell, accuracy = saved_run.best_sample(tree)
    node, what = tree_layout.way_to(cell, accuracy, tree)
    assert cell.to_dict() == summary["best_network"] and accuracy == summary["best_accuracy"]
    assert tree.states[node] == cell if what == "the best network" else tree_layout.leads_to(tree.states[node], cell)


def test_nodes_that_wait_for_their_value_are_drawn(unfinished, tmp_path):
    folder = shutil.copytree(unfinished, tmp_path / "copy")

    def ask(main, nodes):
        main["open"] = [{}]
        nodes["n"][-1], nodes["x_bar"][-1] = 0, 0.0

    save_again(folder, ask)
    tree = saved_run.read_run(folder)
    drawing = tree_layout.arrange(tree, 10_000)
    assert drawing.least == 0 and tree.visits[drawing.drawn[drawing.low[-1]]] > 0
    tree_pictures.draw_tree(tree, drawing, tmp_path)
    check_pictures(tmp_path, "tree")


# --- a cell -----------------------------------------------------------------------------------


def test_cells_are_drawn(finished, tmp_path):
    best = run_here(visualize.main, finished, "--cell", "best", "--out", tmp_path / "best")
    assert best.returncode == 0, best.stderr
    svg = check_pictures(tmp_path / "best", "cell")
    assert "0.9359642" in svg and "input" in svg and "conv3x3" in svg and "output" in svg
    given = run_here(visualize.main, "--cell", CELL, tmp_path / "given")
    assert given.returncode == 0, given.stderr
    assert "maxpool3x3" in check_pictures(tmp_path / "given", "cell")


def test_every_edge_of_a_cell_is_drawn_once_and_arcs_pass_no_vertex():
    for vertices in range(2, 8):
        for edges in np.random.default_rng(0).integers(0, 1 << vertices * (vertices - 1) // 2, 40).tolist():
            drawn = tree_pictures.arcs(State((0,) * (vertices - 2), edges))
            assert sum(cells.edge_bit(x, y) for x, y, _ in drawn) == edges
            assert all((side == 0) == (y == x + 1) for x, y, side in drawn)


def test_arcs_that_need_not_cross_do_not():
    crossing = tree_pictures.arcs(State((0, 0), cells.edge_bit(0, 2) | cells.edge_bit(1, 3)))
    assert {side for *_, side in crossing} == {1, -1}


@pytest.mark.parametrize("state", [State((), 1), State((0,), 7), State((0, 1), 45)])
@pytest.mark.parametrize("letter", "aW")
def test_long_words_above_a_cell_neither_run_out_nor_into_it(state, letter, tmp_path):
    words = f"Best network: test accuracy 0.9329928, seed 123456789012.... Table: {letter * 80}."
    pixels = []
    for text in (words, ""):
        tree_pictures.draw_cell(state, text, tmp_path)
        pixels.append(np.asarray(Image.open(tmp_path / "cell.png").convert("L")))
    with_words, without = pixels
    assert (with_words[[0, -1]] > 250).all() and (with_words[:, [0, -1]] > 250).all()
    height = len(without) - 72  # of the cell itself
    assert (without[:-height] > 250).all()
    assert not ((with_words[-height:] < 100) & (without[-height:] > 200)).any()


# --- what cannot be written or said -----------------------------------------------------------


def in_a_shell(script, folder, out):
    names = {"python": shlex.quote(sys.executable), "folder": shlex.quote(str(folder)), "out": shlex.quote(str(out))}
    return subprocess.run(["bash", "-c", script.format(**names)], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix")
@pytest.mark.parametrize("where", ["| head -0", ">/dev/full", ">&- 2>&-"])
def test_what_cannot_be_printed_is_drawn_all_the_same(finished, tmp_path, where):
    result = in_a_shell("{python} visualize.py {folder} --html --out {out} " + where, finished, tmp_path)
    assert "Traceback" not in result.stderr and result.returncode == (2 if "full" in where else 0)
    check_pictures(tmp_path, "tree")
    assert (tmp_path / "tree.html").read_text().endswith("</html>\n")


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix")
def test_a_full_disk_leaves_no_broken_file(finished, tmp_path):
    for name in ("tree.png", "tree.svg", "tree.html"):
        (tmp_path / name).write_text("of the time before")
    room = "ulimit -f 100; "  # 100 KiB: for tree.png, not for tree.svg
    result = in_a_shell(room + "{python} visualize.py {folder} --html --out {out}", finished, tmp_path)
    assert_refused(result, "cannot write", "tree.svg")
    assert {path.name for path in tmp_path.iterdir()} == {"tree.png", "tree.svg", "tree.html"}
    assert (tmp_path / "tree.svg").read_text() == (tmp_path / "tree.html").read_text() == "of the time before"
    assert Image.open(tmp_path / "tree.png").convert("L").size > (1000, 1000)


@pytest.mark.parametrize("name", ["tree.png", "tree.svg", "tree.html"])
def test_a_folder_where_a_picture_goes_is_told(finished, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(saved_run.InputError, match=f"cannot write .*{name}"):
        visualize.main([str(finished), "--html", "--out", str(tmp_path)])


def test_the_modules_are_found_from_anywhere_without_the_scripts_folder_on_the_path(tmp_path):
    command = [sys.executable, "-P", ROOT / "visualize.py", "--cell", CELL, "--out", "here"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    check_pictures(tmp_path / "here", "cell")


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["absent"], "there is no folder absent"),
        (["README.md"], "there is no folder"),
        (["tests"], "no search is saved in tests"),
        (["--max-drawn", 0], "--max-drawn"),
        (["--cell", "{"], "--cell is neither best nor a cell"),
        (["--cell", "[" * 100_000], "--cell is neither"),
        (["--cell", "{}"], "a state is an object"),
        (["--cell", CELL.replace("maxpool", "minpool")], "minpool3x3"),
        (["--cell", CELL.replace("1, 1", "1, 2")], "neither 0 nor 1"),
        (["--cell", "best", "absent"], "there is no folder absent"),
        (["--cell", ""], "--cell is neither"),
        (["--cell", '{"adj_mat": [[0, 1], [0, 0]], "node_list": {"input": 0, "output": 0}}'], "--cell is neither"),
        ([""], "empty path"),
        (["--out", ""], "--out"),
        (["--cell", CELL, "--out", "/proc/nowhere"], "choose another --out"),
        (["--cell", CELL, "--out", ROOT / "LICENSE"], "choose another --out"),
    ],
)
def test_wrong_arguments_and_input_are_refused_in_one_line(monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(ROOT)
    assert_refused_here(capsys, visualize.main, arguments, words)


def test_a_wrong_argument_is_refused_in_one_line_by_the_command():
    assert_refused(run("visualize.py", "--max-drawn", 0), "--max-drawn")
    assert_refused(run("visualize.py", "--cell", "{"), "--cell is neither best nor a cell")
    assert_refused(run("visualize.py", "a" * 300), "File name too long")


def test_hostile_text_in_a_summary_is_only_text(copy):
    summary = json.loads((copy / "summary.json").read_text())
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{ \ud800 \n @@DATA@@ \x1b[31m"
    (copy / "summary.json").write_text(json.dumps(summary | {"dataset": hostile}))
    result = run("visualize.py", copy, "--html")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    check_pictures(copy, "tree")
    page = (copy / "tree.html").read_text()
    assert page.count("<script") == 2 and "<img" not in page and "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert sys.getsizeof(page) < 200_000
