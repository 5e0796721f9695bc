"""The largest step size, and the friction, for which the predicted bias stays within a tolerance.

In the fastest direction, of curvature λ in the preconditioner's coordinates, the relative error of the variance is

    e(h) = e_integrator(h) + (ρ/T) e_scheme(Rhλ) - e_unequal(h).

e_scheme is the law of the scheme for rows that share their Hessian and have the noise of a well-specified model, which
``linear_gaussian`` knows exactly: (Rε)³/24 for reshuffled rows at the ends of short passes, for instance (arXiv
2306.03521), and that of independent batches where a chain forgets within a pass. ρ is the noise of the gradients at
draws of the posterior, by that of a well-specified model. With control variates that is E|δH_i u|²/(N λ²), by the
scatter of single rows' Hessians, and of batches of long passes the bias E|δH_b u|²/λ² · h√λ/4 at γ = 2√λ.

Where Hessians differ, reshuffled schemes also change the covariance and the mean themselves, the former to be smaller.
Batches of one pass are
anticorrelated, so that what batch b did to the chain meets the others' Hessians, as far as the chain remembers it:

    e_unequal = f(Rε) E|δH_b u|²/(R λ²),   shift of the mean = f(Rε) E[δH_b δg_b]/(R λ²),

with f(p) = 1 - (1/p) ∫₀ᵖ g(t) dt and g the chain's memory of a displacement, e^{-t} for overdamped integrators: f is
p/2 for short passes, p²/6 for kinetic ones, and 1 for long ones.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from sgworld_numpyro.integrators import NamedIntegrator
from sgworld_numpyro.linear_gaussian.orders import batch_sum_covariance
from sgworld_numpyro.linear_gaussian.stationary import periodic_variances
from sgworld_numpyro.linear_gaussian.steps import LAWS
from sgworld_numpyro.subsampling import FullBatch, NamedScheme, WithReplacement
from sgworld_numpyro.tuning.curvature import Rates

# Beyond these times a step, in units of 1/λ and 1/√λ, other posteriors than Gaussians are sampled badly.
LARGEST_STEP = {"overdamped": 0.5, "kinetic": 0.7}
LONGEST_PASS = 1.0  # R h λ or R h √λ, beyond which a pass forgets its own beginning
SHORTEST_PASS = 1e-3  # below which a run would take thousands of passes to move
LAST_STEP = 0.9  # ε of the longest step whose law is looked at
FORGOTTEN = 20.0  # R ε of passes so long that what is reshuffled is as good as independent
MAX_PERIOD = 120  # of a period whose law is computed as it is; a longer one is replaced by one of as many steps
SHIFT = 2.0  # posterior sds that the mean may move by a unit of tolerance: 0.04 at 2 %
GRID = 1000
_NOTHING = np.finfo(float).eps


class BiasCurve(NamedTuple):
    """The logarithm of e_scheme against those of R h λ, or of R h √λ and γ/√λ for kinetic integrators."""

    pass_time: Float[np.ndarray, "times"]
    damping: Float[np.ndarray, "dampings"]
    excess: Float[np.ndarray, "dampings times"]

    def at(self, pass_time, damping):
        """e_scheme, interpolated in logarithms; may be traced."""
        xp = numpy_of(pass_time, damping)
        x, y = xp.broadcast_arrays(xp.log(pass_time), xp.log(damping))
        rows = xp.stack([xp.interp(x, self.pass_time, row) for row in self.excess])
        places = np.arange(len(rows))
        place = xp.interp(y, self.damping, places) if len(rows) > 1 else xp.zeros_like(y)
        # a hat over each row: 1 at its own place, 0 at its neighbours'
        weights = xp.maximum(1 - xp.abs(place - places.reshape(-1, *[1] * place.ndim)), 0)
        return xp.exp(xp.sum(weights * rows, axis=0))


def numpy_of(*numbers):
    """NumPy for numbers that are known, in double precision and with nothing to compile; else JAX's."""
    return jnp if any(isinstance(number, jax.Array) for number in numbers) else np


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
    scheme, integrator, batches = scheme_type(), integrator_type(), num_rows / batch_size
    longest = LAST_STEP * batches
    times = np.unique(np.r_[np.geomspace(SHORTEST_PASS / 3, min(0.1, longest), 6), _up_to(0.1, 30.0, longest, 28)])
    times = np.unique(np.r_[times, _up_to(30.0, longest, longest, 8)])
    dampings = np.geomspace(0.05, 50, 16) if integrator.kinetic else np.ones(1)
    independent = _excess(WithReplacement(), integrator, times, dampings, num_rows, batch_size, at_ends)
    if isinstance(scheme, WithReplacement):
        found = independent
    elif scheme.redraws == "step" or num_rows // math.gcd(num_rows, batch_size) <= MAX_PERIOD:
        found = _excess(scheme, integrator, times, dampings, num_rows, batch_size, at_ends)
    else:
        # By how much a scheme has less than independent batches depends on the length of the passes, and hardly on the
        # number of their steps: it is looked at with few. Of long passes it is less and less, as 1/p.
        fewer = _fewer_rows(num_rows, batch_size)
        within = np.minimum(times, min(FORGOTTEN, LAST_STEP * fewer[0] / fewer[1]))
        share = np.log(
            _excess(scheme, integrator, within, dampings, *fewer, at_ends)
            / _excess(WithReplacement(), integrator, within, dampings, *fewer, at_ends)
        )
        found = independent * np.exp(share * within / times)
    return BiasCurve(np.log(times), np.log(dampings), np.log(found))


