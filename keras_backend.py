"""Keras with its backend: found to work, or refused in one line before any work.

The backend is what ``KERAS_BACKEND`` says (jax, torch or tensorflow), by default jax; that of ``~/.keras/keras.json``
does not count, nor does its type of numbers.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from nasbench_dataset import InputError
from nasbench_dataset.files import printable

BACKENDS = "jax", "torch", "tensorflow"  # those of Keras' that can fit; each is a package of that name
INSTALLED_BY = {"jaxlib": "jax"}  # a module that is missing, by its package where that is named otherwise
UNUSED = "sklearn", "matplotlib"  # Keras imports them where they are installed, which takes half of its start


def load_keras() -> ModuleType:
    """Import Keras.

    Raises
    ------
    InputError
        If Keras or its backend cannot be imported; it names the package that is missing.
    """
    backend = os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if backend not in BACKENDS:
        choices = f"choose {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, or unset it for {BACKENDS[0]}"
        raise InputError(f"KERAS_BACKEND={printable(backend, 60)} is no backend that fits networks; {choices}")
    try:
        with _without(UNUSED):
            import keras
    except ModuleNotFoundError as error:
        module = (error.name or backend).partition(".")[0]
        package = INSTALLED_BY.get(module, module)
        reason = f"{package} is not installed, which KERAS_BACKEND={backend} needs" if package == backend else error
        other = f", or unset KERAS_BACKEND for {BACKENDS[0]}" if package == backend != BACKENDS[0] else ""
        raise InputError(f"Keras cannot be used: {reason}; pip install {package}{other}") from error
    except Exception as error:  # a package that is damaged, or a wrong ~/.keras/keras.json, can raise nearly anything
        advice = f"pip install --upgrade keras {backend}, and look into ~/.keras/keras.json"
        raise InputError(f"Keras cannot be used with {backend}: {describe(error)}; {advice}") from error
    keras.config.set_floatx("float32")
    return keras


@contextmanager
def _without(packages: tuple[str, ...]) -> Iterator[None]:
    """What is imported meanwhile does not find these packages, unless they are imported already."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def check() -> None:
    """See that Keras computes: fit a network of one weight to one number, half a second's work.

    Raises
    ------
    InputError
        If it cannot; it says what to install or to set.
    """
    keras = load_keras()
    try:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.train_on_batch(keras.ops.ones((1, 1)), keras.ops.ones((1, 1)))
    except Exception as error:  # whatever the backend raises where it finds no device
        backend = keras.backend.backend()
        advice = f"pip install --upgrade keras {backend}, or choose another KERAS_BACKEND"
        if backend == "jax" and os.environ.get("JAX_PLATFORMS"):
            advice = f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']} asks for that: unset it for any device that is there"
            advice += ", or pip install -U 'jax[cuda12]' for an Nvidia GPU"
        raise InputError(f"Keras cannot compute with {backend} here: {describe(error)}; {advice}") from error


def describe(error: Exception) -> str:
    """What went wrong, shortly, so that the advice after it is not cut off; some errors have no text."""
    return printable(error, 150) or type(error).__name__
