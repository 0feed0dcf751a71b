"""What AlphaX-1's commands do with streams, signals and backends, mostly shown with a small one that needs no Keras."""

import importlib.util
import os
import signal
import subprocess
import sys

import alphax1
import pytest
from alphax1 import environment, one_line, script
from backend import keras
from files import Problem
from terminal import Unprinted, printable, say

import backend

START = f"import sys; sys.path[:0] = [{str(alphax1.FOLDER)!r}, '.']; from terminal import start; start('small')"


@pytest.fixture
def small(tmp_path):
    """Run a `main` made of these lines as a command, in a shell that may redirect its streams."""

    def run(*lines, redirected="", **variables):
        body = "\n".join(f"    {line}" for line in lines)
        (tmp_path / "small.py").write_text(
            f"import os, signal, time\nfrom terminal import say, Parser, Screen\ndef main(arguments):\n{body}\n"
        )
        shell = f'"{sys.executable}" -c "{START}" {redirected}'
        return subprocess.run(
            ["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=60,
            env=environment(**variables),
        )

    return run


@pytest.mark.parametrize(
    ("redirected", "words"),
    [
        (">/dev/full", "cannot print (No space left on device)"),
        (">&-", "cannot print (Bad file descriptor)"),
        ("| head -c 0; exit ${PIPESTATUS[0]}", "nobody reads"),
    ],
)
def test_what_cannot_be_printed_is_one_line_and_status_2(small, redirected, words):
    one_line(small("time.sleep(0.2)", "say('first')", "say('second')", redirected=redirected), "-c: ", words)


def test_reader_who_left_before_the_last_line_missed_nothing(small):
    done = small("time.sleep(0.2)", "say('all is written', last=True)",
                 redirected="| head -c 0; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, "")
    one_line(small("say('all is written', last=True)", redirected=">/dev/full"), "its files are written, but it cannot")


@pytest.mark.parametrize(("redirected", "status"), [("", 0), (">/dev/full", 2), (">&-", 2), ("| head -c 0", 0)])
def test_help_is_printed_like_all_else(small, redirected, status):
    done = small("Parser().parse_args(['--help'])", redirected=redirected)
    assert done.returncode == status and len(done.stderr.splitlines()) == (status == 2)


def test_two_dashes_are_no_value(small):
    one_line(small("parser = Parser()", "parser.add_argument('--seed', type=int)", "parser.parse_args(['--seed=--'])"),
             "-c: ", "argument --seed: '--' is no value")


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_without_stderr_the_work_goes_on_and_the_status_tells(small, redirected):
    # What is written must not get the messages of others, so the first file that is opened has a number above 2.
    lines = ["file = open('made', 'w')", "assert file.fileno() > 2", "os.system('echo >&2 spoils')"]
    done = small(*lines, "Screen().write('progress')", "say('done')", redirected=redirected)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert small(*lines, "Parser().parse_args(['--what'])", redirected=redirected).returncode == 2


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_interrupts_in_one_line(small, name):
    done = small(f"os.kill(os.getpid(), signal.{name})", "time.sleep(20)")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_while_a_library_is_imported_interrupts_in_one_line(tmp_path, name):
    """Some of them, in C++, abort at an exception."""
    library = f"try:\n    os.kill(os.getpid(), signal.{name})\nexcept BaseException:\n    os.abort()\n"
    (tmp_path / "small.py").write_text(f"import os, signal\n{library}def main(arguments): pass\n")
    done = subprocess.run([sys.executable, "-c", START], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_signal_ends_even_where_a_library_swallows_exceptions(small):
    lines = ["class Swallows:", "    def __del__(self):", "        try: os.kill(os.getpid(), signal.SIGTERM)",
             "        except BaseException: pass", "Swallows()"]
    done = small(*lines, "say('was not stopped')")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_signal_removes_what_is_being_written_and_keeps_what_was_there(small, tmp_path):
    (tmp_path / "kept").write_text("before")
    lines = ["import files, pathlib", "with files.replacing(pathlib.Path('kept')) as part:",
             "    part.write_text('half')", "    os.kill(os.getpid(), signal.SIGTERM)"]
    done = small(*lines)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert (tmp_path / "kept").read_text() == "before" and not list(tmp_path.glob(".part-*"))


def test_last_words_are_those_of_the_moment_and_have_a_line_of_their_own(small):
    lines = ["import terminal", "done = 1", "terminal.set_last_words(lambda: f'{done} done')", "done = 2"]
    assert small(*lines, "os.kill(os.getpid(), signal.SIGTERM)").stderr == "2 done\n"
    lines += ["os.isatty = lambda number: True", "Screen().write('a bar')", "Screen().flush()"]  # as on a terminal
    assert small(*lines, "os.kill(os.getpid(), signal.SIGTERM)").stderr == "a bar\n2 done\n"


def test_hangup_is_ignored_under_nohup(small):
    done = small("os.kill(os.getpid(), signal.SIGHUP)", "time.sleep(0.01)", "say('goes on')",
                 redirected="2>&1 | cat")
    assert done.stdout == "interrupted\n"
    (handler,) = [signal.signal(signal.SIGHUP, signal.SIG_IGN)]  # as nohup does, for the children
    try:
        done = small("os.kill(os.getpid(), signal.SIGHUP)", "time.sleep(0.01)", "say('goes on')")
    finally:
        signal.signal(signal.SIGHUP, handler)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import no_such_package", "the package no_such_package is missing; pip install no_such_package"),
        ("raise ModuleNotFoundError(name='sklearn.datasets')", "pip install scikit-learn"),
        ("raise ImportError('it is broken')", "it is broken"),
        ("raise MemoryError", "not enough memory"),
        ("raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 400 bytes.')", "400 bytes"),
        ("open('x' * 5000)", "File name too long"),
    ],
)
def test_what_is_missing_is_named_in_one_line(small, line, words):
    one_line(small(line), words)


def test_error_of_a_program_is_not_hidden(small):
    done = small("raise RuntimeError('a bug')")
    assert done.returncode == 1 and "Traceback" in done.stderr and "a bug" in done.stderr


def test_letters_that_a_terminal_lacks_are_no_reason_to_fail(small):
    done = small("say('Zo\\u00eb \\U0001f600')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "Zo\\xeb \\U0001f600\n")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\x1b[31mred\n\r next \u202e \ud800\x9b", "?[31mred next ? ??"),
        ("9" * 31, "9" * 12 + "..."),
        (f"from {'8' * 10_000} on", f"from {'8' * 12}... on"),
        ("9" * 30, "9" * 30),
        ("x" * 1001, "x" * 997 + "..."),
    ],
)
def test_text_is_made_printable(capsys, text, wanted):
    assert printable(text) == wanted
    say(text, "and")
    assert capsys.readouterr().out == f"{wanted}\nand\n"


