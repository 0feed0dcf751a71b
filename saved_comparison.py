"""A comparison as the files in its folder tell it: the trials, and what comparison.json says of all of them.

The files may come from anywhere: each trial is checked as ``compare.py`` checks it before it goes on from there, and
what cannot be used is left out and counted. Nothing is executed or changed.
"""

import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable, read_regular
from saved_trials import LARGEST_FILE, MOST_TRIALS, Trial, check_result, parse_trial

MAIN = "comparison.json"
TRIALS = "trials"
LARGEST_IN_ALL = 64 << 20  # bytes of all trials; reading them takes several times that
MOST_METHODS = 100
OWN = "method", "options", "seed"  # what trials of a comparison differ in


@dataclass
class Comparison:
    """The trials of a comparison.

    Attributes
    ----------
    settings : dict
        What all trials share: the fields of ``Trial``, without ``OWN``.
    groups : dict of str to list of dict
        The results of each method, as ``compare.run_trial`` gives them.
    at : list of int
        Numbers of samples at which the best so far is reported.
    best_test : float or None
        The test accuracy that regret is measured against; None where the comparison has not come to its end.
    left_out : list of str
        Files that cannot be used, each with a reason.
    others : int
        Trials in the folder that are not of this comparison.
    """

    settings: dict
    groups: dict[str, list[dict]]
    at: list[int]
    best_test: float | None
    left_out: list[str]
    others: int


def is_comparison(folder: Path) -> bool:
    """Whether a folder is the --out of ``compare.py``, and not that of a search."""
    return (folder / TRIALS).is_dir() and not (folder / "search").exists()


def read_comparison(folder: Path) -> Comparison:
    """The comparison in a folder.

    Raises
    ------
    InputError
        If comparison.json is damaged, files are too large or too many, or no trial can be used.
    """
    try:
        main = read_main(folder / MAIN)
        results, left_out = read_trials(folder / TRIALS)
    except OSError as error:
        raise InputError(f"cannot read the comparison in {folder}: {error.strerror}") from error
    settings = main["settings"] if main else most_common_settings(results)
    groups, others = defaultdict(dict), 0
    for trial, result in results:
        if not is_of(trial, settings, main):
            others += 1
            continue
        groups[trial.method][trial.seed] = result  # where options were changed since, the later one
    if not groups:
        first = f" ({left_out[0]})" if left_out else ""
        raise InputError(f"no trial of a comparison in {folder} can be used{first}; run compare.py first")
    if len(groups) > MOST_METHODS:
        raise InputError(f"the comparison in {folder} has {len(groups):,} methods; at most {MOST_METHODS} are drawn")
    order = main["methods"] if main else sorted(groups)
    by_method = {method: list(groups[method].values()) for method in order if method in groups}
    return Comparison(settings, by_method, main.get("at", []), main.get("best_test"), left_out, others)


def is_of(trial: Trial, settings: dict, main: dict) -> bool:
    """Whether a trial is one of the comparison that was made last."""
    listed = not main or trial.method in main["methods"] and trial.seed < main["trials"]
    return listed and shared_settings(trial) == settings


def shared_settings(trial: Trial) -> dict:
    """What all trials of a comparison have in common."""
    return {name: value for name, value in asdict(trial).items() if name not in OWN}


def most_common_settings(results: list[tuple[Trial, dict]]) -> dict:
    """The settings of most trials, of a comparison that has not come to its end."""
    found = Counter(json.dumps(shared_settings(trial)) for trial, _ in results)
    return json.loads(found.most_common(1)[0][0]) if found else {}


def read_main(path: Path) -> dict:
    """``settings``, ``trials``, ``best_test``, ``methods`` and ``at`` of comparison.json; empty where there is none."""
    try:
        content = json.loads(read_regular(path, LARGEST_FILE))
        settings = dict(content["settings"])
        trials = settings.pop("trials")
        shared_settings(parse_trial({**dict.fromkeys(OWN, ""), "seed": 0, **settings}))
        methods = [entry["method"] for entry in content["methods"]]
        at = sorted({parse_place(place) for entry in content["methods"] for place in entry["at"]})
        best = content["best_test"]
        if type(trials) is not int or type(best) not in (int, float) or not 0 <= best <= 1:
            raise ValueError("a number in it is none")
        rest = {"methods": list(dict.fromkeys(methods)), "at": at, "best_test": best}
        return {"settings": settings, "trials": trials, **rest}
    except FileNotFoundError:
        return {}
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({printable(error, 200)}); run compare.py again") from error


def parse_place(text: object) -> int:
    """A number of samples, as JSON has it for a key."""
    if type(text) is not str or not text.isdecimal() or len(text) > 7 or not 0 < int(text) <= cells.cell_count():
        raise ValueError("a number of samples is none")
    return int(text)


def read_trials(folder: Path) -> tuple[list[tuple[Trial, dict]], list[str]]:
    """All trials that can be used, the oldest file first, and what is wrong with the others."""
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.lstat().st_mtime_ns, path.name))
    if len(paths) > MOST_TRIALS:
        raise InputError(f"{folder} has {len(paths):,} trials; at most {MOST_TRIALS:,} are read")
    results, left_out, left = [], [], LARGEST_IN_ALL
    for path in paths:
        try:
            content = read_regular(path, LARGEST_FILE)
            left -= len(content)
            if left < 0:
                raise InputError(f"the trials in {folder} have more than {LARGEST_IN_ALL >> 20} MB, which are not read")
            results.append(read_trial(path.name, content))
        except InputError:
            raise
        except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
            reason = str(error) if type(error) is ValueError else getattr(error, "strerror", None)
            left_out.append(printable(f"{path.name}: {reason or 'it is damaged'}", 200))
    return results, left_out


def read_trial(name: str, content: bytes) -> tuple[Trial, dict]:
    """The trial in a file of that name; ValueError, TypeError or KeyError where there is none."""
    result = json.loads(content)
    trial = parse_trial(result["trial"])
    check_result(result, trial, None)
    if name != trial.file_name:
        raise ValueError("it is of another trial")
    for row in result["trace"]:
        row[2] = math.nan if row[2] is None else row[2]
    return trial, {key: result[key] for key in ("outcome", "samples", "seconds", "trace")}
