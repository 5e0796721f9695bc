"""Integrators: how a force and a noise move the position."""

from sgworld_numpyro.integrators.euler_maruyama import EulerMaruyama
from sgworld_numpyro.integrators.leimkuhler_matthews import LeimkuhlerMatthews
from sgworld_numpyro.integrators.protocol import Gradient, Integrator

__all__ = ["EulerMaruyama", "Gradient", "Integrator", "LeimkuhlerMatthews"]
