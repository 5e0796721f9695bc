"""The state of a chain between two samples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from sgworld_numpyro.integrators import KineticState


class Thermometer(NamedTuple):
    """What a chain's draws say of its temperature; looked at again after ten steps or more, and held in between.

    - **configurational_temperature** - (θ - θ̂)·∇U / d, by integration by parts of mean T for any fixed θ̂. That is the
      anchor of the tuning, if there is one, which is a control variate for ∇U too; else the mean of earlier draws,
      whose memory makes a short run a little too cold.
    - **fluctuation_dissipation** - h gᵀMg / 2d, with g the gradient estimator on an independent batch. Stationary
      Euler-Maruyama chains with independent batches have exactly E[(θ - Eθ)·∇U]/d - T of it. NaN for kinetic ones.
    - **centre** - the mean of the draws so far.
    - **readings** - how often it was looked at.
    - **virials** - (θ_j - θ̂_j) ∂_jU of each coordinate, the mean over all readings: T by itself, for each.
    - **squares** - sums of their squared distances from the mean.
    """

    configurational_temperature: Float[Array, ""]
    fluctuation_dissipation: Float[Array, ""]
    centre: Float[Array, "dim"]
    readings: Array
    virials: Float[Array, "dim"]
    squares: Float[Array, "dim"]


class SGState(NamedTuple):
    """State of a stochastic-gradient chain.

    - **i** - samples taken so far, warm-up included. A sample is ``steps_per_sample`` inner steps.
    - **z** - unconstrained values of the latent sites, by name.
    - **potential_energy** - minibatch potential energy in nats, mean over the sample's inner steps.
    - **step_size** - step size h of the last inner step.
    - **diverging** - whether position or energy are not finite.
    - **divergences** - how many samples were so far.
    - **integrator_state** - what the integrator keeps besides the position; None if nothing.
    - **thermometer** - see ``Thermometer``.
    - **tuning** - what was learnt before the first sample, shared by vectorized chains; None if nothing was.
    - **shuffle_key** - key of the subsampling scheme, for the whole chain.
    - **rng_key** - key of the noise, for the whole chain: noise is a function of it and of the step.
    - **kept** - what the kernel's ``keep`` and ``average`` made of the draws, see ``Kept``; None without them.
    """

    i: Array
    z: dict[str, Array]
    potential_energy: Array
    step_size: Array
    diverging: Array
    divergences: Array
    integrator_state: Any
    thermometer: Thermometer
    tuning: Any
    shuffle_key: Array
    rng_key: Array
    kept: Any = None

    @property
    def position(self) -> Array:
        """The unconstrained position as one flat vector, shape (..., dim), sites in alphabetical order."""
        batch = jnp.shape(self.i)
        leaves = [jnp.reshape(leaf, (*batch, -1)) for leaf in jax.tree.leaves(self.z)]
        return jnp.concatenate(leaves, axis=-1)

    @property
    def values(self) -> dict[str, Array]:
        """What the kernel's ``keep`` made of the last draw."""
        return self.kept.values if self.kept else {}

    @property
    def configurational_temperature(self) -> Array:
        """(θ - θ̂)·∇U / d at this draw, whose mean must be T."""
        return self.thermometer.configurational_temperature

    @property
    def fluctuation_dissipation(self) -> Array:
        """The bias of the temperature that minibatch gradients let expect: h gᵀMg / 2d at this draw."""
        return self.thermometer.fluctuation_dissipation

    @property
    def kinetic_temperature(self) -> Array:
        """|v|² / d at this draw, whose mean must be T; NaN for integrators without velocity."""
        if isinstance(self.integrator_state, KineticState):
            return self.integrator_state.kinetic_temperature
        return jnp.full_like(self.step_size, jnp.nan)
