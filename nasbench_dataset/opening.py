"""A table to search, by its name or path."""

from pathlib import Path

from nasbench_dataset import InputError
from nasbench_dataset.original import read_json
from nasbench_dataset.sources import format_of
from nasbench_dataset.table import Table, load

# Tables of this project's own trainings, which are searched by these names (docs/training.md).
SHIPPED = {name: Path(__file__).with_name(f"{name}.pickle") for name in ("digits", "noisy-digits")}


def path_of(name: str | Path) -> str | Path:
    """The path of a table: that of a shipped one where there is no file of that name."""
    return SHIPPED[str(name)] if str(name) in SHIPPED and not Path(name).exists() else name


def open_table(path: str | Path) -> Table:
    """The table in a file: one that ``convert`` has made, a shipped one by its name, or a JSON file of the original.

    Raises
    ------
    InputError
        If it is neither, or damaged.
    """
    path = path_of(path)
    kind = format_of(path)
    if kind in ("tfrecord", "npz", "sqlite"):
        raise InputError(f"{path} is no table; make one of it with python -m nasbench_dataset.convert {path} DEST")
    return read_json(path)[0] if kind == "json" else load(path)
