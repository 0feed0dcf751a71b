"""The one place that sets Keras up: import `keras` from here, never directly.

`KERAS_BACKEND` is read by Keras on import; JAX is the default, torch and tensorflow work as well.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras  # noqa: E402  (the backend has to be chosen first)

# Every shape in these scripts is batch, height, width, channels, whatever ~/.keras/keras.json says.
keras.config.set_image_data_format("channels_last")


def has_gpu() -> bool:
    """Whether the chosen backend sees a GPU."""
    if keras.backend.backend() == "torch":  # Keras lists no devices for torch
        import torch

        return torch.cuda.is_available()
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX: no such platform
        return False
