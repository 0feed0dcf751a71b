"""A run as its files tell it: saved_run.py; what is no search at all in tests/test_visualize_hostile.py."""

import json
import shutil

import pytest
from conftest import assert_refused, run, run_here
from drawn_runs import copy, finished, save_again, tuned, unfinished  # noqa: F401 (fixtures)

import MCTS
import saved_run
import tree_layout
import tree_page
import tree_pictures
from arch_generator import State, arch_generator
from nasbench_dataset import cells


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
    assert tree.table.startswith("not known") and tree.placed  # what the save itself has counts
    save_again(copy, lambda main, nodes: main.pop("bests"))
    assert saved_run.read_run(copy).bests is None


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


def test_what_was_only_predicted_is_not_the_best_network(tmp_path):
    """With a guide the value of a finished cell can be a prediction, and that can be higher than any accuracy."""
    options = "--preset", "tuned", "--guide", 1000, "--cp", 2, "--lookup", "isomorphic", "--max-nodes", 5, "--seed", 5
    assert run_here(MCTS.main, *options, "--samples", 13, "--quiet", "--out", tmp_path).returncode == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    tree = saved_run.read_run(tmp_path)
    assert max(x for x, state in zip(tree.value, tree.states) if state.finished) > summary["best_accuracy"]
    cell, accuracy = saved_run.best_sample(tree)
    assert accuracy == summary["best_accuracy"] and tree.best_is_sure
    assert State(*cells.stored_form(cell.operations, cell.edges), True).to_dict() == summary["best_network"]
    (tmp_path / "summary.json").unlink()
    tree = saved_run.read_run(tmp_path)
    assert saved_run.best_sample(tree)[1] == summary["best_accuracy"] and tree.best_is_sure
    save_again(tmp_path, lambda main, nodes: main.pop("bests"))
    tree = saved_run.read_run(tmp_path)
    assert 0.9 < saved_run.best_sample(tree)[1] <= summary["best_accuracy"] and not tree.best_is_sure
    assert "best accuracy at least 0.9" in " ".join(tree_pictures.caption(tree, tree_layout.arrange(tree, 60)))


def bests_of(tree):
    """Each new best, the first at 1 node and the last at all."""
    last = saved_run.best_sample(tree)[1]
    return [[0.5, 1, 1], [0.75, 2, 4], [last, len(tree.samples), len(tree.states)]]


def test_a_save_that_has_the_best_samples_needs_no_summary(unfinished, tmp_path):
    folder = shutil.copytree(unfinished, tmp_path / "copy")
    save_again(folder, lambda main, nodes: main.pop("bests"))
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
        assert run_here(MCTS.main, *options, "--out", tmp_path).returncode == 0
        summary = json.loads((tmp_path / "summary.json").read_text())
        if samples == 40:
            save_again(tmp_path, lambda main, nodes: main.pop("bests"))
            known = tree_page.best_so_far(saved_run.read_run(tmp_path))
            assert len(known) > 2
        nodes, best = summary["tree_nodes"], round(summary["best_accuracy"], 7)
        assert max([accuracy for number, accuracy in known if number <= nodes], default=0) <= best


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
