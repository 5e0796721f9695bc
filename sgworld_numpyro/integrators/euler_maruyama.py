"""Euler-Maruyama: θ' = θ - h M g + √(2hT) M^½ ξ."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from sgworld_numpyro.randomness.noise import NoiseName, check_noise


@dataclass(frozen=True)
class EulerMaruyama:
    """The scheme of SGLD (Welling & Teh 2011) and of arXiv 2306.03521.

    With full gradients its relative variance error is hλ/2.
    """

    noise: NoiseName = "gaussian"
    noise_vectors: ClassVar[int] = 1
    name: ClassVar[str] = "euler_maruyama"
    kinetic: ClassVar[bool] = False
    bias_order: ClassVar[int] = 1

    def __post_init__(self):
        check_noise(self.noise)

    def variance_error(self, step):
        return step / (2 - step)

    def init(self, position):
        return ()

    def step(self, gradient, position, state, noise, step_size, temperature, preconditioner):
        energy, force = gradient(position)
        position = position - step_size * preconditioner.apply(force)
        if noise is not None:
            position = position + jnp.sqrt(2 * temperature * step_size) * preconditioner.apply_root(noise[0])
        return position, state, energy
