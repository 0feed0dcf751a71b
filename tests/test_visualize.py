"""``python visualize.py`` as a user runs it; the page in tests/test_visualize_page.py."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conftest import ROOT, assert_refused, run
from PIL import Image

import saved_run
import tree_layout
import tree_page
import tree_pictures
import visualize
from arch_generator import State, arch_generator
from checkpoint import Checkpoint
from nasbench_dataset import cells

CELL = '{"adj_mat": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "node_list": ["input", "maxpool3x3", "output"]}'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run that found its target."""
    folder = tmp_path_factory.mktemp("finished")
    assert run("MCTS.py", "--max-nodes", 4, "--seed", 0, "--quiet", "--out", folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run that was killed after its first save: no summary.json."""
    return killed(tmp_path_factory.mktemp("unfinished"), "--samples", 400)


def killed(folder, *options):
    """A search as it is saved in its midst."""
    options = "--max-nodes", 5, "--seed", 1, "--quiet", *options
    assert run("MCTS.py", *options, "--out", folder).returncode == 0
    (folder / "summary.json").unlink()
    save_again(folder, lambda main, nodes: main.update(outcome=None))
    return folder


def save_again(folder, edit):
    """Save a search once more, with ``search`` and ``nodes`` edited, and with right checksums."""
    with Checkpoint(folder) as saves:
        main, files = saves.load()
        nodes = json.loads(files["nodes"])
        edit(main, nodes)
        content = {key: main[key] for key in main if key not in ("format", "version")}
        saves.save(lambda: (content, {**files, "nodes": json.dumps(nodes).encode()}))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A search in which some nodes are older, and others more visited, than their parents."""
    options = "--lookup", "isomorphic", "--cp", 0.03, "--backup", "path", "--close-exhausted", "--samples", 200
    folder = killed(tmp_path_factory.mktemp("tuned"), *options)
    tree = saved_run.read_run(folder)
    assert (tree.parent > np.arange(len(tree.states))).any()
    assert (tree.visits[1:] > tree.visits[tree.parent[1:]]).any()
    return folder


@pytest.fixture(params=["unfinished", "tuned"])
def tree(request):
    """Both kinds of search, as they are read."""
    return saved_run.read_run(request.getfixturevalue(request.param))


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run, to be damaged."""
    return shutil.copytree(finished, tmp_path / "copy")


def check_pictures(folder, name):
    """A PNG with something on it, and an SVG; returns the text of the latter."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = np.asarray(Image.open(png).convert("L"))
    assert pixels.std() > 5 and min(pixels.shape) > 100
    assert (pixels[[0, -1]] > 250).all() and (pixels[:, [0, -1]] > 250).all()  # nothing runs out of it
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    return svg.read_text()


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
    for name in "ab":
        assert run("visualize.py", finished, "--html", "--out", tmp_path / name).returncode == 0
    for name in ("tree.png", "tree.svg", "tree.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_run_that_was_killed_can_be_drawn(unfinished, tmp_path):
    result = run("visualize.py", unfinished, "--out", tmp_path, "--max-drawn", 60)
    assert result.returncode == 0, result.stderr
    assert "Table: not known" in result.stdout and "not ended" in result.stdout
    check_pictures(tmp_path, "tree")


@pytest.mark.parametrize("samples", [1, 5])
def test_a_search_that_has_just_begun(samples, tmp_path):
    assert run("MCTS.py", "--seed", 1, "--samples", samples, "--quiet", "--out", tmp_path).returncode == 0
    assert visualize.main([str(tmp_path), "--html"]) == 0
    check_pictures(tmp_path, "tree")


@pytest.mark.parametrize("guide, words", [(0, ""), (2, ", every 2 episodes a linear model chooses a cell")])
def test_the_tree_of_a_tuned_search(guide, words, tmp_path):
    options = ["--preset", "tuned", "--cp", 0.03, "--guide", guide, "--lookup", "isomorphic", "--max-nodes", 4]
    options += ["--seed", 0, "--quiet"]
    assert run("MCTS.py", *options, "--out", tmp_path).returncode == 0
    result = run("visualize.py", tmp_path, "--html")
    assert result.returncode == 0 and result.stderr == ""
    assert f"Cp 0.03, back-up along the path, exhausted states closed{words}, seed 0" in result.stdout
    nodes = json.loads((tmp_path / "nodes").read_text())
    assert f"Closed: {sum(nodes['closed'])} of {len(nodes['n'])} nodes" in result.stdout
    assert "Lines lead to the parents last walked from." in result.stdout
    assert ("partly predicted" in result.stdout) == (guide > 0)
    assert ("partly predicted" in (tmp_path / "tree.html").read_text()) == (guide > 0)
    check_pictures(tmp_path, "tree")


def test_the_tree_of_a_search_with_the_meta_dnn(tmp_path):
    options = ["--max-nodes", 4, "--seed", 0, "--samples", 2, "--rollouts", 1, "--quiet", "--out", tmp_path]
    assert run("MCTS_metaDNN.py", *options).returncode == 0
    result = run("visualize.py", tmp_path)
    assert result.returncode == 0 and "mcts-metadnn" in result.stdout
    check_pictures(tmp_path, "tree")


def test_a_save_that_was_interrupted_while_renaming_is_read(copy):
    """The state after a kill between two renamings: see checkpoint.py."""
    before = saved_run.read_run(copy)
    (copy / "search").rename(copy / "search.new")
    (copy / "nodes").rename(copy / "nodes.new")
    (copy / "nodes").write_bytes(b"of the save before")
    assert saved_run.read_run(copy).states == before.states


@pytest.mark.parametrize("name", ["seed", "tree_nodes", "episodes", "unique_samples", "lookups", "metric", "cp"])
def test_a_summary_of_another_search_is_not_believed(copy, name):
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {name: 5}))
    tree = saved_run.read_run(copy)
    assert tree.table.startswith("not known") and tree.bests is None


