"""What a saved search sampled, beside its tree: the best cells, the best so far, the trainings that failed.

No more is said than the files tell. A tree keeps the accuracies of its samples, but with a guide predicted ones, too.
"""

from itertools import accumulate

from nasbench_dataset import cells
from saved_run import Run
from saved_trainings import Trained

BEST_CELLS = 5
MOST_FAILURES = 500  # that are listed


def cell_data(index: int) -> dict:
    """A cell as the pages draw it."""
    operations, edges = cells.cell(index)
    return {"cell": index, "operations": "".join(map(str, operations)), "edges": edges}


# --- the best cells ---------------------------------------------------------------------------


def best_cells(run: Run, trainings: dict[int, Trained]) -> list[dict]:
    """The best samples whose accuracy is known, best first: cell, accuracy, number of the sample, test accuracy."""
    number = {index: place for place, index in enumerate(run.samples, 1)}
    result = []
    for index, accuracy in best_of(known_accuracies(run, trainings), number):
        test = trainings[index].test if index in trainings else None
        result.append({**cell_data(index), "accuracy": round(accuracy, 7), "sample": number[index], "test": test})
    return result


def known_accuracies(run: Run, trainings: dict[int, Trained]) -> list[tuple[float, tuple[int, ...], int]]:
    """Accuracy, operations and edges of samples, in any labelling; some may come twice."""
    found = [(x, *cells.cell(index)) for index, x in sure_accuracies(run, trainings).items()]
    finished = [] if run.guided else zip(run.states, run.value.tolist())
    met = [*((state, x) for state, x in finished if state.finished), *run.dangling.items()]
    return found + [(x, state.operations, state.edges) for state, x in met if x > 0]  # others are not in the table


def sure_accuracies(run: Run, trainings: dict[int, Trained]) -> dict[int, float]:
    """Accuracies by the index of the cell: of what was trained, and of each sample that was better than all before."""
    trained = {i: found.accuracy for i, found in trainings.items() if found.accuracy is not None}
    return {**trained, **{run.samples[best.sample - 1]: best.accuracy for best in run.bests or []}}


def best_of(known: list[tuple[float, tuple[int, ...], int]], number: dict[int, int]) -> list[tuple[int, float]]:
    """The few best different samples and their accuracies; stored forms are looked for only until these are found."""
    best: dict[int, float] = {}
    for accuracy, operations, edges in sorted(known, key=lambda entry: -entry[0]):
        form = cells.stored_form(operations, edges)
        index = None if form is None else cells.index(*form)
        if index in number:
            best.setdefault(index, accuracy)
        if len(best) == BEST_CELLS:
            break
    return list(best.items())


def best_cells_words(run: Run, trainings: dict[int, Trained]) -> str:
    """What those cells are the best of."""
    complete = not run.guided or trainings.keys() >= set(run.samples)
    samples = "sample" if len(run.samples) == 1 else "samples"
    of = "all" if complete else "those"
    lacking = "" if complete else " whose accuracies were saved; the tree keeps predicted values of others"
    return f"The best of {of} {len(run.samples):,} unique {samples}{lacking}."


# --- the best so far --------------------------------------------------------------------------


def best_over_samples(run: Run) -> list[tuple[int, float]] | None:
    """Each new best: unique samples, accuracy; None where that was not saved."""
    return None if run.bests is None else [(best.sample, round(best.accuracy, 7)) for best in run.bests]


def best_over_time(run: Run, trainings: dict[int, Trained]) -> dict | None:
    """Each new best against the seconds of training that had been spent; None where these are not all known.

    Returns
    -------
    dict
        ``points``: seconds, accuracy; ``end``: seconds of all trainings. A failed training counts from the first
        sample on that came into the store after it.
    """
    if not run.bests or not trainings.keys() >= {*run.samples, *run.failed}:
        return None
    failures = sorted(((trainings[i].place, trainings[i].seconds) for i in set(run.failed)), reverse=True)
    spent = []
    for index in run.samples:
        seconds = trainings[index].seconds
        while failures and failures[-1][0] < trainings[index].place:
            seconds += failures.pop()[1]
        spent.append(seconds)
    until = list(accumulate(spent))
    points = [(round(until[best.sample - 1], 3), round(best.accuracy, 7)) for best in run.bests]
    return {"points": points, "end": round(until[-1] + sum(seconds for _, seconds in failures), 3)}


# --- failures ---------------------------------------------------------------------------------


def failures(run: Run, trainings: dict[int, Trained]) -> list[dict]:
    """The trainings that failed: cell, outcome and reason, as far as the store tells."""
    lost = "not known", "the store of trainings in this folder, if there is one, does not have it"
    now = "trained since then", "another search has trained it"
    result = []
    for index in run.failed[:MOST_FAILURES]:
        found = trainings.get(index)
        outcome, reason = lost if found is None else (found.outcome, found.reason) if found.failed else now
        result.append({**cell_data(index), "outcome": outcome, "reason": reason})
    return result
