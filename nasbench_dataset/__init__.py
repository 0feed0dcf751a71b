"""NAS-Bench-101 as this project uses it: cells and their index, tables of accuracies, converters.

What is here knows nothing of searching. See README.md in this folder for the embedded table.
"""

import os

# Before numpy is imported: its threads wait by computing, which for matrices of a few hundred rows, as the searches
# have them, takes ten times the processor time and on a busy machine as much longer.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class InputError(Exception):
    """Unusable input from the user; the message is one line saying what, where and what to do.

    Every command prints it to stderr and exits with status 2.
    """
