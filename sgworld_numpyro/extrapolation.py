"""What the step size does to a posterior, from runs at h and h/2, and its moments extrapolated to h = 0.

Both runs span the same time, so that they have the same Monte Carlo error, and start from the same states. Whatever a
kernel tunes is tuned once, for the first run; the second halves that step and keeps all else.
"""

import json
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float
from scipy.special import stdtr

from sgworld_numpyro.chain.settings import Settings
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.linear_gaussian import knows_integrator
from sgworld_numpyro.subsampling import WithReplacement

MIN_CHAINS = 8  # of which a standard error is known to a quarter
CHANCE = 0.01
SHOWN_ROWS = 12
# HDF5 keeps no attribute of more than 64 kB; so many coordinates take 20.
STORED_COORDINATES = 100
_DIGITS = 6
_SECOND_RUN = 0x4A1F


class Extrapolation(NamedTuple):
    """Posterior moments of the unconstrained coordinates at two step sizes, and extrapolated to none.

    Errors are Monte Carlo standard errors, from the differences between chains. Those of the extrapolated moments come
    from chains in pairs, one at h and one at h/2 with the same order of data.

    - **step_sizes** - h and h/2.
    - **names** - of the coordinates, sites in alphabetical order: ``"w[0]"``.
    - **mean**, **mean_error** - at h and h/2, shape (2, dim).
    - **variance**, **variance_error** - likewise.
    - **extrapolated_mean**, **extrapolated_mean_error** - (2ᵖ v(h/2) - v(h)) / (2ᵖ - 1), shape (dim,).
    - **extrapolated_variance**, **extrapolated_variance_error** - likewise.
    - **mean_moved**, **variance_moved** - v(h/2) - v(h), in its standard errors: a t variate of chains - 1 degrees of
      freedom where the step size makes no difference.
    - **p_value** - of no moment having moved, by Bonferroni: the smallest one times 2 dim.
    - **order** - p.
    - **num_chains** - of each run.
    - **gradients** - minibatch gradients that the steps of both runs took, warm-up included.
    """

    step_sizes: Float[np.ndarray, "2"]
    names: tuple[str, ...]
    mean: Float[np.ndarray, "2 dim"]
    mean_error: Float[np.ndarray, "2 dim"]
    variance: Float[np.ndarray, "2 dim"]
    variance_error: Float[np.ndarray, "2 dim"]
    extrapolated_mean: Float[np.ndarray, " dim"]
    extrapolated_mean_error: Float[np.ndarray, " dim"]
    extrapolated_variance: Float[np.ndarray, " dim"]
    extrapolated_variance_error: Float[np.ndarray, " dim"]
    mean_moved: Float[np.ndarray, " dim"]
    variance_moved: Float[np.ndarray, " dim"]
    p_value: float
    order: float
    num_chains: int
    gradients: int

    @property
    def moved(self) -> bool:
        """Whether some mean or variance moved by more than chance would, at a level of 1 %."""
        return self.p_value < CHANCE

    @property
    def worst_first(self) -> np.ndarray:
        """Numbers of the coordinates, by how many standard errors they moved."""
        return np.argsort(-np.maximum(abs(self.mean_moved), abs(self.variance_moved)), kind="stable")

    def __str__(self) -> str:
        """A table of the coordinates that moved most, and a sentence."""
        h, half = self.step_sizes
        header = ("coordinate", "moment", f"h = {h:.3g}", f"h = {half:.3g}", "h to 0", "moved, in errors")
        rows = [header]
        for i in self.worst_first[:SHOWN_ROWS]:
            for moment in ("mean", "variance"):
                value, error = getattr(self, moment)[:, i], getattr(self, f"{moment}_error")[:, i]
                limit = getattr(self, f"extrapolated_{moment}")[i], getattr(self, f"extrapolated_{moment}_error")[i]
                cells = [f"{v:.4g} ± {e:.2g}" for v, e in (*zip(value, error, strict=True), limit)]
                rows.append((self.names[i], moment, *cells, f"{getattr(self, f'{moment}_moved')[i]:+.1f}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        hidden = len(self.names) - SHOWN_ROWS
        if hidden > 0:
            lines.append(f"and {hidden} coordinates more, which moved less")
        found = "Means or variances moved" if self.moved else "No mean or variance moved beyond chance"
        lines.append(
            f"{found} from h to h/2: p = {self.p_value:.2g}. Errors of order h^{self.order:g} are extrapolated."
        )
        if (self.extrapolated_variance <= 0).any():
            lines.append(
                "Some variance is extrapolated to nothing or less: h is too large to extrapolate from; halve it."
            )
        return "\n".join(lines)

    def to_json(self) -> str:
        """For ``posterior.attrs["extrapolation"]`` of a saved run, where the diagnostics look for it.

        The hundred coordinates that moved most, with **coordinates**, the number of all of them.
        """
        kept = np.sort(self.worst_first[:STORED_COORDINATES])
        stored: dict[str, Any] = {"coordinates": len(self.names), "names": [self.names[i] for i in kept]}
        for name, value in self._asdict().items():
            if isinstance(value, np.ndarray):
                chosen = value if name == "step_sizes" else value[..., kept]
                stored[name] = (
                    [[_short(x) for x in row] for row in chosen] if value.ndim == 2 else list(map(_short, chosen))
                )
            elif name != "names":
                stored[name] = value
        return json.dumps(stored)


def extrapolate(
    kernel: StochasticGradientKernel,
    rng_key: Array,
    *args: Any,
    num_warmup: int,
    num_samples: int,
    num_chains: int = 16,
    order: float | None = None,
    init_params: Any = None,
    **kwargs: Any,
) -> Extrapolation:
    """Posterior means and variances at step sizes h and h/2, whether they differ, and what they tend to as h → 0.

    With v(h) = v(0) + c hᵖ + …,

        v(0) ≈ (2ᵖ v(h/2) - v(h)) / (2ᵖ - 1).

    p is 1 for overdamped integrators: Euler-Maruyama has an error of first order itself, independent batches heat the
    chain in proportion to h, and reshuffled ones leave a term of that order where minibatches differ in their Hessians,
    as in every regression. It is 2 for kinetic integrators on reshuffled batches, where those terms are of second
    order, and 1 on independent ones, which heat the velocity in proportion to h. Without minibatches it is 2, but for
    Euler-Maruyama. If the leading term happens to vanish (reshuffled batches of equal Hessians), what remains of higher
    order is extrapolated with the wrong weights: if nothing moved, the moments at h/2 are the ones to use.

    Chains come in pairs, at h and h/2, that share their order of data and start; their noises are independent. A
    ``ShuffleOnce`` chain's law depends on the order that it drew, and so does that of a fixed partition.

    Args:
        kernel: as for ``MCMC``; its samples must be whole periods of the subsampling scheme, as they are by default:
            a tuned number of steps is rounded up to such.
        rng_key: one key.
        args: the model's.
        num_warmup: samples to leave out, of time steps_per_sample × h, at both step sizes.
        num_samples: samples of each chain after these.
        num_chains: how many pairs of chains, vectorized.
        order: p, if it is to be another one.
        init_params: unconstrained initial values, chains along the first axis.
        kwargs: the model's.

    Returns:
        Moments, errors and a verdict.

    Raises:
        ValueError: for fewer than eight chains, a schedule of step sizes, temperature 0, samples that are no whole
            periods, an integrator whose order is not known, or if a chain diverges. ``TuningError`` as from ``init``.
        TypeError: if the kernel is not one of this package.

    Source: Talay and Tubaro (1990, Stoch. Anal. Appl. 8), for the expansion in h.
    """
    _check(kernel, num_warmup, num_samples, num_chains, order)
    state = kernel.init(random.split(rng_key, num_chains), num_warmup, init_params, args, kwargs)
    state = _of_whole_periods(kernel, state, args, kwargs)
    settings = kernel.settings(args, kwargs, state)
    _check_settings(settings)
    order = _order_of(settings) if order is None else order
    moments_from = _moments_from(kernel, num_warmup, num_samples, args, kwargs)
    states = state, _halved(state)
    moments = [moments_from(start, each) for start, each in zip(states, (1, 2), strict=True)]
    means = np.stack([mean for mean, _ in moments])  # run, chain, dim
    # about the mean of all chains, so that the spread of the chains' means counts as variance
    about = np.stack([square for _, square in moments]) + (means - means.mean(1, keepdims=True)) ** 2
    # the mean of all chains is itself off, by as much as its error says
    variance = about.mean(1) + _error(means) ** 2
    mean_moved, variance_moved = _moved(means.mean(1), means), _moved(variance, about)
    return Extrapolation(
        step_sizes=np.array([_step_size(start) for start in states]),
        names=tuple(site + index for site, index in settings.target.coordinates()),
        mean=means.mean(1),
        mean_error=_error(means),
        variance=variance,
        variance_error=_error(about),
        extrapolated_mean=_limit(means.mean(1), order),
        extrapolated_mean_error=_error(_limit(means, order)),
        extrapolated_variance=_limit(variance, order),
        extrapolated_variance_error=_error(_limit(about, order)),
        mean_moved=mean_moved,
        variance_moved=variance_moved,
        p_value=_bonferroni(np.concatenate([mean_moved, variance_moved]), num_chains - 1),
        order=order,
        num_chains=num_chains,
        gradients=num_chains * (num_warmup + num_samples) * settings.steps_per_sample * 3 * _gradients_a_step(settings),
    )


def _check(kernel, num_warmup, num_samples, num_chains, order):
    if not isinstance(kernel, StochasticGradientKernel):
        raise TypeError(f"extrapolate wants a kernel such as SGWORLD(model), got {kernel!r}.")
    if num_chains < MIN_CHAINS:
        raise ValueError(
            f"num_chains={num_chains} is too few for errors, which come from the differences between chains: want "
            f"{MIN_CHAINS} at least, and 16 by default."
        )
    if num_warmup < 0 or num_samples < 2:
        raise ValueError(f"num_warmup={num_warmup}, num_samples={num_samples}; want 0 and 2 at least.")
    if order is not None and not order > 0:
        raise ValueError(f"order={order} must be positive: the bias is taken to go as h to that power; 1 or 2.")


def _check_settings(settings: Settings) -> None:
    if callable(settings.step_size):
        raise ValueError(
            "extrapolate wants one step size, which it halves, but the kernel has the schedule "
            f"{settings.step_size!r}: give it a number, step_size=h, or leave it out to have it tuned."
        )
    if settings.temperature == 0:
        raise ValueError(
            "At temperature 0 all spread of the draws is due to the step size: there is no posterior to tend to. "
            "Use a temperature, as SGLD and SGWORLD do."
        )
    steps, period = settings.steps_per_sample, settings.period
    if steps % period:
        raise ValueError(
            f"steps_per_sample={steps} is no multiple of the scheme's period of {period} steps: at h and h/2 "
            f"draws would lie at different phases of it. Use steps_per_sample={period}, or a batch size that divides "
            "the number of rows, which makes the period one pass."
        )


def _of_whole_periods(kernel, state, args, kwargs):
    """The state with a tuned number of steps a sample rounded up to whole periods of the scheme."""
    settings, given = kernel.settings(args, kwargs, state), kernel.settings(args, kwargs)
    if settings.steps_per_sample == given.steps_per_sample:
        return state
    steps = -(-settings.steps_per_sample // settings.period) * settings.period
    return state._replace(tuning=replace(state.tuning, steps=steps))


def _gradients_a_step(settings):
    return 2 if settings.gradient.needs_anchor else 1


def _order_of(settings: Settings) -> int:
    integrator, scheme = settings.integrator, settings.subsampling
    if not knows_integrator(integrator):
        raise ValueError(
            f"The order in h of the bias of integrator={integrator!r} is not known; give order=1 or order=2."
        )
    all_rows = all(plate.batch_size == plate.size for plate in settings.plates)
    if all_rows and not isinstance(scheme, WithReplacement):
        return integrator.bias_order
    return integrator.bias_order if integrator.kinetic and settings.period > 1 else 1


def _halved(state: SGState) -> SGState:
    """The state for half the step, with the same order of the data and other noise."""
    noise = jax.vmap(lambda key: random.fold_in(key, _SECOND_RUN))(state.rng_key)
    return state._replace(step_size=state.step_size / 2, rng_key=noise)


def _moments_from(kernel, num_warmup, num_samples, args, kwargs):
    """From a state, mean of each chain and mean square about it, without keeping draws; shapes (chain, dim).

    Every so many of the kernel's samples are one here. How many is an argument, so that one compiled loop serves both
    step sizes.
    """

    @jax.jit
    def run(state, each):
        def add(number, carry):  # Welford's, which keeps its digits far from the origin
            state, mean, squares = carry
            state = kernel.sample(state, args, kwargs)
            count = (number + 1) // each - num_warmup
            recorded = ((number + 1) % each == 0) & (count > 0)
            apart = jnp.where(recorded, state.position - mean, 0)
            mean = mean + apart / jnp.maximum(count, 1)
            return state, mean, squares + apart * (state.position - mean)

        nothing = jnp.zeros_like(state.position)
        return lax.fori_loop(0, (num_warmup + num_samples) * each, add, (state, nothing, nothing))

    def moments(state, each):
        last, mean, squares = jax.device_get(run(state, each))
        failed = (last.divergences > 0) | ~np.isfinite(squares).all(-1)
        if failed.any():
            raise ValueError(
                f"{failed.sum()} of {len(failed)} chains diverged at step size {_step_size(state):.3g}: they have no "
                "posterior moments to extrapolate. Lower the step size."
            )
        return mean.astype(float), squares.astype(float) / num_samples

    return moments


def _step_size(state):
    return float(np.ravel(state.step_size)[0])


def _error(values):
    """Standard error of the mean over chains, the axis before the last."""
    return values.std(-2, ddof=1) / np.sqrt(values.shape[-2])


def _limit(values, order):
    coarse, fine = values
    return fine + (fine - coarse) / (2.0**order - 1)


def _moved(value, chains):
    error = _error(chains[1] - chains[0])
    return (value[1] - value[0]) / np.where(error > 0, error, np.inf)


def _bonferroni(t, freedom):
    """At most the probability that one of so many t variates lies as far out as the largest of these."""
    return min(1.0, len(t) * 2 * float(stdtr(freedom, -abs(t).max())))


def _short(number):
    return float(f"{number:.{_DIGITS}g}")
