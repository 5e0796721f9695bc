"""Checks that a subsampling scheme or an integrator, of your own perhaps, keeps what its protocol promises."""

from sgworld_numpyro.testing.integrator_checks import IntegratorProperties, check_integrator
from sgworld_numpyro.testing.scheme_checks import SchemeProperties, check_scheme

__all__ = ["IntegratorProperties", "SchemeProperties", "check_integrator", "check_scheme"]