def test_the_folder_of_the_run_is_only_added_to(copy):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert run("visualize.py", copy).returncode == 0
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


def test_actions_are_told_from_other_steps():
    generator = arch_generator(4, 9)
    states = [State()]
    for state in states:
        successors = [] if state.finished else map(generator.transition, [state] * 99, generator.actions(state))
        states += [after for after in dict.fromkeys(successors) if after is not None and after not in states]
        if len(states) > 150:
            break
    for before in states:
        steps = set() if before.finished else {generator.transition(before, a) for a in generator.actions(before)}
        assert {after for after in states if saved_run.one_action(before, after)} == steps & set(states)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_network_is_that_of_the_search(seed, tmp_path):
    options = ["--max-nodes", 4, "--seed", seed, "--samples", 40, "--quiet", "--out", tmp_path]
    assert run("MCTS.py", *options).returncode == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    tree = saved_run.read_run(tmp_path)
    cell, accuracy = saved_run.best_sample(tree)
    node, what = tree_layout.way_to(cell, accuracy, tree)
    assert cell.to_dict() == summary["best_network"] and accuracy == summary["best_accuracy"]
    assert tree.states[node] == cell if what == "the best network" else tree_layout.leads_to(tree.states[node], cell)


def test_what_was_only_predicted_is_not_the_best_network(tmp_path):
    """With a guide the value of a finished cell can be a prediction, and that can be higher than any accuracy."""
    options = "--preset", "tuned", "--guide", 100, "--cp", 2, "--lookup", "isomorphic", "--max-nodes", 5, "--seed", 5
    assert run("MCTS.py", *options, "--samples", 110, "--quiet", "--out", tmp_path).returncode == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    tree = saved_run.read_run(tmp_path)
    assert max(x for x, state in zip(tree.value, tree.states) if state.finished) > summary["best_accuracy"]
    cell, accuracy = saved_run.best_sample(tree)
    assert accuracy == summary["best_accuracy"] and tree.best_is_sure
    assert State(*cells.stored_form(cell.operations, cell.edges), True).to_dict() == summary["best_network"]
    (tmp_path / "summary.json").unlink()
    tree = saved_run.read_run(tmp_path)
    assert 0.9 < saved_run.best_sample(tree)[1] <= summary["best_accuracy"] and not tree.best_is_sure
    assert "best accuracy at least 0.9" in " ".join(tree_pictures.caption(tree, tree_layout.arrange(tree, 60)))


def bests_of(tree):
    """Each new best, the first at 1 node and the last at all."""
    last = saved_run.best_sample(tree)[1]
    return [[0.5, 1, 1], [0.75, 2, 4], [last, len(tree.samples), len(tree.states)]]


def test_a_save_that_has_the_best_samples_needs_no_summary(unfinished, tmp_path):
    folder = shutil.copytree(unfinished, tmp_path / "copy")
    tree = saved_run.read_run(folder)
    assert tree.bests is None and not tree.placed and tree_page.best_so_far(tree)
    bests = bests_of(tree)
    save_again(folder, lambda main, nodes: main.update(bests=bests))
    tree = saved_run.read_run(folder)
    assert tree.placed and [list(best) for best in tree.bests] == bests
    assert tree_page.best_so_far(tree)[:2] == [(1, 0.5), (4, 0.75)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda bests: bests.reverse(),
        lambda bests: bests.clear(),
        lambda bests: bests[1].__setitem__(0, 0.5),
        lambda bests: bests[1].__setitem__(1, 1),
        lambda bests: bests[1].__setitem__(2, 0),
        lambda bests: bests[2].__setitem__(0, 1.5),
        lambda bests: bests[2].__setitem__(1, 10**6),
        lambda bests: bests[2].__setitem__(2, 10**6),
        lambda bests: bests[2].__setitem__(2, None),
        lambda bests: bests[2].pop(),
        lambda bests: bests.append(0),
    ],
)
def test_best_samples_that_no_search_has_are_refused(unfinished, tmp_path, edit):
    folder = shutil.copytree(unfinished, tmp_path / "copy")
    bests = bests_of(saved_run.read_run(folder))
    edit(bests)
    save_again(folder, lambda main, nodes: main.update(bests=bests))
    with pytest.raises(saved_run.InputError, match="damaged"):
        saved_run.read_run(folder)


