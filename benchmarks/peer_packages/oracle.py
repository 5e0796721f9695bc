"""The settings at which a package without tuning does best, from the exact law of its chain on a normal posterior.

Along an eigenvector of the Hessian, with eigenvalue λ and a variance c of the minibatch gradient, every chain here is
x' = a x + noise, so that its variance and its correlation time are known. A user does not know them: what is measured
with these settings is what a package can reach, not what it gives.
"""

from typing import NamedTuple

import numpy as np

ALLOWED_BIAS = 0.005  # of posterior sds, rms; beside a sampling error of 1 % it hardly counts


class Settings(NamedTuple):
    """Step size, gradients a transition, and gradients an effective draw of the squares."""

    step_size: float
    integration_steps: int
    cost: float


def gradient_variances(posterior, mode, covariance, controlled, rng, num_draws=50):
    """λ and c for all eigenvectors of the Hessian at the mode, rows drawn with replacement.

    With control variates the noise depends on where the chain is; c is then its mean over the normal posterior.
    """
    rates, vectors = np.linalg.eigh(np.linalg.inv(covariance))
    x, along = posterior.x.astype(float), posterior.x.astype(float) @ vectors
    rows, batch_size = len(x), posterior.batch_size

    def chance(weights):
        return 1 / (1 + np.exp(-x @ weights))

    at_mode = chance(mode)
    if controlled:
        factors = [chance(rng.multivariate_normal(mode, covariance)) - at_mode for _ in range(num_draws)]
    else:
        factors = [at_mode - posterior.y]
    variance = np.mean([(factor[:, None] * along).var(0) for factor in factors], axis=0)
    return rates, rows**2 / batch_size * variance


def _langevin(rates, noise):
    """(step size, gradients, decay, variance) of SGLD."""
    for step_size in np.geomspace(1e-7, 1, 400) / rates.max():
        decay = 1 - step_size * rates
        yield step_size, 1, decay, (2 * step_size + step_size**2 * noise) / (1 - decay**2)


def _hamiltonian(rates, noise):
    """The same of BlackJAX's SGHMC: velocities drawn anew, then Euler steps, all with one minibatch.

    Its friction is left out: α = 0.01 by default, where a coordinate turns with the frequency √λ of some tens.
    """
    start = np.zeros((3, len(rates)))  # x and p as sums of multiples of x₀, p₀ and the minibatch's error
    for step_size in np.geomspace(1e-6, 1, 150) / np.sqrt(rates.max()):
        x, p = start.copy(), start.copy()
        x[0], p[1] = 1, 1
        for steps in range(1, 1001):
            force = -rates * x
            force[2] += 1
            x, p = x + step_size * p, p + step_size * force
            if steps > 1:  # the first moves x with no gradient yet
                decay, velocity, minibatch = x
                with np.errstate(divide="ignore", invalid="ignore"):
                    variance = (velocity**2 + minibatch**2 * noise) / (1 - decay**2)
                yield step_size, steps, decay, variance


def best(rates, noise, hamiltonian):
    """The cheapest settings with no more than the allowed bias."""
    found = None
    for step_size, steps, decay, variance in (_hamiltonian if hamiltonian else _langevin)(rates, noise):
        if not (np.abs(decay) < 1).all():
            continue
        bias = np.sqrt(np.mean((np.sqrt(variance * rates) - 1) ** 2))
        cost = float(steps * np.mean((1 + decay**2) / (1 - decay**2)))
        if bias <= ALLOWED_BIAS and (found is None or cost < found.cost):
            found = Settings(float(step_size), steps, cost)
    if found is None:
        raise ValueError(f"no settings have a bias of sds of {ALLOWED_BIAS:.1%} or less")
    return found
