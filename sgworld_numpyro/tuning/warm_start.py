"""From anywhere to near the mode: Adam on minibatches, then Newton steps on all the data."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.subsampling import Plate
from sgworld_numpyro.tuning import flat
from sgworld_numpyro.tuning.estimates import Estimates

PASSES = 10  # of Adam, within these bounds
ADAM_STEPS = 2000, 10_000
FIRST_STEP = 0.02  # of Adam, in the unconstrained coordinates; less in many dimensions
DECAYS = 0.9, 0.999  # of Adam, and what it adds to its scale, as its authors chose them
TINY = 1e-8
SUM_OF_STEPS = 0.6  # of the norm of a step that moves all coordinates
NEWTON_STEPS = 8
FAR = 25.0  # squared posterior sds a dimension: a descent that ends further from the mode has not found it
NEAR = 0.1  # squared distance from the mode in posterior sds, a dimension: near enough
FRACTIONS = np.append(0.5 ** np.arange(10), 0.0)  # of a Newton step, of which the best is taken


def adam_steps(plate: Plate) -> int:
    """How many minibatches Adam takes."""
    return int(np.clip(PASSES * plate.batches, *ADAM_STEPS))


class Descent(NamedTuple):
    """Where Adam is on its way.

    - **position** - where it is.
    - **sound** - the last position with a finite gradient, coordinate by coordinate: where the descent has led.
    - **mean**, **squares** - of the gradients, as Adam keeps them.
    """

    position: Float[Array, "dim"]
    sound: Float[Array, "dim"]
    mean: Float[Array, "dim"]
    squares: Float[Array, "dim"]

    @classmethod
    def at(cls, start: Float[Array, "dim"]) -> "Descent":
        """Before its first step."""
        nothing = jnp.zeros_like(start)
        return cls(start, start, nothing, nothing)


def descend(estimates: Estimates, descent: Descent, first: int | Array, last: int | Array) -> Descent:
    """Adam (Kingma & Ba 2015, ICLR) on minibatches of the plates' sizes, its steps falling to 0 along a cosine.

    A coordinate in which a minibatch has no finite gradient goes back to where it last had one, without momentum: if it
    stayed where it is, it would find no gradient there ever again.

    Args:
        estimates: the model on its data.
        descent: so far.
        first: step to begin with, of ``adam_steps``.
        last: step to stop before.
    """
    dim, steps, size = descent.position.size, adam_steps(estimates.plate), estimates.plate.batch_size
    first_step = min(FIRST_STEP, SUM_OF_STEPS / np.sqrt(dim))
    keep, keep_squares = DECAYS

    def step(number, descent):
        position, sound, mean, squares = descent
        gradient = estimates.sum_over_groups(lambda energy: jax.grad(energy)(position), number, 1, size, dim)
        finite = jnp.isfinite(gradient)
        mean = jnp.where(finite, keep * mean + (1 - keep) * gradient, 0.0)
        squares = jnp.where(finite, keep_squares * squares + (1 - keep_squares) * gradient**2, squares)
        scale = jnp.sqrt(squares / (1 - keep_squares ** (number + 1))) + TINY
        rate = first_step * 0.5 * (1 + jnp.cos(jnp.pi * number / steps))
        onward = position - rate * mean / (1 - keep ** (number + 1)) / scale
        sound = jnp.where(finite, position, sound)
        return Descent(jnp.where(finite, onward, sound), sound, mean, squares)

    return lax.fori_loop(first, last, step, descent)


def trials(
    position: Float[Array, "dim"], gradient: Float[Array, "dim"], metric: Preconditioner
) -> Float[Array, "fractions dim"]:
    """θ - a M ∇U for the fractions a of a Newton step, θ itself last; θ alone if that step is not finite."""
    direction = metric.apply(gradient)
    direction = jnp.where(jnp.all(jnp.isfinite(direction)), direction, 0.0)
    return position - jnp.asarray(FRACTIONS, position.dtype)[:, None] * direction


def lowest(positions: Float[Array, "trials dim"], energies: Float[Array, "trials"]) -> Float[Array, "dim"]:
    """The position of least energy, of those whose energy is finite."""
    return positions[jnp.argmin(jnp.where(jnp.isfinite(energies), energies, jnp.inf))]


def above_the_first(
    estimates: Estimates, positions: Float[Array, "points dim"], count: int | Array
) -> Float[Array, "points"]:
    """Energies of the first so many positions, less that of the first of all; 0 for the others.

    Less in every block of rows: of large sums little would be left.
    """

    def above(energy):
        nothing = jnp.zeros(len(positions), positions.dtype)
        energies = lax.fori_loop(0, count, lambda n, all: all.at[n].set(energy(positions[n])), nothing)
        return energies - energies[0]

    return jnp.where(jnp.arange(len(positions)) < count, estimates.full(above), 0.0)


class Nearness(NamedTuple):
    """Where a descent ended.

    Attributes:
        position: near the mode.
        gradient: that of all the data there.
        learnt: what was learnt there.
        distance: |Lᵀ∇U|² / d, the squared distance from the mode in posterior sds, a dimension, if M ≈ H⁻¹.
        following: where one more Newton step leads.
        steps: Newton steps taken on the way.
        probed: where flat directions would show from there.
        heights: the energies there, less that at the position; known if there may be Newton steps.
    """

    position: Float[Array, "dim"]
    gradient: Float[Array, "dim"]
    learnt: tuple
    distance: Float[Array, ""]
    following: Float[Array, "dim"]
    steps: Array
    probed: flat.Probe
    heights: Float[Array, "points"]


def approach(estimates: Estimates, position: Float[Array, "dim"], learn: Callable, newton_steps: int) -> Nearness:
    """Newton steps until the mode is near.

    Args:
        estimates: the model on its data.
        position: where to start.
        learn: from position and gradient to a tuple whose first entry has the metric M to take a step in.
        newton_steps: how many at most.
    """

    def look(start):
        gradient = estimates.gradient(start.following)
        learnt = learn(start.following, gradient)
        metric = learnt[0].preconditioner
        distance = jnp.mean(metric.apply_root_transpose(gradient) ** 2)
        probed = flat.probe(start.following, gradient, metric, learnt[0].scale)
        here = Nearness(start.following, gradient, learnt, distance, start.following, start.steps + 1, probed, nothing)
        if not newton_steps:
            return here
        # Compiled with the line search, which has no other use for the model's energies: a copy of the model less.
        tried = trials(start.following, gradient, metric)
        tries = len(tried)
        points = jnp.concatenate([tried[-1:], tried[:-1], probed.points[1:]])
        energies = above_the_first(estimates, points, jnp.where(far(here), tries, len(points)))
        following = lowest(tried, jnp.append(energies[1:tries], energies[0]))
        return here._replace(following=following, heights=jnp.append(energies[0], energies[tries:]))

    def far(here):
        return (here.steps < 0) | ((here.distance > NEAR) & (here.steps < newton_steps))

    # The loop begins with no look at all, so that what a look takes is compiled once.
    nothing = jnp.full(flat.ENERGIES, jnp.nan, position.dtype)
    unseen = flat.Probe(position, position, position)
    nowhere = Nearness(position, position, (), jnp.zeros((), position.dtype), position, jnp.int32(-1), unseen, nothing)
    shapes = jax.eval_shape(look, nowhere)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.while_loop(far, look, start._replace(following=position, steps=jnp.int32(-1)))
