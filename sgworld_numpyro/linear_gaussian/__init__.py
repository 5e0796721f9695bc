"""Exact stationary moments of stochastic-gradient Langevin chains on quadratic potentials."""

from sgworld_numpyro.linear_gaussian.distances import gaussian_kl, relative_covariance_error
from sgworld_numpyro.linear_gaussian.exact import StationaryMoments, stationary_moments
from sgworld_numpyro.linear_gaussian.orders import knows_scheme
from sgworld_numpyro.linear_gaussian.problem import LinearGaussian, control_variate, gaussian_mean, linear_regression
from sgworld_numpyro.linear_gaussian.steps import knows_integrator

__all__ = [
    "LinearGaussian",
    "StationaryMoments",
    "control_variate",
    "gaussian_kl",
    "gaussian_mean",
    "knows_integrator",
    "knows_scheme",
    "linear_regression",
    "relative_covariance_error",
    "stationary_moments",
]
