"""UBU: half a step of the exact free flow, a full kick, half a step of the exact free flow."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from sgworld_numpyro.integrators.kinetic import KineticState, check_friction, initial_friction
from sgworld_numpyro.randomness.noise import NoiseName, check_noise

# Below this a = γh/2 the difference of exponentials in s² loses more digits than its series Σ c_n a^n, n from 3 on.
SMALL = 0.5
SERIES = [(4 * (-1) ** n - (-2) ** n) / math.factorial(n) for n in range(3, 13)]


@dataclass(frozen=True)
class UBU:
    """The splitting of kinetic Langevin dynamics of Zapatero (2017), strongly second order, on minibatches.

    In the coordinates q = L⁻¹θ, with unit mass and f = Lᵀg: U(h/2); v -= h f(q); U(h/2), where U(h/2) is the exact
    free Ornstein-Uhlenbeck flow, with a = γh/2 and fresh ξ₁, ξ₂

        q += (1 - e^{-a})/γ v + √T (s/γ) ξ₁;  v = e^{-a} v + √T (c₁ ξ₁ + c₂ ξ₂),

        s² = 4 expm1(-a) - expm1(-2a) + 2a;  c₁ = (1 - e^{-a})²/s;  c₁² + c₂² = 1 - e^{-2a}.

    On Gaussians with full gradients its relative variance error is -h²λ/6; the gradient is taken at the midpoint.
    ``step_size`` is a time here, as in ``BAOAB``, whose docstring has the mapping to stochastic-gradient HMC.

    Source: Sanz-Serna & Zygalakis 2021, "Wasserstein distance estimates for the distributions of numerical
    approximations to ergodic stochastic differential equations", JMLR 22; on minibatches Paulin et al. 2410.19780.

    Args:
        friction: γ, per unit of time; None leaves it to tuning.
        noise: the law of its noise.

    Raises:
        ValueError: if the friction is not positive and finite, or the noise not known.
    """

    friction: float | None = None
    noise: NoiseName = "gaussian"
    noise_vectors: ClassVar[int] = 4
    name: ClassVar[str] = "ubu"
    kinetic: ClassVar[bool] = True
    bias_order: ClassVar[int] = 2

    def __post_init__(self):
        check_friction("UBU", self.friction)
        check_noise(self.noise)

    def variance_error(self, step):
        return step**2 / 6

    def init(self, position):
        return KineticState(jnp.zeros_like(position), (), initial_friction(self.friction, position))

    def step(self, gradient, position, state, noise, step_size, temperature, preconditioner):
        velocity, _, friction = state
        halves = (None, None) if noise is None else (noise[:2], noise[2:])
        moved, velocity = _free_flow(velocity, friction, step_size, temperature, halves[0])
        position = position + preconditioner.apply_root(moved)
        energy, gradient_there = gradient(position)
        velocity = velocity - step_size * preconditioner.apply_root_transpose(gradient_there)
        moved, velocity = _free_flow(velocity, friction, step_size, temperature, halves[1])
        position = position + preconditioner.apply_root(moved)
        return position, KineticState(velocity, (), friction), energy


def _free_flow(velocity, friction, step_size, temperature, noise):
    """Displacement of q and the new velocity after the time h/2."""
    a = 0.5 * friction * step_size
    moved = -jnp.expm1(-a) / friction * velocity
    velocity = jnp.exp(-a) * velocity
    if noise is None:
        return moved, velocity
    series = a**3 * jnp.polyval(jnp.asarray(SERIES[::-1], a.dtype), jnp.minimum(a, SMALL))
    s = jnp.sqrt(jnp.where(a < SMALL, series, 4 * jnp.expm1(-a) - jnp.expm1(-2 * a) + 2 * a))
    c1 = jnp.expm1(-a) ** 2 / s
    # 1 - e^{-2a} - c₁² = a/2 - … is a difference of numbers of its own size: no digits are lost.
    c2 = jnp.sqrt(-jnp.expm1(-2 * a) - c1**2)
    root_temperature = jnp.sqrt(temperature)
    moved = moved + root_temperature * s / friction * noise[0]
    return moved, velocity + root_temperature * (c1 * noise[0] + c2 * noise[1])
