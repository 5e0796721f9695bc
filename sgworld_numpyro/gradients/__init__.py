"""Gradient estimators: from a minibatch's potential to a force."""

from sgworld_numpyro.gradients.control_variate import ControlVariate
from sgworld_numpyro.gradients.minibatch import Minibatch
from sgworld_numpyro.gradients.protocol import Anchor, GradientEstimator, Potential

__all__ = ["Anchor", "ControlVariate", "GradientEstimator", "Minibatch", "Potential"]
