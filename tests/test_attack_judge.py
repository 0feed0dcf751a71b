"""The judge of the attacks: little commands that do on purpose what no command may do are caught, each for its deed."""

import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import attack
import attack_judge as judge
import pytest
from attack_cases import EITHER, REFUSED, Case, Cases
from attack_kinds import all_cases
from attack_launch import Ending, Launch, Strike
from attack_world import Command

if not sys.platform.startswith("linux"):
    pytest.skip("processes are told by /proc", allow_module_level=True)

COMMAND = """
import os, subprocess, sys, time
from pathlib import Path

out, place = Path(sys.argv[1]), Path(sys.argv[1]).parent
if (out / "spoilt").exists():
    sys.exit(3)
(out / "result.txt").write_text("[1]\\n")
(out / "summary.json").write_text("{}")
print("the outcome", flush=True)
exec(os.environ.get("DEED", ""))
"""
ESCAPE = r"print('\x1b[2J')"


@dataclass(frozen=True)
class Quick(Command):
    """A command that is stopped after a few seconds."""

    longest = 4.0


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Command:
    script = tmp_path_factory.mktemp("command") / "command.py"
    script.write_text(COMMAND)
    names = "result.txt", "summary.json"
    argv = str(script), "{out}"
    return Quick("command.py", argv, {}, names, lambda out, printed: (out / "result.txt").read_text(), grace=1.5)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Cases:
    return Cases(tmp_path_factory.mktemp("cases"))


def case_of(command: Command, deed: str, **more) -> Case:
    launch = Launch({"DEED": deed}, strike=more.pop("strike", None), streams=more.pop("streams", {}))
    return Case(command, "a deed", launch=launch, **more)


@pytest.mark.parametrize(
    "deed, more",
    [
        ("", {}),
        ("sys.exit('error: one line')", {"expected": {1}}),
        ("print('error: no table', file=sys.stderr); sys.exit(2)", {"expected": REFUSED}),
        ("subprocess.Popen(['sleep', '0.3'])", {}),  # which ends in time
        ("(out / 'result.txt').write_text('[1]\\n')", {"goes_on": True}),
        (ESCAPE.replace("[2J", "[A"), {"streams": {"stdout": "terminal"}}),  # a progress line
    ],
)
def test_a_command_that_behaves_is_acquitted(cases, command, deed, more):
    reasons, _ = cases.reasons(case_of(command, deed, **more))
    assert reasons == []


