"""Temperatures of a chain, from minibatch gradients at its draws: cheap certificates of its stationary law.

At every draw one more minibatch is taken, independent of all that moved the chain: the chain's own batches know where
they sent it, and would show another temperature.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Float, Int

from sgworld_numpyro.chain.engine import Chain, Engine
from sgworld_numpyro.gradients import ControlVariate, Minibatch
from sgworld_numpyro.integrators import is_kinetic
from sgworld_numpyro.model.target import Arguments
from sgworld_numpyro.subsampling import IndependentBatches

# Steps a sample from which on the extra gradients are taken: they cost a tenth of the steps' at most.
MIN_STEPS = 10
_STREAM = 0x7E3B


class Thermometer(NamedTuple):
    """What a chain's draws say of its temperature. NaN if a sample has fewer than ten steps.

    - **configurational_temperature** - (θ - θ̂)·∇U / d, by integration by parts of mean T for any fixed θ̂. That is the
      anchor of the tuning, if there is one, which is a control variate for ∇U too; else the mean of earlier draws,
      whose memory makes a short run a little too cold.
    - **fluctuation_dissipation** - h gᵀMg / 2d, with g the gradient estimator on an independent batch. Stationary
      Euler-Maruyama chains with independent batches have exactly E[(θ - Eθ)·∇U]/d - T of it. NaN for kinetic ones.
    - **centre** - the mean of the draws so far.
    """

    configurational_temperature: Float[Array, ""]
    fluctuation_dissipation: Float[Array, ""]
    centre: Float[Array, "dim"]


def cold(position: Float[Array, "dim"]) -> Thermometer:
    """The thermometer of a chain without draws."""
    nothing = jnp.full((), jnp.nan, position.dtype)
    return Thermometer(nothing, nothing, jnp.zeros_like(position))


def take_temperature(
    engine: Engine, chain: Chain, sample: Int[Array, ""], shuffle_key: Array, arguments: Arguments, last: Thermometer
) -> Thermometer:
    """The thermometer at a chain's new draw.

    Args:
        engine: how the chain advances.
        chain: after the sample.
        sample: how many samples were taken before it.
        shuffle_key: of the chain.
        arguments: the model's arguments.
        last: the thermometer before the sample.
    """
    if engine.steps < MIN_STEPS:
        return last
    target, position = engine.target, chain.position
    keys = random.split(random.fold_in(shuffle_key, _STREAM), len(target.plates))
    memoryless = all(engine.subsampling.period(plate) == 1 for plate in target.plates)
    scheme = engine.subsampling if memoryless else IndependentBatches()
    rows = {
        plate.name: scheme.indices(key, sample, 1, plate)[0] for plate, key in zip(target.plates, keys, strict=True)
    }
    taken = {slot: target.take(slot, arguments.leaves[slot.leaf], rows[slot.plate]) for slot in target.slots}

    def potential(x):
        return target.potential(target.unravel(x), arguments, rows, taken).astype(x.dtype)

    own = engine.gradient(potential, engine.anchor)(position)[1]
    if engine.anchor is None:
        centre, slope = last.centre, Minibatch()(potential, None)(position)[1]
    else:
        centre, slope = engine.anchor.position, ControlVariate()(potential, engine.anchor)(position)[1]
    kick = engine.preconditioner.apply_root_transpose(own)
    lost = jnp.nan if is_kinetic(engine.integrator) else 0.5 * chain.step_size
    return Thermometer(
        jnp.dot(position - centre, slope) / position.size,
        lost * jnp.dot(kick, kick) / position.size,
        last.centre + (position - last.centre) / (sample + 1),
    )
