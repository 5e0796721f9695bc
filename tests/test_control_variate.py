"""Control variates: the gradient as a change since the anchor, and where the anchor lies."""

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_numpyro import (
    SGWORLD,
    ControlVariate,
)
from sgworld_numpyro.gradients import Anchor
from tests.problems import misspecified_regression


def test_the_estimate_is_the_change_since_the_anchor():
    anchor = Anchor(jnp.array([1.0, 2.0]), jnp.array([10.0, 20.0]))
    energy, gradient = ControlVariate()(lambda x: jnp.sum(x**3), anchor)(jnp.array([2.0, 2.0]))
    assert energy == 16.0
    np.testing.assert_allclose(gradient, [12 - 3 + 10, 12 - 12 + 20])


def test_the_anchor_is_near_the_mode_with_the_gradient_of_all_rows():
    problem = misspecified_regression(7)  # does not divide 60
    kernel = SGWORLD(problem.model, 1e-3, gradient=ControlVariate())
    anchor = kernel.init(jax.random.key(0), 10, None, problem.data, {}).tuning.anchor
    exact = problem.exact.hessian @ (np.asarray(anchor.position, float) - problem.exact.mean)
    scale = np.sqrt(np.diag(problem.exact.hessian))
    assert np.all(np.abs(np.asarray(anchor.gradient) - exact) < 1e-3 * scale)
    assert np.all(np.abs(exact) < scale)
