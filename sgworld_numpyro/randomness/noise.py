"""The noise of step n, coordinate by coordinate, as a function of (stream, n).

Gaussian noise is the default. ``three_point`` noise (0 with probability 2/3, ±√3 with 1/6 each) has a Gaussian's
moments up to the fifth, which is all that a weak second-order integrator sees (Milstein & Tretyakov 2004,
*Stochastic Numerics for Mathematical Physics*, §2.1), and costs a fraction: use it where drawing normals takes
longer than the gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int, UInt32

from sgworld_numpyro.randomness.counter_rng import padded, threefry

NoiseName = Literal["gaussian", "three_point"]
Noise = Callable[[UInt32[Array, "2"], Int[Array, "steps"], int, jnp.dtype], Float[Array, "steps size"]]


def _words(seed: UInt32[Array, "2"], steps: Int[Array, "steps"], counters: int):
    """Two words for each of at least ``counters`` counters of every step, each of shape (steps, counters)."""
    counter = lax.iota(jnp.uint32, padded(counters))[None, :]
    return threefry(seed, steps.astype(jnp.uint32)[:, None], counter)


def gaussian(
    seed: UInt32[Array, "2"], steps: Int[Array, "steps"], size: int, dtype: jnp.dtype
) -> Float[Array, "steps size"]:
    """Standard normal noise by inversion: √2 erf⁻¹(u), u uniform on a grid symmetric about 0.

    The grid has 2²³ points in float32 (|noise| ≤ 5.3) and 2⁵² in float64.
    """
    if dtype == jnp.float64:
        word0, word1 = (word[:, :size] for word in _words(seed, steps, size))
        uniform = (word0 >> 6).astype(dtype) * 2.0**-25 + ((word1 >> 6).astype(dtype) + 0.5) * 2.0**-51 - 1.0
    else:
        words = jnp.concatenate(_words(seed, steps, -(-size // 2)), axis=1)[:, :size]
        uniform = ((words >> 9).astype(jnp.float32) + 0.5) * np.float32(2.0**-22) - 1.0
    return (np.sqrt(2).astype(uniform.dtype) * lax.erf_inv(uniform)).astype(dtype)


# 16 bits decide a coordinate. The probability of either sign is rounded to a multiple of 2^-16, and the size of
# the jump then set so that the variance is exactly 1; its fourth moment is 2.99991.
_JUMPS = 10923
_JUMP = np.sqrt(2**16 / (2 * _JUMPS))


def three_point(
    seed: UInt32[Array, "2"], steps: Int[Array, "steps"], size: int, dtype: jnp.dtype
) -> Float[Array, "steps size"]:
    """Three-point noise: 0 with probability 2/3, ±√3 with probability 1/6 each (to 2⁻¹⁶)."""
    words = jnp.concatenate(_words(seed, steps, -(-size // 4)), axis=1)
    halves = jnp.concatenate([words & jnp.uint32(0xFFFF), words >> 16], axis=1)[:, :size]
    jump = jnp.asarray(_JUMP, dtype)
    return jnp.where(halves < _JUMPS, jump, jnp.where(halves >= 2**16 - _JUMPS, -jump, jnp.zeros((), dtype)))


NOISES: dict[str, Noise] = {"gaussian": gaussian, "three_point": three_point}


def check_noise(name: str) -> None:
    """Raise ``ValueError`` for a law of noise that is not known."""
    if name not in NOISES:
        raise ValueError(f"noise={name!r} is unknown; choose one of {', '.join(map(repr, NOISES))}.")


def noise_block(
    name: NoiseName, seed: UInt32[Array, "2"], steps: Int[Array, "steps"], vectors: int, size: int, dtype
) -> Float[Array, "steps vectors size"]:
    """``vectors`` independent noise vectors for each of ``steps``."""
    draw = partial(NOISES[name], seed, steps)
    return draw(vectors * size, dtype).reshape(steps.shape[0], vectors, size)
