"""Gradient estimators: from a minibatch's potential to a force."""

from sgworld_numpyro.gradients.minibatch import Minibatch
from sgworld_numpyro.gradients.protocol import GradientEstimator, Potential

__all__ = ["GradientEstimator", "Minibatch", "Potential"]