def test_failed_line_is_tried_again_with_the_next(monkeypatch, tmp_path):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        for _ in range(2):
            with pytest.raises(Unprinted, match="No space"):
                say("line")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


@pytest.mark.parametrize("name", ["model_test.py", "train.py", "convert.py"])
def test_backend_is_refused_before_any_work_wherever_one_is(tmp_path, name):
    # PYTHONSAFEPATH keeps the script's folder off the path.
    for wrong in ("foo", "numpy"):
        done = script(name, cwd=tmp_path, env=environment(KERAS_BACKEND=wrong, PYTHONSAFEPATH=1))
        one_line(done, f"{name}: KERAS_BACKEND is {wrong}", "jax, torch, tensorflow")
    assert not any(tmp_path.iterdir())


def test_device_that_is_not_there_is_one_line(tmp_path):
    done = script("train.py", "--data", "digits", cwd=tmp_path, env=environment(JAX_PLATFORMS="none"))
    one_line(done, "jax cannot compute with JAX_PLATFORMS=none", "unset that")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "variable", "value", "advice"),
    [
        ("jax", "JAX_PLATFORMS", "cuda", 'pip install -U "jax[cuda12]"'),
        ("jax", "JAX_PLATFORMS", "tpu", 'pip install -U "jax[tpu]"'),
        ("jax", "JAX_PLATFORMS", "", "pip install -U jax, or set KERAS_BACKEND"),
        ("torch", "KERAS_TORCH_DEVICE", "cuda", "unset that"),
        ("tensorflow", "JAX_PLATFORMS", "", "pip install -U tensorflow"),
    ],
)
def test_device_that_fails_is_told_with_what_helps(monkeypatch, name, variable, value, advice):
    def fail(*_):
        raise RuntimeError("no DNN library")

    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(keras.ops, "conv", fail)
    with pytest.raises(Problem, match="cannot compute") as refusal:
        backend._try_device(name)
    assert "no DNN library" in str(refusal.value) and advice in str(refusal.value)
    monkeypatch.setattr(keras.ops, "conv", lambda image, kernel: image)
    with pytest.raises(Problem, match="comes out wrong"):
        backend._try_device(name)


@pytest.mark.parametrize(
    ("missing", "advice"),
    [("keras", 'pip install "keras>=3.15"'), ("jax", "pip install jax, or set KERAS_BACKEND to torch or tensorflow")],
)
def test_missing_package_is_named(monkeypatch, missing, advice):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with pytest.raises(Problem, match=f"the package {missing} is missing") as refusal:
        backend._choose()
    assert advice in str(refusal.value)


def test_missing_tensorflow_is_named(tmp_path):
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed")
    done = script("model_test.py", cwd=tmp_path, env=environment(KERAS_BACKEND="tensorflow"))
    one_line(done, "pip install tensorflow, or set KERAS_BACKEND to jax or torch")


def test_kerass_own_file_and_variables_change_nothing(tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"backend": "tensorflow", "floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}'
    )
    shown = "keras.backend.backend(), c.floatx(), c.epsilon(), c.image_data_format(), c.max_epochs()"
    command = f"import sys; sys.path.insert(0, {str(alphax1.FOLDER)!r}); from backend import keras\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{command}c = keras.config; print({shown})"], capture_output=True, text=True,
        env=environment(KERAS_HOME=tmp_path, KERAS_BACKEND="", KERAS_MAX_EPOCHS=1), timeout=120,
    )
    assert done.stdout == "jax float32 1e-07 channels_last None\n", done.stderr
