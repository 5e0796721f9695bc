"""Looks at a model's data: small compiled pieces, driven from Python and used again.

Each is compiled once for a model and its data. One large program that did all of tuning would take as long to compile
as everything else that a user waits for.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.chain.data import Data
from sgworld_numpyro.chain.engine import Engine, steps_per_pass
from sgworld_numpyro.chain.start import check_initial_state, initial_state, state_at
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.gradients import Minibatch
from sgworld_numpyro.integrators import BAOAB
from sgworld_numpyro.linear_gaussian import knows_scheme
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.subsampling import Plate, RandomReshuffle, SubsamplingScheme
from sgworld_numpyro.tuning import warm_start
from sgworld_numpyro.tuning.estimates import Estimates
from sgworld_numpyro.tuning.warm_start import Descent

POINTS = 17  # whose energies one look takes: a place, and as many trials or draws around it
ENERGY = 1 / 3  # of the cost of a gradient
CHAINS = 4  # of the pilot
POOL = 64  # draws that are kept
RECORDED = 32  # draws of each chain in a window


class Looks:
    """The data of one run, as tuning sees them; every number is for all the data, in nats.

    Args:
        binding: the model on its data.
        seed: of a random order of the rows.
    """

    recorded = RECORDED

    def __init__(self, binding: Binding, seed: int):
        self._binding = binding
        self.target = binding.engine.target
        self.passes = 0.0  # over the data, in gradients, of everything but descents and windows
        rng = np.random.default_rng(seed)
        self.orders = {plate.name: rng.permutation(plate.size).astype(np.int32) for plate in self.target.plates}

    @property
    def plate(self) -> Plate:
        """The plate that takes most batches a pass."""
        return self.target.longest_plate

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.target.dim

    @property
    def dtype(self):
        """Of positions."""
        return self.target.dtype

    def look(self, name: str, function: Callable, *inputs: Any, once: bool = False) -> Any:
        """``function(estimates, *inputs)``, compiled under a name; ``once`` if it will be called a time or two."""

        def on_data(arguments, orders, *inputs):
            return function(Estimates(self.target, arguments, orders), *inputs)

        piece = self._binding.compiled(name, on_data, self._binding.arguments, once=once)
        return piece(self.orders, *inputs)

    def cast(self, array: np.ndarray) -> np.ndarray:
        """To the model's precision; what is beyond it becomes infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(array, self.dtype)

    def initial_positions(self, init_strategy: Callable, seed: int, given: Any) -> np.ndarray:
        """Where chains would start, shape (CHAINS, dim).

        Raises:
            ValueError: for data that are not finite, and if no valid initial values were found.
        """

        def begin(arguments, seed, given):
            keys = random.split(random.key(seed), CHAINS)
            state, valid = initial_state(self._binding.engine, init_strategy, 1.0, arguments, keys, given)
            return state.position, valid

        start = self._binding.compiled("pilot's start", begin, self._binding.arguments, once=True)
        positions, valid = start(np.int32(seed), given)
        positions = np.asarray(positions)
        check_initial_state(valid, positions[0], self._binding)
        return positions

    def descend(self, descents: Descent, first: int, last: int) -> Descent:
        """Several descents, from step ``first`` to before ``last``."""

        def all_of_them(estimates, descents, first, last):
            return jax.vmap(lambda one: warm_start.descend(estimates, one, first, last))(descents)

        return self.look("descend", all_of_them, descents, jnp.int32(first), jnp.int32(last))

    def heights(self, points: np.ndarray) -> np.ndarray:
        """Energies at points (n, dim) less that at the first of them, in double precision; NaN is made infinite."""
        first, others = points[:1], np.atleast_2d(points[1:])
        found = [np.zeros(1)]
        for start in range(0, len(others), POINTS - 1):
            some = np.concatenate([first, others[start : start + POINTS - 1]])
            padded = np.concatenate([some, np.repeat(first, POINTS - len(some), axis=0)])
            self.passes += len(some) * ENERGY
            inputs = self.cast(padded), np.int32(len(some))
            energies = self.look("heights", warm_start.above_the_first, *inputs)
            found.append(np.asarray(energies, float)[1 : len(some)])
        heights = np.concatenate(found)
        return np.where(np.isnan(heights), np.inf, heights)

    def gradient(self, position: np.ndarray) -> np.ndarray:
        """The gradient of all the data."""
        self.passes += 1
        found = self.look("gradient", lambda e, x: e.gradient(x), self.cast(position))
        return np.asarray(found, float)

    def gradients(self, positions: np.ndarray) -> np.ndarray:
        """Those at several positions (n, dim)."""

        def at_all(estimates, positions):
            return estimates.full(lambda energy: lax.map(jax.grad(energy), positions))

        self.passes += len(positions)
        return np.asarray(self.look("gradients", at_all, self.cast(positions)), float)

    def priors(self, points: np.ndarray) -> np.ndarray:
        """The part of the energies that no row enters."""

        def at_all(estimates, points):
            return lax.map(estimates.energy_without_rows, points)

        return np.asarray(self.look("priors", at_all, self.cast(points), once=True), float)

    def window_engine(self, temperature: float) -> Engine:
        """What moves the pilot chains: BAOAB on reshuffled minibatches, a pass a sample."""
        engine = self._binding.engine
        scheme = engine.subsampling if reshuffles(engine.subsampling) else RandomReshuffle()
        steps = steps_per_pass(scheme, self.target)
        return replace(
            engine,
            subsampling=scheme,
            integrator=BAOAB(),
            gradient=Minibatch(),
            temperature=temperature,
            schedule=None,
            steps=steps,
            anchor=None,
        )

    def window(self, engine: Engine, state: SGState, metric: Preconditioner, start: int, samples: int):
        """Pilot chains go on for ``recorded`` times so many samples.

        Args:
            engine: of ``window_engine``.
            state: of the chains, along the first axis.
            metric: M.
            start: samples taken before.
            samples: between two recorded draws.

        Returns:
            The state, and the positions (recorded, chains, dim).
        """
        same = engine.subsampling == self._binding.engine.subsampling

        def run(arguments, state, metric, start, samples):
            data = Data(arguments, self._binding.read(self._binding.arguments).reordered if same else {})
            moved = replace(engine, preconditioner=metric)
            chains = len(state.i)

            def sample(number, state):
                return jax.vmap(lambda one: moved.advance(one, number, data, chains))(state)

            def record(carry, _):
                number, state = carry
                state = lax.fori_loop(number, number + samples, sample, state)
                return (number + samples, state), state.position

            (_, state), positions = lax.scan(record, (start, state), None, length=self.recorded)
            return state, positions

        piece = self._binding.compiled("window", run, self._binding.arguments)
        state, positions = piece(state, metric, jnp.int32(start), jnp.int32(samples))
        return state, np.asarray(positions)

    def chains_at(self, engine: Engine, positions: np.ndarray, key: Array, step_size: float, friction: float):
        """States of pilot chains at positions (chains, dim), at rest."""
        begin = partial(_chains_at, engine)
        return self._binding.compiled("chains", begin, self._binding.arguments, once=True)(
            self.cast(positions), key, jnp.asarray([step_size, friction], self.dtype)
        )


def reshuffles(scheme: SubsamplingScheme) -> bool:
    """Whether it is one of the package's schemes whose batches make up for another's noise."""
    return knows_scheme(scheme) and scheme.redraws != "step"


def _chains_at(engine, arguments: Arguments, positions: Float[Array, "chains dim"], key, numbers):
    step_size, friction = numbers
    shuffle_keys, noise_keys = (random.split(one, len(positions)) for one in random.split(key))
    state = jax.vmap(lambda x, *keys: state_at(engine, step_size, engine.target.unravel(x), *keys))(
        positions, shuffle_keys, noise_keys
    )
    integrator = state.integrator_state
    return state._replace(integrator_state=integrator._replace(friction=jnp.full_like(integrator.friction, friction)))
