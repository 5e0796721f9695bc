"""Looks at a model of very many dimensions, of which no matrix is made."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.typing import ArrayLike
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from sgworld_numpyro.preconditioners import Diagonal, Preconditioner
from sgworld_numpyro.tuning import curvature, flat
from sgworld_numpyro.tuning.curvature import Rates, of_rows, of_single_rows
from sgworld_numpyro.tuning.estimates import product
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.looks import Looks

GROUPS = 32  # of rows, whose energies are compared between chains
SOME_GROUPS = 256  # of rows, whose gradients' squares are then known to some 10 %
SMALL_GROUPS = 1024  # of rows, whose gradients and Hessians scatter; what is found of both has less error in small ones
KRYLOV = 10  # vectors, of the largest curvature
ACCURACY = 0.05  # of it, relatively
RESTARTS = 5


class Slopes(NamedTuple):
    """Gradients and curvatures at several positions.

    Attributes:
        gradients: of all the data.
        curvatures: Cov_i(g_i)/N and the priors' curvature, of each coordinate.
    """

    gradients: Float[np.ndarray, "positions dim"]
    curvatures: Float[np.ndarray, "positions dim"]


class DiagonalLooks(Looks):
    """Those at a model of very many dimensions."""

    recorded = 16

    def slopes(self, positions: np.ndarray) -> Slopes:
        """Gradients and curvatures at positions (n, dim)."""
        self.passes += 2 * len(positions)
        keys = random.split(random.key(2), len(positions))
        found = self.look("slopes", _slopes, self.cast(positions), keys)
        return Slopes(*map(np.asarray, found))

    def rates(
        self,
        position: np.ndarray,
        gradient: np.ndarray,
        preconditioner: Preconditioner,
        temperature: float,
        start: np.ndarray | None,
    ) -> tuple[Rates, np.ndarray]:
        """What decides the bias in the coordinates of a preconditioner, and the direction u of the largest curvature.

        The Hessian is that of all rows: where they are not many times as many as coordinates, other rows have other
        steep directions.

        Args:
            position: a draw.
            gradient: of all the data there.
            preconditioner: M.
            temperature: of the draws.
            start: a direction that u may be near, if one is known.
        """
        along = self._along(position, preconditioner)
        probe = np.random.default_rng(0).choice([-1.0, 1.0], self.dim)
        image = along(probe)
        if not np.isfinite(image).all():
            return Rates(*[np.nan] * len(Rates._fields)), probe
        mean = float(probe @ image) / self.dim
        operator = LinearOperator((self.dim, self.dim), matvec=along, dtype=float)
        try:
            found, vectors = eigsh(
                operator,
                k=1,
                which="LA",
                v0=start if start is not None else probe,
                ncv=KRYLOV,
                tol=ACCURACY,
                maxiter=RESTARTS,
            )
            fastest, steepest = float(found[0]), vectors[:, 0]
        except ArpackNoConvergence:
            fastest, steepest = np.nan, probe / np.sqrt(self.dim)
        plate = self.plate
        inputs = self.cast(position), self.cast(gradient), self.cast(steepest)
        self.passes += 6
        along, total, spread, slope = self._with(preconditioner, "scatter along", _scatter_along, *inputs)
        size, _ = _small_groups(plate, len(self.target.plates))
        single = of_single_rows(plate.size, size)
        per_batch = single * (plate.size - plate.batch_size) / max(plate.size - 1, 1) / plate.batch_size
        noise = max(float(along) / fastest, float(total) / (self.dim * mean)) * single / plate.size
        hessian_noise = float(spread) * per_batch
        anchored = temperature * hessian_noise * of_rows(plate) / fastest**2
        return Rates(fastest, mean, noise + anchored, anchored, hessian_noise, float(slope) * per_batch), steepest

    def group_energies(self, positions: np.ndarray) -> np.ndarray:
        """Energies of ``GROUPS`` groups of rows, each of which stands for all, at positions (n, dim): (n, groups)."""

        def at_all(estimates, positions):
            size = min(estimates.plate.batch_size, max(1, estimates.plate.size // GROUPS))
            rows = estimates.groups(jnp.arange(GROUPS), size)
            return lax.map(lambda rows: jax.vmap(partial(estimates.energy, rows=rows))(positions), rows).T

        self.passes += len(positions) / 3 * min(1.0, GROUPS * self.plate.batch_size / self.plate.size)
        return np.asarray(self.look("group energies", at_all, self.cast(positions)), float)

    def rise(self, position: ArrayLike, gradient: ArrayLike, metric: Diagonal) -> Rise:
        """The least rise of the potential from a position, along the coordinate of least curvature."""
        position, gradient = jnp.asarray(position, self.dtype), jnp.asarray(gradient, self.dtype)
        probed = flat.probe(position, gradient, metric, jnp.sqrt(metric.diagonal))
        priors = self.priors(np.concatenate([probed.points[1:], probed.beyond]))
        return flat.rise_of(probed, self.heights(np.asarray(probed.points)), priors)

    def _along(self, position, preconditioner):
        """V to Lᵀ H L v, in double precision."""
        position = self.cast(position)

        def image(estimates, preconditioner, position, vector):
            direction = preconditioner.apply_root(vector)
            whole = estimates.full(lambda energy: product(energy, position, direction))
            return preconditioner.apply_root_transpose(whole)

        def along(vector):
            self.passes += 2
            return np.asarray(self._with(preconditioner, "curvature along", image, position, self.cast(vector)), float)

        return along

    def _with(self, preconditioner, name, function, *inputs):
        """A look with a learnt preconditioner, or the given one, which need be no pytree."""
        if isinstance(preconditioner, Diagonal):
            return self.look(name, function, preconditioner, *inputs)
        return self.look(f"{name}, given", lambda estimates, *i: function(estimates, preconditioner, *i), *inputs)


def _slopes(estimates, positions, keys):
    def at(look):
        position, key = look
        gradient = estimates.gradient(position)
        covariance = curvature.gradient_covariance(estimates, position, gradient, False, SOME_GROUPS)
        return gradient, covariance / estimates.plate.size + curvature.diagonal_of_priors(estimates, position, key)

    return lax.map(at, (positions, keys))


def _small_groups(plate, plates):
    size = plate.batch_size if plates > 1 else max(1, min(plate.batch_size, plate.size // SMALL_GROUPS))
    return size, max(2, plate.size // size)


def _scatter_along(estimates, preconditioner, position, mean, steepest):
    """Of groups of rows: Var(u·Lᵀg), E|Lᵀδg|², E|Lᵀ δH L u|², and the largest entry of Lᵀ E[δH M δg] beyond chance."""
    dim = position.size
    size, count = _small_groups(estimates.plate, len(estimates.target.plates))
    direction = preconditioner.apply_root(steepest)

    def of(energy):
        gradient, hessian = jax.linearize(jax.grad(energy), position)
        away = preconditioner.apply_root_transpose(gradient - mean)
        image = preconditioner.apply_root_transpose(hessian(direction))
        drift = preconditioner.apply_root_transpose(hessian(preconditioner.apply(gradient - mean)))
        return jnp.dot(steepest, away) ** 2, jnp.dot(away, away), jnp.dot(image, image), image, drift, drift**2

    sums = estimates.sum_over_groups(of, 0, count, size, 4 * dim)
    along, total, squares, image, drift, drifts = (sum_ / count for sum_ in sums)
    spread = (squares - jnp.dot(image, image)) * count / (count - 1)
    # Of so many coordinates some stand out by chance: what chance may do is taken off.
    error = jnp.sqrt(jnp.maximum(drifts - drift**2, 0) / (count - 1))
    slope = jnp.max(jnp.maximum(jnp.abs(drift) - jnp.sqrt(2 * jnp.log(dim)) * error, 0))
    return along, total, spread, slope
