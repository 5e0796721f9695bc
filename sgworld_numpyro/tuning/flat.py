"""Whether the potential rises whichever way one goes from the mode, as it does in a posterior that has a normalisation.

Tried are the direction of least curvature, both ways, where neither data nor priors may say anything, and, with a dense
metric, that of a Newton step, down which a likelihood without a maximum leads for ever by steps that look small.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from sgworld_numpyro.preconditioners import Diagonal, Preconditioner
from sgworld_numpyro.tuning.estimates import Estimates
from sgworld_numpyro.tuning.step_size import numpy_of

SDS = 3.0, 30.0  # how far to go, in sds of the metric: in a Gaussian the potential rises by 4.5 and by 450 nats
RISE = 0.5  # nats; even the tails of a Cauchy distribution rise by 7 on the longer way
FALLS = 10.0  # nats: less is the tail of a likelihood without a maximum, more the side of a valley
DIGITS = 0.01  # of a coordinate's own scale that rounding may move it by
ENERGIES = 1 + 3 * len(SDS)  # that a probe takes
ITERATIONS = 30  # of the power method


class Rise(NamedTuple):
    """The direction in which the potential rises least.

    Attributes:
        direction: a step that way, in the unconstrained coordinates.
        nats: by which it rises over ``SDS`` that way, the larger of both.
    """

    direction: Float[Array, "dim"]
    nats: Float[Array, ""]


class Probe(NamedTuple):
    """Where the potential is looked at.

    Attributes:
        points: (points, dim), the starting point first, then the nearer and the farther one of each direction.
        beyond: where ``SDS`` lead, likewise without the first; farther off than ``points`` if those are held back.
        directions: one sd of the metric each.
    """

    points: Any
    beyond: Any
    directions: Any


def probe(
    position: Float[Array, "dim"],
    gradient: Float[Array, "dim"],
    metric: Preconditioner,
    scale: Float[Array, "dim"],
) -> Probe:
    """Where to look, from a position.

    Args:
        position: near the mode.
        gradient: of all the data there.
        metric: M.
        scale: of each coordinate, given the others.
    """
    flattest = _flattest(metric, scale)
    # with a diagonal metric the descent may end on a slope, down which Newton steps lead in any posterior
    down = jnp.zeros_like(position) if isinstance(metric, Diagonal) else _newton(metric, gradient)
    return probe_along(position, flattest, down, scale, float(jnp.finfo(position.dtype).eps))


def probe_along(
    position: Any,
    flattest: Any,
    down: Any,
    scale: Any,
    epsilon: float,
) -> Probe:
    """Where to look, from a position, both ways along one direction and one way along another; traced or not.

    Args:
        position: near the mode.
        flattest: the direction of least curvature, one sd of the metric long.
        down: that of a Newton step, likewise.
        scale: of each coordinate, given the others.
        epsilon: of the numbers that the potential is computed with.
    """
    xp = numpy_of(position)
    ways = xp.stack([flattest, -flattest, down])
    # farther off, rounding of the coordinates looks like a potential that rises
    with np.errstate(divide="ignore"):  # of a direction of no length
        farthest = DIGITS / epsilon / xp.max(xp.abs(ways) / scale, axis=1)
    sds = xp.asarray(SDS, position.dtype)
    held = xp.minimum(sds, farthest[:, None])

    def places(sds):
        return (position + sds[:, :, None] * ways[:, None, :]).reshape(-1, position.size)

    points = xp.concatenate([position[None], places(held)])
    return Probe(points, places(xp.broadcast_to(sds, held.shape)), ways)


def least_rise(estimates: Estimates, where: Probe, energies: Float[Array, "points"]) -> Rise:
    """The direction of least rise, given the energies at the points of a probe."""
    others = jnp.concatenate([where.points[1:], where.beyond])
    return rise_of(where, energies, lax.map(estimates.energy_without_rows, others))


def rise_of(where: Probe, energies: Any, priors: Any) -> Rise:
    """The direction of least rise.

    Args:
        where: the potential was looked at.
        energies: at its points.
        priors: what no row enters, at its points but for the first, and beyond.
    """
    xp = numpy_of(energies, priors)
    # What the points are held back from is left to the priors: they are as exact there as anywhere.
    priors = xp.asarray(priors).reshape(2, -1)
    with np.errstate(invalid="ignore"):  # of two that are infinite
        beyond = xp.where(priors[1] == priors[0], 0.0, priors[1] - priors[0])
    rises = energies[1:] - energies[0] + beyond
    rises = xp.where(xp.isfinite(rises), rises, xp.inf).reshape(-1, len(SDS)).max(axis=1)
    # a direction of no length, at a mode that is met exactly, says nothing
    rises = xp.where(xp.any(where.directions != 0, axis=1), rises, xp.inf)
    least = xp.argmin(rises)
    return Rise(where.directions[least], rises[least])


def _flattest(metric, scale):
    """One sd of the metric along its longest axis in units of the coordinates' own scales."""
    if isinstance(metric, Diagonal):
        root = jnp.sqrt(metric.diagonal)
        return jnp.where(jnp.arange(root.size) == jnp.argmax(root), root, 0.0)

    def iterate(_, vector):
        image = metric.apply(vector / scale) / scale
        return image / jnp.linalg.norm(image)

    start = jnp.asarray(np.random.default_rng(0).normal(size=scale.shape), scale.dtype)  # any
    axis = lax.fori_loop(0, ITERATIONS, iterate, start / jnp.linalg.norm(start))
    return scale * axis * jnp.linalg.norm(metric.apply_root_transpose(axis / scale))


def _newton(metric, gradient):
    """The direction of a Newton step, one sd long; 0 at a mode that is met exactly."""
    length = jnp.linalg.norm(metric.apply_root_transpose(gradient))
    step = metric.apply(gradient) / length
    return jnp.where(jnp.all(jnp.isfinite(step)), -step, 0.0)
