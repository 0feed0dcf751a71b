"""Figures as files: PNG and SVG, the same bytes for the same figure, each written whole or not at all.

What draws imports this first: where Matplotlib or Pillow cannot be used, it says so in one line.
"""

import io
import warnings
from pathlib import Path
from typing import Callable

from nasbench_dataset import InputError
from nasbench_dataset.files import write_atomically

try:
    import matplotlib
    from matplotlib.figure import Figure
    from PIL import Image  # noqa: F401 (Matplotlib writes PNG files by it)
except Exception as error:  # absent, or broken in any of the ways in which an installation can be
    raise InputError(f"Matplotlib and Pillow cannot be used ({error}); pip install -r requirements-compare.txt") from error

matplotlib.rcdefaults()  # a figure is the same whatever the user's matplotlibrc says


def save_figure(
    figure: Figure, path: Path, png_dpi: int = 150, svg_dpi: int = 150, finish: Callable[[bytes], bytes] | None = None
) -> list[Path]:
    """Write a figure as PATH.png and PATH.svg.

    Nothing is written before both are ready. Where only the second cannot be written the first is new, and whole.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : Path
        Without a suffix, in an existing folder.
    png_dpi, svg_dpi : int
        Dots per inch; in an SVG only of what is rasterized in it.
    finish : callable, optional
        What makes the PNG file's content out of Matplotlib's.

    Returns
    -------
    list of Path
        The two files.

    Raises
    ------
    InputError
        If one cannot be written.
    """
    png = render(figure, "png", png_dpi, path.name)
    contents = {".png": finish(png) if finish else png, ".svg": render(figure, "svg", svg_dpi, path.name)}
    paths = [path.with_name(path.name + suffix) for suffix in contents]
    for file, content in zip(paths, contents.values()):
        write_atomically(file, content)
    return paths


def render(figure: Figure, kind: str, dpi: int, salt: str) -> bytes:
    """The content of a figure's file of that kind (``"png"`` or ``"svg"``); the salt is what ids in an SVG grow from."""
    content = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": salt}):
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        figure.savefig(content, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()
