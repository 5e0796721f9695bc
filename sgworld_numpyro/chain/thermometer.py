"""Temperatures of a chain, from minibatch gradients at its draws: cheap certificates of its stationary law.

At every draw one more minibatch is taken, independent of all that moved the chain: the chain's own batches know where
they sent it, and would show another temperature.
"""

import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float, Int

from sgworld_numpyro.chain.engine import Engine
from sgworld_numpyro.chain.state import SGState, Thermometer
from sgworld_numpyro.gradients import ControlVariate, Minibatch
from sgworld_numpyro.integrators import is_kinetic
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.subsampling import IndependentBatches

# Steps after which the extra gradients are taken: they cost a tenth of the steps' at most.
STEPS = 10
_STREAM = 0x7E3B


def cold(position: Float[Array, "dim"]) -> Thermometer:
    """The thermometer of a chain without draws."""
    nothing = jnp.full((), jnp.nan, position.dtype)
    zeros = jnp.zeros_like(position)
    return Thermometer(nothing, nothing, zeros, jnp.int32(0), zeros, zeros)


def take_temperature(engine: Engine, state: SGState, sample: Int[Array, ""], arguments: Arguments) -> Thermometer:
    """The thermometer at a chain's new draw.

    Args:
        engine: how the chain advances.
        state: after the sample, its thermometer as it was before.
        sample: how many samples were taken before it.
        arguments: the model's arguments.
    """
    every = -(-STEPS // engine.steps)
    last = state.thermometer
    if every == 1:
        return _reading(engine, state, sample, arguments)
    look = sample % every == every - 1
    return lax.cond(look, lambda state: _reading(engine, state, sample, arguments), lambda state: last, state)


def _reading(engine, state, sample, arguments):
    last = state.thermometer
    target, position = engine.target, engine.target.ravel(state.z)
    keys = random.split(random.fold_in(state.shuffle_key, _STREAM), len(target.plates))
    memoryless = all(engine.subsampling.period(plate) == 1 for plate in target.plates)
    scheme = engine.subsampling if memoryless else IndependentBatches()
    rows = {
        plate.name: scheme.indices(key, sample, 1, plate)[0] for plate, key in zip(target.plates, keys, strict=True)
    }
    energy = target.energy(arguments, rows)
    own = engine.gradient(energy, engine.anchor)(position)[1]
    if engine.anchor is None:
        centre, slope = last.centre, Minibatch()(energy, None)(position)[1]
    else:
        centre, slope = engine.anchor.position, ControlVariate()(energy, engine.anchor)(position)[1]
    kick = engine.preconditioner.apply_root_transpose(own)
    lost = jnp.nan if is_kinetic(engine.integrator) else 0.5 * state.step_size
    readings, virial = last.readings + 1, (position - centre) * slope
    away = virial - last.virials
    virials = last.virials + away / readings
    return Thermometer(
        configurational_temperature=jnp.mean(virial),
        fluctuation_dissipation=lost * jnp.dot(kick, kick) / position.size,
        centre=last.centre + (position - last.centre) / readings,
        readings=readings,
        virials=virials,
        squares=last.squares + away * (virial - virials),
    )
