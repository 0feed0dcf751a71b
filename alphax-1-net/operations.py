"""The operations of an AlphaX-1 cell, as Keras graphs.

The family is NASNet's space (Zoph et al., arXiv 1707.07012) in the form DARTS trains it (Liu et al.,
arXiv 1806.09055). All tensors are (batch, height, width, channels). Every layer that has weights is
named after the module path of the PyTorch original, with "-" for "." ("cells-3-_ops-0-op-1"), so that
a conversion needs no table of names.

PyTorch pads symmetrically. Keras's "same" agrees at stride 1 but not at stride 2, where it pads the
far side only; so padding is explicit wherever the stride is 2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from backend import keras

BN_EPSILON = 1e-5  # PyTorch's
BN_MOMENTUM = 0.9  # PyTorch's 0.1, seen from the other side

POOLINGS = {  # kind, window, padding on each side
    "avg_pool_3x3": ("avg", 3, 1),
    "max_pool_2x2": ("max", 2, 0),
    "max_pool_3x3": ("max", 3, 1),
    "max_pool_5x5": ("max", 5, 2),
}
SEPARABLE = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "sep_conv_7x7": 7}
CONVOLUTIONS = {"conv_3x3": 3, "conv_5x5": 5}
OPERATIONS = (*POOLINGS, "skip_connect", *SEPARABLE, *CONVOLUTIONS)

Tensor = Any  # a KerasTensor while the graph is built


class Pool(keras.layers.Layer):
    """Pooling with PyTorch's symmetric padding, which never enters a mean nor wins a maximum.

    Parameters
    ----------
    kind : str
        "avg" or "max".
    size, stride, padding : int
        Window, step and padding on each side, in pixels, the same in both directions.
    """

    def __init__(self, kind: str, size: int, stride: int, padding: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind, self.size, self.stride, self.padding = kind, size, stride, padding

    def call(self, x: Tensor) -> Tensor:
        maximum = self.kind == "max"
        height, width = x.shape[1:3]
        if self.padding:
            edge = (self.padding, self.padding)
            filler = -np.inf if maximum else 0.0
            x = keras.ops.pad(x, ((0, 0), edge, edge, (0, 0)), constant_values=filler)
        if maximum:
            return keras.ops.max_pool(x, self.size, self.stride, "valid")
        means = keras.ops.average_pool(x, self.size, self.stride, "valid")
        counts = np.outer(self._counts(height), self._counts(width))[None, :, :, None]
        return means * keras.ops.cast(self.size**2 / counts, means.dtype)

    def _counts(self, length: int) -> np.ndarray:
        """How many true pixels each window sees along one side of `length` pixels."""
        starts = np.arange(-self.padding, length + self.padding - self.size + 1, self.stride)
        return np.minimum(starts + self.size, length) - np.maximum(starts, 0)


class DropPath(keras.layers.Layer):
    """Drop a whole branch for some images of a batch while training (arXiv 1605.07648).

    One instance serves all branches of a network, so `rate`, the probability to drop (0 to below
    1), is one number to raise as training goes on. What is kept is scaled by 1 / (1 - rate).
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Not rounded to bfloat16 in mixed precision.
        self.rate = self.add_weight(
            shape=(), initializer="zeros", trainable=False, autocast=False, name="rate"
        )
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        if not training:
            return x
        keep = 1.0 - self.rate
        shape = (keras.ops.shape(x)[0], 1, 1, 1)
        draw = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return x * keras.ops.cast(keras.ops.floor(keep + draw) / keep, x.dtype)


