"""A step size for tied chains: short enough for the curvature that they meet, and neither hot nor lost."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from sgworld_numpyro.chain.binding import compiler_options
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.integrators import is_kinetic
from sgworld_numpyro.landscape.hessians import hessian_product
from sgworld_numpyro.learning_coefficient.tied_chains import TiedChains
from sgworld_numpyro.linear_gaussian import knows_integrator
from sgworld_numpyro.preconditioners import Identity
from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.step_size import Discretisation
from sgworld_numpyro.tuning.tuned_start import TuningError, scheme_of_known_law

TRIALS = 12  # step sizes at most
TOO_HOT = 0.05  # relative temperature from which a trial's step is halved
ERRORS = 3.0  # standard errors of the trial's temperature beside
SHORTER = 0.7  # a curvature that was met and asks for less than so much of the step decides over it
LOST = 0.25  # of the step, after chains have diverged
LEAST_DAMPING = 0.2  # γ/√λ: with less friction the energy of stiff directions, most of λ̂, is slow to relax
_POWER_ITERATIONS = 30
_BISECTIONS = 40


class Chosen(NamedTuple):
    """A step size, and chains that have run with it.

    Attributes:
        step_size: h.
        state: after the warm-up.
        trials: how often the warm-up was run.
    """

    step_size: float
    state: SGState
    trials: int


def choose_step(chains: TiedChains, key: Array, num_chains: int, num_warmup: int) -> Chosen:
    """The largest step size within the kernel's tolerance by the law of its scheme and integrator, tried from w₀.

    The law wants the largest curvature. It is looked for at w₀, at a point as far away as draws are, and then where the
    chains went: at a degenerate minimum it is another one there. What the law does not know shows in the temperature.

    Raises:
        ValueError: if the integrator's law is not known, or there is a preconditioner.
        TuningError: if no step of some that were tried holds the chains.
    """
    if not knows_integrator(chains.integrator):
        raise ValueError(f"integrator={chains.integrator!r} has no known law to choose a step by; give a step_size.")
    if not isinstance(chains.preconditioner, Identity):
        raise ValueError(f"preconditioner={chains.preconditioner!r} wants a step_size: one is chosen without it only.")
    curvatures = jax.jit(_largest_curvatures, compiler_options=compiler_options(once=True))
    # as many points as there are chains, so that one compilation serves
    points = jnp.stack([chains.point, *[_typical(chains)] * (num_chains - 1)])
    largest = float(curvatures(chains.potential, points).max())
    step_size, friction = _by_law(chains, largest)
    start = chains.start(key, num_chains)
    for trial in range(TRIALS):
        state, draws = chains.run(chains.with_step(start, step_size, friction), num_warmup)
        if not np.isfinite(draws.virials).all():
            step_size *= LOST
            continue
        largest = max(largest, float(curvatures(chains.potential, state.position).max()))
        lawful, friction = _by_law(chains, largest)
        halves = draws.virials[:, num_warmup // 2 :].mean(1)
        hot = halves.mean() - 1 > TOO_HOT + ERRORS * halves.std(ddof=1) / np.sqrt(num_chains)
        if not hot and lawful > SHORTER * step_size:
            return Chosen(step_size, state, trial + 1)
        step_size = min(lawful, step_size / 2 if hot else step_size)
    raise TuningError(
        f"Chains that start at w₀ are lost or too hot at every step size that was tried, down to {step_size:.1g}. Give "
        "step_size=h, larger minibatches, or a larger localisation, which keeps them where the loss curves less."
    )


def _by_law(chains, curvature):
    """The largest step size within the tolerance, for gradients as noisy as a well-specified model's, and friction."""
    plate = chains.potential.plate
    friction = max(chains.slowest_friction, LEAST_DAMPING * np.sqrt(curvature))  # of no effect without velocities
    if is_kinetic(chains.integrator) and not chains.friction_is_open:
        friction = chains.integrator.friction
    law = Discretisation(
        scheme=scheme_of_known_law(chains.scheme, plate),
        integrator=chains.integrator,
        num_rows=plate.size,
        batch_size=plate.batch_size,
        at_ends=True,
        temperature=chains.temperature,
        minibatch_noise=True,
        tolerance=chains.tolerance,
    )
    rates = Rates(curvature, curvature, 1.0, 0.0, 0.0, 0.0)
    return float(law.choose(friction, rates)), friction


def _typical(chains):
    """A point in a random direction from w₀ where the potential is by d T/2 higher, as it is of draws on average."""
    dim = len(chains.point)
    direction = random.normal(random.key(0), (dim,), chains.point.dtype)
    bottom = chains.potential.full(chains.point)
    wanted = dim * chains.temperature / 2

    @partial(jax.jit, compiler_options=compiler_options(once=True))
    def search(potential, bottom):
        def halve(_, interval):
            low, high = interval
            middle = (low + high) / 2
            below = potential.full(chains.point + jnp.exp(middle) * direction) - bottom <= wanted  # not where it is NaN
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        return lax.fori_loop(0, _BISECTIONS, halve, (jnp.float32(-20), jnp.float32(5)))[0]

    return chains.point + jnp.exp(search(chains.potential, bottom)).astype(direction.dtype) * direction


def _largest_curvatures(potential, points):
    """Of U at each point, by the power method."""

    def at(point):
        product = hessian_product(potential, point)

        def iterate(_, vector):
            image = product(vector)
            return image / jnp.linalg.norm(image)

        start = random.normal(random.key(1), point.shape, point.dtype)
        vector = lax.fori_loop(0, _POWER_ITERATIONS, iterate, start / jnp.linalg.norm(start))
        return jnp.abs(vector @ product(vector))

    return lax.map(at, points)
