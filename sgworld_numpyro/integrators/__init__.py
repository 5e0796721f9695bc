"""Integrators: how a force and a noise move the position."""

from sgworld_numpyro.integrators.baoab import BAOAB
from sgworld_numpyro.integrators.euler_maruyama import EulerMaruyama
from sgworld_numpyro.integrators.kinetic import KineticState, is_kinetic
from sgworld_numpyro.integrators.leimkuhler_matthews import LeimkuhlerMatthews
from sgworld_numpyro.integrators.protocol import Gradient, Integrator, NamedIntegrator
from sgworld_numpyro.integrators.ubu import UBU

INTEGRATORS: tuple[type[NamedIntegrator], ...] = (EulerMaruyama, LeimkuhlerMatthews, BAOAB, UBU)

__all__ = [
    "BAOAB",
    "INTEGRATORS",
    "UBU",
    "EulerMaruyama",
    "Gradient",
    "Integrator",
    "KineticState",
    "LeimkuhlerMatthews",
    "NamedIntegrator",
    "is_kinetic",
    "named",
]


def named(name: str) -> type[NamedIntegrator] | None:
    """The package's integrator of that name, spelt as in saved runs or as its class; None if there is none."""
    spelt = name.replace("_", "").lower()
    return next((integrator for integrator in INTEGRATORS if integrator.name.replace("_", "") == spelt), None)
