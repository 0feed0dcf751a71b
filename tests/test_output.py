"""What a command does with words that do not arrive, and with text and numbers that must not arrive as they are."""

import json
import os
import subprocess
import sys

import pytest
from conftest import EMBEDDED_TABLE, ROOT, assert_refused, run, run_here

import MCTS
from nasbench_dataset import command, table
from nasbench_dataset.files import printable

SEARCH = f"{sys.executable} MCTS.py {' '.join(EMBEDDED_TABLE)} --max-nodes 4 --seed 0"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="shells of Unix")


def shell(line: str, folder) -> subprocess.CompletedProcess:
    """Run a line of bash whose ``$SEARCH`` is a search to be kept in a folder; its status is that of the search."""
    line = line.replace("$SEARCH", f"{SEARCH} --out {folder}")
    script = f"set -o pipefail; {line}"
    return subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)


def assert_found(folder) -> None:
    """A whole search was saved, with its results."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["outcome"] == json.loads((folder / "search").read_text())["outcome"] == "found"
    assert (folder / "result.txt").read_text() == json.dumps(summary["trace"]) + "\n"
    assert json.loads((folder / "results.jsonl").read_text()) == summary
    assert not list(folder.glob("*.new"))


NOBODY_READS = ["| head -0", "| head -1", ">&-", ">&- 2>&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-", "2>&1 | head -0"]


@pytest.mark.parametrize("where", NOBODY_READS)
def test_a_search_that_nobody_listens_to_is_finished_and_kept(tmp_path, where):
    result = shell(f"$SEARCH {where}", tmp_path)
    assert result.returncode == 0 and "Traceback" not in result.stderr and "Exception" not in result.stderr
    assert_found(tmp_path)
    if where == "2>&-":
        assert "found: the target was found" in result.stdout and "searching" not in result.stdout


@pytest.mark.parametrize("device", ["/dev/full", "/dev/full 2>&1"])
def test_words_that_get_lost_are_told_and_cost_no_result(tmp_path, device):
    result = shell(f"$SEARCH --quiet >{device}", tmp_path)
    assert_found(tmp_path)
    if device == "/dev/full":
        assert_refused(result, "cannot write the output: No space left on device")
    assert result.returncode == 2


def test_help_that_does_not_fit_is_told():
    result = subprocess.run(f"{SEARCH} --help >/dev/full", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert_refused(result, "cannot write the output")


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_wrong_argument_has_its_status_with_streams_closed(tmp_path, streams):
    result = shell(f"$SEARCH --seed x {streams}", tmp_path)
    assert result.returncode == 2 and result.stdout == ""


def test_a_save_is_not_mixed_with_what_is_printed_where_streams_were_closed(tmp_path):
    """Files that are opened take the numbers of closed streams."""
    script = tmp_path / "noisy.py"
    script.write_text(
        f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom nasbench_dataset import command\n"
        "def main():\n"
        f"    with open({str(tmp_path / 'file')!r}, 'wb') as file:\n"
        "        for number in (0, 1, 2):\n"
        "            os.write(number, b'noise')\n"  # as a library in C does
        "            print('noise'), print('noise', file=sys.stderr, flush=True)\n"
        "        file.write(b'content')\n"
        "command.run(main)\n"
    )
    subprocess.run(f"{sys.executable} {script} <&- >&- 2>&-", shell=True, check=True)
    assert (tmp_path / "file").read_bytes() == b"content"


def test_other_failures_are_one_line(monkeypatch, capfd):
    def disk_fails():
        raise OSError(5, "Input/output error", "some/file")

    def memory_runs_out():
        raise MemoryError

    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, open(os.devnull) if name == "stdin" else open(os.dup(2), "w"))
    for main, words in ((disk_fails, "some/file: Input/output error"), (memory_runs_out, "not enough memory")):
        with pytest.raises(SystemExit) as end:
            command.run(main)
        error = capfd.readouterr().err
        assert end.value.code == 2 and words in error and len(error.splitlines()) == 1


# --- hostile text and long numbers ------------------------------------------------------------


def test_the_source_of_a_table_reaches_the_terminal_as_harmless_text(tmp_path, small_table):
    small_table.source = "\x1b]0;owned\x07\x1b[2J two\nlines\r" + "9" * 10_000 + " long" * 1_000
    table.save(small_table, tmp_path / "t")
    result = run("MCTS.py", "--dataset", tmp_path / "t", "--max-nodes", 4, "--seed", 0, "--out", tmp_path / "r")
    assert result.returncode == 0, result.stderr
    first, *rest = result.stdout.split("\n")
    assert first.startswith("table    ]0;owned [2J two lines 999")
    assert len(first) < 1_100 and rest[0].startswith("domain")
    assert "\x1b" not in result.stdout and "\x07" not in result.stdout and "\r" not in result.stdout


def test_the_name_of_a_folder_reaches_the_terminal_as_harmless_text(tmp_path):
    folder = tmp_path / "\x1b]0;owned\x07\x1b[2J\u202e"
    result = run_here(MCTS.main, "--max-nodes", 4, "--seed", 0, "--out", folder)
    assert "results in" in result.stdout and all(c.isprintable() or c == "\n" for c in result.stdout)
    assert_found(folder)


@pytest.mark.parametrize("option", ["--seed", "--samples", "--patience", "--guide", "--max-nodes", "--cp"])
@pytest.mark.parametrize("digits", [31, 4_000, 10_000])
def test_options_of_many_digits_are_refused_in_one_short_line(option, digits, tmp_path, capsys):
    with pytest.raises((SystemExit, command.InputError)) as end:
        MCTS.main([option, "9" * digits, "--out", str(tmp_path / "r")])
    error = capsys.readouterr().err or printable(end.value)
    assert len(error) < 200 and len(error.splitlines()) == 1 and "9" * 12 in error
    assert not (tmp_path / "r").exists()


def test_the_longest_seed_is_shown_whole_and_comes_back(tmp_path):
    seed = "9" * 30
    options = ["--max-nodes", 4, "--samples", 5, "--out", tmp_path]
    assert f"seed {seed}\n" in run("MCTS.py", *options, "--seed", seed).stdout
    assert f"seed {seed}\n" in run("MCTS.py", *options, "--resume").stdout


def test_numbers_too_long_for_python_to_write_are_told_without_them():
    assert printable(10**5_000) == "a number that is too long to be shown"


@pytest.mark.parametrize("script, words", [("MCTS.py", "--max-nodes"), ("MCTS_metaDNN.py", "KERAS_BACKEND=abacus")])
def test_modules_are_found_under_a_safe_path(script, words, tmp_path):
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "KERAS_BACKEND": "abacus"}
    command_line = [sys.executable, str(ROOT / script), "--help"]
    result = subprocess.run(command_line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert words in result.stdout + result.stderr
