"""What the kinetic (underdamped) integrators share: their state, and friction that may be left to tuning."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float


class KineticState(NamedTuple):
    """State of a kinetic integrator, in the coordinates q = L⁻¹θ of the preconditioner M = L Lᵀ, with unit mass.

    - **velocity** - v = dq/dt; standard normal times √T in equilibrium.
    - **force** - Lᵀ times the last gradient, where the integrator uses it again; else ().
    - **friction** - γ, per unit of time.
    """

    velocity: Float[Array, "dim"]
    force: Any
    friction: Float[Array, ""]

    @property
    def kinetic_temperature(self) -> Float[Array, ""]:
        """|v|² / d, whose mean is T in equilibrium."""
        return jnp.mean(jnp.square(self.velocity), axis=-1)


def is_kinetic(integrator: Any) -> bool:
    """Whether an integrator has velocities: its state is then a ``KineticState``, and it has a ``friction``.

    One whose class does not say is taken for kinetic if it has a ``friction``.
    """
    return vars(type(integrator)).get("kinetic", hasattr(integrator, "friction"))


def check_friction(name: str, friction: float | None) -> None:
    """Raise ``ValueError`` unless the friction is positive and finite, or left to tuning."""
    number = isinstance(friction, int | float | np.number) and not isinstance(friction, bool)
    if friction is not None and not (number and np.isfinite(friction) and friction > 0):
        raise ValueError(
            f"{name} got friction={friction!r}, wants a positive number, or None to have it tuned; 2√λ is critical "
            "for a direction of curvature λ."
        )


def initial_friction(friction: float | None, position) -> Float[Array, ""]:
    """The friction as an array; NaN until it is tuned."""
    return jnp.asarray(jnp.nan if friction is None else friction, position.dtype)
