"""The one place that sets Keras up: import `keras` from here, never directly.

`KERAS_BACKEND` chooses between JAX (the default), PyTorch and TensorFlow. What ~/.keras/keras.json
says does not count: Keras writes that file itself, naming TensorFlow. That the backend computes on
its device is tried here, before any work; a `Problem` says what is missing.
"""

import importlib.util
import os
import sys
from types import ModuleType

import numpy as np

from files import Problem, reason

BACKENDS = ("jax", "torch", "tensorflow")  # those that can train; the first is the default
KERAS = '"keras>=3.15"'  # as pip wants it
DEVICE = {"jax": "JAX_PLATFORMS", "torch": "KERAS_TORCH_DEVICE"}  # what chooses a device
UNUSED = ("sklearn", "matplotlib")  # Keras imports them where they are installed, which takes half of its start
JAX_PACKAGES = {"cuda": '"jax[cuda12]"', "gpu": '"jax[cuda12]"', "tpu": '"jax[tpu]"'}  # what has such a device


def _choose() -> str:
    """The backend that the environment names.

    Raises
    ------
    Problem
        If there is no such backend, or if a package is missing.
    """
    name = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if name not in BACKENDS:
        raise Problem(
            f"KERAS_BACKEND is {name}, which is unknown or cannot train; set it to one of"
            f" {', '.join(BACKENDS)}, or unset it for {BACKENDS[0]}"
        )
    others = " or ".join(other for other in BACKENDS if other != name)
    for module, advice in (("keras", KERAS), (name, f"{name}, or set KERAS_BACKEND to {others}")):
        if importlib.util.find_spec(module) is None:
            raise Problem(f"the package {module} is missing; pip install {advice}")
    return name


def _import_keras(backend: str) -> ModuleType:
    """Keras with this backend, set up as these scripts want it, whatever its files and variables say."""
    os.environ["KERAS_BACKEND"] = backend
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None: it is not found
    try:
        import keras

        keras.config.set_image_data_format("channels_last")  # of all shapes here
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
        keras.config.set_max_epochs(None)
        keras.config.set_max_steps_per_epoch(None)
    except Exception as error:  # a package that is broken or too old can raise anything
        raise Problem(
            f"Keras cannot be used with {backend} ({reason(error)}); pip install -U {KERAS} {backend},"
            " or see to ~/.keras/keras.json and the variables KERAS_..."
        ) from error
    finally:
        for name in hidden:
            del sys.modules[name]
    return keras


def _try_device(backend: str) -> None:
    """Convolve a tiny image, which takes all of a device that a network does.

    Raises
    ------
    Problem
        If that fails.
    """
    try:
        image, kernel = np.ones((1, 4, 4, 1), "float32"), np.ones((3, 3, 1, 1), "float32")
        found = keras.ops.convert_to_numpy(keras.ops.conv(image, kernel))
        if not (found == kernel.size).all():
            raise ArithmeticError("a convolution comes out wrong")
    except Exception as error:  # each backend and driver has its own
        variable = DEVICE.get(backend, "")
        wanted = os.environ.get(variable)
        package = JAX_PACKAGES.get(wanted, "jax") if backend == "jax" else backend
        if wanted:
            where = f" with {variable}={wanted}"
            advice = f"unset that, or, if there is such a device, pip install -U {package}"
        else:
            where, advice = "", f"pip install -U {package}, or set KERAS_BACKEND to another"
        raise Problem(f"{backend} cannot compute{where} ({reason(error)}); {advice}") from error


BACKEND = _choose()
keras = _import_keras(BACKEND)
_try_device(BACKEND)


def has_gpu() -> bool:
    """Whether the chosen backend sees a GPU."""
    if BACKEND == "torch":  # Keras lists no devices for torch
        import torch

        return torch.cuda.is_available()
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX: no such platform
        return False
