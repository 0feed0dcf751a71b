"""Ctrl-C, SIGTERM and a closed terminal, at every moment of a search."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

import pytest
from conftest import ROOT
from kill import seed_in

import checkpoint
import search_command
from MCTS import MCTS, main
from nasbench_dataset import command
from nasbench_dataset.signals import catch_signals

if os.name == "nt":
    pytest.skip("signals of Unix", allow_module_level=True)

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
names = [number.name for number in SIGNALS]


class Ended:
    """How a search ended that was run in another process."""

    def __init__(self, status: int, folder):
        self.status = status
        self.output, self.errors = ((folder / name).read_text() for name in ("output", "errors"))
        assert "Traceback" not in self.errors, self.errors

    def lines(self) -> list[str]:
        """What standard error got, the progress line left out."""
        return [line for line in self.errors.splitlines() if line and not line.startswith("searching:")]


@pytest.fixture
def search(tmp_path, monkeypatch, small_table):
    """Runs a search in a fork of this process; where it calls a function, signals reach it first."""

    def child(seed, owner, name, numbers, options):
        for number, file in ((1, "output"), (2, "errors")):
            os.dup2(os.open(tmp_path / file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        search_command.open_table = lambda path: small_table
        if owner:
            original = getattr(owner, name)

            def signalled(*arguments, **named):
                while numbers:
                    os.kill(os.getpid(), numbers.pop(0))
                    time.sleep(0.01)
                return original(*arguments, **named)

            setattr(owner, name, signalled)
        catch_signals()
        wanted = ["--max-nodes", "4", "--seed", str(seed), "--out", str(tmp_path / "out"), *options]
        command.run(lambda: main(wanted))

    def run(seed, owner=None, name="", *numbers, options=("--samples", "9")) -> Ended:
        pid = os.fork()
        if not pid:
            status = 99
            try:
                child(seed, owner, name, [*numbers], options)
            except SystemExit as end:
                status = end.code
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
        return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), tmp_path)

    return run


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("number", SIGNALS, ids=names)
@pytest.mark.parametrize("script", ["MCTS.py", "MCTS_metaDNN.py"])
def test_while_modules_are_imported_a_signal_ends_with_one_line(script, number, tmp_path):
    (tmp_path / "numpy.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\nwhile True: pass\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command_line = [sys.executable, str(ROOT / script), "--out", str(tmp_path / "out")]
    result = subprocess.run(command_line, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", SIGNALS, ids=names)
@pytest.mark.parametrize("script", ["visualize.py", "nasbench_dataset/convert.py", "nasbench_dataset/fit_surrogate.py"])
def test_a_signal_while_what_other_commands_need_is_imported(script, number, tmp_path):
    (tmp_path / "numpy.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\nwhile True: pass\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command_line = [sys.executable, str(ROOT / script)]
    result = subprocess.run(command_line, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


HALF_WRITTEN = """
import os, sys
from nasbench_dataset import files
from nasbench_dataset.signals import catch_signals, unfinished
catch_signals()
folder = sys.argv[1] + " that is temporary"
with unfinished(folder):
    os.makedirs(folder + "/in it")
    os.fsync = lambda handle: [os.kill(os.getpid(), int(number)) for number in sys.argv[2:]]
    files.write_atomically(sys.argv[1], b"new")
"""


@pytest.mark.parametrize("number", SIGNALS, ids=names)
def test_a_signal_removes_what_is_half_written(number, tmp_path):
    (tmp_path / "file").write_text("old")
    command_line = [sys.executable, "-c", HALF_WRITTEN, str(tmp_path / "file"), str(int(number))]
    result = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert content(tmp_path) == {"file": b"old"}


READING_A_STORE = """
import os, sys
from pathlib import Path
import saved_trainings
from nasbench_dataset.signals import catch_signals
catch_signals()
saved_trainings.copy_store = lambda path, folder: os.kill(os.getpid(), int(sys.argv[1]))
saved_trainings.read_store(Path("store"), "", set())
"""


@pytest.mark.parametrize("number", SIGNALS, ids=names)
def test_a_signal_removes_the_copy_of_a_store_that_is_read(number, tmp_path):
    command_line = [sys.executable, "-c", READING_A_STORE, str(int(number))]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    result = subprocess.run(command_line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


CONVERTED = """
import os, runpy, sys
number = int(sys.argv.pop())
class Last:
    def __del__(self):  # where Python only prints what is raised
        os.kill(os.getpid(), number)
