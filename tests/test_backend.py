"""Keras and its backends: they compute, or one line says before any work what helps."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, assert_refused, run

import keras_backend
from nasbench_dataset import InputError


def stand_in(folder, monkeypatch, package: str, content: str) -> None:
    """Let commands find another package of that name first."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(folder))


MISSING = "raise ModuleNotFoundError('No module named {0}', name='{0}')"


@pytest.mark.parametrize(
    "backend, missing, words",
    [
        ("tensorflow", "tensorflow", "pip install tensorflow, or unset KERAS_BACKEND for jax"),
        ("torch", "torch", "pip install torch, or unset KERAS_BACKEND for jax"),
        ("jax", "jaxlib", "pip install jax"),
        ("", "keras", "pip install keras"),
    ],
)
def test_what_is_missing_is_named_before_any_work(tmp_path, monkeypatch, backend, missing, words):
    stand_in(tmp_path, monkeypatch, missing, MISSING.format(missing))
    monkeypatch.setenv("KERAS_BACKEND", backend)
    result = run("MCTS_metaDNN.py", "--out", tmp_path / "out")
    assert_refused(result, words)
    assert result.stdout == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", ["foo", "numpy", "openvino", "JAX", "\x1b[2J" + "x" * 3_000])
def test_a_backend_that_fits_no_networks_is_refused(monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    words = "is no backend that fits networks; choose jax, torch or tensorflow"
    with pytest.raises(InputError, match=words) as refusal:
        keras_backend.load_keras()
    assert len(str(refusal.value)) < 250 and "\x1b" not in str(refusal.value)


def test_a_device_that_is_not_there_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    result = run("MCTS_metaDNN.py", "--out", tmp_path / "out")
    assert_refused(result, "cannot compute with jax here", "JAX_PLATFORMS=abacus", "unset it")
    assert result.stdout == "" and not (tmp_path / "out").exists()


def test_a_damaged_package_is_told_in_one_line(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "keras", "raise OSError('libabacus.so:\\ncannot open shared object file')")
    result = run("MCTS_metaDNN.py")
    assert_refused(result, "libabacus.so: cannot open", "pip install --upgrade keras")


def test_what_a_file_of_keras_says_does_not_count(tmp_path):
    """Its backend is not installed, and saves are of float32."""
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "abacus", "floatx": "float16"}))
    code = "import keras_backend as k; k.check(); keras = k.load_keras()"
    code += "; import sys; print(keras.backend.backend(), keras.config.floatx(), 'sklearn' in sys.modules)"
    environment = {"KERAS_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == "jax float32 False\n", result.stderr  # which would take as long again to import
