"""BAOAB: kick, drift, Ornstein-Uhlenbeck, drift, kick, with one gradient a step."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from sgworld_numpyro.integrators.kinetic import KineticState, check_friction, initial_friction
from sgworld_numpyro.randomness.noise import NoiseName, check_noise


@dataclass(frozen=True)
class BAOAB:
    """The splitting of kinetic Langevin dynamics of Leimkuhler & Matthews (2013, AMRX), on minibatches.

    In the coordinates q = L⁻¹θ, with unit mass, f = Lᵀg and a = e^{-γh},

        v -= (h/2) f_last;  q += (h/2) v;  v = a v + √(T(1 - a²)) ξ;  q += (h/2) v;  v -= (h/2) f(q).

    The last kick and the next step's first use the same gradient, so a step costs one. Without minibatch noise it is
    exact on Gaussians. ``step_size`` is a time here: h√λ must stay below 2.

    Stochastic-gradient HMC (Chen, Fox & Guestrin 2014, ICML) is this dynamics in a first-order splitting: its momentum
    decay α and learning rate η are γh and h² here.

    Args:
        friction: γ, per unit of time; None leaves it to tuning.
        noise: the law of its noise.

    Raises:
        ValueError: if the friction is not positive and finite, or the noise not known.
    """

    friction: float | None = None
    noise: NoiseName = "gaussian"
    noise_vectors: ClassVar[int] = 1
    name: ClassVar[str] = "baoab"
    kinetic: ClassVar[bool] = True
    bias_order: ClassVar[int] = 2

    def __post_init__(self):
        check_friction("BAOAB", self.friction)
        check_noise(self.noise)

    def variance_error(self, step):
        return 0.0

    def init(self, position):
        rest = jnp.zeros_like(position)
        return KineticState(rest, rest, initial_friction(self.friction, position))

    def step(self, gradient, position, state, noise, step_size, temperature, preconditioner):
        velocity, force, friction = state
        before = velocity - 0.5 * step_size * force
        velocity = jnp.exp(-friction * step_size) * before
        if noise is not None:
            velocity = velocity + jnp.sqrt(-temperature * jnp.expm1(-2 * friction * step_size)) * noise[0]
        position = position + preconditioner.apply_root(0.5 * step_size * (before + velocity))
        energy, gradient_there = gradient(position)
        force = preconditioner.apply_root_transpose(gradient_there)
        return position, KineticState(velocity - 0.5 * step_size * force, force, friction), energy
