"""Exact stationary moments of stochastic-gradient Langevin chains on quadratic potentials."""

from sgworld_numpyro.linear_gaussian.distances import gaussian_kl, relative_covariance_error
from sgworld_numpyro.linear_gaussian.exact import (
    INTEGRATORS,
    KINETIC,
    OVERDAMPED,
    StationaryMoments,
    stationary_moments,
)
from sgworld_numpyro.linear_gaussian.orders import SCHEMES
from sgworld_numpyro.linear_gaussian.problem import LinearGaussian, control_variate, gaussian_mean, linear_regression

__all__ = [
    "INTEGRATORS",
    "KINETIC",
    "OVERDAMPED",
    "SCHEMES",
    "LinearGaussian",
    "StationaryMoments",
    "control_variate",
    "gaussian_kl",
    "gaussian_mean",
    "linear_regression",
    "relative_covariance_error",
    "stationary_moments",
]
