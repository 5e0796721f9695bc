"""The schemes and integrators there are, for the tests of all of them: one new in the package is tested at once."""

import pytest

from sgworld_numpyro import BatchReshuffle, RandomReshuffle, SymmetricReshuffle, subsampling
from sgworld_numpyro.integrators import BAOAB, INTEGRATORS, UBU, EulerMaruyama, LeimkuhlerMatthews

__all__ = ["INTEGRATORS", "KINETIC", "OVERDAMPED", "RESHUFFLED", "SCHEMES", "by_name", "every_scheme"]


def by_name(value):
    """The id of a scheme or an integrator, or of a class of them; pytest's own for anything else."""
    return getattr(value, "name", None)


SCHEMES = tuple(scheme() for scheme in subsampling.SCHEMES)
# Their order changes from epoch to epoch, so that one chain meets all of them.
RESHUFFLED = RandomReshuffle(), BatchReshuffle(), SymmetricReshuffle()
OVERDAMPED = EulerMaruyama(), LeimkuhlerMatthews()
KINETIC = BAOAB, UBU  # of some friction

every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=by_name)
