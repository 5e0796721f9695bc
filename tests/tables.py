"""The schemes and integrators there are, for the tests of all of them: a new one is one new row here."""

import pytest

from sgworld_numpyro import (
    BAOAB,
    UBU,
    BatchReshuffle,
    Cyclic,
    EulerMaruyama,
    FullBatch,
    IndependentBatches,
    LeimkuhlerMatthews,
    RandomReshuffle,
    ShuffleOnce,
    SymmetricReshuffle,
    WithReplacement,
)


def by_name(value) -> str:
    """What pytest calls a scheme or an integrator, or a class of them."""
    return value.__name__ if isinstance(value, type) else type(value).__name__


SCHEMES = (
    BatchReshuffle(),
    Cyclic(),
    FullBatch(),
    IndependentBatches(),
    RandomReshuffle(),
    ShuffleOnce(),
    SymmetricReshuffle(),
    WithReplacement(),
)
# each epoch in another order, so that what holds on average over orders holds along a chain
RESHUFFLED = (RandomReshuffle(), BatchReshuffle(), SymmetricReshuffle())
OVERDAMPED = (EulerMaruyama(), LeimkuhlerMatthews())
KINETIC = (BAOAB, UBU)  # which want a friction

every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=by_name)
