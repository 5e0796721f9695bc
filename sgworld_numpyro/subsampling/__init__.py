"""Subsampling schemes: which rows each minibatch takes."""

from sgworld_numpyro.subsampling.batch_reshuffle import BatchReshuffle
from sgworld_numpyro.subsampling.cyclic import Cyclic
from sgworld_numpyro.subsampling.full_batch import FullBatch
from sgworld_numpyro.subsampling.independent_batches import IndependentBatches
from sgworld_numpyro.subsampling.protocol import ContiguousScheme, NamedScheme, Plate, Redraws, SubsamplingScheme
from sgworld_numpyro.subsampling.random_reshuffle import RandomReshuffle
from sgworld_numpyro.subsampling.run_reshuffle import RunReshuffle
from sgworld_numpyro.subsampling.shuffle_once import ShuffleOnce
from sgworld_numpyro.subsampling.stream import dividing_batch_sizes
from sgworld_numpyro.subsampling.symmetric_reshuffle import SymmetricReshuffle
from sgworld_numpyro.subsampling.with_replacement import WithReplacement

SCHEMES: tuple[type[NamedScheme], ...] = (
    WithReplacement,
    IndependentBatches,
    FullBatch,
    RandomReshuffle,
    SymmetricReshuffle,
    RunReshuffle,
    BatchReshuffle,
    ShuffleOnce,
    Cyclic,
)

__all__ = [
    "SCHEMES",
    "BatchReshuffle",
    "ContiguousScheme",
    "Cyclic",
    "FullBatch",
    "IndependentBatches",
    "NamedScheme",
    "Plate",
    "RandomReshuffle",
    "Redraws",
    "RunReshuffle",
    "ShuffleOnce",
    "SubsamplingScheme",
    "SymmetricReshuffle",
    "WithReplacement",
    "dividing_batch_sizes",
    "named",
]


def named(name: str) -> type[NamedScheme] | None:
    """The package's scheme of that name, spelt as in saved runs or as its class; None if there is none."""
    spelt = name.replace("_", "").lower()
    return next((scheme for scheme in SCHEMES if scheme.name.replace("_", "") == spelt), None)
