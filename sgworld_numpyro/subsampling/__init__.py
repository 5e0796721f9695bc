"""Subsampling schemes: which rows each minibatch takes."""

from sgworld_numpyro.subsampling.batch_reshuffle import BatchReshuffle
from sgworld_numpyro.subsampling.cyclic import Cyclic
from sgworld_numpyro.subsampling.full_batch import FullBatch
from sgworld_numpyro.subsampling.independent_batches import IndependentBatches
from sgworld_numpyro.subsampling.protocol import ContiguousScheme, Plate, SubsamplingScheme
from sgworld_numpyro.subsampling.random_reshuffle import RandomReshuffle
from sgworld_numpyro.subsampling.shuffle_once import ShuffleOnce
from sgworld_numpyro.subsampling.symmetric_reshuffle import SymmetricReshuffle
from sgworld_numpyro.subsampling.with_replacement import WithReplacement

__all__ = [
    "BatchReshuffle",
    "ContiguousScheme",
    "Cyclic",
    "FullBatch",
    "IndependentBatches",
    "Plate",
    "RandomReshuffle",
    "ShuffleOnce",
    "SubsamplingScheme",
    "SymmetricReshuffle",
    "WithReplacement",
]