class Builder:
    """Makes the parts of a network; all that is random in it comes from one seed.

    Parameters
    ----------
    seed : int
        Seed of the initial weights and of drop-path.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.drop_path = DropPath(seed, name="drop_path")

    def _initializer(self, fan_in: int) -> Callable[..., np.ndarray]:
        """PyTorch's default, with which the recipe was published; the same on every backend."""
        bound = fan_in**-0.5

        def draw(shape: tuple[int, ...], dtype: str | None = None) -> np.ndarray:
            return self._random.uniform(-bound, bound, shape).astype("float32")

        return draw

    def conv(
        self, x: Tensor, channels: int, size: int, stride: int, name: str, padded: bool = True
    ) -> Tensor:
        """A convolution without bias, padded by size // 2 on each side if `padded`."""
        x, padding = _pad(x, size, stride) if padded else (x, "valid")
        return keras.layers.Conv2D(
            channels,
            size,
            stride,
            padding,
            use_bias=False,
            kernel_initializer=self._initializer(size * size * x.shape[-1]),
            name=name,
        )(x)

    def depthwise(self, x: Tensor, size: int, stride: int, name: str) -> Tensor:
        """A convolution of each channel by itself, without bias, padded by size // 2 on each side."""
        x, padding = _pad(x, size, stride)
        return keras.layers.DepthwiseConv2D(
            size,
            stride,
            padding,
            use_bias=False,
            depthwise_initializer=self._initializer(size * size),
            name=name,
        )(x)

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        """Batch normalisation over all but the channels."""
        return keras.layers.BatchNormalization(
            momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=name
        )(x)

    def linear(self, x: Tensor, classes: int, name: str) -> Tensor:
        """Logits, (batch, classes), always in float32."""
        start = self._initializer(x.shape[-1])
        return keras.layers.Dense(
            classes,
            kernel_initializer=start,
            bias_initializer=start,
            dtype="float32",
            name=name,
        )(x)

    def relu_conv_bn(self, x: Tensor, channels: int, name: str) -> Tensor:
        """ReLU, 1x1 convolution to `channels`, batch normalisation."""
        x = self.conv(keras.ops.relu(x), channels, 1, 1, f"{name}-op-1")
        return self.batch_norm(x, f"{name}-op-2")

    def factorized_reduction(self, x: Tensor, channels: int, name: str) -> Tensor:
        """Halve height and width: two strided 1x1 convolutions, the second one pixel further on."""
        x = keras.ops.relu(x)
        near = self.conv(x, channels // 2, 1, 2, f"{name}-conv_1")
        far = self.conv(x[:, 1:, 1:, :], channels // 2, 1, 2, f"{name}-conv_2")
        return self.batch_norm(keras.ops.concatenate([near, far], axis=-1), f"{name}-bn")

    def separable(self, x: Tensor, size: int, stride: int, name: str) -> Tensor:
        """Twice: ReLU, depthwise convolution, 1x1 convolution, batch normalisation; strided once."""
        channels = x.shape[-1]
        for first, step in ((1, stride), (5, 1)):  # positions in the original's Sequential
            x = self.depthwise(keras.ops.relu(x), size, step, f"{name}-op-{first}")
            x = self.conv(x, channels, 1, 1, f"{name}-op-{first + 1}")
            x = self.batch_norm(x, f"{name}-op-{first + 2}")
        return x

    def operation(self, kind: str, x: Tensor, stride: int, name: str) -> Tensor:
        """One branch of a cell, drop-path included; the number of channels stays.

        Parameters
        ----------
        kind : str
            One of `OPERATIONS`.
        x : tensor
            (batch, height, width, channels); height and width even where `stride` is 2.
        stride : int
            1 or 2.
        name : str
            Prefix of the names of the layers.
        """
        if kind == "skip_connect" and stride == 1:
            return x  # the identity is never dropped
        channels = x.shape[-1]
        if kind in POOLINGS:
            pooling, size, padding = POOLINGS[kind]
            x = Pool(pooling, size, stride, padding, name=name)(x)
        elif kind in SEPARABLE:
            x = self.separable(x, SEPARABLE[kind], stride, name)
        elif kind in CONVOLUTIONS:
            x = self.conv(x, channels, CONVOLUTIONS[kind], stride, name)
        else:
            x = self.factorized_reduction(x, channels, name)
        return self.drop_path(x)


def _pad(x: Tensor, size: int, stride: int) -> tuple[Tensor, str]:
    """What to convolve and Keras's name for the padding left to do: size // 2 on each side."""
    if stride == 1:
        return x, "same"
    edge = (size // 2, size // 2)
    return keras.ops.pad(x, ((0, 0), edge, edge, (0, 0))), "valid"
