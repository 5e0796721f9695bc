"""Integrators: how a force and a noise move the position."""

from sgworld_numpyro.integrators.baoab import BAOAB
from sgworld_numpyro.integrators.euler_maruyama import EulerMaruyama
from sgworld_numpyro.integrators.kinetic import KineticState, is_kinetic
from sgworld_numpyro.integrators.leimkuhler_matthews import LeimkuhlerMatthews
from sgworld_numpyro.integrators.protocol import Gradient, Integrator
from sgworld_numpyro.integrators.ubu import UBU

__all__ = [
    "BAOAB",
    "UBU",
    "EulerMaruyama",
    "Gradient",
    "Integrator",
    "KineticState",
    "LeimkuhlerMatthews",
    "is_kinetic",
]
