"""What in a chain speaks against its linear description.

The measures of this package fit x_{t+1} − m = A (x_t − m) + noise: a Gaussian stationary law, a linear drift, noise
that does not depend on the position, no memory beyond the last draw. Each is tested here on the draws themselves.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.linear_dynamics import LinearDynamics, fit_linear_dynamics
from sgworld_numpyro.nonequilibrium.moments import Draws, as_draws

# A departure is reported if it is both beyond chance and large enough to matter.
SIGNIFICANT = 4.5  # standard errors; the largest of a hundred numbers rarely gets there by chance
RELEVANT = 0.1
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
        skewness: of the stationary law along its principal axes.
        excess_kurtosis: the same of its fourth moment.
        state_dependence: correlation of the noise's square with position or its square: diffusion that varies.
        nonlinearity: correlation of the noise with the square of the position: drift that is not linear.
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


def check_assumptions(x: Draws, *, dynamics: LinearDynamics | None = None, blocks: int = 64) -> Assumptions:
    """Test what the linear description takes for granted.

    Args:
        x: draws (chain, draw, dim).
        dynamics: the fit, if it has been made already.
        blocks: into how many blocks to cut the draws for the standard errors.

    Raises:
        ValueError: where not even a fit can be made; see ``fit_linear_dynamics``.
    """
    x = as_draws(x)
    fit = fit_linear_dynamics(x, blocks=blocks) if dynamics is None else dynamics
    whiten, smallest = _axes(fit)
    position = (x - fit.mean) @ whiten.T
    residual = _standardised(position[:, 1:] - position[:, :-1] @ (whiten @ fit.A @ np.linalg.inv(whiten)).T)
    now = position[:, :-1]
    square = (now**2 - 1) / np.sqrt(2)
    noise_square = (residual**2 - 1) / np.sqrt(2)
    table = {
        "skewness": position**3 - 3 * position,
        "excess_kurtosis": position**4 - 6 * position**2 + 3,
        "state_dependence": _products(noise_square, np.concatenate([now, square], -1)),
        "nonlinearity": _products(residual, square),
        "memory": _products(residual[:, 1:], residual[:, :-1]),
    }
    found = {name: _largest(values, blocks, name) for name, values in table.items()}
    time = fit.relaxation_time
    relaxations = x.shape[0] * (x.shape[1] - 1) / max(time, 1.0)
    problems = [_SENTENCES[name].format(f.value, f.error) for name, f in found.items() if f.counts]
    if relaxations < MIN_RELAXATIONS:
        problems.append(
            f"The chains are too short: {relaxations:.3g} relaxation times of {time:.3g} transitions in all; "
            f"want {MIN_RELAXATIONS} or more."
        )
    if smallest < MIN_NOISE:
        problems.append(
            f"The noise is nearly singular: {smallest:.1e} of the stationary variance in one direction. Entropy "
            "production is ill-conditioned; project on fewer directions, or name the momenta of a kinetic chain."
        )
    return Assumptions(
        **found, relaxation_time=time, relaxations=relaxations, smallest_noise=smallest, problems=tuple(problems)
    )


_SENTENCES = {
    "skewness": "The stationary law is not Gaussian: skewness {:.2f} ± {:.2f} along one axis.",
    "excess_kurtosis": "The stationary law is not Gaussian: excess kurtosis {:.2f} ± {:.2f} along one axis.",
    "state_dependence": "The diffusion depends on the position: correlation {:.2f} ± {:.2f} with the noise's square.",
    "nonlinearity": "The drift is not linear: correlation {:.2f} ± {:.2f} of the noise with the position's square.",
    "memory": (
        "The chain remembers more than its last draw: successive noises correlate by {:.2f} ± {:.2f}. Draws within a "
        "period of the scheme do; so do chains of which a part is not recorded."
    ),
}


def _axes(fit: LinearDynamics) -> tuple[Float[np.ndarray, "dim dim"], float]:
    """The map to coordinates of unit covariance in which the noise has a diagonal one, and its least variance."""
    root = np.linalg.inv(np.linalg.cholesky(fit.covariance))
    variances, axes = np.linalg.eigh(root @ fit.Q @ root.T)
    return axes.T @ root, float(variances[0])


def _standardised(values):
    return values / values.std((0, 1))


def _products(left, right):
    chains, draws, _ = left.shape
    return np.einsum("cti,ctj->ctij", left, right).reshape(chains, draws, -1)


def _largest(values, blocks, name):
    """The mean that stands out most from 0, with its standard error from blocks of time."""
    chains, draws, _ = values.shape
    per_chain = min(draws, -(-blocks // chains))
    means = np.array([part.mean(0) for chain in values for part in np.array_split(chain, per_chain)])
    mean, error = values.mean((0, 1)), means.std(0, ddof=1) / np.sqrt(len(means))
    worst = int(np.argmax(np.abs(mean) / error))
    relevant = RELEVANT_MEMORY if name == "memory" else RELEVANT
    counts = abs(mean[worst]) > max(relevant, SIGNIFICANT * error[worst])
    return Finding(float(mean[worst]), float(error[worst]), bool(counts))
