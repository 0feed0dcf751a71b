"""One cache for all that JAX compiles in several processes, most of which would do little else."""

import os
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"


def share(folder: str | Path) -> None:
    """Let the processes that this one starts share what JAX compiled, in a folder that exists.

    An entry can be half written, where a process that writes it is killed or another one reads meanwhile; JAX compiles
    it anew, then, and warns.
    """
    os.environ[FOLDER] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
