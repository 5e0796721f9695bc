"""Leimkuhler-Matthews: θ' = θ - h M g + √(hT/2) M^½ (ξ_n + ξ_{n+1})."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from sgworld_numpyro.randomness.noise import NoiseName, check_noise


@dataclass(frozen=True)
class LeimkuhlerMatthews:
    """Euler-Maruyama with the average of two successive noises (Leimkuhler & Matthews 2013, AMRX).

    Second order in the step size for the stationary law, exact on Gaussians, at no extra cost. Its state is the
    noise of the step before.
    """

    noise: NoiseName = "gaussian"
    noise_vectors: ClassVar[int] = 1
    name: ClassVar[str] = "leimkuhler_matthews"
    kinetic: ClassVar[bool] = False
    bias_order: ClassVar[int] = 2

    def __post_init__(self):
        check_noise(self.noise)

    def variance_error(self, step):
        return 0.0

    def init(self, position):
        return jnp.zeros_like(position)

    def step(self, gradient, position, state, noise, step_size, temperature, preconditioner):
        energy, force = gradient(position)
        position = position - step_size * preconditioner.apply(force)
        if noise is not None:
            kick = preconditioner.apply_root(state + noise[0])
            position, state = position + jnp.sqrt(0.5 * temperature * step_size) * kick, noise[0]
        return position, state, energy
