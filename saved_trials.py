"""The trials of a comparison as their files hold them: what decides about one, and what it can have ended with."""

import hashlib
import json
from dataclasses import asdict, dataclass

from driver import Outcome

LARGEST_FILE = 2**24  # bytes of a trial's
MOST_TRIALS = 100_000  # of all methods together
OUTCOMES = [outcome.value for outcome in Outcome if outcome.finished]  # of a trial
MULTI_FIDELITY = ("hyperband", "bohb")  # they pay for short trainings, too


@dataclass(frozen=True)
class Trial:
    """Everything that decides what one trial finds.

    Attributes
    ----------
    method : str
        A name that ``parse_method`` knows; a tree search can have options after it, as in ``mcts:cp=0.5``.
    options : str
        The options of the method, as JSON: what an alias or a preset stands for may change.
    table : str
        SHA-256 of the accuracies.
    """

    method: str
    options: str
    seed: int
    max_nodes: int
    max_edges: int
    metric: str
    lookup: str
    samples: int | None
    patience: int
    table: str

    @property
    def file_name(self) -> str:
        """The name of the trial's file, which no other trial has."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.method.replace(':', '_')[:150]}-{self.seed}-{digest[:16]}.json"


def parse_trial(content: dict) -> Trial:
    """The trial that a file names; a ValueError or TypeError where that is none."""
    trial = Trial(**content)
    whole = trial.seed, trial.max_nodes, trial.max_edges, trial.patience, trial.samples or 0
    if not all(type(number) is int and 0 <= number < 2**63 for number in whole):
        raise ValueError("a number of its trial is none")
    if not all(type(t) is str for t in (trial.method, trial.options, trial.metric, trial.lookup, trial.table)):
        raise ValueError("a text of its trial is none")
    return trial


def check_result(result: dict, trial: Trial, target: float | None) -> None:
    """Raise a ValueError, TypeError or KeyError unless the trial can have ended with this result.

    Parameters
    ----------
    target : float or None
        The accuracy with which a trial has found the best cell; None where it is not known.
    """
    if result["trial"] != asdict(trial):
        raise ValueError("it is of another trial")
    outcome, samples, trace = result["outcome"], result["samples"], result["trace"]
    if outcome not in OUTCOMES:
        raise ValueError("its outcome is none that a trial can have")
    _check_numbers([samples, result["seconds"], result["lookups"]], 1e12)
    if type(trace) is not list or not all(type(row) is list and len(row) == 3 for row in trace):
        raise ValueError("its trace is not a list of triples")
    costs, guides, tests = map(list, zip(*trace)) if trace else ([], [], [])
    _check_numbers(costs, samples, rising=True)
    _check_numbers(guides, 1, rising=True)
    _check_numbers([test for test in tests if test is not None], 1)
    if trained := result.get("trained"):  # versions before did not have it
        _check_numbers(trained, 1e12)
        if len(trained) != len(trace) + 1 or trained != sorted(trained):
            raise ValueError("its seconds of training are not those of its trace")
    if trial.metric == "test" and tests != guides:
        raise ValueError("its test accuracies are not those that guided it")
    if not trace and samples and trial.method not in MULTI_FIDELITY:
        raise ValueError("it has samples and no best one")
    if target is not None and (outcome == "found") != bool(guides and guides[-1] >= target):
        raise ValueError("its outcome does not fit its best accuracy")
    if outcome == "samples" and not (trial.samples and samples >= trial.samples):
        raise ValueError("its outcome does not fit its samples")


def _check_numbers(values: list, most: float, rising: bool = False) -> None:
    if not all(type(value) in (int, float) and 0 <= value <= most for value in values):  # False for NaN, too
        raise ValueError(f"a number is none, or lies outside 0..{most:g}")
    if rising and not all(before < after for before, after in zip(values, values[1:])):
        raise ValueError("its trace does not rise")
