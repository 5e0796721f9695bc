"""The largest step size, and the friction, for which the predicted bias stays within a tolerance.

In the fastest direction, of curvature λ in the preconditioner's coordinates, the relative error of the variance is

    e(h) = e_integrator(h) + (ρ + s)/T · e_scheme(Rhλ) + e_unequal(h).

e_scheme is the law of the scheme for rows that share their Hessian and have the noise of a well-specified model, which
``linear_gaussian`` knows exactly: (Rε)³/24 for reshuffled rows at the ends of passes, for instance (arXiv 2306.03521).
ρ is the gradients' noise, 0 with control variates, and s = E|δH_b u|²/(R λ²) what the scatter of the Hessians adds.
Where Hessians differ, reshuffled schemes also change the covariance and the mean themselves,

    e_unequal = (h/2) E|δH_b u|²/λ,   shift of the mean = (h/2) E[δH_b δg_b] / λ,

of first order for overdamped integrators; with h²(R + 1)/6 for h/2, of second order, for kinetic ones.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from sgworld_numpyro.integrators import NamedIntegrator
from sgworld_numpyro.linear_gaussian import gaussian_mean, stationary_moments
from sgworld_numpyro.subsampling import FullBatch, IndependentBatches, NamedScheme, WithReplacement
from sgworld_numpyro.tuning.curvature import Rates

# Beyond these times a step, in units of 1/λ and 1/√λ, other posteriors than Gaussians are sampled badly.
LARGEST_STEP = {"overdamped": 0.5, "kinetic": 0.7}
LONGEST_PASS = 1.0  # R h λ or R h √λ, beyond which a pass forgets its own beginning
SHORTEST_PASS = 1e-3  # below which a run would take thousands of passes to move
MAX_STEPS = 200  # of a period whose law is computed as it is; a longer one is replaced by one of as many steps
SHIFT = 2.0  # posterior sds that the mean may move by a unit of tolerance: 0.04 at 2 %
GRID = 1000


class BiasCurve(NamedTuple):
    """The logarithm of e_scheme against those of R h λ, or of R h √λ and R h γ for kinetic integrators."""

    pass_time: Float[np.ndarray, "times"]
    damping: Float[np.ndarray, "dampings"]
    excess: Float[np.ndarray, "dampings times"]

    def at(self, pass_time, damping):
        """e_scheme, interpolated in logarithms; may be traced."""
        x, y = jnp.log(pass_time), jnp.log(damping)
        if len(self.damping) == 1:
            return jnp.exp(jnp.interp(x, self.pass_time, self.excess[0]))
        rows = jnp.stack([jnp.interp(x, self.pass_time, row) for row in self.excess])
        place = jnp.clip(jnp.interp(y, self.damping, np.arange(len(self.damping))), 0, len(self.damping) - 1.001)
        low = place.astype(jnp.int32)
        below, above = (jnp.take_along_axis(rows, n[None], 0)[0] for n in (low, low + 1))
        return jnp.exp(below + (place - low) * (above - below))


def bias_curve(
    scheme: NamedScheme, integrator: NamedIntegrator, num_rows: int, batch_size: int, at_ends: bool
) -> BiasCurve:
    """The law of a scheme on rows with one Hessian and the noise of a well-specified model, in one dimension.

    Args:
        scheme: one of those that ``linear_gaussian`` knows.
        integrator: likewise; the curve is for all frictions, whatever its own.
        num_rows: N.
        batch_size: B.
        at_ends: whether draws are recorded at the ends of the scheme's periods, or at all phases.
    """
    # a partition's seed, a friction or the law of the noise make no other curve, and so no other entry of the cache
    return _curve_of(type(scheme), type(integrator), num_rows, batch_size, at_ends)


@lru_cache(maxsize=64)
def _curve_of(
    scheme_type: type[NamedScheme],
    integrator_type: type[NamedIntegrator],
    num_rows: int,
    batch_size: int,
    at_ends: bool,
) -> BiasCurve:
    scheme, integrator, factor = scheme_type(), integrator_type(), 1.0
    if isinstance(scheme, IndependentBatches):  # without duplicates; nothing else depends on N apart from R
        scheme, factor = WithReplacement(), (num_rows - batch_size) / max(num_rows - 1, 1)
    if num_rows // math.gcd(num_rows, batch_size) > MAX_STEPS:
        num_rows, batch_size = _fewer_rows(num_rows, batch_size)
    step_size = batch_size / num_rows
    last = 0.9 * min(2.0, 1 / step_size)
    times = np.r_[np.geomspace(1e-4, 0.05 * last, 5), np.geomspace(0.08 * last, last, 15)]  # powers at first
    rates = times**2 if integrator.kinetic else times
    values = np.random.default_rng(0).standard_normal(num_rows)
    values = (values - values.mean()) / values.std()
    # rows of variance N λ, each standing for all of them, so that Cov(g_b) = R λ
    problem = gaussian_mean(np.zeros((num_rows, len(rates))), np.diag(num_rows / rates))
    problem = problem._replace(row_shifts=values[:, None] * np.sqrt(rates / num_rows))

    def variances(scheme, integrator):
        moments = stationary_moments(problem, scheme, integrator, step_size, batch_size)
        return np.diagonal((moments.period_end if at_ends else moments.averaged)[1])

    def excess(integrator):
        found = factor * rates * (variances(scheme, integrator) - variances(FullBatch(), integrator))
        return np.log(np.maximum(found, np.finfo(float).eps))

    if not integrator.kinetic:
        return BiasCurve(np.log(times), np.zeros(1), excess(integrator)[None])
    dampings = np.geomspace(1e-3, 50, 16)
    with_friction = [replace(integrator, friction=float(damping)) for damping in dampings]  # type: ignore[type-var]
    return BiasCurve(np.log(times), np.log(dampings), np.stack([excess(damped) for damped in with_friction]))


def _fewer_rows(num_rows: int, batch_size: int) -> tuple[int, int]:
    """Rows and batch size with about as many batches a pass, if not more than a law needs, that straddle as before."""
    batches = min(num_rows / batch_size, MAX_STEPS / 2)
    if num_rows % batch_size == 0:
        return round(batches), 1
    size = max(2, int(MAX_STEPS / 2 / batches))
    rows = round(batches * size)
    return next(rows + n for n in range(size + 1) if math.gcd(rows + n, size) == 1), size


@dataclass(frozen=True)
class Discretisation:
    """What decides the bias besides the rates.

    Attributes:
        scheme: one that ``linear_gaussian`` knows.
        integrator: likewise; the friction is apart.
        num_rows, batch_size: N and B.
        at_ends: whether draws are recorded at the ends of the scheme's periods.
        temperature: T.
        minibatch_noise: whether the estimator has the gradients' noise at the mode (not with control variates).
        tolerance: what the relative error of the variance may be.
    """

    scheme: NamedScheme
    integrator: NamedIntegrator
    num_rows: int
    batch_size: int
    at_ends: bool
    temperature: float
    minibatch_noise: bool
    tolerance: float

    @property
    def kinetic(self) -> bool:
        """Whether the integrator has velocities."""
        return self.integrator.kinetic

    @property
    def batches(self) -> float:
        """R = N/B."""
        return 1.0 if isinstance(self.scheme, FullBatch) else self.num_rows / self.batch_size

    @property
    def largest_step(self) -> float:
        """Of h λ, or of h √λ."""
        return LARGEST_STEP["kinetic" if self.kinetic else "overdamped"]

    def bias(self, step_size, friction, rates: Rates) -> tuple[Array, Array]:
        """Relative error of the variance in the fastest direction, and shift of the mean in posterior sds."""
        rate = jnp.sqrt(rates.fastest) if self.kinetic else rates.fastest
        step, reshuffled = step_size * rate, self.scheme.redraws != "step"
        scale = step_size**2 * (self.batches + 1) / 6 if self.kinetic else step_size / 2
        own = self.integrator.variance_error(step)
        if isinstance(self.scheme, FullBatch):
            return own + 0 * step, 0 * step
        curve = bias_curve(self.scheme, self.integrator, self.num_rows, self.batch_size, self.at_ends)
        noise = rates.noise * self.minibatch_noise + rates.hessian_noise / (self.batches * rates.fastest**2)
        drawn = noise / self.temperature * curve.at(self.batches * step, self.batches * step_size * friction)
        unequal = scale * rates.hessian_noise / rates.fastest * reshuffled
        shift = scale * rates.slope / jnp.sqrt(rates.mean) * reshuffled * self.minibatch_noise
        return own + drawn + unequal, shift / jnp.sqrt(self.temperature)

    def choose(self, friction, rates: Rates) -> Array:
        """The largest step size within the tolerance; shorter than any that is of use if there is none."""
        rate = jnp.sqrt(rates.fastest) if self.kinetic else rates.fastest
        longest = min(LONGEST_PASS, self.largest_step * self.batches)
        steps = jnp.geomspace(SHORTEST_PASS / 3, longest, GRID) / (self.batches * rate)
        bias, shift = self.bias(steps, friction, rates)
        within = (bias <= self.tolerance) & (shift <= SHIFT * self.tolerance)
        return steps[jnp.maximum(jnp.sum(jnp.cumprod(within)) - 1, 0)]