def _up_to(first, last, longest, count):
    """Times between these, none beyond the longest."""
    return np.geomspace(first, min(last, longest), count) if longest > first else np.empty(0)


def _excess(scheme, integrator, times, dampings, num_rows, batch_size, at_ends):
    """What batches add to the relative variance, by γ/√λ and the pass time, rows having variance N λ for the whole."""
    step_size = batch_size / num_rows  # in units in which a pass is 1
    law, rates = LAWS[type(integrator)], times**2 if integrator.kinetic else times
    contractions, directions = [], []
    for damping in dampings:
        for time, rate in zip(times, rates, strict=True):
            parts = law.step(step_size, 1.0, damping * time)
            contractions.append(parts.with_curvature(np.array([rate]))[0])
            directions.append(parts.after @ parts.kick)
    covariance = batch_sum_covariance(scheme, num_rows, batch_size) * num_rows / batch_size**2
    found = periodic_variances(np.array(contractions), np.array(directions), covariance, scheme.redraws == "never")
    variances = (found[0] if at_ends else found.mean(0))[:, 0, 0].reshape(len(dampings), len(times))
    return np.maximum(rates**2 * variances, _NOTHING)


def _fewer_rows(num_rows: int, batch_size: int) -> tuple[int, int]:
    """Rows and batch size with about as many batches a pass, if not more than a law needs, that straddle as before."""
    batches = min(num_rows / batch_size, MAX_PERIOD / 2)
    if num_rows % batch_size == 0:
        return round(batches), 1
    size = max(2, int(MAX_PERIOD / 2 / batches))
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
        """Relative error of the variance at most, in any direction, and shift of the mean in posterior sds."""
        wider, narrower, shift = self.parts(step_size, friction, rates)
        return numpy_of(wider, narrower).maximum(wider, narrower), shift

    def parts(self, step_size, friction, rates: Rates) -> tuple[Array, Array, Array]:
        """What makes the variance too large, what makes it too small, relatively, and the shift of the mean.

        Each in the direction in which it is largest, as ``rates`` are.
        """
        xp = numpy_of(step_size, friction, *rates)
        rate = xp.sqrt(rates.fastest) if self.kinetic else rates.fastest
        step = step_size * rate
        own = self.integrator.variance_error(step) + 0 * step
        if isinstance(self.scheme, FullBatch):
            return own, 0 * step, 0 * step
        damping = friction / rate
        curve = bias_curve(self.scheme, self.integrator, self.num_rows, self.batch_size, self.at_ends)
        noise = rates.noise if self.minibatch_noise else rates.anchored_noise
        drawn = noise / self.temperature * curve.at(self.batches * step, damping)
        met_again = self.met_again(self.batches * step, damping) / self.batches
        unequal = met_again * rates.hessian_noise / rates.fastest**2
        shift = met_again * rates.slope / (rates.fastest * xp.sqrt(rates.mean)) * self.minibatch_noise
        return own + drawn, unequal, shift / np.sqrt(self.temperature)

    def met_again(self, pass_time, damping):
        """f: how much of what a batch did is still there when the rest of its pass comes, which makes up for it."""
        xp = numpy_of(pass_time, damping)
        if self.scheme.redraws == "step":
            return xp.zeros_like(pass_time)
        # of single precision little is left in short passes: the series there
        if not self.kinetic:
            short = pass_time / 2 - pass_time**2 / 6
            return xp.where(pass_time < 0.05, short, 1 + xp.expm1(-pass_time) / pass_time)
        short = pass_time**2 / 6 - damping * pass_time**3 / 24 + (damping**2 - 1) * pass_time**4 / 120
        return (1 + 1 / self.batches) * xp.where(pass_time < 0.2, short, _forgotten(xp, pass_time, damping))

    def choose(self, friction, rates: Rates) -> Array:
        """The largest step size within the tolerance; shorter than any that is of use if there is none."""
        xp = numpy_of(friction, *rates)
        rate = xp.sqrt(rates.fastest) if self.kinetic else rates.fastest
        longest = self.largest_step * self.batches
        if self.minibatch_noise:
            longest = min(longest, LONGEST_PASS)
        steps = xp.asarray(np.geomspace(SHORTEST_PASS / 3, longest, GRID)) / (self.batches * rate)
        bias, shift = self.bias(steps, friction, rates)
        within = (bias <= self.tolerance) & (shift <= SHIFT * self.tolerance)
        return steps[xp.maximum(xp.sum(xp.cumprod(within)) - 1, 0)]


def _forgotten(xp, pass_time, damping):
    """1 - (1/p) ∫₀ᵖ g of g'' + c g' + g = 0, g(0) = 1, g'(0) = 0, whose integral is c(1 - g) - g'."""
    root = xp.sqrt(xp.asarray(damping**2 / 4 - 1, complex) + 1e-6)
    decay = xp.exp(-damping * pass_time / 2)
    grown, fallen = xp.exp(root * pass_time) * decay, xp.exp(-root * pass_time) * decay
    cosh, sinh = xp.real(grown + fallen) / 2, xp.real((grown - fallen) / (2 * root))
    memory = cosh + damping / 2 * sinh
    return 1 - (damping * (1 - memory) + sinh) / pass_time
