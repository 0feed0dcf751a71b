"""Attack every command of the project in every way that came to mind: ``python tests/attack.py``.

Every command meets streams that are closed, full or gone; strange environments; signals at random moments; inputs that
are damaged, swapped, huge, hostile or no files; and outputs that cannot be written. Each case runs in a folder of its
own, and an independent judge (attack_judge.py) says what speaks against how it ended. A row of the table is an attack
on a command; the exit status is 0 only where nothing was lost, no traceback was shown, no process was left behind, and
no hostile byte was executed or printed.

    python tests/attack.py --only 'compare.py . signals'      some of it: a regular expression over what --list prints
    python tests/attack.py --rounds 5                         fewer random moments
    python tests/attack.py --rounds 5 --share 0.2             a fifth of it, drawn at random: some of each row
"""

import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import attack_judge as judge  # noqa: E402  (needs the path)
import compile_cache  # noqa: E402
from attack_cases import Case, Cases  # noqa: E402
from attack_kinds import all_cases, can_mount  # noqa: E402

SHOWN = 3  # failures of a row that are printed


class Report:
    """The table, a row as soon as all its cases have ended."""

    def __init__(self, cases: list[Case], verbose: bool):
        self.expected = Counter((case.command.name, case.row) for case in cases)
        self.done: dict[tuple[str, str], list] = {row: [] for row in self.expected}
        self.failed, self.verbose = 0, verbose

    def add(self, case: Case, reasons: list[str], seconds: float, memory: int) -> None:
        """Take note of a case, and print its row if that is complete."""
        row = case.command.name, case.row
        self.done[row].append((case, reasons, seconds, memory))
        self.failed += bool(reasons)
        if self.verbose and reasons:
            print(f"   {case.name}: {'; '.join(reasons)}", flush=True)
        if len(self.done[row]) == self.expected[row]:
            self._print(row)

    def _print(self, row: tuple[str, str]) -> None:
        done = self.done[row]
        bad = [(case, reasons) for case, reasons, *_ in done if reasons]
        count = f"{len(done) - len(bad)} of {len(done)}"
        costs = f"{sum(seconds for *_, seconds, _ in done):5.0f} s {max(memory for *_, memory in done):5} MB"
        print(f"{'FAILED' if bad else 'ok':6}  {row[0]:24} {row[1]:40} {count:>10} {costs}", flush=True)
        for case, reasons in bad[: 0 if self.verbose else SHOWN]:
            print(f"        {case.detail or 'it'}: {reasons[0]}", flush=True)
        if len(bad) > SHOWN and not self.verbose:
            print(f"        and {len(bad) - SHOWN} more", flush=True)


def attack(cases: list[Case], jobs: int, folder: Path, keep: bool = False, verbose: bool = False) -> int:
    """Run all cases; how many failed."""
    runner, report = Cases(folder, keep), Report(cases, verbose)

    def one(case: Case) -> tuple[Case, list[str], float, int]:
        started = time.monotonic()
        try:
            reasons, ending = runner.reasons(case)
        except Exception as error:  # a case that cannot be run is not one that went well
            return case, [f"could not be run: {type(error).__name__}: {error!s:.300}"], 0.0, 0
        return case, reasons, time.monotonic() - started, ending.memory

    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(one, cases):
            report.add(*result)
    return report.failed


def drawn(cases: list[Case], share: float, seed: int) -> list[Case]:
    """That share of the cases of each row, at least one of each; the same for the same seed."""
    rng = random.Random(seed)
    rows: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        rows.setdefault((case.command.name, case.row), []).append(case)
    return [case for row in rows.values() for case in rng.sample(row, max(1, round(share * len(row))))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="cases whose name has this regular expression")
    parser.add_argument(
        "--rounds", type=int, default=50, help="random moments of a signal, for a command that is quick"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of each row, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, and of what is drawn")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--compile", action="store_true", help="in every run, instead of sharing what JAX has compiled")
    parser.add_argument("--no-options", action="store_true", help="leave the options of commands, seconds to list, out")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--verbose", action="store_true", help="print every failure, with all reasons, at once")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what the cases leave, there")
    options = parser.parse_args()
    cases = all_cases(options.rounds, options.seed, not options.no_options)
    cases = [case for case in cases if re.search(options.only, case.name)]
    cases = drawn(cases, options.share, options.seed)
    if options.list:
        print(*(case.name.encode("ascii", "backslashreplace").decode() for case in cases), sep="\n")
        return 0
    print(f"{len(cases)} cases; full disks are {'small file systems' if can_mount() else 'limits of file size alone'}")
    project, started = judge.of_the_project(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
        place = (options.keep or Path(folder)).resolve()
        if not options.compile and compile_cache.FOLDER not in os.environ:
            (place / "compiled").mkdir(exist_ok=True)
            compile_cache.share(place / "compiled")
        failed = attack(cases, options.jobs, place, bool(options.keep), options.verbose)
    changed = judge.of_changes(project, judge.of_the_project(), lambda name: False)
    print(
        *changed,
        f"{len(cases) - failed} of {len(cases)} cases went well, in {time.monotonic() - started:.0f} s",
        sep="\n",
    )
    return 1 if failed or changed else 0


if __name__ == "__main__":
    sys.exit(main())
