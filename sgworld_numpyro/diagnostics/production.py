"""The entropy production of a run, by the linear description where that holds and by currents where it does not."""

import warnings
from typing import NamedTuple

import numpy as np

from sgworld_numpyro.nonequilibrium import (
    check_assumptions,
    entropy_production,
    held_out_sigma,
    lagged_moments,
    largest_order,
)
from sgworld_numpyro.nonequilibrium.assumptions import Assumptions
from sgworld_numpyro.nonequilibrium.entropy import Method

# So many that a verdict at 0.01 on the smaller of two p-values is in reach; that of currents is the smallest of three.
SURROGATES, OF_CURRENTS = 499, 1999
SIGNIFICANT = 0.01  # p-value of currents of higher order, from which on they are believed
MAX_CURRENTS = 300  # so that a diagnostic takes seconds


class Production(NamedTuple):
    """What a run produces, in nats a draw.

    Attributes:
        rate: NaN where reversals are too rare.
        error: its standard error.
        null: what it would be if time had no direction.
        p_value: of both methods, as twice the smaller of theirs.
        method: by which the rate is told.
        order: of the currents; 1 of the linear description.
        sigma: of each transition, of a fit to the other half of the run.
        assumptions: of the linear description.
        notes: what could not be measured.
    """

    rate: float
    error: float
    null: float
    p_value: float
    method: Method
    order: int
    sigma: np.ndarray
    assumptions: Assumptions
    notes: list[str]

    @property
    def told(self) -> bool:
        """Whether nothing found means that nothing is there: what is not linear was looked for, or there is none."""
        return not self.notes or not self.assumptions.nonlinear


def production_of(x, blocks: int, seed: int) -> Production:
    """The entropy production of draws (chain, draw, dim)."""
    assumptions = check_assumptions(x, blocks=blocks)
    # of moments: what is not linear has been looked for already
    linear = entropy_production(lagged_moments(x, blocks), surrogates=SURROGATES, seed=seed)
    order, notes = largest_order(x.shape[2], 3, MAX_CURRENTS), []
    currents = None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            currents = entropy_production(
                x, "currents", order=max(order, 1), blocks=blocks, surrogates=OF_CURRENTS, seed=seed
            )
        notes += [f"By currents: {warning.message}" for warning in caught]
    except ValueError as error:
        notes.append(f"Not measured by currents: {error}")
    method: Method = "ar1"
    if currents is None:
        return Production(*linear[1:4], linear.p_value, method, 1, held_out_sigma(x), assumptions, notes)
    p_value = min(1.0, 2 * min(linear.p_value, currents.p_value))
    higher = currents.order > 1 and 2 * currents.p_value <= SIGNIFICANT and np.isfinite(currents.rate)
    if assumptions.nonlinear or higher:
        return Production(
            *currents[1:4], p_value, "currents", currents.order, np.asarray(currents.sigma), assumptions, notes
        )
    return Production(*linear[1:4], p_value, method, 1, held_out_sigma(x), assumptions, [])
