"""The minibatch's gradient with that at an anchor as control variate: g_b(θ) - g_b(θ̂) + ∇U(θ̂)."""

from dataclasses import dataclass
from typing import ClassVar

import jax


@dataclass(frozen=True)
class ControlVariate:
    """Only the *change* of the gradient since the anchor θ̂ is estimated from the minibatch.

    Its noise is (H_b - H)(θ - θ̂) instead of g_b - ∇U: small once the posterior is narrow beside the scale on which
    Hessians change, and none at all if all rows share their Hessian. Two gradients a step instead of one. The anchor
    is where the warm start ends; ∇U(θ̂) is computed there once, from all rows in blocks.

    Source: Baker et al. 2019, "Control variates for stochastic gradient MCMC", Statistics and Computing 29, 599.
    """

    needs_anchor: ClassVar[bool] = True

    def __call__(self, potential, anchor):
        def estimate(position):
            energy, gradient = jax.value_and_grad(potential)(position)
            return energy, gradient - jax.grad(potential)(anchor.position) + anchor.gradient

        return estimate
