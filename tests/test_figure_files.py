"""Figures as files: whole or not at all, reproducible, and one line where nothing can be drawn."""

import io
import os
import subprocess
import sys

import pytest
from conftest import ROOT, assert_refused, run
from matplotlib.figure import Figure
from PIL import Image

import figure_files
from nasbench_dataset import InputError


@pytest.fixture
def figure():
    """One line and a text with letters that no font has."""
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2], label="\U0001f9ff")
    figure.legend()
    return figure


def test_a_figure_is_written_as_png_and_svg_and_again_as_the_same_bytes(figure, tmp_path):
    paths = figure_files.save_figure(figure, tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.png", "a.b.svg"]
    first = [path.read_bytes() for path in paths]
    assert Image.open(io.BytesIO(first[0])).size == (300, 150) and b"</svg>" in first[1]
    figure_files.save_figure(figure, tmp_path / "a.b")
    assert [path.read_bytes() for path in paths] == first


def test_the_png_can_be_finished_otherwise(figure, tmp_path):
    png, _ = figure_files.save_figure(figure, tmp_path / "a", finish=lambda content: content + b"more")
    assert png.read_bytes().endswith(b"more")


@pytest.mark.parametrize("blocked, new", [("a.png", set()), ("a.svg", {"a.png"})])
def test_where_a_file_cannot_be_written_what_is_there_is_whole(figure, tmp_path, blocked, new):
    (tmp_path / blocked).mkdir()
    with pytest.raises(InputError, match=f"cannot write .*{blocked}"):
        figure_files.save_figure(figure, tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {blocked} | new
    assert all(Image.open(tmp_path / name).size == (300, 150) for name in new)


def test_nothing_is_written_where_drawing_fails(figure, tmp_path):
    (tmp_path / "a.png").write_bytes(b"of the time before")

    def fail(content):
        raise MemoryError

    with pytest.raises(MemoryError):
        figure_files.save_figure(figure, tmp_path / "a", finish=fail)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"of the time before")]


def test_the_users_style_does_not_matter(tmp_path):
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: black\naxes.facecolor: red\nfont.size: 3\n")
    code = (
        "import figure_files, sys; figure = figure_files.Figure(); figure.subplots().plot([1, 2]);"
        "sys.stdout.buffer.write(figure_files.render(figure, 'svg', 72, 'a'))"
    )
    here = {"cwd": ROOT, "capture_output": True, "check": True}
    plain = subprocess.run([sys.executable, "-c", code], **here)
    styled = subprocess.run([sys.executable, "-c", code], env={**os.environ, "MATPLOTLIBRC": str(tmp_path)}, **here)
    assert b"<svg" in plain.stdout and styled.stdout == plain.stdout


@pytest.mark.parametrize("missing", ["matplotlib", "PIL"])
def test_without_what_draws_one_line_says_what_to_install(missing):
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom nasbench_dataset import command"
    result = run("-c", f"{code}\ncommand.run(lambda: __import__('figure_files'))")
    assert_refused(result, "cannot be used", "pip install -r requirements-compare.txt")


def test_a_broken_matplotlib_is_told_in_one_line(tmp_path):
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise AttributeError('_ARRAY_API\\nnot found')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom nasbench_dataset import command"
    result = run("-c", f"{code}\ncommand.run(lambda: __import__('figure_files'))")
    assert_refused(result, "_ARRAY_API not found", "pip install -r requirements-compare.txt")
