"""A new search in the folder of a finished one, and the files of results: result.txt, results.jsonl, summary.json."""

import errno
import json
import os
import shutil
import tracemalloc

import pytest
from conftest import assert_refused, run
from damage import Killed, limit_operations
from kill import seed_in

import checkpoint
import search_command
from checkpoint import Checkpoint
from MCTS import main
from nasbench_dataset import InputError
from search import Search

TREE = "nodes", "dangling_nodes"


@pytest.fixture(autouse=True)
def quick(monkeypatch, small_table):
    """Searches within this process, of a table of 91 cells; nothing happens to signals."""
    monkeypatch.setattr(search_command, "open_table", lambda path: small_table)
    monkeypatch.setattr(search_command, "catch_signals", lambda *_: None)


def search(folder, seed, *options, samples=9) -> int:
    wanted = ["--max-nodes", 4, "--seed", seed, "--samples", samples, "--out", folder, "--quiet", *options]
    return main([str(option) for option in wanted])


def lines(folder, name="result.txt") -> list:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished search, seed 1, that has a file which others do not have."""
    folder = tmp_path / "finished"
    assert search(folder, 1, "--guide", 3, "--lookup", "isomorphic") == 0
    return folder


# --- a new search in the folder of a finished one ---------------------------------------------


def test_a_new_search_killed_between_any_two_file_operations_leaves_the_old_or_the_new(finished, monkeypatch, tmp_path):
    old, seen, left = content(finished), [], 0
    while len(seen) < 2 or left < 15:
        folder = tmp_path / str(left)
        shutil.copytree(finished, folder)
        with monkeypatch.context() as patch:
            limit_operations(patch, left, Killed())
            try:
                assert search(folder, 2) == 0
            except Killed:
                pass
        seed = seed_in(folder)  # it asserts that summary and save are of one search
        assert len(lines(folder)) == len(lines(folder, "results.jsonl")) == seed
        if seed == 1:
            assert {name: data for name, data in content(folder).items() if not name.endswith(".new")} == old
            assert search(folder, 1, "--guide", 3, "--lookup", "isomorphic", "--resume") == 0
        else:
            assert not (folder / "guide").exists()  # which only the old one had
            assert search(folder, 2, "--resume") == 0 and len(lines(folder)) == 2
        seen, left = [*seen, seed][-2:] if seed == 2 else [], left + 1
    assert left < 40


def test_a_new_search_that_does_not_come_to_a_save_changes_nothing(finished, monkeypatch):
    old = content(finished)
    monkeypatch.setattr(Search, "run", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        search(finished, 2)
    assert content(finished) == old


def test_a_save_on_the_way_comes_with_an_unfinished_summary(finished, monkeypatch):
    whole, saves = search_command.Saver.__call__, []

    def killed_after_a_save(saver):
        whole(saver)
        if saver.saves.saves:
            saves.append(saver.saves.saves)
            raise Killed

    monkeypatch.setattr(search_command.Saver, "__call__", killed_after_a_save)
    with pytest.raises(Killed):
        search(finished, 2, "--save-every", 0)
    assert saves == [1] and seed_in(finished) == 2
    assert json.loads((finished / "summary.json").read_text())["outcome"] == "unfinished"
    assert len(lines(finished)) == 1 and not (finished / "guide").exists()
    with pytest.raises(InputError, match="unfinished search"):
        search(finished, 3)


@pytest.mark.parametrize("edited", [None, "", "[]", "{}", "garbage"])
def test_a_summary_that_the_user_edited_or_deleted_does_not_make_the_save_unusable(finished, edited):
    path = finished / "summary.json"
    path.unlink() if edited is None else path.write_text(edited)
    assert search(finished, 1, "--guide", 3, "--lookup", "isomorphic", "--resume", samples=12) == 0
    assert json.loads(path.read_text())["unique_samples"] == 12


def test_a_search_that_cannot_be_saved_leaves_the_one_before_and_its_summary(finished, monkeypatch, capsys):
    old = content(finished)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_through", full)
    with pytest.raises(InputError, match="could not be saved: No space left on device; .* keeps the search before"):
        search(finished, 2)
    new = content(finished)
    assert {name: new[name] for name in old if not name.startswith("result")} == {
        name: old[name] for name in old if not name.startswith("result")
    }
    assert [line["seed"] for line in lines(finished, "results.jsonl")] == [1, 2] and len(lines(finished)) == 2
    output = capsys.readouterr()
    assert "samples: " in output.out and "results in" not in output.out.splitlines()[-2]


def test_the_end_of_a_search_that_cannot_be_saved_is_reached_again_by_resuming(tmp_path, monkeypatch, capsys):
    search(tmp_path, 1)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="make room and go on with --resume"):
        patch.setattr(checkpoint.Checkpoint, "_write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        search(tmp_path, 1, "--resume", samples=12)
    assert json.loads((tmp_path / "summary.json").read_text())["unique_samples"] == 12  # of the same search
    assert [line["unique_samples"] for line in lines(tmp_path, "results.jsonl")] == [9]
    assert search(tmp_path, 1, "--resume", samples=12) == 0
    assert [line["unique_samples"] for line in lines(tmp_path, "results.jsonl")] == [12] and len(lines(tmp_path)) == 1


# --- lines of finished searches ---------------------------------------------------------------


def test_every_finished_search_has_a_line_that_says_what_it_was(tmp_path):
    search(tmp_path, 1)
    search(tmp_path, 1)  # the same once more is another search
    search(tmp_path, 2, "--metric", "test", "--lookup", "isomorphic", "--cp", 0.5)
    found = lines(tmp_path, "results.jsonl")
    assert [line["trace"] for line in found] == lines(tmp_path) and len(found) == 3
    assert found[-1] == json.loads((tmp_path / "summary.json").read_text())
    assert [(line["seed"], line["lookup"], line["cp"]) for line in found] == [
        (1, "exact", 2.0), (1, "exact", 2.0), (2, "isomorphic", 0.5),
    ]  # fmt: skip


def test_a_search_resumed_with_more_samples_replaces_its_lines(tmp_path):
    search(tmp_path, 5)
    for seed in (1, 2):
        search(tmp_path, seed)
    (tmp_path / "results.jsonl").write_text("not JSON\n[]\n{}\n" + (tmp_path / "results.jsonl").read_text())
    (tmp_path / "result.txt").write_text("[0]\n" + (tmp_path / "result.txt").read_text())
    for samples in (12, 12, 20):
        search(tmp_path, 2, "--resume", samples=samples)
        found = (tmp_path / "results.jsonl").read_text().splitlines()
        assert found[:3] == ["not JSON", "[]", "{}"]
        found = [json.loads(line) for line in found[3:]]
        assert [(line["seed"], line["unique_samples"]) for line in found] == [(5, 9), (1, 9), (2, samples)]
        assert lines(tmp_path) == [[0], *(line["trace"] for line in found)]


def test_a_search_that_was_interrupted_after_it_had_ended_replaces_its_lines(tmp_path, monkeypatch):
    search(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(search_command, "catch_signals", lambda stop, _: stop())
        assert search(tmp_path, 1, "--resume", samples=12) == 130
    assert len(lines(tmp_path)) == 1
    assert search(tmp_path, 1, "--resume", samples=12) == 0
    assert len(lines(tmp_path)) == 1 and lines(tmp_path, "results.jsonl")[0]["unique_samples"] == 12


def test_a_save_of_an_earlier_version_is_resumed_and_keeps_one_line(tmp_path):
    """Its main file says nothing of lines, and there is no results.jsonl."""
    search(tmp_path, 1)
    with Checkpoint(tmp_path) as saves:
        main, files = saves.load()
        assert main.pop("reported") == 9
        saves.save(lambda: (main, files))
    (tmp_path / "results.jsonl").unlink()
    assert search(tmp_path, 1, "--resume", samples=12) == 0
    assert lines(tmp_path) == [line["trace"] for line in lines(tmp_path, "results.jsonl")] and len(lines(tmp_path)) == 1


def test_a_line_without_its_end_is_not_run_into(tmp_path):
    (tmp_path / "result.txt").write_text("[1]\n[2]")
    search(tmp_path, 1)
    assert lines(tmp_path)[:2] == [[1], [2]] and len(lines(tmp_path)) == 3


def test_results_that_cannot_be_read_cost_no_save(tmp_path, monkeypatch, capsys):
    def unreadable(path, limit):
        raise PermissionError(errno.EACCES, "Permission denied")

    words = "cannot read result.txt .* go on with --resume"
    with monkeypatch.context() as patch, pytest.raises(InputError, match=words):
        patch.setattr("search_results.read_regular", unreadable)
        patch.setattr("search_command.check_results", lambda folder: None)  # they could be read at the start
        search(tmp_path, 1)
    assert capsys.readouterr().out.startswith("samples: ")
    assert seed_in(tmp_path) == 1 and lines(tmp_path) == []
    for _ in range(2):
        assert search(tmp_path, 1, "--resume") == 0 and len(lines(tmp_path)) == 1


# --- folders that do not serve ----------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
@pytest.mark.parametrize("name", [*checkpoint.RESULTS, "search", "search.new", "nodes", "nodes.new", "guide", ".lock"])
def test_something_else_in_place_of_a_file_is_refused_at_once(tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(InputError, match="cannot write to --out"):
        search(tmp_path, 1)
    with pytest.raises(InputError, match="cannot write to --out"):
        search(tmp_path, 1, "--resume")


@pytest.mark.parametrize("name", ["search", "search.new", "nodes", "dangling_nodes"])
def test_a_file_of_200_megabytes_is_refused_within_bounded_memory(tmp_path, name):
    search(tmp_path, 1)
    with open(tmp_path / name, "wb") as file:
        file.write(b'{"operations":[')
        file.truncate(200_000_000)  # takes no room on the disk
    tracemalloc.start()
    if name == "search.new":  # never became whole
        assert search(tmp_path, 1, "--resume") == 0
    else:
        words = "200,000,000 bytes, where at most 16,777,216 are read" if name == "search" else "damaged"
        with pytest.raises(InputError, match=words):
            search(tmp_path, 1, "--resume")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["result.txt", "results.jsonl"])
def test_results_to_which_no_line_can_be_added_are_refused_before_the_search(tmp_path, name):
    search(tmp_path, 1)
    before = (tmp_path / "search").read_bytes()
    os.truncate(tmp_path / name, 70_000_000)
    with pytest.raises(InputError, match=f"{name} there cannot be read .it has 70,000,000 bytes"):
        search(tmp_path, 2)
    assert (tmp_path / "search").read_bytes() == before


@pytest.mark.parametrize("again", [(), ("--resume",)], ids=["a new search", "resumed"])
def test_results_of_many_lines_take_little_memory(tmp_path, again):
    search(tmp_path, 1)
    many = b"garbage \n" * 1_000_000
    (tmp_path / "result.txt").write_bytes(many + (tmp_path / "result.txt").read_bytes())
    tracemalloc.start()
    assert search(tmp_path, 1, *again) == 0
    assert tracemalloc.get_traced_memory()[1] < 6 * len(many)
    tracemalloc.stop()
    content = (tmp_path / "result.txt").read_bytes()
    assert content.startswith(many) and content.count(b"\n") == 1_000_001 + (not again)


def test_a_search_that_has_grown_too_large_to_be_read_again_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGEST", 1_000)
    with Checkpoint(tmp_path) as saves:
        saves.save(lambda: ({}, {"nodes": bytes(1_001)}))
        assert saves.problem == "it is larger than 1,000 bytes, which is the most that is read again"


def test_an_empty_path_is_refused():
    for option in ("--dataset", "--out"):
        assert_refused(run("MCTS.py", option, ""), option, "the path is empty")