def test_a_command_buffers_what_it_prints_whatever_is_set_outside(cases, command, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    reasons, _ = cases.reasons(case_of(command, "assert not sys.stdout.write_through"))
    assert reasons == []


DEEDS = [
    ("raise ValueError('x')", "Traceback: ValueError: x", {"expected": {1}}),
    ("sys.stderr.write('Exception ignored in: x')", "Exception ignored", {}),
    ("sys.exit(1)", "status 1, not [0]", {}),
    ("sys.exit(2)", "status 2, not [0]", {}),
    ("print('a\\nb', file=sys.stderr); sys.exit(2)", "2 lines on stderr", {"expected": EITHER}),
    ("time.sleep(60)", "still running after 4 s", {}),
    ("subprocess.Popen(['sleep', '60'])", "1 processes left: sleep 60", {}),
    ("subprocess.Popen(['sleep', '60'], start_new_session=True)", "1 processes left: sleep 60", {}),
    (ESCAPE, "printed '\\x1b'", {}),
    (ESCAPE.replace("print(", "print(file=sys.stderr, *"), "printed '\\x1b'", {}),
    (ESCAPE, "printed '\\x1b'", {"streams": {"stdout": "terminal"}}),
    ("print('\\u202eevil')", "printed '\\u202e'", {}),
    ("print('best nan')", "a result that is no number", {}),
    ("x = b'x' * 700_000_000; time.sleep(0.3)", "MB of memory, more than", {}),
    ("(place / 'in' / 'bystander.txt').unlink()", "lost or changed: in/bystander.txt", {}),
    ("(out / 'bystander.txt').write_text('mine')", "lost or changed: out/bystander.txt", {}),
    ("(out / 'result.txt').unlink()", "status 0 without result.txt", {}),
    ("(out / 'result.txt').unlink(); sys.exit(2)", "status 2 without result.txt", {"expected": REFUSED, "done": True}),
    ("(out / 'result.txt').write_text('[2]\\n')", "its outcome is another one than usual", {}),
    ("(out / 'result.txt').write_text('[1]')", "out/result.txt is not whole", {}),
    ("(out / 'summary.json').write_text('{')", "out/summary.json is not whole", {}),
    ("(out / 'summary.json').write_text('[NaN]')", "out/summary.json is not whole", {}),
    ("(out / 'tree.png').write_bytes(b'')", "out/tree.png is not whole", {}),
    ("(out / 'tree.svg').write_text('<svg>')", "out/tree.svg is not whole", {}),
    ("(out / 'a.html').write_text('<script>alert(1)</script></html>')", "hostile text is in it as it was", {}),
    ("(out / 'new.pickle').write_bytes(b'x')", "out/new.pickle is not whole", {}),
    ("(out / 'search').write_text('{}')", "the saved search is damaged", {}),
    ("(out / '.result.txt.abcdefgh').touch()", "left behind: out/.result.txt.abcdefgh", {}),
    ("(place / 'tmp' / 'x').touch()", "left behind: tmp/x", {}),
    ("(place / 'EXECUTED').touch()", "HOSTILE CODE WAS EXECUTED", {}),
    ("(out / 'spoilt').touch()", "afterwards it ends with 3", {"goes_on": True}),
    (
        "(out / 'result.txt').unlink(); time.sleep(3)",
        "status -15, not [0, 130]",
        {"strike": Strike(signal.SIGTERM, 1, late=True), "expected": {0, 130}},
    ),
]


@pytest.mark.parametrize("deed, words, more", DEEDS)
def test_a_deed_is_caught(cases, command, deed, words, more):
    reasons, _ = cases.reasons(case_of(command, deed, exact=True, **more))
    assert any(words in reason for reason in reasons), reasons


IMPORTS, SIGNALS = "from nasbench_dataset.signals", '\n  File "{root}/nasbench_dataset/signals.py", line 5'
STARTS = [  # a signal, whether before it shows life, file and line of a traceback, what is said against that end
    (signal.SIGINT, "early", '"<frozen runpy>", line 15', "", []),
    (signal.SIGINT, "early", '"{root}/nasbench_dataset/__init__.py", line 6', "", []),
    (signal.SIGINT, "early", '"{root}/compare.py", line {line}', IMPORTS, []),
    (signal.SIGINT, "early", '"{root}/compare.py", line {line}' + SIGNALS, IMPORTS, []),
    (signal.SIGINT, "early", '"{root}/compare.py", line {line}', "import argparse", ["status", "Traceback"]),
    (signal.SIGINT, "early", '"{root}/alphax-1-net/train.py", line {line}', "    from terminal", []),
    (signal.SIGINT, "early", '"{root}/alphax-1-net/train.py", line {line}', "import argparse", ["status", "Traceback"]),
    (signal.SIGINT, "early", '"{root}/nasbench_dataset/table.py", line {line}', "import ", ["status", "Traceback"]),
    (signal.SIGINT, "late", '"{root}/compare.py", line {line}', IMPORTS, ["status", "Traceback"]),
    (signal.SIGTERM, "early", '"{root}/compare.py", line {line}', IMPORTS, ["status"]),
]


@pytest.mark.parametrize("number, struck, place, code, words", STARTS)
def test_an_interrupt_may_show_only_before_it_can_be_heard(number, struck, place, code, words):
    line = 0
    if code:
        lines = Path(place.format(root=judge.ROOT, line=0).split('"')[1]).read_text().splitlines()
        line = 1 + next(i for i, text in enumerate(lines) if text.startswith(code))
    place = place.format(root=judge.ROOT, line=line)
    text = f"Traceback (most recent call last):\n  File {place}\nKeyboardInterrupt\n"
    ending = Ending(1, "", text, 0.1, 10, None, struck)
    reasons = judge.of_the_status(ending, {130}, Strike(number, 0.1), lambda: False) + judge.of_tracebacks(ending)
    assert [reason.split()[0].strip(":") for reason in reasons] == words


def test_alphax_1_tells_by_its_status_that_nobody_could_read_it():
    closed = [case for case in all_cases(1, 0, options=False) if "streams: stdout closed" in case.name]
    told = {case.command.name for case in closed if case.expected == REFUSED}
    assert told == {"model_test.py", "train.py", "train.py --resume", "convert.py"}


def test_what_changes_although_the_command_refused_is_caught(cases, command):
    def earlier(place) -> None:
        (place.out / "result.txt").write_text("[0]\n")

    case = case_of(command, "sys.exit(2)", prepare=earlier, expected=REFUSED, kept=True)
    reasons, _ = cases.reasons(case)
    assert reasons == ["lost or changed: out/result.txt"]
    assert cases.reasons(replace(case, kept=False))[0] == []


def test_a_command_that_fails_in_peace_fails_all_its_cases(tmp_path, command):
    (tmp_path / "command.py").write_text("raise SystemExit(1)")
    broken = replace(command, name="broken", argv=(str(tmp_path / "command.py"), "{out}"))
    (tmp_path / "cases").mkdir()
    assert attack.attack([case_of(broken, "")], 1, tmp_path / "cases") == 1


def test_every_failed_case_counts_and_is_shown(tmp_path, command, capsys):
    cases = [case_of(command, ""), case_of(command, "sys.exit(1)"), case_of(command, ESCAPE)]
    assert attack.attack(cases, 2, tmp_path) == 2
    printed = capsys.readouterr().out
    assert printed.startswith("FAILED  command.py") and "1 of 3" in printed and "status 1, not [0]" in printed
