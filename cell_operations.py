"""The layers of the compiled program (``cell_program``), chosen while it runs, and their gradients. Plain JAX.

Arrays of images are [channels, height, width, images], so that neighbouring numbers undergo the same and a 3x3
convolution is one product of matrices: ten times faster on a CPU than XLA's own convolution of so few channels. Kernels
are [channels out, taps, channels in], of 9 taps or 1.

The gradient of convolution, batch normalisation and ReLU together is written out: the one that JAX derives of a
``lax.switch`` fills and keeps the arrays of all its branches. Tests hold it against that of Keras.
"""

from functools import partial
from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax import lax

from nasbench_dataset import cells

ABSENT = len(cells.OPERATIONS)  # a projection that the cell does not have: its result is zeros
TAPS = 9  # of a 3x3 kernel

Array = jax.Array


def _shifted(x: Array) -> Array:
    """[9 channels, pixels]: what each tap of a 3x3 kernel sees of [channels, height, width, images]."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps).reshape(TAPS * len(x), -1)


def _convolve(kind: int, x: Array, kernel: Array) -> Array:
    """A convolution without bias; by the centre of the kernel only, where ``kind`` is ``CONV1X1``."""
    if kind == cells.CONV1X1:
        z = kernel[:, kernel.shape[1] // 2] @ x.reshape(len(x), -1)
    else:
        z = kernel.reshape(len(kernel), -1) @ _shifted(x)
    return z.reshape(len(kernel), *x.shape[1:])


def _convolve_back(kind: int, x: Array, kernel: Array, dz: Array) -> tuple[Array, Array]:
    """The gradients of ``_convolve`` by x and kernel."""
    pixels, dpixels = x.reshape(len(x), -1), dz.reshape(len(dz), -1)
    if kind == cells.CONV1X1:
        centre = kernel.shape[1] // 2
        dkernel = jnp.zeros_like(kernel).at[:, centre].set(dpixels @ pixels.T)
        return (kernel[:, centre].T @ dpixels).reshape(x.shape), dkernel
    taps = _shifted(dz)  # a pixel went into its nine neighbours, by the taps in reverse
    backward = kernel[:, ::-1].transpose(2, 1, 0).reshape(len(x), -1)
    dkernel = (taps @ pixels.T).reshape(TAPS, len(dz), len(x))[::-1].transpose(1, 0, 2)
    return (backward @ taps).reshape(x.shape), dkernel


def _pool3(x: Array) -> Array:
    """Max-pooling 3x3 of stride 1, first along one side, then along the other.

    The gradient of equal maxima is shared by them; XLA's own pooling, which Keras uses, gives it to the first. In these
    networks it comes to the same: equal pixels are zeros behind a ReLU, or come out of one pixel by earlier pooling.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(int(a == axis),) * 2 for a in range(4)], constant_values=-jnp.inf)
        low, here, high = (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        x = jnp.maximum(jnp.maximum(low, here), high)
    return x


def pool2(x: Array) -> Array:
    """Max-pooling 2x2 of stride 2; where the size is odd, the last pixels stand alone."""
    for axis in (1, 2):
        odd = x.shape[axis] % 2
        x = jnp.pad(x, [(0, odd * (a == axis)) for a in range(4)], constant_values=-jnp.inf)
        x = jnp.maximum(*(lax.slice_in_dim(x, i, x.shape[axis], 2, axis) for i in (0, 1)))
    return x


def column(values: Array) -> Array:
    """[channels] to multiply or add to [channels, height, width, images]."""
    return values[:, None, None, None]


def _normalised(z: Array, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Batch normalisation and ReLU."""
    return jnp.maximum((z - column(mean)) * column(gamma * lax.rsqrt(variance + epsilon)) + column(beta), 0)


def _chosen(
    kinds: tuple[int, ...], kind: Array, convolution: Callable, pooling: Callable, absent: Callable, *inputs: Any
) -> Any:
    """The result, for ``inputs``, of what ``kinds[kind]`` names; nothing else is computed.

    ``convolution`` is told first which one it is.
    """
    others = {cells.MAXPOOL3X3: pooling, ABSENT: absent}
    return lax.switch(kind, [others.get(k) or partial(convolution, k) for k in kinds], *inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def layer(kinds: tuple[int, ...], epsilon: float, kind: Array, x: Array, kernel: Array, gamma: Array, beta: Array):
    """Convolution, batch normalisation and ReLU; or max-pooling; or, where the cell has no such layer, zeros.

    Parameters
    ----------
    kinds : tuple of int
        Static: what the layer can be: ``cells.CONV3X3``, ``CONV1X1``, ``MAXPOOL3X3`` or ``ABSENT``.
    epsilon : float
        Static: of batch normalisation.
    kind : int32
        Which of ``kinds`` it is.
    x : [channels in, height, width, images]
    kernel : [channels out, taps, channels in]
    gamma, beta : [channels out]

    Returns
    -------
    y : [channels out, height, width, images]
    mean, variance : [channels out]
        Of the batch before normalisation; 0 and 1 where nothing is normalised. Constants to the gradient.
    """
    return _forward(kinds, epsilon, kind, x, kernel, gamma, beta)[0]


def _forward(kinds, epsilon, kind, x, kernel, gamma, beta):
    """``layer``, and what ``_backward`` needs."""
    zeros, ones = jnp.zeros_like(beta), jnp.ones_like(beta)

    def convolution(operation, x, kernel, gamma, beta):
        z = _convolve(operation, x, kernel)
        mean = z.mean((1, 2, 3))
        variance = jnp.maximum((z * z).mean((1, 2, 3)) - mean * mean, 0)  # as Keras computes it
        return _normalised(z, mean, variance, gamma, beta, epsilon), z, mean, variance

    def pooling(x, kernel, gamma, beta):
        return _pool3(x), jnp.zeros_like(x), zeros, ones

    def absent(x, kernel, gamma, beta):
        nothing = jnp.zeros((len(kernel), *x.shape[1:]), x.dtype)
        return nothing, nothing, zeros, ones

    y, z, mean, variance = _chosen(kinds, kind, convolution, pooling, absent, x, kernel, gamma, beta)
    return (y, mean, variance), (kind, x, z, mean, variance, kernel, gamma, beta)


def _backward(kinds, epsilon, kept, gradients):
    """The gradients of ``layer`` by its arrays."""
    kind, *kept = kept

    def convolution(operation, x, z, mean, variance, kernel, gamma, beta, dy):
        deviation = lax.rsqrt(variance + epsilon)
        normal = (z - column(mean)) * column(deviation)
        dy = jnp.where(normal * column(gamma) + column(beta) > 0, dy, 0)
        dbeta, dgamma = dy.sum((1, 2, 3)), (dy * normal).sum((1, 2, 3))
        pixels = z[0].size
        dz = column(gamma * deviation) * (dy - (column(dbeta) + normal * column(dgamma)) / pixels)
        return *_convolve_back(operation, x, kernel, dz), dgamma, dbeta

    def pooling(x, z, mean, variance, kernel, gamma, beta, dy):
        return jax.vjp(_pool3, x)[1](dy)[0], jnp.zeros_like(kernel), jnp.zeros_like(gamma), jnp.zeros_like(beta)

    def absent(x, z, mean, variance, kernel, gamma, beta, dy):
        return jnp.zeros_like(x), jnp.zeros_like(kernel), jnp.zeros_like(gamma), jnp.zeros_like(beta)

    return None, *_chosen(kinds, kind, convolution, pooling, absent, *kept, gradients[0])


layer.defvjp(_forward, _backward)


def layer_outside_training(kinds, epsilon, kind, x, kernel, gamma, beta, mean, variance) -> Array:
    """``layer`` with running means and variances."""

    def convolution(operation):
        return _normalised(_convolve(operation, x, kernel), mean, variance, gamma, beta, epsilon)

    def absent():
        return jnp.zeros((len(kernel), *x.shape[1:]), x.dtype)

    return _chosen(kinds, kind, convolution, lambda: _pool3(x), absent)
