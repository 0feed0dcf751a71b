"""How the code reads: sizes of files, functions and lines, and imports that run one way."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

TOP = sorted(ROOT.glob("*.py"))
PRODUCT = [*TOP, *sorted((ROOT / "nasbench_dataset").glob("*.py")), *sorted((ROOT / "alphax-1-net").glob("*.py"))]
EVERYTHING = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py"))]
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_LINE = 500, 40, 120  # lines, lines besides the docstring, characters
LONGEST_CORE = {"MCTS.py": 300, "MCTS_metaDNN.py": 130}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines_of_code(function: ast.FunctionDef) -> int:
    """The lines of a function besides its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    return lines - (function.body[0].end_lineno - function.body[0].lineno + 1)


@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_files_functions_and_lines_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_CORE.get(name(path), LONGEST_FILE)
    assert [line for line in text.splitlines() if len(line) > LONGEST_LINE] == []
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if lines_of_code(f) > LONGEST_FUNCTION] == []


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of the project that a file imports, anywhere in it; ``pkg.part`` for a part of a package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & modules


def test_imports_run_one_way():
    files = [path for path in PRODUCT if path.parent.name != "alphax-1-net"]  # which stands alone
    modules = {name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path for path in files}
    graph = {module: imported(path, set(modules)) - {module} for module, path in modules.items()}
    order = list(TopologicalSorter(graph).static_order())  # a CycleError names the circle
    assert len(order) == len(modules)
    assert {"driver", "net_training", "search"} <= set(order[: order.index("search_command")])
    assert graph["nasbench_dataset.cells"] == set() and "MCTS" not in set().union(*(graph[m] for m in order[:9]))


def until_signals_are_caught(path: Path) -> set[str] | None:
    """What a command imports before it decides what signals do; None if it never does."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if re.match(r"if __name__ == '__main__':\n.*?(catch_signals\(\)|start\()", ast.unparse(node), re.DOTALL):
            return found
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return None


def test_nothing_that_takes_a_while_is_imported_before_signals_are_caught():
    before = {name(path): until_signals_are_caught(path) for path in PRODUCT}
    before = {script: modules for script, modules in before.items() if modules is not None}
    assert {"MCTS.py", "nasbench_dataset/convert.py", "alphax-1-net/convert.py"} <= set(before) and len(before) == 10
    assert [script for script, modules in before.items() if not modules <= {"os", "sys", "catch_signals"}] == []


def test_the_layout_says_what_every_file_at_the_top_is_for():
    layout = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
    assert [name(path) for path in TOP if f"[{name(path)}]" not in layout] == []
