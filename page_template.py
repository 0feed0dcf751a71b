"""Pages out of templates: one file with its style and its one script in it, which requests nothing from anywhere.

Text of files reaches a page as escaped JSON and escaped HTML only, and a page allows no script but its own.
"""

import hashlib
import html
import json
import re
from base64 import b64encode
from pathlib import Path

from nasbench_dataset import InputError
from nasbench_dataset.files import write_atomically

FOLDER = Path(__file__).with_name("pages")


def write_page(path: Path, body: str, scripts: list[str], data: dict, caption: list[str]) -> Path:
    """Write a page.

    Parameters
    ----------
    path : Path
    body : str
        The file in ``pages/`` with its heading (h1) and all else that it shows; ``@@CAPTION@@`` in it is the caption.
    scripts : list of str
        The files in ``pages/`` of which, in this order, the script is made.
    data : dict
        What the script draws.
    caption : list of str
        Paragraphs.
    """
    script = "".join(map(part, scripts))
    letters = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":  # </script> in a string would end the data; in JSON only strings can have these
        letters = letters.replace(letter, f"\\u{ord(letter):04x}")
    caption_html = "\n".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in caption)
    body_html = part(body)
    content = {
        "TITLE": re.search("<h1>(.*?)</h1>", body_html)[1],
        "BODY": body_html.replace("@@CAPTION@@", caption_html),
        "STYLE": part("style.css"),
        "SCRIPT": script,
        "HASH": b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "DATA": letters,
    }
    page = re.sub("@@([A-Z]+)@@", lambda match: content[match[1]], part("page.html"))
    write_atomically(path, page.encode())
    return path


def part(name: str) -> str:
    """A file of ``pages/``."""
    try:
        return (FOLDER / name).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {FOLDER / name}, a part of this project: {error.strerror}") from error