def test_what_is_known_of_the_best_so_far_is_never_more_than_it_was(tmp_path):
    """Without ``bests`` in the save; beside the truth, which the same search tells when it ends at each sample."""
    for samples in (40, 15, 4):
        options = "--max-nodes", 4, "--seed", 0, "--samples", samples, "--quiet"
        assert run("MCTS.py", *options, "--out", tmp_path).returncode == 0
        summary = json.loads((tmp_path / "summary.json").read_text())
        if samples == 40:
            known = tree_page.best_so_far(saved_run.read_run(tmp_path))
            assert len(known) > 2
        nodes, best = summary["tree_nodes"], round(summary["best_accuracy"], 7)
        assert max([accuracy for number, accuracy in known if number <= nodes], default=0) <= best


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
    best = run("visualize.py", finished, "--cell", "best", "--out", tmp_path / "best")
    assert best.returncode == 0, best.stderr
    svg = check_pictures(tmp_path / "best", "cell")
    assert "0.9359642" in svg and "input" in svg and "conv3x3" in svg and "output" in svg
    given = run("visualize.py", "--cell", CELL, tmp_path / "given")
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


# --- what cannot be written or said ----


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
        (["a" * 300], "File name too long"),
        (["--cell", CELL, "--out", "/proc/nowhere"], "choose another --out"),
        (["--cell", CELL, "--out", ROOT / "LICENSE"], "choose another --out"),
    ],
)
def test_wrong_arguments_and_input_are_refused_in_one_line(arguments, words):
    assert_refused(run("visualize.py", *arguments), words)


@pytest.mark.parametrize("name", ["search", "nodes", "dangling_nodes"])
def test_damaged_files_are_refused_in_one_line(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    assert_refused(run("visualize.py", copy), "damaged")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"seed": NaN'])
def test_a_damaged_summary_is_refused(copy, content):
    (copy / "summary.json").write_bytes(content)
    with pytest.raises(saved_run.InputError, match=r"damaged \(summary.json\)"):
        saved_run.read_run(copy)


@pytest.mark.parametrize(
    "column, entry, value",
    [
        ("parent", 5, 9), ("parent", 0, 0), ("parent", 3, "0"), ("n", 4, 10**9), ("n", 4, 0), ("x_bar", 2, 1.5),
        ("x_bar", 2, None), ("operations", 3, [0] * 9), ("operations", 3, [7]), ("edges", 1, 1 << 20), ("edges", 1, -1),
        ("closed", 2, 1), ("closed", 2, True),
    ],
)  # fmt: skip
def test_trees_that_no_search_makes_are_refused(copy, column, entry, value):
    """As a hostile file would be: with a right checksum."""
    change(copy, lambda settings, nodes: nodes[column].__setitem__(entry, value))
    with pytest.raises(saved_run.InputError, match="damaged"):
        saved_run.read_run(copy)


def change(folder, edit):
    """Save a search once more, with its settings and nodes edited."""
    save_again(folder, lambda main, nodes: edit(main["settings"], nodes))


def child_below(nodes):
    """A child of a child of the root; one with edges, as a vertex can be added to the root with or without one."""
    return next(i for i, p in enumerate(nodes["parent"]) if p and nodes["parent"][p] == 0 and nodes["edges"][i])


@pytest.mark.parametrize(
    "edit",
    [
        lambda settings, nodes: nodes["parent"].__setitem__(nodes["parent"][child_below(nodes)], child_below(nodes)),
        lambda settings, nodes: nodes["parent"].__setitem__(5, 5),
        lambda settings, nodes: nodes["parent"].__setitem__(child_below(nodes), 0),
        lambda settings, nodes: nodes["parent"].__setitem__(5, nodes["finished"].index(True)),
        lambda settings, nodes: nodes["parent"].__setitem__(5, len(nodes["n"])),
        lambda settings, nodes: nodes["closed"].__setitem__(nodes["finished"].index(True), False),
        lambda settings, nodes: nodes.pop("closed"),
        lambda settings, nodes: settings.update(backup="first-parent"),
        lambda settings, nodes: settings.update(backup="$"),
        lambda settings, nodes: settings.update(backup=["path"]),
        lambda settings, nodes: settings.update(close_exhausted=1),
        lambda settings, nodes: settings.update(guide=-1),
        lambda settings, nodes: settings.pop("guide"),
    ],
    ids=[
        "cycle", "itself", "grandparent", "finished", "beyond", "open", "no closed", "first-parent",
        *map(str, range(5)),
    ],
)
def test_parents_that_no_walk_has_are_refused(tuned, tmp_path, edit):
    folder = shutil.copytree(tuned, tmp_path / "copy")
    change(folder, edit)
    with pytest.raises(saved_run.InputError, match="damaged"):
        saved_run.read_run(folder)


def test_a_cycle_is_refused_in_one_line(tuned, tmp_path):
    folder = shutil.copytree(tuned, tmp_path / "copy")

    def make_a_cycle(settings, nodes):
        child = child_below(nodes)
        nodes["parent"][nodes["parent"][child]] = child

    change(folder, make_a_cycle)
    assert_refused(run("visualize.py", folder, "--html"), "damaged", "more than one action away")


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
