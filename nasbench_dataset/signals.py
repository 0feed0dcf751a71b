"""What signals do to a command. Little is imported here, so that a script can decide it before anything else."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

INTERRUPTED = 130  # exit status
_UNFINISHED: set[str] = set()  # files and folders that are removed where the program ends at once


@contextlib.contextmanager
def unfinished(path: str) -> Iterator[None]:
    """Remove a file or folder in the end, where it is still there: also if a signal ends the program meanwhile."""
    _UNFINISHED.add(path)
    try:
        yield
    finally:
        _remove(path)
        _UNFINISHED.discard(path)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path):
            import shutil  # takes a while

            shutil.rmtree(path)
        else:
            os.unlink(path)


def catch_signals(stop: Callable[[], None] | None = None, last_words: str = "interrupted") -> None:
    """Decide what Ctrl-C (SIGINT), SIGTERM and a closed terminal (SIGHUP) do from now on.

    Parameters
    ----------
    stop : callable, optional
        Asks the work under way to come to an end; called for the first signal. A Ctrl-C after it ends the program at
        once, other signals do not: of those a terminal or a supervisor may send several. Without ``stop`` there is
        nothing to be kept, and every signal ends the program at once.
    last_words : str
        The line on standard error at such an end; the status is 130.

    A SIGHUP that is ignored already, by ``nohup``, stays ignored. An end at once raises no exception: one could get
    lost in a destructor, or a library could make another of it.
    """
    asked = stop is None

    def arrived(signal_number: int, _) -> None:
        nonlocal asked
        if stop is None or asked and signal_number == signal.SIGINT:
            for path in list(_UNFINISHED):
                with contextlib.suppress(OSError):
                    _remove(path)
            with contextlib.suppress(OSError):
                os.write(2, f"{last_words}\n".encode())
            os._exit(INTERRUPTED)
        if not asked:
            asked = True
            stop()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal_number = getattr(signal, name, None)  # Windows has no SIGHUP
        if signal_number and (name != "SIGHUP" or signal.getsignal(signal_number) != signal.SIG_IGN):
            signal.signal(signal_number, arrived)