os.fsync = lambda handle: Last() and None
runpy.run_path("nasbench_dataset/convert.py", run_name="__main__")
"""


@pytest.mark.parametrize("number", SIGNALS, ids=names)
def test_a_table_that_is_half_written_is_removed(number, tmp_path):
    cell = {"adj_mat": [[0, 1], [0, 0]], "node_list": ["input", "output"]}
    (tmp_path / "source").write_text(source := json.dumps({json.dumps(cell): 0.9}))
    arguments = [str(tmp_path / "source"), str(tmp_path / "table"), str(int(number))]
    command_line = [sys.executable, "-c", CONVERTED, *arguments]
    result = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert content(tmp_path) == {"source": source.encode()}


BEFORE = [(search_command, "open_table"), (checkpoint.Checkpoint, "load"), (search_command, "choose_seed")]


@pytest.mark.parametrize("number", SIGNALS, ids=names)
@pytest.mark.parametrize("owner, name", BEFORE)
def test_before_a_search_begins_a_signal_ends_with_one_line_and_changes_nothing(tmp_path, search, owner, name, number):
    assert search(1).status == 0
    before = content(tmp_path / "out")
    ended = search(2, owner, name, number)
    assert (ended.status, ended.output, ended.errors) == (130, "", "interrupted\n")
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("number", SIGNALS, ids=names)
@pytest.mark.parametrize("owner, name", [(search_command, "banner"), (MCTS, "expand"), (MCTS, "ask")])
def test_from_the_banner_on_a_signal_saves_the_search(tmp_path, search, owner, name, number):
    assert search(1).status == 0
    ended = search(2, owner, name, number)
    assert ended.status == 130 and "go on with --resume" in ended.output and ended.lines() == []
    assert seed_in(tmp_path / "out") == 2
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["outcome"] == "interrupted"
    assert search(2, options=["--samples", "9", "--resume"]).status == 0


@pytest.mark.parametrize("number", SIGNALS, ids=names)
@pytest.mark.parametrize(
    "owner, name",
    [
        (MCTS, "to_save"), (checkpoint, "_write_through"), (checkpoint.Checkpoint, "_promote"),
        (search_command, "closing_words"), (checkpoint.Checkpoint, "__exit__"),
    ],
)  # fmt: skip
def test_while_it_saves_for_the_last_time_a_signal_changes_nothing(tmp_path, search, owner, name, number):
    ended = search(1, owner, name, number)
    assert ended.status == 0 and "samples: the wanted number" in ended.output and ended.lines() == []
    assert seed_in(tmp_path / "out") == 1
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1
    assert not list((tmp_path / "out").glob("*.new"))


@pytest.mark.parametrize("first", SIGNALS, ids=names)
def test_a_second_ctrl_c_ends_at_once_with_one_line(tmp_path, search, first):
    assert search(1).status == 0
    before = content(tmp_path / "out")
    ended = search(2, checkpoint, "_write_through", first, signal.SIGINT, options=["--samples", "9", "--quiet"])
    assert (ended.status, ended.output) == (130, "")
    assert ended.errors == "interrupted twice: ended at once, as of the last save\n"
    assert content(tmp_path / "out") == before
    ended = search(2, MCTS, "ask", first, signal.SIGINT)
    assert ended.lines() == ["interrupted twice: ended at once, as of the last save"]  # after the progress line


def test_other_signals_that_come_several_times_save_once(tmp_path, search):
    """A terminal that closes may send SIGHUP twice, a supervisor SIGTERM and SIGHUP."""
    numbers = signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM
    assert search(1, MCTS, "ask", *numbers).status == 130
    assert seed_in(tmp_path / "out") == 1
    shutil.rmtree(tmp_path / "out")
    assert search(1, checkpoint, "_write_through", *numbers).status == 0
    assert seed_in(tmp_path / "out") == 1


def test_under_nohup_a_closed_terminal_changes_nothing(search):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert search(1, MCTS, "ask", signal.SIGHUP).status == 0
    finally:
        signal.signal(signal.SIGHUP, before)
