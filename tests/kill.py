"""Kill searches at random moments and resume them: ``python tests/kill.py --rounds 200``.

Every search begins in a folder that holds one with another seed, which has ended. A round starts or resumes it as a
user would and kills it by SIGKILL after a random time. Then the folder has to hold one of the two, whole, and the
summary of the same. When a search has ended, everything it saved has to equal, bit for bit, what an uninterrupted
search saved; then the next one begins.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from checkpoint import Checkpoint  # noqa: E402

NAMES = "search", "nodes", "dangling_nodes", "guide", "predictions"  # weights are in search, as a digest
EARLIER = "--seed", "99", "--samples", "3"  # of the search that is there before


def outcome_of(folder: Path) -> dict:
    """Everything a finished search left, apart from times."""
    saved = {name: json.loads((folder / name).read_text()) for name in NAMES if (folder / name).exists()}
    saved["summary"] = json.loads((folder / "summary.json").read_text())
    saved["result"] = (folder / "result.txt").read_text()
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for part in (saved["search"], saved["summary"], *lines):
        part.pop("seconds"), part.pop("sha256", None)
        part["fits"] = [fit[:2] for fit in part.get("fits", [])]
    return {**saved, "results": lines}


def seed_in(folder: Path) -> int:
    """The seed of the search in a folder, which is whole, and whose summary belongs to it."""
    with Checkpoint(folder) as saves:
        main, _ = saves.load()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seed"] == main["settings"]["seed"] and summary["unique_samples"] == len(main["samples"])
    assert summary["outcome"] == (main["outcome"] or "unfinished")
    assert summary["outcome"] != "unfinished" or str(summary["seed"]) != EARLIER[1]
    return summary["seed"]


def start(script: str, folder: Path, options: list[str], resume: bool) -> subprocess.Popen:
    """Start or resume a search."""
    command = [sys.executable, script, "--out", str(folder), *options, *(["--resume"] if resume else [])]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def uninterrupted(folder: Path, script: str, options: list[str]) -> tuple[float, float]:
    """One whole search; the seconds that it took, from its start and from the first line that it printed."""
    started = time.perf_counter()
    process = start(script, folder, options, resume=False)
    process.stdout.readline()
    first_line = time.perf_counter()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.perf_counter() - started, time.perf_counter() - first_line


def round_of(process: subprocess.Popen, longest: tuple[float, float] | None, rng: random.Random) -> bool:
    """One kill of a search that was started, or none without ``longest``; whether it ended by itself before."""
    late = longest is not None and rng.random() < 0.5  # else nearly all would hit imports, which can take longest
    if late:
        process.stdout.readline()
    try:
        _, errors = process.communicate(timeout=longest and rng.uniform(0, longest[late]))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    assert process.returncode == 0, errors
    return True


def kill_rounds(kills: int, script: str, options: list[str], seed: int) -> tuple[int, int]:
    """Kill so many times.

    Returns how many searches ended nevertheless, all of them as they should, and how many kills left a save.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        earlier, whole, cut = (Path(folder) / name for name in ("earlier", "whole", "cut"))
        uninterrupted(earlier, script, [*options, *EARLIER])
        shutil.copytree(earlier, whole)
        shutil.copytree(earlier, cut)
        longest = tuple(0.6 * seconds for seconds in uninterrupted(whole, script, options))
        finished = resumable = 0
        while kills > 0 or not finished:
            begun = seed_in(cut) != seed_in(earlier)
            if round_of(start(script, cut, options, begun), longest if kills > 0 else None, rng):
                assert outcome_of(cut) == outcome_of(whole)
                shutil.rmtree(cut)
                shutil.copytree(earlier, cut)
                finished += 1
            else:
                kills -= 1
                resumable += seed_in(cut) != seed_in(earlier)
    return finished, resumable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="how many kills")
    parser.add_argument("--script", default="MCTS.py", help="MCTS.py or MCTS_metaDNN.py")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("options", nargs="*", help="of the search, after --")
    options = parser.parse_args()
    search = options.options or ["--seed", "1", "--samples", "6000", "--save-every", "0.05"]
    started = time.perf_counter()
    finished, resumable = kill_rounds(options.rounds, options.script, search, options.seed)
    print(
        f"killed {options.rounds} times, {resumable} of them with a save behind it; {finished} searches ended"
        " nevertheless, each as an uninterrupted one;"
        f" {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
