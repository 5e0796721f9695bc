"""The state of a stochastic-gradient chain: what it holds, how it starts, how a sample advances it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.util import is_prng_key

from sgworld_numpyro.chain.binding import initial_values
from sgworld_numpyro.chain.engine import Chain, Engine
from sgworld_numpyro.chain.thermometer import Thermometer, cold, take_temperature
from sgworld_numpyro.integrators import KineticState
from sgworld_numpyro.model.target import Arguments


class SGState(NamedTuple):
    """State of a stochastic-gradient chain.

    - **i** - samples taken so far, warm-up included. A sample is ``steps_per_sample`` inner steps.
    - **z** - unconstrained values of the latent sites, by name.
    - **potential_energy** - minibatch potential energy in nats, mean over the sample's inner steps.
    - **step_size** - step size h of the last inner step.
    - **diverging** - whether position or energy are not finite.
    - **divergences** - how many samples were so far.
    - **integrator_state** - what the integrator keeps besides the position.
    - **thermometer** - see ``Thermometer``.
    - **tuning** - what was learnt before the first sample, shared by vectorized chains; () if nothing was.
    - **shuffle_key** - key of the subsampling scheme, for the whole chain.
    - **rng_key** - key of the noise, for the whole chain: noise is a function of it and of the step.
    - **kept** - what the kernel's ``keep`` and ``average`` made of the draws, see ``Kept``; () without them.
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
    kept: Any = ()

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


def with_learnt(engine: Engine, tuning: Any) -> Engine:
    """The engine with what was learnt in place; it may be traced."""
    if not tuning:
        return engine
    return replace(engine, preconditioner=tuning.preconditioner or engine.preconditioner, anchor=tuning.anchor)


def start(engine: Engine, init_strategy: Callable, step_size, arguments: Arguments, rng_key, init_params):
    """The initial state for one key or several, and whether it is valid."""
    single = is_prng_key(rng_key)

    def split(key):
        return tuple(random.split(key, 3))

    noise_key, init_key, shuffle_key = split(rng_key) if single else jax.vmap(split)(rng_key)
    z, valid = initial_values(engine, init_strategy, arguments, init_key, init_params)

    def state(z, shuffle_key, noise_key):
        dtype = engine.target.dtype
        position = engine.target.ravel(z)
        return SGState(
            i=jnp.int32(0),
            z=z,
            potential_energy=jnp.zeros((), dtype),
            step_size=jnp.asarray(step_size, dtype),
            diverging=jnp.array(False),
            divergences=jnp.int32(0),
            integrator_state=engine.integrator.init(position),
            thermometer=cold(position),
            tuning=(),
            shuffle_key=shuffle_key,
            rng_key=noise_key,
        )

    return (state if single else jax.vmap(state))(z, shuffle_key, noise_key), valid


def advance(engine: Engine, state: SGState, i: Array, arguments: Arguments, reordered, chains: int) -> SGState:
    """The state after one sample; ``i`` is the state's own, not batched over chains."""
    engine = with_learnt(engine, state.tuning)
    chain = Chain(engine.target.ravel(state.z), state.integrator_state, state.step_size, state.potential_energy)
    chain = engine.advance(chain, i, state.shuffle_key, state.rng_key, arguments, reordered, chains)
    sound = jnp.all(jnp.isfinite(chain.position)) & jnp.isfinite(chain.energy) & (chain.step_size > 0)
    diverging = ~sound
    thermometer = take_temperature(engine, chain, i, state.shuffle_key, arguments, state.thermometer)
    return state._replace(
        i=state.i + 1,
        z=engine.target.unravel(chain.position),
        potential_energy=chain.energy,
        step_size=chain.step_size,
        diverging=diverging,
        divergences=state.divergences + diverging,
        integrator_state=chain.integrator_state,
        thermometer=thermometer,
    )
