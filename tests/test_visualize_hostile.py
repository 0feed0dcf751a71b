"""Whatever lies in the folder of a run: refused in one line, or drawn as a search that could have been."""

import json
import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conftest import run
from damage import altered, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import saved_run
import tree_page
import tree_pictures
import visualize
from checkpoint import Checkpoint, find
from nasbench_dataset import InputError
from tree_layout import arrange

quickly = settings(deadline=None, derandomize=True)
FILES = "search", "nodes", "dangling_nodes", "guide"
MAIN_FIELDS = "settings", "samples", "failed", "outcome", "episodes", "counter", "bests", "open"
SUMMARY_FIELDS = "seed", "tree_nodes", "episodes", "unique_samples", "lookups", "dataset", "trace", "training"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What a guided search leaves: ``search``, the files it lists, and the summary."""
    folder = tmp_path_factory.mktemp("whole")
    options = "--preset", "tuned", "--lookup", "isomorphic", "--max-nodes", 4, "--samples", 30, "--seed", 3, "--quiet"
    assert run("MCTS.py", *options, "--out", folder).returncode == 0
    main, files, _ = find(folder)
    content = {key: main[key] for key in main if key not in ("format", "version")}
    return content, files, json.loads((folder / "summary.json").read_text())


@pytest.fixture(autouse=True)
def do_not_wait(monkeypatch):
    """Neither for a search that is saving nor for the disk."""
    monkeypatch.setattr(saved_run, "WAITS", (0.0,))
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def write(folder, main, files, summary):
    with Checkpoint(folder) as saves:
        saves.save(lambda: (main, files))
        assert saves.problem == ""
    (folder / "summary.json").write_text(json.dumps(summary))


def refused_or_drawn(folder) -> None:
    try:
        run = saved_run.read_run(folder)
        drawing = arrange(run, 60)
        words = tree_pictures.caption(run, drawing)
        json.dumps(tree_page.page_data(run, drawing), allow_nan=False)
        json.dumps(tree_page.found(run, {}), allow_nan=False)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:
        assert all(sentence.isprintable() and len(sentence) < 500 for sentence in words)


def test_what_is_untouched_is_drawn(folder, saved):
    write(folder, *saved)
    run = saved_run.read_run(folder)
    assert "surrogate" in run.table and run.best_is_sure and len(run.samples) == 30


@settings(quickly, max_examples=60)
@given(data=st.data())
def test_damage_on_the_disk(folder, saved, data):
    write(folder, *saved)
    path = folder / data.draw(st.sampled_from((*FILES, "summary.json")))
    path.write_bytes(damaged(data, path.read_bytes()))
    refused_or_drawn(folder)
    path.unlink()


@settings(quickly, max_examples=60)
@given(data=st.data())
def test_wrong_values_behind_a_right_seal(folder, saved, data):
    main, files, summary = saved
    where = data.draw(st.sampled_from((*FILES[:3], "summary.json")))
    if where == "search":
        field = data.draw(st.sampled_from(MAIN_FIELDS))
        main = {**main, field: altered(data, main.get(field, [[0.9, 1, 1]]))}
    elif where == "summary.json":
        field = data.draw(st.sampled_from(SUMMARY_FIELDS))
        summary = {**summary, field: altered(data, summary.get(field, {"store": "trainings.sqlite"}))}
    else:
        files = {**files, where: json.dumps(altered(data, json.loads(files[where]))).encode()}
    write(folder, main, files, summary)
    refused_or_drawn(folder)


# --- what is no file, or too large ------------------------------------------------------------


def put_fifo(path):
    os.mkfifo(path)


def put_folder(path):
    path.mkdir()


def put_endless_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes")
@pytest.mark.parametrize("put", [put_fifo, put_folder, put_endless_device])
@pytest.mark.parametrize("name", ["search", "nodes", "summary.json"])
def test_what_is_no_file_is_refused_in_one_line_and_does_not_hang(saved, tmp_path, name, put):
    write(tmp_path, *saved)
    (tmp_path / name).unlink()
    put(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} is not a file"):
        saved_run.read_run(tmp_path)


@pytest.mark.parametrize("name", ["search", "search.new", "nodes", "nodes.new", "summary.json"])
def test_huge_files_are_refused_unread_with_the_limit(saved, tmp_path, name):
    write(tmp_path, *saved)
    if name == "search.new":
        (tmp_path / "search").unlink()
    with open(tmp_path / name, "wb") as file:
        file.truncate(300 << 20)  # takes no room on the disk
    limit = "256" if name.startswith("nodes") else "16"
    with pytest.raises(InputError, match=f"{name} has 300 MB; no more than {limit} MB of it are read"):
        saved_run.read_run(tmp_path)


def test_many_files_that_are_large_together_are_refused(saved, tmp_path):
    main, files, summary = saved
    write(tmp_path, main, {**files, "more": b"", "still_more": b""}, summary)
    for name in ("nodes", "more", "still_more"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(200 << 20)
    with pytest.raises(InputError, match="has 600 MB; no more than 512 MB of it are read"):
        saved_run.read_run(tmp_path)


@pytest.mark.parametrize("name", ["search", "nodes", "dangling_nodes", "summary.json"])
def test_numbers_with_many_digits_are_refused_in_one_line(saved, tmp_path, name):
    write(tmp_path, *saved)
    content = (tmp_path / name).read_text()
    digits = content.replace(":[0", ":[" + "9" * 100_000, 1).replace(": 3,", ": " + "9" * 100_000 + ",", 1)
    (tmp_path / name).write_text(digits)
    with pytest.raises(InputError, match="damaged") as refusal:
        saved_run.read_run(tmp_path)
    assert len(str(refusal.value)) < 400 + len(str(tmp_path)) and len(digits) > 100_000


# --- hostile text -----------------------------------------------------------------------------

HOSTILE = [
    "\x1b]0;title\x07\x1b[2J\u202egnp.exe\u2066\u200f\na\r\u2028b\x85</script><script>alert(1)</script>",
    "--><script>alert(1)</script><!-- a &lt; b &amp; -- --!>",
    "$\\frac{ \ud800\udfff @@DATA@@ <img src=x onerror=alert(1)>" + "x" * 10_000_000, "W" * 80 + "9" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_reaches_pictures_page_and_terminal_as_one_short_line(saved, tmp_path, capsys, text):
    main, files, summary = saved
    write(tmp_path, {**main, "outcome": text}, files, {**summary, "dataset": text})
    assert visualize.main([str(tmp_path), "--html"]) == visualize.main([str(tmp_path), "--cell", "best"]) == 0
    printed = capsys.readouterr().out
    assert all(line.isprintable() and len(line) < 1_000 for line in printed.splitlines())
    for name in ("tree.svg", "cell.svg"):
        assert not any("script" in element.tag for element in ElementTree.parse(tmp_path / name).iter())
    for name in ("tree.svg", "cell.svg", "tree.html"):
        content = (tmp_path / name).read_text()
        assert len(content) < 1_000_000 and not set("\x1b\x07\u202e\u2066\u2028\x85") & set(content)
    assert content.count("<script") == 2 and "<img" not in content
    for name in ("tree.png", "cell.png"):
        pixels = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert (pixels[[0, -1]] > 250).all() and (pixels[:, [0, -1]] > 250).all()  # nothing runs out of it


def test_a_seed_with_many_digits_is_cut(saved, tmp_path):
    main, files, summary = saved
    write(tmp_path, {**main, "settings": {**main["settings"], "seed": 10**4000}}, files, summary)
    tree = saved_run.read_run(tmp_path)
    assert "seed 100000000000..." in " ".join(tree_pictures.caption(tree, arrange(tree, 60)))


@pytest.mark.parametrize("field", ["method", "metric", "lookup", "backup"])
@pytest.mark.parametrize("text", ["\x1b[2J", "\u05d0", "", "a b", 7, ["path"]])
def test_settings_are_plain_words(saved, tmp_path, field, text):
    main, files, summary = saved
    write(tmp_path, {**main, "settings": {**main["settings"], field: text}}, files, summary)
    with pytest.raises(InputError, match=r"damaged \(settings"):
        saved_run.read_run(tmp_path)


def test_a_file_that_is_renamed_while_it_is_looked_at_is_read(saved, tmp_path, monkeypatch):
    """As a search does it that is saving."""
    write(tmp_path, *saved)
    look, old, new = os.stat, tmp_path / "nodes", tmp_path / "nodes.new"

    def look_and_rename(path, *arguments, **options):
        found = look(path, *arguments, **options)
        if path == old and not renamed:
            renamed.append(os.replace(old, new))
        return found

    renamed = []
    monkeypatch.setattr(os, "stat", look_and_rename)
    assert len(saved_run.read_run(tmp_path).samples) == 30 and renamed
