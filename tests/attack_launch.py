"""Runs one command under attack: its streams, its signal, its limits; and watches it.

Linux only: what is left behind is told by a mark in the environment, which every process inherits, under /proc.
"""

import contextlib
import os
import pty
import signal
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

MARK = "ATTACK_CASE"  # the environment variable by which the processes of a case are known
MOST_MEMORY = 4_000  # MB of resident memory at which a command is stopped, for the machine's sake
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root minds permissions then
STREAMS = "stdin", "stdout", "stderr"
PAUSE = 0.005  # seconds between two looks at a running command


@dataclass(frozen=True)
class Strike:
    """A signal at some moment of a run.

    Attributes
    ----------
    number : signal
    moment : float
        Where in the run: 0 its start or, ``late``, its first sign of life, 1 its usual end.
    late : bool
    group : bool
        To all processes of its session's group, as a terminal sends it.
    again : float or None
        Seconds until it comes once more.
    """

    number: signal.Signals
    moment: float
    late: bool = False
    group: bool = False
    again: float | None = None

    def send(self, pid: int) -> None:
        """Send it; nothing happens where the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if self.group else os.kill)(pid, self.number)
            if self.number == signal.SIGSTOP:
                time.sleep(0.3)
                (os.killpg if self.group else os.kill)(pid, signal.SIGCONT)


@dataclass(frozen=True)
class Launch:
    """How a command is started.

    Attributes
    ----------
    environment : dict of str to str or None
        Variables to set, or to unset.
    here : bool
        From the case's own folder ``cwd`` instead of the project's.
    streams : dict of str to str
        Of stdin, stdout and stderr those that are "closed", "full", a pipe whose reader is "gone" or reads "one line",
        a "terminal", or one that is "hung up" after a moment.
    strike : Strike or None
    without_rights : bool
        As a user whom permissions of files concern.
    shell : str
        What a shell does before it becomes the command, such as ``ulimit -f 0``.
    """

    environment: dict[str, str | None] = field(default_factory=dict)
    here: bool = False
    streams: dict[str, str] = field(default_factory=dict)
    strike: Strike | None = None
    without_rights: bool = False
    shell: str = ""


@dataclass
class Ending:
    """What a run came to: its status (None where it was stopped), output, cost, and whom it left behind."""

    status: int | None
    out: str
    err: str
    seconds: float
    memory: int  # MB at most
    alive: float | None  # seconds until the first sign of life
    struck: str = ""  # "early" or "late": whether it had shown life when the signal came
    stopped: str = ""  # why it was stopped
    left: list[str] = field(default_factory=list)

    @property
    def printed(self) -> str:
        return self.out + self.err


class Streams:
    """The three streams of a process; what goes to a file is in ``logs``."""

    def __init__(self, kinds: dict[str, str], logs: Path):
        self.redirections, self.handles, self._close = "", {}, []
        self._logs, self._terminal = logs, None
        for number, name in enumerate(STREAMS):
            self.handles[name] = self._open(number, name, kinds.get(name, ""))

    def _open(self, number: int, name: str, kind: str) -> int:
        if kind == "closed":
            self.redirections += f" {number}{'>' if number else '<'}&-"
        if kind in ("terminal", "hung up"):
            self._terminal = self._terminal or self._new_terminal(kind)
            return self._terminal
        if kind in ("gone", "one line"):
            reader, writer = os.pipe()
            threading.Thread(target=self._read, args=(reader, name, kind), daemon=True).start()
            return self._ours(writer)
        if kind == "full" or not number:
            return self._ours(os.open("/dev/full" if kind else os.devnull, os.O_RDWR))
        return self._ours(os.open(self._logs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    def _ours(self, handle: int) -> int:
        self._close.append(handle)
        return handle

    def _new_terminal(self, kind: str) -> int:
        master, slave = pty.openpty()
        threading.Thread(target=self._read, args=(master, "stdout", kind), daemon=True).start()
        return self._ours(slave)

    def _read(self, handle: int, name: str, kind: str) -> None:
        """Read what comes, until one has had enough."""
        with open(self._logs / name, "wb", buffering=0) as log, contextlib.suppress(OSError):
            while kind != "gone" and (content := os.read(handle, 4096)):
                log.write(content)
                if kind == "one line" and b"\n" in content or kind == "hung up":
                    break
        os.close(handle)

    def close(self) -> None:
        """Close our copies of what the process writes to."""
        for handle in self._close:
            os.close(handle)


def started(argv: list[str], launch: Launch, streams: Streams, environment: dict, cwd: Path) -> subprocess.Popen:
    """Start the command in a session of its own."""
    if launch.shell or streams.redirections:
        before = f"{launch.shell}; " if launch.shell else ""
        argv = ["/bin/sh", "-c", f'{before}exec "$@"{streams.redirections}', "sh", *argv]
    if launch.without_rights and os.geteuid() == 0:
        argv = [*WITHOUT_RIGHTS, *argv]
    return subprocess.Popen(argv, cwd=cwd, env=environment, start_new_session=True, **streams.handles)


class Watch:
    """Waits for a process, strikes it when it is time, and stops it where it takes too much."""

    def __init__(self, process: subprocess.Popen, strike: Strike | None, usual: "tuple[float, float]", signs):
        self.process, self.strike, self.signs = process, strike, signs
        self.start = time.monotonic()
        self.alive: float | None = None
        self.struck = self.stopped = ""
        self.usual, self._again, self.memory = usual, None, 0.0

    def wait(self, longest: float) -> int | None:
        """The status, None where it was stopped."""
        while self.process.poll() is None:
            now = time.monotonic() - self.start
            if self.alive is None and self.signs():
                self.alive = now
            self._perhaps_strike(now)
            self.memory = peak_memory(self.process.pid) or self.memory
            if now > longest or self.memory > MOST_MEMORY:
                self.stopped = (
                    f"still running after {now:.0f} s" if now > longest else f"took {MOST_MEMORY} MB and more"
                )
                self.process.kill()
            time.sleep(PAUSE)
        return None if self.stopped else self.process.returncode

    def _perhaps_strike(self, now: float) -> None:
        strike, (life, whole) = self.strike, self.usual
        if strike is None or strike.late and self.alive is None:
            return
        due = self.alive + strike.moment * (whole - life) if strike.late else strike.moment * whole
        if not self.struck and now >= due:
            strike.send(self.process.pid)
            self.struck = "early" if self.alive is None else "late"
            self._again = None if strike.again is None else now + strike.again
        elif self._again is not None and now >= self._again:
            strike.send(self.process.pid)
            self._again = None


def run(
    argv: list[str], place: Path, launch: Launch, longest: float, usual: tuple[float, float] = (0, 0), grace: float = 5
) -> Ending:
    """Run a command in a case's folder.

    Parameters
    ----------
    argv : list of str
    place : Path
        Holds ``tmp``, ``logs``, ``cwd`` and the outputs under ``out``.
    launch : Launch
    longest : float
        Seconds after which it is stopped.
    usual : (float, float)
        Seconds to the first sign of life and to the end of a run that nothing disturbs, for the moment of a strike.
    grace : float
        Seconds that its other processes have to end after it.
    """
    mark = uuid.uuid4().hex
    own = {"TMPDIR": str(place / "tmp"), "PYTHONUNBUFFERED": None}  # without buffers nothing could get lost in one
    environment = {**os.environ, **own, **launch.environment, MARK: mark}
    environment = {name: value for name, value in environment.items() if value is not None}
    streams = Streams(launch.streams, place / "logs")
    before = listing(place / "out")
    try:
        cwd = place / "cwd" if launch.here else Path(__file__).parents[1]
        process = started(argv, launch, streams, environment, cwd)
    finally:
        streams.close()

    def signs() -> bool:
        printed = any(
            (place / "logs" / name).exists() and os.stat(place / "logs" / name).st_size for name in STREAMS[1:]
        )
        return printed or listing(place / "out") != before

    watch = Watch(process, launch.strike, usual, signs)
    status = watch.wait(longest)
    seconds = time.monotonic() - watch.start
    left = outlived(mark, grace)
    texts = [(place / "logs" / name) for name in STREAMS[1:]]
    out, err = (path.read_bytes().decode(errors="replace") if path.exists() else "" for path in texts)
    return Ending(status, out, err, seconds, round(watch.memory), watch.alive, watch.struck, watch.stopped, left)


def listing(folder: Path) -> set[tuple[str, int]]:
    """What is in a folder, with sizes."""
    with contextlib.suppress(OSError):
        return {(entry.name, entry.stat(follow_symlinks=False).st_size) for entry in os.scandir(folder)}
    return set()


def peak_memory(pid: int) -> float:
    """The most MB of memory that a process has had, 0 where it has ended; getrusage would count its parent's, too."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1_000
    return 0


def marked(mark: str) -> dict[int, str]:
    """The processes of a case: number and command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(folder.name)] = line
    return found


def outlived(mark: str, grace: float) -> list[str]:
    """The processes of a case that are still there after so many seconds; they are ended."""
    deadline = time.monotonic() + grace
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [line[:80] for line in left.values()]
