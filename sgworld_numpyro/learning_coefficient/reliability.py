"""What the draws of tied chains say against the learning coefficient that they give."""

import warnings
from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import split_gelman_rubin

from sgworld_numpyro.chain.convergence import R_HAT
from sgworld_numpyro.learning_coefficient.tied_chains import Draws

SHARE = 0.1  # of the estimate, that the tie may decide, and that it may move from the first half to the second
TEMPERATURE = 0.05  # that the temperature may be off, relatively
BELOW = 0.1  # of the estimate, or nats, that the loss may fall below that of w₀
ERRORS = 3.0  # standard errors that chance is given beside


class LearningCoefficientWarning(UserWarning):
    """The draws speak against the learning coefficient that was estimated from them."""


class Mean(NamedTuple):
    """A mean over chains.

    Attributes:
        value: the mean.
        error: its standard error, from the differences between chains.
    """

    value: float
    error: float


def over_chains(by_chain: np.ndarray) -> Mean:
    """The mean of one number a chain."""
    return Mean(float(by_chain.mean()), float(by_chain.std(ddof=1) / np.sqrt(len(by_chain))))


def tie_slope(draws: Draws, localisation: float) -> Mean:
    """dλ̂ / d ln γ = −Cov(nβ (L − L(w₀)), γ|w − w₀|²/2) in the tied law, without another run."""
    energy = localisation * draws.squares / 2
    away = draws.excess - draws.excess.mean(), energy - energy.mean()
    return over_chains(-(away[0] * away[1]).mean(1))


def complaints(draws: Draws, estimate: Mean, slope: Mean, temperature: Mean) -> tuple[str, ...]:
    """What speaks against an estimate, in words, with what to do.

    Args:
        draws: that it was made of.
        estimate: λ̂.
        slope: dλ̂ / d ln γ.
        temperature: of the chains, by T.
    """
    length = draws.excess.shape[1]
    found = []
    if estimate.value < 0:
        found.append(
            f"The estimate is negative: on average the loss is lower than at w₀, by {-estimate.value:.2g} nats at this "
            "temperature. w₀ is no minimum; start at one."
        )
    elif draws.excess.min() < -BELOW * max(estimate.value, 1.0):
        found.append(
            f"The loss falls below that of w₀ by {-draws.excess.min():.2g} nats at this temperature, so that the "
            "estimate is too small by as much: start at the minimum that the chains have found."
        )
    r_hat = float(split_gelman_rubin(draws.excess[..., None])[0]) if np.ptp(draws.excess) > 0 else 1.0
    if r_hat > R_HAT[0] + R_HAT[1] / length:
        found.append(f"The chains are apart: R-hat of the loss is {r_hat:.2f}. Take more samples.")
    half = length // 2
    moved = over_chains(draws.excess[:, half:].mean(1) - draws.excess[:, :half].mean(1))
    if abs(moved.value) > ERRORS * moved.error + SHARE * abs(estimate.value):
        found.append(
            f"The loss has not come to rest: from the first half of the draws to the second λ moved by "
            f"{moved.value:+.2g}. Take a longer warm-up."
        )
    if abs(slope.value) * np.log(2) > ERRORS * slope.error + SHARE * abs(estimate.value):
        found.append(
            f"The tie decides: twice the localisation would change λ by {slope.value * np.log(2):+.2g}. Use a smaller "
            "one, as long as the chains stay near w₀."
        )
    measured = f"The temperature is {temperature.value:.2f} ± {temperature.error:.2f} of what it must be"
    beyond = ERRORS * temperature.error + TEMPERATURE
    if temperature.value - 1 > beyond:
        found.append(
            f"{measured}, and λ is too large by about as much: the step is too long. Give a smaller step_size or "
            "bias_tolerance, or larger minibatches."
        )
    elif 1 - temperature.value > beyond:
        found.append(
            f"{measured}: from w₀ the chains have not yet filled the tie where the loss is flat, and λ may still "
            "change. Take a longer warm-up, or a larger localisation."
        )
    return tuple(found)


def tell(found: tuple[str, ...]) -> None:
    """Warn of complaints, if there are any."""
    if found:
        warnings.warn(" ".join(found), LearningCoefficientWarning, stacklevel=3)
