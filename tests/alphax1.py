"""What the tests of AlphaX-1 share: its folder on the path, a small network, running its scripts."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "alphax-1-net"
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))

from model import Description, Genotype  # noqa: E402  (needs the path)

SMALL = Genotype(
    normal=(("skip_connect", 0), ("sep_conv_3x3", 1)),
    normal_concat=(2,),
    reduce=(("skip_connect", 1), ("max_pool_2x2", 0)),
    reduce_concat=(2,),
)


def describe(genotype=SMALL, C=4, layers=3, classes=10, auxiliary=True, **rest):
    """A description of a small network."""
    return Description(genotype, C, layers, classes, auxiliary, **rest)


def script(name, *arguments, cwd, **rest):
    """Run one of the scripts to its end, from another folder."""
    command = [sys.executable, str(FOLDER / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **rest)


def one_line(run, *words):
    """Check that a script refused: status 2 and one line on stderr with these words."""
    assert run.returncode == 2, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in lines[0]


def environment(**more):
    """The environment of a script, with some variables set."""
    return {**os.environ, **{name: str(value) for name, value in more.items()}}


def compiling_once(folder):
    """The environment of scripts that share what JAX compiled; the rest of each is their own."""
    return environment(
        JAX_COMPILATION_CACHE_DIR=folder,
        JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS=0,
        JAX_PERSISTENT_COMPILATION_CACHE_MIN_ENTRY_SIZE_BYTES=-1,
    )
