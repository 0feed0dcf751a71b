"""Kill searches that train, and their workers, at random moments: ``python tests/kill_training.py --rounds 50``.

Each round starts the same command once more and, after a random time, kills the search or one of its workers by
SIGKILL. Then the store has to be sound and to have everything that was finished, no cell may have been begun again that
was finished, and no process may be left behind. A search of one worker that has ended must have sampled the same cells
as an uninterrupted one.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from training_store import TrainingStore  # noqa: E402

OPTIONS = "--train", "digits", "--samples", "30", "--seed", "1", "--max-nodes", "4", "--quiet"
TINY = "--train-channels", "4", "--train-stacks", "1"  # and still a quarter of a second each
LONGEST_END = 60.0  # seconds that workers may live on


def launch(log: str, arguments: list[str]) -> int:
    """``MCTS.py``, writing a line to the log for each training that is begun or finished."""
    import cell_trainer
    from MCTS import main

    begin, find = cell_trainer.CellTrainer._submit, TrainingStore.put
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def submit(self, question, number):
        os.write(lines, f"begun {question.index}\n".encode())
        begin(self, question, number)

    def put(self, training):
        find(self, training)
        os.write(lines, f"finished {training.cell}\n".encode())

    cell_trainer.CellTrainer._submit, TrainingStore.put = submit, put
    return main(arguments)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if fields[0] != "Z":
                parents[int(folder.name)] = int(fields[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def is_alive(pid: int) -> bool:
    """Whether a process computes, or could."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def command_line(pid: int) -> bytes:
    """What a process was started as; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def start(folder: Path, log: Path, options: list[str]) -> subprocess.Popen:
    """The search, in its folder."""
    command = [sys.executable, __file__, "--launch", str(log), "--out", str(folder), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_one(process: subprocess.Popen, rng: random.Random) -> str:
    """Kill the search or one of its workers; what was killed."""
    others = descendants(process.pid)
    workers = [pid for pid in others if b"spawn_main" in command_line(pid)]  # the others are Python's own
    if workers and rng.random() < 0.3:
        os.kill(rng.choice(workers), signal.SIGKILL)
        return "worker"
    process.kill()
    process.communicate()
    end = time.monotonic() + LONGEST_END
    while any(map(is_alive, others)):
        assert time.monotonic() < end, f"workers {others} are left behind"
        time.sleep(0.05)
    return "search"


def check(store: Path, log: Path) -> int:
    """See that the store is sound and complete, and nothing was made twice; how many trainings it has."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    finished: set[str] = set()
    for what, cell in lines:
        assert cell not in finished, f"cell {cell} was {what} after it had been finished"
        finished |= {cell} if what == "finished" else set()
    if not store.exists():
        assert not finished
        return 0
    with TrainingStore(store) as trainings:
        assert trainings.check() == len(trainings) >= len(finished)
        there = {str(training.cell) for training in trainings}
        assert finished <= there, f"lost: {finished - there}"
        return len(trainings)


def rounds(count: int, workers: int, seed: int, options: tuple[str, ...] = (*OPTIONS, *TINY)) -> Counter:
    """Kill so many times; what was killed how often, and how many searches ended nevertheless."""
    rng, seen = random.Random(seed), Counter()
    options = [*options, "--workers", str(workers)]
    with tempfile.TemporaryDirectory() as top:
        whole, cut = Path(top) / "whole", Path(top) / "cut"
        for folder in (Path(top) / "first", whole):  # the first one compiles
            started = time.monotonic()
            _, errors = (process := start(folder, Path(top) / f"log of {folder.name}", options)).communicate()
            assert process.returncode == 0, errors
        longest = time.monotonic() - started
        number = 0
        while count > 0 or not seen["ended"]:
            log = Path(top) / f"log of {cut.name}"
            process = start(cut, log, options)
            try:
                _, errors = process.communicate(timeout=rng.uniform(0.1, 0.9) * longest if count > 0 else None)
            except subprocess.TimeoutExpired:
                count -= 1
                killed = kill_one(process, rng)
                seen[killed] += 1
                if killed == "worker":
                    _, errors = process.communicate()
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == 0 and not errors, errors
                seen["ended"] += 1
                if workers == 1:
                    assert results(cut) == results(whole)
            seen["trainings"] = max(seen["trainings"], check(cut / "trainings.sqlite", log))
            if process.returncode == 0:
                number, cut = number + 1, Path(top) / f"cut{number}"
    return seen


def results(folder: Path) -> list:
    """What a search sampled, and what it made of that."""
    summary = json.loads((folder / "summary.json").read_text())
    saved = json.loads((folder / "search").read_text())
    return [saved["samples"], summary["trace"], summary["episodes"], summary["best_network"], summary["tree_nodes"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="how many kills")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    started = time.monotonic()
    seen = rounds(options.rounds, options.workers, options.seed)
    print(
        f"killed {seen['search']} searches and {seen['worker']} workers, {seen['ended']} searches ended nevertheless;"
        f" nothing lost, nothing made twice, nothing left behind; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--launch"]:
        from nasbench_dataset import command

        command.run(lambda: launch(sys.argv[2], sys.argv[3:]))
    main()
