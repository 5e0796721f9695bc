"""What in a chain speaks against its linear description.

The measures of this package fit x_{t+1} − m = A (x_t − m) + noise: a Gaussian stationary law, a linear drift, noise
that does not depend on the position, no memory beyond the last draw. Each is tested here on the draws themselves.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from sgworld_numpyro.nonequilibrium.autoregression import LinearDynamics, fit_linear_dynamics
from sgworld_numpyro.nonequilibrium.draws import Draws, as_draws
from sgworld_numpyro.nonequilibrium.moments import time_blocks

# A departure is reported if it is both beyond chance and large enough to matter.
SIGNIFICANT = 4.5  # standard errors
FALSE_ALARMS = 1e-4  # how often by chance the largest of a table may be reported: of few blocks it takes more errors
RELEVANT = 0.1
MAX_PRODUCTS = 10  # dimensions up to which products of two coordinates are looked at, besides powers of one
# Minibatches without replacement leave a correlation of −1/(number of batches) at most between steps.
RELEVANT_MEMORY = 0.01
MIN_RELAXATIONS = 50  # of the slowest direction, in all chains together
MIN_NOISE = 1e-10  # of the stationary variance


class Finding(NamedTuple):
    """The entry of a table of dimensionless departures that stands out most, each 0 if the description holds.

    Attributes:
        value: the departure.
        error: its standard error.
        counts: whether it is beyond chance and large enough to matter.
    """

    value: float
    error: float
    counts: bool


class Assumptions(NamedTuple):
    """The tests, and in words what failed.

    Attributes:
        skewness: of the stationary law, along the coordinates and along the axes of the noise.
        excess_kurtosis: the same of its fourth moment.
        state_dependence: correlation of the noise's square with position or its square: diffusion that varies.
        nonlinearity: what a drift that is not linear moves in a relaxation time, in standard deviations: correlation of
            the noise with squares, cubes and products of coordinates, times √(2 relaxation time) of the direction.
        memory: correlation of successive noises: variables that are not recorded, or draws at mixed phases.
        relaxation_time: of the slowest direction, in transitions.
        relaxations: transitions of all chains over the relaxation time.
        smallest_noise: least variance of the noise of a transition, relative to the stationary variance.
        problems: one sentence for each that failed; empty if the linear description holds.
    """

    skewness: Finding
    excess_kurtosis: Finding
    state_dependence: Finding
    nonlinearity: Finding
    memory: Finding
    relaxation_time: float
    relaxations: float
    smallest_noise: float
    problems: tuple[str, ...]

    @property
    def nonlinear(self) -> tuple[str, ...]:
        """Those of the problems that ``entropy_production(x, method="currents")`` does not have."""
        return tuple(_sentence(name, getattr(self, name)) for name in _OF_LINEARITY if getattr(self, name).counts)


def check_assumptions(x: Draws, *, dynamics: LinearDynamics | None = None, blocks: int = 64) -> Assumptions:
    """Test what the linear description takes for granted.

    Args:
        x: draws (chain, draw, dim).
        dynamics: the fit, if it has been made already.
        blocks: into how many blocks to cut the draws for the standard errors.

    Raises:
        ValueError: where not even a fit can be made; see ``fit_linear_dynamics``.
    """
    rounding = _rounding(np.asarray(x))
    x = as_draws(x)
    fit = fit_linear_dynamics(x, blocks=blocks) if dynamics is None else dynamics
    root = np.linalg.inv(np.linalg.cholesky(fit.covariance))
    variances, axes = np.linalg.eigh(root @ fit.Q @ root.T)
    smallest = max(float(variances[0]), 0.0)
    whiten = axes.T @ root  # to coordinates of unit covariance in which the noise has a diagonal one
    position = (x - fit.mean) @ whiten.T
    residual = position[:, 1:] - position[:, :-1] @ (whiten @ fit.A @ np.linalg.inv(whiten)).T
    residual = residual[..., variances > MIN_NOISE] / np.sqrt(variances[variances > MIN_NOISE])
    both = np.concatenate([position, (x - fit.mean) / np.sqrt(np.diag(fit.covariance))], axis=-1)
    now = position[:, :-1]
    square = (now**2 - 1) / np.sqrt(2)
    noise_square = (residual**2 - 1) / np.sqrt(2)
    cube = (now**3 - 3 * now) / np.sqrt(6)
    first, second = np.triu_indices(now.shape[-1] if now.shape[-1] <= MAX_PRODUCTS else 0, 1)
    shapes = np.concatenate([square, cube, now[..., first] * now[..., second]], axis=-1)
    one = np.ones((*x.shape[:2], 1))
    # the noise of a transition grows with the root of its duration, and drift with the duration: compare them over 1/ε
    # transitions, with noise of variance 1 − (1 − ε)² a transition
    relaxation = 1 / (1 - np.sqrt(1 - np.clip(variances[variances > MIN_NOISE], 0, 1)))
    pairs = {
        "skewness": (one, both**3 - 3 * both),
        "excess_kurtosis": (one, both**4 - 6 * both**2 + 3),
        "state_dependence": (noise_square, np.concatenate([now, square], axis=-1)),
        "nonlinearity": (residual * np.sqrt(2 * relaxation), shapes),
        "memory": (residual[:, 1:], residual[:, :-1]),
    }
    found = {}
    for name, (left, right) in pairs.items():
        mean, error, count = _means(left, right, blocks)
        found[name] = _largest(mean, error, count, RELEVANT_MEMORY if name == "memory" else RELEVANT)
    time = fit.relaxation_time
    relaxations = x.shape[0] * (x.shape[1] - 1) / max(time, 1.0)
    problems = [_sentence(name, f) for name, f in found.items() if f.counts]
    if relaxations < MIN_RELAXATIONS:
        problems.append(
            f"The chains are too short: {relaxations:.3g} relaxation times of {time:.3g} transitions in all; "
            f"want {MIN_RELAXATIONS} or more."
        )
    if smallest < MIN_NOISE:
        problems.append(
            f"The noise is nearly singular: {smallest:.1e} of the stationary variance in one direction. Entropy "
            "production is ill-conditioned: project on fewer directions; of a kinetic chain, record every few steps."
        )
    if rounding > 0.1:
        problems.append(
            f"The draws are rounded: one unit in their last place is {rounding:.2g} of what they move in a transition. "
            "Sample in float64 (jax.config.update('jax_enable_x64', True)), or record less often."
        )
    return Assumptions(
        **found, relaxation_time=time, relaxations=relaxations, smallest_noise=smallest, problems=tuple(problems)
    )


_SENTENCES = {
    "skewness": "The stationary law is not Gaussian: skewness {:.2f} ± {:.2f} along one axis.",
    "excess_kurtosis": "The stationary law is not Gaussian: excess kurtosis {:.2f} ± {:.2f} along one axis.",
    "state_dependence": "The diffusion depends on the position: correlation {:.2f} ± {:.2f} with the noise's square.",
    "nonlinearity": "The drift is not linear: the rest of it moves {:.2f} ± {:.2f} sds in a relaxation time.",
    "memory": (
        "The chain remembers more than its last draw: successive noises correlate by {:.2f} ± {:.2f}. Draws within a "
        "period of the scheme do; so do chains of which a part is not recorded."
    ),
}


_OF_LINEARITY = ("skewness", "excess_kurtosis", "state_dependence", "nonlinearity")


def _sentence(name, finding):
    return _SENTENCES[name].format(finding.value, finding.error)


def _rounding(x):
    """The spacing of floating-point numbers at the draws, over the size of a move; the worst coordinate's."""
    if x.ndim < 2 or x.shape[-2] < 2 or not np.issubdtype(x.dtype, np.floating):
        return 0.0
    moves = np.sqrt(np.mean(np.diff(x, axis=-2).astype(float) ** 2, axis=tuple(range(x.ndim - 1))))
    spacing = np.spacing(np.abs(x).max(axis=tuple(range(x.ndim - 1)))).astype(float)
    return float(np.max(spacing / np.where(moves > 0, moves, np.inf)))


def _means(left, right, blocks):
    """Means of all products of a component of ``left`` and one of ``right``: of the run, and of blocks of time."""
    cuts = time_blocks(left.shape[:2], blocks)
    lengths = np.array([len(left[cut]) for cut in cuts])
    means = np.array([(left[cut].T @ right[cut]).ravel() for cut in cuts]) / lengths[:, None]
    return lengths @ means / lengths.sum(), means.std(0, ddof=1) / np.sqrt(len(means)), len(means)


def _largest(mean, error, blocks, relevance):
    """The mean that is beyond chance and relevant at once, most beyond chance; else the one most beyond chance."""
    if mean.size == 0:
        return Finding(0.0, np.nan, False)
    score = np.abs(mean) / np.where(error > 0, error, np.inf)
    beyond = max(SIGNIFICANT, student.isf(FALSE_ALARMS / 2 / mean.size, blocks - 1)) if blocks > 1 else np.inf
    counts = (np.abs(mean) > relevance) & (score > beyond)
    worst = int(np.argmax(np.where(counts, score, 0) if counts.any() else score))
    return Finding(float(mean[worst]), float(error[worst]), bool(counts.any()))
